//! The guard's role: judges a request, reads its stamp, asks its gate.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Guard`]: one guard listener in one worker, as the protocol sees it |
//! | [`cell`] | [`GateCell`]: the shell around one gate: orders in, reports out |
//! | [`admission`] | its front: stamps read, writes let in, held or refused |
//! | [`keeper`] | the gate's books for what it let in: confirm, settle, signal |
//! | [`running`] | who the writes are that the ledger counts |
//! | [`held`] | the wait of a held write |
//! | [`questions`] | what is being asked of control |
//! | [`desk`] | what all gates of a worker share |
//! | [`ungated`] | the build of the bench that has no gate |

mod admission;
pub mod cell;
pub mod desk;
mod held;
mod keeper;
mod questions;
mod running;
pub mod ungated;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use crate::event::Event;
use crate::fence::{Reason, Refusal, Resource};
use crate::metrics::ListenerMeters;
use crate::protocol::right::{Keeper, Proof, Settled};
use crate::protocol::signal::Signal;
use crate::protocol::{Binding, CutReason, Decision, Facts, Finished, Kind, Right, Role};
use crate::roles::{self, Identities, StampField, hold};
use crate::rules::Rules;
use admission::Weighed;
pub use cell::{GateCell, GateSetup};
pub use desk::GuardDesk;
use running::Carried;

/// What a guard listener goes by.
#[derive(Debug)]
pub struct GuardListener {
    /// Its name.
    pub name: Arc<str>,
    /// How its requests are told apart.
    pub rules: Rules,
    /// The stamp's field.
    pub field: StampField,
    /// Who may write.
    pub identities: Identities,
    /// Whether reads need a stamp too.
    pub fence_reads: bool,
    /// Whether the target sees the stamp.
    pub forward_stamp: bool,
    /// Whether it only says what it would refuse.
    pub audit: bool,
    /// Its counters in this worker.
    pub meters: Rc<ListenerMeters>,
}

/// One guard listener in one worker.
pub struct Guard {
    listener: GuardListener,
    /// In the order of [`Rules::resources`].
    gates: Vec<Rc<GateCell>>,
    /// At an audit door: the books for writes whose resource nothing names. No gate waits for them.
    astray: Option<Rc<GateCell>>,
    desk: Rc<GuardDesk>,
    reads: Rc<dyn Keeper>,
}

impl Guard {
    /// Over these gates: one for each of [`Rules::resources`], in that order.
    pub fn new(listener: GuardListener, gates: Vec<Rc<GateCell>>, desk: Rc<GuardDesk>) -> Guard {
        let astray = gates.first().filter(|_| listener.audit).map(|cell| Rc::new(cell.sibling_for_strays()));
        Guard { listener, gates, astray, desk, reads: Rc::new(Reads) }
    }

    fn write(&self, facts: &Facts<'_>, kind: Kind, cell: &Rc<GateCell>) -> Decision {
        let (carried, objection) = self.stamp_of(facts, cell);
        if let Some(refusal) = objection {
            let refusal = cell.complete(Box::new(refusal), carried.as_ref().map(|carried| &carried.stamp));
            if !self.listener.audit {
                return Decision::Refuse(refusal);
            }
            // It counts as a write without an epoch: every handoff of this audit door waits for it.
            let Weighed::In(admitted, seat, _) = cell.weigh(facts, kind, None) else {
                return Decision::Refuse(refusal);
            };
            self.would_refuse(facts, kind, refusal);
            let right = Right::admitted(admitted, self.keeper(cell), cell.resource().clone(), None);
            return Decision::Forward(right.tagged(seat).counted_as(kind));
        }
        match (cell.weigh(facts, kind, carried.as_ref()), carried) {
            (Weighed::In(admitted, seat, would_refuse), carried) => {
                if let Some(refusal) = would_refuse {
                    self.would_refuse(facts, kind, refusal);
                }
                let stamp = carried.filter(|_| self.listener.forward_stamp).map(|carried| carried.canonical.clone());
                let right = Right::admitted(admitted, self.keeper(cell), cell.resource().clone(), stamp);
                Decision::Forward(right.tagged(seat).counted_as(kind))
            }
            (Weighed::Out(refusal), _) => Decision::Refuse(refusal),
            (Weighed::Wait, Some(carried)) => match self.desk.hold.take(facts.fields.size()) {
                Some(place) => Decision::Hold(held::wait(Rc::clone(cell), carried, place)),
                None => Decision::Refuse(cell.complete(Box::new(hold::full()), Some(&carried.stamp))),
            },
            // A gate holds nothing without a stamp; if it did, there would be nothing to wait with.
            (Weighed::Wait, None) => Decision::Refuse(cell.complete(Box::new(hold::full()), None)),
        }
    }

