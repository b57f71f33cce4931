//! What `status` says: control's own knowledge, and the workers' accounts of what is in flight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Control;
use crate::admin::status::{
    CoordinatorStatus, DoorStatus, GateStatus, HandoffStatus, Holder, Leader, ListenerStatus, Phase, ResourceStatus,
    Standing, State, Status,
};
use crate::clock::to_wall;
use crate::config::resolved::{Listener, Role};
use crate::coordinator::agreement::{WaitsFor, Why};
use crate::coordinator::doors::Door;
use crate::coordinator::keys;
use crate::coordinator::records::{DoorKind, DoorMode, EpochRecord, LeaderRecord, Report};
use crate::fence::handoff::{Claim, Phase as Stands};
use crate::fence::tenure::Armed;
use crate::fence::{Moment, Resource, Stamp};
use crate::mailbox::{Account, GateId, ToWorker};

/// So many holders are named.
const HOLDERS: usize = 16;
/// A worker that is too busy to give its account within this is left out of the counts.
const PATIENCE: Duration = Duration::from_secs(1);

/// What every worker says of itself, asked at once; a worker that is gone says nothing.
pub(super) async fn accounts(workers: Vec<mpsc::UnboundedSender<ToWorker>>) -> Vec<Account> {
    let mut answers = Vec::with_capacity(workers.len());
    for worker in workers {
        let (reply, answer) = oneshot::channel();
        let _ = worker.send(ToWorker::Report(reply));
        answers.push(answer);
    }
    let mut accounts = Vec::with_capacity(answers.len());
    for answer in answers {
        accounts.extend(answer.await);
    }
    accounts
}

/// The gates of each resource, in the order in which the status shows them.
type Places = BTreeMap<Resource, Vec<GateId>>;

impl Control {
    pub(super) fn report_status(&mut self, reply: oneshot::Sender<Arc<Status>>) {
        let (status, places) = (self.status(), self.places());
        let (workers, clock) = (self.workers.clone(), Arc::clone(&self.clock));
        tokio::task::spawn_local(async move {
            let accounts = tokio::time::timeout(PATIENCE, accounts(workers)).await.unwrap_or_default();
            let _ = reply.send(Arc::new(count(status, &places, accounts, clock.now()).with_readiness()));
        });
    }

    fn places(&self) -> Places {
        self.config.resources.keys().map(|resource| (resource.clone(), self.gates.of(resource).to_vec())).collect()
    }

