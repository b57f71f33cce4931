//! The right to send one request to an upstream.
//!
//! The only ways to make one for a write take an [`Admitted`] or a [`Stamped`], which only a gate or a tenure makes.
//! It settles exactly once; a `Right` that is dropped unsettled settles as *lost*, so a path that forgets it keeps
//! the gate shut rather than open.

use std::rc::Rc;

use super::Kind;
use super::signal::Signal;
use crate::fence::gate::Admitted;
use crate::fence::tenure::Stamped;
use crate::fence::{Refusal, Resource};

/// How a request that had a right ended (DESIGN 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// No byte of it left for the upstream.
    NothingLeft,
    /// It was sent whole, and the final response came whole.
    Answered,
    /// Anything else.
    Lost,
}

/// The proof behind a right.
#[derive(Debug)]
pub enum Proof {
    /// A read: it changes nothing.
    Read,
    /// A gate admitted it.
    Admitted(Admitted),
    /// A tenure stamped it.
    Stamped(Stamped),
}

/// Who made the proof and takes it back: the role's own books. `tag` is the keeper's own number for the request, as
/// given to [`Right::tagged`].
pub trait Keeper {
    /// Compares once more, right before the first byte leaves.
    ///
    /// # Errors
    /// The refusal, where the epoch has moved on since; the right is then to be settled [`Settled::NothingLeft`].
    fn confirm(&self, proof: &Proof, tag: usize) -> Result<(), Box<Refusal>>;

    /// Takes the proof back.
    fn settle(&self, proof: Proof, tag: usize, how: Settled);

    /// Whether a write that is under way may send another chunk: asked before each. A shared door whose session has
    /// run out says no (DESIGN 3.2), and the write is cut; an epoch that moved on does not (that is the drain's).
    fn may_send(&self) -> bool {
        true
    }

    /// Whether something that lasts (a tunnel, a session) may send more: asked before each part. Where it says no, the term
    /// that it was let in with is over for this process, whatever anybody has been told yet.
    fn goes_on(&self, _proof: &Proof, _tag: usize) -> bool {
        self.may_send()
    }

    /// As [`Keeper::signal`], for something that lasts. At a stamp a request ends by itself, and is left alone; a session is to
    /// end with its term.
    fn lasting_signal(&self, proof: &Proof, tag: usize) -> Option<Signal> {
        self.signal(proof, tag)
    }

    /// Resolves when the fence wants something of the request; `None` for one that it never touches (a read).
    fn signal(&self, proof: &Proof, tag: usize) -> Option<Signal>;
}

/// The right to send one request.
pub struct Right {
    proof: Option<Proof>,
    tag: usize,
    kind: Kind,
    keeper: Rc<dyn Keeper>,
    resource: Option<Resource>,
    stamp: Option<http::HeaderValue>,
}

impl Right {
    /// A read: no proof is needed. Whether it is one is the role's decision.
    pub fn read(keeper: Rc<dyn Keeper>) -> Right {
        Right::of(Proof::Read, Kind::Read, keeper, None, None)
    }

    /// What a gate admitted, with the stamp in canonical form where the target is to see it.
    pub fn admitted(
        admitted: Admitted,
        keeper: Rc<dyn Keeper>,
        resource: Resource,
        stamp: Option<http::HeaderValue>,
    ) -> Right {
        Right::of(Proof::Admitted(admitted), Kind::Write, keeper, Some(resource), stamp)
    }

    /// What a door in audit mode lets through although nothing names its resource.
    pub fn astray(admitted: Admitted, keeper: Rc<dyn Keeper>) -> Right {
        Right::of(Proof::Admitted(admitted), Kind::Write, keeper, None, None)
    }

    /// What a tenure stamped.
    pub fn stamped(stamped: Stamped, keeper: Rc<dyn Keeper>, resource: Resource, stamp: http::HeaderValue) -> Right {
        Right::of(Proof::Stamped(stamped), Kind::Write, keeper, Some(resource), Some(stamp))
    }

    /// A write without a proof, for the tests of the protocols.
    #[cfg(test)]
    pub fn pretended(keeper: Rc<dyn Keeper>, resource: Resource, stamp: Option<http::HeaderValue>) -> Right {
        Right::of(Proof::Read, Kind::Write, keeper, Some(resource), stamp)
    }

    fn of(
        proof: Proof,
        kind: Kind,
        keeper: Rc<dyn Keeper>,
        resource: Option<Resource>,
        stamp: Option<http::HeaderValue>,
    ) -> Right {
        Right { proof: Some(proof), tag: 0, kind, keeper, resource, stamp }
    }

    /// With the keeper's own number for the request.
    #[must_use]
    pub fn tagged(mut self, tag: usize) -> Right {
        self.tag = tag;
        self
    }

    /// With what the request is, where that is not what its proof says: a read that is fenced like a write. It makes no
    /// write of what has the proof of a read.
    #[must_use]
    pub fn counted_as(mut self, kind: Kind) -> Right {
        if kind == Kind::Read {
            self.kind = kind;
        }
        self
    }

    /// Whether the request reads or writes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The resource that is written to; none for a read.
    pub fn resource(&self) -> Option<&Resource> {
        self.resource.as_ref()
    }

    /// The value of the stamp's field for the upstream; no such field where there is none. Any field of that name
    /// that the request brought along is to be taken off.
    pub fn stamp(&self) -> Option<&http::HeaderValue> {
        self.stamp.as_ref()
    }

    /// See [`Keeper::confirm`]. To be called with the connection ready, right before the request is handed to it.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn confirm(&self) -> Result<(), Box<Refusal>> {
        self.proof.as_ref().map_or(Ok(()), |proof| self.keeper.confirm(proof, self.tag))
    }

    /// Who is asked before each chunk of a write; nobody is for a read.
    pub fn keeper(&self) -> Option<Rc<dyn Keeper>> {
        (self.kind() == Kind::Write).then(|| Rc::clone(&self.keeper))
    }

    /// See [`Keeper::goes_on`]; a read always does.
    pub fn goes_on(&self) -> bool {
        self.kind() == Kind::Read || self.proof.as_ref().is_some_and(|proof| self.keeper.goes_on(proof, self.tag))
    }

    /// See [`Keeper::lasting_signal`].
    pub fn lasting_signal(&self) -> Option<Signal> {
        self.proof.as_ref().and_then(|proof| self.keeper.lasting_signal(proof, self.tag))
    }

    /// See [`Keeper::signal`].
    pub fn signal(&self) -> Option<Signal> {
        self.proof.as_ref().and_then(|proof| self.keeper.signal(proof, self.tag))
    }

    /// Gives the right back.
    pub fn settle(mut self, how: Settled) {
        self.give_back(how);
    }

    fn give_back(&mut self, how: Settled) {
        if let Some(proof) = self.proof.take() {
            self.keeper.settle(proof, self.tag, how);
        }
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        self.give_back(Settled::Lost);
    }
}
