//! How a guard joins its target, reads, reports and leaves, as `src/control/doors.rs` and `reports.rs` do it.

use std::collections::BTreeSet;

use epochgate::coordinator::doors::{self as records, Door, Joiner, Plan};
use epochgate::coordinator::keys::{self, Key};
use epochgate::coordinator::observer::View;
use epochgate::coordinator::records::{DoorKind, DoorMode, DoorRecord, EpochRecord, Report, from_value, to_value};
use epochgate::coordinator::store::{Change, Committed, Compare, Keys, LeaseId, Range, Revision, StoreError, Txn};
use epochgate::fence::Moment;
use epochgate::fence::gate::Order;
use epochgate::fence::handoff::{Claim, Event, Reading};
use epochgate::fence::mechanism::Mechanism;

use crate::coordinator::Coordinator;
use crate::guard::{Guard, Joining};
use crate::part::Part;
use crate::peers::sightings;
use crate::tale::Tale;
use crate::words::{NOW, QUARANTINE, SESSION, TARGET, door_id, door_name, door_number, orders, told};

/// What a guard's observer reads.
const READS: [&str; 3] = [keys::EPOCHS, keys::DOORS, "reports/"];

impl Guard {
    // ---- the session -------------------------------------------------------------------------------------------------

    /// A new session: whatever went with the one before is gone.
    pub fn begin_session(&mut self, coordinator: &mut Coordinator, lease: i64, tale: &mut Tale) {
        self.session_is_over(tale);
        coordinator.grant(lease);
        self.lease = Some(lease);
        self.session += 1;
        self.is_late = false;
        if !matches!(self.joining, Joining::OnItsWay { .. }) {
            self.joining = Joining::Due;
        }
        if self.kind.closes {
            self.order(&Order::Until(self.session_end()));
            self.drive(Event::Session(true), NOW, tale);
        }
        self.end_round();
    }

    /// Its session goes on.
    pub fn renew_session(&mut self, tale: &mut Tale) {
        self.session += 1;
        self.is_late = false;
        if self.kind.closes {
            self.order(&Order::Until(self.session_end()));
            self.drive(Event::Session(true), NOW, tale);
        }
        self.end_round();
    }

    /// The coordinator says that the session is gone.
    fn session_is_over(&mut self, tale: &mut Tale) {
        if self.kind.closes {
            self.joined_at = None;
            self.claim(Claim::Joining, tale);
        }
    }

    /// Control's own clock says that the session has run out.
    pub fn session_runs_out(&mut self, tale: &mut Tale) {
        self.drive(Event::Session(false), NOW, tale);
        self.end_round();
    }

    fn claim(&mut self, claim: Claim, tale: &mut Tale) {
        self.drive(Event::Claimed(claim), NOW, tale);
    }

    // ---- joining -----------------------------------------------------------------------------------------------------

    /// Reads the doors and decides whether it may join. `false` where it is later than anything that it has seen allows.
    pub fn plan_to_join(&mut self, coordinator: &Coordinator, now: Moment, tale: &mut Tale) -> bool {
        let Some(lease) = self.lease else { return false };
        let read = coordinator.read(&[Range::all(Keys::Under(keys::doors(TARGET)))]);
        let doors = records::among(read.ranges.iter().flatten());
        let record = DoorRecord {
            kind: if self.kind.shared { DoorKind::Shared } else { DoorKind::Sole },
            mode: DoorMode::Enforce,
            address: String::new(),
            session: SESSION,
            quarantine: QUARANTINE,
            closes: self.kind.closes,
            by_time: true,
            serves: vec![orders().as_str().to_owned()],
            left: false,
        };
        let name = door_name(self.kind.number);
        let joiner = Joiner { name, record, lease: LeaseId(lease), mechanisms: self.kind.mechanisms };
        let mut sightings = sightings(&doors, &self.sighted);
        let before = sightings.clone();
        let plan = records::plan(&joiner, &doors, &mut sightings, read.revision, now);
        if now > NOW && sightings != before {
            return false;
        }
        if let Plan::Blocked { by, .. } = &plan {
            self.sight(&doors, by);
        }
        match plan {
            Plan::Commit(txn) => {
                let stood = doors.iter().any(|door| door.name == door_name(self.kind.number));
                self.joining = Joining::OnItsWay { txn, lease, stood };
            }
            Plan::Blocked { by, .. } => self.blocked(by, tale),
        }
        self.end_round();
        true
    }

    /// The door that blocks is seen as it is.
    fn sight(&mut self, doors: &[Door], by: &str) {
        let Some(door) = doors.iter().find(|door| door.name.id == by) else { return };
        let Some(number) = door_number(&door.name) else { return };
        self.sighted.retain(|(of, ..)| *of != number);
        self.sighted.push((number, door.modified, door.alive));
        self.sighted.sort_unstable();
    }

