//! A PostgreSQL changes hands while the old leader has something open there.
//!
//! The old leader's sidecar is stopped in the middle, as by a pause of its host: its lease runs out, the other is elected, and from
//! there on it counts, until a write of the new epoch is in the database. That write is to the row that the old leader has
//! locked, so what was open is over by then.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::support::etcd;
use super::support::postgres::{Postgres, Session};
use super::support::process::{LONG, eventually};
use super::support::scene::{Node, Scene};
use super::{TRY_AGAIN, boot_time, percentile, print_row, spans};

const DRAIN: Duration = Duration::from_millis(500);

/// What is open when the epoch moves on.
struct Case {
    name: &'static str,
    runs: usize,
    /// Said to its end, and then begun.
    said: &'static str,
    begun: Option<&'static str>,
}

const CASES: [Case; 3] = [
    Case { name: "an open, idle transaction", runs: 50, said: "BEGIN; UPDATE latest SET what = 'old'", begun: None },
    Case {
        name: "a statement that runs for minutes",
        runs: 10,
        said: "BEGIN; UPDATE latest SET what = 'old'",
        begun: Some("SELECT pg_sleep(600)"),
    },
    Case {
        name: "one that takes no cancellation",
        runs: 10,
        said: "BEGIN; UPDATE latest SET what = 'old'",
        begun: Some(
            "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$",
        ),
    },
];

/// How many of the old leader's sessions are in such a statement.
const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app' \
                       AND wait_event = 'PgSleep'";

/// Runs every case; `runs` times each, where that is given.
pub fn run(folder: tempfile::TempDir, runs: Option<usize>) {
    let postgres = Postgres::start();
    postgres.query("CREATE ROLE epochgate LOGIN; GRANT pg_monitor, pg_signal_backend TO epochgate");
    postgres.query("SET ROLE app; CREATE TABLE latest (what text); INSERT INTO latest VALUES ('nobody')");
    let data = folder.path().join("etcd").display().to_string();
    let options = etcd::Options { flags: vec!["--data-dir".into(), data], ..etcd::Options::default() };
    let scene = Scene::etcd_in(folder, &options).lease("2s");
    let before = format!(
        "protocol: postgres\nupstream: {{ url: \"postgres://{}\", control: {{ database: app }} }}",
        postgres.address
    );
    let drain = format!("drain: {{ timeout: {}ms }}", DRAIN.as_millis());
    let guard = scene.node("guard").more(&drain).guard("", &before).start();
    let stamp =
        |id: &str| scene.node(id).stamp(&format!("postgres://{}", guard.address()), "protocol: postgres").start();
    let a = stamp("orders-a");
    a.await_armed("orders");
    let b = stamp("orders-b");

    let (mut done, mut leads) = (Vec::new(), true);
    for case in &CASES {
        for _ in 0..runs.unwrap_or(case.runs) {
            let (old, new) = if leads { (&a, &b) } else { (&b, &a) };
            done.push((case.name, (new.id.clone(), once(case, &postgres, old, new))));
            leads = !leads;
        }
    }
    // What the histories still hold in memory is written when the processes end.
    let (mut guard, mut a, mut b) = (guard, a, b);
    for node in [&mut a, &mut b, &mut guard] {
        node.stop();
    }
    report(&done, &guard, &[&a, &b]);
}

/// One handoff; when the new leader's first write was in the database, on the boot-time clock.
fn once(case: &Case, postgres: &Postgres, old: &Node, new: &Node) -> u64 {
    eventually("the other is a candidate", LONG, || {
        old.is_armed("orders") && new.resource("orders")["state"] == "armed"
    });
    let mut session = Session::open(old.address(), "app", "app");
    assert_eq!(session.say(case.said), "");
    if let Some(begun) = case.begun {
        session.begin(begun);
        eventually("the statement runs", LONG, || postgres.query(RUNNING) != "0");
    }
    let over = AtomicBool::new(false);
    let first = thread::scope(|scope| {
        let client = scope.spawn(|| first_write(new.address(), &over));
        old.process.pause();
        client.join().expect("the client panics only with the bench")
    });
    over.store(true, Ordering::Relaxed);
    assert_eq!(postgres.query("SELECT what FROM latest"), "new");
    assert_eq!(postgres.query(RUNNING), "0");
    old.process.resume();
    first
}

/// Tries until a write is in the database; when that was. One that comes after the election is held until the gate is open.
fn first_write(to: SocketAddr, over: &AtomicBool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    while !over.load(Ordering::Relaxed) {
        if runtime.block_on(write(to)).is_ok() {
            return boot_time();
        }
        thread::sleep(TRY_AGAIN);
    }
    0
}

async fn write(to: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let socket = tokio::net::TcpStream::connect(to).await?;
    socket.set_nodelay(true)?;
    let mut config = tokio_postgres::Config::new();
    let (client, connection) = config.user("app").dbname("app").connect_raw(socket, tokio_postgres::NoTls).await?;
    let serving = tokio::spawn(connection);
    let written = client.batch_execute("UPDATE latest SET what = 'new'").await;
    serving.abort();
    Ok(written?)
}

fn report(done: &[(&str, (String, u64))], guard: &Node, writers: &[&Node; 2]) {
    println!("PostgreSQL, from elected to the first write of the new epoch, ms:  median      p99");
    for case in &CASES {
        let of_it = done.iter().filter(|(name, _)| *name == case.name).map(|(_, succeeded)| succeeded.clone());
        let (whole, steps) = spans(&of_it.collect::<Vec<_>>(), guard, writers);
        print_row(case.name, &whole);
        for (name, spans) in &steps {
            print_row(&format!("  {name}"), spans);
        }
        if case.begun.is_some() {
            let after: Vec<f64> = whole.iter().map(|span| span - DRAIN.as_secs_f64() * 1000.0).collect();
            print_row("  all of it after drain.timeout", &after);
            println!("  (aim: under 1,000 ms after drain.timeout; greatest {:.0} ms)", percentile(&after, 100));
        } else {
            println!("  (aim: under 100 ms; greatest {:.1} ms; n = {})", percentile(&whole, 100), whole.len());
        }
    }
}
