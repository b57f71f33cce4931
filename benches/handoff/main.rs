//! How long a handoff takes, beside what its two slowest parts take alone.
//!
//! `make bench-handoff` runs it: etcd, a guard and two stamping sidecars as real processes on this host, the floor file
//! and etcd's data on the disk that the build is on, and a client that tries to write through whoever is to lead. It
//! prints; nothing is asserted but that it works.
//!
//! - A handoff: from the event `elected` in the winner's history, which is written when etcd's answer came, to the
//!   client's first 2xx through the winner. Nothing is in flight.
//! - The bare loop: one etcd transaction of an election's size and one `pwrite` with `fdatasync`, in the same run,
//!   against the same etcd, on the same disk, between the handoffs.
//! - 1,000 resources of one writer at once: at its start, and when another takes them over.
//! - A PostgreSQL, with a transaction or a statement of the old leader under way (`ONLY=postgres`).

#[path = "../../tests/support/mod.rs"]
mod support;

mod postgres;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use serde_json::Value;
use support::client;
use support::etcd;
use support::process::{LONG, eventually};
use support::scene::{Node, Scene};
use support::upstream::Upstream;

const HANDOFFS: usize = 200;
const RESOURCES: usize = 1000;
/// Between two attempts of the client. One that comes after the election is held until the winner is armed, so that
/// this adds nothing to what is measured as long as arming takes longer.
const TRY_AGAIN: Duration = Duration::from_millis(1);

fn main() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let only = variable("EPOCHGATE_BENCH_ONLY");
    let runs = variable("EPOCHGATE_BENCH_RUNS").map(|runs| runs.parse().expect("EPOCHGATE_BENCH_RUNS is a number"));
    let has = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if has("http") {
        let folder = on_a_disk();
        let data = folder.path().join("etcd").display().to_string();
        let options = etcd::Options { flags: vec!["--data-dir".into(), data], ..etcd::Options::default() };
        let scene = Scene::etcd_in(folder, &options);
        handoffs(&scene);
        many_resources(&scene);
    }
    if has("postgres") {
        postgres::run(on_a_disk(), runs);
    }
}

/// A folder for what is synced.
fn on_a_disk() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build's own folder can be written");
    let kind = rustix::fs::statfs(folder.path()).expect("it was just made").f_type;
    assert_ne!(kind, 0x0102_1994, "{} is in memory: build on a disk", folder.path().display());
    folder
}

fn handoffs(scene: &Scene) {
    let upstream = Upstream::start();
    let guard = scene.guard(&upstream.url(), "");
    let a = scene.leader("orders-a", &guard, "");
    let b = scene.node("orders-b").stamp(&guard.url(), "").start();
    eventually("the second is a candidate", LONG, || a.post("/api/v1/step-down?resource=orders").status == 200);
    b.await_armed("orders");

    let mut bare = Bare::new(scene, guard.folder());
    let (mut succeeded, mut bares) = (Vec::new(), Vec::new());
    for round in 0..HANDOFFS {
        let (old, new) = if round % 2 == 0 { (&b, &a) } else { (&a, &b) };
        // Its next candidacy is recorded, and everybody has come to rest.
        eventually("the other is a candidate", LONG, || {
            old.resource("orders")["state"] == "armed" && new.resource("orders")["state"] == "armed"
        });
        thread::sleep(Duration::from_millis(20));
        let over = AtomicBool::new(false);
        let first = thread::scope(|scope| {
            let client = scope.spawn(|| first_success(new.address(), &over));
            eventually("the leader steps down", LONG, || old.post("/api/v1/step-down?resource=orders").status == 200);
            client.join().expect("the client panics only with the test")
        });
        over.store(true, Ordering::Relaxed);
        succeeded.push((new.id.clone(), first));
        new.await_armed("orders");
        bares.push(bare.turn());
    }
    upstream.assert_epochs_never_decrease();
    // What the histories still hold in memory is written when the processes end.
    let (mut guard, mut a, mut b) = (guard, a, b);
    for node in [&mut a, &mut b, &mut guard] {
        node.stop();
    }
    report_handoffs(&succeeded, bares, &guard, &[&a, &b]);
}

