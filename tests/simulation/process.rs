//! One process of the product, put together as `epochgate run` does it, but without threads, sockets and files: its
//! threads are futures, its disk is in memory, its clock is the world's.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use epochgate::clock::Clock;
use epochgate::config::Config;
use epochgate::config::resolved::{ListenAt, Listener, Mode, Role};
use epochgate::control::{self, Ended, Handle};
use epochgate::disk::{Disk, FaultyDisk};
use epochgate::event::{Event, EventSink, Listening as Said};
use epochgate::fence::floor::Memory;
use epochgate::fence::mechanism::Mechanisms;
use epochgate::fence::tenure::Standing;
use epochgate::mailbox::WorkerId;
use epochgate::metrics::Metrics;
use epochgate::net::{Acceptor, Dial};
use epochgate::state_dir::{FloorEvent, FloorWriter, StateDir};
use epochgate::tls::Sides;
use epochgate::verify::Outside;
use epochgate::worker::setup::{gates_of, stamped_by};
use epochgate::worker::{self, ListenerSetup, WorkerSetup, over_http_by};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::clock::DriftingClock;
use crate::coordinator::Coordinator;
use crate::dice::{Dice, SeededEntropy};
use crate::life::{Life, Threads};
use crate::network::{Address, Host, LetGo, Network};
use crate::record::{Record, Saying};
use crate::socket::{Dialler, Listening};

/// The threads before: control, and the floor file's.
pub const FIRST_WORKER: usize = 2;
/// As in production.
const FLOOR_RETRY: Duration = Duration::from_secs(1);

/// What a process needs of the world.
#[derive(Clone)]
pub struct Around {
    pub network: Network,
    pub coordinator: Coordinator,
    pub record: Record,
    pub mechanisms: Mechanisms,
}

/// One process, running or not, with what outlives it: its machine's clock and disk.
pub struct Process {
    pub name: Arc<str>,
    pub host: Host,
    config: Arc<Config>,
    around: Around,
    clock: Arc<DriftingClock>,
    disk: RefCell<FaultyDisk>,
    dice: RefCell<Dice>,
    running: RefCell<Option<Running>>,
    /// Whether it is to be started again when it has ended.
    pub wanted: Cell<bool>,
}

struct Running {
    life: Life,
    handle: Handle,
    threads: Threads,
}

/// How control ended, where it did by itself.
type Told = oneshot::Receiver<Ended>;

impl Process {
    pub fn new(host: Host, config: Config, around: &Around, clock: Arc<DriftingClock>, dice: Dice) -> Rc<Process> {
        Rc::new(Process {
            name: config.id.to_string().into(),
            host,
            config: Arc::new(config),
            around: around.clone(),
            clock,
            disk: RefCell::new(FaultyDisk::new()),
            dice: RefCell::new(dice),
            running: RefCell::new(None),
            wanted: Cell::new(true),
        })
    }

    /// Its disk, for faults.
    pub fn disk(&self) -> FaultyDisk {
        self.disk.borrow().clone()
    }

    /// Whether it runs (also while it is stopped by a signal).
    pub fn is_running(&self) -> bool {
        self.running.borrow().is_some()
    }

    /// Where its listeners listen.
    fn address(&self, listener: &Listener) -> Address {
        Address(self.host, port(&listener.listen))
    }

