//! A held write: its wait for an order, or for what control says of its epoch.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::admission::WaitsFor;
use super::cell::GateCell;
use super::vouch::Vouched;
use crate::fence::{Epoch, Reason, Refusal};
use crate::mailbox::Answer;
use crate::protocol::Held;
use crate::roles::hold::{self, Place};

/// Counts a held request at its gate while it waits.
struct Counted<'a>(&'a Cell<u64>);

impl<'a> Counted<'a> {
    fn at(held: &'a Cell<u64>) -> Counted<'a> {
        held.set(held.get() + 1);
        Counted(held)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The wait of one write: resolves when its gate would neither hold it nor ask, or with the refusal that ends it. It
/// keeps its place until then.
pub(super) fn wait(cell: Rc<GateCell>, carried: Vouched, place: Place) -> Held {
    let limit = cell.hold_timeout;
    Box::pin(async move {
        let _place = place;
        let _counted = Counted::at(&cell.held);
        let waited = tokio::time::timeout(limit, until_decided(&cell, &carried)).await;
        let refusal = match waited {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(refusal)) => refusal,
            Err(_) => Box::new(Refusal::new(Reason::HoldTimeout, detail_of_timeout(limit))),
        };
        Err(cell.complete(refusal, Some(&carried.stamp)))
    })
}

async fn until_decided(cell: &GateCell, carried: &Vouched) -> Result<(), Box<Refusal>> {
    loop {
        // Before the look at the gate: an order that comes in between is not missed.
        let order = cell.next_order();
        let answer = match cell.waits_for(&carried.stamp) {
            WaitsFor::Nothing => return Ok(()),
            WaitsFor::Order => None,
            WaitsFor::Answer(epoch) => Some(said_of(cell, epoch)),
        };
        let Some(answer) = answer else {
            order.await;
            continue;
        };
        let (order, answer) = (pin!(order), pin!(answer));
        tokio::select! {
            biased;
            () = order => {}
            said = answer => said?,
        }
    }
}

/// What control says of an epoch; `Ok` where it is real: then the gate knows it, and waits for the order.
async fn said_of(cell: &GateCell, epoch: Epoch) -> Result<(), Box<Refusal>> {
    // A gate that control does not know is an audit gate, and holds nothing.
    let Some(id) = cell.id() else { return Ok(()) };
    let Some(question) = cell.desk.questions.ask(id, epoch) else { return Err(Box::new(hold::full())) };
    match question.answer().await {
        Answer::Known => Ok(()),
        Answer::Denied(highest) => {
            let detail = "the coordinator knows no such epoch: the stamp is forged, or of another coordinator; \
                          nothing was applied";
            let refusal = Refusal::new(Reason::EpochDenied, detail);
            Err(Box::new(refusal.with_epochs(Some(epoch), (*highest).max(cell.floor()))))
        }
        Answer::Unreachable => {
            let detail = "the coordinator cannot be reached to confirm this epoch, which is new to this door; nothing \
                          was applied: try again in a moment";
            Err(Box::new(Refusal::new(Reason::Unverifiable, detail)))
        }
    }
}

fn detail_of_timeout(limit: Duration) -> String {
    format!(
        "the write was held for {limit:?} (hold.timeout) while its epoch was to open; nothing was applied: try again, \
         or see with `epochgate status` what keeps the gate shut"
    )
}