/// Tries until it may write; when that was, on the boot-time clock.
fn first_success(to: SocketAddr, over: &AtomicBool) -> u64 {
    while !over.load(Ordering::Relaxed) {
        if client::put(to, "/orders/1", "1").is_ok_and(|answer| answer.status == 200) {
            return boot_time();
        }
        thread::sleep(TRY_AGAIN);
    }
    0
}

fn report_handoffs(succeeded: &[(String, u64)], mut bares: Vec<[f64; 2]>, guard: &Node, writers: &[&Node; 2]) {
    let (whole, spans) = spans(succeeded, guard, writers);
    let (loops, syncs): (Vec<f64>, Vec<f64>) = bares.drain(..).map(|[txn, sync]| (txn + sync, sync)).unzip();
    println!("{HANDOFFS} idle handoffs, milliseconds:      median      p99");
    print_row("from elected to the client's first 2xx", &whole);
    for (name, spans) in &spans {
        print_row(&format!("  {name}"), spans);
    }
    print_row("bare: one etcd transaction and one sync", &loops);
    print_row("  of which the sync", &syncs);
    let (handoff, bare) = (percentile(&whole, 50), percentile(&loops, 50));
    println!("median: {:.1} times the bare loop (aim: under 5, and under 20 ms)", handoff / bare);
}

/// From the election to the first write that succeeded, for each of those (who won, and when it was), and the steps of it.
fn spans(
    succeeded: &[(String, u64)],
    guard: &Node,
    writers: &[&Node; 2],
) -> (Vec<f64>, BTreeMap<&'static str, Vec<f64>>) {
    let (doors, histories) = (guard.history(), writers.map(Node::history));
    let mut spans: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut whole = Vec::new();
    for (winner, first) in succeeded {
        let writer = writers.iter().position(|node| node.id == *winner).expect("one of the two won");
        let own = |name: &str| {
            let mut events = histories[writer].iter().filter(|event| event["event"] == name && at(event) <= *first);
            events.rfind(|event| event["own"] != false).cloned()
        };
        let elected = own("elected").expect("it was elected before it wrote");
        whole.push(millis(*first - at(&elected)));
        // The steps at the door, in their order, each from the one before.
        let door = |name: &str, drained: Option<bool>| {
            let is_it = |event: &&Value| {
                event["event"] == name
                    && event["epoch"] == elected["epoch"]
                    && drained.is_none_or(|drained| event["drained"] == drained)
            };
            doors.iter().find(is_it).map(at)
        };
        let steps = [
            ("1 elected, until the guard has verified it", door("verified", None)),
            ("2 until the floor is on disk", door("persisted", Some(false))),
            ("3 until every worker has fenced", door("fenced", None)),
            ("4 until it has drained", door("drained", None)),
            ("5 until the mark is on disk", door("persisted", Some(true))),
            ("6 until the gate is open", door("opened", None)),
            ("7 until the winner is armed", own("armed").as_ref().map(at)),
            ("8 until the client has its answer", Some(*first)),
        ];
        let mut last = at(&elected);
        for (name, step) in steps {
            let Some(step) = step else { continue };
            spans.entry(name).or_default().push(millis(step.saturating_sub(last)));
            last = step.max(last);
        }
    }
    (whole, spans)
}

/// The two slowest parts of a handoff, and nothing else.
struct Bare<'a> {
    scene: &'a Scene,
    client: Client,
    file: File,
    turns: u64,
}