    /// The request's stamp, and what is to be said against it before a gate is asked.
    fn stamp_of(&self, facts: &Facts<'_>, cell: &GateCell) -> (Option<Rc<Carried>>, Option<Refusal>) {
        let carried = match self.listener.field.collect(facts.fields, |value| cell.read(value)) {
            Ok(carried) => carried,
            Err(malformed) => {
                let detail = format!("{}: {malformed}", self.listener.field.name());
                return (None, Some(Refusal::new(Reason::MalformedStamp, detail)));
            }
        };
        let other =
            carried.as_ref().and_then(|carried| carried.stamp.res.as_ref()).filter(|res| *res != cell.resource());
        let objection = other.map(|res| {
            let detail =
                format!("the stamp is for {res}, and the request for {}; nothing was applied", cell.resource());
            Refusal::new(Reason::ResourceMismatch, detail)
        });
        let objection = objection.or_else(|| self.unvouched(facts, carried.as_ref()?, cell));
        (carried, objection)
    }

    /// What is to be said against the sender of a stamp, where the listener knows its clients. A stamp that names no
    /// writer is one of the writer whose epoch it is: as long as the gate knows of none, it lets none in.
    fn unvouched(&self, facts: &Facts<'_>, carried: &Carried, cell: &GateCell) -> Option<Refusal> {
        if self.listener.identities.takes_anybody() {
            return None;
        }
        let writer = carried.stamp.by.clone().or_else(|| cell.writer());
        let vouched = self.listener.identities.may_write(facts, writer.as_ref(), cell.resource());
        vouched.err().map(|refusal| *refusal)
    }

    /// A request whose resource could not be found. An audit door forwards it all the same.
    fn unplaced(&self, facts: &Facts<'_>, refusal: Box<Refusal>) -> Decision {
        let Some(cell) = &self.astray else { return Decision::Refuse(refusal) };
        let kind = roles::kind(&self.listener.rules, facts);
        let Weighed::In(admitted, seat, _) = cell.weigh(facts, kind, None) else { return Decision::Refuse(refusal) };
        self.would_refuse(facts, kind, refusal);
        Decision::Forward(Right::astray(admitted, self.keeper(cell)).tagged(seat).counted_as(kind))
    }

    fn keeper(&self, cell: &Rc<GateCell>) -> Rc<dyn Keeper> {
        Rc::clone(cell) as Rc<dyn Keeper>
    }

    fn would_refuse(&self, facts: &Facts<'_>, kind: Kind, refusal: Box<Refusal>) {
        let (method, path) = (facts.method.into(), facts.path.into());
        let listener = Arc::clone(&self.listener.name);
        let event = Event::WouldRefuse { listener, refusal, peer: facts.peer, method, path, kind };
        self.desk.events.emit(self.desk.clock.now(), event);
    }
}

impl Role for Guard {
    fn bind(&self) -> Binding {
        Binding::default()
    }

    fn decide(&self, facts: &Facts<'_>) -> Decision {
        let judged = match self.listener.rules.judge(facts) {
            Ok(judged) => judged,
            Err(refusal) => return self.unplaced(facts, refusal),
        };
        if ungated::COMPILED_OUT || (judged.kind == Kind::Read && !self.listener.fence_reads) {
            return Decision::Forward(Right::read(Rc::clone(&self.reads)));
        }
        match judged.resource.and_then(|place| self.gates.get(place)) {
            Some(cell) => self.write(facts, judged.kind, cell),
            None => {
                let detail = "nothing names a resource for this request, and this door fences reads too \
                              (fence_reads): add a rule, or a default resource";
                self.unplaced(facts, Box::new(Refusal::new(Reason::ResourceUnknown, detail)))
            }
        }
    }

    fn refused(&self, facts: &Facts<'_>, refusal: &Refusal) {
        let event = roles::refused(&self.listener.name, &self.listener.rules, facts, refusal);
        self.desk.events.emit(self.desk.clock.now(), event);
    }

    fn resource(&self, facts: &Facts<'_>) -> Option<Resource> {
        roles::resource(&self.listener.rules, facts)
    }

    fn finished(&self, finished: Finished) {
        self.listener.meters.finished(&finished);
    }

    fn connection(&self, opened: bool) {
        self.listener.meters.connection(opened);
    }

    fn cut(&self, reason: CutReason) {
        self.listener.meters.cut(reason);
    }
}

/// The keeper of reads: there are no books for them.
struct Reads;

impl Keeper for Reads {
    fn confirm(&self, _: &Proof, _: usize) -> Result<(), Box<Refusal>> {
        Ok(())
    }

    fn settle(&self, _: Proof, _: usize, _: Settled) {}

    fn signal(&self, _: &Proof, _: usize) -> Option<Signal> {
        None
    }
}
