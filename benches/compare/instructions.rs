//! User-space instructions and allocations of a request beside those of the others, with callgrind.

use std::path::Path;

use crate::board::{Board, Column};
use crate::callgrind::{self, CONNECTIONS, Cost};
use crate::epochgate::{Pair, Role, Setup};
use crate::running::find;
use crate::shape::Shape;
use crate::support::process::LONG;
use crate::targets::{EPOCH, Peer, UNGATED, ungated};

const TARGETS: [&str; 5] = ["nginx", "haproxy", "guard", UNGATED, "stamp"];

/// Runs it for every target once; the table.
pub fn run(folder: &Path, shape: &Shape, board: &mut Board) -> String {
    if find("valgrind").is_none() {
        board.note("instructions: valgrind is not there".to_owned());
        return String::new();
    }
    for target in TARGETS {
        if target == UNGATED && ungated().is_none() {
            continue;
        }
        if !is_peer(target) && find("strace").is_none() {
            board.note(format!("instructions of {target}: strace is not there"));
            continue;
        }
        match once(&folder.join(target), target, shape) {
            Ok(Cost { instructions, allocations }) => {
                eprintln!("instructions, {target}: {instructions:.0}, allocations {allocations:.2}");
                board.add("instructions", target, instructions);
                board.add("allocations", target, allocations);
            }
            Err(error) => board.note(format!("{target}: {error}")),
        }
    }
    let column =
        |measure: &str, heading: &str, digits| Column { measure: measure.into(), heading: heading.into(), digits };
    let columns =
        [column("instructions", "user instructions of a PUT", 0), column("allocations", "allocations of a PUT", 2)];
    format!("callgrind, {CONNECTIONS} connections, 100 B (n = 1)\n\n{}\n", board.table(&TARGETS, &columns))
}

fn is_peer(name: &str) -> bool {
    Peer::ALL.iter().any(|peer| peer.name() == name)
}

fn once(folder: &Path, name: &str, shape: &Shape) -> Result<Cost, String> {
    let Some(peer) = Peer::ALL.into_iter().find(|peer| peer.name() == name) else {
        let role = if name == "stamp" { Role::Stamp } else { Role::Guard };
        let ungated = ungated().filter(|_| name == UNGATED);
        return Pair::cost(folder, role, &Setup { ungated, ..Setup::of(shape) }, callgrind::send);
    };
    let program = peer.program().ok_or("not found")?;
    callgrind::measure(folder, false, |folder, wrap, count| {
        let mut plan = peer.plan(folder, shape);
        if peer == Peer::Nginx {
            // Its worker writes nothing when the master ends it: have one process be both.
            plan.arguments.extend(["-g", "master_process off;"].map(str::to_owned));
        }
        let mut process = plan.launch(&program, wrap);
        callgrind::send(plan.listen, EPOCH, count)?;
        process.terminate();
        process.wait(LONG);
        Ok(())
    })
}
