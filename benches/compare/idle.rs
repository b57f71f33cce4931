//! Memory for each connection that waits: every one has had an answer, and is kept.

use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::targets::{Field, Target};
use crate::wire::Request;

const FEW: usize = 1000;
const MANY: usize = 9500;

/// Runs it for every target once; the table.
pub fn run(field: &Field, board: &mut Board) -> String {
    // The load has a descriptor for each, and so has the proxy; some need more for themselves.
    let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
    let many = MANY.min(descriptors.saturating_sub(1000) / 2);
    if many < 2 * FEW {
        board.note(format!("idle connections: not measured with {descriptors} descriptors"));
        return String::new();
    }
    for target in &field.targets[1..] {
        match once(target, many) {
            Ok([before, few, all]) => {
                board.add("memory before", target.name, before / 1024.0);
                board.add("memory many", target.name, all / 1024.0);
                board.add("memory each", target.name, (all - few) / (many - FEW) as f64);
                eprintln!("idle, {}: {:.2} KiB a connection", target.name, (all - few) / (many - FEW) as f64);
            }
            Err(error) => board.note(format!("{} with {many} idle connections: {error}", target.name)),
        }
    }
    let column = |measure: &str, heading: String, digits| Column { measure: measure.into(), heading, digits };
    let columns = [
        column("memory before", "MiB without".into(), 1),
        column("memory many", format!("MiB with {many}"), 1),
        column("memory each", format!("KiB each, from {FEW} to {many}"), 2),
    ];
    let names: Vec<&str> = field.targets.iter().map(|target| target.name).collect();
    format!("Idle connections (memory is PSS, after what ran before; n = 1)\n\n{}\n", board.table(&names, &columns))
}

fn once(target: &Target, many: usize) -> Result<[f64; 3], String> {
    let memory = || target.process.map_or(f64::NAN, |process| measure::memory(process) as f64);
    let request = || Request::put(target.address, 100, &target.fields);
    let before = memory();
    let mut few = Load::connect(target.address, request(), FEW)?;
    few.once_each()?;
    thread::sleep(Duration::from_millis(200));
    let with_few = memory();
    let mut rest = Load::connect(target.address, request(), many - FEW)?;
    rest.once_each()?;
    thread::sleep(Duration::from_millis(200));
    Ok([before, with_few, memory()])
}
