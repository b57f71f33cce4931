//! etcd is away: it stands still (SIGSTOP), or is killed and started again with its data.
//!
//! The epoch is the authority and the lease only a failure detector (DESIGN 3.6): where both sides say `keep`, writes
//! go on all the while; by default a writer stops at its deadline, and never stamps a write after it.
//!
//! Outages last a few lease times. `EPOCHGATE_TEST_OUTAGE=60s` makes those under `keep` last that long, and then the
//! promised rate is asserted as well: a machine that runs all tests at once need not reach it.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::{Answer, Connection};
use support::etcd::Etcd;
use support::process::{LONG, eventually, eventually_some};
use support::sidecar::{Setup, Sidecar, TTL, assert_refused, etcd, guard, stamp, wait_for};
use support::upstream::Upstream;

const CONNECTIONS: usize = 8;
/// Each connection begins a write so often: together 320 a second, where the machine can.
const PACE: Duration = Duration::from_millis(25);
/// What is promised.
const RATE: f64 = 200.0;

/// How etcd goes away, and comes back.
#[derive(Clone, Copy)]
enum Away {
    StandsStill,
    Dies,
}

impl Away {
    fn leave(self, etcd: &mut Etcd) {
        match self {
            Away::StandsStill => etcd.pause(),
            Away::Dies => etcd.kill(),
        }
    }

    fn come_back(self, etcd: &mut Etcd) {
        match self {
            Away::StandsStill => etcd.resume(),
            Away::Dies => wait_for(etcd.restart()),
        }
    }
}

/// etcd, a target that remembers, a guard and two writers.
struct World {
    writers: [Sidecar; 2],
    guard: Sidecar,
    upstream: Upstream,
    etcd: Etcd,
}

impl World {
    fn start(change: impl Fn(Setup) -> Setup) -> World {
        let (etcd, upstream) = (etcd(), Upstream::start());
        let guard = guard("guard", etcd.url(), &upstream.url()).start();
        let a = change(stamp("orders-a", etcd.url(), guard.address)).start();
        a.await_leadership();
        let b = change(stamp("orders-b", etcd.url(), guard.address)).start();
        World { writers: [a, b], guard, upstream, etcd }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.writers[0].address, self.writers[1].address]
    }

    /// Waits until one of the writers leads and is armed.
    fn await_leader(&self) -> &Sidecar {
        eventually_some("somebody leads", LONG, || self.writers.iter().find(|writer| writer.leads()))
    }
}

/// One write, from its first byte to its answer.
struct Attempt {
    ended: Instant,
    took: Duration,
    result: Result<Answer, String>,
}

impl Attempt {
    fn succeeded(&self) -> bool {
        self.result.as_ref().is_ok_and(|answer| answer.status == 200)
    }

    fn reason(&self) -> String {
        match &self.result {
            Ok(answer) => format!("{} {}", answer.status, answer.refused().unwrap_or_default()),
            Err(error) => error.clone(),
        }
    }
}

/// Clients that write all the time: each to one writer, and to the other one once it is refused.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Attempt>>>,
    /// How many writes of each client have succeeded.
    succeeded: Arc<[AtomicUsize; CONNECTIONS]>,
}

impl Load {
    fn start(writers: [SocketAddr; 2]) -> Load {
        let (stop, succeeded) = (Arc::new(AtomicBool::new(false)), Arc::new(Default::default()));
        let client = |number| {
            let (stop, succeeded) = (Arc::clone(&stop), Arc::clone(&succeeded));
            thread::spawn(move || write_until_told(&stop, number, writers, &succeeded))
        };
        let clients = (0..CONNECTIONS).map(client).collect();
        Load { stop, clients, succeeded }
    }

    /// Waits until every client has had so many more writes answered.
    fn await_more(&self, more: usize) {
        let goals: Vec<usize> = self.succeeded.iter().map(|count| count.load(Ordering::Relaxed) + more).collect();
        eventually("every client's writes succeed", LONG, || {
            self.succeeded.iter().zip(&goals).all(|(count, goal)| count.load(Ordering::Relaxed) >= *goal)
        });
    }

    fn finish(self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Relaxed);
        let attempts = self.clients.into_iter().flat_map(|client| client.join().expect("a client does not panic"));
        attempts.collect()
    }
}

