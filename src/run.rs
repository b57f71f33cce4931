//! A whole process put together: listeners, workers, control, the admin side.
//!
//! [`Instance`] is one process' worth of epochgate on threads of its own; a test or the demo runs several in one
//! process. [`run`] is one instance with signals, logging and exit codes: what `epochgate run` does.
//!
//! Everything that a test wants to hold in its own hands (clock, randomness, disk, store, connections) comes in as a
//! [`World`].

mod provers;
mod shares;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{AdminError, AdminServer};
use crate::audit::{Audit, AuditError};
use crate::clock::{Clock, Entropy, HostClock, HostEntropy};
use crate::config::Config;
use crate::config::resolved::{CoordinatorKind, ListenAt, Mode, Role};
use crate::control::{self, Ended, Handle, Wish};
use crate::coordinator::embedded::Embedded;
use crate::coordinator::etcd::Etcd;
use crate::coordinator::store::{Store, StoreError};
#[cfg(feature = "danger-test-switches")]
use crate::disk::AilingDisk;
use crate::disk::{Disk, HostDisk};
use crate::event::history::History;
use crate::event::{Event, EventSink, Listening};
use crate::fence::floor::Memory;
use crate::fence::mechanism::Mechanisms;
use crate::fence::tenure::Standing;
use crate::log::{LogError, LogHandle};
use crate::mailbox::WorkerId;
use crate::metrics::Metrics;
use crate::net::listen::BindError;
use crate::net::unix::Name;
use crate::reload::{self, Origin, Reloader};
use crate::state_dir::{FloorEvent, FloorWriter, StateDir, StateError};
use crate::worker::setup::{gates_of, stamped_by};
use crate::worker::{self, WorkerSetup};
use shares::{bind_all, listeners, per_worker};

/// A floor file that could not be written is tried again after so long.
const FLOOR_RETRY: Duration = Duration::from_secs(1);
/// How long audit, history and log have to get out what they still hold at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the outside world is, for one instance.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The disk that the floor file is on.
    pub disk: Arc<dyn Disk>,
    /// The store of epochs; none: the one that the configuration names.
    pub store: Option<Arc<dyn Store>>,
    /// What is in force: everything, in any build that ships.
    pub mechanisms: Mechanisms,
}

impl World {
    /// This host as it is.
    pub fn host() -> World {
        World {
            clock: Arc::new(HostClock),
            entropy: Arc::new(HostEntropy),
            disk: disk(),
            store: None,
            mechanisms: mechanisms(),
        }
    }
}

#[cfg(not(feature = "danger-test-switches"))]
fn disk() -> Arc<dyn Disk> {
    Arc::new(HostDisk)
}

/// `EPOCHGATE_DANGER_DISK` names the file in which a test says what ails the disk.
#[cfg(feature = "danger-test-switches")]
fn disk() -> Arc<dyn Disk> {
    let words = std::env::var_os("EPOCHGATE_DANGER_DISK");
    words.map_or_else(|| Arc::new(HostDisk) as Arc<dyn Disk>, |words| Arc::new(AilingDisk::told_by(words.into())))
}

#[cfg(not(feature = "danger-test-switches"))]
fn mechanisms() -> Mechanisms {
    Mechanisms::all()
}

/// What the tests took out, by `EPOCHGATE_DANGER_WITHOUT=drain,lost_writes`.
#[cfg(feature = "danger-test-switches")]
fn mechanisms() -> Mechanisms {
    let names = std::env::var("EPOCHGATE_DANGER_WITHOUT").unwrap_or_default();
    Mechanisms::without_named(&names).expect("EPOCHGATE_DANGER_WITHOUT names mechanisms; see --version for their names")
}

