//! `protocol: postgres` before a real PostgreSQL: what clients do works as it does without a guard, and what a stale session had
//! begun ends with its epoch.
//!
//! Real processes: etcd, PostgreSQL, a guard, stamps; psql, pgbench, pg_recvlogical.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod fences;
mod pipelines;
mod reading;
mod tls;
mod wire;

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;
use support::etcd::Etcd;
use support::history;
use support::postgres::{Postgres, Session, psql, psql_launch};
use support::process::{LONG, Launch, eventually_some};
use support::sidecar::{Setup, Sidecar, epoch_of, etcd, guard, stamp};

/// etcd, PostgreSQL, a guard, and a writer that leads.
struct World {
    a: Sidecar,
    guard: Sidecar,
    etcd: Etcd,
    postgres: Postgres,
    stamp_of_a: String,
}

impl World {
    fn start() -> World {
        World::with(|guard| guard)
    }

    /// With something different about the guard.
    fn with(of_guard: impl Fn(Setup) -> Setup) -> World {
        World::over(Postgres::start(), of_guard)
    }

    /// Before this server.
    fn over(postgres: Postgres, of_guard: impl Fn(Setup) -> Setup) -> World {
        let etcd = etcd();
        let upstream = format!("postgres://{}", postgres.address);
        let guard = of_guard(guard("guard", etcd.url(), &upstream).protocol("postgres")).start();
        let a = stamp("orders-a", etcd.url(), guard.address).protocol("postgres").start();
        let stamp_of_a = a.await_leadership();
        World { a, guard, etcd, postgres, stamp_of_a }
    }

    fn epoch_of_a(&self) -> u64 {
        epoch_of(&self.stamp_of_a)
    }

    /// A second writer's sidecar.
    fn second(&self) -> Sidecar {
        stamp("orders-b", self.etcd.url(), self.guard.address).protocol("postgres").start()
    }

    /// Stops A's sidecar until a second writer leads; that one.
    fn fail_over(&mut self) -> Sidecar {
        let b = self.second();
        self.a.process().pause();
        b.await_leadership();
        b
    }

    /// SQL through A's sidecar.
    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        psql(self.a.address, "app", "app", sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    #[track_caller]
    fn assert_rules_kept(&self) {
        let lines = history::of_files([&self.guard, &self.a].map(Sidecar::history_file));
        history::assert_rules_kept(&lines);
    }
}

/// SQL through an address, with these `options`.
fn psql_with(address: SocketAddr, options: &str, sql: &str) -> Result<String, String> {
    psql_launch(address, "app", "app").env("PGOPTIONS", options).args(["-At", "-c", sql]).start().told()
}

/// The last record of the audit log that is a refusal, once there is one.
#[track_caller]
fn refusal(of: &Sidecar) -> Value {
    eventually_some("a refusal is in the audit log", LONG, || {
        let text = fs::read_to_string(of.config().with_file_name("audit.jsonl")).unwrap_or_default();
        let mut records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.rfind(|record| record["event"] == "refused")
    })
}

fn session(at: &Sidecar) -> Session {
    Session::open(at.address, "app", "app")
}

/// A program of PostgreSQL's, to be connected as `app`.
fn program(name: &str, at: SocketAddr) -> Launch {
    Launch::program(name).args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "-U", "app"])
}
