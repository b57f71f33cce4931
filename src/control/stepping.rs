//! Step-down and the orderly stop (DESIGN 3.4 and 3.5).
//!
//! Both go the same way: refuse new writes, let own writes in flight end (bounded), delete the leader key. A stop then
//! lets the workers finish, takes the doors' records back where nothing is left in any ledger, and ends the lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::account::accounts;
use super::doors::LeavingDoor;
use super::{Control, Ended, Internal};
use crate::coordinator::doors as records;
use crate::coordinator::keys;
use crate::coordinator::records::LeaderRecord;
use crate::event::TermEnd;
use crate::fence::{Moment, Resource, Term};
use crate::mailbox::{GateId, ToWorker, WorkerId};

/// One term that is being given up.
#[derive(Clone, Debug)]
pub struct Step {
    pub(super) resource: Resource,
    pub(super) term: Term,
}

/// How far an orderly stop has come.
#[derive(Default)]
pub struct Stop {
    pub(super) ended: Option<Ended>,
    phase: Phase,
    /// Terms whose writes or keys are not over yet.
    stepping: BTreeMap<Resource, Option<oneshot::Sender<Result<(), String>>>>,
    stopped: Vec<WorkerId>,
    unclean: Vec<GateId>,
    deadline: Option<Moment>,
    /// Whether the workers were told to end at once.
    aborted: bool,
    leaving: Vec<LeavingDoor>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    SteppingDown,
    WorkersFinish,
    /// The floor file is to say in both slots that this door has left, before its record does: so often still.
    Noting(u8),
    Leaving,
}

impl Stop {
    /// Whether the process is stopping.
    pub(super) fn has_begun(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Whether a term of this resource is on its way back: its own writes may still be in flight.
    pub(super) fn is_giving_up(&self, resource: &Resource) -> bool {
        self.stepping.contains_key(resource)
    }

    /// Whether each of so many workers has said that it stopped.
    pub(super) fn all_stopped(&self, workers: usize) -> bool {
        self.stopped.len() == workers
    }

    /// Ends control with this, unless it ended already.
    pub(super) fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
    }

    pub(super) fn wakes_at(&self) -> Option<Moment> {
        self.deadline
    }
}

impl Control {
    // ---- step-down ---------------------------------------------------------------------------------------------

    /// An operator asks this process to give one leadership up.
    pub(super) fn step_down(&mut self, resource: &Resource, force: bool, reply: oneshot::Sender<Result<(), String>>) {
        if self.writer.standing.tenure(resource).is_none() {
            let _ = reply.send(Err(self.why_not_led(resource)));
            return;
        }
        if !force && !self.another_would_lead(resource) {
            let _ = reply.send(Err(format!(
                "no other live candidate for {resource}: nobody would lead; say --force to step down all the same"
            )));
            return;
        }
        let pause = self.clock.now().plus(self.config.step_down.pause);
        if let Some(campaign) = self.writer.campaigns.get_mut(resource) {
            campaign.paused_until = Some(pause);
        }
        self.give_back(resource, TermEnd::StepDown, Some(reply));
    }

    fn why_not_led(&self, resource: &Resource) -> String {
        if !self.config.resources.contains_key(resource) {
            return format!("no resource {resource} is configured here");
        }
        match self.view.record::<LeaderRecord>(&keys::leader(resource)) {
            Some(leader) => {
                let leader = leader.term.writer;
                format!("this process does not lead {resource}, {leader} does: say it to that one's sidecar (--admin)")
            }
            None => format!("nobody leads {resource}"),
        }
    }

    fn another_would_lead(&self, resource: &Resource) -> bool {
        let own = keys::candidate(resource, &self.config.id);
        self.view.under(&keys::candidates(resource)).any(|entry| entry.key != own)
    }

