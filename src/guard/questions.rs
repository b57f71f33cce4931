//! What a worker has asked control about epochs that its gates do not know.
//!
//! All requests that wait for the same answer share one question, so that a flood of writes with the new epoch costs
//! one message. A flood of forged epochs is bounded: no more is asked at a time than requests may be held.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::fence::Epoch;
use crate::mailbox::{Answer, ControlSender, GateId, ToControl, WorkerId};

/// One question, until the last request that waits for its answer has gone.
#[derive(Debug)]
pub(super) struct Question {
    epoch: Epoch,
    gate: GateId,
    answer: OnceCell<Answer>,
    answered: Notify,
}

/// The questions of one worker.
#[derive(Debug)]
pub(super) struct Questions {
    worker: WorkerId,
    control: ControlSender,
    most: usize,
    next: Cell<u64>,
    open: RefCell<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_number: HashMap<u64, Rc<Question>>,
    by_epoch: HashMap<(GateId, Epoch), u64>,
}

impl Question {
    /// The answer, once it is there. Cancel-safe.
    pub async fn answer(&self) -> &Answer {
        loop {
            let answered = self.answered.notified();
            if let Some(answer) = self.answer.get() {
                return answer;
            }
            answered.await;
        }
    }
}

impl Questions {
    /// Nothing is asked yet; never more than `most` at a time.
    pub fn new(worker: WorkerId, control: ControlSender, most: usize) -> Questions {
        Questions { worker, control, most, next: Cell::new(0), open: RefCell::default() }
    }

    /// Asks, unless the same is being asked already; `None` where too much is being asked.
    pub(super) fn ask(&self, gate: GateId, epoch: Epoch) -> Option<Rc<Question>> {
        let mut open = self.open.borrow_mut();
        if let Some(question) = open.by_epoch.get(&(gate, epoch)).and_then(|number| open.by_number.get(number)) {
            return Some(Rc::clone(question));
        }
        if open.by_number.len() >= self.most {
            return None;
        }
        let number = self.next.replace(self.next.get() + 1);
        let question = Rc::new(Question { epoch, gate, answer: OnceCell::new(), answered: Notify::new() });
        open.by_epoch.insert((gate, epoch), number);
        open.by_number.insert(number, Rc::clone(&question));
        drop(open);
        // Where control is gone the worker ends, and the request with it.
        let _ = self.control.send(ToControl::Ask { worker: self.worker, number, gate, epoch });
        Some(question)
    }

    /// Takes control's answer. Returns the gate and the epoch where it says that the epoch is real.
    pub(super) fn answered(&self, number: u64, answer: Answer) -> Option<(GateId, Epoch)> {
        let question = {
            let mut open = self.open.borrow_mut();
            let question = open.by_number.remove(&number)?;
            open.by_epoch.remove(&(question.gate, question.epoch));
            question
        };
        let known = (answer == Answer::Known).then_some((question.gate, question.epoch));
        // A number is answered once: the question is out of the books now.
        let _ = question.answer.set(answer);
        question.answered.notify_waiters();
        known
    }
}
