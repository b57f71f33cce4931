//! Redis: SET and GET, one command at a time on each connection and sixteen; CPU, system calls, instructions.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::copying::Copying;
use super::resp::{Command, Load};
use super::{BOTH, COPY, DIRECT, Done, GUARD, HAPROXY, STAMP, Sidecars, Way, Ways, column, once};
use crate::Plan;
use crate::board::{Board, Column};
use crate::callgrind::{self, Cost};
use crate::pin;
use crate::running::find;
use crate::support::process::{LONG, Launch};
use crate::support::redis::Redis;
use crate::syscalls;

const CONNECTIONS: usize = 50;
const DEPTHS: [usize; 2] = [1, 16];
/// redis-benchmark counts commands, not time: about a second's at each depth, through a relay.
const A_SECOND: [f64; 2] = [35_000.0, 350_000.0];
/// With strace on it, which makes each call many times as dear.
const TRACED: u64 = 20_000;

/// Runs all of it; the tables.
pub fn run(plan: &Plan, folder: &Path, cores: [&[usize]; 2], board: &mut Board) -> String {
    std::fs::create_dir_all(folder).expect("it is in a temporary folder");
    let [relays, others] = cores;
    let server = pin::on(others, Redis::start);
    let ways = Ways::start("redis", server.address, relays);
    let epoch = ways.sidecars.epoch();
    let connect = |way: &Way, command, depth| {
        let epoch = (way.name == GUARD).then_some(epoch.as_str());
        Load::connect(way.address, epoch, command, CONNECTIONS, depth)
    };
    for repetition in 1..=plan.repeat {
        for (depth, a_second) in DEPTHS.into_iter().zip(A_SECOND) {
            for command in Command::ALL {
                let (what, mut line) = (name(command, depth), String::new());
                for way in ways.in_turn(repetition) {
                    let mut load = match connect(way, command, depth) {
                        Ok(mut load) => load.closed(plan.window / 4).map(|_| load),
                        Err(error) => Err(error),
                    };
                    let sent = || load.as_mut().map_err(|error| error.clone())?.closed(plan.window);
                    line += &once(board, &what, way, 1.0, sent);
                }
                eprintln!("redis {repetition}/{}, {what}, µs of CPU a command:{line}", plan.repeat);
            }
            // It can say no epoch: so not to the guard alone.
            for way in ways.in_turn(repetition).into_iter().filter(|way| way.name != GUARD) {
                let what = format!("redis-benchmark -P {depth}");
                once(board, &what, way, 1.0, || {
                    redis_benchmark(way.address, depth, a_second * plan.window.as_secs_f64())
                });
            }
        }
    }
    for way in ways.all.iter().filter(|way| !way.processes.is_empty()) {
        for depth in DEPTHS {
            let calls = find("strace").ok_or_else(|| "strace is not there".to_owned()).and_then(|_| {
                let mut load = connect(way, Command::Set, depth)?;
                load.exactly(1000)?;
                let work = || load.exactly(TRACED).map(drop);
                syscalls::counted(&way.processes, folder, relays, work)
            });
            match calls {
                Ok(calls) => board.add(&format!("calls SET -P {depth}"), way.name, calls / TRACED as f64),
                Err(error) => board.note(format!("system calls, {}: {error}", way.name)),
            }
        }
    }
    drop(ways);
    instructions(&folder.join("callgrind"), server.address, relays, board);
    tables(plan, board)
}

fn name(command: Command, depth: usize) -> String {
    format!("{} -P {depth}", command.name())
}

