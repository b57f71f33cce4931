//! One typed event for everything that happens at the fence; metrics, audit, history and the checker all read it.
//!
//! Whoever sees something happen builds an [`Event`] and hands it to the [`EventSink`]; nobody counts or logs it a
//! second time. What succeeds once a request ([`Event::is_hot`]) is built only where [`EventSink::wants_history`]
//! says so: the counters of the hot path are [`ListenerMeters`](crate::metrics::ListenerMeters).

pub mod history;
pub mod sink;
mod written;

use std::sync::Arc;
use std::time::Duration;

pub use crate::fence::handoff::By;
use crate::fence::{Epoch, Moment, Nonce, Refusal, Resource, WriterId};
use crate::peer::Peer;
use crate::protocol::Kind;
use crate::protocol::right::Settled;
pub use sink::{EventSink, Sink};

/// An event, and when it happened.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Recorded {
    /// When, on the boot-time clock of the host that it happened on.
    #[serde(with = "written::moment")]
    pub at: Moment,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Why a term that this process led is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TermEnd {
    /// No keep-alive came through in time.
    Deadline,
    /// The coordinator said that the lease or the leader key is gone.
    LeaseLost,
    /// It was given up on purpose.
    StepDown,
    /// An epoch or a floor at or above its own that is not its own was seen.
    Overtaken,
    /// The process stops.
    Shutdown,
}

impl TermEnd {
    /// As in log and history.
    pub const fn as_str(self) -> &'static str {
        match self {
            TermEnd::Deadline => "deadline",
            TermEnd::LeaseLost => "lease_lost",
            TermEnd::StepDown => "step_down",
            TermEnd::Overtaken => "overtaken",
            TermEnd::Shutdown => "shutdown",
        }
    }
}

/// A listener of a process that begins.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listening {
    /// Its name.
    pub name: Arc<str>,
    /// For a guard, what it stands before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
    /// Whether it only counts: what a guard in `mode: audit` forwards is not fenced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
    /// Whether what it lets in are sessions, or batches of commands: one of them may carry any number of a target's writes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sessions: bool,
}

