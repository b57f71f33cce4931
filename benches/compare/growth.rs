//! How the guard's cost grows: with resources, with busy connections, with epochs.

use std::path::Path;
use std::time::Duration;

use crate::Plan;
use crate::board::{Board, Column};
use crate::callgrind;
use crate::epochgate::{Pair, Role, Setup};
use crate::http1::{self, Scene};
use crate::load::Load;
use crate::measure;
use crate::running::find;
use crate::shape::Shape;
use crate::targets::Field;
use crate::wire::Request;

const RESOURCES: [usize; 4] = [1, 10, 1000, 10_000];
/// Under callgrind a start with ten thousand takes too long; what grows shows from one to a thousand.
const COUNTED: [usize; 3] = [1, 10, 1000];
/// As many connections as there are requests that differ.
const CONNECTIONS: usize = 16;

const BUSY: [Scene; 5] = [
    Scene { name: "1 busy", connections: 1, body: 100 },
    Scene { name: "16 busy", connections: 16, body: 100 },
    Scene { name: "128 busy", connections: 128, body: 100 },
    Scene { name: "1024 busy", connections: 1024, body: 100 },
    Scene { name: "9500 busy", connections: 9500, body: 100 },
];

/// Runs it with guards of more and more resources, each with a leader of all of them; the table.
pub fn resources(plan: &Plan, folder: &Path, shape: &Shape, board: &mut Board) -> String {
    let repeat = plan.repeat.min(3);
    let names = RESOURCES.map(|count| format!("{count} resources"));
    for (count, name) in RESOURCES.into_iter().zip(&names) {
        eprintln!("{name}: starting");
        let setup = Setup { resources: count, ..Setup::of(shape) };
        let mut pair = Pair::start(&folder.join(count.to_string()), &setup);
        let requests = requests(&mut pair, count);
        // It would renew its lease meanwhile; what it leads stays what its guard admits.
        pair.side(Role::Stamp).process.pause();
        for repetition in 1..=repeat {
            let cpu = busy(plan, &mut pair, &requests).unwrap_or_else(|error| {
                board.note(format!("{name}: {error}"));
                f64::NAN
            });
            board.add("cpu resources", name, cpu);
            eprintln!("{name} {repetition}/{repeat}: {cpu:.1} µs of CPU a request");
        }
        pair.side(Role::Stamp).process.resume();
    }
    if find("valgrind").is_some() && find("strace").is_some() {
        for count in COUNTED {
            let name = format!("{count} resources");
            match counted(&folder.join(format!("callgrind-{count}")), shape, count) {
                Ok(instructions) => board.add("instructions resources", &name, instructions),
                Err(error) => board.note(format!("{name}: {error}")),
            }
        }
    }
    let columns = [
        Column { measure: "cpu resources".into(), heading: "CPU of a PUT at the guard, µs".into(), digits: 1 },
        Column { measure: "instructions resources".into(), heading: "user instructions".into(), digits: 0 },
    ];
    let rows: Vec<&str> = names.iter().map(String::as_str).collect();
    format!(
        "Resources of a guard, {CONNECTIONS} connections with a resource each, 100 B\n\n{}\n",
        board.table(&rows, &columns)
    )
}

/// PUTs to as many resources as there are connections, evenly spread.
fn requests(pair: &mut Pair, count: usize) -> Vec<Request> {
    let shards = (0..count.min(CONNECTIONS)).map(|index| index * count / count.min(CONNECTIONS));
    let to = pair.side(Role::Guard).listen;
    let one = |shard: usize| {
        let field = format!("Fencing-Epoch: {}\r\n", pair.stamp_of(&format!("many/{shard}")));
        Request::put_at(&format!("/many/{shard}/7"), to, 100, &field)
    };
    shards.map(one).collect()
}

fn busy(plan: &Plan, pair: &mut Pair, requests: &[Request]) -> Result<f64, String> {
    let side = pair.side(Role::Guard);
    let mut load = Load::connect_mixed(side.listen, requests.to_vec(), CONNECTIONS)?;
    load.closed((plan.window / 4).max(Duration::from_millis(100)), 1000)?;
    let before = measure::cpu(side.process.id());
    let outcome = load.closed(plan.window, http1::LEAST)?;
    Ok((measure::cpu(side.process.id()) - before) as f64 / 1000.0 / outcome.requests as f64)
}

fn counted(folder: &Path, shape: &Shape, count: usize) -> Result<f64, String> {
    let cost = callgrind::measure(folder, true, |folder, wrap, sent| {
        let setup = Setup { resources: count, wrap: Some((Role::Guard, wrap.clone())), ..Setup::of(shape) };
        let mut pair = Pair::start(folder, &setup);
        let requests = requests(&mut pair, count);
        let side = pair.side(Role::Guard);
        Load::connect_mixed(side.listen, requests, CONNECTIONS)?.exactly(sent)?;
        side.stop();
        Ok(())
    })?;
    eprintln!("{count} resources: {:.0} instructions", cost.instructions);
    Ok(cost.instructions)
}

/// Runs it with more and more busy connections, beside HAProxy; the table.
pub fn connections(plan: &Plan, field: &Field, board: &mut Board) -> String {
    let repeat = plan.repeat.min(3);
    for repetition in 1..=repeat {
        for scene in &BUSY {
            let targets = field.targets.iter().filter(|target| ["haproxy", "guard"].contains(&target.name));
            let line = http1::turn(plan, scene, targets, board);
            eprintln!("connections {repetition}/{repeat}, {}, µs of CPU a request:{line}", scene.name);
        }
    }
    let columns =
        BUSY.map(|scene| Column { measure: format!("cpu {}", scene.name), heading: scene.name.to_owned(), digits: 1 });
    format!(
        "Busy connections: CPU of a PUT, µs, 100 B\n\n{}\n{}\n",
        board.table(&["haproxy", "guard"], &columns),
        board.ratios(&["guard"], &["haproxy"], &columns)
    )
}
