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
use crate::upstream::Apart;
use crate::wire::Request;

const RESOURCES: [usize; 4] = [1, 10, 1000, 10_000];
/// Under callgrind a start with ten thousand takes too long; what grows shows from one to a thousand.
const COUNTED: [usize; 2] = [1, 1000];
/// As many connections as there are requests that differ.
const CONNECTIONS: usize = 16;

const BUSY: [Scene; 5] = [
    Scene { name: "1 busy", connections: 1, body: 100 },
    Scene { name: "16 busy", connections: 16, body: 100 },
    Scene { name: "128 busy", connections: 128, body: 100 },
    Scene { name: "1024 busy", connections: 1024, body: 100 },
    Scene { name: "9500 busy", connections: 9500, body: 100 },
];

/// Runs it with guards of more and more resources; the table.
pub fn resources(plan: &Plan, folder: &Path, shape: &Shape, board: &mut Board) -> String {
    let repeat = plan.repeat.min(3);
    let names = RESOURCES.map(|count| count.to_string());
    let mut pairs = RESOURCES.map(|count| {
        eprintln!("{count} resources: starting");
        let setup = Setup { resources: count, led: led(count), ..Setup::of(shape) };
        let mut pair = Pair::start(&folder.join(count.to_string()), &setup);
        let requests = requests(&mut pair, &setup.led);
        (pair, requests)
    });
    for repetition in 1..=repeat {
        for ((pair, requests), name) in pairs.iter_mut().zip(&names) {
            let cpu = busy(plan, pair, requests).unwrap_or_else(|error| {
                board.note(format!("{name} resources: {error}"));
                f64::NAN
            });
            board.add("cpu resources", name, cpu);
            eprintln!("{name} resources {repetition}/{repeat}: {cpu:.1} µs of CPU a request");
        }
    }
    drop(pairs);
    if find("valgrind").is_some() && find("strace").is_some() {
        for count in COUNTED {
            let name = count.to_string();
            match counted(&folder.join(format!("callgrind-{count}")), shape, count) {
                Ok(instructions) => board.add("instructions resources", &name, instructions),
                Err(error) => board.note(format!("{name} resources: {error}")),
            }
        }
    }
    let columns = [
        Column { measure: "cpu resources".into(), heading: "CPU of a PUT at the guard, µs".into(), digits: 1 },
        Column { measure: "instructions resources".into(), heading: "user instructions".into(), digits: 0 },
    ];
    let rows: Vec<&str> = names.iter().map(String::as_str).collect();
    format!(
        "Resources of a guard, {CONNECTIONS} connections with a resource each, 100 B (CPU: n = {repeat}; instructions: n = 1)\n\n{}\n",
        board.rows("resources", &rows, &columns)
    )
}

/// As many resources as there are connections, evenly spread. The embedded coordinator holds no ten thousand elections;
/// what has no leader is at the guard all the same.
fn led(count: usize) -> Vec<usize> {
    let led = count.min(CONNECTIONS);
    (0..led).map(|index| index * count / led).collect()
}

/// A PUT to each of them.
fn requests(pair: &mut Pair, led: &[usize]) -> Vec<Request> {
    let to = pair.side(Role::Guard).listen;
    let one = |shard: usize| {
        let field = format!("Fencing-Epoch: {}\r\n", pair.stamp_of(&format!("many/{shard}")));
        Request::put_at(&format!("/many/{shard}/7"), to, 100, &field)
    };
    led.iter().map(|&shard| one(shard)).collect()
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
        let wrap = Some((Role::Guard, wrap.clone()));
        let setup = Setup { resources: count, led: led(count), wrap, ..Setup::of(shape) };
        let mut pair = Pair::start(folder, &setup);
        let requests = requests(&mut pair, &setup.led);
        let side = pair.side(Role::Guard);
        Load::connect_mixed(side.listen, requests, CONNECTIONS)?.exactly(sent)?;
        side.stop();
        Ok(())
    })?;
    eprintln!("{count} resources: {:.0} instructions", cost.instructions);
    Ok(cost.instructions)
}

/// Runs it with more and more busy connections, beside HAProxy; the table.
pub fn connections(plan: &Plan, folder: &Path, cores: [&[usize]; 2], board: &mut Board) -> String {
    let repeat = plan.repeat.min(3);
    // Each has an upstream of its own, in a process of its own: all of these connections need descriptors there.
    let [proxy, others] = cores;
    let apart = ["haproxy", "guard"].map(|name| {
        let upstream = Apart::start(others);
        let field = Field::of(&folder.join(name), &Shape::plain(proxy, upstream.address), &[name]);
        (field, upstream)
    });
    for repetition in 1..=repeat {
        for scene in &BUSY {
            let mut apart = [&apart[0], &apart[1]];
            apart.rotate_left(repetition % 2);
            let targets = apart.iter().flat_map(|(field, _)| &field.targets).filter(|target| target.process.is_some());
            let line = http1::turn(plan, scene, targets, board);
            eprintln!("connections {repetition}/{repeat}, {}, µs of CPU a request:{line}", scene.name);
        }
    }
    let columns =
        BUSY.map(|scene| Column { measure: format!("cpu {}", scene.name), heading: scene.name.to_owned(), digits: 1 });
    format!(
        "Busy connections: CPU of a PUT, µs, 100 B (n = {repeat})\n\n{}\n{}\n",
        board.table(&["haproxy", "guard"], &columns),
        board.ratios(&["guard"], &["haproxy"], &columns)
    )
}
