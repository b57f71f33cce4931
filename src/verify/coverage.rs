//! What nobody could look at, because the lines that would show it are not there. Said, so that no violation is not taken
//! for more than it is.
//!
//! What is missing at the end of a life, or cannot be compared, is said where it is looked for ([`super::books`],
//! [`super::targets`], [`super::outcome`]); here is what is missing as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use super::history::Taken;
use super::story::{Life, Story};
use super::violation::Verdict;
use super::{Line, Outside, What};
use crate::event::Event;
use crate::fence::{Epoch, Resource, WriterId};

pub fn check(story: &Story<'_>, verdict: &mut Verdict) {
    if story.options.whole {
        return;
    }
    let there = There::of(story);
    there.targets(verdict);
    there.writers(story, verdict);
    there.grants(verdict);
    for life in story.all_lives() {
        beginning_and_end(life, verdict);
    }
}

/// Some names, and how many more there are.
pub fn listed<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.len() {
        ..=SHOWN => names.join(", "),
        many => format!("{} and {} more", names[..SHOWN].join(", "), many - SHOWN),
    }
}

/// What there are lines of.
#[derive(Default)]
struct There<'a> {
    /// Targets with lines of their own, and those of them that say what they apply.
    came: BTreeSet<Arc<str>>,
    recorded: BTreeSet<Arc<str>>,
    /// Targets that a door stands before, or that a client names.
    guarded: BTreeSet<Arc<str>>,
    sent_to: BTreeSet<Arc<str>>,
    /// Writes at a target without an epoch.
    unstamped: BTreeMap<&'a Arc<str>, usize>,
    /// Who stamped what was applied, and who has lines of its own.
    stamped_by: BTreeSet<&'a WriterId>,
    processes: BTreeSet<&'a WriterId>,
    granted: BTreeSet<&'a Resource>,
    heard: BTreeSet<(&'a Resource, Epoch)>,
    used: BTreeMap<(&'a Resource, Epoch), &'a Line>,
}

impl<'a> There<'a> {
    fn of(story: &Story<'a>) -> There<'a> {
        let mut there = There { guarded: story.guarded(), ..There::default() };
        for item in &story.items {
            match &item.line.what {
                What::Event(Event::Started { id, .. }) => drop(there.processes.insert(id)),
                What::Event(Event::Elected { resource, epoch, .. } | Event::Verified { resource, epoch, .. }) => {
                    there.heard.insert((resource, *epoch));
                }
                What::Event(_) => {}
                What::Outside(outside) => there.outside(outside, item.line),
            }
        }
        there
    }

    fn outside(&mut self, outside: &'a Outside, line: &'a Line) {
        match outside {
            Outside::Sent { target: Some(target), .. } => drop(self.sent_to.insert(Arc::clone(target))),
            Outside::Recorded { target } => drop(self.recorded.insert(Arc::clone(target))),
            Outside::Received(taken) => drop(self.came.insert(Arc::clone(&taken.target))),
            Outside::Applied { taken, .. } => self.applied(taken, line),
            Outside::Granted { resource, epoch, .. } => {
                self.granted.insert(resource);
                self.heard.insert((resource, *epoch));
            }
            _ => {}
        }
    }

    fn applied(&mut self, taken: &'a Taken, line: &'a Line) {
        self.came.insert(Arc::clone(&taken.target));
        self.recorded.insert(Arc::clone(&taken.target));
        self.stamped_by.extend(&taken.writer);
        match taken.epoch {
            Some(epoch) => drop(self.used.entry((&taken.resource, epoch)).or_insert(line)),
            None => *self.unstamped.entry(&taken.target).or_insert(0) += 1,
        }
    }

    /// Whether targets and doors have lines, and of the same targets.
    fn targets(&self, verdict: &mut Verdict) {
        if self.recorded.is_empty() {
            let more = if self.came.is_empty() { ", I9 and I10" } else { "" };
            verdict.not_checked(format!(
                "I1, I2{more} at the target, and I3, I4 and I5: no target's lines are there (`applied`, or `recorded`)"
            ));
        } else {
            let named: BTreeSet<&Arc<str>> = self.guarded.union(&self.sent_to).collect();
            for silent in named.into_iter().filter(|target| !self.recorded.contains(*target)) {
                verdict.not_checked(format!(
                    "I1, I2 and I9 at {silent}, and I3, I4, I5 and I10 of what was sent there: no `applied` line is of \
                     {silent}; there are some of {}",
                    listed(&self.recorded)
                ));
            }
        }
        if self.guarded.is_empty() {
            verdict.not_checked("I2, I7, I8 and I9: no door's lines are there".to_owned());
        } else {
            for open in self.came.difference(&self.guarded) {
                verdict.not_checked(format!(
                    "I2 and I9 at {open}: no door guards {open}; there are some before {}",
                    listed(&self.guarded)
                ));
            }
        }
        for (target, count) in &self.unstamped {
            verdict.not_checked(format!("I1, I2 and I6 of {count} writes at {target}: they have no `epoch`"));
        }
    }

    /// Whether those who stamped have lines.
    fn writers(&self, story: &Story<'_>, verdict: &mut Verdict) {
        if !story.all_lives().any(Life::stamps) {
            verdict.not_checked("I6, that writers stamp only what they won: no stamp's lines are there".to_owned());
        } else {
            let unknown: Vec<_> = self.stamped_by.difference(&self.processes).collect();
            if !unknown.is_empty() {
                verdict.not_checked(format!(
                    "I6, that writers stamp only what they won: no lines are there of {}",
                    listed(unknown)
                ));
            }
        }
    }

    /// Whether it is known of every epoch who was granted it.
    fn grants(&self, verdict: &mut Verdict) {
        let known = self.heard.iter().chain(self.used.keys()).map(|(resource, _)| *resource);
        let untold: BTreeSet<&Resource> = known.filter(|resource| !self.granted.contains(resource)).collect();
        if !untold.is_empty() {
            let untold = listed(untold);
            verdict.not_checked(format!("I6 and I7, that every epoch was granted: no `granted` line is of {untold}"));
        }
        let strange = self.used.iter().filter(|(of, _)| !self.heard.contains(of) && !self.granted.contains(of.0));
        let strange: Vec<String> =
            strange.map(|((resource, epoch), line)| format!("epoch {epoch} of {resource} ({})", line.place)).collect();
        if !strange.is_empty() {
            verdict.not_checked(format!(
                "I6, who was granted what writes were applied under: no other line tells of {}",
                listed(strange)
            ));
        }
    }
}

/// Whether all of a life is there.
fn beginning_and_end(life: &Life<'_>, verdict: &mut Verdict) {
    if !life.from_its_start {
        verdict.not_checked(format!("I6, I7, I8 and I9 of {} in part: its lines do not begin with `started`", life.of));
    }
    if life.whole {
        return;
    }
    let mut open = BTreeSet::new();
    for item in &life.items {
        match &item.line.what {
            What::Event(Event::Admitted { write, .. }) => drop(open.insert(*write)),
            What::Event(Event::Settled { write, .. }) => drop(open.remove(write)),
            _ => {}
        }
    }
    if !open.is_empty() {
        verdict.not_checked(format!(
            "I9 of {} writes that {} let in: it did not stop in order, and did not write how they ended",
            open.len(),
            life.of
        ));
    }
}
