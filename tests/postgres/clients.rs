//! What clients do, through stamp and guard.

use std::fs;

use crate::support::postgres::{Session, newest_libpq, psql, psql_launch};
use crate::support::process::{LONG, eventually};
use crate::{World, program, psql_with, refusal, session};

#[test]
fn everything_that_psql_does_works_through_stamp_and_guard() {
    let world = World::start();
    let through = world.a.address;

    // Several statements in one; what the session is called; the epoch that the database sees.
    assert_eq!(world.sql("SELECT 1; SELECT 2"), "1\n2");
    let named = format!("psql [epochgate {}]", world.epoch_of_a());
    assert_eq!(world.sql("SHOW application_name"), named);
    assert_eq!(world.sql("SHOW epochgate.epoch"), world.epoch_of_a().to_string());
    assert_eq!(world.postgres.query("SHOW application_name"), "psql", "without a guard");

    // Errors are the server's own, and the session goes on.
    let mut one = session(&world.a);
    assert!(one.say("SELECT 1/0").contains("22012"), "division by zero");
    assert_eq!(one.say("PREPARE p (int) AS SELECT $1 + 1"), "");
    assert_eq!(one.say("EXECUTE p (41)"), "42");
    assert!(one.say("BEGIN; SELECT nothing").contains("42703"));
    assert!(one.say("SELECT 1").contains("25P02"), "the transaction has failed");
    assert_eq!(one.say("ROLLBACK; SELECT 'goes on'"), "goes on");

    // LISTEN and NOTIFY, between two sessions.
    assert_eq!(one.say("LISTEN news"), "");
    world.sql("NOTIFY news, 'told'");
    eventually("the notification comes", LONG, || one.say("SELECT 1").contains("told"));

    // Large objects.
    world.sql("SELECT lo_from_bytea(4711, decode(repeat('ab', 100000), 'hex'))");
    assert_eq!(world.sql("SELECT length(lo_get(4711))"), "100000");

    // Ctrl-C, by a connection of its own.
    one.begin("SELECT pg_sleep(600)");
    eventually("it runs", LONG, || world.postgres.query(RUNNING) == "1");
    one.interrupt();
    assert!(one.answer().contains("57014"), "canceling statement due to user request");

    // A password by SCRAM, and a wrong one.
    assert_eq!(psql(through, "scram", "app", "SELECT current_user").as_deref(), Ok("scram"));
    let wrong = psql_launch(through, "scram", "app").env("PGPASSWORD", "wrong").args(["-c", "SELECT 1"]).start().told();
    assert!(wrong.expect_err("a wrong password").contains("password authentication failed"));
    // Asked, and gone without a word: nothing of that is lost.
    let none = psql_launch(through, "scram", "app").env_remove("PGPASSWORD").args(["-c", "SELECT 1"]).start().told();
    assert!(none.is_err());
    eventually("all sessions but one end", LONG, || world.guard.resource()["gate"]["in_flight"] == 0);
    assert_eq!(world.guard.resource()["gate"]["lost"], 0);
    world.assert_rules_kept();
}

const RUNNING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'";

#[test]
fn copies_go_both_ways_and_large_ones_too() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let (file, back) = (folder.path().join("rows"), folder.path().join("back"));
    let rows: String = (0..200_000).map(|row| format!("{row}\tsome text that stands in row {row}\n")).collect();
    fs::write(&file, &rows).unwrap();
    world.sql("CREATE TABLE copied (id int PRIMARY KEY, what text)");
    let copy = |command: String| {
        psql_launch(world.a.address, "app", "app").args(["-c", &command]).run(LONG * 4).told().unwrap()
    };
    copy(format!("\\copy copied FROM '{}'", file.display()));
    copy(format!("\\copy copied TO '{}'", back.display()));
    assert_eq!(fs::read_to_string(&back).unwrap(), rows);
    // One that fails in the middle, and the session after it.
    let failed = psql_launch(world.a.address, "app", "app")
        .args([
            "-v",
            "ON_ERROR_STOP=0",
            "-At",
            "-c",
            &format!("\\copy copied FROM '{}'", file.display()),
            "-c",
            "SELECT 'on'",
        ])
        .run(LONG * 4)
        .stdout();
    assert!(failed.contains("on"), "{failed}");
    eventually("nothing is outstanding", LONG, || world.guard.resource()["gate"]["in_flight"] == 0);
    assert_eq!(world.guard.resource()["gate"]["lost"], 0);
}

