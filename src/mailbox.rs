//! What control and the workers tell each other: plain messages, one way each, in order.
//!
//! Each worker has one queue from control and all share one queue to it. Nothing else is shared between them, so a
//! worker's gates need no lock.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::config::resolved::Listener;
use crate::fence::gate::Order;
use crate::fence::tenure::Standing;
use crate::fence::{Epoch, Moment, Resource};
use crate::signing::Keys;
use crate::tls::Sides;

/// A gate's number: its place in the process's list of (target, resource) pairs, the same in every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateId(pub usize);

/// A worker's number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub usize);

/// One gate of the process: which resource at which target, behind which listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateName {
    /// The target.
    pub target: Arc<str>,
    /// The resource.
    pub resource: Resource,
    /// The listener's name.
    pub listener: Arc<str>,
}

/// From control to one worker.
#[derive(Debug)]
pub enum ToWorker {
    /// An order for a gate. The worker answers [`Order::Fence`] with [`ToControl::Fenced`], and then with
    /// [`ToControl::Quiet`] and [`ToControl::Drained`] once each is so.
    Order(GateId, Order),
    /// Cut what runs below this epoch: what is half sent, or everything (`all`).
    Cut {
        /// The gate.
        gate: GateId,
        /// Every write below this.
        below: Epoch,
        /// What is sent whole too.
        all: bool,
    },
    /// The answer to [`ToControl::Ask`].
    Answer(u64, Answer),
    /// What the writer may stamp from now on. The worker first accepts, under the old standing, what waits in its
    /// queues; then it adopts this and says [`ToControl::Adopted`].
    Standing(Arc<Standing>),
    /// The standing's deadline alone has moved.
    Deadline(Option<Moment>),
    /// Listeners whose certificates, or settings, are others from now on.
    Renew(Arc<[Renewal]>),
    /// Give an account.
    Report(oneshot::Sender<Account>),
    /// Write the meters to the registry, and say when it is done.
    Flush(oneshot::Sender<()>),
    /// Still there? Answered with [`ToControl::Pong`].
    Ping(u64),
    /// Accept what waits, then nothing more; finish what is in flight; then say [`ToControl::Stopped`] and end.
    Stop,
    /// End at once: what is in flight is lost.
    Abort,
}

/// One listener as it is from now on.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Its place in the configuration.
    pub place: usize,
    /// Its settings.
    pub listener: Arc<Listener>,
    /// What its sessions are made with.
    pub sides: Sides,
    /// The keys of its signed stamps.
    pub signatures: Option<Arc<Keys>>,
    /// Whether its settings are others: connections that are there finish what is in flight, and end. Where only its
    /// certificates are, they stay.
    pub replaced: bool,
}

/// What the coordinator says of an epoch that a gate did not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is real: the order to fence it has been sent, or comes once the floor is on disk.
    Known,
    /// It is not: this is the highest.
    Denied(Option<Epoch>),
    /// The coordinator cannot be asked now.
    Unreachable,
}

/// From a worker to control.
#[derive(Debug)]
pub enum ToControl {
    /// The gate refuses everything below this epoch.
    Fenced(WorkerId, GateId, Epoch),
    /// The gate runs nothing below this epoch any more.
    Quiet(WorkerId, GateId, Epoch),
    /// The gate's ledger holds nothing below this epoch.
    Drained(WorkerId, GateId, Epoch),
    /// Does the coordinator know this epoch? Answered with [`ToWorker::Answer`] under the same number.
    Ask {
        /// Who asks.
        worker: WorkerId,
        /// The worker's own number for the question.
        number: u64,
        /// For which gate.
        gate: GateId,
        /// The epoch that a stamp claims.
        epoch: Epoch,
    },
    /// The worker works with the standing of this version.
    Adopted(WorkerId, u64),
    /// Still there.
    Pong(WorkerId, u64),
    /// Everything in flight is over, or was lost; `clean` where no ledger holds anything.
    Stopped {
        /// Who stopped.
        worker: WorkerId,
        /// The gates whose ledgers hold something.
        unclean: Vec<GateId>,
    },
}

/// A worker's queue to control.
pub type ControlSender = mpsc::UnboundedSender<ToControl>;

/// One worker's account of itself, for `status` and the gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its gates, by number; those with nothing to say are left out.
    pub gates: Vec<GateAccount>,
    /// Writes in flight under each of this writer's terms.
    pub stamped: Vec<(Resource, u64)>,
    /// Open connections by listener name.
    pub connections: Vec<(Arc<str>, u64)>,
}

/// One gate's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateAccount {
    /// Which.
    pub gate: GateId,
    /// Writes that run.
    pub in_flight: u64,
    /// Writes that were lost and still count.
    pub lost: u64,
    /// When time has ended what was lost below the floor, where it does.
    pub lost_until: Option<Moment>,
    /// Requests that are held.
    pub held: u64,
    /// The oldest few of what runs or is lost below the floor, for people.
    pub holders: Vec<Holder>,
}

/// A write that keeps a gate shut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The epoch that it counts under; none at an audit door.
    pub epoch: Option<Epoch>,
    /// Who sent it.
    pub peer: crate::peer::Peer,
    /// Method and path.
    pub what: String,
    /// When it entered the ledger.
    pub since: Moment,
    /// Whether it is lost.
    pub lost: bool,
}
