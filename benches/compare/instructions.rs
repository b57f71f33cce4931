//! User-space instructions and allocations of a request, with callgrind: the same on every machine and under any load.
//!
//! Each process is run twice, with few requests and with many. What its busiest thread did more in the second run is
//! what the requests cost: starting, stopping and the threads that only keep time cancel out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::OURS;
use crate::board::{Board, Column};
use crate::epochgate::{Pair, Role};
use crate::load::Load;
use crate::running::{Wrap, find};
use crate::targets::{EPOCH, Peer};
use crate::wire::Request;

const FEW: u64 = 400;
const MANY: u64 = 2400;
const CONNECTIONS: usize = 16;
const TARGETS: [&str; 4] = ["nginx", "haproxy", "guard", "stamp"];
/// What allocates, under the names of the C library.
const ALLOCATE: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// rustix asks the kernel with prctl where the vDSO is; valgrind has taken it away and does not know that question, so
/// that the process would end there. Where prctl fails, rustix asks in the way that valgrind answers. The tracer runs
/// beside the process (-D), and looks at nothing else.
const WITHOUT_PRCTL: [&str; 10] =
    ["strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=prctl", "-e", "inject=prctl:error=EINVAL"];

/// What one thread did.
#[derive(Clone, Copy, Default)]
struct Done {
    instructions: u64,
    allocations: u64,
}

/// Runs it for every target once; the table.
pub fn run(folder: &Path, upstream: SocketAddr, core: usize, board: &mut Board) -> String {
    if find("valgrind").is_none() {
        board.note("instructions: valgrind is not there".to_owned());
        return String::new();
    }
    for target in TARGETS {
        if OURS.contains(&target) && find("strace").is_none() {
            board.note(format!("instructions of {target}: strace is not there"));
            continue;
        }
        let runs = [FEW, MANY].map(|count| once(folder, target, upstream, core, count));
        let [Ok(few), Ok(many)] = &runs else {
            runs.into_iter().filter_map(Result::err).for_each(|error| board.note(format!("{target}: {error}")));
            continue;
        };
        let more = many.iter().map(|(thread, many)| {
            let few = few.get(thread).copied().unwrap_or_default();
            let requests = (MANY - FEW) as f64;
            let each = |many: u64, few: u64| many.saturating_sub(few) as f64 / requests;
            (each(many.instructions, few.instructions), each(many.allocations, few.allocations))
        });
        if let Some((instructions, allocations)) = more.max_by(|one, other| one.0.total_cmp(&other.0)) {
            eprintln!("instructions, {target}: {instructions:.0}, allocations {allocations:.2}");
            board.add("instructions", target, instructions);
            board.add("allocations", target, allocations);
        }
    }
    let column =
        |measure: &str, heading: &str, digits| Column { measure: measure.into(), heading: heading.into(), digits };
    let columns =
        [column("instructions", "user instructions of a PUT", 0), column("allocations", "allocations of a PUT", 2)];
    format!("callgrind, {CONNECTIONS} connections, 100 B\n\n{}\n", board.table(&TARGETS, &columns))
}

/// Runs one under callgrind for so many requests; what each of its threads did.
fn once(
    folder: &Path,
    name: &str,
    upstream: SocketAddr,
    core: usize,
    count: u64,
) -> Result<BTreeMap<String, Done>, String> {
    let folder = folder.join(format!("{name}-{count}"));
    let out = folder.join("out");
    fs::create_dir_all(&out).map_err(|error| error.to_string())?;
    let file = format!("--callgrind-out-file={}/callgrind", out.display());
    let wrap = |tools: &[&str]| {
        let callgrind = ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes", &file];
        Wrap(tools.iter().chain(&callgrind).map(|&part| part.to_owned()).collect())
    };
    let send = |to, fields: &str| -> Result<(), String> {
        Load::connect(to, Request::put(to, 100, fields), CONNECTIONS)?.exactly(count).map(drop)
    };
    match Peer::ALL.into_iter().find(|peer| peer.name() == name) {
        Some(peer) => {
            let program = peer.program().ok_or("not found")?;
            let mut plan = peer.plan(&folder.join("run"), upstream);
            if peer == Peer::Nginx {
                // Its worker writes nothing when the master ends it: have one process be both.
                plan.arguments.extend(["-g", "master_process off;"].map(str::to_owned));
            }
            let mut process = plan.launch(&program, core, &wrap(&[]));
            send(plan.listen, EPOCH)?;
            process.terminate();
            process.wait(crate::support::process::LONG);
        }
        None => {
            let role = if name == "guard" { Role::Guard } else { Role::Stamp };
            let mut pair = Pair::start_one_wrapped(&folder.join("run"), upstream, core, role, &wrap(&WITHOUT_PRCTL));
            let fields = pair.fields(role);
            let side = pair.side(role);
            send(side.listen, &fields)?;
            side.stop();
        }
    }
    read(&out)
}

/// What callgrind wrote: one file a thread, in their order.
fn read(folder: &Path) -> Result<BTreeMap<String, Done>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut all = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let done = parse(&text);
        if done.instructions > 0 {
            all.insert(format!("{:03}", all.len()), done);
        }
    }
    if all.is_empty() { Err("callgrind wrote nothing".to_owned()) } else { Ok(all) }
}

/// A function has a number, and a name where the number comes first: `cfn=(12) malloc`, later `cfn=(12)`. The line
/// after it says how often it was called.
fn parse(text: &str) -> Done {
    let mut names: HashMap<&str, bool> = HashMap::new();
    let mut done = Done::default();
    let mut allocates = false;
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = function.split_once(") ").unwrap_or((function.trim_end_matches(')'), ""));
            if !name.is_empty() {
                names.insert(number, ALLOCATE.contains(&name.split(['\'', '@']).next().unwrap_or(name)));
            }
            allocates = line.starts_with('c') && names.get(number).copied().unwrap_or(false);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if allocates {
                let count = calls.split(' ').next().and_then(|count| count.parse::<u64>().ok());
                done.allocations += count.unwrap_or(0);
            }
        } else if let Some(totals) = line.strip_prefix("totals: ") {
            done.instructions = totals.split(' ').next().and_then(|total| total.parse().ok()).unwrap_or(0);
        }
    }
    done
}
