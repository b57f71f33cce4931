//! `kill -9` of the guard at each step of a handoff: started again, with the coordinator there or away, it never admits
//! a lower epoch than before, never lets an old write be overtaken, and in the end lets the present leader write.
//!
//! The build can be weakened, and is not: it only kills itself where the test says so (`EPOCHGATE_DANGER_FAILPOINT`).
//! While the guard comes back, writes of every epoch that there ever was are sent to it without a pause. The judge is
//! the target: the order in which it applied them.

mod support;

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::client;
use support::etcd::Etcd;
use support::process::{LONG, eventually};
use support::terms::stamp;
use support::world::{Plan, Sidecar, World, start_etcd};

/// The steps of a handoff, in order, with the floor that is on disk when the guard dies there.
const STEPS: &[(&str, u64)] = &[
    ("verified", 1),
    ("persisted", 2),
    ("fence", 2),
    ("fenced", 2),
    ("drained", 2),
    ("marked", 2),
    ("open", 2),
    ("opened", 2),
    ("reported", 2),
];

/// How long the guards here wait for what their predecessor forwarded. A test lets the old write land within it.
const RESIDUE: &str = "drain: { timeout: 500ms, quarantine: 6s }";

/// One death of a guard in its handoff from epoch 1 to 2.
struct Death {
    /// At which step; none: from outside, while it drains.
    step: Option<&'static str>,
    /// What is on disk then.
    floor: u64,
    /// Whether a write of epoch 1 is in the target, and lands only after the guard is back.
    slow_write: bool,
}

