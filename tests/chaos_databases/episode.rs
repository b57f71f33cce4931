//! One episode: a world is built, troubled by a plan while clients write, left in peace, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use epochgate::verify::{self, Invariant, Options, Outside, Verdict, What, read};

use crate::clients::{Clients, Shared};
use crate::nemesis::Nemesis;
use crate::plan::Plan;
use crate::support::dice::Dice;
use crate::support::process::{Process, eventually};
use crate::support::stalls::Stalls;
use crate::world::World;

/// Once nothing is broken any more, an operation is acknowledged within this time. What these worlds imply is two quarantines and
/// a lease, ten seconds; the rest is for a slow machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A test that itself stood still for so long proves nothing by time: its database may have outlived a quarantine.
const STALL: Duration = Duration::from_millis(1500);

/// How many clients write.
const WRITERS: usize = 6;

/// What an episode, or several, came to: counts by name.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, what: &str, number: u64) {
        *self.0.entry(what.to_owned()).or_default() += number;
    }

    /// How many there were.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, number)| self.count(what, *number));
    }

    /// Those whose name begins with `group`, without that.
    fn group(&self, group: &str) -> String {
        let of_it = self.0.iter().filter_map(|(what, number)| Some(format!("{} {number}", what.strip_prefix(group)?)));
        of_it.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |what| self.of(what);
        writeln!(
            f,
            "{} episodes, {} terms elected, {} failovers seen at the database, {} operations sent, {} committed, {} VIOLATIONS, {} complaints, {} episodes without proof",
            of("episodes"),
            of("terms"),
            of("failovers"),
            of("sent"),
            of("committed"),
            of("violations"),
            of("complaints"),
            of("stalled"),
        )?;
        writeln!(f, "  faults: {}", self.group("fault "))?;
        write!(f, "  clients: {}", self.group("told "))
    }
}

/// Plays one. A violation is in the tally, and everything about it is kept in a folder that is printed.
pub fn play(plan: &Plan) -> Tally {
    let stalls = Stalls::watch();
    let mut world = World::start(plan.kind, plan.without);
    let shared = Shared::new(plan, world.database.address(), &world.record, &world.sightings);
    let stamps: Vec<_> = world.stamps.iter().map(|stamp| stamp.address).collect();
    let folders: Vec<_> = world.stamps.iter().map(|stamp| stamp.folder().to_owned()).collect();
    let dice = Dice::of(plan.seed).apart("clients");
    let clients = Clients::start(&shared, WRITERS, &stamps, world.guard.address, &folders, &dice);

    let mut nemesis = Nemesis::default();
    nemesis.carry_out(plan, &mut world, &shared);
    let (before, record) = (world.record.acknowledged(), Arc::clone(&world.record));
    record.faults_over(WITHIN);
    let peace = Instant::now();
    while record.acknowledged() < before + 3 * WRITERS && peace.elapsed() < WITHIN + Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(50));
    }
    clients.stop();
    world.note_grants();
    world.end();
    // Nobody can reach it any more; what it has begun, it ends.
    eventually("the database is quiet", Duration::from_secs(60), || world.database.is_quiet());
    let order = world.database.order();

    let mut complaints = nemesis.complaints;
    complaints.extend(record.committed(&order, &world.sightings));
    complaints.append(&mut shared.complaints.lock().expect("no holder of it panics"));
    let (mut verdict, folder) = judge(&world);
    let mut tally = Tally::default();
    tally.count("episodes", 1);
    tally.count("terms", verdict.counts.terms as u64);
    tally.count("committed", order.len() as u64);
    count_lines(&mut tally, &world);
    nemesis.done.iter().for_each(|(fault, count)| tally.count(&format!("fault {}", fault.as_str()), *count));
    shared.told.lock().expect("no holder of it panics").iter().for_each(|(what, count)| {
        tally.count(&format!("told {what}"), *count);
    });
    // Where time decides what is over, a test that gets no time to run cannot say that it was not.
    let timed = |broken: &Invariant| matches!(broken, Invariant::Order | Invariant::Closed | Invariant::Liveness);
    if stalls.longest() > STALL && !verdict.is_good() && verdict.broken().iter().all(timed) {
        let kept = keep(&world, &folder, plan, &verdict.to_string());
        println!(
            "seed {}: the test itself stood still for {:?}: no proof; see {}",
            plan.seed,
            stalls.longest(),
            kept.display()
        );
        verdict.violations.clear();
        tally.count("stalled", 1);
    }
    tally.count("violations", verdict.violations.len() as u64);
    tally.count("out of order", u64::from(verdict.broken().contains(&Invariant::Order)));
    tally.count("complaints", complaints.len() as u64);
    if plan.without.is_empty() && (!verdict.is_good() || !complaints.is_empty()) {
        let text = format!("{verdict}\n{}", complaints.join("\n"));
        let kept = keep(&world, &folder, plan, &text);
        let shown = text.lines().take(60).collect::<Vec<_>>().join("\n");
        println!("VIOLATION OR COMPLAINT with seed {}:\n{shown}\n  all of it is in {}", plan.seed, kept.display());
    }
    tally
}

fn count_lines(tally: &mut Tally, world: &World) {
    let mut epochs = BTreeSet::new();
    for line in world.record.lines().iter() {
        match &line.what {
            What::Outside(Outside::Applied { taken, .. }) => epochs.extend(taken.epoch),
            What::Outside(Outside::Sent { .. }) => tally.count("sent", 1),
            _ => {}
        }
    }
    tally.count("failovers", epochs.len().saturating_sub(1) as u64);
}

/// Collects the histories of a world whose processes have ended, and checks them.
fn judge(world: &World) -> (Verdict, PathBuf) {
    let folder = world.folder.path().join("histories");
    fs::create_dir_all(&folder).expect("it is in a temporary folder");
    let mut files = vec![folder.join("outside.jsonl")];
    let mut outside = String::new();
    for line in world.record.lines().iter() {
        writeln!(outside, "{}", line.to_json()).expect("a text takes all that is written to it");
    }
    fs::write(&files[0], outside).expect("there is room");
    for history in world.nodes().flat_map(|node| node.histories()) {
        let copy = folder.join(history.file_name().expect("it is a file"));
        fs::copy(history, &copy).expect("it was listed");
        files.push(copy);
    }
    let read = read::files(&files).unwrap_or_else(|error| panic!("the histories cannot be read: {error}"));
    (verify::check(&read.lines, Options::default()), folder)
}

/// Keeps everything of a world where it stays, and says where.
fn keep(world: &World, histories: &Path, plan: &Plan, verdict: &str) -> PathBuf {
    let kept = std::env::var_os("EPOCHGATE_CHAOS_KEEP")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos-databases"), PathBuf::from);
    let kept = kept.join(format!("{:?}-seed-{}", plan.kind, plan.seed));
    fs::create_dir_all(&kept).expect("the target folder can be written");
    let write = |name: &str, text: &str| fs::write(kept.join(name), text).expect("the target folder can be written");
    write("plan.txt", &plan.to_string());
    write("verdict.txt", verdict);
    for file in fs::read_dir(histories).into_iter().flatten().flatten() {
        let _ = fs::copy(file.path(), kept.join(file.file_name()));
    }
    for node in world.nodes() {
        let _ = fs::copy(node.folder().join("epochgate.yaml"), kept.join(format!("{}.yaml", node.id)));
        write(&format!("{}.log", node.id), &node.process.as_ref().map(Process::stderr).unwrap_or_default());
    }
    kept
}
