//! What a door remembers over a restart (R5): a plain value; `crate::state_dir` keeps it on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Epoch, Nonce, Resource, Term, WriterId};

/// The highest epoch that a door has learned of for one resource: everything below it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Floor {
    /// The epoch.
    pub epoch: Epoch,
    /// The nonce of its term: the same epoch with another nonce is another term (R3).
    pub nonce: Nonce,
    /// Who leads it.
    pub writer: WriterId,
    /// Whether this door has drained for this epoch: nothing of a lower one can still land.
    pub drained: bool,
    /// Whether it was opened without that proof. Never together with `drained`.
    pub forced: bool,
}

impl Floor {
    /// The floor of a term just learned: not drained, not forced.
    pub fn of(term: &Term) -> Floor {
        Floor { epoch: term.epoch, nonce: term.nonce, writer: term.writer.clone(), drained: false, forced: false }
    }

    /// The term that it belongs to.
    pub fn term(&self) -> Term {
        Term { epoch: self.epoch, nonce: self.nonce, writer: self.writer.clone() }
    }
}

/// What a door remembers of one resource at one target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// The floor; none until the first epoch is learned.
    pub floor: Option<Floor>,
    /// Whether nothing that was forwarded can still take effect: put on by an orderly stop with an empty ledger,
    /// taken off, durably, before the first write is forwarded.
    pub clean: bool,
    /// Whether it was written while the listener ran in `mode: audit`.
    pub audit: bool,
}

impl Remembered {
    /// A resource that this door has never forwarded a write of.
    pub const NEW: Remembered = Remembered { floor: None, clean: true, audit: false };

    /// Whether a door that starts with this, in audit mode or not, has residue (DESIGN 3.3): its predecessor may have
    /// forwarded writes that still land. A switch from audit to enforce counts as such a start.
    pub fn has_residue(&self, audit: bool) -> bool {
        !self.clean || (self.audit && !audit)
    }
}

/// All that a door remembers: the content of its floor file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// The highest coordinator revision seen in a linearizable answer; 0 before the first.
    pub revision: u64,
    /// Whether records were lost: an earlier file could not be read, and the operator said to start without it. A
    /// resource without a record then counts as not clean. It goes when all residue has been waited out.
    pub forgotten: bool,
    /// The targets at which this door's record may not stand any more: it took it back or marked it *left* when it
    /// stopped, or found it gone, or another's in its place. There another may have opened since, and it joins like a
    /// new one. By target: at one of them it may have joined again, and not at another.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<Arc<str>>,
    /// By target and resource. Nothing is ever taken out: a resource may come back into the configuration.
    pub targets: BTreeMap<Arc<str>, BTreeMap<Resource, Remembered>>,
}

impl Memory {
    /// What is remembered of one resource at one target.
    pub fn of(&self, target: &str, resource: &Resource) -> Remembered {
        let record = self.targets.get(target).and_then(|resources| resources.get(resource));
        record.cloned().unwrap_or(Remembered { clean: !self.forgotten, ..Remembered::NEW })
    }

    /// Remembers this of one resource at one target, instead of what was there.
    pub fn put(&mut self, target: &Arc<str>, resource: &Resource, record: Remembered) {
        self.targets.entry(target.clone()).or_default().insert(resource.clone(), record);
    }

    /// Every record with its target and resource.
    pub fn records(&self) -> impl Iterator<Item = (&Arc<str>, &Resource, &Remembered)> {
        self.targets
            .iter()
            .flat_map(|(target, all)| all.iter().map(move |(resource, record)| (target, resource, record)))
    }

    /// Takes every clean mark off: what a start that can't trust its file does.
    pub fn distrust(&mut self) {
        self.targets.values_mut().flat_map(BTreeMap::values_mut).for_each(|record| record.clean = false);
    }

    /// Counts every record as not standing: of whose they are another process may know more.
    pub fn leave_all(&mut self) {
        self.left = self.targets.keys().cloned().collect();
    }

    /// The first floor of `self` that `later` has lost or lowered, with its target and resource (R5).
    pub fn first_lowered_in(&self, later: &Memory) -> Option<(&Arc<str>, &Resource, Epoch)> {
        self.records().find_map(|(target, resource, record)| {
            let floor = record.floor.as_ref()?;
            let kept = later.targets.get(target).and_then(|all| all.get(resource)).and_then(|kept| kept.floor.as_ref());
            let stands = kept.is_some_and(|kept| kept.epoch >= floor.epoch);
            (!stands).then_some((target, resource, floor.epoch))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(epoch: u64) -> Floor {
        Floor::of(&Term {
            epoch: Epoch::new(epoch).expect("in range"),
            nonce: Nonce::from_bytes([7; 8]),
            writer: "orders-a".parse().expect("an id"),
        })
    }

    fn memory(epoch: u64) -> Memory {
        let mut memory = Memory::default();
        let record = Remembered { floor: Some(floor(epoch)), clean: true, audit: false };
        memory.put(&"db".into(), &"orders/7".parse().expect("a name"), record);
        memory
    }

    #[test]
    fn residue_is_what_is_not_clean_or_comes_from_audit() {
        assert!(!Remembered::NEW.has_residue(false));
        assert!(Remembered { clean: false, ..Remembered::NEW }.has_residue(false));
        assert!(Remembered { audit: true, ..Remembered::NEW }.has_residue(false), "from audit to enforce");
        assert!(!Remembered { audit: true, ..Remembered::NEW }.has_residue(true), "from audit to audit");
        assert!(!Remembered::NEW.has_residue(true), "from enforce to audit");
    }

    #[test]
    fn a_resource_without_a_record_is_new_unless_records_were_lost() {
        let name = "orders/8".parse().expect("a name");
        assert_eq!(memory(4).of("db", &name), Remembered::NEW);
        let lost = Memory { forgotten: true, ..memory(4) };
        assert!(lost.of("db", &name).has_residue(false));
    }

    #[test]
    fn a_lowered_or_lost_floor_is_found() {
        assert_eq!(memory(4).first_lowered_in(&memory(4)), None);
        assert_eq!(memory(4).first_lowered_in(&memory(5)), None);
        assert!(memory(5).first_lowered_in(&memory(4)).is_some());
        assert!(memory(5).first_lowered_in(&Memory::default()).is_some());
        assert_eq!(Memory::default().first_lowered_in(&memory(1)), None);
    }

    #[test]
    fn distrust_takes_the_clean_marks_and_nothing_else() {
        let mut memory = memory(4);
        memory.distrust();
        let record = memory.of("db", &"orders/7".parse().expect("a name"));
        assert_eq!(record, Remembered { floor: Some(floor(4)), clean: false, audit: false });
    }
}
