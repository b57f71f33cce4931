//! Control over the embedded coordinator, with workers that are played by the tests.

mod auditing;
mod late;
mod leaving;
mod older;
mod proofs;
mod told;

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
use crate::mailbox::GateName;
use crate::rules::Rules;
use crate::state_dir::FloorWriter;
use crate::state_dir::StateDir;

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn orders() -> Resource {
    "orders".parse().expect("a resource")
}

fn listener(name: &str, role: Role) -> Arc<Listener> {
    let second = Duration::from_secs(1);
    Arc::new(Listener {
        name: name.into(),
        role,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        protocol: crate::config::resolved::Protocol::Http,
        proxy_protocol: None,
        stale: crate::config::resolved::Stale::Refuse,
        socket_mode: 0o660,
        tls: None,
        identities: None,
        upstream: Upstream {
            url: "http://127.0.0.1:9".into(),
            authority: "127.0.0.1:9".into(),
            socket: None,
            tls: None,
            control: None,
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
            connections_per_peer: None,
            streams: 10,
            headers: 10,
            header_bytes: 65_536,
            header_timeout: second,
            body_idle_timeout: second,
            answer_idle_timeout: second,
            idle_timeout: second,
        },
        signatures: None,
    })
}

pub(super) fn config(id: &str, folder: &Path, listeners: Vec<Arc<Listener>>) -> Config {
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
        lapsed: crate::config::resolved::Lapsed::Wait,
        step_down: StepDown { timeout: Duration::from_secs(1), pause: Duration::from_secs(1) },
        shutdown_grace: Duration::from_secs(5),
        admin: Admin { listen: None, socket: None },
        audit: Audit { output: AuditOutput::Stdout, queue: 10 },
        history: None,
        log: Log { format: LogFormat::Text, level: tracing::Level::INFO },
        workers: 1,
    }
}

pub(super) fn guard() -> Arc<Listener> {
    listener(
        "orders-guard",
        Role::Guard(GuardSettings {
            mode: Mode::Enforce,
            target: "orders".into(),
            shared: false,
            on_coordinator_loss: GuardLoss::Keep,
            fence_reads: false,
            bare_stamps: true,
            forward_stamp: true,
        }),
    )
}

pub(super) fn stamp() -> Arc<Listener> {
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
    /// Whether something is in the worker's ledger when it stops.
    unclean: bool,
}

impl Process {
    fn start(config: Config) -> Process {
        Process::start_over(config, |store| store)
    }

    /// Over the embedded coordinator as `seen` shows it.
    fn start_over(config: Config, seen: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Process {
        let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
        let CoordinatorKind::Embedded(path) = &config.coordinator.kind else { panic!("embedded only") };
        let store = seen(Embedded::open(path, clock.clone(), entropy.clone()).expect("a folder of the test's own"));
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
        let (handle, calls) = Handle::new(store.clone(), Arc::new(HostClock), Arc::new(|_| {}));
        let (to_control, from_workers) = mpsc::unbounded_channel();
        let (worker, from_control) = mpsc::unbounded_channel();
        let events = Arc::new(Recorder::default());
        let metrics = crate::metrics::Metrics::new(prometheus::Registry::new(), &config).expect("a new registry");
        let setup = Setup {
            provers: Vec::new(),
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
        Process {
            handle,
            events,
            to_control: Some(to_control),
            from_control,
            standing: None,
            ended,
            gate,
            unclean: false,
        }
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
                say(ToControl::Stopped { worker, unclean: Vec::from_iter(self.unclean.then_some(gate)) });
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

fn closing_guard() -> Arc<Listener> {
    let mut listener = Arc::unwrap_or_clone(guard());
    let Role::Guard(settings) = &mut listener.role else { panic!("it is one") };
    settings.on_coordinator_loss = GuardLoss::Close;
    Arc::new(listener)
}

/// The embedded coordinator of these processes, for the test itself.
fn store(folder: &Path) -> Arc<dyn Store> {
    let path = folder.join("epochs.db");
    Embedded::open(&path, Arc::new(HostClock), Arc::new(HostEntropy)).expect("the processes' own")
}

/// What is in a state directory whose process is over.
async fn remembered(config: &Config) -> crate::fence::floor::Memory {
    for _ in 0..PATIENCE.as_millis() {
        let disk = Arc::new(HostDisk);
        match StateDir::open(&config.state_dir, &config.id, disk, &HostEntropy, false) {
            Ok((_, memory, _)) => return memory,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    panic!("the state directory stays locked");
}

/// Since its alive key went, another door may have waited it out, opened a later epoch, and left again.
#[test]
fn a_door_that_closes_without_a_session_joins_again_before_it_opens_with_a_new_one() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Process::start(config("a", folder.path(), vec![stamp()]));
        let mut door = Process::start(config("g", folder.path(), vec![closing_guard()]));
        play_all(&mut [&mut door, &mut writer], "open", |all| all[0].gate.is_open()).await;
        let store = store(folder.path());
        let doors = store.read(vec![crate::coordinator::store::Range::all(Keys::Under("doors/".into()))]).await;
        let doors = doors.expect("it can be read").ranges.remove(0);
        let lease = doors.iter().find_map(|entry| entry.lease).expect("the alive key goes with a lease");
        store.revoke(lease).await.expect("it can be revoked");
        play_all(&mut [&mut door, &mut writer], "shut", |all| !all[0].gate.is_open()).await;
        play_all(&mut [&mut door, &mut writer], "open again", |all| all[0].gate.is_open()).await;
        assert_eq!(door.gate.floor(), Some(Epoch::FIRST), "it was shut for no other term");
    });
}

#[test]
fn a_door_that_was_replaced_remembers_that_its_record_does_not_stand() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let old = config("g1", folder.path(), vec![guard()]);
        let mut first = Process::start(old.clone());
        let mut a = Process::start(config("a", folder.path(), vec![stamp()]));
        play_all(&mut [&mut first, &mut a], "a is armed", |all| all[1].armed().is_some()).await;
        first.ended.abort();
        let memory = remembered(&old).await;
        assert!(memory.left.is_empty(), "nobody has taken its place");
        let (store, id) = (store(folder.path()), memory_door(&old));
        let name = crate::coordinator::keys::DoorName { target: "orders".into(), id };
        let recorded = || async {
            let key = crate::coordinator::keys::door(&name.target, &name.id);
            let range = crate::coordinator::store::Range::all(Keys::One(key));
            let read = store.read(vec![range]).await.expect("it answers");
            read.ranges[0].first().map(|entry| entry.modified)
        };
        let at = recorded().await.expect("it is recorded");
        let earlier = crate::coordinator::store::Revision(at.0 - 1);
        crate::coordinator::doors::leave(store.as_ref(), &name, earlier).await.expect("it answers");
        assert_eq!(recorded().await, Some(at), "a leave of an earlier life, carried out late, takes nothing back");
        crate::coordinator::doors::leave(store.as_ref(), &name, at).await.expect("it answers");
        let mut second = Process::start(config("g2", folder.path(), vec![guard()]));
        play_all(&mut [&mut second, &mut a], "the second opens", |all| all[0].gate.is_open()).await;
        let mut first = Process::start(old.clone());
        let blocked = |process: &Process| process.gate.blocked_by().is_some();
        play_all(&mut [&mut first, &mut second, &mut a], "it is blocked", |all| blocked(all[0])).await;
        first.ended.abort();
        assert!(remembered(&old).await.left.contains("orders"), "the next start would open before it has joined");
    });
}