    fn blocked(&mut self, by: String, tale: &mut Tale) {
        tale.add(|| format!("it stays shut: the record of {by} stands"));
        self.joining = Joining::Due;
        self.joined_at = None;
        self.leave(true);
        self.claim(Claim::Blocked(by.into()), tale);
    }

    /// Its transaction reaches the coordinator. Where the answer is lost, it tries again.
    pub fn join(&mut self, coordinator: &mut Coordinator, answered: bool, tale: &mut Tale) {
        let Joining::OnItsWay { txn, lease, stood } = std::mem::replace(&mut self.joining, Joining::Due) else {
            return;
        };
        let result = coordinator.commit(&txn);
        match result {
            Ok(Committed::Done(revision)) if answered && self.lease == Some(lease) => {
                self.joined_at = Some(revision);
                self.peers.joined(stood);
                if self.keeps(Mechanism::ReadOnJoining) && !self.kind.reads_first {
                    self.joining = Joining::Reading;
                } else {
                    self.complete_joining(tale);
                }
            }
            Ok(Committed::Refused(_)) => tale.add(|| "it is refused: something has changed".to_owned()),
            Ok(Committed::Done(_)) => {}
            Err(StoreError::LeaseGone) => tale.add(|| "it is refused: its lease is gone".to_owned()),
            Err(error) => unreachable!("the store takes it or refuses it: {error}"),
        }
        self.end_round();
    }

    // ---- reading -----------------------------------------------------------------------------------------------------

    /// A linearizable reading of everything that it observes. `false` where it is later than anything that it has seen
    /// allows.
    pub fn read(&mut self, coordinator: &mut Coordinator, now: Moment, tale: &mut Tale) -> bool {
        let reading = coordinator.reading(&READS);
        let revision = reading.revision;
        let own_report = keys::report(orders(), TARGET, door_id(self.kind.number));
        let mut view = if self.kind.keeps_view { (*self.view).clone() } else { View::default() };
        let mut changed = view.take(reading);
        if !self.kind.keeps_view {
            changed.insert(keys::epoch(orders()));
        }
        self.view = Part::new(view);
        self.report_waits = false;
        let mut went_back = false;
        if self.kind.minds_revisions {
            went_back = revision.0 < self.memory.revision;
            self.memory.revision = self.memory.revision.max(revision.0);
        }
        self.observe_doors(went_back, tale);
        self.observe_epochs(&changed, went_back, tale);
        let in_time = self.observe_agreement(went_back, coordinator, now, tale);
        self.observe_report(&own_report);
        if !self.kind.keeps_view {
            self.view = Part::new(View::default());
        }
        self.end_round();
        in_time
    }

    /// Its report may have been overwritten by an older one, or be gone: a whole reading tells, and here each is one.
    fn observe_report(&mut self, key: &str) {
        let stands = self.view.record::<Report>(key);
        self.report_wanted |= self.own_report().is_some_and(|report| stands != Some(report));
    }

    fn observe_doors(&mut self, went_back: bool, tale: &mut Tale) {
        match self.joining {
            Joining::Reading => {
                self.find_floors(tale);
                self.weigh(went_back, tale);
                self.complete_joining(tale);
            }
            Joining::Joined => self.check_record(tale),
            _ => {}
        }
    }

    fn find_floors(&mut self, tale: &mut Tale) {
        let prefix = keys::reports(orders());
        let record = self.view.record::<EpochRecord>(&keys::epoch(orders()));
        let epoch = record.map(|record| record.term.epoch.number()).filter(|_| self.keeps(Mechanism::Belief));
        let found = self.view.under(&prefix).filter_map(|entry| from_value::<Report>(&entry.value));
        let believed = found.filter(|report| !epoch.is_some_and(|epoch| report.floor.is_beyond_belief(epoch)));
        if let Some(highest) = believed.max_by_key(|report| report.floor) {
            self.drive(Event::FloorFound(highest.term()), NOW, tale);
        }
    }

    fn complete_joining(&mut self, tale: &mut Tale) {
        tale.add(|| format!("{} has joined", self.name()));
        self.joining = Joining::Joined;
        self.leave(false);
        self.wait_for_the_unrecorded(tale);
        self.claim(Claim::Standing, tale);
        if self.handoff.is_regressed() {
            self.report_wanted = true;
        }
    }

    fn check_record(&mut self, tale: &mut Tale) {
        let name = door_name(self.kind.number);
        let prefix = keys::doors(TARGET);
        let doors = records::among(self.view.under(&prefix));
        match doors.iter().find(|other| other.name == name) {
            Some(own) if own.record.left => self.shut_and_rejoin(tale),
            Some(own) if Some(own.modified) > self.joined_at => self.shut_and_rejoin(tale),
            Some(own) if Some(own.modified) == self.joined_at && own.alive => {}
            Some(own) => {
                self.peers.lost |= Some(own.modified) < self.joined_at;
                self.rejoin();
            }
            None if doors.is_empty() => {
                self.leave(true);
                self.rejoin();
            }
            None => self.shut_and_rejoin(tale),
        }
    }

