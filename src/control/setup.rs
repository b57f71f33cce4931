//! What control is given, and how it ends.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::calls::Call;
use super::proving::ProverSetup;
use crate::clock::{Clock, Entropy};
use crate::config::Config;
use crate::coordinator::store::Store;
use crate::event::EventSink;
use crate::fence::Resource;
use crate::fence::mechanism::Mechanisms;
use crate::mailbox::{GateName, ToControl, ToWorker, WorkerId};
use crate::state_dir::{FloorEvent, FloorWriter};

/// What control is made of.
pub struct Setup {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Where epochs live.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What is in force.
    pub mechanisms: Mechanisms,
    /// Where events go.
    pub events: EventSink,
    /// What has been counted, for `status`.
    pub metrics: Arc<crate::metrics::Metrics>,
    /// What the floor file said.
    pub memory: crate::fence::floor::Memory,
    /// This process's door id; none for a process without a guard.
    pub door: Option<Arc<str>>,
    /// The floor file's writer and what it says; none for a process without a guard.
    pub floors: Option<(FloorWriter, mpsc::UnboundedReceiver<FloorEvent>)>,
    /// Every gate of the process, by number.
    pub gates: Vec<GateName>,
    /// What makes the prover of each listener that has one.
    pub provers: Vec<ProverSetup>,
    /// Where each listener really listens, by its name.
    pub addresses: Vec<(Arc<str>, String)>,
    /// The workers' queues.
    pub workers: Vec<mpsc::UnboundedSender<ToWorker>>,
    /// What the workers say.
    pub from_workers: mpsc::UnboundedReceiver<ToControl>,
    /// What the admin side asks for.
    pub calls: mpsc::UnboundedReceiver<Call>,
}

/// Why control ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Stopped,
    /// Another process has this writer id.
    DuplicateWriter {
        /// For which resource it was found.
        resource: Resource,
    },
    /// A worker has not answered for 10 s, or is gone: its ledger is gone with it.
    WorkerLost(WorkerId),
    /// The floor file's thread is gone.
    FloorsLost,
    /// Told to stop a second time: what was in flight is lost.
    AtOnce,
    /// Control itself panicked.
    Panicked,
}