fn write_until_told(
    stop: &AtomicBool,
    number: usize,
    writers: [SocketAddr; 2],
    succeeded: &[AtomicUsize; CONNECTIONS],
) -> Vec<Attempt> {
    let path = format!("/orders/{number}");
    let (mut attempts, mut at, mut connection) = (Vec::new(), 0, None::<Connection>);
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = Instant::now().max(next) + PACE;
        let began = Instant::now();
        let mut open = match connection.take().map_or_else(|| Connection::open(writers[at]), Ok) {
            Ok(open) => open,
            Err(error) => panic!("nobody listens at {}: {error}", writers[at]),
        };
        let body = attempts.len().to_string();
        let result = open.request("PUT", &path, &[], body.as_bytes()).map_err(|error| error.to_string());
        let attempt = Attempt { ended: Instant::now(), took: began.elapsed(), result };
        if attempt.succeeded() {
            succeeded[number].fetch_add(1, Ordering::Relaxed);
            connection = Some(open);
        } else {
            at = 1 - at;
        }
        attempts.push(attempt);
    }
    attempts
}

/// How long an outage under `keep` lasts, and whether somebody asked for it.
fn outage() -> (Duration, bool) {
    match std::env::var("EPOCHGATE_TEST_OUTAGE") {
        Ok(text) => {
            let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
            let seconds = seconds.unwrap_or_else(|| panic!("EPOCHGATE_TEST_OUTAGE is like 60s, not {text}"));
            (Duration::from_secs(seconds), true)
        }
        Err(_) => (TTL * 6, false),
    }
}

/// With `keep` on both sides no write fails while etcd is away; what follows is at worst a failover.
fn no_write_fails(away: Away) {
    let mut world = World::start(|stamp| stamp.listener("on_coordinator_loss: keep"));
    let (outage, asked_for) = outage();
    let load = Load::start(world.addresses());
    load.await_more(10);
    away.leave(&mut world.etcd);
    let left = Instant::now();
    thread::sleep(outage);
    eventually("the guard notices", LONG, || world.guard.metric("epochgate_coordinator_up") == 0.0);
    assert_eq!(world.guard.readiness().status, 200, "it admits the epoch that it has");
    let returns = Instant::now();
    away.come_back(&mut world.etcd);
    eventually("the guard notices", LONG, || world.guard.metric("epochgate_coordinator_up") == 1.0);
    let returned = Instant::now();
    // What a lapsed lease leads to takes at most a few of them.
    thread::sleep(TTL * 2);
    load.await_more(20);
    world.await_leader();
    let attempts = load.finish();

    let during: Vec<&Attempt> = attempts.iter().filter(|it| it.ended <= returns).collect();
    let failed: Vec<String> = during.iter().filter(|it| !it.succeeded()).map(|it| it.reason()).collect();
    assert!(failed.is_empty(), "failed while etcd was away: {failed:?}");
    let (rate, slowest) = rate(&during, left, returns);
    println!("etcd away for {outage:?}: {} writes, {rate:.0} a second, none failed, slowest {slowest:?}", during.len());
    assert!(!asked_for || rate >= RATE, "only {rate:.0} writes a second");

    let after: Vec<&Attempt> = attempts.iter().filter(|it| it.ended > returns).collect();
    let refused: Vec<&&Attempt> = after.iter().filter(|it| !it.succeeded()).collect();
    println!(
        "back after {:?}: {} writes, {} of them refused: {:?}",
        returned - returns,
        after.len(),
        refused.len(),
        counted(refused.iter().map(|it| it.reason()))
    );
    for attempt in refused {
        let answer = attempt.result.as_ref().unwrap_or_else(|error| panic!("a write without an answer: {error}"));
        assert_refused(answer, 421, &["not_leader", "term_changed"], "not_applied");
    }
    world.upstream.assert_epochs_never_decrease();
}

/// How many writes a second ended between the two, and the slowest of them.
fn rate(attempts: &[&Attempt], from: Instant, to: Instant) -> (f64, Duration) {
    let within = || attempts.iter().filter(|it| it.ended > from && it.ended <= to);
    let slowest = within().map(|it| it.took).max().unwrap_or_default();
    (within().count() as f64 / (to - from).as_secs_f64(), slowest)
}

