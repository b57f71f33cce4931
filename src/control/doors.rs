//! Joins targets and keeps their records: one door for each target that a guard listener of this process stands
//! before (DESIGN 3.5). What shared ones agree on: [`super::agreeing`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::agreeing::Peers;
use super::{Control, Internal};
use crate::config::Config;
use crate::config::resolved::{GuardLoss, Mode, Role};
use crate::coordinator::doors::{self as records, Door, Joined, Joiner, Sightings};
use crate::coordinator::keys::{self, DoorName};
use crate::coordinator::records::{DoorKind, DoorMode, DoorRecord, EpochRecord, Report, from_value, to_patterns};
use crate::coordinator::store::{Keys, Lease, Revision, StoreError};
use crate::fence::Moment;
use crate::fence::floor::Memory;
use crate::fence::handoff::{Claim, Event};
use crate::fence::mechanism::Mechanism;
use crate::mailbox::{GateId, GateName};

/// How long to wait after a failed attempt to join.
const RETRY: Duration = Duration::from_millis(250);

/// One door.
pub struct OwnDoor {
    pub(super) name: DoorName,
    pub(super) record: DoorRecord,
    pub(super) gates: Vec<GateId>,
    sightings: Sightings,
    pub(super) peers: Peers,
    state: State,
    pub(super) joined_at: Option<Revision>,
    pub(super) blocked_by: Option<String>,
    /// When the door that blocks has been waited out, where time ends it.
    pub(super) blocked_until: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To join, not before then.
    Due(Moment),
    /// An attempt runs.
    Joining,
    /// It joined; the reading of this number completes it.
    Reading(u64),
    /// It joined with this lease.
    Joined(Lease),
    /// It has left, or is leaving.
    Left,
}

/// One door that is about to leave.
pub(super) struct LeavingDoor {
    pub(super) name: DoorName,
    pub(super) gates: Vec<GateId>,
    /// The revision of its record, where that stands as far as is known.
    pub(super) joined_at: Option<Revision>,
    /// Whether it may say that it left although something that it forwarded may still take effect.
    pub(super) by_time: bool,
    /// Whether its record stays, as after a crash: it waits for doors that are not on record, and whoever comes is to
    /// wait for them as long.
    pub(super) stays: bool,
}

/// All doors of the process, by target.
pub struct Doors {
    pub(super) all: Vec<OwnDoor>,
    by_target: BTreeMap<Arc<str>, usize>,
}

impl Doors {
    pub(super) fn start(
        config: &Config,
        gates: &[GateName],
        id: Option<Arc<str>>,
        memory: &Memory,
        addresses: &[(Arc<str>, String)],
    ) -> Doors {
        let mut doors = Doors { all: Vec::new(), by_target: BTreeMap::new() };
        let Some(id) = id else { return doors };
        for (number, gate) in gates.iter().enumerate() {
            let at = *doors.by_target.entry(gate.target.clone()).or_insert_with(|| {
                let mut door = OwnDoor::new(config, gates, &gate.target, &id, addresses);
                door.peers = Peers::of(memory, &gate.target);
                doors.all.push(door);
                doors.all.len() - 1
            });
            doors.all[at].gates.push(GateId(number));
        }
        doors
    }

    pub(super) fn joined_at(&self, target: &str) -> Option<Revision> {
        self.all[*self.by_target.get(target)?].joined_at
    }

    pub(super) fn of(&self, target: &str) -> Option<&OwnDoor> {
        self.by_target.get(target).map(|at| &self.all[*at])
    }

    pub(super) fn wakes_at(&self) -> Option<Moment> {
        let due = self.all.iter().filter_map(|door| match door.state {
            State::Due(at) => Some(at),
            _ => None,
        });
        due.min()
    }
}

impl OwnDoor {
    fn new(
        config: &Config,
        gates: &[GateName],
        target: &Arc<str>,
        id: &str,
        addresses: &[(Arc<str>, String)],
    ) -> OwnDoor {
        let mine: Vec<&GateName> = gates.iter().filter(|gate| gate.target == *target).collect();
        let guards = config.listeners.iter().filter_map(|listener| match &listener.role {
            Role::Guard(guard) if guard.target == *target => Some((listener, guard)),
            _ => None,
        });
        let guards: Vec<_> = guards.collect();
        let quarantines = mine.iter().map(|gate| config.resources[&gate.resource].drain.quarantine);
        let listening = guards.first().and_then(|(first, _)| {
            addresses.iter().find(|(listener, _)| *listener == first.name).map(|(_, address)| address.clone())
        });
        let record = DoorRecord {
            kind: if guards.iter().any(|(_, guard)| guard.shared) { DoorKind::Shared } else { DoorKind::Sole },
            mode: if guards.iter().all(|(_, guard)| guard.mode == Mode::Audit) {
                DoorMode::Audit
            } else {
                DoorMode::Enforce
            },
            address: listening.unwrap_or_default(),
            session: config.coordinator.lease_ttl,
            quarantine: quarantines.max().unwrap_or_default(),
            closes: guards.iter().all(|(_, guard)| guard.on_coordinator_loss == GuardLoss::Close),
            by_time: mine.iter().all(|gate| config.resources[&gate.resource].drain.by_time),
            serves: to_patterns(mine.iter().map(|gate| &gate.resource)),
            left: false,
        };
        OwnDoor {
            name: DoorName { target: target.to_string(), id: id.to_owned() },
            record,
            gates: Vec::new(),
            sightings: Sightings::default(),
            peers: Peers::default(),
            state: State::Due(Moment::default()),
            joined_at: None,
            blocked_by: None,
            blocked_until: None,
        }
    }
}