/// Why an instance cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's address cannot be had.
    #[error("listener {listener}: {source}")]
    Listen {
        /// Which listener.
        listener: Arc<str>,
        /// Why.
        source: BindError,
    },
    /// Certificates or keys cannot be used: everything that is wrong with them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Trust(Vec<crate::tls::Problem>),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The coordinator's settings cannot work.
    #[error("coordinator: {0}")]
    Coordinator(#[from] StoreError),
    /// The admin side cannot start.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The log cannot be set up.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The history file cannot be written.
    #[error("cannot write the history to {path}: {source}")]
    History {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no thread, or no runtime.
    #[error("cannot start {what}: {source}")]
    Thread {
        /// What for.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The metrics cannot be registered: a bug.
    #[error("cannot register the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// One process' worth of epochgate, running.
pub struct Instance {
    handle: Handle,
    control: JoinHandle<Ended>,
    ended: oneshot::Receiver<Ended>,
    admin: AdminServer,
    listening: Vec<(Arc<str>, ListenAt)>,
    to_reloader: std::sync::mpsc::Sender<Wish>,
    /// Given back at the end.
    _names: Vec<Name>,
    last_words: LastWords,
}

/// What still has something to write when everything else has ended.
struct LastWords {
    audit: Arc<Audit>,
    history: Option<Arc<History>>,
    events: EventSink,
    clock: Arc<dyn Clock>,
}

impl Instance {
    /// Starts every listener of `config`. It serves when this returns; the coordinator may still be out of reach. Where it
    /// was read from files, `origin` says how to read them again.
    ///
    /// # Errors
    /// [`RunError`]; nothing runs then.
    pub fn start(
        config: Config,
        world: World,
        log: Option<LogHandle>,
        origin: Option<Origin>,
    ) -> Result<Instance, RunError> {
        let (to_reloader, wishes) = std::sync::mpsc::channel();
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new(prometheus::Registry::new(), &config)?);
        let audit = Arc::new(Audit::start(&config.audit, Arc::clone(&world.clock), metrics.audit_records_dropped())?);
        let history = config.history.as_deref().map(open_history).transpose()?;
        let events = sinks(&metrics, &audit, history.as_ref());
        let trust = reload::trust(&config, world.clock.wall()).map_err(RunError::Trust)?;
        let floors = open_floors(&config, &world)?;
        let store = match &world.store {
            Some(store) => Arc::clone(store),
            None => open_store(&config, Arc::clone(&world.clock), Arc::clone(&world.entropy))?,
        };
        let bound = bind_all(&config)?;
        let listening: Vec<(Arc<str>, ListenAt)> =
            bound.iter().map(|(listener, bound)| (Arc::clone(&listener.name), bound.at.clone())).collect();
        let gates = gates_of(&config, world.mechanisms);
        let names = gates.iter().map(|gate| gate.name.clone()).collect();
        // Not before: where another process has the state directory or the port, it is that one's history.
        events.emit(world.clock.now(), started(&config));
        let (to_control, from_workers) = mpsc::unbounded_channel();
        let standing = Arc::new(Standing::new(world.mechanisms));
        let mut workers = Vec::new();
        let (sockets, names_of_sockets) = per_worker(bound, &trust, config.workers);
        for (number, sockets) in sockets.into_iter().enumerate() {
            let setup = WorkerSetup {
                id: WorkerId(number),
                workers: config.workers,
                writer: config.id.clone(),
                header: Arc::clone(&config.header),
                hold: config.hold,
                gates: gates.clone(),
                stamped: stamped_by(&config),
                standing: Arc::clone(&standing),
                listeners: listeners(sockets, &config, &world, &metrics),
                clock: Arc::clone(&world.clock),
                events: events.clone(),
                control: to_control.clone(),
            };
            let failed = |source| RunError::Thread { what: "a worker", source };
            workers.push(worker::spawn(setup).map_err(failed)?.to);
        }
        let set_level: Arc<dyn Fn(tracing::Level) + Send + Sync> = Arc::new(move |level| {
            if let Some(log) = &log {
                log.set_level(level);
            }
        });
        let (handle, calls) = Handle::new(Arc::clone(&store), Arc::clone(&world.clock), set_level);
        let handle = match &origin {
            Some(_) => handle.with_reloader(to_reloader.clone()),
            None => handle,
        };
        let clock = Arc::clone(&world.clock);
        let (last_events, last_clock) = (events.clone(), Arc::clone(&clock));
        let provers = provers::provers(&config, &trust, &floors.memory);
        let setup = control::Setup {
            config: Arc::clone(&config),
            store,
            clock: world.clock,
            entropy: world.entropy,
            mechanisms: world.mechanisms,
            events,
            metrics: Arc::clone(&metrics),
            memory: floors.memory,
            door: floors.door,
            floors: floors.writer,
            gates: names,
            provers,
            addresses: listening.iter().map(|(name, address)| (Arc::clone(name), address.to_string())).collect(),
            workers,
            from_workers,
            calls,
        };
        let (control, ended) = spawn_control(setup)?;
        let admin =
            AdminServer::start(&config.admin, Arc::new(handle.clone()), Arc::clone(&metrics), Arc::clone(&clock))?;
        if let Some(origin) = origin {
            let reloader = Reloader::new(origin, Arc::clone(&config), handle.clone(), &metrics, clock);
            let failed = |source| RunError::Thread { what: "the reloader", source };
            // It ends with the last handle: nobody waits for it.
            std::thread::Builder::new().name("reload".into()).spawn(move || reloader.run(&wishes)).map_err(failed)?;
        }
        let last_words = LastWords { audit, history, events: last_events, clock: last_clock };
        Ok(Instance { handle, control, ended, admin, listening, to_reloader, _names: names_of_sockets, last_words })
    }

    /// Where a listener listens, where that is an address.
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        self.listening.iter().find_map(|(listener, at)| match at {
            ListenAt::Tcp(address) if &**listener == name => Some(*address),
            _ => None,
        })
    }

    /// Where every listener listens.
    pub fn listening(&self) -> &[(Arc<str>, ListenAt)] {
        &self.listening
    }

    /// Where the admin side listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// Its handle: asks, commands, and the order to stop.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops in order and waits for the end.
    pub fn stop(self) -> Ended {
        self.handle.stop();
        self.wait()
    }

    /// Waits for the end, whatever brings it.
    pub fn wait(self) -> Ended {
        let ended = self.control.join().unwrap_or(Ended::Panicked);
        self.last_words.say(&ended);
        ended
    }

    async fn ended(&mut self) -> Ended {
        (&mut self.ended).await.unwrap_or(Ended::Panicked)
    }
}

impl LastWords {
    fn say(&self, ended: &Ended) {
        if *ended == Ended::Stopped {
            self.events.emit(self.clock.now(), Event::Stopped {});
        }
        self.audit.flush(LAST_WORDS);
        if let Some(history) = &self.history {
            history.flush(LAST_WORDS);
        }
    }
}

/// Runs until a signal, or something that it cannot go on from. The second signal to stop ends it at once.
///
/// # Errors
/// [`RunError`], where it cannot start.
pub fn run(config: Config, world: World, origin: Origin) -> Result<Ended, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::Thread { what: "the signal handler", source })?;
    // Before anything runs that has to end in order: a signal that comes during the start waits until it is over.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()
    };
    let log = crate::log::init(&config.log)?;
    crate::config::secrets::warn_of_open(&config);
    let id = config.id.clone();
    let state_dir = guards(&config).then(|| config.state_dir.display().to_string());
    let mut instance = Instance::start(config, world, Some(log.clone()), Some(origin))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %id, state_dir, "started");
    for (listener, address) in instance.listening() {
        tracing::info!(%listener, %address, "listening");
    }
    if let Some(address) = instance.admin_address() {
        tracing::info!(%address, "admin side listening");
    }
    let ended = runtime.block_on(until_ended(&mut instance, signals));
    tracing::info!(how = ?ended, "ended");
    instance.last_words.say(&ended);
    log.flush(LAST_WORDS);
    Ok(ended)
}