    /// Refuses new writes of the term, waits for those in flight, then deletes its key.
    fn give_back(&mut self, resource: &Resource, why: TermEnd, reply: Option<oneshot::Sender<Result<(), String>>>) {
        let Some(term) = self.end_term(resource, why) else { return };
        self.publish_standing();
        self.stop.stepping.insert(resource.clone(), reply);
        let step = Step { resource: resource.clone(), term };
        let (workers, limit) = (self.workers.clone(), self.config.step_down.timeout);
        self.beside(async move {
            let over = async {
                loop {
                    // A report that follows the new standing in a worker's queue counts no write that began after it.
                    let running = accounts(workers.clone()).await;
                    let left: u64 = running.iter().flat_map(|account| &account.stamped).map(|(of, count)| {
                        if *of == step.resource { *count } else { 0 }
                    }).sum();
                    if left == 0 {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            if tokio::time::timeout(limit, over).await.is_err() {
                tracing::warn!(resource = %step.resource, epoch = %step.term.epoch, "own writes are still in flight: the guards will wait for them");
            }
            Internal::Drained(step)
        });
    }

    pub(super) fn writes_are_over(&mut self, step: Step) {
        self.resign_term(&step.resource, step.term);
    }

    pub(super) fn key_given_back(&mut self, resource: &Resource) {
        // The others can be elected from now on only: the pause that they are given begins now. (A pause that another's
        // election has ended meanwhile stays over.)
        let pause = self.clock.now().plus(self.config.step_down.pause);
        if let Some(paused) = self.writer.campaigns.get_mut(resource).and_then(|it| it.paused_until.as_mut()) {
            *paused = pause;
        }
        if let Some(Some(reply)) = self.stop.stepping.remove(resource) {
            let _ = reply.send(Ok(()));
        }
    }

    // ---- the orderly stop ----------------------------------------------------------------------------------------

    /// Begins to stop in order. A second call changes nothing.
    pub(super) fn begin_stop(&mut self) {
        if self.stop.has_begun() {
            return;
        }
        tracing::info!("stopping: finishing what is in flight");
        self.stop.phase = Phase::SteppingDown;
        let grace = self.config.shutdown_grace;
        self.stop.deadline = Some(self.clock.now().plus(grace));
        for resource in self.writer.standing.tenures.keys().cloned().collect::<Vec<_>>() {
            self.give_back(&resource, TermEnd::Shutdown, None);
        }
    }

    /// Goes on to the next part of the stop when the one before is over, or its time is.
    pub(super) fn tend_stop(&mut self, now: Moment) {
        let late = self.stop.deadline.is_some_and(|deadline| now >= deadline);
        match self.stop.phase {
            Phase::SteppingDown if self.stop.stepping.is_empty() || late => {
                self.stop.phase = Phase::WorkersFinish;
                self.tell_all(|| ToWorker::Stop);
            }
            Phase::WorkersFinish if self.stop.all_stopped(self.workers.len()) => self.note_leaving(),
            Phase::Noting(0) if self.floors.is_settled() => self.leave(true),
            Phase::Noting(more) if more > 0 && self.floors.is_settled() => {
                self.stop.phase = Phase::Noting(more - 1);
                self.floors.write_again();
            }
            Phase::Noting(_) if late => self.leave(false),
            Phase::WorkersFinish if late && self.stop.aborted => {
                let missing = (0..self.workers.len()).map(WorkerId).find(|worker| !self.stop.stopped.contains(worker));
                self.stop.end(Ended::WorkerLost(missing.unwrap_or(WorkerId(0))));
            }
            Phase::WorkersFinish if late => {
                tracing::warn!("the grace period is over: cutting what is still in flight");
                self.stop.aborted = true;
                self.stop.deadline = Some(now.plus(super::pings::WORKER_PATIENCE));
                self.tell_all(|| ToWorker::Abort);
            }
            Phase::Leaving if late => self.stop.end(Ended::Stopped),
            _ => {}
        }
    }

    pub(super) fn worker_stopped(&mut self, worker: WorkerId, unclean: &[GateId]) {
        if !self.stop.has_begun() {
            return self.stop.end(Ended::WorkerLost(worker));
        }
        self.stop.stopped.push(worker);
        self.stop.unclean.extend_from_slice(unclean);
    }

    /// Nothing is sent any more. That goes into the floor file first: a door whose record is gone, and whose file does
    /// not say so, would start as if nobody else could have opened.
    fn note_leaving(&mut self) {
        self.stop.phase = Phase::Noting(1);
        self.stop.deadline = Some(self.clock.now().plus(Duration::from_secs(2)));
        for gate in self.gates.ids().filter(|gate| self.is_clean(*gate)).collect::<Vec<_>>() {
            let name = self.gates.name(gate);
            self.floors.mark_clean(&name.target, &name.resource);
        }
        // From here on no joining that is under way completes: it would take back what is noted now.
        self.stop.leaving = self.doors_leave();
        for door in &self.stop.leaving {
            self.floors.leave(&door.name.target, true);
        }
        self.floors.submit();
    }

    /// A door whose ledgers are empty takes its record back; another's is marked *left*, and its quarantine is waited
    /// out by whoever comes. Where the floor file does not say so (`noted`), the record stands as after a crash.
    fn leave(&mut self, noted: bool) {
        self.stop.phase = Phase::Leaving;
        let limit = self.config.coordinator.request_timeout * 2;
        self.stop.deadline = Some(self.clock.now().plus(limit));
        let mut leaving = Vec::new();
        for door in std::mem::take(&mut self.stop.leaving) {
            let clean = door.gates.iter().all(|gate| self.is_clean(*gate));
            // Where time ends nothing, to have left would promise too much: the record stands for an operator.
            let may = noted && (clean || door.by_time) && !door.stays;
            if let Some(joined_at) = door.joined_at.filter(|_| may) {
                leaving.push((door.name, joined_at, clean));
            }
        }
        let (store, lease) = (Arc::clone(&self.store), self.connection.lease);
        self.beside(async move {
            for (name, joined_at, clean) in leaving {
                let left = if clean {
                    records::leave(store.as_ref(), &name, joined_at).await
                } else {
                    records::mark_left(store.as_ref(), &name).await.map(|_| ())
                };
                if let Err(error) = left {
                    tracing::warn!(target = %name.target, door = %name.id, %error, "cannot take the door's record back");
                }
            }
            if let Some(lease) = lease
                && let Err(error) = store.revoke(lease.id).await {
                    tracing::warn!(%error, "cannot end the lease; it lapses by itself");
                }
            Internal::Left
        });
    }

    fn is_clean(&self, gate: GateId) -> bool {
        let residue = self.gates.get(gate).handoff.has_residue(self.clock.now());
        !self.stop.unclean.contains(&gate) && !residue
    }

    pub(super) fn left(&mut self) {
        self.stop.end(Ended::Stopped);
    }
}