    /// Starts it, unless it runs. Where it cannot start (its disk), it says so in the record.
    pub fn start(self: &Rc<Process>) {
        if self.is_running() {
            return;
        }
        let life = Life::default();
        let (running, told) = match self.put_together(&life) {
            Ok(put_together) => put_together,
            Err(why) => {
                self.around.record.note(&self.name, format!("cannot start: {why}"));
                return;
            }
        };
        self.around.record.note(&self.name, "started");
        self.running.replace(Some(running));
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // Where the sender is gone the process was killed.
            if let Ok(ended) = told.await
                && life.is_over().is_none()
            {
                this.around.record.note(&this.name, format!("ended: {ended:?}"));
                this.end(LetGo::Close);
            }
        });
    }

    /// SIGKILL.
    pub fn kill(&self) {
        if self.is_running() {
            self.saw_killed("killed");
            self.end(LetGo::Close);
        }
    }

    /// Its machine loses power: what was not synced is gone, or is not, as the dice say.
    pub fn lose_power(&self) {
        self.saw_killed("lost power");
        self.end(LetGo::Vanish);
        let seed = self.dice.borrow_mut().next();
        let restarted = self.disk.borrow().restarted(seed);
        self.disk.replace(restarted);
    }

    fn saw_killed(&self, how: &str) {
        self.around.record.note(&self.name, how);
        self.around.record.saw(&"world".into(), Outside::Killed { process: Arc::clone(&self.name) });
    }

    fn end(&self, how: LetGo) {
        let Some(mut running) = self.running.borrow_mut().take() else { return };
        running.life.end(how);
        running.threads.kill();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        if let Some(running) = self.running.borrow().as_ref() {
            self.around.record.note(&self.name, "told to stop");
            running.handle.stop();
        }
    }

    /// Its life, for stopping and lagging, and how many threads it has.
    pub fn life(&self) -> Option<(Life, usize)> {
        self.running.borrow().as_ref().map(|running| (running.life.clone(), running.threads.len()))
    }

    /// Its handle, for what operators do.
    pub fn handle(&self) -> Option<Handle> {
        self.running.borrow().as_ref().map(|running| running.handle.clone())
    }

    fn guards(&self) -> bool {
        self.config.listeners.iter().any(|listener| matches!(listener.role, Role::Guard(_)))
    }

    fn put_together(&self, life: &Life) -> Result<(Running, Told), String> {
        let config = Arc::clone(&self.config);
        let entropy = SeededEntropy::new(Dice::of(self.dice.borrow_mut().next(), "entropy"));
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let metrics = Metrics::new(prometheus::Registry::new(), &config).map_err(|error| error.to_string())?;
        let metrics = Arc::new(metrics);
        let saying = Saying { record: self.around.record.clone(), who: Arc::clone(&self.name), life: life.clone() };
        let events = EventSink::new(vec![Box::new(Arc::clone(&metrics)), Box::new(saying)]);
        let floors = self.floors(&entropy)?;
        let store = self.around.coordinator.store(self.host, clock.clone(), config.coordinator.request_timeout);
        for listener in &config.listeners {
            self.around.network.listen(self.address(listener), config.workers);
        }
        events.emit(clock.now(), started(&config));
        let gates = gates_of(&config, self.around.mechanisms);
        let names = gates.iter().map(|gate| gate.name.clone()).collect();
        let (to_control, from_workers) = mpsc::unbounded_channel();
        let standing = Arc::new(Standing::new(self.around.mechanisms));
        let (mut workers, mut working) = (Vec::new(), Vec::new());
        for number in 0..config.workers {
            let (to, mailbox) = mpsc::unbounded_channel();
            let setup = WorkerSetup {
                id: WorkerId(number),
                workers: config.workers,
                writer: config.id.clone(),
                header: Arc::clone(&config.header),
                hold: config.hold,
                gates: gates.clone(),
                stamped: stamped_by(&config),
                standing: Arc::clone(&standing),
                listeners: config.listeners.iter().map(|it| self.listener(it, number, life, &metrics)).collect(),
                clock: Arc::clone(&clock),
                events: events.clone(),
                control: to_control.clone(),
            };
            workers.push(to);
            working.push(worker::run(setup, mailbox));
        }
        drop(to_control);
        let (handle, calls) = Handle::new(Arc::clone(&store), Arc::clone(&clock), Arc::new(|_| {}));
        let setup = control::Setup {
            store,
            clock,
            entropy,
            mechanisms: self.around.mechanisms,
            events,
            metrics,
            memory: floors.memory,
            door: floors.door,
            floors: floors.writer,
            provers: Vec::new(),
            gates: names,
            addresses: config.listeners.iter().map(|it| (it.name.clone(), self.host.to_string())).collect(),
            workers,
            from_workers,
            calls,
            config,
        };
        let (tell, told) = oneshot::channel();
        let (last_events, last_clock) = (setup.events.clone(), Arc::clone(&setup.clock));
        let (written, all_written) = oneshot::channel::<()>();
        let mut threads = Threads::default();
        threads.begin(life, async move {
            let ended = LocalSet::new().run_until(control::run(setup)).await;
            // As the process does that waits for its floor file's thread.
            let _ = all_written.await;
            if ended == Ended::Stopped {
                last_events.emit(last_clock.now(), Event::Stopped {});
            }
            let _ = tell.send(ended);
        });
        threads.begin(life, async move {
            floors.writing.await;
            drop(written);
        });
        for work in working {
            threads.begin(life, async move { work.await.expect("these listeners can be watched") });
        }
        Ok((Running { life: life.clone(), handle, threads }, told))
    }

    fn listener(&self, listener: &Arc<Listener>, socket: usize, life: &Life, metrics: &Metrics) -> ListenerSetup {
        let (network, host, mechanisms) = (self.around.network.clone(), self.host, self.around.mechanisms);
        let header = self.config.header.parse().expect("a resolved configuration has a header name");
        let meters = metrics.meters(&listener.name).expect("the metrics were made for these listeners");
        let (accepting, address) = ((network.clone(), life.clone()), self.address(listener));
        let life = life.clone();
        let lingers = lingers(mechanisms);
        let protocol = over_http_by(
            header,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            mechanisms,
            Box::new(move |upstream, _| {
                let send_timeout = (!lingers).then_some(upstream.send_timeout);
                let (network, life) = (network.clone(), life.clone());
                Rc::new(Dialler { network, host, life, send_timeout, lingers }) as Rc<dyn Dial>
            }),
        );
        ListenerSetup {
            listener: Arc::clone(listener),
            meters,
            accept: Box::new(move || {
                let (network, life) = accepting;
                Ok(Acceptor::from_source(Listening::new(&network, address, socket, &life)))
            }),
            protocol,
            sides: Sides::default(),
            signatures: None,
        }
    }

    fn floors(&self, entropy: &SeededEntropy) -> Result<OpenFloors, String> {
        if !self.guards() {
            return Ok(OpenFloors {
                memory: Memory::default(),
                door: None,
                writer: None,
                writing: Box::pin(std::future::ready(())),
            });
        }
        let disk: Arc<dyn Disk> = Arc::new(self.disk());
        let opened = StateDir::open(Path::new("/state"), &self.config.id, disk, entropy, false);
        let (dir, memory, start) = opened.map_err(|error| error.to_string())?;
        self.around.record.note(&self.name, format!("door {}: {start:?}", dir.door()));
        let door = Some(Arc::clone(dir.door()));
        let (writer, events, writing) = FloorWriter::without_thread(dir.into_floor_file(), FLOOR_RETRY);
        Ok(OpenFloors { memory, door, writer: Some((writer, events)), writing: Box::pin(writing) })
    }
}

