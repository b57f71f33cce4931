//! What all stamp listeners of one worker share: the standing that it works with, and the writes under way.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::clock::Clock;
use crate::event::EventSink;
use crate::fence::mechanism::Mechanism;
use crate::fence::tenure::{Armed, Standing, Unarmed, Verdict, Wish};
use crate::fence::{Moment, Nonce, Reason, Refusal, Resource, Stamp, Term, WriterId};
use crate::protocol::right::{Keeper, Proof, Settled};
use crate::protocol::signal::{Ask, Caller, Signal};
use crate::roles::Hold;

/// One resource that a stamp listener of the process can name.
#[derive(Clone, Debug)]
pub struct StampedResource {
    /// Which.
    pub resource: Resource,
    /// How long a request for it is held at most.
    pub hold_timeout: Duration,
}

/// One worker's side of the writer's standing. It is the keeper of what was stamped; the tag is the resource's place.
pub struct StampDesk {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where events go.
    pub events: EventSink,
    /// Places for held requests.
    pub hold: Hold,
    writer: WriterId,
    standing: RefCell<Standing>,
    resources: Vec<StampedResource>,
    seats: RefCell<Vec<Seat>>,
    changed: Notify,
}

/// What is kept for one resource.
#[derive(Debug, Default)]
struct Seat {
    in_flight: u64,
    /// Calls what lasts of the present term: it is to end with it.
    caller: Caller,
    /// The field's value for the term that was stamped last.
    value: Option<(Term, HeaderValue)>,
}

impl StampDesk {
    /// A desk for a process that campaigns as `writer`. A resource's place in `resources` is its number here.
    pub fn new(
        clock: Arc<dyn Clock>,
        events: EventSink,
        hold: Hold,
        writer: &WriterId,
        resources: Vec<StampedResource>,
        standing: &Standing,
    ) -> StampDesk {
        // Copies of its own, which no other worker counts references to.
        let own = |stamped: StampedResource| StampedResource {
            resource: stamped.resource.as_str().parse().unwrap_or(stamped.resource),
            ..stamped
        };
        let resources: Vec<StampedResource> = resources.into_iter().map(own).collect();
        let desk = StampDesk {
            clock,
            events,
            hold,
            writer: writer.as_str().parse().unwrap_or_else(|_| writer.clone()),
            standing: RefCell::new(Standing::new(standing.mechanisms)),
            seats: RefCell::new(resources.iter().map(|_| Seat::default()).collect()),
            resources,
            changed: Notify::new(),
        };
        desk.adopt(standing);
        desk
    }

    /// Works with this standing from now on, and wakes what is held. Whoever calls it has accepted, under the old one,
    /// every connection that waited.
    pub fn adopt(&self, standing: &Standing) {
        let mut own = standing.clone();
        for tenure in own.tenures.values_mut().filter(|tenure| tenure.term.writer == self.writer) {
            tenure.term.writer = self.writer.clone();
        }
        let old = self.standing.replace(own);
        let over: Vec<Caller> = {
            let standing = self.standing.borrow();
            let mut seats = self.seats.borrow_mut();
            let term = |standing: &Standing, at: usize| Some(standing.tenure(self.resource(at))?.term.clone());
            let is_over = |at: usize| term(&old, at).is_some_and(|before| term(&standing, at) != Some(before));
            let places = (0..seats.len()).filter(|at| is_over(*at)).collect::<Vec<_>>();
            places.into_iter().map(|at| std::mem::take(&mut seats[at].caller)).collect()
        };
        over.iter().for_each(|caller| caller.ask(Ask::Hurry));
        self.changed.notify_waiters();
    }

    /// The standing's deadline alone has moved.
    pub fn set_deadline(&self, deadline: Option<Moment>) {
        self.standing.borrow_mut().deadline = deadline;
    }

    /// The version of the standing.
    pub fn version(&self) -> u64 {
        self.standing.borrow().version
    }

    /// The number of a resource.
    pub fn place_of(&self, resource: &Resource) -> Option<usize> {
        self.resources.iter().position(|stamped| stamped.resource == *resource)
    }

    /// Writes in flight, by resource; those without any are left out.
    pub fn in_flight(&self) -> Vec<(Resource, u64)> {
        let seats = self.seats.borrow();
        let counted = self.resources.iter().zip(seats.iter()).filter(|(_, seat)| seat.in_flight > 0);
        counted.map(|(stamped, seat)| (stamped.resource.clone(), seat.in_flight)).collect()
    }

    /// How many writes are in flight, over all resources.
    pub fn running(&self) -> u64 {
        self.seats.borrow().iter().map(|seat| seat.in_flight).sum()
    }

    pub(super) fn resource(&self, place: usize) -> &Resource {
        &self.resources[place].resource
    }

    pub(super) fn hold_timeout(&self, place: usize) -> Duration {
        self.resources[place].hold_timeout
    }

