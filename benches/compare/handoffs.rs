//! Handoffs under load, with etcd: how long writes wait when leadership goes over, and what epochs cost a guard.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::pin;
use crate::running::find;
use crate::support::client;
use crate::support::etcd;
use crate::support::process::{LONG, eventually, eventually_some};
use crate::support::scene::{Node, Scene};
use crate::wire::Request;

/// Writes a second of the service, at even times, and from how many threads they can wait at once.
const RATE: f64 = 500.0;
const THREADS: usize = 64;
/// A hundred a minute.
const APART: Duration = Duration::from_millis(600);

/// Where writes wait: the setting of the stamp that says so.
const WAITS: [(&str, &str); 2] =
    [("stamp (`until_armed: hold`)", ""), ("guard (`until_armed: pass`)", "until_armed: pass")];

/// One guard, and two stamps of which one leads.
struct Play {
    guard: Node,
    stamps: [Node; 2],
    /// Which of them leads.
    leads: usize,
    /// Last: the others talk to its etcd.
    _scene: Scene,
}

impl Play {
    /// The guard alone on the first cores; everything else, etcd too, on the others.
    fn start(upstream: SocketAddr, cores: [&[usize]; 2], more: &str) -> Play {
        // On a disk: each epoch is synced, at etcd and at the guard.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build's own folder can be written");
        let data = folder.path().join("etcd").display().to_string();
        let options = etcd::Options { flags: vec!["--data-dir".into(), data], ..etcd::Options::default() };
        let [proxy, others] = cores;
        pin::on(others, || {
            let scene = Scene::etcd_in(folder, &options);
            let guard = scene.node("guard").more("workers: 1").unrecorded().guard(&format!("http://{upstream}"), "");
            let guard = pin::on(proxy, || guard.start());
            let stamp = |id: &str| scene.node(id).unrecorded().stamp(&guard.url(), more).start();
            let first = stamp("orders-a");
            first.await_armed("orders");
            let second = stamp("orders-b");
            let mut play = Play { guard, stamps: [first, second], leads: 0, _scene: scene };
            play.hand_over();
            play
        })
    }

    /// Has the leader step down, and waits until the other is armed.
    fn hand_over(&mut self) {
        let old = &self.stamps[self.leads];
        eventually("the leader steps down", LONG, || old.post("/api/v1/step-down?resource=orders").status == 200);
        self.leads = 1 - self.leads;
        let new = self.stamps[self.leads].admin;
        eventually_some("the other is armed", LONG, || leader(new));
    }
}

/// The stamp of a leader that is armed.
fn leader(admin: SocketAddr) -> Option<String> {
    let answer = client::get(admin, "/leader?resource=orders").ok().filter(|answer| answer.status == 200)?;
    answer.json()["stamp"].as_str().map(str::to_owned)
}

/// Runs both parts; the tables.
pub fn run(plan: &Plan, upstream: SocketAddr, cores: [&[usize]; 2], board: &mut Board) -> String {
    if find("etcd").is_none() {
        board.note("handoffs: etcd is not there".to_owned());
        return String::new();
    }
    let both = cores.concat();
    for (name, more) in WAITS {
        waits(plan, name, &mut Play::start(upstream, [&both, &both], more), board);
    }
    let mut play = Play::start(upstream, cores, "");
    for repetition in 1..=plan.repeat.min(3) {
        for (name, handing) in [(NONE, false), (HUNDRED, true)] {
            match epochs(plan, &mut play, handing) {
                Ok([cpu, refused]) => {
                    board.add("epochs cpu", name, cpu);
                    board.add("epochs refused", name, refused);
                    eprintln!("epochs {repetition}, {name}: {cpu:.1} µs of CPU a request, {refused:.2} ‰ refused");
                }
                Err(error) => board.note(format!("epochs, {name}: {error}")),
            }
        }
    }
    let column =
        |measure: &str, heading: &str, digits| Column { measure: measure.into(), heading: heading.into(), digits };
    let waited = [
        column("handoff wait", "the longest wait of a handoff, ms", 1),
        column("handoff p50", "median of all writes, ms", 2),
        column("handoff late", "slower than 5 ms, in a handoff", 0),
    ];
    let costs =
        [column("epochs cpu", "CPU of a PUT at the guard, µs", 1), column("epochs refused", "refused as stale, ‰", 2)];
    format!(
        "Handoffs with etcd, {RATE} writes a second at even times, from the intended time to the answer (n = {}; the \
         median of all writes: n = 1)\n\n{}\n\
         Epochs of the resource that is written to, 16 connections, 100 B (n = {})\n\n{}\n",
        plan.repeat * 4,
        board.rows("where they wait", &WAITS.map(|(name, _)| name), &waited),
        plan.repeat.min(3),
        board.rows("epochs", &[NONE, HUNDRED], &costs)
    )
}

