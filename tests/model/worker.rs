//! One worker's gate, with the shell that production has around it (`src/guard/cell.rs`): orders in, reports out.

use std::collections::VecDeque;

use epochgate::fence::gate::{Admitted, End, Gate, Order, Policy, Verdict};
use epochgate::fence::handoff::Event;
use epochgate::fence::mechanism::Mechanisms;
use epochgate::fence::{Epoch, Moment, Stamp, Term};

use crate::words::{LATER, QUARANTINE, nonce, writer_id};

/// A worker as far as one resource goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Its gate.
    pub gate: Gate,
    /// What control has ordered and it has not read yet.
    pub orders: VecDeque<Order>,
    owes_quiet: bool,
    owes_drained: bool,
}

fn policy(mechanisms: Mechanisms) -> Policy {
    Policy { audit: false, bare_stamps: true, quarantine: QUARANTINE, by_time: true, mechanisms }
}

impl Worker {
    /// One that knows nothing yet.
    pub fn new(mechanisms: Mechanisms) -> Worker {
        let gate = Gate::new(policy(mechanisms));
        Worker { gate, orders: VecDeque::new(), owes_quiet: false, owes_drained: false }
    }

    /// Reads its next order. Returns it, and what the worker says to control.
    pub fn follow(&mut self, number: usize) -> Option<(Order, Vec<Event>)> {
        let order = self.orders.pop_front()?;
        let before = self.gate.floor();
        self.gate.follow(order.clone());
        if self.gate.floor() != before {
            (self.owes_quiet, self.owes_drained) = (true, true);
        }
        let mut says = Vec::new();
        if let (Order::Fence(term), Some(floor)) = (&order, self.gate.floor())
            && self.gate.term() == Some(term)
        {
            says.push(Event::WorkerFenced(number, floor));
        }
        self.report(number, &mut says);
        Some((order, says))
    }

    /// Takes back the right of a write of this epoch.
    pub fn settle(&mut self, number: usize, epoch: Epoch, end: End) -> Vec<Event> {
        // A ledger only asks whether it has lost something of an epoch: how often, is no part of the state.
        let again = matches!(end, End::Lost(_)) && self.has_lost(epoch);
        self.gate.settle(right(epoch), if again { End::NothingLeft } else { end });
        let mut says = Vec::new();
        self.report(number, &mut says);
        says
    }

    /// The quarantine of everything that it lost is over.
    pub fn quarantine_passes(&mut self, number: usize) -> Vec<Event> {
        self.gate.tick(LATER);
        let mut says = Vec::new();
        self.report(number, &mut says);
        says
    }

    /// What its gate says to a write.
    pub fn admit(&mut self, stamp: &Stamp, session_clock: Moment) -> Verdict {
        self.gate.mind_session(session_clock);
        self.gate.admit(Some(stamp))
    }

    /// Whether the gate still lets a write go that it let in.
    pub fn confirms(&mut self, epoch: Epoch, session_clock: Moment) -> bool {
        self.gate.mind_session(session_clock);
        self.gate.confirm(&right(epoch)).is_ok()
    }

    /// Whether the ledger has lost a write of this epoch, and none of a lower one.
    fn has_lost(&self, epoch: Epoch) -> bool {
        let lost_below = |epoch| self.gate.ledger().quarantine_ends(epoch, QUARANTINE).is_some();
        !lost_below(epoch) && epoch.after().is_some_and(lost_below)
    }

    fn report(&mut self, number: usize, says: &mut Vec<Event>) {
        let Some(floor) = self.gate.floor() else { return };
        if std::mem::take(&mut self.owes_quiet) {
            self.owes_quiet = !self.gate.is_quiet();
            says.extend((!self.owes_quiet).then_some(Event::WorkerQuiet(number, floor)));
        }
        if std::mem::take(&mut self.owes_drained) {
            self.owes_drained = !self.gate.has_drained();
            says.extend((!self.owes_drained).then_some(Event::WorkerDrained(number, floor)));
        }
    }
}

/// The right of a write of this epoch. A right cannot be cloned, and so no state can hold one; a write's state says that
/// it has one, and where it is used a gate that is open for its epoch makes another.
fn right(epoch: Epoch) -> Admitted {
    let term = Term { epoch, nonce: nonce(0), writer: writer_id(0) };
    let mut gate = Gate::new(policy(Mechanisms::all()));
    gate.follow(Order::Fence(term.clone()));
    gate.follow(Order::Open(term));
    match gate.admit(Some(&Stamp { epoch, nonce: None, by: None, res: None })) {
        Verdict::Admit(right, _) => right,
        other => unreachable!("the gate is open: {other:?}"),
    }
}
