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

/// Who made the proof and takes it back: the role's own books.
pub trait Keeper {
    /// Compares once more, right before the first byte leaves.
    ///
    /// # Errors
    /// The refusal, where the epoch has moved on since; the right is then to be settled [`Settled::NothingLeft`].
    fn confirm(&self, proof: &Proof) -> Result<(), Box<Refusal>>;

    /// Takes the proof back.
    fn settle(&self, proof: Proof, how: Settled);

    /// Resolves when the fence wants something of the request; `None` for one that it never touches (a read).
    fn signal(&self, proof: &Proof) -> Option<Signal>;
}

/// The right to send one request.
pub struct Right {
    proof: Option<Proof>,
    keeper: Rc<dyn Keeper>,
    resource: Option<Resource>,
    stamp: Option<http::HeaderValue>,
}

impl Right {
    /// A read: no proof is needed. Whether it is one is the role's decision.
    pub fn read(keeper: Rc<dyn Keeper>) -> Right {
        Right { proof: Some(Proof::Read), keeper, resource: None, stamp: None }
    }

    /// What a gate admitted, with the stamp in canonical form where the target is to see it.
    pub fn admitted(
        admitted: Admitted,
        keeper: Rc<dyn Keeper>,
        resource: Resource,
        stamp: Option<http::HeaderValue>,
    ) -> Right {
        Right { proof: Some(Proof::Admitted(admitted)), keeper, resource: Some(resource), stamp }
    }

    /// What a tenure stamped.
    pub fn stamped(stamped: Stamped, keeper: Rc<dyn Keeper>, resource: Resource, stamp: http::HeaderValue) -> Right {
        Right { proof: Some(Proof::Stamped(stamped)), keeper, resource: Some(resource), stamp: Some(stamp) }
    }

    /// Whether it is the right to read or to write.
    pub fn kind(&self) -> Kind {
        if matches!(self.proof, Some(Proof::Read)) { Kind::Read } else { Kind::Write }
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
        self.proof.as_ref().map_or(Ok(()), |proof| self.keeper.confirm(proof))
    }

    /// See [`Keeper::signal`].
    pub fn signal(&self) -> Option<Signal> {
        self.proof.as_ref().and_then(|proof| self.keeper.signal(proof))
    }

    /// Gives the right back.
    pub fn settle(mut self, how: Settled) {
        self.give_back(how);
    }

    fn give_back(&mut self, how: Settled) {
        if let Some(proof) = self.proof.take() {
            self.keeper.settle(proof, how);
        }
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        self.give_back(Settled::Lost);
    }
}
