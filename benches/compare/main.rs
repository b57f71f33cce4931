//! epochgate beside nginx, HAProxy and Envoy, in one run on one machine: `make bench` (docs/performance.md).
//!
//! Every proxy has the first core for itself and one worker; the load and the upstream share the second. Repetitions
//! are interleaved target by target, and ratios are taken within a repetition, so that what else the machine does meets
//! all of them. It prints; nothing is asserted. What is not on the machine is left out, and said.

#[path = "../../tests/support/mod.rs"]
mod support;

mod board;
mod callgrind;
mod configs;
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

use std::fs;
use std::path::Path;
use std::time::Duration;

use board::Board;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use shape::Shape;
use targets::Field;

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
            repeat: number("EPOCHGATE_BENCH_REPEAT", 5.0).max(1.0) as usize,
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
    let plan = Plan::of_environment();
    let cores = pin::cores();
    let &[proxy, others, ..] = &cores[..] else {
        eprintln!("two cores are needed: one for the proxy, one for the load and the upstream");
        std::process::exit(1);
    };
    let (proxy, others) = (&[proxy], &[others]);
    let count = std::thread::available_parallelism().map_or(2, usize::from);
    raise_descriptors();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let upstream = upstream::start(others);
    let shape = Shape::plain(proxy, upstream);
    let began = measure::busy();
    eprintln!("starting; load average {began}; {} times {:?} each", plan.repeat, plan.window);
    let mut field = Field::start(folder.path(), &shape);
    if plan.has("http1") {
        field.add_ungated(&folder.path().join("ungated"), &shape);
    }
    pin::this_thread(others);

    let mut board = Board::default();
    field.missing.iter().for_each(|missing| board.note(missing.clone()));
    let mut report = String::new();
    if plan.has("http1") {
        report.push_str(&http1::run(&plan, &field, &mut board));
    }
    if plan.has("paced") {
        report.push_str(&paced::run(&plan, &field, &mut board));
    }
    if plan.has("idle") {
        report.push_str(&idle::run(&field, &mut board));
    }
    if plan.has("large") {
        report.push_str(&large::run(&plan, &field, &mut board));
    }
    if plan.has("http2") {
        report.push_str(&http2::run(&plan, &field, folder.path(), [proxy, others], &mut board));
    }
    if plan.has("connections") {
        report.push_str(&growth::connections(&plan, &field, &mut board));
    }
    if plan.has("syscalls") {
        report.push_str(&syscalls::run(&field, folder.path(), proxy, &mut board));
    }
    drop(field);
    if plan.has("stalled") {
        report.push_str(&stalled::run(&folder.path().join("stalled"), proxy, &mut board));
    }
    if plan.has("two_cores") {
        report.push_str(&two_cores::run(&plan, &folder.path().join("two"), &[proxy[0], others[0]], &mut board));
        pin::this_thread(others);
    }
    if plan.has("start") {
        report.push_str(&start::run(&plan, &folder.path().join("start"), &shape, &mut board));
    }
    if plan.has("resources") {
        report.push_str(&growth::resources(&plan, &folder.path().join("resources"), &shape, &mut board));
    }
    if plan.has("handoffs") {
        report.push_str(&handoffs::run(&plan, upstream, [proxy, others], &mut board));
    }
    if plan.has("instructions") {
        report.push_str(&instructions::run(&folder.path().join("callgrind"), &shape, &mut board));
    }
    finish(&report, &board, &began, count);
}

fn finish(report: &str, board: &Board, began: &str, cores: usize) {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").to_owned();
    let processor = processor.trim_start_matches([' ', '\t', ':']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let ended = measure::busy();
    println!("\n{report}");
    let goals = goals::table(board);
    if !goals.is_empty() {
        println!("Goals\n\n{goals}");
    }
    println!("{processor}, {cores} cores, Linux {}; load average {began} before, {ended} after.", kernel.trim());
    board.notes.iter().for_each(|note| println!("- {note}"));
    let about = json!({ "processor": processor, "cores": cores, "kernel": kernel.trim(), "load": [began, ended] });
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare.json");
    match fs::write(&file, format!("{:#}\n", board.json(about))) {
        Ok(()) => eprintln!("every sample is in {}", file.display()),
        Err(error) => eprintln!("{}: {error}", file.display()),
    }
    if let Some(file) = std::env::var_os("EPOCHGATE_BENCH_SVG").filter(|file| !file.is_empty()) {
        let file = Path::new(&file);
        let said = fs::write(file, picture::draw(board));
        eprintln!(
            "the picture: {}: {}",
            file.display(),
            said.map_or_else(|error| error.to_string(), |()| "written".into())
        );
    }
}

/// As many descriptors as this user may have, here and in what is started.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // A refusal shows later, where there are too few.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
