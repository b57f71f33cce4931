//! What all gates of one worker share: the clock, where events and reports go, the hold, the questions, the alarm.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use super::questions::Questions;
use crate::clock::Clock;
use crate::event::EventSink;
use crate::fence::Epoch;
use crate::mailbox::{Answer, ControlSender, GateId, ToControl, WorkerId};
use crate::roles::Hold;

/// One worker's side of its gates.
pub struct GuardDesk {
    /// Which worker.
    pub worker: WorkerId,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where events go.
    pub events: EventSink,
    /// Places for held requests.
    pub hold: Hold,
    /// Which gates have something to wait for.
    pub alarm: Alarm,
    pub(super) questions: Questions,
    control: ControlSender,
    writes: Cell<u64>,
}

impl GuardDesk {
    /// A desk for worker `worker`.
    pub fn new(worker: WorkerId, clock: Arc<dyn Clock>, events: EventSink, control: ControlSender, hold: Hold) -> Self {
        // A held request asks one question at a time.
        let questions = Questions::new(worker, control.clone(), hold.limits().requests.max(1));
        GuardDesk {
            worker,
            clock,
            events,
            hold,
            alarm: Alarm::default(),
            questions,
            control,
            // The worker's number in front keeps numbers apart without anything that workers would share.
            writes: Cell::new((worker.0 as u64) << 48),
        }
    }

    /// Takes control's answer to a question. Returns the gate and the epoch where it says that the epoch is real: the
    /// gate is then to be told ([`GateCell::is_known`](super::GateCell::is_known)), before anything else.
    pub fn answered(&self, number: u64, answer: Answer) -> Option<(GateId, Epoch)> {
        self.questions.answered(number, answer)
    }

    pub(super) fn number_a_write(&self) -> u64 {
        self.writes.replace(self.writes.get() + 1)
    }

    pub(super) fn report(&self, report: ToControl) {
        // Where control is gone the process ends; nobody is left to hear it.
        let _ = self.control.send(report);
    }
}

/// Which gates of a worker wait for a quarantine to end.
#[derive(Debug, Default)]
pub struct Alarm {
    waiting: RefCell<BTreeSet<GateId>>,
    changed: Notify,
}

impl Alarm {
    /// This gate waits from now on.
    pub(super) fn set(&self, gate: GateId) {
        self.waiting.borrow_mut().insert(gate);
        self.changed.notify_one();
    }

    /// This gate waits no longer.
    pub fn unset(&self, gate: GateId) {
        self.waiting.borrow_mut().remove(&gate);
    }

    /// The gates that wait.
    pub fn waiting(&self) -> Vec<GateId> {
        self.waiting.borrow().iter().copied().collect()
    }

    /// Resolves when a gate was set since the last time. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