    fn status(&self) -> Status {
        let now = self.clock.now();
        let doors = self.recorded_doors();
        let wall = |moment: Moment| to_wall(self.clock.as_ref(), moment);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            id: self.config.id.clone(),
            started: wall(self.started),
            ready: false,
            coordinator: CoordinatorStatus {
                kind: self.store.kind().into(),
                up: self.connection.up == Some(true),
                endpoint: Some(self.store.endpoint().into()),
                revision: (self.view.revision.0 > 0).then_some(self.view.revision.0),
                confirmed: self.connection.confirmed.map(wall),
                regressions: self.connection.regressions,
            },
            floor_file_error: self.floors.failing.as_deref().map(Into::into),
            resources: self
                .config
                .resources
                .keys()
                .map(|resource| self.resource_status(resource, &doors, now))
                .collect(),
            listeners: self.config.listeners.iter().map(|listener| self.listener_status(listener)).collect(),
            stopping: self.stop.has_begun(),
        }
    }

    fn resource_status(&self, resource: &Resource, doors: &[Door], now: Moment) -> ResourceStatus {
        let record = self.view.record::<EpochRecord>(&keys::epoch(resource));
        let leader = self.view.record::<LeaderRecord>(&keys::leader(resource));
        let mut gates = self.gates.of(resource).iter().map(|gate| self.gate_status(*gate, now));
        let doors: Vec<DoorStatus> = doors
            .iter()
            .filter(|door| door.record.serves(resource))
            .map(|door| self.door_status(resource, door))
            .collect();
        let last =
            self.gates.of(resource).iter().filter_map(|gate| self.gates.get(*gate).last).max_by_key(|last| last.at);
        let floors = self.gates.of(resource).iter().filter_map(|gate| self.gates.floor(*gate));
        let epoch = record.as_ref().map(|record| record.term.epoch).into_iter().chain(floors).max();
        let refused = self.metrics.refused(resource);
        ResourceStatus {
            name: resource.clone(),
            epoch,
            state: self.state(resource, leader.as_ref(), &doors),
            leader: leader.map(|leader| Leader { id: leader.term.writer, address: leader.address.map(Into::into) }),
            standing: self.standing_status(resource, now),
            gate: gates.next(),
            other_gates: gates.collect(),
            doors,
            last_handoff: last.map(|last| HandoffStatus {
                epoch: last.epoch,
                at: to_wall(self.clock.as_ref(), last.at),
                fence_ms: millis(last.fence),
                drain_ms: millis(last.drain),
                mark_ms: millis(last.mark),
                open_ms: millis(last.open),
                by: last.by,
            }),
            refused: refused.into_iter().map(|(reason, count)| (reason.as_str().into(), count)).collect(),
        }
    }

    /// The own term knows whether it is armed; of another's, the doors' reports say it.
    fn state(&self, resource: &Resource, leader: Option<&LeaderRecord>, doors: &[DoorStatus]) -> State {
        if let Some(tenure) = self.writer.standing.tenure(resource) {
            return if tenure.armed == Armed::No { State::Elected } else { State::Armed };
        }
        let Some(leader) = leader else { return State::Vacant };
        let open = |door: &DoorStatus| {
            let forced = || self.report_of(resource, &door.target, &door.id).and_then(|report| report.forced);
            door.drained == Some(leader.term.epoch) || forced() == Some(leader.term.epoch)
        };
        let all_open = doors.iter().filter(|door| door.mode == "enforce").all(open);
        if all_open && doors.iter().any(|door| door.alive) { State::Armed } else { State::Elected }
    }

    fn standing_status(&self, resource: &Resource, now: Moment) -> Option<Standing> {
        self.writer.campaigns.get(resource)?;
        let tenure = self.writer.standing.tenure(resource).filter(|_| self.writer.standing.leads(resource, now));
        let deadline = self.writer.deadline.filter(|_| tenure.is_some()).map(|deadline| deadline.since(now));
        Some(Standing {
            leads: tenure.is_some(),
            deadline_ms: deadline.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            stamp: tenure.map(|tenure| Stamp::of(&tenure.term, resource).to_string().into()),
        })
    }

    fn gate_status(&self, gate: GateId, now: Moment) -> GateStatus {
        let state = self.gates.get(gate);
        let several = self.gates.of(&state.name.resource).len() > 1;
        let blocked_by = match state.handoff.claim() {
            Claim::Blocked(by) => Some(Arc::clone(by)),
            _ => None,
        };
        let residue = state.handoff.residue(now);
        let regression = state.handoff.is_regressed().then(|| {
            let floor = state.handoff.term().map_or(0, |term| term.epoch.number());
            format!("an election above {floor}, minted after this door's record was back")
        });
        GateStatus {
            target: several.then(|| Arc::clone(&state.name.target)),
            phase: phase(state.handoff.phase()),
            floor: self.gates.floor(gate),
            drained: state.handoff.drained(),
            in_flight: 0,
            lost: 0,
            held: 0,
            residue_ms: u64::try_from(residue.as_millis()).unwrap_or(u64::MAX),
            holders: Vec::new(),
            waits_for_doors: self.peers_waited_for(gate).iter().map(|waits| waits.door.id.as_str().into()).collect(),
            blocked_by,
            waits_for: self.waits_for(gate, residue, now).map(Into::into),
            regression: regression.map(Into::into),
        }
    }

    fn waits_for(&self, gate: GateId, residue: Duration, now: Moment) -> Option<String> {
        let state = self.gates.get(gate);
        let door = self.doors.of(&state.name.target);
        Some(match state.handoff.phase() {
            Stands::Open => return None,
            Stands::Unknown if door.is_some_and(|door| door.joined_at.is_none()) => {
                "the coordinator: this door has not joined its target yet".to_owned()
            }
            Stands::Unknown => "the first election".to_owned(),
            Stands::Fencing => "the floor file and every worker".to_owned(),
            Stands::Draining => "writes of a lower epoch that are in flight or lost".to_owned(),
            Stands::Quarantine => format!("what a predecessor forwarded: {:.1} s more", residue.as_secs_f64()),
            Stands::WaitingDoors => match state.handoff.alone_until() {
                Some(until) => {
                    let left = until.since(now).as_secs_f64();
                    format!("doors that may not be on record: {left:.1} s more")
                }
                None => doors_in_words(self.peers_waited_for(gate), now),
            },
            Stands::Blocked => {
                let by = door.and_then(|door| door.blocked_by.as_deref()).unwrap_or("another door");
                match door.and_then(|door| door.blocked_until) {
                    Some(until) => {
                        let left = until.since(now).as_secs_f64();
                        format!("what door {by}, which is gone, may have forwarded: {left:.1} s more")
                    }
                    None => format!("door {by} to leave: if it is dead, `epochgate doors forget {by}`"),
                }
            }
            Stands::Shut if self.floors.failing.is_some() => "the floor file, which cannot be written".to_owned(),
            Stands::Shut => "a session with the coordinator".to_owned(),
        })
    }

    fn report_of(&self, resource: &Resource, target: &str, door: &str) -> Option<Report> {
        self.view.record(&keys::report(resource, target, door))
    }

    fn door_status(&self, resource: &Resource, door: &Door) -> DoorStatus {
        let report = self.report_of(resource, &door.name.target, &door.name.id);
        DoorStatus {
            id: door.name.id.as_str().into(),
            target: door.name.target.as_str().into(),
            kind: match door.record.kind {
                DoorKind::Sole => "sole".into(),
                DoorKind::Shared => "shared".into(),
            },
            mode: match door.record.mode {
                DoorMode::Enforce => "enforce".into(),
                DoorMode::Audit => "audit".into(),
            },
            alive: door.alive,
            address: Some(door.record.address.as_str().into()),
            floor: report.as_ref().map(|report| report.floor),
            drained: report.and_then(|report| report.drained),
            left: door.record.left,
        }
    }

    fn listener_status(&self, listener: &Listener) -> ListenerStatus {
        let guard = match &listener.role {
            Role::Guard(guard) => Some(guard),
            Role::Stamp(_) => None,
        };
        let bound = self.addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, address)| address.clone());
        ListenerStatus {
            name: Arc::clone(&listener.name),
            role: if guard.is_some() { "guard".into() } else { "stamp".into() },
            protocol: "http".into(),
            listen: bound.unwrap_or_else(|| listener.listen.to_string()).into(),
            mode: guard.map(|guard| guard.mode.as_str().into()),
            level: guard.map(|_| "proxy".into()),
            upstream: Arc::clone(&listener.upstream.url),
            connections: 0,
        }
    }
}

