//! The shell around one gate in one worker: takes orders and writes to it, and says to control what came of them.
//!
//! Nothing foreign (a waker, a sink, a queue) is ever called while the gate is borrowed: what is to be said is
//! collected first, and said after.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::desk::GuardDesk;
use super::running::{self, Carried, Era, Lost, Running};
use crate::event::Event;
use crate::fence::gate::{Cause, Gate, Order, Policy};
use crate::fence::mechanism::Mechanism;
use crate::fence::{Epoch, Moment, Resource, WriterId};
use crate::mailbox::{GateAccount, GateId, GateName, ToControl, WorkerId};
use crate::protocol::signal::Ask;

/// What a worker is told of one of its gates.
#[derive(Clone, Debug)]
pub struct GateSetup {
    /// Its name.
    pub name: GateName,
    /// What it goes by.
    pub policy: Policy,
    /// How long a write is held at most.
    pub hold_timeout: Duration,
}

/// One gate in one worker, with everything around it.
pub struct GateCell {
    /// Its number; none for the one of an audit door that control knows nothing of.
    id: Option<GateId>,
    pub(super) name: GateName,
    policy: Policy,
    pub(super) hold_timeout: Duration,
    pub(super) desk: Rc<GuardDesk>,
    pub(super) state: RefCell<State>,
    /// The stamp that the present writer sends: the same bytes with every write, but for a signature.
    pub(super) carried: RefCell<Option<Rc<Carried>>>,
    ordered: Notify,
    pub(super) held: Cell<u64>,
    /// Control said that an epoch up to this one is real, and has given no order since.
    pub(super) known: Cell<Option<Epoch>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub gate: Gate,
    pub running: Running,
    pub lost: Lost,
    /// The present one.
    pub era: Rc<Era>,
    /// Those that are over and still have a write running.
    over: Vec<Rc<Era>>,
    unsaid: Unsaid,
}

/// What control waits to hear of the present floor.
#[derive(Debug, Default)]
struct Unsaid {
    quiet: bool,
    drained: bool,
}

impl GateCell {
    /// A gate that waits for its first order. It keeps a copy of its own of the resource's name, which no other
    /// worker counts references to.
    pub fn new(id: GateId, setup: GateSetup, desk: Rc<GuardDesk>) -> GateCell {
        GateCell::with(Some(id), setup, desk)
    }

    /// A gate for what the same audit door lets through although nothing names its resource. Control knows nothing of
    /// it.
    pub(super) fn sibling_for_strays(&self) -> GateCell {
        let setup = GateSetup { name: self.name.clone(), policy: self.policy, hold_timeout: self.hold_timeout };
        GateCell::with(None, setup, Rc::clone(&self.desk))
    }

    fn with(id: Option<GateId>, setup: GateSetup, desk: Rc<GuardDesk>) -> GateCell {
        let GateSetup { mut name, policy, hold_timeout } = setup;
        name.resource = name.resource.as_str().parse().unwrap_or(name.resource);
        let state = State {
            gate: Gate::new(policy),
            running: Running::default(),
            lost: Lost::default(),
            era: Rc::default(),
            over: Vec::new(),
            unsaid: Unsaid::default(),
        };
        GateCell {
            id,
            name,
            policy,
            hold_timeout,
            desk,
            state: RefCell::new(state),
            carried: RefCell::new(None),
            ordered: Notify::new(),
            held: Cell::new(0),
            known: Cell::new(None),
        }
    }

    /// Its number, where control knows it.
    pub fn id(&self) -> Option<GateId> {
        self.id
    }

    /// Which resource at which target, behind which listener.
    pub fn name(&self) -> &GateName {
        &self.name
    }

    /// Its resource.
    pub fn resource(&self) -> &Resource {
        &self.name.resource
    }

    pub(super) fn keeps(&self, mechanism: Mechanism) -> bool {
        self.policy.mechanisms.keeps(mechanism)
    }

    /// Whether it only counts.
    pub fn is_audit(&self) -> bool {
        self.policy.audit
    }

    /// The highest epoch that it was told of.
    pub fn floor(&self) -> Option<Epoch> {
        self.state.borrow().gate.floor()
    }

    /// Whose the present term is.
    pub fn writer(&self) -> Option<WriterId> {
        self.state.borrow().gate.term().map(|term| term.writer.clone())
    }

    /// Whether nothing may still take effect. Call [`tick`](Self::tick) first.
    pub fn is_empty(&self) -> bool {
        self.state.borrow().gate.ledger().is_empty()
    }

    /// How many writes run.
    pub fn running(&self) -> u64 {
        self.state.borrow().gate.ledger().running()
    }

    /// Follows an order of control, answers it, and wakes what is held.
    pub fn follow(&self, order: Order) {
        let now = self.desk.clock.now();
        let fences = if let Order::Fence(term) = &order { Some(term.clone()) } else { None };
        let (asks, over, fenced) = {
            let state = &mut *self.state.borrow_mut();
            let asks = self.asks_of_the_present(&state.gate, &order);
            if let Order::ProvedOver(epoch) = &order {
                state.lost.prove_over(*epoch);
            }
            let before = state.gate.floor();
            state.gate.follow(order);
            state.expire(now, &self.policy);
            if state.gate.floor() != before {
                state.unsaid = Unsaid { quiet: true, drained: true };
            }
            let fenced = fences.is_some() && fences.as_ref() == state.gate.term();
            if asks.is_some() {
                state.begin_an_era();
            }
            (asks.unwrap_or(Ask::Nothing), state.over.clone(), fenced)
        };
        self.known.set(None);
        self.ask_of(&over, asks);
        if fenced {
            self.say(ToControl::Fenced);
        }
        self.report();
        self.mind_the_time();
        self.ordered.notify_waiters();
    }

