//! User-space instructions and allocations of a request, with callgrind: nearly the same on every machine and under any
//! load. `instructions` prints them beside those of others; `tests/cost.rs` holds them below a bound.
//!
//! A process is run twice, with few requests and with many. What its busiest thread did more in the second run is what
//! the requests cost: starting, stopping and the threads that only keep time cancel out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::load::Load;
use crate::running::Wrap;
use crate::support::process::program;
use crate::wire::Request;

const FEW: u64 = 400;
const MANY: u64 = 2400;
/// How many connections the requests come on.
pub const CONNECTIONS: usize = 16;
/// What allocates, under the names of the C library.
const ALLOCATE: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// rustix asks the kernel with prctl where the vDSO is; valgrind has taken it away and does not know that question, so
/// that the process would end there. Where prctl fails, rustix asks in the way that valgrind answers. The tracer runs
/// beside the process (-D), and looks at nothing else.
const WITHOUT_PRCTL: [&str; 10] =
    ["strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=prctl", "-e", "inject=prctl:error=EINVAL"];

/// What one request costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Instructions in user space.
    pub instructions: f64,
    /// Calls of the C library's allocator.
    pub allocations: f64,
}

/// What one thread did.
#[derive(Clone, Copy, Default)]
struct Done {
    instructions: u64,
    allocations: u64,
}

/// What a process does to serve a request. `run` starts it under what it is given, in a folder of its own that is
/// there, has it serve that many requests, and ends it in order.
///
/// # Errors
/// What `run` says, or that callgrind wrote nothing.
pub fn measure(
    folder: &Path,
    is_rust: bool,
    mut run: impl FnMut(&Path, &Wrap, u64) -> Result<(), String>,
) -> Result<Cost, String> {
    let mut once = |count: u64| {
        let (own, out) = (folder.join(count.to_string()), folder.join(format!("{count}-out")));
        for folder in [&own, &out] {
            fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        run(&own, &wrap(&out, is_rust), count)?;
        read(&out)
    };
    let (few, many) = (once(FEW)?, once(MANY)?);
    let more = many.iter().map(|(thread, many)| {
        let few = few.get(thread).copied().unwrap_or_default();
        let each = |many: u64, few: u64| many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
        Cost {
            instructions: each(many.instructions, few.instructions),
            allocations: each(many.allocations, few.allocations),
        }
    });
    more.max_by(|one, other| one.instructions.total_cmp(&other.instructions)).ok_or("no thread ran".to_owned())
}

/// Sends so many requests with these fields, and waits for the answers.
pub type Sending = fn(SocketAddr, &str, u64) -> Result<(), String>;

/// Sends so many PUTs with a body of 100 bytes over HTTP/1.1.
///
/// # Errors
/// What went wrong.
pub fn send(to: SocketAddr, fields: &str, count: u64) -> Result<(), String> {
    Load::connect(to, Request::put(to, 100, fields), CONNECTIONS)?.exactly(count).map(drop)
}

fn wrap(out: &Path, is_rust: bool) -> Wrap {
    let file = format!("--callgrind-out-file={}/callgrind", out.display());
    let before: &[&str] = if is_rust { &WITHOUT_PRCTL } else { &[] };
    let valgrind = program("valgrind").display().to_string();
    let callgrind = [valgrind.as_str(), "-q", "--tool=callgrind", "--separate-threads=yes", &file];
    Wrap(before.iter().chain(&callgrind).map(|&part| part.to_owned()).collect())
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
