//! PostgreSQL: pgbench, and a gibibyte by COPY both ways.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{BOTH, COPY, DIRECT, Done, GUARD, HAPROXY, PGBOUNCER, STAMP, Way, Ways, column, once};
use crate::Plan;
use crate::board::{Board, Column};
use crate::pin;
use crate::support::pgbouncer::Pgbouncer;
use crate::support::postgres::{Postgres, psql_launch};
use crate::support::process::{LONG, Launch};

/// pgbench's own: 100,000 accounts each.
pub const SCALE: &str = "10";
const CLIENTS: &str = "16";
const SCRIPTS: [(&str, &str); 2] = [("tpcb", "tpcb-like"), ("select", "select-only")];

/// A COPY of this many rows of a thousand bytes, and a line end, is a gibibyte. What is copied in is thrown away by the server:
/// otherwise its writing would be measured.
const ROWS: usize = (1 << 30) / 1001;
const COPIES: [&str; 2] = ["copy out", "copy in"];
const OUT: &str = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, @ROWS@)) TO STDOUT";
const IN: &str = "\\copy copied FROM PROGRAM 'yes @LINE@ | head -n @ROWS@' WHERE false";

/// What makes a server quick and its times even.
pub const SETTINGS: [(&str, &str); 5] = [
    ("shared_buffers", "256MB"),
    ("wal_level", "replica"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
];

/// Runs all of it; the tables.
pub fn run(plan: &Plan, cores: [&[usize]; 2], board: &mut Board) -> String {
    let [relays, others] = cores;
    let server = pin::on(others, || Postgres::start_with(&SETTINGS));
    fill(server.address, "app");
    server.query("SET ROLE app; CREATE TABLE copied (line text)");
    let pgbouncer = pin::on(relays, || Pgbouncer::start(server.address));
    let mut ways = Ways::start("postgres", server.address, relays);
    let pooled = Way { name: PGBOUNCER, address: pgbouncer.address, processes: vec![pgbouncer.process.id()] };
    ways.all.insert(1, pooled);
    let options = format!("-c epochgate.epoch={}", ways.sidecars.epoch());
    let says = |way: &Way| if way.name == GUARD { options.as_str() } else { "" };

    for repetition in 1..=plan.repeat {
        for (what, script) in SCRIPTS {
            let mut line = String::new();
            for way in ways.in_turn(repetition) {
                tidy(server.address, "app", "");
                let bench = || pgbench(way.address, "app", says(way), script, plan.window);
                line += &once(board, what, way, 1.0, bench);
            }
            eprintln!("postgres {repetition}/{}, {what}, µs of CPU a transaction:{line}", plan.repeat);
        }
    }
    let copies = plan.repeat.min(3);
    for repetition in 1..=copies {
        for what in COPIES {
            let mut line = String::new();
            for way in ways.in_turn(repetition) {
                line += &once(board, what, way, (1 << 20) as f64, || copy(way.address, says(way), what));
            }
            eprintln!("postgres {repetition}/{copies}, {what}, µs of CPU a MiB:{line}");
        }
    }
    tables(plan, copies, board)
}

fn tables(plan: &Plan, copies: usize, board: &Board) -> String {
    let names = [DIRECT, PGBOUNCER, HAPROXY, COPY, GUARD, STAMP, BOTH];
    let both = |what: &str, unit: &str, digits| {
        let heading = |measure: &str| format!("{what}, {measure}");
        let cpu = column("cpu", what, &heading(&format!("CPU of a {unit}, µs")), digits);
        [cpu, column("rate", what, &heading("a second"), 0)]
    };
    let transactions: Vec<Column> = SCRIPTS.iter().flat_map(|(what, _)| both(what, "transaction", 1)).collect();
    let bulk: Vec<Column> = COPIES.iter().flat_map(|what| both(what, "MiB", 0)).collect();
    format!(
        "PostgreSQL: pgbench, scale {SCALE}, {CLIENTS} clients (n = {}, {:?} each)\n\n{}\n{}\n\
         PostgreSQL: COPY of 1 GiB on one connection (n = {copies})\n\n{}\n{}\n",
        plan.repeat,
        whole_seconds(plan.window),
        board.table(&names, &transactions),
        board.ratios(&[GUARD, BOTH], &[PGBOUNCER, HAPROXY, COPY], &transactions),
        board.table(&names, &bulk),
        board.ratios(&[GUARD, BOTH], &[DIRECT, COPY], &bulk),
    )
}

/// Makes pgbench's tables.
pub fn fill(server: SocketAddr, database: &str) {
    let mut filled = at("pgbench", server).args(["-i", "-q", "-s", SCALE, database]).run(LONG * 5);
    assert!(filled.wait(LONG).success(), "{}", filled.recent());
    // What was just written is not to be written to disk in the middle of what is measured.
    let mut settled = psql_launch(server, "postgres", database).args(["-c", "CHECKPOINT"]).start();
    settled.told().expect("the superuser may do that");
}

/// As pgbench itself does before a run, but over no relay. `options` is what is said at its start.
pub fn tidy(server: SocketAddr, database: &str, options: &str) {
    let words = ["VACUUM pgbench_branches", "VACUUM pgbench_tellers", "TRUNCATE pgbench_history"];
    let launch = psql_launch(server, "postgres", database).env("PGOPTIONS", options);
    let launch = words.iter().fold(launch, |launch, word| launch.args(["-c", word]));
    launch.start().told().expect("the superuser may do that");
}

/// Runs a script of pgbench's own for a while; transactions. `options` is what its clients say at their start.
pub fn pgbench(to: SocketAddr, database: &str, options: &str, script: &str, window: Duration) -> Result<Done, String> {
    let seconds = whole_seconds(window).as_secs().to_string();
    let launch = at("pgbench", to).env("PGOPTIONS", options);
    let launch = launch.args(["-n", "-c", CLIENTS, "-T", &seconds, "-b", script, database]);
    let said = launch.start().told()?;
    let number = |before: &str| {
        let rest = said.lines().find_map(|line| line.trim().strip_prefix(before))?;
        rest.split_whitespace().next()?.split('/').next()?.parse::<f64>().ok()
    };
    let done = number("number of transactions actually processed:").zip(number("tps ="));
    let (amount, rate) = done.ok_or_else(|| format!("pgbench said {said}"))?;
    // Its own: without what connecting took.
    Ok(Done { amount, took: Duration::from_secs_f64(amount / rate.max(1.0)) })
}

/// pgbench knows no parts of a second.
fn whole_seconds(window: Duration) -> Duration {
    Duration::from_secs(window.as_secs_f64().ceil().max(1.0) as u64)
}

fn copy(to: SocketAddr, options: &str, what: &str) -> Result<Done, String> {
    let sql = if what == COPIES[0] { OUT } else { IN };
    let sql = sql.replace("@ROWS@", &ROWS.to_string()).replace("@LINE@", &"x".repeat(1000));
    let launch = psql_launch(to, "app", "app").env("PGOPTIONS", options).args(["-o", "/dev/null", "-c", &sql]);
    let began = Instant::now();
    launch.start().told()?;
    Ok(Done { amount: (ROWS * 1001) as f64, took: began.elapsed() })
}

fn at(program: &str, server: SocketAddr) -> Launch {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    Launch::program(program).args(["-h", &host, "-p", &port, "-U", "app"])
}