/// What people and service managers say to the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn until_ended(instance: &mut Instance, signals: io::Result<Signals>) -> Ended {
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "the system gives no signal handlers: stopping by signal loses what is in flight");
            return instance.ended().await;
        }
    };
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = instance.ended() => return ended,
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
            _ = signals.hangup.recv() => {
                // The thread ends only with the process.
                let _ = instance.to_reloader.send(Wish::Signal);
                continue;
            }
        }
        if stopping {
            tracing::warn!("told to stop a second time: ending at once");
            return Ended::AtOnce;
        }
        stopping = true;
        instance.handle.stop();
    }
}

fn started(config: &Config) -> Event {
    let listeners = config.listeners.iter().map(|listener| {
        let guard = match &listener.role {
            Role::Guard(guard) => Some(guard),
            Role::Stamp(_) => None,
        };
        Listening {
            name: Arc::clone(&listener.name),
            target: guard.map(|guard| Arc::clone(&guard.target)),
            audit: guard.is_some_and(|guard| guard.mode == Mode::Audit),
        }
    });
    Event::Started { id: config.id.clone(), listeners: listeners.collect() }
}

fn open_history(path: &std::path::Path) -> Result<Arc<History>, RunError> {
    History::start(path).map(Arc::new).map_err(|source| RunError::History { path: path.to_owned(), source })
}