/// What a process says of itself when it begins.
fn started(config: &Config) -> Event {
    let listeners = config.listeners.iter().map(|listener| {
        let (target, audit) = match &listener.role {
            Role::Guard(guard) => (Some(Arc::clone(&guard.target)), guard.mode == Mode::Audit),
            Role::Stamp(_) => (None, false),
        };
        Said { name: Arc::clone(&listener.name), target, audit, sessions: false }
    });
    Event::Started { id: config.id.clone(), listeners: listeners.collect() }
}

struct OpenFloors {
    memory: Memory,
    door: Option<Arc<str>>,
    writer: Option<(FloorWriter, mpsc::UnboundedReceiver<FloorEvent>)>,
    writing: std::pin::Pin<Box<dyn Future<Output = ()>>>,
}

#[cfg(feature = "danger-test-switches")]
fn lingers(mechanisms: Mechanisms) -> bool {
    !mechanisms.keeps(epochgate::fence::mechanism::Mechanism::Reset)
}

#[cfg(not(feature = "danger-test-switches"))]
fn lingers(_: Mechanisms) -> bool {
    false
}

/// Hosts of the simulation have no file system: all of them listen at ports.
fn port(at: &ListenAt) -> u16 {
    match at {
        ListenAt::Tcp(address) => address.port(),
        ListenAt::Unix(path) => unreachable!("the simulation makes no listener at {}", path.display()),
    }
}
