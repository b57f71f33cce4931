//! One episode: a world is built, troubled by a plan while clients write, left in peace, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use epochgate::verify::{Invariant, Outside, What};

use crate::clients::Clients;
use crate::ground::Ground;
use crate::judge;
use crate::nemesis::Nemesis;
use crate::plan::Plan;
use crate::support::dice::Dice;
use crate::support::process::eventually;
use crate::support::stalls::Stalls;
use crate::world::World;

/// Once nothing is broken any more, a write is acknowledged within this time: the longest wait that the times of these
/// worlds imply is a session and two quarantines, ten seconds; the rest is for a slow machine.
pub const WITHIN: Duration = Duration::from_secs(60);

/// A test that itself stood still for so long proves nothing: its target may have applied a write after its quarantine.
const STALL: Duration = Duration::from_millis(1500);

/// How many clients write.
const WRITERS: usize = 6;

/// What an episode, or several, came to: counts by name, and the longest recovery in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
    recovery: u64,
}

/// What a line of a tally begins with, where another program is to read it.
const MARK: &str = "TALLY ";

impl Tally {
    /// So many more of something.
    pub fn count(&mut self, what: &str, number: u64) {
        *self.counts.entry(what.to_owned()).or_default() += number;
    }

    /// How many there were.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        other.counts.iter().for_each(|(what, number)| self.count(what, *number));
        self.recovery = self.recovery.max(other.recovery);
    }

    /// As a line that [`Tally::read`] reads.
    pub fn line(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(what, number)| format!("{what}={number}")).collect();
        format!("{MARK}{}|{}", self.recovery, counts.join(";"))
    }

    /// A tally, where that line is one.
    pub fn read(line: &str) -> Option<Tally> {
        let (recovery, counts) = line.strip_prefix(MARK)?.split_once('|')?;
        let mut tally = Tally { recovery: recovery.parse().ok()?, ..Tally::default() };
        for (what, number) in counts.split(';').filter_map(|count| count.split_once('=')) {
            tally.count(what, number.parse().ok()?);
        }
        Some(tally)
    }

    /// Those whose name begins with `group`, without that.
    fn group(&self, group: &str) -> String {
        let of_it =
            self.counts.iter().filter_map(|(what, number)| Some(format!("{} {number}", what.strip_prefix(group)?)));
        of_it.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} episodes, {} terms elected, {} failovers seen at the target, {} writes applied, {} VIOLATIONS, {} complaints, {} episodes without proof; longest recovery {} ms",
            self.of("episodes"),
            self.of("terms"),
            self.of("failovers"),
            self.of("applied"),
            self.of("violations"),
            self.of("complaints"),
            self.of("stalled"),
            self.recovery
        )?;
        writeln!(f, "  faults: {}", self.group("fault "))?;
        write!(f, "  writes: {}", self.group("write "))
    }
}

/// Plays one. A violation is in the tally, and everything about it is kept in a folder that is printed.
pub fn play(ground: &Ground, plan: &Plan, command: bool) -> Tally {
    let dice = Dice::of(plan.seed);
    let mut world = World::start(ground, &plan.shape, plan.without, &dice);
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
    tally.recovery = u64::try_from(recovery.as_millis()).unwrap_or(u64::MAX);
    tally.count("terms", verdict.counts.terms as u64);
    // What a clock says, a test that gets no time to run cannot say: its target may have been late, and its clients.
    let timed = |broken: &Invariant| matches!(broken, Invariant::Order | Invariant::Closed | Invariant::Liveness);
    if stall > STALL && !verdict.is_good() && verdict.broken().iter().all(timed) {
        let kept = judge::keep(&world, &format!("stalled-{}", plan.seed), &plan.to_string(), &verdict.to_string());
        println!("seed {}: this test itself stood still for {stall:?}: no proof of what it saw:", plan.seed);
        println!("{verdict}\n  all of it is in {}", kept.display());
        verdict.violations.clear();
        tally.count("stalled", 1);
    }
    tally.count("violations", verdict.violations.len() as u64);
    if plan.without.is_empty() && (!verdict.is_good() || !nemesis.complaints.is_empty()) {
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
    let (broken, repeated) = world.weather_did();
    let mut tally = Tally::default();
    tally.count("episodes", 1);
    tally.count("failovers", epochs.len().saturating_sub(1) as u64);
    tally.count("applied", world.target.applied().len() as u64);
    tally.count("complaints", nemesis.complaints.len() as u64);
    tally.count("fault request-repeated", repeated);
    tally.count("fault connection-broken", broken);
    nemesis.done.iter().for_each(|(fault, count)| tally.count(&format!("fault {}", fault.as_str()), *count as u64));
    for line in world.record.lines().iter() {
        if let What::Outside(Outside::Ended { outcome, status, reason, .. }) = &line.what {
            let status = status.map_or_else(String::new, |status| format!(" {status}"));
            let reason = reason.map_or_else(String::new, |reason| format!(" {reason}"));
            tally.count(&format!("write {}{status}{reason}", outcome.as_str()), 1);
        }
    }
    tally
}
