//! The coordinator: production's store as a value, and what befalls it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use epochgate::coordinator::embedded::state::{Decision, State, Value};
use epochgate::coordinator::keys;
use epochgate::coordinator::observer::Reading;
use epochgate::coordinator::records::{EpochRecord, from_value, to_value};
use epochgate::coordinator::store::{Committed, Keys, Range, Revision, Snapshot, StoreError, Txn};

use crate::part::Part;
use crate::words::{NOW, SESSION, orders};

/// The store, and a backup of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    state: Part<State>,
    backup: Option<Part<State>>,
    /// Whether it was wiped or restored: from then on it may have forgotten what it had answered.
    pub has_forgotten: bool,
}

impl Coordinator {
    /// An empty store.
    pub fn new() -> Coordinator {
        Coordinator { state: Part::new(State::default()), backup: None, has_forgotten: false }
    }

    /// By what it is told from others.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// A linearizable read.
    pub fn read(&self, ranges: &[Range]) -> Snapshot {
        Snapshot { revision: Revision(self.state.revision), ranges: self.state.read(ranges), sent: NOW }
    }

    /// What an observer would report of everything under these prefixes.
    pub fn reading(&self, prefixes: &[&str]) -> Reading {
        let covers: Vec<Keys> = prefixes.iter().map(|prefix| Keys::Under((*prefix).to_owned())).collect();
        let read = self.read(&covers.iter().cloned().map(Range::all).collect::<Vec<_>>());
        let entries = read.ranges.into_iter().flatten().collect();
        Reading { revision: read.revision, sent: NOW, covers, entries, updates: Vec::new(), looked: 0 }
    }

    /// Commits a transaction.
    pub fn commit(&mut self, txn: &Txn) -> Result<Committed, StoreError> {
        let decision = self.state.transact(txn)?;
        Ok(self.take(decision))
    }

    /// Whether it holds this lease.
    pub fn has_lease(&self, lease: i64) -> bool {
        self.state.leases.contains_key(&lease)
    }

    /// The leases that it holds.
    pub fn leases(&self) -> impl Iterator<Item = i64> {
        self.state.leases.keys().copied()
    }

    /// The leases that no key goes with.
    pub fn leases_without_keys(&self) -> Vec<i64> {
        let in_use = |lease: &i64| self.state.keys.values().any(|key| key.lease == Some(*lease));
        self.state.leases.keys().copied().filter(|lease| !in_use(lease)).collect()
    }

    /// Grants a lease.
    pub fn grant(&mut self, lease: i64) {
        let decision = self.state.grant(lease, SESSION, NOW, "boot");
        self.take_keeping_revision(decision);
    }

    /// A lease ends, and its keys with it.
    pub fn end_lease(&mut self, lease: i64) {
        let decision = self.state.revoke(lease);
        self.take_keeping_revision(decision);
    }

    /// Gives the revisions that `others` and the keys speak of the numbers from 1 on, in their order, so that states
    /// that differ only in how many changes there have been are one. Returns the new number of each. For worlds in which
    /// the coordinator never goes back, and nothing else speaks of revisions: of the record's there, nobody asks.
    pub fn renumber(&mut self, others: impl Iterator<Item = Revision>) -> BTreeMap<Revision, Revision> {
        let in_keys = self.state.keys.values().flat_map(|key| [key.created, key.modified]).map(Revision);
        let mut all: Vec<Revision> = others.chain(in_keys).collect();
        all.sort_unstable();
        all.dedup();
        let numbers: BTreeMap<Revision, Revision> = all.into_iter().zip((1..).map(Revision)).collect();
        let last = numbers.len() as u64;
        let record = keys::epoch(orders());
        let told = self.state.keys.get(&record).and_then(|key| match &key.value {
            Value::Text(text) => from_value::<EpochRecord>(text.as_bytes()),
            Value::Bytes { .. } => None,
        });
        let told = told.filter(|record| record.doors != Revision(0));
        if told.is_none() && self.state.revision == last {
            return BTreeMap::new();
        }
        self.state.edit(|state| {
            state.revision = last;
            for key in state.keys.values_mut() {
                key.created = numbers[&Revision(key.created)].0;
                key.modified = numbers[&Revision(key.modified)].0;
            }
            if let (Some(told), Some(key)) = (told, state.keys.get_mut(&record)) {
                let text = to_value(&EpochRecord { doors: Revision(0), ..told });
                key.value = Value::Text(String::from_utf8(text).expect("JSON is text"));
            }
        });
        numbers
    }

    /// As in etcd, leases are no changes; only the keys that go with them are.
    fn take_keeping_revision<T>(&mut self, decision: Decision<T>) {
        let (before, keys) = (self.state.revision, self.state.keys.len());
        if let Decision::Next(mut state, _) = decision {
            if state.keys.len() == keys {
                state.revision = before;
            }
            self.state = Part::new(state);
        }
    }

    /// Somebody makes a backup.
    pub fn back_up(&mut self) {
        self.backup = Some(self.state.clone());
    }

    /// Whether there is a backup of something else than what it holds.
    pub fn can_go_back(&self) -> bool {
        self.backup.as_ref().is_some_and(|backup| *backup != self.state)
    }

    /// Whether there is a backup.
    pub fn is_backed_up(&self) -> bool {
        self.backup.is_some()
    }

    /// Somebody restores the backup.
    pub fn restore(&mut self) {
        if let Some(backup) = self.backup.take() {
            self.state = backup;
            self.has_forgotten = true;
        }
    }

    /// Somebody wipes it.
    pub fn wipe(&mut self) {
        self.state = Part::new(State::default());
        self.has_forgotten = true;
    }

    fn take<T>(&mut self, decision: Decision<T>) -> T {
        match decision {
            Decision::Keep(answer) => answer,
            Decision::Next(state, answer) => {
                self.state = Part::new(state);
                answer
            }
        }
    }
}
