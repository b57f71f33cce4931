//! A leader of PostgreSQL with an open transaction stands still, its client and its sidecar; another takes over; the old one wakes
//! and says COMMIT. What is refused, what is in the row, and how long the new leader had to wait.

use std::fs;
use std::time::Duration;

use epochgate::clock::{Clock as _, HostClock};
use serde_json::Value;

use crate::database::{Kind, Manner, Told, row_of};
use crate::node::Node;
use crate::support::postgres::{Session as Psql, psql};
use crate::support::process::{LONG, eventually, eventually_some};
use crate::world::World;

/// From the election of the new term, by the history of its own sidecar.
struct Took {
    /// Until the guard refuses everything older.
    fenced: Duration,
    /// Until the target was seen to have nothing older that could take effect.
    drained: Duration,
    /// Until the gate is open.
    opened: Duration,
    /// Until it lets the first session of the new term in.
    admitted: Duration,
    /// Until a client of the new leader knows that its transaction is committed.
    committed: Duration,
}

/// Takes over so many times, there and back.
fn runs(count: usize) -> Vec<Took> {
    let mut world = World::start(Kind::Postgres, "");
    let took = (0..count).map(|number| run(&mut world, number)).collect();
    world.end();
    took
}

fn run(world: &mut World, number: usize) -> Took {
    let old = eventually_some("somebody leads", LONG * 2, || world.leader());
    let new = 1 - old;
    eventually("the other one is there", LONG, || world.stamps[new].status()["resources"][0].is_object());
    let (of_old, of_new) = (format!("old-{number}"), format!("new-{number}"));
    let before = world.epoch();
    let mut psql = Psql::open(world.stamps[old].address, "app", "app");
    let work = format!("BEGIN; UPDATE leader SET op = '{of_old}' WHERE n = {}", row_of(&of_new));
    assert_eq!(psql.say(&work), "");
    psql.process().pause();
    world.stamps[old].process.as_ref().expect("it runs").pause();

    let at = first_write(world.stamps[new].address, &of_new);
    let elected = moment(&world.stamps[new], before, |event| event["event"] == "elected" && event["own"] == true);
    let at_guard = |what: &str| moment(&world.guard, before, |event| event["event"] == what);
    let [fenced, drained, opened, admitted] = ["fenced", "drained", "opened", "admitted"].map(at_guard);
    let by = world.guard.status()["resources"][0]["last_handoff"]["by"].clone();
    assert_ne!(by, "time", "what the old one had open was seen to be over");

    world.stamps[old].process.as_ref().expect("it runs").resume();
    psql.process().resume();
    let told = psql.say("COMMIT");
    let in_its_words =
        told.contains("57P01") || told.contains("server closed the connection") || told.contains("connection");
    assert!(in_its_words && !told.is_empty(), "the old leader's COMMIT: {told}");
    assert_eq!(leader_of(world, &of_new), format!("#{of_new}#"), "the row is the new leader's");
    eventually("the old one knows", LONG, || !world.stamps[old].leads());
    let since = |later: u64| Duration::from_nanos(later.saturating_sub(elected));
    Took {
        fenced: since(fenced),
        drained: since(drained),
        opened: since(opened),
        admitted: since(admitted),
        committed: since(at),
    }
}

/// Whose the row is, by the database itself.
fn leader_of(world: &World, op: &str) -> String {
    psql(world.database.address(), "postgres", "app", &format!("SELECT op FROM leader WHERE n = {}", row_of(op)))
        .expect("it serves")
}

/// Writes through the new leader's sidecar as soon as that lets it: when it was told that it is committed.
fn first_write(through: std::net::SocketAddr, op: &str) -> u64 {
    eventually_some("the new leader writes", LONG * 2, || {
        let mut session = Kind::Postgres.talk(through, b"").ok()?;
        let work = session.prepare(op, Manner::Open(Duration::ZERO));
        let last_word = session.last_word(op, Manner::Open(Duration::ZERO));
        work.ok()?;
        session.wire().send(&last_word).ok()?;
        matches!(session.answer(), Told::Done).then(|| HostClock.now().as_nanos())
    })
}

/// When the first event of that kind of a term after `before` was, by a process's own history.
fn moment(of: &Node, before: u64, is_it: impl Fn(&Value) -> bool) -> u64 {
    let files = of.histories();
    eventually_some("it is in the history", LONG, || {
        let text = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect::<String>();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let newer = |event: &Value| event["epoch"].as_str().and_then(|epoch| epoch.parse().ok()) > Some(before);
        events.filter(|event| newer(event) && is_it(event)).find_map(|event| event["at"].as_u64())
    })
}

/// A row of the table: least, median, 95th of a hundred, most.
fn row(what: &str, mut spans: Vec<Duration>) -> String {
    spans.sort();
    let at = |share: usize| spans[(spans.len() * share).div_ceil(100).clamp(1, spans.len()) - 1];
    let cells = [at(0), at(50), at(95), at(100)].map(|span| format!("{:.1}", span.as_secs_f64() * 1000.0));
    format!("| {what} | {} |", cells.join(" | "))
}

fn print(took: &[Took]) {
    println!("From the election to, in ms, over {} runs:\n", took.len());
    println!("| | min | median | p95 | max |\n|---|---:|---:|---:|---:|");
    let show = |what: &str, of: fn(&Took) -> Duration| println!("{}", row(what, took.iter().map(of).collect()));
    show("everything older is refused", |took| took.fenced);
    show("the database has nothing older that could take effect", |took| took.drained);
    show("the gate is open", |took| took.opened);
    show("the first session of the new term is let in", |took| took.admitted);
    show("its client knows that its transaction is committed", |took| took.committed);
}

#[test]
fn an_open_transaction_is_over_before_the_next_leader_writes() {
    print(&runs(2));
}

/// `RUNS=50`; for the table in the documentation.
#[test]
#[ignore = "measures: cargo test --features danger-test-switches --test chaos_databases time_to_fence -- --ignored --nocapture"]
fn time_to_fence() {
    print(&runs(usize::try_from(crate::number("RUNS").unwrap_or(50)).expect("small")));
}

/// The share of what is sorted that lies at or below.
#[test]
fn a_row_of_the_table_is_read_off_the_sorted_times() {
    let spans = (1..=20).rev().map(Duration::from_millis).collect();
    assert_eq!(row("x", spans), "| x | 1.0 | 10.0 | 19.0 | 20.0 |");
}
