//! The simulation: the product's own guards and stamping sidecars, over a scripted coordinator, scripted targets and a
//! hostile network, in one thread and in a time of its own. A seed repeats a run exactly.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod agenda;
mod app;
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
mod run;
mod socket;
mod target;
mod world;

use epochgate::fence::mechanism::Mechanisms;
use plan::Plan;

fn text(run: &run::Run) -> Vec<String> {
    run.entries.iter().map(ToString::to_string).collect()
}

#[test]
fn a_seed_repeats_a_run_line_by_line() {
    let one = text(&run::run(Plan::of(7, 5), Mechanisms::all()));
    let two = text(&run::run(Plan::of(7, 5), Mechanisms::all()));
    for (first, second) in one.iter().zip(&two) {
        assert_eq!(first, second);
    }
    assert_eq!(one.len(), two.len());
}

#[test]
fn seeds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let only = number("EPOCHGATE_SEED");
    let (first, count) =
        (only.unwrap_or(number("EPOCHGATE_FIRST").unwrap_or(1)), number("EPOCHGATE_SEEDS").unwrap_or(20));
    let count = if only.is_some() { 1 } else { count };
    let mut bad = 0;
    for seed in first..first + count {
        let begun = std::time::Instant::now();
        let run = run::run(Plan::of(seed, 10), mechanisms());
        let judged = judge::judge(&run);
        if only.is_some() {
            println!("{}", text(&run).join("\n"));
            println!("{:#?}", run.plan);
        }
        eprintln!(
            "seed {seed}: {:.1}s simulated, {} failovers, {:?}, {:?} real",
            run.took.as_secs_f64(),
            run.failovers,
            judged.counts,
            begun.elapsed()
        );
        for wrong in &judged.wrong {
            eprintln!("  {wrong}");
        }
        bad += u32::from(!judged.wrong.is_empty());
    }
    assert_eq!(bad, 0, "so many seeds found something");
}

#[cfg(not(feature = "danger-test-switches"))]
fn mechanisms() -> Mechanisms {
    Mechanisms::all()
}

/// What the tests took out, by `EPOCHGATE_DANGER_WITHOUT=drain,lost_writes`.
#[cfg(feature = "danger-test-switches")]
fn mechanisms() -> Mechanisms {
    let names = std::env::var("EPOCHGATE_DANGER_WITHOUT").unwrap_or_default();
    Mechanisms::without_named(&names).expect("it names mechanisms")
}
