//! One thread that owns the coordinator session and the floor file, and runs every handoff and every candidacy.
//!
//! Everything comes in as an [`Input`], one at a time, and is answered at once: what takes time (a call to the
//! coordinator, a write to the disk, a command) runs beside and comes back as an input of its own. So nothing here
//! waits, and no two things happen at once.
//!
//! | file | what it does |
//! |---|---|
//! | [`setup`] | what control is given, and how it ends |
//! | [`gates`] | drives the handoff machine of each gate: events in, effects out |
//! | [`doors`] | joins targets, and keeps their records |
//! | [`writer`] | what this process would lead, and what it may stamp |
//! | [`candidacy`], [`elections`] | how it comes to lead |
//! | [`leaderships`] | own terms: over, given up, armed |
//! | [`stepping`] | step-down and the orderly stop |
//! | [`agreeing`] | what shared doors agree on |
//! | [`floors`] | what goes to the floor file, and when it is durable |
//! | [`reports`] | what this process's doors publish |
//! | [`action`] | fence actions |
//! | [`proving`] | proofs of the target |
//! | [`pings`] | whether the workers still answer |
//! | [`account`], [`words`] | what `status` says, in numbers and for people |
//! | [`calls`] | what the admin side asks for |

mod account;
mod action;
mod agreeing;
#[cfg(test)]
mod away_tests;
pub mod calls;
mod candidacy;
mod doors;
mod elections;
mod failpoint;
mod floors;
mod gates;
mod leaderships;
mod pings;
pub mod proving;
mod reports;
mod setup;
mod stepping;
#[cfg(test)]
mod tests;
mod words;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::{Clock, Entropy};
use crate::config::Config;
use crate::coordinator::doors::{Joined, Sightings};
use crate::coordinator::election::Campaigned;
use crate::coordinator::observer::{Look, Observed, Pace, View, observe};
use crate::coordinator::session::{SessionEvent, keep};
use crate::coordinator::store::{Committed, Keys, Lease, Store, StoreError};
use crate::event::{Event, EventSink};
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Epoch, Moment, Resource, Term};
use crate::mailbox::{Answer, GateId, ToControl, ToWorker, WorkerId};
use crate::state_dir::FloorEvent;
pub use calls::{Call, Handle, Wish};
use failpoint::failpoint;
use pings::{PING_EVERY, Pings};
pub use setup::{Ended, Setup};

/// What comes back from something that ran beside.
#[derive(Debug)]
enum Internal {
    Joined { door: usize, lease: Lease, result: Result<(Joined, Sightings), StoreError> },
    Campaigned { resource: Resource, lease: Lease, result: Result<Campaigned, StoreError> },
    Registered { resources: Vec<Resource>, lease: Lease, result: Result<Committed, StoreError> },
    Resigned { resource: Resource, term: Term, result: Result<bool, StoreError> },
    Reported { gates: Vec<GateId>, result: Result<Committed, StoreError> },
    ActionDone { gate: GateId, epoch: Epoch, result: Result<(), String> },
    Proved { gate: GateId, epoch: Epoch, result: Result<crate::target::Proof, String> },
    ProveAgain { gate: GateId, epoch: Epoch },
    Drained(stepping::Step),
    Left,
}

/// One thing that happened.
enum Input {
    Worker(Option<ToControl>),
    Session(SessionEvent),
    Observed(Observed),
    Floors(Option<FloorEvent>),
    Internal(Internal),
    Call(Option<Call>),
    Time,
}

/// So many inputs are taken in before what they led to goes out.
const MOST_IN_A_ROUND: usize = 256;

/// The control thread's state.
pub struct Control {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    mechanisms: Mechanisms,
    events: EventSink,
    metrics: Arc<crate::metrics::Metrics>,
    addresses: Vec<(Arc<str>, String)>,
    started: Moment,
    workers: Vec<mpsc::UnboundedSender<ToWorker>>,
    pings: Pings,
    view: View,
    connection: Connection,
    looks: Looks,
    internal: mpsc::UnboundedSender<Internal>,
    gates: gates::Gates,
    provers: proving::Provers,
    doors: doors::Doors,
    floors: floors::Floors,
    reports: reports::Reports,
    agreeing: agreeing::Agreeing,
    writer: writer::Writer,
    stop: stepping::Stop,
}

/// How the coordinator was last heard of.
struct Connection {
    up: Option<bool>,
    lease: Option<Lease>,
    confirmed: Option<Moment>,
    regressions: u64,
}