    /// What the order asks of all writes that were let in until now; none where it leaves them alone.
    fn asks_of_the_present(&self, gate: &Gate, order: &Order) -> Option<Ask> {
        match order {
            Order::Fence(term) if gate.floor() < Some(term.epoch) => Some(Ask::Hurry),
            // Others wait this door out from its session's end on: nothing of it may run on, or its quarantine would
            // begin later than they count.
            Order::Shut(Cause::SessionOver) => Some(Ask::Cut),
            // Another door may open from now on: nothing more may leave here, also not the rest of what has begun. A
            // gate that was open is told to join again only where its record is gone, or says that it has left.
            Order::Shut(Cause::Blocked(_) | Cause::Joining) => Some(Ask::CutHalfSent),
            _ => None,
        }
    }

    /// Cuts what runs of the terms before the present one, below `below`: what is half sent, or everything.
    pub fn cut(&self, below: Epoch, all: bool) {
        let over: Vec<Rc<Era>> = {
            let state = self.state.borrow();
            state.over.iter().filter(|era| era.epoch < Some(below)).map(Rc::clone).collect()
        };
        self.ask_of(&over, if all { Ask::Cut } else { Ask::CutHalfSent });
    }

    /// An audit door asks nothing of anybody: it forwards everything to its end.
    fn ask_of(&self, eras: &[Rc<Era>], ask: Ask) {
        for era in eras.iter().filter(|_| !self.policy.audit) {
            era.caller.ask(ask);
        }
    }

    /// Forgets what time has ended, and says what follows. Returns when it is to be called again, where it is.
    pub fn tick(&self, now: Moment) -> Option<Moment> {
        let wakes_at = {
            let mut state = self.state.borrow_mut();
            state.expire(now, &self.policy);
            state.gate.wakes_at()
        };
        self.report();
        wakes_at
    }

    /// Control said that this epoch is real: it is not asked again before the next order.
    pub fn is_known(&self, epoch: Epoch) {
        self.known.set(self.known.get().max(Some(epoch)));
    }

    /// Its account; `None` where there is nothing to say.
    pub fn account(&self) -> Option<GateAccount> {
        let gate = self.id?;
        self.tick(self.desk.clock.now());
        let state = self.state.borrow();
        let (in_flight, lost) = (state.gate.ledger().running(), state.gate.ledger().lost());
        let held = self.held.get();
        if in_flight == 0 && lost == 0 && held == 0 {
            return None;
        }
        let holders = running::holders(&state.running, &state.lost, state.gate.floor());
        Some(GateAccount { gate, in_flight, lost, lost_until: state.gate.wakes_at(), held, holders })
    }

    /// The next order: resolves on every one that comes after this call.
    pub(super) fn next_order(&self) -> Notified<'_> {
        self.ordered.notified()
    }

    /// Says to control what has become true since its last order. Cheap where there is nothing to say.
    pub(super) fn report(&self) {
        let (quiet, drained) = {
            let state = &mut *self.state.borrow_mut();
            let quiet = state.unsaid.quiet && state.gate.is_quiet();
            let drained = state.unsaid.drained && state.gate.has_drained();
            state.unsaid.quiet &= !quiet;
            state.unsaid.drained &= !drained;
            (quiet, drained)
        };
        if quiet {
            self.say(ToControl::Quiet);
        }
        if drained {
            self.say(ToControl::Drained);
        }
    }

    fn say(&self, report: impl FnOnce(WorkerId, GateId, Epoch) -> ToControl) {
        if let (Some(id), Some(floor)) = (self.id, self.floor()) {
            self.desk.report(report(self.desk.worker, id, floor));
        }
    }

    /// Has the worker's timer call [`tick`](Self::tick) where a lost write keeps the gate shut.
    pub(super) fn mind_the_time(&self) {
        let waits = self.state.borrow().gate.wakes_at().is_some();
        if let Some(id) = self.id.filter(|_| waits) {
            self.desk.alarm.set(id);
        }
    }

    pub(super) fn emit(&self, event: Event) {
        // What has no resource has no place in the history either.
        if self.id.is_some() {
            self.desk.events.emit(self.desk.clock.now(), event);
        }
    }
}

impl State {
    /// The writes that come from now on are called apart from those before.
    fn begin_an_era(&mut self) {
        let new = Rc::new(Era { epoch: self.gate.floor(), ..Era::default() });
        let over = std::mem::replace(&mut self.era, new);
        if over.running.get() > 0 {
            self.over.push(over);
        }
    }

    /// Drops the eras whose last write has ended.
    pub fn forget_eras(&mut self) {
        self.over.retain(|era| era.running.get() > 0);
    }

    fn expire(&mut self, now: Moment, policy: &Policy) {
        self.gate.tick(now);
        if policy.by_time {
            self.lost.expire(now, policy.quarantine);
        }
        if self.gate.ledger().lost() == 0 {
            self.lost.clear();
        }
    }
}
