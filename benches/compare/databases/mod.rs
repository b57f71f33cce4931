//! Databases: what a session through a guard costs beside pgbouncer, HAProxy and a loop that only copies.
//!
//! The server and its clients share one core, what is in between has the other. All that is in between runs all the time, and one
//! of it is under load.

mod copying;
mod in_target;
mod postgres;
mod redis;
mod resp;
mod stream;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::Plan;
use crate::board::{Board, Column};
use crate::measure;
use crate::pin;
use crate::running::{Running, Wrap};
use crate::support::haproxy::Haproxy;
use crate::support::process::{LONG, Launch, find_program};
use crate::support::scene::{Node, Scene};
use copying::Copying;

pub use copying::{ALONE, be};

/// What is compared, in the order of the tables.
pub const DIRECT: &str = "direct";
/// The pool that many have already.
pub const PGBOUNCER: &str = "pgbouncer";
/// In TCP mode.
pub const HAPROXY: &str = "haproxy tcp";
/// Reads and writes, and nothing else.
pub const COPY: &str = "copy loop";
/// Whose clients say their epoch themselves.
pub const GUARD: &str = "guard";
/// The stamp's part of what the two cost together.
pub const STAMP: &str = "stamp, of the two";
/// Both, one behind the other on the same core.
pub const BOTH: &str = "stamp + guard";

/// The parts of a run that are here.
pub const PARTS: [&str; 4] = ["postgres", "redis", "tcp", "in_target"];

/// Runs those that are wanted; the tables.
pub fn run(plan: &Plan, folder: &Path, cores: [&[usize]; 2], board: &mut Board) -> String {
    let mut tables = String::new();
    let postgres = ["postgres", "initdb", "psql", "pgbench"];
    if plan.has("postgres") && are_there("postgres", &[&postgres[..], &["pgbouncer", "haproxy"]].concat(), board) {
        tables.push_str(&postgres::run(plan, cores, board));
    }
    if plan.has("redis") && are_there("redis", &["redis-server", "redis-cli", "redis-benchmark", "haproxy"], board) {
        tables.push_str(&redis::run(plan, &folder.join("redis"), cores, board));
    }
    if plan.has("tcp") && are_there("tcp", &["haproxy"], board) {
        tables.push_str(&stream::run(plan, cores, board));
    }
    if plan.has("in_target") && are_there("in_target", &postgres, board) {
        tables.push_str(&in_target::run(plan, cores[1], board));
    }
    tables
}

