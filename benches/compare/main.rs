//! epochgate beside nginx, HAProxy and Envoy, in one run on one machine: `make bench` (docs/performance.md).
//!
//! The proxies are on the first core, one worker each: one is under load at a time, and the others idle. The load and the
//! upstream share the second. Repetitions are interleaved target by target, each beginning with another, and ratios are taken within a repetition, so that what else the machine does meets
//! all of them. It prints; nothing is asserted. What is not on the machine is left out, and said.

#[path = "../../tests/support/mod.rs"]
mod support;

mod board;
mod callgrind;
mod configs;
mod databases;
mod epochgate;
mod goals;
mod growth;
mod handoffs;
mod http1;
mod http2;
mod idle;
mod instructions;
mod large;
mod load;
mod measure;
mod paced;
mod picture;
mod pin;
mod place;
mod report;
mod running;
mod shape;
mod stalled;
mod start;
mod syscalls;
mod targets;
mod two_cores;
mod upstream;
mod upstream2;
mod wire;

use std::path::Path;
use std::time::Duration;

use board::Board;
use place::Place;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shape::Shape;
use targets::Field;
use upstream::Apart;

/// The names of epochgate's roles in the tables.
pub const OURS: [&str; 2] = ["guard", "stamp"];
/// What they are compared with.
pub const PEERS: [&str; 3] = ["nginx", "haproxy", "envoy"];

/// What the environment says of a run; `make bench` sets it.
pub struct Plan {
    /// How often everything is repeated.
    pub repeat: usize,
    /// How long a target is under load, each time.
    pub window: Duration,
    /// Parts to run; all where empty.
    only: Vec<String>,
}

impl Plan {
    fn of_environment() -> Plan {
        let number = |name: &str, default: f64| {
            let text = std::env::var(name).ok().filter(|text| !text.is_empty());
            text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
        };
        let only = std::env::var("EPOCHGATE_BENCH_ONLY").unwrap_or_default();
        Plan {
            repeat: number("EPOCHGATE_BENCH_REPEAT", 4.0).max(1.0) as usize,
            window: Duration::from_secs_f64(number("EPOCHGATE_BENCH_WINDOW", 1.0).max(0.05)),
            only: only.split([' ', ',']).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        }
    }

    fn has(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

fn main() {
    // `cargo test --all-targets` starts benches too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    raise_descriptors();
    if std::env::args().any(|argument| argument == upstream::ALONE) {
        return Apart::be();
    }
    if std::env::args().any(|argument| argument == databases::ALONE) {
        return databases::be();
    }
    let plan = Plan::of_environment();
    if !plan.only.is_empty() && report::renews() {
        eprintln!(
            "PAGE= and SVG= are renewed by a whole run, since what ONLY= leaves out would be lost from them: leave ONLY= out, \
             or both of them, and take the tables from standard output"
        );
        std::process::exit(2);
    }
    let cores = pin::cores();
    let &[proxy, others, ..] = &cores[..] else {
        eprintln!("two cores are needed: one for the proxy, one for the load and the upstream");
        std::process::exit(1);
    };
    let (proxy, others) = (&[proxy], &[others]);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let upstream = upstream::start(others);
    let shape = Shape::plain(proxy, upstream);
    let place = Place::here(&plan);
    eprintln!("starting; {} times {:?} each", plan.repeat, plan.window);
    pin::this_thread(others);

    let mut board = Board::default();
    let mut tables = String::new();
    let folder = folder.path();
    if BESIDE.iter().any(|part| plan.has(part)) {
        tables.push_str(&beside(&plan, folder, &shape, others, &mut board));
    }
    if plan.has("two_cores") {
        tables.push_str(&two_cores::run(&plan, &folder.join("two"), &[proxy[0], others[0]], &mut board));
        pin::this_thread(others);
    }
    if plan.has("stalled") {
        tables.push_str(&stalled::run(&folder.join("stalled"), proxy, &mut board));
    }
    if plan.has("start") {
        tables.push_str(&start::run(&plan, &folder.join("start"), &shape, &mut board));
    }
    if plan.has("connections") {
        tables.push_str(&growth::connections(&plan, &folder.join("busy"), [proxy, others], &mut board));
    }
    if plan.has("resources") {
        tables.push_str(&growth::resources(&plan, &folder.join("resources"), &shape, &mut board));
    }
    if plan.has("handoffs") {
        tables.push_str(&handoffs::run(&plan, upstream, [proxy, others], &mut board));
    }
    if databases::PARTS.iter().any(|part| plan.has(part)) {
        tables.push_str(&databases::run(&plan, &folder.join("databases"), [proxy, others], &mut board));
    }
    if plan.has("instructions") {
        tables.push_str(&instructions::run(&folder.join("callgrind"), &shape, &mut board));
    }
    report::finish(&tables, &board, &place);
}

/// The parts that want all proxies running.
const BESIDE: [&str; 6] = ["http1", "paced", "idle", "large", "http2", "syscalls"];

fn beside(plan: &Plan, folder: &Path, shape: &Shape, others: &[usize], board: &mut Board) -> String {
    let mut field = Field::start(folder, shape);
    if plan.has("http1") {
        field.add_ungated(&folder.join("ungated"), shape);
    }
    field.missing.iter().for_each(|missing| board.note(missing.clone()));
    let mut tables = String::new();
    if plan.has("http1") {
        tables.push_str(&http1::run(plan, &field, board));
    }
    if plan.has("paced") {
        tables.push_str(&paced::run(plan, &field, board));
    }
    if plan.has("idle") {
        tables.push_str(&idle::run(&field, board));
    }
    if plan.has("large") {
        tables.push_str(&large::run(plan, &field, board));
    }
    if plan.has("http2") {
        tables.push_str(&http2::run(plan, &field, folder, [&shape.cores, others], board));
    }
    if plan.has("syscalls") {
        tables.push_str(&syscalls::run(&field, folder, &shape.cores, board));
    }
    tables
}

/// As many descriptors as this user may have, here and in what is started.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // A refusal shows later, where there are too few.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
