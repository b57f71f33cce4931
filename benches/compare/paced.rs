//! Latency at a rate that nobody finds hard: 4,000 requests a second at random times, counted from when each was meant
//! to begin.

use std::time::Duration;

use crate::Plan;
use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::targets::{Field, Target, in_turn};
use crate::wire::Request;

const RATE: f64 = 4000.0;

/// Runs it for every target in turn; the table.
pub fn run(plan: &Plan, field: &Field, board: &mut Board) -> String {
    for repetition in 1..=plan.repeat {
        let mut line = String::new();
        let (mut direct, mut medians) = (f64::NAN, Vec::new());
        for target in in_turn(&field.targets, repetition) {
            let [median, late, cpu] = once(plan, target).unwrap_or_else(|error| {
                board.note(format!("{} at {RATE} a second: {error}", target.name));
                [f64::NAN; 3]
            });
            if target.process.is_none() {
                direct = median;
            }
            board.add("paced p50", target.name, median);
            medians.push((target.name, median));
            board.add("paced p99", target.name, late);
            board.add("paced cpu", target.name, cpu);
            line.push_str(&format!("  {} {median:.0}", target.name));
        }
        medians.iter().for_each(|(name, median)| board.add("paced added", name, median - direct));
        eprintln!("paced {repetition}/{}, median µs:{line}", plan.repeat);
    }
    let column =
        |measure: &str, heading: &str, digits| Column { measure: measure.into(), heading: heading.into(), digits };
    let all = [
        column("paced p50", "p50, µs", 0),
        column("paced added", "added p50, µs", 0),
        column("paced p99", "p99, µs", 0),
        column("paced cpu", "CPU of a request, µs", 1),
    ];
    let ratios = [column("paced added", "added p50", 2), column("paced cpu", "CPU of a request", 2)];
    let names: Vec<&str> = field.targets.iter().map(|target| target.name).collect();
    format!(
        "{RATE} requests a second at random times, 16 connections, 100 B (n = {})\n\n{}\n{}\n",
        plan.repeat,
        board.table(&names, &all),
        board.ratios(&crate::OURS, &crate::PEERS, &ratios)
    )
}

fn once(plan: &Plan, target: &Target) -> Result<[f64; 3], String> {
    let mut load = Load::connect(target.address, Request::put(target.address, 100, &target.fields), 16)?;
    load.closed(Duration::from_millis(100), 0)?;
    load.settle()?;
    let cpu = || target.process.map_or(0, measure::cpu);
    let before = cpu();
    let outcome = load.open(RATE, plan.window)?;
    let spent = (cpu() - before) as f64 / 1000.0 / outcome.requests as f64;
    let spent = if target.process.is_some() { spent } else { f64::NAN };
    Ok([outcome.percentile(50.0), outcome.percentile(99.0), spent])
}