impl Bare<'_> {
    fn new<'a>(scene: &'a Scene, folder: &std::path::Path) -> Bare<'a> {
        let client = scene.runtime().block_on(Client::connect([scene.etcd_url()], None)).expect("etcd serves");
        let file = File::create(folder.join("bare")).expect("the folder can be written");
        file.write_all_at(&[0; 8192], 0).and_then(|()| file.sync_all()).expect("the disk takes it");
        Bare { scene, client, file, turns: 0 }
    }

    /// How long the transaction and the sync took, in milliseconds.
    fn turn(&mut self) -> [f64; 2] {
        self.turns += 1;
        let value = vec![b'x'; 150];
        let free = Compare::version("bare/leader", CompareOp::Greater, -1);
        let changes = vec![TxnOp::put("bare/epoch", value.clone(), None), TxnOp::put("bare/leader", value, None)];
        let txn = Txn::new().when([free]).and_then(changes);
        let began = Instant::now();
        let done = self.scene.runtime().block_on(self.client.txn(txn)).expect("etcd serves");
        let txn = began.elapsed();
        assert!(done.succeeded());
        let began = Instant::now();
        let slot = (self.turns % 2) * 4096;
        self.file.write_all_at(&[7; 4096], slot).and_then(|()| self.file.sync_data()).expect("the disk takes it");
        [txn, began.elapsed()].map(|took| took.as_secs_f64() * 1000.0)
    }
}

fn many_resources(scene: &Scene) {
    let upstream = Upstream::start();
    let resources = format!("\"many/{{0..{}}}\": {{}}", RESOURCES - 1);
    let rules = "target: many\nrules: [{ path: \"/many/{shard}/**\", resource: \"many/{shard}\" }]";
    let guard = scene.node("many-guard").resources(&resources).guard(&upstream.url(), rules).start();
    let writer = |id: &str| {
        let rules = rules.trim_start_matches("target: many\n");
        scene.node(id).resources(&resources).stamp(&guard.url(), rules).start()
    };
    let mut a = writer("many-a");
    await_all_armed(&a);
    let b = writer("many-b");
    eventually("the second knows them all", LONG, || is_everywhere(&b, "armed"));
    // Its candidacies are recorded in a few commits.
    thread::sleep(Duration::from_secs(2));
    let told = boot_time();
    a.stop();
    await_all_armed(&b);
    let (mut guard, mut b) = (guard, b);
    for node in [&mut b, &mut guard] {
        node.stop();
    }
    for (what, node, since) in [("its start", &a, None), ("the other's SIGTERM", &b, Some(told))] {
        let history = node.history();
        let times = |name: &'static str| {
            let events = history.iter().filter(move |event| event["event"] == name && event["own"] != false);
            events.map(at).collect::<Vec<_>>()
        };
        let (elected, armed) = (times("elected"), times("armed"));
        assert_eq!((elected.len(), armed.len()), (RESOURCES, RESOURCES), "each once");
        let began = since.or(elected.iter().min().copied()).unwrap_or_default();
        let last = |times: &[u64]| millis(times.iter().max().copied().unwrap_or_default() - began);
        println!(
            "{RESOURCES} resources at {what}: the last elected after {:.0} ms, the last open and armed after {:.0} ms",
            last(&elected),
            last(&armed)
        );
    }
}

fn await_all_armed(node: &Node) {
    eventually("all are armed", LONG * 3, || {
        thread::sleep(Duration::from_millis(250));
        let status = node.status();
        let resources = status["resources"].as_array().expect("a list");
        resources.iter().all(|it| it["state"] == "armed" && it["standing"]["leads"] == true)
    });
}

fn is_everywhere(node: &Node, state: &str) -> bool {
    thread::sleep(Duration::from_millis(250));
    node.status()["resources"].as_array().expect("a list").iter().all(|it| it["state"] == state)
}

fn boot_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("it counts from the boot")
}

fn at(event: &Value) -> u64 {
    event["at"].as_u64().expect("every event has its time")
}

fn millis(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1000.0
}

fn percentile(spans: &[f64], percent: usize) -> f64 {
    let mut sorted = spans.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn print_row(name: &str, spans: &[f64]) {
    println!("{name:<45} {:>8.2} {:>8.2}", percentile(spans, 50), percentile(spans, 99));
}
