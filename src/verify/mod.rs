//! The history checker: did what was recorded keep the rules?
//!
//! A history is a list of [`Line`]s: the product's own events (the key `history:`), and what the outside saw of it:
//! clients, targets, the coordinator, whoever kills processes. The simulation makes one in memory, the tests with real
//! processes and users read one from files. `docs/reference/history.md` describes every line and every invariant.
//!
//! | file | what it is for |
//! |---|---|
//! | [`history`], [`read`] | what a line may be; reading files of them |
//! | [`violation`] | the invariants, and what is said of a history |
//! | [`story`] | the lines in order, by process and life |
//! | [`targets`] | I1, I2: the order at a target, and what it may not apply any more |
//! | [`operations`] | I3, I4, I5, I10: what became of what clients sent |
//! | [`terms`] | I6: who was granted which epoch, and who used it |
//! | [`doors`] | I7, I8: what a door remembers, and what it does first |
//! | [`books`] | I9: what was let in leaves, and nothing goes past the door |
//! | [`outcome`] | I11, I13: whether it goes on, and what clients were told |
//! | [`coverage`] | what nobody could look at, because no lines show it |
//!
//! A violation is reported only where the history proves it. Where a line may be missing (a process was killed, and had
//! not written its last events) or two times cannot be compared, nothing is said.

mod books;
mod coverage;
mod doors;
pub mod history;
mod operations;
mod outcome;
pub mod read;
mod story;
mod targets;
mod terms;
#[cfg(test)]
mod tests;
pub mod violation;

pub use history::{Line, Outside, Place, Taken, What};
pub use violation::{Counts, Invariant, Verdict, Violation};

use crate::event::Event;
use crate::fence::Outcome;
use story::Story;

/// How a history is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether the times of all lines are of one clock: of one host that was not started anew, or of one simulation.
    /// Else they are compared within a file only.
    pub clock: bool,
    /// Whether nothing is missing: what a killed process had seen is there to the last event, as in a simulation that
    /// records in memory, and every target is recorded.
    pub whole: bool,
}

impl Default for Options {
    /// One clock; a killed process may have lost its last events.
    fn default() -> Options {
        Options { clock: true, whole: false }
    }
}

/// Checks a history. The lines of one process are to be in the order in which it wrote them; otherwise the order of
/// the input means nothing.
pub fn check(lines: &[Line], options: Options) -> Verdict {
    let story = Story::of(lines, options);
    let mut verdict = Verdict { counts: count(&story), ..Verdict::default() };
    targets::check(&story, &mut verdict);
    operations::check(&story, &mut verdict);
    terms::check(&story, &mut verdict);
    doors::check(&story, &mut verdict);
    books::check(&story, &mut verdict);
    outcome::check(&story, &mut verdict);
    coverage::check(&story, &mut verdict);
    verdict.violations.sort_by_key(|violation| violation.invariant);
    verdict
}

fn count(story: &Story<'_>) -> Counts {
    let mut counts = Counts { lines: story.items.len(), processes: story.lives.len(), ..Counts::default() };
    counts.starts = story.lives.values().map(Vec::len).sum();
    let (mut operations, mut acknowledged) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for item in &story.items {
        match &item.line.what {
            What::Outside(Outside::Sent { op, .. }) => drop(operations.insert(op)),
            What::Outside(Outside::Ended { op, outcome, status, .. }) if is_acknowledged(*outcome, *status) => {
                acknowledged.insert(op);
            }
            What::Outside(Outside::Applied { .. }) => counts.applied += 1,
            What::Event(Event::Opened { .. }) => counts.opened += 1,
            _ => {}
        }
    }
    counts.operations = operations.len();
    counts.acknowledged = acknowledged.len();
    counts
}

/// Whether the target said that it did it.
fn is_acknowledged(outcome: Outcome, status: Option<u16>) -> bool {
    outcome == Outcome::Answered && status.is_none_or(|status| (200..300).contains(&status))
}
