//! Writes under way, and the target where they land.

use epochgate::fence::{Epoch, Nonce, Stamp, Term};

use crate::words::{mallory, orders, writer_id};

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Write {
    /// Its stamp; none before it has one.
    pub stamp: Option<Stamped>,
    /// Where it is.
    pub stage: Stage,
}

/// A stamp, small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamped {
    pub epoch: Epoch,
    pub nonce: Option<Nonce>,
    pub by: By,
}

/// Who put it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    Writer(usize),
    Mallory,
}

/// Where a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// On a connection to its writer's sidecar that waits in the kernel's queue: sent under this term, if any.
    Queued { writer: usize, held: Option<Epoch> },
    /// On a connection that was accepted under this version of the standing, and waits there: in a pool, or held.
    Pooled { writer: usize, bound_to: u64, held: Option<Epoch>, expected: Option<Epoch> },
    /// Between the sidecar and the guards; `twice`: it arrives again after it has arrived.
    OnItsWay { twice: bool },
    /// Let in by a gate, and waiting for a connection to the target.
    LetIn { door: usize, worker: usize },
    /// At the target, and not applied yet; `before`: in a session of its door before the present one.
    Sent { door: usize, as_: Sent, before: bool },
    /// Applied, and not answered yet.
    Applied { door: usize, worker: usize },
}

/// What a guard knows of a write that it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sent {
    /// It waits for the answer, in this worker.
    Running(usize),
    /// It has given up on it, in this worker.
    Lost(usize),
    /// Nothing: the process that sent it is gone.
    Orphan,
}

impl Write {
    /// The stamp as production reads it.
    pub fn stamp(&self) -> Option<Stamp> {
        let Stamped { epoch, nonce, by } = self.stamp?;
        let by = match by {
            By::Writer(number) => writer_id(number),
            By::Mallory => mallory(),
        };
        Some(Stamp { epoch, nonce, by: Some(by), res: Some(orders().clone()) })
    }
}

impl Stamped {
    /// A term's stamp.
    pub fn of(term: &Term, by: By) -> Stamped {
        Stamped { epoch: term.epoch, nonce: Some(term.nonce), by }
    }
}

/// What has been applied: the highest epoch, with the nonce that it came with. More is not needed to see R1 broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    pub highest: Option<(Epoch, Option<Nonce>)>,
}
