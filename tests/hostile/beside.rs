//! A guard under attack, with a good client beside the attacker: how long that one waits, and how much memory it takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::support::client::{self, Connection};
use super::support::memory::{memory, most_memory};
use super::support::process::{LONG, eventually};
use super::support::world::{Sidecar, World};

const MEBIBYTE: usize = 1024 * 1024;
/// So much more memory than before may be in use at any time.
const ALLOWED: usize = 64 * MEBIBYTE;
/// So many writes of the good client are looked at before and after.
const CALM: usize = 200;

/// What is attacked.
pub struct Attacked<'a> {
    pub guard: SocketAddr,
    pub admin: SocketAddr,
    /// The stamp of the epoch that is open.
    pub stamp: &'a str,
}

impl Attacked<'_> {
    /// How many connections were cut for this reason.
    pub fn cuts(&self, reason: &str) -> u64 {
        let text = client::get(self.admin, "/metrics").unwrap().text();
        let series = format!("epochgate_connections_cut_total{{listener=\"guard\",reason=\"{reason}\"}}");
        text.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok()).expect("every reason is a series")
    }

    /// Waits until so many connections were cut for this reason.
    #[track_caller]
    pub fn await_cuts(&self, reason: &str, count: u64) {
        eventually(&format!("{count} cut for {reason}"), LONG, || self.cuts(reason) >= count);
    }
}

/// Attacks a guard while somebody writes in order; then the next epoch opens, and nothing of the old one comes after it.
/// `limits` are the listener's.
pub fn beside_a_good_client(what: &str, limits: &str, attack: impl FnOnce(&Attacked<'_>) + Send) {
    let mut world = World::embedded();
    let mut guard = world.guard("guard").hasty().listener(&format!("limits: {{ {limits} }}")).start();
    let (one, stamp) = world.elect("orders-a");
    guard.await_open(&one);
    // More than the kernel takes for a client that does not read.
    let large = "x".repeat(16 * MEBIBYTE);
    let stored = client::request(guard.address, "PUT", "/large", &[("Fencing-Epoch", &stamp)], large.as_bytes());
    assert_eq!(stored.unwrap().status, 200);
    let good = Good::default();
    let attacked = Attacked { guard: guard.address, admin: guard.admin, stamp: &stamp };
    let id = guard.process().id();
    thread::scope(|scope| {
        // Also where the attack fails: the good client would be waited for for ever.
        let _over = OnDrop(&good.over);
        let writing = scope.spawn(|| good.write(guard_of(&attacked), &stamp));
        good.await_writes(CALM);
        let before = memory(id);
        let calm = good.mark();
        attack(&attacked);
        let under = good.mark();
        let most = most_memory(id);
        good.await_writes(under + CALM);
        let end = good.mark();
        good.over.store(true, Ordering::Relaxed);
        let times = writing.join().expect("the good client is served");
        let p99 = [&times[..calm], &times[calm..under.max(calm + 1)], &times[under..end]].map(p99);
        let memory = [before, most, memory(id)].map(|bytes| format!("{:.1}", bytes as f64 / MEBIBYTE as f64));
        println!(
            "| {what} | {} | {:.2?} / {:.2?} / {:.2?} | {} good writes meanwhile |",
            memory.join(" / "),
            p99[0],
            p99[1],
            p99[2],
            under - calm
        );
        let more = most.saturating_sub(before);
        assert!(more < ALLOWED, "{what}: {} MiB more than before", more / MEBIBYTE);
    });
    then_the_next_epoch_opens(&mut world, &guard, &stamp);
}

fn guard_of(attacked: &Attacked<'_>) -> SocketAddr {
    attacked.guard
}

/// Whatever became of the attack: the next epoch opens, held back by lost writes for their quarantine at most.
fn then_the_next_epoch_opens(world: &mut World, guard: &Sidecar, old: &str) {
    let (_, next) = world.elect("orders-b");
    let opened = client::request(guard.address, "PUT", "/next", &[("Fencing-Epoch", &next)], b"x").unwrap();
    assert_eq!(opened.status, 200);
    assert_eq!(guard.put("/late", old).refused(), Some("stale_epoch"));
    world.upstream.assert_epochs_never_decrease();
}

/// Says that it is over when it is dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody who writes in order on one connection, one write after the other.
#[derive(Default)]
struct Good {
    written: AtomicUsize,
    over: AtomicBool,
}

impl Good {
    fn write(&self, to: SocketAddr, stamp: &str) -> Vec<Duration> {
        let mut connection = Connection::open(to).unwrap();
        let mut times = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let answer = connection.request("PUT", "/good", &[("Fencing-Epoch", stamp)], b"good").unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            times.push(began.elapsed());
            self.written.store(times.len(), Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
        }
        times
    }

    fn mark(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    fn await_writes(&self, count: usize) {
        eventually("the good client is served", LONG, || self.mark() >= count);
    }
}

fn p99(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