fn counted(reasons: impl Iterator<Item = String>) -> std::collections::BTreeMap<String, usize> {
    reasons.fold(std::collections::BTreeMap::new(), |mut counts, reason| {
        *counts.entry(reason).or_default() += 1;
        counts
    })
}

#[test]
fn with_keep_on_both_sides_no_write_fails_while_etcd_stands_still() {
    no_write_fails(Away::StandsStill);
}

#[test]
fn with_keep_on_both_sides_no_write_fails_while_etcd_is_dead() {
    no_write_fails(Away::Dies);
}

/// By default nothing is stamped after the deadline; and nobody is stuck once etcd is back.
fn stops_at_its_deadline(away: Away) {
    let mut world = World::start(|stamp| stamp);
    let load = Load::start(world.addresses());
    load.await_more(10);
    let before = world.writers[0].history("stamped").len();
    away.leave(&mut world.etcd);
    eventually("the writer stops", LONG, || !world.writers[0].leads() || refused(&world.writers[0]));
    thread::sleep(TTL);
    for writer in &world.writers {
        assert_refused(&writer.put("/orders/late", "late"), 421, &["not_leader"], "not_applied");
    }
    assert!(world.upstream.stored("/orders/late").is_none());
    let gone = world.writers[0].history("stamped");
    away.come_back(&mut world.etcd);

    world.await_leader();
    load.await_more(20);
    load.finish();
    let stamped = || world.writers.iter().flat_map(|writer| writer.history("stamped")).collect::<Vec<_>>();
    eventually("every write that arrived is in the history", LONG, || stamped().len() >= arrived(&world.upstream));
    for event in stamped() {
        assert!(number(&event, "at") <= number(&event, "deadline"), "stamped after its deadline: {event}");
    }
    let last = gone.get(before..).and_then(<[Value]>::last).expect("it went on for as long as it might");
    let left = (number(last, "deadline") - number(last, "at")) / 1_000_000;
    println!("{} writes stamped; the last one of the silence {left} ms before its deadline", stamped().len());
    world.upstream.assert_epochs_never_decrease();
}

fn refused(writer: &Sidecar) -> bool {
    writer.put("/orders/probe", "probe").refused() == Some("not_leader")
}

fn number(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

fn arrived(upstream: &Upstream) -> usize {
    upstream.arrived().iter().filter(|arrived| arrived.header("fencing-epoch").is_some()).count()
}

#[test]
fn by_default_a_writer_stamps_nothing_after_its_deadline_when_etcd_stands_still() {
    stops_at_its_deadline(Away::StandsStill);
}

#[test]
fn by_default_a_writer_stamps_nothing_after_its_deadline_when_etcd_is_dead() {
    stops_at_its_deadline(Away::Dies);
}

/// A writer's sidecar was killed and is back before its old lease has lapsed; then something takes longer than two
/// leases last. Nobody else has this writer's id.
fn is_no_second_one_after(wait: impl FnOnce(&mut Etcd, &mut Sidecar, Duration)) {
    let mut etcd = etcd();
    let url = etcd.url().to_owned();
    let long = Duration::from_secs(5);
    let slow = format!("coordinator: {{ etcd: {{ endpoints: [\"{url}\"] }}, lease_ttl: {}s }}", long.as_secs());
    let upstream = Upstream::start();
    let guard = guard("guard", &url, &upstream.url()).start();
    let mut a = stamp("orders-a", &url, guard.address).top(&slow).start();
    a.await_leadership();
    a.kill();
    a.start();
    a.process().await_words("another process had this writer id", LONG);
    wait(&mut etcd, &mut a, long * 2 + Duration::from_secs(1));
    eventually("it leads again", LONG, || {
        assert!(a.process().is_running(), "it took itself for another process");
        a.leads()
    });
    assert_eq!(a.put("/orders/1", "again").status, 200);
}

/// An etcd that comes back gives every lease its whole time anew.
#[test]
fn a_writer_that_is_back_before_its_old_lease_lapsed_is_no_second_one_after_an_outage() {
    is_no_second_one_after(|etcd, _, long| {
        etcd.kill();
        thread::sleep(long);
        wait_for(etcd.restart());
    });
}

#[test]
fn a_writer_that_is_back_before_its_old_lease_lapsed_is_no_second_one_after_a_pause() {
    is_no_second_one_after(|_, a, long| {
        a.process().pause();
        thread::sleep(long);
        a.process().resume();
    });
}
