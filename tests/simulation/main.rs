//! The simulation: the product's own guards and stamping sidecars, over a scripted coordinator, scripted targets and a
//! hostile network, in one thread and in a time of its own. A seed repeats a run exactly. `docs/simulation.md` says what
//! is simulated, and how to run it.
//!
//! | file | what it holds |
//! |---|---|
//! | [`plan`], [`world`] | how large the world of a seed is; what there is in it |
//! | [`run`] | how a run goes: trouble, calm |
//! | [`faults`] | what goes wrong |
//! | [`process`], [`life`], [`clock`] | one process of the product without threads: started, stopped, killed |
//! | [`network`], [`socket`], [`agenda`] | connections in memory; what is to happen when |
//! | [`coordinator`] | the store behind a link |
//! | [`target`], [`app`], [`app_http2`], [`http1`] | what applies writes, and what sends them |
//! | [`record`], [`judge`], [`report`] | what happened, whether it was right, what many runs come to |
//! | [`dice`], [`panics`] | randomness that repeats; panics that tokio would keep to itself |

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod agenda;
mod app;
mod app_http2;
mod clock;
mod coordinator;
mod dice;
mod faults;
mod http1;
mod judge;
mod life;
mod network;
mod panics;
mod plan;
mod process;
mod record;
mod report;
mod run;
mod socket;
#[cfg(feature = "danger-test-switches")]
mod taken_out;
mod target;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use epochgate::fence::mechanism::Mechanisms;
use judge::judge;
use plan::Plan;
use report::{Report, Summary};

/// So many failovers a run.
const FAILOVERS: usize = 10;
/// So many seeds where nobody says how many.
const SEEDS: u64 = 40;
/// From so many runs on, each kind of fault has to be in one of five of them.
const MANY: u64 = 100;

/// A number that the environment gives.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is to be a number, and is {text:?}")))
}

/// `EPOCHGATE_SEEDS` says how many, `EPOCHGATE_FIRST` from which on; `EPOCHGATE_SEED` shows one with all that happened.
/// `EPOCHGATE_UNTIL=found` ends with the first that finds something, for bugs that were planted.
#[test]
fn every_seed_keeps_the_rules() {
    if let Some(seed) = number("EPOCHGATE_SEED") {
        return show(seed);
    }
    let (first, count) = (number("EPOCHGATE_FIRST").unwrap_or(1), number("EPOCHGATE_SEEDS").unwrap_or(SEEDS));
    if std::env::var("EPOCHGATE_UNTIL").is_ok_and(|until| until == "found") {
        let found = first_wrong(first, count, Mechanisms::all(), "");
        assert!(
            found.is_none(),
            "found by {}",
            found.map_or_else(String::new, |(seed, wrong)| { format!("seed {seed}: {}", first_line(&wrong)) })
        );
        return;
    }
    let report = run_all(first, count, Mechanisms::all());
    println!("{report}");
    let wrong = report.wrong();
    for run in wrong.iter().take(3) {
        println!("\n{}", run.wrong);
    }
    let seeds: Vec<u64> = wrong.iter().map(|run| run.seed).collect();
    assert!(seeds.is_empty(), "these seeds found a violation: {seeds:?}");
    assert!(report.fewest_failovers() >= FAILOVERS as u64, "a run had fewer than {FAILOVERS} failovers");
    if count >= MANY {
        assert!(report.rare().is_empty(), "these faults are too rare: {:?}", report.rare());
    }
}

/// Runs seeds on every core.
fn run_all(first: u64, count: u64, mechanisms: Mechanisms) -> Report {
    let report = Mutex::new(Report::default());
    on_every_core(first, |seed| {
        if seed >= first + count {
            return false;
        }
        let run = run::run(Plan::of(seed, FAILOVERS), mechanisms);
        let summary = Summary::of(&run, &judge(&run));
        if !summary.wrong.is_empty() {
            eprintln!("{}", first_line(&summary.wrong));
        }
        report.lock().unwrap().add(summary);
        let done = seed - first + 1;
        if done.is_multiple_of(500) {
            eprintln!("{done} of {count} seeds");
        }
        true
    });
    report.into_inner().unwrap()
}

/// The first seed that finds something that contains `what`, and what it finds; the same one on any number of cores.
fn first_wrong(first: u64, count: u64, mechanisms: Mechanisms, what: &str) -> Option<(u64, String)> {
    let found = Mutex::new(None::<(u64, String)>);
    on_every_core(first, |seed| {
        let is_later = |found: &Option<(u64, String)>| found.as_ref().is_some_and(|(before, _)| *before < seed);
        if seed >= first + count || is_later(&found.lock().unwrap()) {
            return false;
        }
        let run = run::run(Plan::of(seed, FAILOVERS), mechanisms);
        if let Some(wrong) = judge(&run).wrong.into_iter().find(|wrong| wrong.contains(what)) {
            let mut found = found.lock().unwrap();
            if !is_later(&found) {
                *found = Some((seed, wrong));
            }
        }
        true
    });
    found.into_inner().unwrap()
}

/// Goes through seeds on every core, until told to stop: each has a world, a runtime and a time of its own.
fn on_every_core(first: u64, one: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| while one(next.fetch_add(1, Ordering::Relaxed)) {});
        }
    });
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// One seed with everything that happened; `EPOCHGATE_HISTORY` names a file for its history.
fn show(seed: u64) {
    let run = run::run(Plan::of(seed, FAILOVERS), mechanisms());
    for entry in &run.entries {
        println!("{entry}");
    }
    if let Some(path) = std::env::var_os("EPOCHGATE_HISTORY") {
        let lines: String = judge::lines(&run.entries).map(|line| line.to_json() + "\n").collect();
        std::fs::write(path, lines).unwrap();
    }
    let judged = judge(&run);
    let summary = Summary::of(&run, &judged);
    println!("{:#?}\n{:?}\n{:?}", run.plan, run.faults, judged.counts);
    println!(
        "{} failovers in {:.1} s; well again after {:.1} s",
        run.failovers,
        run.took.as_secs_f64(),
        run.recovered.as_secs_f64()
    );
    assert!(summary.wrong.is_empty(), "{}", summary.wrong);
}

#[cfg(not(feature = "danger-test-switches"))]
fn mechanisms() -> Mechanisms {
    Mechanisms::all()
}

/// What is to be left out of a shown run, by `EPOCHGATE_DANGER_WITHOUT=drain,lost_writes`.
#[cfg(feature = "danger-test-switches")]
fn mechanisms() -> Mechanisms {
    let names = std::env::var("EPOCHGATE_DANGER_WITHOUT").unwrap_or_default();
    Mechanisms::without_named(&names).expect("it names mechanisms")
}

#[test]
fn a_seed_repeats_a_run_line_by_line() {
    for seed in [7, 11, 23] {
        let text = || -> Vec<String> {
            run::run(Plan::of(seed, 5), Mechanisms::all()).entries.iter().map(ToString::to_string).collect()
        };
        let (one, two) = (text(), text());
        for (first, second) in one.iter().zip(&two) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!(one.len(), two.len(), "seed {seed}");
    }
}

#[test]
fn a_target_that_goes_on_for_too_long_breaks_the_order() {
    let exceeds = |seed| Plan { exceeds: true, ..Plan::of(seed, FAILOVERS) };
    let found = (1..=20).find(|seed| {
        let run = run::run(exceeds(*seed), Mechanisms::all());
        judge(&run).wrong.iter().any(|wrong| wrong.contains("(R1)"))
    });
    assert!(found.is_some(), "the condition of docs/safety.md is needed, and 20 seeds without it saw nothing");
}
