//! What `status` says: control's own knowledge, and the workers' accounts of what is in flight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Control;
use super::words::{Draining, tell_drain};
use crate::admin::status::{
    CoordinatorStatus, DoorStatus, GateStatus, HandoffStatus, Holder, Leader, ListenerStatus, Phase, ResourceStatus,
    Standing, State, Status,
};
use crate::clock::to_wall;
use crate::config::resolved::{Listener, Mode, Role};
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

/// The gates of each resource, in the order in which the status shows them, with what is to be said of their drains.
type Places = BTreeMap<Resource, Vec<(GateId, Draining)>>;

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
        let place = |gate: &GateId| (*gate, self.draining(*gate));
        let of = |resource: &Resource| self.gates.of(resource).iter().map(place).collect();
        self.config.resources.keys().map(|resource| (resource.clone(), of(resource))).collect()
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
            leader: leader.map(|leader| Leader {
                id: leader.term.writer,
                address: leader.address.map(Into::into),
                held: leader.held,
            }),
            standing: self.standing_status(resource, now),
            gate: gates.next(),
            other_gates: gates.collect(),
            doors,
            election_stopped: self.election_stopped(resource).map(Into::into),
            last_handoff: last.map(|last| HandoffStatus {
                epoch: last.epoch,
                at: to_wall(self.clock.as_ref(), last.at),
                fence_ms: millis(last.fence),
                drain_ms: millis(last.drain),
                mark_ms: millis(last.mark),
                doors_ms: millis(last.doors),
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
            deadline_ms: deadline.map(whole_millis),
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
            lost_ms: None,
            held: 0,
            residue_ms: whole_millis(residue),
            holders: Vec::new(),
            waits_for_doors: self.peers_waited_for(gate).iter().map(|waits| waits.door.id.as_str().into()).collect(),
            unrecorded_ms: self.unrecorded(gate, now).map(whole_millis),
            blocked_by,
            waits_for: self.waits_for(gate, residue, now).map(Into::into),
            fence_action_error: self.action_error(gate),
            stuck: false,
            regression: regression.map(Into::into),
        }
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
            protocol: listener.protocol.as_str().into(),
            listen: bound.unwrap_or_else(|| listener.listen.to_string()).into(),
            mode: guard.map(|guard| guard.mode.as_str().into()),
            level: guard.map(|guard| match guard.mode {
                Mode::Audit => "not_proven".into(),
                Mode::Enforce if self.gates.is_in_target(&listener.name) => "in-target".into(),
                Mode::Enforce => "proxy".into(),
            }),
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
        for ((gate, draining), shown) in gates.iter().zip(resource.gate.iter_mut().chain(&mut resource.other_gates)) {
            count_gate(shown, *gate, &accounts, now);
            tell_drain(shown, draining);
        }
    }
    status
}

fn count_gate(shown: &mut GateStatus, gate: GateId, accounts: &[Account], now: Moment) {
    let mine = accounts.iter().flat_map(|account| &account.gates).filter(|account| account.gate == gate);
    let (mut holders, mut lost_until) = (Vec::new(), None);
    for account in mine {
        shown.in_flight += account.in_flight;
        shown.lost += account.lost;
        shown.held += account.held;
        lost_until = lost_until.max(account.lost_until);
        holders.extend(account.holders.iter());
    }
    shown.lost_ms = lost_until.map(|until| whole_millis(until.since(now)));
    holders.sort_by_key(|holder| holder.since);
    let show = |holder: &&crate::mailbox::Holder| Holder {
        epoch: holder.epoch,
        peer: holder.peer.to_string().into(),
        what: holder.what.as_str().into(),
        age_ms: whole_millis(now.since(holder.since)),
    };
    shown.holders = holders.iter().take(HOLDERS).map(show).collect();
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

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
