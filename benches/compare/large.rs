//! One body of 1 GiB on one connection.

use crate::Plan;
use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::targets::{Field, Target, in_turn};
use crate::wire::Request;

const BODY: u64 = 1 << 30;

/// Runs it for every target in turn, three times at most; the table.
pub fn run(plan: &Plan, field: &Field, board: &mut Board) -> String {
    let repeat = plan.repeat.min(3);
    for repetition in 1..=repeat {
        let mut line = String::new();
        for target in in_turn(&field.targets, repetition) {
            let (cpu, rate) = once(target).unwrap_or_else(|error| {
                board.note(format!("{} with 1 GiB: {error}", target.name));
                (f64::NAN, f64::NAN)
            });
            board.add("gib cpu", target.name, cpu);
            board.add("gib rate", target.name, rate);
            if cpu.is_finite() {
                line.push_str(&format!("  {} {cpu:.2}", target.name));
            }
        }
        eprintln!("large {repetition}/{repeat}, s of CPU a GiB:{line}");
    }
    let column =
        |measure: &str, heading: &str, digits| Column { measure: measure.into(), heading: heading.into(), digits };
    let cpu = [column("gib cpu", "CPU, s", 2)];
    let both = [column("gib cpu", "CPU, s", 2), column("gib rate", "MiB/s", 0)];
    let names: Vec<&str> = field.targets.iter().map(|target| target.name).collect();
    format!(
        "A PUT of 1 GiB (n = {repeat})\n\n{}\n{}\n",
        board.table(&names, &both),
        board.ratios(&crate::OURS, &crate::PEERS, &cpu)
    )
}

fn once(target: &Target) -> Result<(f64, f64), String> {
    let mut load = Load::connect(target.address, Request::put(target.address, BODY, &target.fields), 1)?;
    let cpu = || target.process.map_or(0, measure::cpu);
    let before = cpu();
    let outcome = load.exactly(1)?;
    let spent = (cpu() - before) as f64 / 1e9;
    let rate = (BODY >> 20) as f64 / outcome.took.as_secs_f64();
    Ok((if target.process.is_some() { spent } else { f64::NAN }, rate))
}
