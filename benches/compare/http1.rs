//! HTTP/1.1 with every connection busy: CPU per request, and what comes through.

use std::time::Duration;

use crate::Plan;
use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::targets::{Field, Target};
use crate::wire::Request;

/// One kind of load.
pub struct Scene {
    pub name: &'static str,
    pub connections: usize,
    pub body: u64,
}

const SCENES: [Scene; 3] = [
    Scene { name: "16 × 100 B", connections: 16, body: 100 },
    Scene { name: "128 × 100 B", connections: 128, body: 100 },
    Scene { name: "16 × 64 KiB", connections: 16, body: 64 * 1024 },
];

/// With fewer a window says more about who else wanted the core.
pub const LEAST: usize = 3000;

/// Runs every scene with every target, in turn; the tables.
pub fn run(plan: &Plan, field: &Field, board: &mut Board) -> String {
    for repetition in 1..=plan.repeat {
        for scene in &SCENES {
            let line = turn(plan, scene, field.in_turn(repetition), board);
            eprintln!("http1 {repetition}/{}, {}, µs of CPU a request:{line}", plan.repeat, scene.name);
        }
    }
    let columns = |measure: &str, digits| -> Vec<Column> {
        let column = |scene: &Scene| Column {
            measure: format!("{measure} {}", scene.name),
            heading: scene.name.to_owned(),
            digits,
        };
        SCENES.iter().map(column).collect()
    };
    let targets = field.names();
    let cpu = columns("cpu", 1);
    format!(
        "CPU of a PUT, µs (connections × body; median, least–greatest; n = {}, {:?} each)\n\n{}\n{}\nRequests a second (n = {})\n\n{}\n\
         Median latency at that load, µs (n = {})\n\n{}\n",
        plan.repeat,
        plan.window,
        board.table(&targets[1..], &cpu),
        board.ratios(&crate::OURS, &crate::PEERS, &cpu),
        plan.repeat,
        board.table(&targets, &columns("rate", 0)),
        plan.repeat,
        board.table(&targets, &columns("p50", 0)),
    )
}

/// One repetition of a scene, target by target; CPU of a request as words.
pub fn turn<'a>(
    plan: &Plan,
    scene: &Scene,
    targets: impl IntoIterator<Item = &'a Target>,
    board: &mut Board,
) -> String {
    let mut line = String::new();
    for target in targets {
        match once(plan, scene, target) {
            Ok(Sample { cpu, rate, median, late }) => {
                board.add(&format!("cpu {}", scene.name), target.name, cpu);
                board.add(&format!("rate {}", scene.name), target.name, rate);
                board.add(&format!("p50 {}", scene.name), target.name, median);
                board.add(&format!("p99 {}", scene.name), target.name, late);
                if cpu.is_finite() {
                    line.push_str(&format!("  {} {cpu:.1}", target.name));
                }
            }
            Err(error) => {
                ["cpu", "rate", "p50", "p99"].iter().for_each(|measure| {
                    board.add(&format!("{measure} {}", scene.name), target.name, f64::NAN);
                });
                board.note(format!("{} with {}: {error}", target.name, scene.name));
            }
        }
    }
    line
}

struct Sample {
    cpu: f64,
    rate: f64,
    median: f64,
    late: f64,
}

fn once(plan: &Plan, scene: &Scene, target: &Target) -> Result<Sample, String> {
    let request = Request::put(target.address, scene.body, &target.fields);
    let mut load = Load::connect(target.address, request, scene.connections)?;
    load.closed((plan.window / 4).max(Duration::from_millis(100)), 1000)?;
    let cpu = || target.process.map_or(0, measure::cpu);
    let before = cpu();
    let outcome = load.closed(plan.window, LEAST)?;
    if outcome.requests < LEAST as u64 {
        return Err(format!("{} requests in {:?}: too busy here to tell", outcome.requests, outcome.took));
    }
    let spent = (cpu() - before) as f64 / 1000.0;
    Ok(Sample {
        cpu: if target.process.is_some() { spent / outcome.requests as f64 } else { f64::NAN },
        rate: outcome.rate(),
        median: outcome.percentile(50.0),
        late: outcome.percentile(99.0),
    })
}
