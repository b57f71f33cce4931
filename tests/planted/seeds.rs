//! Which seed of the simulation finds each bug first.
//!
//! The copy's simulation is built once, with every bug in it, and goes through the same seeds with one bug switched on
//! after the other, each up to the first seed that finds a violation. Most are found soon: so each bug gets the first
//! hundred before any gets the rest.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::bugs::Bug;
use super::copy::Copy;
use super::run::{end, say};

/// So many seeds, where `EPOCHGATE_SEEDS` does not say how many.
const SEEDS: u64 = 1_000;
/// So many for every bug before any gets more.
const AT_FIRST: u64 = 100;
/// What is not in a simulated world, or not in what is judged there: bugs of these are not looked for.
const NOT_SIMULATED: &[(&str, &str)] = &[
    ("src/audit.rs", "no audit log"),
    ("src/coordinator/etcd/", "no etcd client"),
    ("src/coordinator/fencing.rs", "no `epochgate fence`"),
    ("src/protocol/tunnel.rs", "no upgrades"),
];

/// The copy's simulation.
pub struct Seeds {
    binary: PathBuf,
    tree: PathBuf,
    results: PathBuf,
    seeds: u64,
}

impl Seeds {
    /// Builds it, where the copy's other tests are built, and sees that the first seeds find nothing without a bug.
    pub fn build(copy: &Copy) -> Seeds {
        say("building the copy's simulation");
        let simulation = ["--profile", "simulation", "--test", "simulation"];
        let executable = copy.build_tests(&simulation).into_iter().find_map(|message| {
            match message["target"]["name"] == "simulation" {
                true => message["executable"].as_str().map(PathBuf::from),
                false => None,
            }
        });
        let seeds = std::env::var("EPOCHGATE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
        let results = copy.results.with_file_name("seeds.txt");
        let binary = executable.expect("cargo names what it built");
        let built = Seeds { binary, tree: copy.tree.clone(), results, seeds };
        let found = built.first("", 1, AT_FIRST.min(seeds), Duration::from_secs(3600));
        assert_eq!(found, None, "without any bug");
        built
    }

    /// Looks for each of these bugs that was not found before, and prints what was found, and what not.
    pub fn look_for(&self, bugs: &[&Bug]) {
        let mut clean = None;
        for (from, to) in [(1, AT_FIRST.min(self.seeds)), (AT_FIRST + 1, self.seeds)] {
            for bug in bugs.iter().filter(|bug| not_simulated(bug).is_none()) {
                if from > to
                    || self.findings().get(&bug.name).is_some_and(|(until, seed)| *until >= to || seed.is_some())
                {
                    continue;
                }
                // A world that stands still is a find too: judged by how long a hundred took without a bug.
                let each = *clean.get_or_insert_with(|| {
                    let began = Instant::now();
                    self.first("", 1, AT_FIRST.min(self.seeds), Duration::from_secs(3600));
                    began.elapsed()
                });
                let count = to - from + 1;
                let limit = each * u32::try_from(4 * count.div_ceil(AT_FIRST)).expect("few") + Duration::from_secs(120);
                let found = self.first(&bug.name, from, count, limit);
                say(&format!("{}: {}", bug.name, found.as_deref().unwrap_or("not yet")));
                self.note(&bug.name, to, found.as_deref());
            }
        }
        println!("{}", self.table(bugs));
    }

    /// What the first seed finds with a bug.
    fn first(&self, bug: &str, from: u64, count: u64, limit: Duration) -> Option<String> {
        let mut command = Command::new(&self.binary);
        command.args(["--exact", "every_seed_keeps_the_rules", "--nocapture"]).current_dir(&self.tree);
        command.env("PLANTED_BUG", bug).env("EPOCHGATE_UNTIL", "found");
        command.env("EPOCHGATE_FIRST", from.to_string()).env("EPOCHGATE_SEEDS", count.to_string());
        command.env_remove("EPOCHGATE_SEED");
        let (status, said) = end(&mut command, &self.results.with_extension("output"), limit);
        match status {
            Some(status) if status.success() => None,
            None => Some(format!("seeds {from} to {}: it hangs", from + count - 1)),
            Some(status) => Some(match said.lines().find_map(|line| line.strip_prefix("found by ")) {
                Some(found) => found.to_owned(),
                None => format!("seeds {from} to {}: it ends with {status}", from + count - 1),
            }),
        }
    }

    /// By bug, how far it was looked for, and what was found.
    fn findings(&self) -> BTreeMap<String, (u64, Option<String>)> {
        let text = fs::read_to_string(&self.results).unwrap_or_default();
        let finding = |line: &str| {
            let mut cells = line.split('\t');
            let (name, until) = (cells.next()?.to_owned(), cells.next()?.parse().ok()?);
            Some((name, (until, cells.next().filter(|found| !found.is_empty()).map(str::to_owned))))
        };
        text.lines().filter_map(finding).collect()
    }

    fn note(&self, bug: &str, until: u64, found: Option<&str>) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.results).unwrap();
        writeln!(file, "{bug}\t{until}\t{}", found.unwrap_or_default()).unwrap();
    }

    fn table(&self, bugs: &[&Bug]) -> String {
        let findings = self.findings();
        let mut table = String::from("| bug | rule | first found by |\n|---|---|---|\n");
        for bug in bugs {
            let by = match (not_simulated(bug), findings.get(&bug.name)) {
                (Some(why), _) => format!("not looked for: {why} in these worlds"),
                (None, None) => "not looked for".to_owned(),
                (None, Some((_, Some(found)))) => found.replace('|', "/"),
                (None, Some((until, None))) => format!("none of {until} seeds"),
            };
            table += &format!("| `{}` | {} | {by} |\n", bug.name, bug.rule);
        }
        table
    }
}

/// Why a bug cannot be seen in a simulated world, where that is so.
fn not_simulated(bug: &Bug) -> Option<&'static str> {
    let is_there = |(place, _): &&(&str, &str)| bug.edits.iter().all(|edit| edit.file.starts_with(place));
    NOT_SIMULATED.iter().find(is_there).map(|(_, why)| *why)
}