fn sinks(metrics: &Arc<Metrics>, audit: &Arc<Audit>, history: Option<&Arc<History>>) -> EventSink {
    let mut sinks: Vec<Box<dyn crate::event::Sink>> = vec![Box::new(Arc::clone(metrics)), Box::new(Arc::clone(audit))];
    if let Some(history) = history {
        sinks.push(Box::new(Arc::clone(history)));
    }
    EventSink::new(sinks)
}

/// The store that a configuration names.
///
/// # Errors
/// Where its settings cannot work; that it does not answer is no such error.
pub fn open_store(
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &config.coordinator.kind {
        CoordinatorKind::Etcd(etcd) => Etcd::new(&config.coordinator, etcd, clock, entropy)?,
        CoordinatorKind::Embedded(path) => {
            Embedded::open_with_limit(path, clock, entropy, config.coordinator.request_timeout)?
        }
    })
}

/// The floor file, opened; nothing for a process that guards nothing.
#[derive(Default)]
struct OpenFloors {
    memory: Memory,
    door: Option<Arc<str>>,
    writer: Option<(FloorWriter, mpsc::UnboundedReceiver<FloorEvent>)>,
}

fn guards(config: &Config) -> bool {
    config.listeners.iter().any(|listener| matches!(listener.role, Role::Guard(_)))
}

fn open_floors(config: &Config, world: &World) -> Result<OpenFloors, RunError> {
    if !guards(config) {
        return Ok(OpenFloors::default());
    }
    let (dir, memory, _) = StateDir::open(
        &config.state_dir,
        &config.id,
        Arc::clone(&world.disk),
        world.entropy.as_ref(),
        config.adopt_floor,
    )?;
    let door = Arc::clone(dir.door());
    let writer = FloorWriter::start(dir.into_floor_file(), FLOOR_RETRY)
        .map_err(|source| RunError::Thread { what: "the floor file's writer", source })?;
    Ok(OpenFloors { memory, door: Some(door), writer: Some(writer) })
}

fn spawn_control(setup: control::Setup) -> Result<(JoinHandle<Ended>, oneshot::Receiver<Ended>), RunError> {
    let failed = |source| RunError::Thread { what: "control", source };
    let (say, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        let ended = runtime.block_on(tokio::task::LocalSet::new().run_until(control::run(setup)));
        // Nobody may be waiting.
        let _ = say.send(ended.clone());
        ended
    });
    Ok((thread.map_err(failed)?, ended))
}