/// Readings that somebody waits for.
struct Looks {
    send: mpsc::UnboundedSender<Look>,
    last: u64,
    /// The highest that a reading has answered.
    seen: u64,
    asks: Vec<(u64, Asked)>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    worker: WorkerId,
    number: u64,
    gate: GateId,
    epoch: Epoch,
}

/// Runs control on the current-thread runtime that it is called on, until it is told to stop ([`Call::Stop`]) or
/// cannot go on.
pub async fn run(setup: Setup) -> Ended {
    let (look, looks) = mpsc::unbounded_channel();
    let (internal, mut from_tasks) = mpsc::unbounded_channel();
    let (session, mut sessions) = mpsc::unbounded_channel();
    let (observed, mut observations) = mpsc::unbounded_channel();
    let (mut from_workers, mut calls) = (setup.from_workers, setup.calls);
    let (writer, mut from_disk) = setup.floors.unzip();
    let coordinator = &setup.config.coordinator;
    let pace = Pace {
        verify_every: coordinator.verify_every,
        refresh_every: Duration::from_secs(30).max(coordinator.lease_ttl),
    };
    let beside = [
        tokio::task::spawn_local(keep(setup.store.clone(), coordinator.lease_ttl, session)),
        tokio::task::spawn_local(observe(setup.store.clone(), setup.entropy.clone(), pace, looks, observed)),
    ];
    let now = setup.clock.now();
    let mut control = Control {
        started: now,
        pings: Pings { sent: now, number: 0, answered: vec![now; setup.workers.len()] },
        view: View::default(),
        connection: Connection { up: None, lease: None, confirmed: None, regressions: 0 },
        looks: Looks { send: look, last: 0, seen: 0, asks: Vec::new() },
        gates: gates::Gates::start(
            &setup.config,
            &setup.gates,
            &setup.memory,
            setup.workers.len(),
            setup.mechanisms,
            now,
        ),
        provers: proving::Provers::start(setup.provers),
        doors: doors::Doors::start(&setup.config, &setup.gates, setup.door.clone(), &setup.memory, &setup.addresses),
        floors: floors::Floors::new(writer, setup.memory, setup.mechanisms),
        reports: reports::Reports::default(),
        agreeing: agreeing::Agreeing::default(),
        writer: writer::Writer::start(&setup.config, setup.entropy.as_ref(), setup.mechanisms),
        stop: stepping::Stop::default(),
        internal,
        config: setup.config,
        store: setup.store,
        clock: setup.clock,
        entropy: setup.entropy,
        mechanisms: setup.mechanisms,
        events: setup.events,
        metrics: setup.metrics,
        addresses: setup.addresses,
        workers: setup.workers,
    };
    control.start_gates();
    let mut workers_left = true;
    let ended = loop {
        control.finish_round();
        if let Some(ended) = control.stop.ended.take() {
            break ended;
        }
        let wake = control.wakes_at();
        let pause = wake.map_or(PING_EVERY, |wake| wake.since(control.clock.now())).min(PING_EVERY);
        // In this order nothing is starved: every source is bounded by what control itself has asked for. The disk answers
        // submissions, the observer and the session wait a time between two events, tasks and workers answer orders (a
        // worker may have so many questions open, and the answers come from readings), and whoever calls waits for the
        // answer. That time has passed is looked at after every input. A choice at random would be no fairer, and the
        // simulation could not be repeated.
        let input = tokio::select! {
            biased;
            event = disk(&mut from_disk) => Input::Floors(event),
            Some(event) = sessions.recv() => Input::Session(event),
            Some(observed) = observations.recv() => Input::Observed(observed),
            Some(done) = from_tasks.recv() => Input::Internal(done),
            message = from_workers.recv(), if workers_left => {
                workers_left = message.is_some();
                Input::Worker(message)
            }
            call = calls.recv() => Input::Call(call),
            () = tokio::time::sleep(pause) => Input::Time,
        };
        control.take(input);
        // What else waits is taken in before anything goes out, so that a thousand results share one round.
        for _ in 0..MOST_IN_A_ROUND {
            let more = from_tasks
                .try_recv()
                .map(Input::Internal)
                .or_else(|_| from_workers.try_recv().map(|message| Input::Worker(Some(message))));
            let Ok(more) = more else { break };
            control.take(more);
        }
    };
    beside.iter().for_each(tokio::task::JoinHandle::abort);
    control.floors.close();
    ended
}

