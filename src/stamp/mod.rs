//! The stamp's role: judges a request, and puts the writer's own term on it where it writes.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`StampRole`]: one stamp listener in one worker, as the protocol sees it |
//! | [`desk`] | [`StampDesk`]: the standing that the worker works with, and the books of what was stamped |
//! | [`wish`] | what the service says of the term that its work belongs to |

pub mod desk;
mod wish;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::config::resolved::{IncomingStamp, UntilArmed};
use crate::event::Event;
use crate::fence::tenure::{Stamped, Unarmed, Verdict, Wish};
use crate::fence::{Moment, Reason, Refusal, Resource};
use crate::metrics::ListenerMeters;
use crate::protocol::{Binding, CutReason, Decision, Facts, Finished, Held, Kind, Right, Role};
use crate::roles::{self, Identities, StampField, hold};
use crate::rules::{Judged, Rules};
use crate::signing::{self, Keys, KeysInForce, Subject};
pub use desk::{StampDesk, StampedResource};

/// What a stamp listener goes by.
#[derive(Debug)]
pub struct StampListener {
    /// Its name.
    pub name: Arc<str>,
    /// How its requests are told apart.
    pub rules: Rules,
    /// The stamp's field.
    pub field: StampField,
    /// Who may write.
    pub identities: Identities,
    /// What happens to a stamp that comes in.
    pub incoming_stamp: IncomingStamp,
    /// Whether a write must say which epoch it belongs to.
    pub expect_required: bool,
    /// What happens to requests of a term that is not armed yet.
    pub until_armed: UntilArmed,
    /// The keys to sign with, where stamps are signed.
    pub signatures: KeysInForce,
    /// Its counters in this worker.
    pub meters: Rc<ListenerMeters>,
}

/// One stamp listener in one worker.
pub struct StampRole {
    listener: StampListener,
    /// The desk's numbers of [`Rules::resources`], in that order.
    places: Vec<usize>,
    desk: Rc<StampDesk>,
}

impl StampRole {
    /// Over this desk; `places` are its numbers of [`Rules::resources`], in that order.
    pub fn new(listener: StampListener, places: Vec<usize>, desk: Rc<StampDesk>) -> StampRole {
        StampRole { listener, places, desk }
    }

    fn unarmed(&self, judged: Judged) -> Unarmed {
        match self.listener.until_armed {
            _ if judged.pass_unarmed => Unarmed::Pass,
            UntilArmed::Hold => Unarmed::Hold,
            UntilArmed::Refuse => Unarmed::Refuse,
            UntilArmed::Pass => Unarmed::Pass,
        }
    }

    /// Reads pass, but not before the writes of the leader before are settled where that is wanted.
    fn read(&self, facts: &Facts<'_>, place: Option<usize>, unarmed: Unarmed) -> Decision {
        match place.and_then(|place| Some((place, self.desk.ask_for_a_read(place, unarmed)?))) {
            None | Some((_, Verdict::Stamp(_))) => Decision::Forward(Right::read(desk::keeper(&self.desk))),
            Some((_, Verdict::Refuse(refusal))) => Decision::Refuse(refusal),
            Some((place, Verdict::Hold)) => {
                let desk = Rc::clone(&self.desk);
                self.hold(facts, place, move || matches!(desk.ask_for_a_read(place, unarmed), Some(Verdict::Hold)))
            }
        }
    }

    fn write(&self, facts: &Facts<'_>, place: usize, unarmed: Unarmed) -> Decision {
        if let Err(refusal) = self.listener.identities.may_write(facts, None, self.desk.resource(place)) {
            return Decision::Refuse(refusal);
        }
        let said = match wish::said(&self.listener, &self.desk, facts, place) {
            Ok(said) => said,
            Err(refusal) => return Decision::Refuse(refusal),
        };
        let wish = Wish { bound_to: facts.binding.standing, expected: said.epoch, unarmed };
        // Read before the comparison: by the history, too, a write was stamped before its deadline, or not at all.
        let at = self.desk.events.wants_history().then(|| self.desk.clock.now());
        let verdict = self.desk.ask(place, wish);
        if !matches!(verdict, Verdict::Refuse(_)) && said.is_of_another(&self.desk, place) {
            let detail = "the request carries a stamp of another term than the one that this writer holds";
            let mut refusal = self.desk.refusal(place, Reason::EpochExpected, detail);
            refusal.epoch = said.epoch;
            return Decision::Refuse(refusal);
        }
        match verdict {
            Verdict::Stamp(stamped) => self.forward(facts, place, stamped, at),
            Verdict::Refuse(refusal) => Decision::Refuse(refusal),
            Verdict::Hold => {
                let desk = Rc::clone(&self.desk);
                self.hold(facts, place, move || desk.ask(place, wish) == Verdict::Hold)
            }
        }
    }

