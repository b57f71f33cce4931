//! What becomes of sessions whose epoch is over.

use std::time::Duration;

use crate::support::postgres::{psql, psql_launch};
use crate::support::process::{LONG, eventually};
use crate::support::sidecar::QUARANTINE;
use crate::{World, psql_with, session};

#[test]
fn an_old_leader_wakes_and_says_commit_and_it_is_rolled_back() {
    let mut world = World::start();
    world.sql("CREATE TABLE latest (id int PRIMARY KEY, what text)");
    world.sql("INSERT INTO latest VALUES (1, 'nothing')");
    let (mut open, mut idle) = (session(&world.a), session(&world.a));
    assert_eq!(open.say("BEGIN; UPDATE latest SET what = 'of A'"), "");
    let b = world.fail_over();
    // The row was locked by the open transaction: it has been rolled back, or this would wait.
    assert_eq!(psql(b.address, "app", "app", "UPDATE latest SET what = 'of B' RETURNING what").as_deref(), Ok("of B"));

    world.a.process().resume();
    let told = open.say("COMMIT");
    assert!(told.contains("57P01") && told.contains("outcome idle"), "{told}");
    assert!(told.contains("HINT") && told.contains("rolled back"), "{told}");
    assert!(idle.say("SELECT 1").contains("57P01"));
    assert_eq!(world.postgres.query("SELECT what FROM latest"), "of B");
    // Nothing was lost: nothing had to be waited for.
    let handoff = &world.guard.resource()["last_handoff"];
    assert_eq!(handoff["by"], "answers", "{handoff}");
    world.assert_rules_kept();
}

#[test]
fn the_session_of_an_old_epoch_learns_both_epochs() {
    let mut world = World::start();
    let epoch = world.epoch_of_a();
    let options = format!("-c epochgate.epoch={epoch}");
    let launch = psql_launch(world.guard.address, "app", "app").env("PGOPTIONS", &options);
    let mut direct = crate::support::talk::Talk::start(launch.args(["-At", "-v", "ON_ERROR_STOP=0"]), |line| {
        format!("\\echo {line}")
    });
    assert_eq!(direct.say("SELECT 'ready';"), "ready");
    let b = world.fail_over();
    let required = crate::epoch_of(&b.await_leadership());
    let told = direct.say("SELECT 1;");
    assert!(told.contains("57P01") && told.contains(&format!("epoch {epoch} given, {required} required")), "{told}");
    assert!(told.contains("leader orders-b"), "{told}");
    let error = psql_with(world.guard.address, &options, "SELECT 1").expect_err("it is over");
    assert!(error.contains("reason stale_epoch") && error.contains(&format!("{required} required")), "{error}");
}

#[test]
fn what_runs_may_end_and_the_new_epoch_waits_for_it() {
    let mut world = World::with(|guard| guard.top("drain: { timeout: 60s, quarantine: 70s }"));
    world.sql("CREATE TABLE told (what text)");
    let mut runs = session(&world.a);
    runs.begin("INSERT INTO told SELECT 'of A' FROM pg_sleep(4)");
    eventually("it runs", LONG, || world.postgres.query(RUNNING) == "1");
    let b = world.second();
    world.a.process().pause();
    b.await_leadership();
    // Armed: so what ran has ended, and is there.
    assert_eq!(world.postgres.query("SELECT what FROM told"), "of A");
    world.a.process().resume();
    let told = runs.answer();
    assert!(told.is_empty() || told.contains("57P01"), "{told}");
    assert_eq!(world.guard.resource()["last_handoff"]["by"], "answers");
}

const RUNNING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND state = 'active' AND pid <> pg_backend_pid()";

