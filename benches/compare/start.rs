//! Cold start: from the start of the process to the first 200 through it.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::board::{Board, Column};
use crate::epochgate::{Pair, Role, Setup};
use crate::load::Load;
use crate::running::{Running, Wrap};
use crate::shape::Shape;
use crate::support::process::LONG;
use crate::targets::{EPOCH, Peer};
use crate::wire::Request;

/// Between two attempts to connect.
const TRY_AGAIN: Duration = Duration::from_micros(100);

const READ: &str = "start read";
const WRITE: &str = "start write";

/// Starts each in turn; the table.
pub fn run(plan: &Plan, folder: &Path, shape: &Shape, board: &mut Board) -> String {
    let mut peers = Vec::new();
    for peer in Peer::ALL {
        if let Some(program) = peer.program() {
            peers.push((peer, program, peer.plan(&folder.join(peer.name()), shape)));
        }
    }
    let mut pair = Pair::start(&folder.join("epochgate"), &Setup::of(shape));
    let fields = pair.fields(Role::Guard);
    let guard = pair.side(Role::Guard);
    let read = Request::get(guard.listen, "");
    let write = Request::put(guard.listen, 100, &fields);
    let repeat = plan.repeat.max(3);
    for _ in 0..repeat {
        for (peer, program, plan) in &peers {
            let request = Request::get(plan.listen, EPOCH);
            let first = first_answer(|| plan.launch_only(program, &Wrap::none()), plan.listen, &request);
            record(board, READ, peer.name(), first);
        }
        // A read passes a guard at once; a write has to wait until the guard is sure of its place and of the epoch.
        for (measure, request) in [(READ, &read), (WRITE, &write)] {
            guard.stop();
            let first = first_answer(|| guard.launch(), guard.listen, request);
            if let Some(running) = record(board, measure, "guard", first) {
                guard.process = running;
            }
        }
    }
    let column = |measure: &str, heading: &str| Column { measure: measure.into(), heading: heading.into(), digits: 1 };
    let columns = [column(READ, "first read, ms"), column(WRITE, "first write, ms")];
    format!(
        "Cold start, from the start of the process to the first 200 (n = {repeat}, in the order of the table)\n\n{}\n{}\n",
        board.table(&["nginx", "haproxy", "envoy", "guard"], &columns),
        board.ratios(&["guard"], &crate::PEERS, &columns[..1]),
    )
}

fn record(board: &mut Board, measure: &str, target: &str, first: Result<(Running, f64), String>) -> Option<Running> {
    match first {
        Ok((running, took)) => {
            eprintln!("{measure}, {target}: {took:.1} ms");
            board.add(measure, target, took);
            Some(running)
        }
        Err(error) => {
            board.add(measure, target, f64::NAN);
            board.note(format!("{measure}, {target}: {error}"));
            None
        }
    }
}

/// The process, and how long it took in milliseconds.
fn first_answer(launch: impl FnOnce() -> Running, to: SocketAddr, request: &Request) -> Result<(Running, f64), String> {
    let began = Instant::now();
    let running = launch();
    loop {
        let answered = Load::connect(to, request.clone(), 1).and_then(|mut load| load.exactly(1));
        match answered {
            Ok(_) => return Ok((running, began.elapsed().as_secs_f64() * 1000.0)),
            Err(error) if began.elapsed() > LONG => return Err(error),
            Err(_) => thread::sleep(TRY_AGAIN),
        }
    }
}
