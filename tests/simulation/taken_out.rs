//! That the simulation sees something: with a mechanism taken out, some seed finds a violation.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use epochgate::fence::mechanism::{Mechanism, Mechanisms};

use crate::judge::judge;
use crate::plan::Plan;
use crate::{FAILOVERS, number, run};

/// Within so many seeds each is found.
const WITHIN: u64 = 100;

/// What is taken out, and what the judgement then says. Each is found by one of the first seeds; others, which need more
/// to come together, by one of some hundred (`EPOCHGATE_DANGER_WITHOUT=all` shows it).
const FOUND: &[(Mechanism, &str)] = &[
    (Mechanism::Comparison, "R"),
    (Mechanism::Drain, "(R1)"),
    (Mechanism::LostWrites, "(R1)"),
    (Mechanism::NoAnswer, "(R1)"),
    (Mechanism::WholeAnswer, "(R1)"),
    (Mechanism::DrainedMark, "(R1)"),
    (Mechanism::Residue, "(R1)"),
    (Mechanism::CleanMark, "(R1)"),
    (Mechanism::Persistence, "I8"),
    (Mechanism::OwnTerm, "(R2)"),
    (Mechanism::ConnectionBinding, "R2"),
    (Mechanism::AcceptFirst, "R2"),
    (Mechanism::Deadline, "(R2)"),
    (Mechanism::Nonce, "(R3)"),
    (Mechanism::Confirmation, "(R"),
    (Mechanism::Agreement, "(R1)"),
    (Mechanism::Regression, "(R5)"),
];

/// The first seed that finds it; `EPOCHGATE_SEEDS` says within how many.
#[test]
fn what_is_taken_out_is_found_missing() {
    let within = number("EPOCHGATE_SEEDS").unwrap_or(WITHIN);
    let only = std::env::var("EPOCHGATE_DANGER_WITHOUT").unwrap_or_default();
    let table: Vec<(Mechanism, &str)> = if only.is_empty() {
        FOUND.to_vec()
    } else if only == "all" {
        Mechanism::ALL.iter().map(|mechanism| (*mechanism, "")).collect()
    } else {
        let named = |mechanism: &&Mechanism| only.split(',').any(|name| name == mechanism.as_str());
        Mechanism::ALL.iter().filter(named).map(|mechanism| (*mechanism, "")).collect()
    };
    let mut missed = Vec::new();
    for (mechanism, what) in table {
        match first_seed(mechanism, what, within) {
            Some((seed, wrong)) => println!("{:<20} seed {seed:>4}: {wrong}", mechanism.as_str()),
            None => {
                println!("{:<20} not found within {within} seeds", mechanism.as_str());
                missed.push(mechanism.as_str());
            }
        }
    }
    assert!(missed.is_empty() || only == "all", "without these no seed of {within} found anything: {missed:?}");
}

fn first_seed(mechanism: Mechanism, what: &str, within: u64) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(1), Mutex::new(None::<(u64, String)>));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > within || found.lock().unwrap().is_some() {
                        return;
                    }
                    let run = run::run(Plan::of(seed, FAILOVERS), Mechanisms::all().without(mechanism));
                    if let Some(wrong) = judge(&run).wrong.into_iter().find(|wrong| wrong.contains(what)) {
                        let wrong = wrong.lines().next().unwrap_or_default().to_owned();
                        found.lock().unwrap().get_or_insert((seed, wrong));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}