    fn rejoin(&mut self) {
        self.joined_at = None;
        self.joining = Joining::Due;
    }

    fn shut_and_rejoin(&mut self, tale: &mut Tale) {
        self.leave(true);
        self.claim(Claim::Joining, tale);
        self.rejoin();
    }

    fn observe_epochs(&mut self, changed: &BTreeSet<String>, went_back: bool, tale: &mut Tale) {
        let named = changed.iter().any(|key| matches!(keys::parse(key), Some(Key::Epoch(_))));
        if went_back || named {
            self.weigh(went_back, tale);
        }
    }

    fn weigh(&mut self, went_back: bool, tale: &mut Tale) {
        let before = Some(Revision(0)).filter(|_| self.kind.reads_first);
        let Some(joined_at) = self.joined_at.or(before) else { return };
        let record = self.view.record::<EpochRecord>(&keys::epoch(orders()));
        let record = record.map(|record| (record.term, record.doors.0));
        let floor = self.handoff.term().cloned();
        self.drive(Event::Read(Reading { record, went_back, joined_at: joined_at.0 }), NOW, tale);
        if self.handoff.term() != floor.as_ref() {
            tale.add(|| format!("{} learns of {}", self.name(), self.handoff.term().map_or(String::new(), told)));
        }
    }

    // ---- reporting and leaving ---------------------------------------------------------------------------------------

    /// Whether it would publish its report now.
    pub fn would_report(&self) -> bool {
        self.report_wanted && !self.report_waits && self.joined_at.is_some()
    }

    /// Publishes its report.
    pub fn report(&mut self, coordinator: &mut Coordinator, tale: &mut Tale) {
        let (Some(report), Some(joined_at)) = (self.own_report(), self.joined_at) else { return };
        let name = door_name(self.kind.number);
        let key = keys::report(orders(), &name.target, &name.id);
        let txn = Txn {
            compares: vec![Compare::ModifiedAt(keys::door(&name.target, &name.id), joined_at)],
            changes: vec![Change::Put { key, value: to_value(&report), lease: None }],
        };
        let done = matches!(coordinator.commit(&txn), Ok(Committed::Done(_)));
        (self.report_wanted, self.report_waits) = (!done, !done);
        tale.add(|| match report.drained {
            _ if !done => "it is refused: its record is not as it was put".to_owned(),
            Some(epoch) => format!("its floor is {}, drained for {epoch}", report.floor),
            None => format!("its floor is {}, not drained", report.floor),
        });
    }

    /// What is to be said of it now.
    fn own_report(&self) -> Option<Report> {
        let term = self.handoff.term()?;
        Some(Report {
            floor: term.epoch,
            nonce: term.nonce,
            writer: term.writer.clone(),
            drained: self.handoff.drained(),
            forced: self.handoff.forced(),
            regressed: self.handoff.is_regressed(),
        })
    }

    /// Its process ends: its record goes, or says that it has left, and its lease ends.
    pub fn depart(&self, coordinator: &mut Coordinator) {
        let name = door_name(self.kind.number);
        match self.joining {
            Joining::Leaving { clean: true, joined: true } => {
                let gone = [keys::door(&name.target, &name.id), keys::alive(&name.target, &name.id)];
                let changes = gone.map(Change::Delete).to_vec();
                let _ = coordinator.commit(&Txn { compares: Vec::new(), changes });
            }
            Joining::Leaving { joined: true, .. } => mark_left(coordinator, self.kind.number),
            _ => {}
        }
        if let Some(lease) = self.lease {
            coordinator.end_lease(lease);
        }
    }
}

/// A door's record says from now on that it has left, or was declared dead.
pub fn mark_left(coordinator: &mut Coordinator, number: usize) {
    let name = door_name(number);
    let key = keys::door(&name.target, &name.id);
    let read = coordinator.read(&[Range::all(Keys::One(key.clone()))]);
    let Some(entry) = read.ranges.first().and_then(|entries| entries.first()) else { return };
    let Some(record) = from_value::<DoorRecord>(&entry.value) else { return };
    let left = DoorRecord { left: true, ..record };
    let txn = Txn {
        compares: vec![Compare::ModifiedAt(key.clone(), entry.modified)],
        changes: vec![
            Change::Put { key, value: to_value(&left), lease: None },
            Change::Delete(keys::alive(&name.target, &name.id)),
        ],
    };
    let _ = coordinator.commit(&txn);
}
