//! One episode: a world is built, troubled by a plan while clients write, left in peace, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use epochgate::verify::{Invariant, Outside, What};

use crate::clients::Clients;
use crate::ground::Ground;
use crate::judge;
use crate::nemesis::Nemesis;
use crate::plan::{Fault, Plan};
use crate::support::dice::Dice;
use crate::support::process::eventually;
use crate::world::World;

/// Once nothing is broken any more, a write is acknowledged within this time: the longest wait that the times of these
/// worlds imply is a session and two quarantines, ten seconds; the rest is for a slow machine.
pub const WITHIN: Duration = Duration::from_secs(60);

/// A test that itself stood still for so long proves nothing: its target may have applied a write after its quarantine.
const STALL: Duration = Duration::from_millis(1500);

/// How many clients write.
const WRITERS: usize = 6;

/// What an episode, or several, came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many.
    pub episodes: usize,
    /// Terms that began.
    pub terms: usize,
    /// Times that a term of one writer was followed by one that a target saw writes of.
    pub failovers: usize,
    /// What was done.
    pub faults: BTreeMap<Fault, usize>,
    /// What clients were told.
    pub outcomes: BTreeMap<String, usize>,
    /// Writes that the target applied.
    pub applied: usize,
    /// Requests that the network sent again, and connections that it broke.
    pub repeated: u64,
    pub broken: u64,
    /// How long it took from peace to the first acknowledged write; the longest.
    pub recovery: Duration,
    /// Episodes that prove nothing, because the test itself stood still.
    pub stalled: usize,
    /// Violations.
    pub violations: usize,
    /// What ended by itself.
    pub complaints: usize,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Tally) {
        self.episodes += other.episodes;
        self.terms += other.terms;
        self.failovers += other.failovers;
        other.faults.into_iter().for_each(|(fault, count)| *self.faults.entry(fault).or_default() += count);
        other.outcomes.into_iter().for_each(|(outcome, count)| *self.outcomes.entry(outcome).or_default() += count);
        self.applied += other.applied;
        self.repeated += other.repeated;
        self.broken += other.broken;
        self.recovery = self.recovery.max(other.recovery);
        self.stalled += other.stalled;
        self.violations += other.violations;
        self.complaints += other.complaints;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} episodes, {} terms elected, {} failovers seen at the target, {} writes applied, {} violations, {} processes ended by themselves, {} episodes stalled; longest recovery {:?}; {} requests repeated and {} connections broken on the way",
            self.episodes,
            self.terms,
            self.failovers,
            self.applied,
            self.violations,
            self.complaints,
            self.stalled,
            self.recovery,
            self.repeated,
            self.broken
        )?;
        let faults: Vec<String> =
            self.faults.iter().map(|(fault, count)| format!("{} {count}", fault.as_str())).collect();
        writeln!(f, "  faults ({}): {}", self.faults.values().sum::<usize>(), faults.join(", "))?;
        let outcomes: Vec<String> = self.outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        write!(f, "  writes: {}", outcomes.join(", "))
    }
}

/// Plays one. A violation is in the tally, and everything about it is kept in a folder that is printed.
pub fn play(ground: &Ground, plan: &Plan, command: bool) -> Tally {
    let dice = Dice::of(plan.seed);
    let mut world = World::start(ground, &plan.shape, &dice);
    let stalls = Stalls::watch();
    let record = Arc::clone(&world.record);
    let to: Vec<_> = world.to_stamps.iter().map(|link| link.address).collect();
    let guards: Vec<_> = world.guards.iter().map(|guard| guard.address).collect();
    let leaders: Vec<_> = world.stamps.iter().map(|stamp| stamp.folder().to_owned()).collect();
    let clients = Clients::start(WRITERS, &to, &guards, &leaders, plan.manners, &record, &dice.apart("clients"));

    let mut nemesis = Nemesis::default();
    nemesis.carry_out(plan, &mut world);

    world.clear();
    let before = record.acknowledged();
    record.faults_over(WITHIN);
    let peace = Instant::now();
    while record.acknowledged() < before + 3 * WRITERS && peace.elapsed() < WITHIN + Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(100));
    }
    let recovery = peace.elapsed();
    clients.stop();
    world.note_grants();
    // What the target has begun, it ends; then nobody writes any more.
    eventually("the target is done", Duration::from_secs(30), || world.target.is_idle());
    world.end();
    let stall = stalls.longest();

    let judged = judge::judge(&world);
    let mut verdict = judged.verdict;
    if command && let Some((good, said)) = judge::by_command(&judged.folder) {
        assert_eq!(good, verdict.is_good(), "the command and the library disagree: {said}");
    }
    let mut tally = tally(&world, &nemesis);
    tally.recovery = recovery;
    tally.terms = verdict.counts.terms;
    if stall > STALL && verdict.broken().iter().all(|broken| matches!(broken, Invariant::Order | Invariant::Closed)) {
        if !verdict.is_good() {
            println!(
                "seed {}: this test itself stood still for {stall:?}, so that its target was late: no proof",
                plan.seed
            );
            let name = format!("stalled-{}", plan.seed);
            let kept = judge::keep(&world, &name, &plan.to_string(), &verdict.to_string());
            println!("  all of it is in {}", kept.display());
            verdict.violations.clear();
        }
        tally.stalled = 1;
    }
    tally.violations = verdict.violations.len();
    if !verdict.is_good() || !nemesis.complaints.is_empty() {
        let complaints = nemesis.complaints.join("\n");
        let text = format!("{verdict}\n{complaints}");
        let kept = judge::keep(&world, &format!("seed-{}", plan.seed), &plan.to_string(), &text);
        let shown: String = text.lines().take(60).map(|line| format!("{line}\n")).collect();
        println!("VIOLATION OR COMPLAINT with seed {}:\n{shown}\n  all of it is in {}", plan.seed, kept.display());
    }
    tally
}

fn tally(world: &World<'_>, nemesis: &Nemesis) -> Tally {
    let epochs: BTreeSet<u64> = world.target.epochs().into_iter().collect();
    let mut outcomes = BTreeMap::new();
    for line in world.record.lines().iter() {
        if let What::Outside(Outside::Ended { outcome, status, reason, .. }) = &line.what {
            let status = status.map_or_else(String::new, |status| format!(" {status}"));
            let reason = reason.map_or_else(String::new, |reason| format!(" {reason}"));
            *outcomes.entry(format!("{}{status}{reason}", outcome.as_str())).or_default() += 1;
        }
    }
    let (broken, repeated) = world.weather_did();
    Tally {
        episodes: 1,
        failovers: epochs.len().saturating_sub(1),
        faults: nemesis.done.clone(),
        outcomes,
        applied: world.target.applied().len(),
        broken,
        repeated,
        complaints: nemesis.complaints.len(),
        ..Tally::default()
    }
}

/// Sees whether this process itself gets to run.
struct Stalls {
    longest: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Stalls {
    fn watch() -> Stalls {
        let (longest, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ends) = (Arc::clone(&longest), Arc::clone(&end));
        thread::spawn(move || {
            let pause = Duration::from_millis(20);
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                thread::sleep(pause);
                let late = began.elapsed().saturating_sub(pause);
                seen.fetch_max(u64::try_from(late.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Stalls { longest, end }
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}