async fn disk(events: &mut Option<mpsc::UnboundedReceiver<FloorEvent>>) -> Option<FloorEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

impl Control {
    fn take(&mut self, input: Input) {
        match input {
            Input::Worker(Some(message)) => self.worker_says(message),
            // All of them are gone: as they should be where each has said that it stopped.
            Input::Worker(None) if self.stop.all_stopped(self.workers.len()) => {}
            Input::Worker(None) => self.stop.end(Ended::WorkerLost(WorkerId(0))),
            Input::Session(event) => self.session_says(event),
            Input::Observed(Observed::Read(reading)) => self.observe(reading),
            Input::Observed(Observed::Failed(error)) => self.coordinator_failed(&error),
            Input::Floors(Some(event)) => self.disk_says(event),
            Input::Floors(None) => self.stop.end(Ended::FloorsLost),
            Input::Internal(done) => self.task_says(done),
            Input::Call(Some(call)) => self.call(call),
            Input::Call(None) => self.begin_stop(),
            Input::Time => {}
        }
        self.time_passes();
    }

    fn worker_says(&mut self, message: ToControl) {
        use crate::fence::handoff::Event as Handoff;
        match message {
            ToControl::Fenced(worker, gate, epoch) => self.drive(gate, Handoff::WorkerFenced(worker.0, epoch)),
            ToControl::Quiet(worker, gate, epoch) => self.drive(gate, Handoff::WorkerQuiet(worker.0, epoch)),
            ToControl::Drained(worker, gate, epoch) => self.drive(gate, Handoff::WorkerDrained(worker.0, epoch)),
            ToControl::Ask { worker, number, gate, epoch } => {
                let look = self.look(Vec::new());
                self.looks.asks.push((look, Asked { worker, number, gate, epoch }));
            }
            // A report that follows a standing in a worker's queue says what this would.
            ToControl::Adopted(..) => {}
            ToControl::Pong(worker, _) => self.pings.answered[worker.0] = self.clock.now(),
            ToControl::Stopped { worker, unclean } => self.worker_stopped(worker, &unclean),
        }
    }

    fn task_says(&mut self, done: Internal) {
        match done {
            Internal::Joined { door, lease, result } => self.joined(door, lease, result),
            Internal::Campaigned { resource, lease, result } => self.campaigned(&resource, lease, result),
            Internal::Registered { resources, lease, result } => self.registered(resources, lease, result),
            Internal::Resigned { resource, term, result } => self.resigned(&resource, &term, result),
            Internal::Reported { gates, result } => self.reported(gates, result),
            Internal::ActionDone { gate, epoch, result } => self.action_done(gate, epoch, result),
            Internal::Proved { gate, epoch, result } => self.proved(gate, epoch, result),
            Internal::ProveAgain { gate, epoch } => self.prove_again(gate, epoch),
            Internal::Drained(step) => self.writes_are_over(step),
            Internal::Left => self.left(),
        }
    }

