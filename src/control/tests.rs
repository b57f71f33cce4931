//! Control over the embedded coordinator, with workers that are played by the tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::clock::{HostClock, HostEntropy};
use crate::config::resolved::*;
use crate::coordinator::embedded::Embedded;
use crate::disk::HostDisk;
use crate::event::sink::Recorder;
use crate::fence::gate::Order;
use crate::fence::tenure::Armed;
use crate::mailbox::Account;
use crate::rules::Rules;
use crate::state_dir::StateDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn orders() -> Resource {
    "orders".parse().expect("a resource")
}

fn listener(name: &str, role: Role) -> Arc<Listener> {
    let second = Duration::from_secs(1);
    Arc::new(Listener {
        name: name.into(),
        role,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        upstream: Upstream {
            url: "http://127.0.0.1:9".into(),
            authority: "127.0.0.1:9".into(),
            version: UpstreamVersion::Same,
            connect_timeout: second,
            response_timeout: second,
            send_timeout: second,
            idle_timeout: second,
            no_answer: vec![502, 504],
        },
        resource: Some(orders()),
        rules: Rules::default(),
        serves: vec![orders()],
        limits: Limits {
            connections: 10,
            streams: 10,
            headers: 10,
            header_bytes: 65_536,
            header_timeout: second,
            body_idle_timeout: second,
            idle_timeout: second,
        },
    })
}

fn config(id: &str, folder: &Path, listeners: Vec<Arc<Listener>>) -> Config {
    let drain = Drain {
        timeout: Duration::from_secs(5),
        quarantine: Duration::from_secs(2),
        by_time: true,
        on_timeout: OnTimeout::Hold,
    };
    let settings = ResourceSettings { label: "orders".into(), drain, fence_action: None, hold_timeout: None };
    Config {
        id: id.parse().expect("an id"),
        state_dir: folder.join(format!("state-{id}")),
        adopt_floor: false,
        header: "fencing-epoch".into(),
        coordinator: Coordinator {
            kind: CoordinatorKind::Embedded(folder.join("epochs.db")),
            prefix: "/epochgate/v1/".into(),
            lease_ttl: Duration::from_secs(2),
            request_timeout: Duration::from_millis(400),
            verify_every: Duration::from_millis(200),
        },
        clock: ClockTrust { max_drift: 0.01, margin: Duration::from_millis(100) },
        resources: BTreeMap::from([(orders(), Arc::new(settings))]),
        listeners,
        hold: Hold { requests: 10, bytes: 10_000, timeout: Duration::from_secs(1) },
        step_down: StepDown { timeout: Duration::from_secs(1), pause: Duration::from_secs(1) },
        shutdown_grace: Duration::from_secs(5),
        admin: Admin { listen: None, socket: None },
        audit: Audit { output: AuditOutput::Stdout, queue: 10 },
        history: None,
        log: Log { format: LogFormat::Text, level: tracing::Level::INFO },
        workers: 1,
    }
}

fn guard() -> Arc<Listener> {
    listener(
        "orders-guard",
        Role::Guard(GuardSettings {
            mode: Mode::Enforce,
            target: "orders".into(),
            on_coordinator_loss: GuardLoss::Keep,
            fence_reads: false,
            bare_stamps: true,
            forward_stamp: true,
        }),
    )
}

fn stamp() -> Arc<Listener> {
    listener(
        "orders-stamp",
        Role::Stamp(StampSettings {
            advertise: Some("http://here".into()),
            campaign: vec![orders()],
            incoming_stamp: IncomingStamp::Refuse,
            expect_required: false,
            until_armed: UntilArmed::Hold,
            keep_on_coordinator_loss: false,
        }),
    )
}

/// A process whose one worker is played by the test.
struct Process {
    handle: Handle,
    events: Arc<Recorder>,
    /// None once it has stopped, as with a worker whose thread has ended.
    to_control: Option<mpsc::UnboundedSender<ToControl>>,
    from_control: mpsc::UnboundedReceiver<ToWorker>,
    standing: Option<Arc<crate::fence::tenure::Standing>>,
    ended: tokio::task::JoinHandle<Ended>,
    gate: crate::fence::gate::Gate,
}

impl Process {
    fn start(config: Config) -> Process {
        let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
        let CoordinatorKind::Embedded(path) = &config.coordinator.kind else { panic!("embedded only") };
        let store = Embedded::open(path, clock.clone(), entropy.clone()).expect("a folder of the test's own");
        let guards = config.listeners.iter().any(|listener| matches!(listener.role, Role::Guard(_)));
        let opened = guards.then(|| {
            let disk = Arc::new(HostDisk);
            StateDir::open(&config.state_dir, &config.id, disk, entropy.as_ref(), false).expect("a folder of its own")
        });
        let (mut memory, mut door, mut floors) = (Default::default(), None, None);
        if let Some((dir, remembered, _)) = opened {
            door = Some(Arc::clone(dir.door()));
            memory = remembered;
            floors = Some(FloorWriter::start(dir.into_floor_file(), Duration::from_millis(100)).expect("a thread"));
        }
        let gates =
            config.listeners.iter().filter(|listener| matches!(listener.role, Role::Guard(_))).map(|listener| {
                GateName { target: "orders".into(), resource: orders(), listener: listener.name.clone() }
            });
        let (handle, calls) = Handle::new(store.clone(), Arc::new(|_| {}));
        let (to_control, from_workers) = mpsc::unbounded_channel();
        let (worker, from_control) = mpsc::unbounded_channel();
        let events = Arc::new(Recorder::default());
        let metrics = crate::metrics::Metrics::new(prometheus::Registry::new(), &config).expect("a new registry");
        let setup = Setup {
            gates: gates.collect(),
            config: Arc::new(config),
            store,
            clock,
            entropy,
            mechanisms: Mechanisms::all(),
            events: EventSink::new(vec![Box::new(Arc::clone(&events))]),
            metrics: Arc::new(metrics),
            memory,
            door,
            floors,
            addresses: Vec::new(),
            workers: vec![worker],
            from_workers,
            calls,
        };
        let ended = tokio::task::spawn_local(run(setup));
        let gate = crate::fence::gate::Gate::new(crate::fence::gate::Policy {
            audit: false,
            bare_stamps: true,
            quarantine: Duration::from_secs(1),
            by_time: true,
            mechanisms: Mechanisms::all(),
        });
        Process { handle, events, to_control: Some(to_control), from_control, standing: None, ended, gate }
    }