    /// What the standing says to a request now.
    pub(super) fn ask(&self, place: usize, wish: Wish) -> Verdict {
        let now = self.clock.now();
        self.standing.borrow().stamp(self.resource(place), now, wish)
    }

    /// What becomes of a read: `None` where nothing of the term at hand stands against it.
    pub(super) fn ask_for_a_read(&self, place: usize, unarmed: Unarmed) -> Option<Verdict> {
        let armed = self.standing.borrow().tenure(self.resource(place)).map(|tenure| tenure.armed);
        if armed != Some(Armed::No) {
            return None;
        }
        match self.ask(place, Wish { bound_to: u64::MAX, expected: None, unarmed }) {
            Verdict::Refuse(refusal) if refusal.reason == Reason::NotArmed => Some(Verdict::Refuse(refusal)),
            Verdict::Hold => Some(Verdict::Hold),
            _ => None,
        }
    }

    /// The next standing: resolves on every one that is adopted after this call.
    pub(super) fn next_standing(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Whether the term held is not the one of this nonce and writer, as far as they are given.
    pub(super) fn holds_another(&self, place: usize, nonce: Option<Nonce>, by: Option<&WriterId>) -> bool {
        let standing = self.standing.borrow();
        standing.tenure(self.resource(place)).is_none_or(|tenure| {
            nonce.is_some_and(|nonce| nonce != tenure.term.nonce) || by.is_some_and(|by| *by != tenure.term.writer)
        })
    }

    pub(super) fn refuses_stamps(&self) -> bool {
        self.standing.borrow().mechanisms.keeps(Mechanism::IncomingStamp)
    }

    /// A refusal that names the resource, the epoch held, and who leads.
    pub(super) fn refusal(&self, place: usize, reason: Reason, detail: &'static str) -> Box<Refusal> {
        let standing = self.standing.borrow();
        let resource = self.resource(place);
        let held = standing.tenure(resource).map(|tenure| tenure.term.epoch);
        let refusal = Refusal::new(reason, detail).with_resource(resource).with_epochs(None, held);
        Box::new(refusal.with_leader(standing.leader_hint(resource)))
    }

    /// Counts a stamped write in. Returns its stamp as it is sent.
    pub(super) fn enter(&self, place: usize, term: &Term) -> HeaderValue {
        let mut seats = self.seats.borrow_mut();
        let seat = &mut seats[place];
        seat.in_flight += 1;
        match &seat.value {
            Some((last, value)) if last == term => value.clone(),
            _ => {
                let text = Stamp::of(term, self.resource(place)).to_string();
                let value = HeaderValue::try_from(text).expect("a stamp is visible ASCII");
                seat.value = Some((term.clone(), value.clone()));
                value
            }
        }
    }

    fn still_holds(&self, place: usize, term: &Term) -> bool {
        let now = self.clock.now();
        let standing = self.standing.borrow();
        let keeps = |mechanism| standing.mechanisms.keeps(mechanism);
        let late = standing.deadline.is_some_and(|deadline| now >= deadline);
        let holds = standing.tenure(self.resource(place)).is_some_and(|tenure| tenure.term == *term);
        (holds || !keeps(Mechanism::OwnTerm)) && !(late && keeps(Mechanism::Deadline))
    }
}

impl Keeper for StampDesk {
    fn confirm(&self, proof: &Proof, place: usize) -> Result<(), Box<Refusal>> {
        let Proof::Stamped(stamped) = proof else { return Ok(()) };
        if self.still_holds(place, stamped.term()) {
            return Ok(());
        }
        let detail = "this writer led when the request began, and does not any more; nothing was applied";
        let mut refusal = self.refusal(place, Reason::NotLeader, detail);
        (refusal.epoch, refusal.required_epoch) = (Some(stamped.term().epoch), None);
        Err(refusal)
    }

    fn settle(&self, proof: Proof, place: usize, _how: Settled) {
        if let (Proof::Stamped(_), Some(seat)) = (proof, self.seats.borrow_mut().get_mut(place)) {
            seat.in_flight = seat.in_flight.saturating_sub(1);
        }
    }

    fn signal(&self, _: &Proof, _: usize) -> Option<Signal> {
        // What has left under a term is the guards' business once that term is over.
        None
    }

    fn goes_on(&self, proof: &Proof, place: usize) -> bool {
        match proof {
            Proof::Stamped(stamped) => self.still_holds(place, stamped.term()),
            Proof::Read | Proof::Admitted(_) => true,
        }
    }

    fn lasting_signal(&self, proof: &Proof, place: usize) -> Option<Signal> {
        let is_stamped = matches!(proof, Proof::Stamped(_));
        self.seats.borrow().get(place).filter(|_| is_stamped).map(|seat| seat.caller.signal())
    }
}

/// The desk as a keeper.
pub(super) fn keeper(desk: &Rc<StampDesk>) -> Rc<dyn Keeper> {
    Rc::clone(desk) as Rc<dyn Keeper>
}