/// Whether a part has all the programs that it needs; says which it has not.
fn are_there(part: &str, programs: &[&str], board: &mut Board) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| find_program(program).is_none()).collect();
    if !missing.is_empty() {
        board.note(format!("{part}: left out, without {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// One way to a server.
pub struct Way {
    pub name: &'static str,
    pub address: SocketAddr,
    /// What is in between; nothing on the direct one.
    pub processes: Vec<u32>,
}

/// A guard, and a stamp that leads.
pub struct Sidecars {
    pub guard: Node,
    stamp: Node,
    /// Last: it has their folders.
    _scene: Scene,
}

impl Sidecars {
    /// Starts them before a server; `protocol` is also the scheme of its URL.
    pub fn start(protocol: &str, server: SocketAddr, cores: &[usize]) -> Sidecars {
        pin::on(cores, || {
            // All of them share a core that is never idle: no lease is to run out over that.
            let scene = Scene::embedded().lease("30s");
            let says = format!("protocol: {protocol}");
            let node = |id: &str| scene.node(id).more("workers: 1").unrecorded();
            let guard = node("guard").guard(&format!("{protocol}://{server}"), &says).start();
            let stamp = node("orders-a").stamp(&format!("{protocol}://{}", guard.address()), &says).start();
            stamp.await_armed("orders");
            Sidecars { guard, stamp, _scene: scene }
        })
    }

    /// Starts the guard again in its place, under a tool.
    pub fn guard_under(&mut self, wrap: &Wrap, cores: &[usize]) -> Running {
        self.guard.stop();
        let file = self.guard.folder().join("epochgate.yaml");
        let mut guard = wrap.start(Launch::epochgate("guard").args(["run", "-c"]).arg(file), cores);
        guard.await_words("joined", LONG);
        guard
    }

    /// The leader's stamp.
    pub fn stamp(&self) -> String {
        let leader = self.stamp.get("/leader?resource=orders").json();
        leader["stamp"].as_str().expect("it leads, and goes on to").to_owned()
    }

    /// The leader's epoch.
    pub fn epoch(&self) -> String {
        let stamp = self.stamp();
        stamp.split(';').next().expect("a stamp begins with its epoch").to_owned()
    }
}

/// All of the ways to a server, running.
pub struct Ways {
    pub all: Vec<Way>,
    pub sidecars: Sidecars,
    _others: (Haproxy, Copying),
}

impl Ways {
    /// Starts what there is for every protocol.
    pub fn start(protocol: &str, server: SocketAddr, cores: &[usize]) -> Ways {
        let haproxy = pin::on(cores, || Haproxy::start(server, ""));
        let copying = Copying::start(server, cores);
        let sidecars = Sidecars::start(protocol, server, cores);
        let (guard, stamp) = (sidecars.guard.process.id(), sidecars.stamp.process.id());
        let way = |name, address, processes: &[u32]| Way { name, address, processes: processes.to_vec() };
        let all = vec![
            way(DIRECT, server, &[]),
            way(HAPROXY, haproxy.address, &[haproxy.process.id()]),
            way(COPY, copying.address, &[copying.process.id()]),
            way(GUARD, sidecars.guard.address(), &[guard]),
            // The stamp first: its part is told apart.
            way(BOTH, sidecars.stamp.address(), &[stamp, guard]),
        ];
        Ways { all, sidecars, _others: (haproxy, copying) }
    }

    /// Those of a repetition, which begins with another one each time.
    pub fn in_turn(&self, repetition: usize) -> Vec<&Way> {
        let mut order: Vec<&Way> = self.all.iter().collect();
        order.rotate_left(repetition % self.all.len());
        order
    }
}

/// What was done, and what it took.
pub struct Done {
    /// So much of it: transactions, commands, bytes.
    pub amount: f64,
    pub took: Duration,
}

/// Does something over one of the ways, and writes down how much of it was done in a second (over `per`), and the CPU of what is
/// in between for one of it, in µs (times `per`); what failed counts as not a number. CPU as words.
pub fn once(board: &mut Board, what: &str, way: &Way, per: f64, work: impl FnOnce() -> Result<Done, String>) -> String {
    let before: Vec<u64> = way.processes.iter().map(|&process| measure::cpu(process)).collect();
    let done = work();
    let spent = |(&process, before): (&u32, u64)| (measure::cpu(process) - before) as f64 / 1000.0;
    let spent: Vec<f64> = way.processes.iter().zip(before).map(spent).collect();
    let done = done.and_then(|done| if done.amount > 0.0 { Ok(done) } else { Err("nothing was done".to_owned()) });
    let (rate, each) = match &done {
        Ok(Done { amount, took }) => (amount / took.as_secs_f64() / per, per / amount),
        Err(error) => {
            board.note(format!("{what}, {}: {error}", way.name));
            (f64::NAN, f64::NAN)
        }
    };
    board.add(&format!("rate {what}"), way.name, rate);
    if way.name == BOTH {
        board.add(&format!("cpu {what}"), STAMP, spent[0] * each);
    }
    if spent.is_empty() {
        return format!("  {} –", way.name);
    }
    let cpu = spent.iter().sum::<f64>() * each;
    board.add(&format!("cpu {what}"), way.name, cpu);
    format!("  {} {cpu:.1}", way.name)
}

/// A column of what [`once`] wrote down.
pub fn column(measure: &str, what: &str, heading: &str, digits: usize) -> Column {
    Column { measure: format!("{measure} {what}"), heading: heading.to_owned(), digits }
}
