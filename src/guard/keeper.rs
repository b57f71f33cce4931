//! A gate's books for the writes that it let in: compare once more, and take back.

use super::cell::GateCell;
use super::running::{self, Write};
use crate::event::Event;
use crate::fence::gate::{Admitted, End};
use crate::fence::{Moment, Refusal};
use crate::protocol::Kind;
use crate::protocol::right::{Keeper, Proof, Settled};
use crate::protocol::signal::{Ask, Signal};

impl Keeper for GateCell {
    fn confirm(&self, proof: &Proof, seat: usize) -> Result<(), Box<Refusal>> {
        let Proof::Admitted(admitted) = proof else { return Ok(()) };
        let (confirmed, write) = {
            let state = &mut *self.state.borrow_mut();
            if state.gate.minds_session() {
                state.gate.mind_session(self.desk.clock.now());
            }
            let confirmed = state.gate.confirm(admitted);
            let wanted = confirmed.is_err() || self.desk.events.wants_history();
            (confirmed, if wanted { state.running.at(seat).cloned() } else { None })
        };
        match confirmed {
            Err(refusal) => {
                let carried = write.and_then(|write| write.carried);
                Err(self.complete(refusal, carried.as_ref().map(|carried| &carried.stamp)))
            }
            Ok(()) => {
                if let Some(write) = write {
                    let (listener, resource) = (self.name.listener.clone(), self.name.resource.clone());
                    self.emit(Event::Forwarded { listener, resource, epoch: write.under, write: write.number });
                }
                Ok(())
            }
        }
    }

    fn settle(&self, proof: Proof, seat: usize, how: Settled) {
        let Proof::Admitted(admitted) = proof else { return };
        match how {
            Settled::NothingLeft => self.leave(admitted, seat, End::NothingLeft, how),
            Settled::Answered => self.leave(admitted, seat, End::Answered, how),
            // Nothing of a read can take effect later, however it ended.
            Settled::Lost if self.is_read(seat) => self.leave(admitted, seat, End::Answered, how),
            Settled::Lost => self.lose(admitted, seat, self.desk.clock.now()),
        }
        self.report();
    }

    fn may_send(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        if state.gate.minds_session() {
            state.gate.mind_session(self.desk.clock.now());
        }
        state.gate.may_send()
    }

    fn signal(&self, proof: &Proof, seat: usize) -> Option<Signal> {
        if self.is_audit() || matches!(proof, Proof::Read) {
            // An audit door forwards everything to its end.
            return None;
        }
        let state = self.state.borrow();
        state.running.at(seat).map(|write| write.era.caller.signal())
    }
}

impl GateCell {
    fn is_read(&self, seat: usize) -> bool {
        self.state.borrow().running.at(seat).is_some_and(|write| write.kind == Kind::Read)
    }

    fn leave(&self, admitted: Admitted, seat: usize, end: End, how: Settled) {
        let (write, what) = {
            let state = &mut *self.state.borrow_mut();
            state.gate.settle(admitted, end);
            let write = state.running.leave(seat);
            let cut = write.as_ref().is_some_and(was_cut);
            let what = cut.then(|| state.running.what(seat).to_owned());
            state.forget_eras();
            (write, what)
        };
        self.say_settled(write.as_ref(), how);
        if let (Some(write), Some(what)) = (write, what) {
            self.say_cut(&write, &what);
        }
    }

    fn lose(&self, admitted: Admitted, seat: usize, at: Moment) {
        let (write, what) = {
            let state = &mut *self.state.borrow_mut();
            state.gate.settle(admitted, End::Lost(at));
            let what = state.running.what(seat).to_owned();
            let write = state.running.leave(seat);
            if let Some(write) = &write {
                state.lost.add(write, &what, at);
            }
            state.forget_eras();
            (write, what)
        };
        self.mind_the_time();
        self.say_settled(write.as_ref(), Settled::Lost);
        let Some(write) = write else { return };
        // Once the fence has asked for a cut, a loss is its doing.
        if was_cut(&write) || write.era.caller.signal().asked() >= Ask::CutHalfSent {
            self.say_cut(&write, &what);
        }
        let (method, path) = running::apart(&what);
        let (listener, resource) = (self.name.listener.clone(), self.name.resource.clone());
        self.emit(Event::Lost { listener, resource, epoch: write.under, peer: write.peer, method, path });
    }

    fn say_cut(&self, write: &Write, what: &str) {
        let (method, path) = running::apart(what);
        let (listener, resource) = (self.name.listener.clone(), self.name.resource.clone());
        self.emit(Event::Cut { listener, resource, epoch: write.under, peer: write.peer, method, path });
    }

    fn say_settled(&self, write: Option<&Write>, how: Settled) {
        if let Some(write) = write.filter(|_| self.desk.events.wants_history()) {
            let (listener, resource) = (self.name.listener.clone(), self.name.resource.clone());
            self.emit(Event::Settled { listener, resource, epoch: write.under, write: write.number, how });
        }
    }
}

/// A tunnel ends when it is asked to hurry, whether its upstream then closes it or not.
fn was_cut(write: &Write) -> bool {
    write.tunnel && write.era.caller.signal().asked() >= Ask::Hurry
}