    fn forward(&self, facts: &Facts<'_>, place: usize, stamped: Stamped, at: Option<Moment>) -> Decision {
        let value = self.desk.enter(place, stamped.term());
        let value = self.listener.signatures.with(|keys| match keys {
            Some(keys) => self.signed(keys, facts, place, &stamped, &value),
            None => value,
        });
        if let Some(at) = at {
            let deadline = stamped.until().unwrap_or(Moment::from_nanos(u64::MAX));
            let (listener, resource) = (Arc::clone(&self.listener.name), self.desk.resource(place).clone());
            let (epoch, nonce) = (stamped.term().epoch, stamped.term().nonce);
            let event = Event::Stamped { listener, resource, epoch, nonce, deadline };
            self.desk.events.emit(at, event);
        }
        let right = Right::stamped(stamped, desk::keeper(&self.desk), self.desk.resource(place).clone(), value);
        Decision::Forward(right.tagged(place))
    }

    /// The stamp's field with the signature for this very request.
    fn signed(
        &self,
        keys: &Keys,
        facts: &Facts<'_>,
        place: usize,
        stamped: &Stamped,
        value: &HeaderValue,
    ) -> HeaderValue {
        let term = stamped.term();
        let subject = Subject {
            resource: self.desk.resource(place).as_str(),
            epoch: term.epoch,
            nonce: term.nonce,
            writer: term.writer.as_str(),
            method: facts.method,
            target: facts.target,
        };
        let signature = keys.sign(&subject, signing::seconds(self.desk.clock.wall()));
        // The longest signature has 110 bytes.
        let mut text = Vec::with_capacity(value.len() + 110);
        text.extend_from_slice(value.as_bytes());
        write!(text, "{signature}").expect("a buffer takes all that is written to it");
        HeaderValue::from_maybe_shared(Bytes::from(text)).expect("a stamp is visible ASCII")
    }

    /// Holds a request for as long as `waits` says so, bounded.
    fn hold(&self, facts: &Facts<'_>, place: usize, waits: impl Fn() -> bool + 'static) -> Decision {
        let Some(seat) = self.desk.hold.take(facts.fields.size()) else {
            let mut refusal = hold::full();
            refusal.resource = Some(self.desk.resource(place).clone());
            return Decision::Refuse(Box::new(refusal));
        };
        let desk = Rc::clone(&self.desk);
        let held: Held = Box::pin(async move {
            let _seat = seat;
            let until_settled = async {
                loop {
                    // Before the look: a standing that comes in between is not missed.
                    let next = desk.next_standing();
                    if !waits() {
                        return;
                    }
                    next.await;
                }
            };
            tokio::time::timeout(desk.hold_timeout(place), until_settled).await.map_err(|_| {
                let detail = "this writer was elected, but a door has not drained the writes of the one before; the \
                              request was held for as long as it may (hold.timeout): try again, or see with \
                              `epochgate status` what the door waits for";
                desk.refusal(place, Reason::NotArmed, detail)
            })
        });
        Decision::Hold(held)
    }
}

impl Role for StampRole {
    fn bind(&self) -> Binding {
        Binding { standing: self.desk.version() }
    }

    fn decide(&self, facts: &Facts<'_>) -> Decision {
        let judged = match self.listener.rules.judge(facts) {
            Ok(judged) => judged,
            Err(refusal) => return Decision::Refuse(refusal),
        };
        let place = judged.resource.and_then(|resource| self.places.get(resource)).copied();
        let refuses = self.listener.incoming_stamp == IncomingStamp::Refuse && self.desk.refuses_stamps();
        if refuses && self.listener.field.is_in(facts.fields) {
            let detail = "the service stamped this request itself; this sidecar is to be the only one that does \
                          (incoming_stamp: refuse)";
            let mut refusal = Refusal::new(Reason::StampPresent, detail);
            refusal.resource = place.map(|place| self.desk.resource(place).clone());
            return Decision::Refuse(Box::new(refusal));
        }
        match (judged.kind, place) {
            (Kind::Read, place) => self.read(facts, place, self.unarmed(judged)),
            (Kind::Write, Some(place)) => self.write(facts, place, self.unarmed(judged)),
            (Kind::Write, None) => {
                let detail = "no rule of this listener names a resource for this request";
                Decision::Refuse(Box::new(Refusal::new(Reason::ResourceUnknown, detail)))
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