const NONE: &str = "none";
const HUNDRED: &str = "100 a minute";

/// A write: when it was meant to begin, and how long it took from then.
type Write = (Instant, Duration);

fn waits(plan: &Plan, name: &str, play: &mut Play, board: &mut Board) {
    let addresses = [play.stamps[0].address(), play.stamps[1].address()];
    let (over, next, leads) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(play.leads));
    let began = Instant::now();
    let mut handoffs = Vec::new();
    let writes: Vec<Write> = thread::scope(|scope| {
        let service = || {
            let mut own = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let intended = began + Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / RATE);
                thread::sleep(intended.saturating_duration_since(Instant::now()));
                write(&addresses, &leads);
                own.push((intended, intended.elapsed()));
            }
            own
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(service)).collect();
        for _ in 0..plan.repeat * 4 {
            thread::sleep(APART);
            handoffs.push(Instant::now());
            play.hand_over();
        }
        thread::sleep(APART);
        over.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().expect("it panics only with the bench")).collect()
    });
    let mut line = String::new();
    for (index, handoff) in handoffs.iter().enumerate() {
        // One that was on its way when it began counts too.
        let of_it = writes.iter().filter(|(intended, took)| {
            *intended + *took >= *handoff && handoffs.get(index + 1).is_none_or(|next| intended < next)
        });
        let times: Vec<f64> = of_it.map(|(_, took)| took.as_secs_f64() * 1000.0).collect();
        let longest = times.iter().copied().fold(f64::NAN, f64::max);
        line.push_str(&format!(" {longest:.0}"));
        board.add("handoff wait", name, longest);
        board.add("handoff late", name, times.iter().filter(|&&took| took > 5.0).count() as f64);
    }
    let mut all: Vec<f64> = writes.iter().map(|(_, took)| took.as_secs_f64() * 1000.0).collect();
    all.sort_by(f64::total_cmp);
    board.add("handoff p50", name, all.get(all.len() / 2).copied().unwrap_or(f64::NAN));
    eprintln!("handoffs, waiting at the {name}, longest wait in ms:{line}");
}

/// One write, sent to whoever was the leader last, and where it is refused to the other: what is refused was not applied.
fn write(addresses: &[SocketAddr; 2], leads: &AtomicUsize) {
    let began = Instant::now();
    while began.elapsed() < LONG {
        let whom = leads.load(Ordering::Relaxed);
        if client::put(addresses[whom], "/orders/7", [b'.'; 100]).is_ok_and(|answer| answer.status == 200) {
            return;
        }
        // Only who was refused changes it: others may have done so meanwhile.
        if leads.compare_exchange(whom, 1 - whom, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            thread::sleep(Duration::from_micros(500));
        }
    }
    panic!("a write was refused for a minute");
}

/// CPU of a request at the guard, in µs, and how many of a thousand were refused.
fn epochs(plan: &Plan, play: &mut Play, handing: bool) -> Result<[f64; 2], String> {
    let (to, process) = (play.guard.address(), play.guard.process.id());
    let request = |stamp: &str| Request::put(to, 100, &format!("Fencing-Epoch: {stamp}\r\n"));
    let admin = play.stamps[play.leads].admin;
    let stamp = eventually_some("the leader is armed", LONG, || leader(admin));
    let mut load = Load::connect(to, request(&stamp), 16)?;
    load.tolerate_refusals();
    load.closed(Duration::from_millis(200), 0)?;
    let (changed, over) = (Mutex::new(None), AtomicBool::new(false));
    thread::scope(|scope| {
        if handing {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(APART);
                    play.hand_over();
                    *changed.lock().expect("nobody panics with it") = leader(play.stamps[play.leads].admin);
                }
            });
        }
        let (began, before, refused) = (Instant::now(), measure::cpu(process), load.refused());
        let mut answered = 0;
        while began.elapsed() < plan.window * 4 {
            answered += load.closed(Duration::from_millis(5), 0)?.requests;
            if let Some(stamp) = changed.lock().expect("nobody panics with it").take() {
                load.send_from_now_on(request(&stamp));
            }
        }
        over.store(true, Ordering::Relaxed);
        let spent = (measure::cpu(process) - before) as f64 / 1000.0;
        let refused = (load.refused() - refused) as f64;
        Ok([spent / answered as f64, refused * 1000.0 / (answered as f64 + refused)])
    })
}
