//! What the checker says: which rule was broken, how, and by which lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Line;

/// What must hold of every history. The codes are those of the reference, `docs/reference/history.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// The history does not contradict itself.
    Record,
    /// At a target, epochs never decrease in the order in which it applied the writes.
    Order,
    /// Nothing of an epoch takes effect, or is let in, once a later one has the door.
    Closed,
    /// What was acknowledged is in the target exactly once, as it was sent.
    Acknowledged,
    /// What was certainly refused is not in the target.
    Refused,
    /// What nobody knows of is in the target once, or not at all.
    Unknown,
    /// Every epoch was granted, to the one who used it, and no epoch twice.
    Granted,
    /// A door never forgets an epoch, and knows of none that was never granted.
    Floor,
    /// A door has an epoch on its disk before it acts on it.
    Persisted,
    /// What a door let in leaves its books exactly once, and nothing comes to its target past it.
    Books,
    /// Nothing comes to a target more often than its client sent it.
    Once,
    /// When nothing is broken any more, writes are acknowledged again.
    Liveness,
    /// What clients were told is what the product says that it told them.
    Told,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 13] = [
        Invariant::Record,
        Invariant::Order,
        Invariant::Closed,
        Invariant::Acknowledged,
        Invariant::Refused,
        Invariant::Unknown,
        Invariant::Granted,
        Invariant::Floor,
        Invariant::Persisted,
        Invariant::Books,
        Invariant::Once,
        Invariant::Liveness,
        Invariant::Told,
    ];

    /// Its code.
    pub const fn code(self) -> &'static str {
        match self {
            Invariant::Record => "I0",
            Invariant::Order => "I1",
            Invariant::Closed => "I2",
            Invariant::Acknowledged => "I3",
            Invariant::Refused => "I4",
            Invariant::Unknown => "I5",
            Invariant::Granted => "I6",
            Invariant::Floor => "I7",
            Invariant::Persisted => "I8",
            Invariant::Books => "I9",
            Invariant::Once => "I10",
            Invariant::Liveness => "I11",
            Invariant::Told => "I13",
        }
    }

    /// The invariant in one sentence.
    pub const fn in_words(self) -> &'static str {
        match self {
            Invariant::Record => "the history does not contradict itself",
            Invariant::Order => "at a target, epochs never decrease in the order in which it applied the writes",
            Invariant::Closed => "nothing of an epoch is let in or applied once a later one has the door",
            Invariant::Acknowledged => "what was acknowledged is in the target exactly once, as it was sent",
            Invariant::Refused => "what was certainly refused is not in the target",
            Invariant::Unknown => "what nobody knows of is in the target once, or not at all",
            Invariant::Granted => "every epoch was granted, to the one who used it, and no epoch twice",
            Invariant::Floor => "a door never forgets an epoch, and knows of none that was never granted",
            Invariant::Persisted => "a door has an epoch on its disk before it acts on it",
            Invariant::Books => "what a door let in leaves its books once, and nothing comes to its target past it",
            Invariant::Once => "nothing comes to a target more often than its client sent it",
            Invariant::Liveness => "when nothing is broken any more, writes are acknowledged again",
            Invariant::Told => "what clients were told is what the product says that it told them",
        }
    }
}

/// The code, as everybody names it.
impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// What does not hold.
    pub invariant: Invariant,
    /// The safety rule that is broken, as docs/safety.md names it: `R1` to `R7`; `liveness`, or `history` where the
    /// history itself is wrong.
    pub rule: &'static str,
    /// What is wrong, in one sentence, with the names and numbers.
    pub what: String,
    /// The lines that show it.
    pub lines: Vec<Line>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.invariant, self.rule, self.what)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {}  {}", line.place, line.to_json()))
    }
}

/// How much there was to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines.
    pub lines: usize,
    /// Processes of the product.
    pub processes: usize,
    /// Their starts.
    pub starts: usize,
    /// Operations of clients.
    pub operations: usize,
    /// Of them, those that were acknowledged.
    pub acknowledged: usize,
    /// Writes that targets applied.
    pub applied: usize,
    /// Terms, by epoch and resource.
    pub terms: usize,
    /// Times that a door opened.
    pub opened: usize,
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// How much there was to check.
    pub counts: Counts,
    /// What is wrong, in the order of the invariants; at most [`Verdict::SHOWN`] of each.
    pub violations: Vec<Violation>,
    /// How many more there are of each.
    pub left_out: BTreeMap<Invariant, usize>,
    /// What could not be checked, and why: for people.
    pub not_checked: BTreeSet<String>,
}

impl Verdict {
    /// So many violations of one invariant are shown.
    pub const SHOWN: usize = 100;

    /// Whether every rule was kept, as far as it was checked.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// The invariants that do not hold.
    pub fn broken(&self) -> BTreeSet<Invariant> {
        self.violations.iter().map(|violation| violation.invariant).collect()
    }

    pub(super) fn add(&mut self, invariant: Invariant, rule: &'static str, what: String, lines: &[&Line]) {
        let is_full = || self.violations.iter().filter(|other| other.invariant == invariant).count() >= Verdict::SHOWN;
        if !self.left_out.contains_key(&invariant) && !is_full() {
            let lines = lines.iter().map(|line| (*line).clone()).collect();
            self.violations.push(Violation { invariant, rule, what, lines });
        } else {
            *self.left_out.entry(invariant).or_default() += 1;
        }
    }

    pub(super) fn not_checked(&mut self, what: String) {
        self.not_checked.insert(what);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))?;
        for (invariant, count) in &self.left_out {
            writeln!(f, "{invariant}: {count} more")?;
        }
        let Counts { lines, operations, applied, terms, .. } = self.counts;
        let (wrong, left_out) = (self.violations.len(), self.left_out.values().sum::<usize>());
        write!(
            f,
            "{} violations in {lines} lines: {operations} operations, {applied} writes applied, {terms} terms",
            wrong + left_out
        )
    }
}