/// Adds the workers' accounts to the status.
fn count(mut status: Status, places: &Places, accounts: Vec<Account>, now: Moment) -> Status {
    for listener in &mut status.listeners {
        let open = accounts.iter().flat_map(|account| &account.connections).filter(|(name, _)| *name == listener.name);
        listener.connections = open.map(|(_, count)| count).sum();
    }
    for resource in &mut status.resources {
        let Some(gates) = places.get(&resource.name) else { continue };
        for (gate, shown) in gates.iter().zip(resource.gate.iter_mut().chain(&mut resource.other_gates)) {
            count_gate(shown, *gate, &accounts, now);
        }
    }
    status
}

fn count_gate(shown: &mut GateStatus, gate: GateId, accounts: &[Account], now: Moment) {
    let mine = accounts.iter().flat_map(|account| &account.gates).filter(|account| account.gate == gate);
    let mut holders = Vec::new();
    for account in mine {
        shown.in_flight += account.in_flight;
        shown.lost += account.lost;
        shown.held += account.held;
        holders.extend(account.holders.iter());
    }
    holders.sort_by_key(|holder| holder.since);
    let show = |holder: &&crate::mailbox::Holder| Holder {
        epoch: holder.epoch,
        peer: holder.peer.to_string().into(),
        what: holder.what.as_str().into(),
        age_ms: u64::try_from(now.since(holder.since).as_millis()).unwrap_or(u64::MAX),
    };
    shown.holders = holders.iter().take(HOLDERS).map(show).collect();
}

/// Whom a shared door waits for, and what ends that.
fn doors_in_words(waits_for: &[WaitsFor], now: Moment) -> String {
    let in_words = |waits: &WaitsFor| {
        let door = &waits.door.id;
        match waits.why {
            Why::Draining => format!("door {door} to drain"),
            Why::Forced => format!(
                "door {door}, which opened without having drained: open this one too with `epochgate gate open`"
            ),
            Why::Gone(until) => format!(
                "what door {door}, which is gone, may have forwarded: {:.1} s more",
                until.since(now).as_secs_f64()
            ),
            Why::Held => format!("door {door}, which is not alive: if it is dead, `epochgate doors forget {door}`"),
        }
    };
    if waits_for.is_empty() {
        return "a reading of the other doors".to_owned();
    }
    waits_for.iter().map(in_words).collect::<Vec<_>>().join("; ")
}

fn phase(stands: Stands) -> Phase {
    match stands {
        Stands::Unknown => Phase::Unknown,
        Stands::Fencing => Phase::Fencing,
        Stands::Draining => Phase::Draining,
        Stands::Quarantine => Phase::Quarantine,
        Stands::WaitingDoors => Phase::WaitingDoors,
        Stands::Blocked => Phase::Blocked,
        Stands::Open => Phase::Open,
        Stands::Shut => Phase::Shut,
    }
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