/// Every step that is reached with a slow write in the target, and every step without one.
fn deaths() -> Vec<Death> {
    let at =
        |slow_write| move |(step, floor): &(&'static str, u64)| Death { step: Some(*step), floor: *floor, slow_write };
    let from_outside = Death { step: None, floor: 2, slow_write: true };
    // With a slow write the drain goes on until it has landed: what comes after is not reached before.
    let with = STEPS.iter().take(4).map(at(true));
    std::iter::once(from_outside).chain(with).chain(STEPS.iter().map(at(false))).collect()
}

#[test]
fn at_each_step_and_back_with_the_coordinator_there() {
    let etcd = start_etcd();
    at_once(deaths(), |(number, death)| Case::die(&etcd, &format!("/there/{number}/"), death).come_back().end());
}

#[test]
fn at_each_step_and_back_with_the_coordinator_away() {
    let etcd = start_etcd();
    let dead = at_once(deaths(), |(number, death)| Case::die(&etcd, &format!("/away/{number}/"), death));
    etcd.pause();
    let back = at_once(dead, |(_, case)| {
        let case = case.come_back();
        let floor = case.guard.resource()["gate"]["floor"].clone();
        assert_eq!(floor, *case.death.floor.to_string(), "what it knows is what was on disk");
        case
    });
    etcd.resume();
    at_once(back, |(_, case)| case.end());
}

/// Does the same with all of them, each on a thread of its own.
fn at_once<T: Send, U: Send>(all: Vec<T>, act: impl Fn((usize, T)) -> U + Sync) -> Vec<U> {
    let act = &act;
    std::thread::scope(|scope| {
        let begin = |one| scope.spawn(move || act(one));
        let running: Vec<_> = all.into_iter().enumerate().map(begin).collect();
        running.into_iter().map(|one| one.join().expect("it says itself why")).collect()
    })
}

/// One guard that died, and what it left behind.
struct Case {
    death: Death,
    // Before the world: it writes to a guard of it.
    writers: Vec<Hammer>,
    guard: Sidecar,
    stamps: Vec<String>,
    world: World,
}

impl Case {
    /// Opens epoch 1, begins the handoff to 2, sees the guard die in it, and has 3 elected at once.
    fn die(etcd: &Etcd, prefix: &str, death: Death) -> Case {
        let mut world = World::on(etcd, prefix);
        let mut plan = patient_with_the_target(world.guard("guard"));
        if let Some(step) = death.step {
            plan = plan.env("EPOCHGATE_DANGER_FAILPOINT", &format!("{step}@2"));
        }
        let mut guard = plan.start();
        let (term, one) = world.elect("orders-a");
        guard.await_open(&term);
        assert_eq!(guard.put("/first", &one).status, 200);
        if death.slow_write {
            world.upstream.next("/old", "apply=@old");
            drop(guard.write("/old", Some(&one)));
            world.await_arrival("/old");
        }
        let (_, two) = world.elect("orders-b");
        drop(guard.write("/new", Some(&two)));
        match death.step {
            Some(_) => assert_eq!(guard.process().wait(LONG).signal(), Some(9)),
            None => {
                guard.await_held(1);
                guard.process().kill();
            }
        }
        guard.forget_variables();
        let (_, three) = world.elect("orders-c");
        Case { death, writers: Vec::new(), guard, stamps: vec![one, two, three], world }
    }

    /// Starts the guard again under writes of every epoch, and lets the old write land.
    fn come_back(mut self) -> Case {
        self.guard.start();
        self.writers = self.stamps.iter().map(|stamp| Hammer::start(&self.guard, stamp)).collect();
        self.writers.iter().for_each(|writer| writer.await_answers(3));
        if self.death.slow_write {
            assert!(!self.world.applied().contains(&"/old".to_owned()));
            self.world.upstream.open("old");
            self.world.await_applied("/old");
        }
        self
    }

    /// Waits until the present leader may write, and has the target judge.
    fn end(mut self) {
        let (guard, stamps) = (&self.guard, &self.stamps);
        eventually("the present leader's write is accepted", LONG, || guard.put("/last", &stamps[2]).status == 200);
        for old in &stamps[..2] {
            assert_eq!(guard.put("/stale", old).refused(), Some("stale_epoch"));
        }
        self.writers.drain(..).for_each(Hammer::end);
        self.world.upstream.assert_epochs_never_decrease();
        assert!(!self.world.has_arrived("/stale"));
        self.world.assert_rules_kept();
    }
}

/// The same guard dies at one step after the other, in a handoff each, without ever leaving in order.
#[test]
fn a_guard_that_dies_at_every_step_in_turn_never_goes_back() {
    let mut world = World::embedded();
    let plan = patient_with_the_target(world.guard("guard")).upstream_times("1s", "1s");
    let mut guard = plan.top("drain: { timeout: 500ms, quarantine: 2s }").start();
    let (term, first) = world.elect("orders-a");
    guard.await_open(&term);
    let mut writers = vec![Hammer::start(&guard, &first)];
    guard.process().kill();
    for (number, (step, _)) in STEPS.iter().enumerate() {
        let epoch = number + 2;
        guard.start_with(&[("EPOCHGATE_DANGER_FAILPOINT", &format!("{step}@{epoch}"))]);
        let term = world.terms.elect("orders-a");
        writers.push(Hammer::start(&guard, &stamp(&term)));
        assert_eq!(guard.process().wait(LONG).signal(), Some(9), "it dies at {step} of epoch {epoch}");
    }
    guard.start();
    let (term, last) = world.elect("orders-a");
    guard.await_open(&term);
    assert_eq!(guard.put("/last", &last).status, 200);
    writers.into_iter().for_each(Hammer::end);
    world.upstream.assert_epochs_never_decrease();
    assert_eq!(world.assert_rules_kept().counts.starts, STEPS.len() + 2);
    let epochs = world.upstream.epochs();
    assert_eq!(epochs.last(), Some(&(STEPS.len() as u64 + 2)));
}

/// Writes are not held for long: they are to be asked again and again.
fn patient_with_the_target(plan: Plan) -> Plan {
    plan.upstream_times("5s", "1s").top(RESIDUE).top("hold: { timeout: 300ms }")
}

/// A writer that goes on with its epoch whatever it is told.
struct Hammer {
    end: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Hammer {
    fn start(guard: &Sidecar, stamp: &str) -> Hammer {
        let (end, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (to, stamp) = (guard.address, stamp.to_owned());
        let (ends, counts) = (Arc::clone(&end), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                // No answer where the guard is dead, or dies.
                if client::request(to, "PUT", "/hammered", &[("Fencing-Epoch", &stamp)], b"x").is_ok() {
                    counts.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Hammer { end, answers, thread }
    }

    #[track_caller]
    fn await_answers(&self, count: u64) {
        eventually("the guard answers", LONG, || self.answers.load(Ordering::Relaxed) >= count);
    }

    fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic");
    }
}