    fn session_says(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Began(lease) => {
                self.connection.lease = Some(lease);
                self.coordinator_answered();
                self.session_began();
                self.session_renewed(lease);
            }
            SessionEvent::Renewed(lease) => {
                self.connection.lease = Some(lease);
                self.coordinator_answered();
                self.session_renewed(lease);
            }
            SessionEvent::Ended(_) => {
                self.connection.lease = None;
                self.session_ended();
            }
            SessionEvent::Failed(error) => self.coordinator_failed(&error),
        }
    }

    fn session_renewed(&mut self, lease: Lease) {
        let until = lease.sent.plus(self.config.clock.trusted(lease.ttl));
        self.writer_renewed(until);
        self.gates_renewed(until);
    }

    /// A linearizable reading came: everybody who goes by it hears of it, doors first.
    fn observe(&mut self, reading: crate::coordinator::observer::Reading) {
        self.coordinator_answered();
        self.connection.confirmed = Some(reading.sent);
        let (looked, revision) = (reading.looked, reading.revision);
        let whole_doors = reading.covers.iter().any(|keys| keys.contain(crate::coordinator::keys::DOORS));
        self.looks.seen = self.looks.seen.max(looked);
        let whole_leaders = reading.covers.iter().any(|keys| keys.contain(crate::coordinator::keys::LEADERS));
        let whole_reports = reading.covers.iter().any(|keys| keys.contain(crate::coordinator::keys::REPORTS));
        let before = self.view.revision;
        let mut changed = self.view.take(reading);
        changed.extend(self.leaders_to_check(whole_leaders, revision < before));
        let went_back = self.floors.went_back(revision.0) && !self.gates.is_empty();
        self.observe_doors(looked, went_back);
        self.observe_epochs(&changed, went_back);
        self.observe_agreement(whole_doors, went_back);
        self.observe_leaderships(&changed, whole_doors.then_some(revision));
        self.observe_reports(&changed, whole_reports, revision < before);
        self.answer_asks(looked);
    }

    /// Has everything read again, after now, with these keys besides; returns the reading's number.
    fn look(&mut self, keys: Vec<Keys>) -> u64 {
        self.looks.last += 1;
        // The observer ends only with control.
        let _ = self.looks.send.send(Look(self.looks.last, keys));
        self.looks.last
    }

    fn answer_asks(&mut self, looked: u64) {
        let (due, later): (Vec<_>, Vec<_>) = self.looks.asks.drain(..).partition(|(look, _)| *look <= looked);
        self.looks.asks = later;
        for (_, asked) in due {
            // A door that has not joined weighs no reading, and so can deny nothing.
            let joined = self.doors.joined_at(&self.gates.get(asked.gate).name.target).is_some();
            let known = self.gates.floor(asked.gate);
            let answer = if known.is_some_and(|known| known >= asked.epoch) {
                Answer::Known
            } else if !joined || self.gates.is_regressed(asked.gate) {
                Answer::Unreachable
            } else {
                Answer::Denied(known)
            };
            self.tell(asked.worker, ToWorker::Answer(asked.number, answer));
        }
    }

    fn coordinator_answered(&mut self) {
        if self.connection.up != Some(true) {
            self.connection.up = Some(true);
            let endpoint: Arc<str> = self.store.endpoint().into();
            tracing::info!(%endpoint, "the coordinator answers");
            self.say(Event::CoordinatorUp { endpoint });
        }
    }

    fn coordinator_failed(&mut self, error: &StoreError) {
        // The coordinator did answer: the session says what follows from it.
        if *error == StoreError::LeaseGone {
            return;
        }
        if self.connection.up != Some(false) {
            self.connection.up = Some(false);
            tracing::warn!(%error, "the coordinator does not answer; trying again until it does");
            self.say(Event::CoordinatorDown { error: error.to_string().into() });
            self.writer.campaigns.values_mut().for_each(|campaign| campaign.other_seen = None);
        }
        for (_, asked) in std::mem::take(&mut self.looks.asks) {
            self.tell(asked.worker, ToWorker::Answer(asked.number, Answer::Unreachable));
        }
    }

    /// After every input: what has gathered goes out once, so that a thousand handoffs share a write and a commit.
    fn finish_round(&mut self) {
        self.floors.submit();
        self.publish_standing();
        self.send_reports();
    }

    fn time_passes(&mut self) {
        let now = self.clock.now();
        self.tick_gates(now);
        self.tend_doors(now);
        self.tend_agreements(now);
        self.tend_writer(now);
        self.tend_stop(now);
        if now.since(self.pings.sent) >= PING_EVERY {
            self.ping(now);
        }
    }

    /// When there is something to do by the clock. Joining and campaigning need a session: without one, what is due
    /// waits for it, and waking up for it again and again would keep a core busy for as long as the coordinator is away.
    fn wakes_at(&self) -> Option<Moment> {
        let may_begin = self.connection.lease.is_some() && !self.stop.has_begun();
        let with_a_session = [self.doors.wakes_at(), self.writer.wakes_at()].into_iter().filter(|_| may_begin);
        let always = [self.gates.wakes_at(), self.agreeing.wakes_at(), self.stop.wakes_at()];
        always.into_iter().chain(with_a_session).flatten().min()
    }

    fn tell(&mut self, worker: WorkerId, message: ToWorker) {
        if self.workers[worker.0].send(message).is_err() && !self.stop.has_begun() {
            self.stop.end(Ended::WorkerLost(worker));
        }
    }

    fn tell_all(&mut self, message: impl Fn() -> ToWorker) {
        for worker in 0..self.workers.len() {
            self.tell(WorkerId(worker), message());
        }
    }

    fn say(&self, event: Event) {
        self.events.emit(self.clock.now(), event);
    }

    /// Runs something beside; what it returns comes back as an input.
    fn beside(&self, work: impl std::future::Future<Output = Internal> + 'static) {
        let internal = self.internal.clone();
        tokio::task::spawn_local(async move {
            // Control may have ended meanwhile.
            let _ = internal.send(work.await);
        });
    }
}
