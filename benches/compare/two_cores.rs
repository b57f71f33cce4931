//! Two workers each on two cores that nobody has for himself: the load and the upstream run there too, and the kernel
//! says who runs where.

use std::path::Path;

use crate::Plan;
use crate::board::{Board, Column};
use crate::http1::{self, Scene};
use crate::pin;
use crate::shape::Shape;
use crate::targets::Field;
use crate::upstream;

const SCENE: Scene = Scene { name: "two cores", connections: 128, body: 100 };
/// Requests a second.
pub const RATE: &str = "rate two cores";
/// CPU of a request.
pub const CPU: &str = "cpu two cores";

/// Runs it for every target in turn; the table. The thread is on these cores from then on.
pub fn run(plan: &Plan, folder: &Path, cores: &[usize], board: &mut Board) -> String {
    pin::this_thread(cores);
    let shape = Shape { workers: 2, ..Shape::plain(cores, upstream::start(cores)) };
    let field = Field::start(folder, &shape);
    for repetition in 1..=plan.repeat {
        let line = http1::turn(plan, &SCENE, field.in_turn(repetition), board);
        eprintln!("two cores {repetition}/{}, µs of CPU a request:{line}", plan.repeat);
    }
    let column =
        |measure: &str, heading: &str, digits| Column { measure: measure.into(), heading: heading.into(), digits };
    let columns = [column(RATE, "requests a second", 0), column(CPU, "CPU of a PUT, µs", 1)];
    let names: Vec<&str> = field.targets.iter().map(|target| target.name).collect();
    format!(
        "Two workers, two cores, nothing pinned, {} connections, 100 B (n = {})\n\n{}\n{}\n",
        SCENE.connections,
        plan.repeat,
        board.table(&names, &columns),
        board.ratios(&crate::OURS, &crate::PEERS, &columns)
    )
}