    /// Plays the worker until `until` holds.
    async fn play(&mut self, what: &str, until: impl Fn(&Process) -> bool) {
        let playing = async {
            while !until(self) {
                match self.from_control.recv().await {
                    Some(message) => self.play_one(message),
                    None => tokio::task::yield_now().await,
                }
            }
        };
        if tokio::time::timeout(PATIENCE, playing).await.is_err() {
            panic!("not within {PATIENCE:?}: {what}; events: {:#?}", self.events.all());
        }
    }

    fn play_one(&mut self, message: ToWorker) {
        let (worker, gate) = (WorkerId(0), GateId(0));
        let say = |message| {
            if let Some(to_control) = &self.to_control {
                to_control.send(message).expect("control runs");
            }
        };
        match message {
            ToWorker::Order(_, order) => {
                let fences = matches!(order, Order::Fence(_));
                self.gate.follow(order);
                if let Some(epoch) = self.gate.floor().filter(|_| fences) {
                    say(ToControl::Fenced(worker, gate, epoch));
                    if self.gate.has_drained() {
                        say(ToControl::Drained(worker, gate, epoch));
                    }
                }
            }
            ToWorker::Standing(standing) => self.standing = Some(standing),
            ToWorker::Report(reply) => {
                let _ = reply.send(Account::default());
            }
            ToWorker::Ping(number) => say(ToControl::Pong(worker, number)),
            ToWorker::Stop | ToWorker::Abort => {
                say(ToControl::Stopped { worker, unclean: Vec::new() });
                self.to_control = None;
            }
            _ => {}
        }
    }

    fn armed(&self) -> Option<Epoch> {
        let tenure = self.standing.as_ref()?.tenure(&orders())?;
        (tenure.armed != Armed::No).then_some(tenure.term.epoch)
    }
}

/// Plays the workers of several processes until one of them holds.
async fn play_all(processes: &mut [&mut Process], what: &str, until: impl Fn(&[&mut Process]) -> bool) {
    let begun = std::time::Instant::now();
    while !until(processes) {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        for process in processes.iter_mut() {
            while let Ok(message) = process.from_control.try_recv() {
                process.play_one(message);
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn on_a_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(tokio::task::LocalSet::new().run_until(test));
}

#[test]
fn a_writer_is_elected_its_door_opens_and_it_is_armed() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Process::start(config("a", folder.path(), vec![guard(), stamp()]));
        process.play("armed", |process| process.armed() == Some(Epoch::FIRST)).await;
        assert!(process.gate.is_open());
        process.handle.stop();
        process.play("stopped", |process| process.ended.is_finished()).await;
        assert_eq!(process.ended.await.expect("no panic"), Ended::Stopped);
    });
}

#[test]
fn after_an_orderly_stop_the_next_leads_at_once_and_above() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut door = Process::start(config("g", folder.path(), vec![guard()]));
        let mut a = Process::start(config("a", folder.path(), vec![stamp()]));
        play_all(&mut [&mut door, &mut a], "a is armed", |all| all[1].armed().is_some()).await;
        let mut b = Process::start(config("b", folder.path(), vec![stamp()]));
        a.handle.stop();
        play_all(&mut [&mut door, &mut a, &mut b], "b is armed", |all| all[2].armed().is_some()).await;
        assert_eq!(b.armed().map(Epoch::number), Some(2));
        assert_eq!(door.gate.floor().map(Epoch::number), Some(2));
    });
}

#[test]
fn a_second_sole_door_stays_shut_and_names_the_first_until_that_is_forgotten_and_waited_out() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = Process::start(config("g1", folder.path(), vec![guard()]));
        let mut a = Process::start(config("a", folder.path(), vec![stamp()]));
        play_all(&mut [&mut first, &mut a], "a is armed", |all| all[1].armed().is_some()).await;
        first.ended.abort();
        let mut second = Process::start(config("g2", folder.path(), vec![guard()]));
        let blocked = |process: &Process| process.gate.blocked_by().is_some_and(|by| by.starts_with("g1-"));
        play_all(&mut [&mut second, &mut a], "the second is blocked", |all| blocked(all[0])).await;
        let id = Arc::clone(second.gate.blocked_by().expect("it is blocked"));
        let command = crate::admin::Command::ForgetDoor { target: "orders".into(), id };
        crate::admin::Control::command(&second.handle, command).await.expect("it is recorded");
        play_all(&mut [&mut second, &mut a], "the second opens", |all| all[0].gate.is_open()).await;
        assert_eq!(second.gate.floor(), Some(Epoch::FIRST));
    });
}