impl Control {
    /// Starts the attempts to join that are due.
    pub(super) fn tend_doors(&mut self, now: Moment) {
        let Some(lease) = self.connection.lease.filter(|_| !self.stop.has_begun()) else { return };
        for number in 0..self.doors.all.len() {
            let door = &mut self.doors.all[number];
            if !matches!(door.state, State::Due(at) if at <= now) {
                continue;
            }
            door.state = State::Joining;
            let joiner = Joiner {
                name: door.name.clone(),
                record: door.record.clone(),
                lease: lease.id,
                mechanisms: self.mechanisms,
            };
            let mut sightings = std::mem::take(&mut door.sightings);
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            self.beside(async move {
                let result = records::join(store.as_ref(), &joiner, &mut sightings, clock.as_ref()).await;
                Internal::Joined { door: number, lease, result: result.map(|joined| (joined, sightings)) }
            });
        }
    }

    pub(super) fn joined(&mut self, number: usize, lease: Lease, result: Result<(Joined, Sightings), StoreError>) {
        let now = self.clock.now();
        let door = &mut self.doors.all[number];
        let joined = match result {
            // It is leaving: the floor file says so already.
            _ if door.state == State::Left => return,
            Ok((joined, sightings)) => {
                door.sightings = sightings;
                joined
            }
            Err(error) => {
                door.state = State::Due(now.plus(RETRY));
                return self.coordinator_failed(&error);
            }
        };
        match joined {
            Joined::At { revision, stood } if self.connection.lease.is_some_and(|current| current.id == lease.id) => {
                tracing::info!(target = %door.name.target, door = %door.name.id, %revision, "joined");
                door.joined_at = Some(revision);
                door.peers.joined(stood);
                door.blocked_by = None;
                door.blocked_until = None;
                self.read_after_joining(number);
            }
            // The lease that the alive key went with is gone already.
            Joined::At { .. } | Joined::Overtaken => door.state = State::Due(now),
            Joined::Blocked { by, until } => self.blocked(number, by, until, now),
        }
    }

    fn blocked(&mut self, number: usize, by: String, until: Option<Moment>, now: Moment) {
        let door = &mut self.doors.all[number];
        door.state = State::Due(until.unwrap_or(now.plus(RETRY * 4)).min(now.plus(RETRY * 4)));
        door.joined_at = None;
        if door.blocked_by.as_deref() != Some(by.as_str()) {
            tracing::warn!(
                target = %door.name.target, blocked_by = %by,
                "shut: the record of another door stands; `epochgate status` says what ends that"
            );
            door.blocked_by = Some(by.clone());
        }
        door.blocked_until = until;
        let (gates, target) = (door.gates.clone(), door.name.target.clone());
        self.floors.leave(&target, true);
        self.claim(&gates, &Claim::Blocked(by.into()));
    }

    /// A door that has joined reads the epochs and the floors, and only then admits.
    fn read_after_joining(&mut self, number: usize) {
        if !self.keeps(Mechanism::ReadOnJoining) {
            return self.complete_joining(number);
        }
        let door = &self.doors.all[number];
        let few = door.gates.len() <= 20;
        let mut keys = vec![Keys::Under(keys::doors(&door.name.target))];
        if few {
            for gate in &door.gates {
                let resource = &self.gates.get(*gate).name.resource;
                keys.push(Keys::One(keys::epoch(resource)));
                keys.push(Keys::Under(keys::reports(resource)));
            }
        } else {
            keys.push(Keys::Under(keys::REPORTS.to_owned()));
            keys.push(Keys::Under(keys::EPOCHS.to_owned()));
        }
        let look = self.look(keys);
        self.doors.all[number].state = State::Reading(look);
    }

    /// A reading came: does it complete a joining, and do the records of the doors that had joined still stand?
    pub(super) fn observe_doors(&mut self, looked: u64, went_back: bool) {
        for number in 0..self.doors.all.len() {
            match self.doors.all[number].state {
                State::Reading(wanted) if looked >= wanted => {
                    self.find_floors(number);
                    let gates = self.doors.all[number].gates.clone();
                    for gate in gates {
                        self.weigh(gate, went_back);
                    }
                    self.complete_joining(number);
                }
                State::Joined(_) => self.check_record(number),
                _ => {}
            }
        }
    }