fn memory_door(config: &Config) -> String {
    std::fs::read_to_string(config.state_dir.join("door")).expect("its id").trim().to_owned()
}

#[test]
fn a_start_trusts_its_record_by_target_and_no_drain_of_a_door_that_only_counted() {
    use crate::fence::floor::{Floor, Memory, Remembered};
    use crate::fence::handoff::{Claim, Effect, Event, Persist};
    let term = Term {
        epoch: Epoch::FIRST,
        nonce: crate::fence::Nonce::from_bytes([1; 8]),
        writer: "a".parse().expect("an id"),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let config = config("g", folder.path(), vec![guard()]);
    let names = [GateName { target: "orders".into(), resource: orders(), listener: "orders-guard".into() }];
    let start = |left: &str, audit: bool, clean: bool| {
        let mut memory = Memory::default();
        let floor = Floor { drained: true, ..Floor::of(&term) };
        memory.put(&"orders".into(), &orders(), Remembered { floor: Some(floor), clean, audit });
        memory.left.insert(left.into());
        let gates = gates::Gates::start(&config, &names, &memory, 1, Mechanisms::all(), Moment::default());
        gates.get(GateId(0)).handoff.clone()
    };
    assert_eq!(*start("another", false, false).claim(), Claim::Standing);
    assert_eq!(*start("orders", false, false).claim(), Claim::Joining);
    for (audit, clean, drained) in [(false, false, true), (true, true, true), (true, false, false)] {
        let effects = start("another", audit, clean).on(Event::Tick, Moment::default());
        let persist = Persist { term: term.clone(), drained, forced: false };
        assert!(effects.contains(&Effect::Persist(persist)), "{audit} {clean}: {effects:?}");
    }
}

/// A commit that had no answer may be carried out after one that was sent later.
#[test]
fn an_old_report_that_comes_back_is_put_right() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Process::start(config("a", folder.path(), vec![guard(), stamp()]));
        process.play("armed", |process| process.armed() == Some(Epoch::FIRST)).await;
        let store = store(folder.path());
        let reports = || async {
            let range = crate::coordinator::store::Range::all(Keys::Under("reports/".to_owned()));
            store.read(vec![range]).await.expect("it answers").ranges.remove(0)
        };
        let told = reports().await.remove(0);
        let mut old: crate::coordinator::records::Report =
            crate::coordinator::records::from_value(&told.value).expect("a report");
        old.drained = None;
        let (key, value) = (told.key.clone(), crate::coordinator::records::to_value(&old));
        let put = crate::coordinator::store::Change::Put { key, value, lease: None };
        let txn = crate::coordinator::store::Txn { compares: Vec::new(), changes: vec![put] };
        store.commit(txn).await.expect("it answers");
        let begun = std::time::Instant::now();
        while reports().await[0].value != told.value {
            assert!(begun.elapsed() < PATIENCE, "the old report stays");
            while let Ok(message) = process.from_control.try_recv() {
                process.play_one(message);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.ended.abort();
    });
}
