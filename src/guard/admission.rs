//! A gate's front: reads a write's stamp, and says what becomes of the write.

use std::rc::Rc;

use super::cell::GateCell;
use super::running::{Carried, Write};
use super::vouch::{Unvouched, Vouched};
use crate::event::Event;
use crate::fence::gate::{Admitted, End, Verdict};
use crate::fence::stamp::Malformed;
use crate::fence::verdict::LeaderHint;
use crate::fence::{Epoch, Refusal, Stamp};
use crate::protocol::{Facts, Kind};

/// What becomes of a write.
#[derive(Debug)]
pub(super) enum Weighed {
    /// Let in: the proof and its seat; at an audit door with what an enforcing one would have said.
    In(Admitted, usize, Option<Box<Refusal>>),
    /// To be held.
    Wait,
    /// Refused.
    Out(Box<Refusal>),
}

/// What a held write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// Nothing any more.
    Nothing,
    /// The next order.
    Order,
    /// What control says of this epoch.
    Answer(Epoch),
}

impl GateCell {
    /// Reads a stamp. The one that came with the last write that was let in is known by its bytes; its signature is read
    /// anew each time.
    pub(super) fn read(&self, value: &[u8]) -> Result<Unvouched, Malformed> {
        if let Some(last) = self.carried.borrow().as_ref()
            && let Some(rest) = value.strip_prefix(&*last.raw)
        {
            if rest.is_empty() {
                return Ok(Unvouched { carried: Rc::clone(last), signature: None });
            }
            // As sidecars write it. Whatever else follows belongs to another stamp.
            if rest.starts_with(b";kid=") {
                let signature = Some(last.stamp.signature(rest)?);
                return Ok(Unvouched { carried: Rc::clone(last), signature });
            }
        }
        let (stamp, signature, length) = Stamp::parse_signed(value)?;
        let canonical =
            http::HeaderValue::try_from(stamp.to_string()).map_err(|_| Malformed("it is not ASCII text"))?;
        Ok(Unvouched { carried: Rc::new(Carried { raw: value[..length].into(), stamp, canonical }), signature })
    }

    /// What becomes of a write with this stamp.
    pub(super) fn weigh(&self, facts: &Facts<'_>, kind: Kind, carried: Option<&Vouched>) -> Weighed {
        let since = self.desk.clock.now();
        let number = self.desk.number_a_write();
        let stamp = carried.map(|carried| &carried.stamp);
        let weighed = {
            let state = &mut *self.state.borrow_mut();
            state.gate.mind_session(since);
            match state.gate.admit(stamp) {
                Verdict::Admit(admitted, would_refuse) => {
                    let write = Write {
                        under: admitted.epoch(),
                        peer: facts.peer,
                        number,
                        since,
                        kind,
                        tunnel: facts.upgrade,
                        carried: carried.cloned(),
                        era: Rc::clone(&state.era),
                    };
                    let seat = state.running.enter(write, facts);
                    Weighed::In(admitted, seat, would_refuse)
                }
                Verdict::Hold | Verdict::Ask(_) => Weighed::Wait,
                Verdict::Refuse(refusal) => Weighed::Out(refusal),
            }
        };
        match weighed {
            Weighed::In(admitted, seat, would_refuse) => {
                self.remember(carried);
                self.say_admitted(&admitted, number);
                Weighed::In(admitted, seat, would_refuse.map(|refusal| self.complete(refusal, stamp)))
            }
            Weighed::Out(refusal) => Weighed::Out(self.complete(refusal, stamp)),
            Weighed::Wait => Weighed::Wait,
        }
    }

    /// What a held write with this stamp waits for now. Lets nothing in.
    pub(super) fn waits_for(&self, stamp: &Stamp) -> WaitsFor {
        let mut state = self.state.borrow_mut();
        match state.gate.admit(Some(stamp)) {
            Verdict::Admit(admitted, _) => {
                state.gate.settle(admitted, End::NothingLeft);
                WaitsFor::Nothing
            }
            Verdict::Refuse(_) => WaitsFor::Nothing,
            Verdict::Hold => WaitsFor::Order,
            Verdict::Ask(epoch) if self.known.get() >= Some(epoch) => WaitsFor::Order,
            Verdict::Ask(epoch) => WaitsFor::Answer(epoch),
        }
    }

    /// Adds what the gate itself does not know to a refusal of its.
    pub(super) fn complete(&self, mut refusal: Box<Refusal>, stamp: Option<&Stamp>) -> Box<Refusal> {
        let state = self.state.borrow();
        refusal.resource = Some(self.name.resource.clone());
        refusal.required_epoch = refusal.required_epoch.or(state.gate.floor());
        if let Some(stamp) = stamp {
            refusal.epoch = Some(stamp.epoch);
            refusal.writer = stamp.by.clone();
        }
        refusal.leader = state.gate.term().map(|term| LeaderHint { id: term.writer.clone(), address: None });
        refusal
    }

    fn remember(&self, carried: Option<&Vouched>) {
        let Some(carried) = carried.map(Vouched::reading) else { return };
        let mut last = self.carried.borrow_mut();
        if last.as_ref().is_none_or(|last| !Rc::ptr_eq(last, carried)) {
            *last = Some(Rc::clone(carried));
        }
    }

    fn say_admitted(&self, admitted: &Admitted, write: u64) {
        if self.desk.events.wants_history() {
            let (listener, resource) = (self.name.listener.clone(), self.name.resource.clone());
            self.emit(Event::Admitted { listener, resource, epoch: admitted.epoch(), write });
        }
    }
}
