//! What the shared doors of a target agree on: when an epoch may open, and whose record is cleared away (DESIGN 3.5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Control;
use crate::coordinator::agreement::{Agreement, Patience, WaitsFor, Why, agree, clear, finds_a_witness, finds_another};
use crate::coordinator::doors::{self as records, Door, Sightings};
use crate::coordinator::keys::{self, DoorName, Key};
use crate::coordinator::records::{DoorKind, Report, from_value};
use crate::coordinator::store::{Keys, Revision};
use crate::fence::Moment;
use crate::fence::floor::Memory;
use crate::fence::handoff::Event;
use crate::mailbox::GateId;

/// What a shared door knows of the others before its target.
#[derive(Default)]
pub struct Peers {
    /// Since when each has been seen as it is.
    sightings: Sightings,
    /// Whom each gate that has drained waits for.
    waiting: BTreeMap<GateId, Agreement>,
    /// Whether this door's own record ought to stand.
    on_record: bool,
    /// Whether it did not, when it last joined.
    was_gone: bool,
    /// Whether the coordinator was seen to have lost something since this door last joined.
    pub(super) lost: bool,
    /// Whether the coordinator is behind what this door has seen of it.
    went_back: bool,
}

impl Peers {
    /// What a door that starts with this memory expects.
    pub(super) fn of(memory: &Memory, target: &str) -> Peers {
        let on_record = memory.targets.contains_key(target) && !memory.left.contains(target);
        Peers { on_record, ..Peers::default() }
    }

    /// It has joined; `stood`: over a record of its own.
    pub(super) fn joined(&mut self, stood: bool) {
        self.was_gone = self.on_record && !stood;
        self.on_record = true;
    }
}

/// When the doors were last read, and are to be read next for those that wait.
#[derive(Default)]
pub struct Agreeing {
    /// The revision of the last reading that covered every door.
    doors_read: Revision,
    /// The gates that have drained, and wait for other doors.
    waiting: BTreeSet<GateId>,
    next_look: Option<Moment>,
}

impl Agreeing {
    pub(super) fn wakes_at(&self) -> Option<Moment> {
        self.next_look
    }

    /// Notes whether a gate waits for other doors.
    pub(super) fn note(&mut self, gate: GateId, waits: bool) {
        if waits {
            self.waiting.insert(gate);
        } else if self.waiting.remove(&gate) && self.waiting.is_empty() {
            self.next_look = None;
        }
    }
}

impl Control {
    /// Looks at what a reading says of the others; `whole_doors`: it covers every door.
    pub(super) fn observe_agreement(&mut self, whole_doors: bool, went_back: bool) {
        if whole_doors {
            self.agreeing.doors_read = self.view.revision;
        }
        for number in 0..self.doors.all.len() {
            if self.doors.all[number].record.kind != DoorKind::Shared {
                continue;
            }
            let joined = self.doors.all[number].joined_at.is_some();
            let peers = &mut self.doors.all[number].peers;
            let newly = went_back && !peers.went_back;
            peers.went_back = went_back;
            if newly {
                peers.lost = true;
                // The revisions that they go by are of a history that is over.
                peers.sightings = Sightings::default();
            }
            // One that is away keeps that in mind until it has joined: the revision may have caught up by then.
            if !joined {
                continue;
            }
            if newly {
                self.wait_for_the_unrecorded(number);
            }
            self.agree_at(number, whole_doors);
        }
    }

    fn agree_at(&mut self, number: usize, whole_doors: bool) {
        let now = self.clock.now();
        let name = self.doors.all[number].name.clone();
        let prefix = keys::doors(&name.target);
        let doors = records::among(self.view.under(&prefix));
        let unreadable = records::unreadable(self.view.under(&prefix));
        if whole_doors {
            self.clear_away(number, &doors, now);
        }
        self.doors.all[number].peers.waiting.clear();
        let of_this_door = |gate: &GateId| *self.gates.get(*gate).name.target == *name.target;
        for gate in self.agreeing.waiting.iter().copied().filter(of_this_door).collect::<Vec<_>>() {
            let Some(epoch) = self.gates.get(gate).handoff.waits_for_doors() else { continue };
            let mut agreement = self.agreement(number, gate, &doors, now);
            agreement.waits_for.extend(
                unreadable
                    .clone()
                    .map(|id| WaitsFor { door: DoorName { target: name.target.clone(), id }, why: Why::Held }),
            );
            if agreement.waits_for.is_empty() && self.doors_were_read_after_learning(gate) {
                self.drive(gate, Event::Agreed(epoch));
            } else {
                self.doors.all[number].peers.waiting.insert(gate, agreement);
            }
        }
    }

    fn agreement(&mut self, number: usize, gate: GateId, doors: &[Door], now: Moment) -> Agreement {
        let patience = self.patience();
        let state = self.gates.get(gate);
        let resource = &state.name.resource;
        let Some(term) = state.handoff.term() else { return Agreement::default() };
        let view = &self.view;
        let report = |door: &DoorName| view.record::<Report>(&keys::report(resource, &door.target, &door.id));
        let own = &mut self.doors.all[number];
        agree(&own.name, (resource, term), doors, report, patience, &mut own.peers.sightings, now)
    }