fn tables(plan: &Plan, board: &Board) -> String {
    let names = [DIRECT, HAPROXY, COPY, GUARD, STAMP, BOTH];
    let columns = |measure: &str, digits| -> Vec<Column> {
        let all = DEPTHS.into_iter().flat_map(|depth| Command::ALL.map(|command| name(command, depth)));
        all.map(|what| column(measure, &what, &what, digits)).collect()
    };
    let benchmark = DEPTHS.map(|depth| format!("redis-benchmark -P {depth}"));
    let benchmark: Vec<Column> = ["cpu", "rate"]
        .into_iter()
        .flat_map(|measure| benchmark.each_ref().map(|what| (measure, what)))
        .map(|(measure, what)| {
            let (unit, digits) = if measure == "cpu" { ("CPU, µs", 2) } else { ("a second", 0) };
            column(measure, what, &format!("{what}, {unit}"), digits)
        })
        .collect();
    let depths = DEPTHS.map(|depth| format!("SET -P {depth}"));
    let costs: Vec<Column> = [("calls", 2), ("instructions", 0), ("allocations", 2)]
        .into_iter()
        .flat_map(|(measure, digits)| {
            depths.each_ref().map(|what| column(measure, what, &format!("{what}, {measure}"), digits))
        })
        .collect();
    let cpu = columns("cpu", 2);
    format!(
        "Redis: CPU of a command, µs, {CONNECTIONS} connections, 100 B (n = {}, {:?} each)\n\n{}\n{}\n\
         Commands a second\n\n{}\n\
         redis-benchmark -t set -c {CONNECTIONS} -d 100 (n = {})\n\n{}\n{}\n\
         System calls, user-space instructions and allocations of a command (n = 1)\n\n{}\n",
        plan.repeat,
        plan.window,
        board.table(&names, &cpu),
        board.ratios(&[GUARD, BOTH], &[HAPROXY, COPY], &cpu),
        board.table(&names, &columns("rate", 0)),
        plan.repeat,
        board.table(&names, &benchmark),
        board.ratios(&[STAMP, BOTH], &[HAPROXY, COPY], &benchmark),
        board.table(&names, &costs),
    )
}

fn redis_benchmark(to: SocketAddr, depth: usize, commands: f64) -> Result<Done, String> {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let launch = Launch::program("redis-benchmark").args(["-h", &host, "-p", &port, "-c", &CONNECTIONS.to_string()]);
    let count = format!("{commands:.0}");
    let launch = launch.args(["-d", "100", "-t", "set", "-P", &depth.to_string(), "-n", &count, "--csv"]);
    let said = launch.start().told()?;
    let line = said.lines().find_map(|line| line.strip_prefix("\"SET\",\""));
    let rate = line.and_then(|line| line.split('"').next()?.parse::<f64>().ok());
    let rate = rate.ok_or_else(|| format!("redis-benchmark said {said}"))?;
    Ok(Done { amount: commands.round(), took: Duration::from_secs_f64(commands / rate.max(1.0)) })
}

/// Of the guard and of the copy loop, with callgrind.
fn instructions(folder: &Path, server: SocketAddr, cores: &[usize], board: &mut Board) {
    if find("valgrind").is_none() || find("strace").is_none() {
        return board.note("instructions of Redis' commands: valgrind and strace are needed".to_owned());
    }
    for depth in DEPTHS {
        let send = |to: SocketAddr, epoch: Option<&str>, count: u64| {
            // The measurement takes the difference of two runs: what connecting costs is the same in both.
            Load::connect(to, epoch, Command::Set, CONNECTIONS, depth)?.exactly(count * depth as u64).map(drop)
        };
        let copying = callgrind::measure(&folder.join(format!("copy-{depth}")), true, |_, wrap, count| {
            let mut copying = Copying::under(wrap, server, cores);
            send(copying.address, None, count)?;
            copying.process.terminate();
            copying.process.wait(LONG);
            Ok(())
        });
        let guard = callgrind::measure(&folder.join(format!("guard-{depth}")), true, |_, wrap, count| {
            let mut sidecars = Sidecars::start("redis", server, cores);
            let epoch = sidecars.epoch();
            let mut guard = sidecars.guard_under(wrap, cores);
            send(sidecars.guard.address(), Some(&epoch), count)?;
            guard.terminate();
            guard.wait(LONG);
            Ok(())
        });
        for (name, cost) in [(COPY, copying), (GUARD, guard)] {
            match cost {
                Ok(Cost { instructions, allocations }) => {
                    let each = |of_batch: f64| of_batch / depth as f64;
                    eprintln!("redis -P {depth}, {name}: {:.0} instructions a command", each(instructions));
                    board.add(&format!("instructions SET -P {depth}"), name, each(instructions));
                    board.add(&format!("allocations SET -P {depth}"), name, each(allocations));
                }
                Err(error) => board.note(format!("instructions, {name}: {error}")),
            }
        }
    }
}