/// Something that happened at the fence. An `epoch` that is optional is absent for a write without a stamp, which
/// only a door in audit mode forwards. Paths are as sent, without the query.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the words of DESIGN section 1; those that are not have a comment")]
pub enum Event {
    /// A process has begun: its writes are numbered from here on, and it remembers what is on its disk.
    Started { id: WriterId, listeners: Vec<Listening> },
    /// It has ended in order: every write that it let in has left its books.
    Stopped {},
    /// A linearizable read at `revision` confirmed the term for a door.
    Verified { resource: Resource, target: Arc<str>, epoch: Epoch, nonce: Nonce, writer: WriterId, revision: u64 },
    /// The floor is on the disk; `drained`: with the mark that it is drained.
    Persisted { resource: Resource, target: Arc<str>, epoch: Epoch, drained: bool },
    /// A gate let a write in. `write` numbers it, once in the life of the process. Hot.
    Admitted { listener: Arc<str>, resource: Resource, epoch: Option<Epoch>, write: u64 },
    /// Its first byte is about to leave. Hot.
    Forwarded { listener: Arc<str>, resource: Resource, epoch: Option<Epoch>, write: u64 },
    /// It left the books. Hot.
    Settled {
        listener: Arc<str>,
        resource: Resource,
        epoch: Option<Epoch>,
        write: u64,
        #[serde(with = "written::settled")]
        how: Settled,
    },
    /// A write was stamped; it may leave until `deadline`. Hot.
    Stamped {
        listener: Arc<str>,
        resource: Resource,
        epoch: Epoch,
        nonce: Nonce,
        #[serde(with = "written::moment")]
        deadline: Moment,
    },
    /// A request was refused, at a door or by a stamping sidecar.
    Refused {
        listener: Arc<str>,
        #[serde(with = "written::refusal")]
        refusal: Box<Refusal>,
        peer: Peer,
        method: Arc<str>,
        path: Arc<str>,
        #[serde(with = "written::kind")]
        kind: Kind,
    },
    /// A door in audit mode forwarded what an enforcing one would have refused.
    WouldRefuse {
        listener: Arc<str>,
        #[serde(with = "written::refusal")]
        refusal: Box<Refusal>,
        peer: Peer,
        method: Arc<str>,
        path: Arc<str>,
        #[serde(with = "written::kind")]
        kind: Kind,
    },
    /// A write in flight was cut because its epoch is over.
    Cut { listener: Arc<str>, resource: Resource, epoch: Option<Epoch>, peer: Peer, method: Arc<str>, path: Arc<str> },
    /// A write ended without the target's answer, and counts on until its end is proved.
    Lost { listener: Arc<str>, resource: Resource, epoch: Option<Epoch>, peer: Peer, method: Arc<str>, path: Arc<str> },
    /// A door refuses everything below `epoch` from now on.
    Fenced { resource: Resource, target: Arc<str>, epoch: Epoch },
    /// A door's ledger holds nothing below `epoch`.
    Drained { resource: Resource, target: Arc<str>, epoch: Epoch, by: By },
    /// A door admits `epoch`, from here on; `forced`: without having drained.
    Opened { resource: Resource, target: Arc<str>, epoch: Epoch, forced: bool },
    /// A door has gone from one epoch to the next; how long each phase took.
    HandoffDone {
        resource: Resource,
        target: Arc<str>,
        epoch: Epoch,
        #[serde(with = "written::nanos", rename = "fence_ns")]
        fence: Duration,
        #[serde(with = "written::nanos", rename = "drain_ns")]
        drain: Duration,
        #[serde(with = "written::nanos", rename = "mark_ns")]
        mark: Duration,
        /// Waiting for other doors; a history of an earlier version has it in `mark`.
        #[serde(with = "written::nanos", rename = "doors_ns", default)]
        doors: Duration,
        #[serde(with = "written::nanos", rename = "open_ns")]
        open: Duration,
        by: By,
    },
    /// A new term was seen; `own`: it is this process's. `took`: from the start of the campaign, or from the end of
    /// the last term as this process saw it, where it knows one.
    Elected {
        resource: Resource,
        epoch: Epoch,
        nonce: Nonce,
        writer: WriterId,
        own: bool,
        #[serde(with = "written::nanos_or_none", rename = "took_ns", default, skip_serializing_if = "Option::is_none")]
        took: Option<Duration>,
    },
    /// This process's own term is armed; `forced`: a door opened without having drained.
    Armed { resource: Resource, epoch: Epoch, forced: bool },
    /// This process's own term is over.
    TermEnded { resource: Resource, epoch: Epoch, why: TermEnd },
    /// The coordinator fell behind what this door has seen (DESIGN 3.7); `seen` is what it shows now, if anything.
    Regression { resource: Resource, floor: Epoch, seen: Option<Epoch> },
    /// The coordinator answers (again).
    CoordinatorUp { endpoint: Arc<str> },
    /// The coordinator does not answer.
    CoordinatorDown { error: Arc<str> },
    /// A floor file could not be written; the floors of `resources` wait for it.
    FloorWriteFailed { resources: Vec<Resource>, error: Arc<str> },
    /// An operator believes a floor far above the last epoch: the next election goes above it.
    Rebased { resource: Resource, epoch: Epoch },
    /// An operator declared a door dead.
    DoorForgotten { door: Arc<str>, target: Arc<str> },
}

impl Event {
    /// Whether it happens once a request that succeeds: build it only where [`EventSink::wants_history`] is true.
    pub const fn is_hot(&self) -> bool {
        matches!(self, Event::Admitted { .. } | Event::Forwarded { .. } | Event::Settled { .. } | Event::Stamped { .. })
    }
}