    pub(super) fn patience(&self) -> Patience {
        Patience { lapsed: self.config.lapsed, mechanisms: self.mechanisms }
    }

    /// Whoever is not among the doors that were read then has joined since, and has found the epoch.
    fn doors_were_read_after_learning(&self, gate: GateId) -> bool {
        let minted = self.view.get(&keys::epoch(&self.gates.get(gate).name.resource)).map(|entry| entry.modified);
        minted.is_some_and(|minted| self.agreeing.doors_read >= minted)
    }

    /// Deletes the records of those that have been waited out: a term arms when every recorded door has drained.
    fn clear_away(&mut self, number: usize, doors: &[Door], now: Moment) {
        let (patience, view, gates) = (self.patience(), &self.view, &self.gates);
        let own = &mut self.doors.all[number];
        let floors_stand = |door: &DoorName| {
            own.gates.iter().all(|gate| {
                let resource = &gates.get(*gate).name.resource;
                let report = view.record::<Report>(&keys::report(resource, &door.target, &door.id));
                report.is_none_or(|report| gates.floor(*gate) >= Some(report.floor))
            })
        };
        for (door, txn) in clear(&own.name, doors, floors_stand, patience, &mut own.peers.sightings, now) {
            let store = Arc::clone(&self.store);
            tokio::task::spawn_local(async move {
                match store.commit(txn).await {
                    Ok(_) => {
                        tracing::info!(target = %door.target, door = %door.id, "waited out: its record is cleared away")
                    }
                    // The next reading finds it again.
                    Err(error) => tracing::debug!(target = %door.target, door = %door.id, %error, "its record stays"),
                }
            });
        }
    }

    /// A shared door that has just joined, or whose coordinator went backwards, waits for doors that may not be on
    /// record: for a resource that it finds no other of, where something is known to be lost, or where its own record was
    /// gone; unless, in the first and the last case, somebody vouches for what went before.
    pub(super) fn wait_for_the_unrecorded(&mut self, number: usize) {
        let own = &self.doors.all[number];
        if own.record.kind != DoorKind::Shared {
            return;
        }
        let prefix = keys::doors(&own.name.target);
        let doors = records::among(self.view.under(&prefix));
        let is_vouched_for = finds_a_witness(&own.name, &doors, self.reports_at(&own.name.target));
        let all = own.peers.lost || (own.peers.was_gone && !is_vouched_for);
        // Only one that serves the same resource is waited for, and so only that one waits for others in its place.
        let lacks = |gate: &&GateId| {
            let resource = &self.gates.get(**gate).name.resource;
            let serving: Vec<Door> = doors.iter().filter(|door| door.record.serves(resource)).cloned().collect();
            all || !(is_vouched_for || finds_another(&own.name, &serving))
        };
        let lacking: Vec<GateId> = own.gates.iter().filter(lacks).copied().collect();
        self.doors.all[number].peers.lost = false;
        if lacking.is_empty() {
            return;
        }
        let own = &self.doors.all[number];
        let wait = own.record.session + own.record.quarantine;
        tracing::info!(
            target = %own.name.target, wait_s = wait.as_secs_f64(),
            "nobody vouches for what went before: waiting for doors that may not be on record"
        );
        let until = self.clock.now().plus(wait);
        for gate in lacking {
            self.drive(gate, Event::Alone(until));
        }
    }

    /// What the doors of a target have reported, of all resources, with their ids.
    fn reports_at<'a>(&'a self, target: &'a str) -> impl Iterator<Item = (&'a str, Report)> {
        self.view.under(keys::REPORTS).filter_map(move |entry| match keys::parse(&entry.key)? {
            Key::Report(_, door) if door.target == target => {
                Some((entry.key.rsplit('/').next()?, from_value::<Report>(&entry.value)?))
            }
            _ => None,
        })
    }

    /// Has the doors and the reports read again for the gates that wait, without relying on the watch.
    pub(super) fn tend_agreements(&mut self, now: Moment) {
        let due = self.agreeing.next_look.is_none_or(|at| at <= now);
        if self.agreeing.waiting.is_empty() || !due {
            return;
        }
        let gates: Vec<GateId> = self.agreeing.waiting.iter().copied().collect();
        let reports = |gate: &GateId| Keys::Under(keys::reports(&self.gates.get(*gate).name.resource));
        let few = gates.len() <= 20;
        let keys = if few { gates.iter().map(reports).collect() } else { vec![Keys::Under(keys::REPORTS.to_owned())] };
        self.look(keys);
        let ends = self.doors.all.iter().flat_map(|door| door.peers.waiting.values().filter_map(Agreement::wakes_at));
        let verify = now.plus(self.config.coordinator.verify_every);
        self.agreeing.next_look = ends.filter(|end| *end > now).chain([verify]).min();
    }

    /// Whom a gate waits for, for people.
    pub(super) fn peers_waited_for(&self, gate: GateId) -> &[WaitsFor] {
        let door = self.doors.of(&self.gates.get(gate).name.target);
        door.and_then(|door| door.peers.waiting.get(&gate)).map_or(&[], |agreement| &agreement.waits_for)
    }
}