#[test]
fn what_runs_for_long_is_cancelled_and_needs_no_quarantine() {
    // A quarantine that no test waits for.
    let mut world = World::with(|guard| guard.top("drain: { timeout: 500ms, quarantine: 600s }"));
    world.sql("CREATE TABLE told (what text)");
    let mut runs = session(&world.a);
    runs.begin("INSERT INTO told SELECT 'of A' FROM pg_sleep(600)");
    eventually("it runs", LONG, || world.postgres.query(RUNNING) == "1");
    let b = world.fail_over();
    assert_eq!(psql(b.address, "app", "app", "SELECT count(*) FROM told").as_deref(), Ok("0"));
    assert_eq!(world.postgres.query(RUNNING), "0", "it was cancelled");
    world.a.process().resume();
    let told = runs.answer();
    assert!(told.contains("57014") || told.contains("57P01"), "{told}");
}

#[test]
fn what_cannot_be_cancelled_counts_as_lost() {
    // Cut once it is overdue; without a connection of the guard's own only time ends it.
    let mut world = World::start();
    let mut runs = session(&world.a);
    runs.begin(
        "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$",
    );
    eventually("it runs", LONG, || {
        world.postgres.query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'") == "1"
    });
    let began = std::time::Instant::now();
    let _b = world.fail_over();
    assert_eq!(world.guard.resource()["last_handoff"]["by"], "time");
    assert!(began.elapsed() >= QUARANTINE);
    world.postgres.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO%'");
}

#[test]
fn a_prepared_transaction_is_not_committed_by_a_stale_session() {
    let mut world = World::start();
    world.sql("CREATE TABLE told (what text)");
    let mut old = session(&world.a);
    assert_eq!(old.say("BEGIN; INSERT INTO told VALUES ('prepared'); PREPARE TRANSACTION 'p'"), "");
    let b = world.fail_over();
    world.a.process().resume();
    assert!(old.say("COMMIT PREPARED 'p'").contains("57P01"));
    let stale =
        psql_with(world.guard.address, &format!("-c epochgate.epoch={}", world.epoch_of_a()), "COMMIT PREPARED 'p'");
    assert!(stale.expect_err("it is stale").contains("stale_epoch"));
    assert_eq!(world.postgres.query("SELECT gid FROM pg_prepared_xacts"), "p");
    // It is the new leader's to decide.
    assert!(psql(b.address, "app", "app", "ROLLBACK PREPARED 'p'").is_ok());
    assert_eq!(world.postgres.query("SELECT count(*) FROM told"), "0");
}

#[test]
fn a_copy_that_is_half_done_is_rolled_back() {
    let mut world = World::start();
    world.sql("CREATE TABLE told (what text)");
    let mut copy = session(&world.a);
    copy.begin("COPY told FROM PROGRAM 'echo a; sleep 600'".replace("PROGRAM 'echo a; sleep 600'", "STDIN").as_str());
    eventually("it runs", LONG, || {
        world.postgres.query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'")
            == "1"
    });
    let _b = world.fail_over();
    world.a.process().resume();
    eventually("its session is gone", LONG, || {
        world
            .postgres
            .query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND pid <> pg_backend_pid()")
            == "0"
    });
    assert_eq!(world.postgres.query("SELECT count(*) FROM told"), "0");
}

#[test]
fn cancelling_works_while_everything_is_fenced() {
    // Nobody leads any more; the session's statement still runs.
    let mut world = World::with(|guard| guard.top("drain: { timeout: 60s, quarantine: 70s }"));
    let options = format!("-c epochgate.epoch={}", world.epoch_of_a());
    let launch = psql_launch(world.guard.address, "app", "app").env("PGOPTIONS", &options);
    let mut direct = crate::support::talk::Talk::start(launch.args(["-At", "-v", "ON_ERROR_STOP=0"]), |line| {
        format!("\\echo {line}")
    });
    direct.begin("SELECT pg_sleep(600);");
    eventually("it runs", LONG, || world.postgres.query(RUNNING) == "1");
    let b = world.second();
    world.a.process().pause();
    eventually("the guard is fenced", LONG, || world.guard.phase() == "draining");
    std::thread::sleep(Duration::from_millis(10));
    direct.process.signal(rustix::process::Signal::INT);
    assert!(direct.answer().contains("57014"));
    b.await_leadership();
}