#[test]
fn pipelines_and_prepared_statements_work_at_speed() {
    let world = World::start();
    let bench = |args: &[&str]| {
        let mut bench = program("pgbench", world.a.address).args(args).arg("app").run(LONG * 4);
        assert!(bench.wait(LONG).success(), "{}", bench.recent());
        bench.stdout()
    };
    bench(&["-i", "-q", "-s", "1"]);
    for mode in ["simple", "extended", "prepared"] {
        let said = bench(&["-n", "-c", "4", "-t", "50", "--protocol", mode]);
        assert!(said.contains("200/200"), "{mode}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("pipeline.sql");
    let lines: String = (0..50).map(|n| format!("SELECT {n};\n")).collect();
    fs::write(&script, format!("\\startpipeline\n{lines}\\endpipeline\n")).unwrap();
    let script = script.display().to_string();
    let said = bench(&["-n", "-c", "2", "-t", "50", "--protocol", "extended", "-f", &script]);
    assert!(said.contains("100/100"), "{said}");
    eventually("nothing is outstanding", LONG, || world.guard.resource()["gate"]["in_flight"] == 0);
    assert_eq!(world.guard.resource()["gate"]["lost"], 0);
}

#[test]
fn a_newer_protocol_is_for_client_and_server_to_agree_on() {
    let Some(libpq) = newest_libpq() else { return eprintln!("left out: this needs libpq 18") };
    let world = World::start();
    let launch = |name: &str, version: &str| {
        let launch = psql_launch(world.a.address, "app", "app").env("LD_LIBRARY_PATH", libpq.display().to_string());
        launch.env(name, version)
    };
    let latest = launch("PGMAXPROTOCOLVERSION", "latest").args(["-At", "-c", "SELECT 1"]).start().told();
    assert_eq!(latest.as_deref(), Ok("1"), "the server may say that it speaks an older one");
    let newer = launch("PGMINPROTOCOLVERSION", "3.2").env("PGMAXPROTOCOLVERSION", "3.2");
    if world.postgres.major() < 18 {
        let told = newer.args(["-c", "SELECT 1"]).start().told().expect_err("it speaks 3.0 only");
        assert!(told.contains("protocol version"), "{told}");
        return;
    }
    // Its keys are longer; Ctrl-C takes one.
    let newer = newer.args(["-At", "-v", "ON_ERROR_STOP=0"]);
    let mut one = crate::support::talk::Talk::start(newer, |line| format!("\\echo {line}"));
    assert_eq!(one.say("SELECT 1;"), "1");
    one.begin("SELECT pg_sleep(600);");
    eventually("it runs", LONG, || world.postgres.query(RUNNING) == "1");
    one.process.signal(rustix::process::Signal::INT);
    assert!(one.answer().contains("57014"));
}

#[test]
fn replication_streams_through_and_ends_with_its_epoch() {
    let mut world = World::start();
    world.sql("CREATE TABLE told (what text)");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changes");
    let receive = |more: &[&str]| {
        let launch = program("pg_recvlogical", world.a.address).args(["-d", "app", "--slot", "s"]);
        launch.args(more)
    };
    let mut made = receive(&["--create-slot", "-P", "test_decoding"]).run(LONG);
    assert!(made.wait(LONG).success(), "{}", made.recent());
    let mut stream = receive(&["--start", "--no-loop", "-F", "0", "-f", &file.display().to_string()]).start();
    world.sql("INSERT INTO told VALUES ('streamed')");
    eventually("the change comes", LONG, || fs::read_to_string(&file).unwrap_or_default().contains("streamed"));

    // It reads only: it does not hold up the handoff, and it ends.
    let _b = world.fail_over();
    assert_eq!(world.guard.resource()["last_handoff"]["by"], "answers");
    world.a.process().resume();
    assert!(!stream.wait(LONG).success());
    eventually("nobody streams", LONG, || world.postgres.query("SELECT count(*) FROM pg_stat_replication") == "0");
}

#[test]
fn a_client_names_its_epoch_itself_and_a_stamp_takes_no_other() {
    let world = World::start();
    let epoch = world.epoch_of_a();
    let option = format!("-c epochgate.epoch={epoch}");
    let direct = world.guard.address;
    assert_eq!(psql_with(direct, &option, "SHOW epochgate.epoch"), Ok(epoch.to_string()));
    let whole = format!("-c epochgate.epoch={}", world.stamp_of_a);
    assert_eq!(psql_with(direct, &whole, "SHOW epochgate.epoch"), Ok(epoch.to_string()), "the whole stamp");

    for (options, code, reason) in [
        (String::new(), "57P01", "stamp_required"),
        (format!("-c epochgate.epoch={}", epoch + 1000), "57P01", "epoch_denied"),
        ("-c epochgate.epoch=042".to_owned(), "57P01", "malformed_stamp"),
        (format!("{option} {option}"), "57P01", "malformed_stamp"),
    ] {
        let error = psql_with(direct, &options, "SELECT 1").expect_err(&options);
        assert!(error.contains("FATAL") && error.contains(&format!("reason {reason}")), "{options}: {error}");
        assert!(error.contains("outcome not_applied") && error.contains("HINT"), "{options}: {error}");
        // psql says no SQLSTATE of an error in connecting; the codec's own tests have it.
        let _ = code;
        let record = refusal(&world.guard);
        assert_eq!((&record["reason"], &record["path"]), (&reason.into(), &"/app".into()), "{record}");
        assert_eq!(record["method"], "POSTGRES");
    }
    let error = psql_with(world.a.address, &option, "SELECT 1").expect_err("a stamp refuses it");
    assert!(error.contains("reason stamp_present"), "{error}");
}

#[test]
fn a_client_that_leaves_in_the_middle_lets_its_statement_end() {
    let world = World::start();
    world.sql("CREATE TABLE left_behind (what text)");
    let mut gone = session(&world.a);
    gone.begin("INSERT INTO left_behind SELECT 'came' FROM pg_sleep(3)");
    eventually("it runs", LONG, || {
        world.postgres.query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%left_behind%' AND state = 'active' AND pid <> pg_backend_pid()") == "1"
    });
    gone.process().kill();
    eventually("the statement ends", LONG, || world.postgres.query("SELECT what FROM left_behind") == "came");
    eventually("it is answered", LONG, || world.guard.resource()["gate"]["in_flight"] == 0);
    assert_eq!(world.guard.resource()["gate"]["lost"], 0);
    // An open transaction ends with its client, at once.
    let mut open = Session::open(world.a.address, "app", "app");
    assert_eq!(open.say("BEGIN; INSERT INTO left_behind VALUES ('never')"), "");
    open.process().kill();
    eventually("it is rolled back", LONG, || world.postgres.sessions() == 0);
    assert_eq!(world.postgres.query("SELECT string_agg(what, ',') FROM left_behind"), "came");
    assert_eq!(world.guard.resource()["gate"]["lost"], 0);
}
