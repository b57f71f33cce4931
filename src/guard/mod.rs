//! The guard's role: judges a request, reads its stamp, asks its gate.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Guard`]: one guard listener in one worker, as the protocol sees it |
//! | [`cell`] | [`GateCell`]: the shell around one gate: orders in, reports out |
//! | [`vouch`] | the check that stands before every gate: whether a stamp may be believed to be its writer's |
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
mod vouch;

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
use crate::signing::KeysInForce;
use admission::Weighed;
pub use cell::{GateCell, GateSetup};
pub use desk::GuardDesk;
use vouch::Vouched;

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
    /// The keys that stamps are signed with, where they are.
    pub signatures: KeysInForce,
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
        let carried = match self.stamp_of(facts, cell) {
            Ok(carried) => carried,
            Err(refusal) => return self.objected(facts, kind, cell, refusal),
        };
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

    /// The request's stamp, or what is to be said against it before a gate is asked.
    fn stamp_of(&self, facts: &Facts<'_>, cell: &GateCell) -> Result<Option<Vouched>, Box<Refusal>> {
        let read = match self.listener.field.collect(facts.fields, |value| cell.read(value)) {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            Err(malformed) => {
                let detail = format!("{}: {malformed}", self.listener.field.name());
                return Err(cell.complete(Box::new(Refusal::new(Reason::MalformedStamp, detail)), None));
            }
        };
        let carried = vouch::vouch(&self.listener, cell, facts, read)?;
        match carried.stamp.res.as_ref().filter(|res| *res != cell.resource()) {
            None => Ok(Some(carried)),
            Some(res) => {
                let detail =
                    format!("the stamp is for {res}, and the request for {}; nothing was applied", cell.resource());
                let refusal = Refusal::new(Reason::ResourceMismatch, detail);
                Err(cell.complete(Box::new(refusal), Some(&carried.stamp)))
            }
        }
    }

    /// A write whose stamp no gate is asked about. An audit door forwards it all the same: it counts as one without an
    /// epoch, and every handoff of this door waits for it.
    fn objected(&self, facts: &Facts<'_>, kind: Kind, cell: &Rc<GateCell>, refusal: Box<Refusal>) -> Decision {
        if !self.listener.audit {
            return Decision::Refuse(refusal);
        }
        let Weighed::In(admitted, seat, _) = cell.weigh(facts, kind, None) else {
            return Decision::Refuse(refusal);
        };
        self.would_refuse(facts, kind, refusal);
        let right = Right::admitted(admitted, self.keeper(cell), cell.resource().clone(), None);
        Decision::Forward(right.tagged(seat).counted_as(kind))
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