    /// The highest floor that any door has recorded for a resource, and that can be believed, is this door's floor too.
    fn find_floors(&mut self, number: usize) {
        for gate in self.doors.all[number].gates.clone() {
            let resource = self.gates.get(gate).name.resource.clone();
            let record = self.view.record::<EpochRecord>(&keys::epoch(&resource));
            let epoch = record.map(|record| record.term.epoch.number()).filter(|_| self.keeps(Mechanism::Belief));
            let prefix = keys::reports(&resource);
            let found = self.view.under(&prefix).filter_map(|entry| from_value::<Report>(&entry.value));
            let (beyond, floors): (Vec<Report>, Vec<Report>) =
                found.partition(|report| epoch.is_some_and(|epoch| report.floor.is_beyond_belief(epoch)));
            for report in beyond {
                tracing::error!(%resource, floor = %report.floor, "a recorded floor is beyond belief, and is left alone; see `epochgate rebase`");
            }
            if let Some(highest) = floors.into_iter().max_by_key(|report| report.floor) {
                self.drive(gate, Event::FloorFound(highest.term()));
            }
        }
    }

    fn complete_joining(&mut self, number: usize) {
        let Some(lease) = self.connection.lease else { return };
        self.doors.all[number].state = State::Joined(lease);
        let target = self.doors.all[number].name.target.clone();
        self.floors.leave(&target, false);
        let gates = self.doors.all[number].gates.clone();
        self.wait_for_the_unrecorded(number);
        self.claim(&gates, &Claim::Standing);
        for gate in gates {
            if self.gates.get(gate).handoff.is_regressed() {
                self.reports.wanted(gate);
            }
        }
    }

    /// The record may have been marked left by an operator, or be gone with a wiped coordinator.
    fn check_record(&mut self, number: usize) {
        let door = &self.doors.all[number];
        let (name, joined_at) = (door.name.clone(), door.joined_at);
        let now = self.clock.now();
        let prefix = keys::doors(&name.target);
        let doors = records::among(self.view.under(&prefix));
        match doors.iter().find(|other| other.name == name) {
            Some(own) if own.record.left => {
                tracing::warn!(target = %name.target, door = %name.id, "this door was declared dead: shut until it has joined again");
                self.shut_and_rejoin(number, now);
            }
            Some(own) if Some(own.modified) > joined_at => {
                tracing::error!(target = %name.target, door = %name.id, "this door's record was put once more: by a commit of this process that was carried out late, or by another process that runs with a copy of this state directory; give each process its own with --state-dir");
                self.shut_and_rejoin(number, now.plus(self.config.coordinator.lease_ttl));
            }
            Some(own) if Some(own.modified) == joined_at && own.alive => {}
            // Older than what we put, or without our sign of life: the coordinator lost something.
            Some(own) => {
                self.doors.all[number].peers.lost |= Some(own.modified) < joined_at;
                self.rejoin(number, now);
            }
            None if doors.is_empty() => {
                self.floors.leave(&name.target, true);
                self.rejoin(number, now);
            }
            None => self.shut_and_rejoin(number, now),
        }
    }

    /// Until it has joined again, it weighs no epoch: an election that was held while its record was gone may not have
    /// known its floor.
    fn rejoin(&mut self, number: usize, at: Moment) {
        self.doors.all[number].joined_at = None;
        self.doors.all[number].state = State::Due(at);
    }

    fn shut_and_rejoin(&mut self, number: usize, at: Moment) {
        let (gates, target) = (self.doors.all[number].gates.clone(), self.doors.all[number].name.target.clone());
        self.floors.leave(&target, true);
        self.claim(&gates, &Claim::Joining);
        self.rejoin(number, at);
    }

    /// The lease is gone, and the alive keys with it. A door that closes without a session may have been waited out
    /// since, by one that has opened a later epoch: it stays shut until it has joined again, and read.
    pub(super) fn doors_session_over(&mut self) {
        for number in 0..self.doors.all.len() {
            let door = &mut self.doors.all[number];
            if door.record.closes && door.state != State::Left {
                door.joined_at = None;
                let gates = door.gates.clone();
                self.claim(&gates, &Claim::Joining);
            }
        }
    }

    /// A new lease: the alive keys go with it from now on.
    pub(super) fn doors_session_began(&mut self) {
        self.doors_session_over();
        let now = self.clock.now();
        for door in &mut self.doors.all {
            if !matches!(door.state, State::Left | State::Joining) {
                door.state = State::Due(now);
            }
        }
    }

    /// This process's doors, which from now on no attempt to join brings back.
    pub(super) fn doors_leave(&mut self) -> Vec<LeavingDoor> {
        let gates = &self.gates;
        let leaving = self.doors.all.iter_mut().map(|door| {
            door.state = State::Left;
            LeavingDoor {
                name: door.name.clone(),
                gates: door.gates.clone(),
                joined_at: door.joined_at,
                by_time: door.record.by_time,
                stays: door.gates.iter().any(|gate| gates.get(*gate).handoff.alone_until().is_some()),
            }
        });
        leaving.collect()
    }

    /// Every door recorded for a target that serves this process's resources, or for any where it guards nothing.
    pub(super) fn recorded_doors(&self) -> Vec<Door> {
        records::among(self.view.under(keys::DOORS))
    }
}
