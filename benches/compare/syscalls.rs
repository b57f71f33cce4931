//! System calls of a request, with strace, which slows a proxy down: events come in smaller batches than without, so
//! that waits count for more. Reads and writes are as they are.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::board::{Board, Column};
use crate::load::Load;
use crate::measure;
use crate::running::{Running, Wrap, find};
use crate::support::process::{LONG, Launch};
use crate::targets::{Field, Target};
use crate::wire::Request;

const REQUESTS: u64 = 5000;
const BODIES: [(u64, &str); 2] = [(100, "100 B"), (64 * 1024, "64 KiB")];

/// Runs it for every target once; the table.
pub fn run(field: &Field, folder: &Path, cores: &[usize], board: &mut Board) -> String {
    if find("strace").is_none() {
        board.note("system calls: strace is not there".to_owned());
        return String::new();
    }
    for target in &field.targets {
        let Some(process) = target.process else { continue };
        for (body, name) in BODIES {
            match once(target, process, body, folder, cores) {
                Ok(calls) => board.add(&format!("calls {name}"), target.name, calls),
                Err(error) => board.note(format!("system calls of {} with {name}: {error}", target.name)),
            }
        }
        eprintln!("syscalls, {}: done", target.name);
    }
    let columns = BODIES.map(|(_, name)| Column { measure: format!("calls {name}"), heading: name.into(), digits: 2 });
    let names: Vec<&str> = field.targets.iter().map(|target| target.name).collect();
    format!("System calls of a PUT, 16 connections (n = 1)\n\n{}\n", board.table(&names, &columns))
}

fn once(target: &Target, process: u32, body: u64, folder: &Path, cores: &[usize]) -> Result<f64, String> {
    let mut load = Load::connect(target.address, Request::put(target.address, body, &target.fields), 16)?;
    load.exactly(1000)?;
    let calls = counted(&[process], folder, cores, || load.exactly(REQUESTS).map(drop))?;
    Ok(calls / REQUESTS as f64)
}

/// How many system calls these processes, and those that they started, made while something was done.
///
/// # Errors
/// What `work` says, or that strace counted nothing.
pub fn counted(
    processes: &[u32],
    folder: &Path,
    cores: &[usize],
    work: impl FnOnce() -> Result<(), String>,
) -> Result<f64, String> {
    let out = folder.join("strace");
    let mut launch = Launch::program("strace").args(["-c", "-f", "-o"]).arg(&out);
    for process in processes.iter().flat_map(|&process| measure::family(process)) {
        launch = launch.arg("-p").arg(process.to_string());
    }
    let mut strace: Running = Wrap::none().start(launch, cores);
    strace.await_words("attached", LONG);
    thread::sleep(Duration::from_millis(200));
    let done = work();
    strace.signal(Signal::INT);
    strace.wait(LONG);
    done?;
    let text = fs::read_to_string(&out).map_err(|error| error.to_string())?;
    // The last line: percent, seconds, microseconds a call, calls, errors, "total".
    let total = text.lines().find(|line| line.ends_with(" total")).ok_or("strace counted nothing")?;
    let calls = total.split_whitespace().nth(3).and_then(|calls| calls.parse::<f64>().ok());
    calls.ok_or_else(|| format!("strace said {total}"))
}
