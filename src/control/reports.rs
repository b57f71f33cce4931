//! What this process's doors publish of their gates: at handoffs only, many in one commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Control, Internal};
use crate::coordinator::keys::{self, Key};
use crate::coordinator::records::{Report, to_value};
use crate::coordinator::store::{Change, Committed, Compare, Keys, Revision, StoreError, Txn};
use crate::mailbox::GateId;

/// So many reports go into one commit: etcd limits a transaction to 128 operations.
const IN_ONE_COMMIT: usize = 60;

/// Which reports are to be published.
#[derive(Default)]
pub struct Reports {
    wanted: BTreeSet<GateId>,
    on_its_way: bool,
    /// Nothing is sent before this reading has come.
    waits_for: u64,
    /// The revision of the last commit that was seen to succeed: an older reading says nothing of it.
    done_at: Revision,
    /// A reading of every report came while a commit was on its way: another is needed.
    look_again: bool,
}

impl Reports {
    /// The report of this gate has changed.
    pub fn wanted(&mut self, gate: GateId) {
        self.wanted.insert(gate);
    }
}

impl Control {
    /// Publishes what has gathered, where the door's record stands and no commit is on its way.
    pub(super) fn send_reports(&mut self) {
        let waits = self.reports.on_its_way || self.looks.seen < self.reports.waits_for;
        if waits || self.reports.wanted.is_empty() || self.connection.up != Some(true) {
            return;
        }
        let ready: Vec<GateId> = self
            .reports
            .wanted
            .iter()
            .copied()
            .filter(|gate| self.doors.joined_at(&self.gates.get(*gate).name.target).is_some())
            .take(IN_ONE_COMMIT)
            .collect();
        if ready.is_empty() {
            return;
        }
        let mut txn = Txn::default();
        for gate in &ready {
            self.reports.wanted.remove(gate);
            self.add_report(*gate, &mut txn);
        }
        self.reports.on_its_way = true;
        let store = Arc::clone(&self.store);
        self.beside(async move { Internal::Reported { gates: ready, result: store.commit(txn).await } });
    }

    /// A report counts only beside the record that it belongs to: one that was declared dead reports nothing more.
    fn add_report(&self, gate: GateId, txn: &mut Txn) {
        let state = self.gates.get(gate);
        let Some(door) = self.doors.of(&state.name.target) else { return };
        let (Some(report), Some(joined_at)) = (self.report(gate), door.joined_at) else { return };
        let record = Compare::ModifiedAt(keys::door(&door.name.target, &door.name.id), joined_at);
        if !txn.compares.contains(&record) {
            txn.compares.push(record);
        }
        let key = keys::report(&state.name.resource, &door.name.target, &door.name.id);
        txn.changes.push(Change::Put { key, value: to_value(&report), lease: None });
    }

    /// What is to be said of a gate now.
    fn report(&self, gate: GateId) -> Option<Report> {
        let handoff = &self.gates.get(gate).handoff;
        let term = handoff.term()?;
        Some(Report {
            floor: term.epoch,
            nonce: term.nonce,
            writer: term.writer.clone(),
            // A door that only counts forwards older epochs after that, too: it proves nothing, and where it is started to
            // enforce, nobody may go by what it said before.
            drained: handoff.drained().filter(|_| !self.gates.get(gate).audit),
            forced: handoff.forced(),
            regressed: handoff.is_regressed(),
        })
    }

    /// A commit that had no answer may be carried out late, after one that was sent later, and put an old report back;
    /// a coordinator that was restored has lost reports, perhaps before any reading showed them. Nobody but this door
    /// would ever correct that, and a term that is not reported as drained never arms. `whole`: the reading covers every
    /// report; `back`: the coordinator's revision has gone back.
    pub(super) fn observe_reports(&mut self, changed: &BTreeSet<String>, whole: bool, back: bool) {
        if back {
            self.reports.done_at = Revision(0);
        }
        if self.reports.on_its_way || self.view.revision < self.reports.done_at {
            self.reports.look_again |= whole;
            return;
        }
        let mut gates = BTreeSet::new();
        for key in changed {
            if let Some(Key::Report(resource, _)) = keys::parse(key) {
                gates.extend(self.gates.of(&resource));
            }
        }
        if whole {
            gates.extend(self.gates.ids());
        }
        for gate in gates {
            if self.report(gate).is_some_and(|due| self.standing_report(gate) != Some(due)) {
                self.reports.wanted(gate);
            }
        }
    }

    /// What the last reading shows of this door's own report of a gate.
    fn standing_report(&self, gate: GateId) -> Option<Report> {
        let name = &self.gates.get(gate).name;
        let door = self.doors.of(&name.target)?;
        self.view.record(&keys::report(&name.resource, &door.name.target, &door.name.id))
    }

    pub(super) fn reported(&mut self, gates: Vec<GateId>, result: Result<Committed, StoreError>) {
        self.reports.on_its_way = false;
        if std::mem::take(&mut self.reports.look_again) {
            self.look(vec![Keys::Under(keys::REPORTS.to_owned())]);
        }
        match result {
            Ok(Committed::Done(at)) => {
                self.reports.done_at = at;
                let reported = gates.iter().filter_map(|gate| self.gates.floor(*gate));
                reported.for_each(|epoch| super::failpoint("reported", epoch));
            }
            // The record is not as it was put: the next reading of the doors says what happened to it.
            Ok(Committed::Refused(_)) => {
                self.reports.wanted.extend(gates);
                self.reports.waits_for = self.look(vec![Keys::Under(keys::DOORS.to_owned())]);
            }
            Err(error) => {
                self.reports.wanted.extend(gates);
                self.coordinator_failed(&error);
            }
        }
    }
}
