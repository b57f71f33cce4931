//! The in-target level: what has not the epoch of the row fails in the database, and what had it is waited for.

use epochgate::target::postgres::in_target::mark_of;

use crate::ground::{Asker, await_running, orders, put_in, server, session_of, sql, term};
use crate::support::postgres::{Postgres, Session, psql, psql_launch};
use crate::support::process::{LONG, eventually};

/// A server whose table is fenced and at epoch 41.
fn fenced() -> (Postgres, Asker) {
    let server = server();
    psql(server.address, "app", "app", "CREATE TABLE orders (id int PRIMARY KEY, v text)").unwrap();
    put_in(&server, "orders");
    let asker = Asker::of(server.address);
    assert!(asker.prove(41).unwrap().in_target);
    (server, asker)
}

fn count(server: &Postgres) -> String {
    server.query("SELECT count(*) FROM orders")
}

#[track_caller]
fn assert_stale(said: &str) {
    assert!(said.contains("25006") && said.contains("epochgate: not applied: orders needs epoch"), "{said}");
}

#[test]
fn a_session_that_goes_around_the_guard_writes_with_the_rows_epoch_only() {
    let (server, asker) = fenced();
    let mut none = Session::open(server.address, "app", "app");
    let (mut old, mut new) = (session_of(&server, 41), session_of(&server, 42));
    assert_eq!(old.say("INSERT INTO orders VALUES (1)"), "");
    asker.prove(42).unwrap();

    let said = old.say("INSERT INTO orders VALUES (2)");
    assert_stale(&said);
    assert!(said.contains("This session has epoch 41. The leader is orders-a."), "{said}");
    let said = none.say("UPDATE orders SET v = 'x'");
    assert_stale(&said);
    assert!(said.contains("This session has no epoch"), "{said}");
    assert_eq!(none.say("SELECT count(*) FROM orders"), "1", "who has none may read");
    assert_eq!(new.say("INSERT INTO orders VALUES (2)"), "");
    let mut ahead = session_of(&server, 43);
    let said = ahead.say("DELETE FROM orders");
    assert_stale(&said);
    assert!(said.contains("try again"), "{said}");
    for bad in ["", "042", "+42", " 42", "42 ", "4.2e1", "0", "9999999999999999", "x"] {
        let mut session = Session::open(server.address, "app", "app");
        session.say(&format!("SET epochgate.epoch = '{bad}'"));
        assert_stale(&session.say("DELETE FROM orders"));
    }
    // All the ways to write.
    let (mut stale, ways) = (
        session_of(&server, 41),
        [
            "INSERT INTO orders VALUES (3) ON CONFLICT (id) DO UPDATE SET v = 'y'",
            "UPDATE orders SET v = 'y' WHERE false",
            "DELETE FROM orders",
            "TRUNCATE orders",
            "MERGE INTO orders USING (VALUES (3)) n (id) ON orders.id = n.id WHEN NOT MATCHED THEN INSERT VALUES (3)",
            "WITH w AS (INSERT INTO orders VALUES (3) RETURNING id) SELECT * FROM w",
            "SELECT id INTO TEMP t FROM orders; DO 'BEGIN INSERT INTO orders VALUES (3); END'",
        ],
    );
    for way in ways {
        let said = stale.say(way);
        assert!(said.contains("25006"), "{way}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    std::fs::write(&rows, "3\tx\n").unwrap();
    let copy = |epoch| {
        let launch = psql_launch(server.address, "app", "app").env("PGOPTIONS", format!("-c epochgate.epoch={epoch}"));
        launch.args(["-c", "COPY orders FROM stdin"]).input(&rows).start().told()
    };
    assert_stale(&copy(41).unwrap_err());
    assert_eq!(count(&server), "2");
    copy(42).unwrap();
    assert_eq!(count(&server), "3");
}

#[test]
fn a_transaction_in_flight_is_waited_for_and_then_ended() {
    let (server, asker) = fenced();
    let mut quick = session_of(&server, 41);
    assert_eq!(quick.say("BEGIN; INSERT INTO orders VALUES (1)"), "");
    let mut open = session_of(&server, 41);
    assert_eq!(open.say("BEGIN; INSERT INTO orders VALUES (2)"), "");
    let mut reads = session_of(&server, 41);
    assert_eq!(reads.say("BEGIN; SELECT count(*) FROM orders"), "0");
    // Waits for its end, and is not held up by it meanwhile.
    quick.begin("SELECT pg_sleep(0.3); COMMIT");
    let proof = asker.prove(42).unwrap();
    assert_eq!(quick.answer(), "", "the one that came to its end by itself");
    assert!(proof.ended >= 1, "the one that stayed");
    assert_eq!(count(&server), "1", "what was open is rolled back");
    assert!(open.say("COMMIT").contains("57P01"), "the session is told");
    assert_eq!(reads.say("COMMIT"), "", "who only reads is no matter");
}

#[test]
fn a_new_writer_does_not_wait_for_an_old_one_to_end() {
    let (server, asker) = fenced();
    let mut old = session_of(&server, 41);
    old.say("BEGIN; INSERT INTO orders VALUES (1)");
    std::thread::scope(|scope| {
        let proved = scope.spawn(|| {
            let asker = Asker::of(server.address);
            asker.prove(42).unwrap().ended
        });
        let raised = "SELECT epoch FROM epochgate.epochs";
        eventually("the row is raised", LONG, || server.query(raised) == "42");
        let mut new = session_of(&server, 42);
        assert_eq!(new.say("INSERT INTO orders VALUES (2)"), "");
        assert!(proved.join().unwrap() >= 1);
    });
    drop(asker);
    assert_eq!(server.query("SELECT id FROM orders"), "2");
}

/// What the order in the trigger is for: whoever is held up between the two has not looked yet.
#[test]
fn the_mark_is_taken_before_the_row_is_looked_at() {
    let (server, asker) = fenced();
    let mut holder = Session::open(server.address, "app", "app");
    let mark = mark_of(&orders());
    assert_eq!(holder.say(&format!("SELECT count(pg_advisory_lock({mark}, 41))")), "1");
    let mut old = session_of(&server, 41);
    old.begin("INSERT INTO orders VALUES (1)");
    await_running(&server, "INSERT INTO orders VALUES (1)", 1);
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    eventually("the writer waits for its mark", LONG, || server.query(waits) == "1");
    // Ends the one that holds the mark, and so lets the writer go on, after the row was raised.
    asker.prove(42).unwrap();
    assert_stale(&old.answer());
    assert_eq!(count(&server), "0");
}

#[test]
fn a_snapshot_from_before_does_not_write() {
    let (server, asker) = fenced();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let epoch = if level == "SERIALIZABLE" { 43 } else { 41 };
        let mut old = session_of(&server, epoch);
        assert_eq!(old.say(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM orders")), "0");
        asker.prove(epoch + 1).unwrap();
        let said = old.say("INSERT INTO orders VALUES (1)");
        assert!(said.contains("40001"), "{level}: {said}");
        drop(old);
        // One that has looked already has the row locked, and is ended.
        let mut open = session_of(&server, epoch + 1);
        assert_eq!(open.say(&format!("BEGIN ISOLATION LEVEL {level}; INSERT INTO orders VALUES (1)")), "");
        assert!(asker.prove(epoch + 2).unwrap().ended >= 1);
        assert!(open.say("COMMIT").contains("57P01"));
    }
    assert_eq!(count(&server), "0");
}

#[test]
fn a_savepoint_that_is_rolled_back_takes_its_mark_and_its_writes_with_it() {
    let (server, asker) = fenced();
    let mut old = session_of(&server, 41);
    old.say("BEGIN; SAVEPOINT s; INSERT INTO orders VALUES (1); ROLLBACK TO s");
    asker.prove(42).unwrap();
    assert_stale(&old.say("INSERT INTO orders VALUES (1)"));
}

#[test]
fn partitions_and_children_are_fenced_by_their_own_names() {
    let server = server();
    let tables = "CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent); \
                  CREATE TABLE orders (id int) PARTITION BY RANGE (id); \
                  CREATE TABLE low PARTITION OF orders FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id); \
                  CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5); \
                  CREATE TABLE kept (id int PRIMARY KEY); \
                  CREATE TABLE lines (id int REFERENCES kept ON DELETE CASCADE); \
                  CREATE VIEW shown AS SELECT id FROM orders; INSERT INTO kept VALUES (1); INSERT INTO lines VALUES (1)";
    psql(server.address, "app", "app", tables).unwrap();
    put_in(&server, "orders,public.parent,lines");
    put_in(&server, "orders");
    Asker::of(server.address).prove(42).unwrap();
    let mut stale = session_of(&server, 41);
    for table in ["orders", "low", "lowest", "parent", "child", "lines", "shown"] {
        assert_stale(&stale.say(&format!("INSERT INTO {table} VALUES (1)")));
    }
    // A cascade is a statement of its own.
    assert_stale(&stale.say("DELETE FROM kept"));
    let mut current = session_of(&server, 42);
    for table in ["orders", "low", "lowest", "parent", "child", "shown"] {
        assert_eq!(current.say(&format!("INSERT INTO {table} VALUES (1)")), "");
    }
    assert_eq!(current.say("DELETE FROM kept"), "");
    let why = psql(server.address, "app", "app", &sql(&["--tables", "shown"])).unwrap_err();
    assert!(why.contains("shown is no table"), "{why}");
}

#[test]
fn replication_role_does_not_turn_it_off() {
    let (server, _asker) = fenced();
    let why = psql(
        server.address,
        "postgres",
        "app",
        "SET session_replication_role = replica; SET epochgate.epoch = '40'; INSERT INTO orders VALUES (1)",
    );
    assert_stale(&why.unwrap_err());
}

#[test]
fn a_prepared_transaction_is_counted_and_only_one_that_holds_the_row_is_waited_for() {
    let (server, asker) = fenced();
    let mut old = session_of(&server, 41);
    old.say("BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'plain'");
    let proof = asker.prove(42).unwrap();
    assert_eq!(proof.prepared, 1);
    let mut old = session_of(&server, 42);
    old.say("BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO orders VALUES (2); PREPARE TRANSACTION 'locking'");
    let why = asker.prove(43).unwrap_err();
    assert!(why.contains("locking") && why.contains("COMMIT PREPARED or ROLLBACK PREPARED"), "{why}");
    old.say("ROLLBACK PREPARED 'locking'");
    asker.prove(43).unwrap();
}

#[test]
fn the_row_only_goes_up_and_only_by_the_guard() {
    let (server, asker) = fenced();
    asker.prove(42).unwrap();
    asker.prove(42).unwrap();
    let why = asker.prove(41).unwrap_err();
    assert!(why.contains("orders is at epoch 42 in this database, above 41") && why.contains("rebase"), "{why}");
    let why = asker.prove_of(&term(42, 2)).unwrap_err();
    assert!(why.contains("another term"), "{why}");
    for statement in ["UPDATE epochgate.epochs SET epoch = 7", "SELECT epochgate.raise_epoch('orders', 99, 'n', 'w')"] {
        // The owner of the tables has made it, and may; nobody else.
        server.query("CREATE ROLE other LOGIN");
        let why = psql(server.address, "other", "app", statement).unwrap_err();
        assert!(why.contains("42501"), "{why}");
        server.query("DROP ROLE other");
    }
}

#[test]
fn a_raise_outlives_the_servers_crash_whatever_the_server_does_about_other_commits() {
    let (mut server, asker) = fenced();
    server.query("SET synchronous_commit = on; CREATE TABLE mark ()");
    asker.prove(42).unwrap();
    server.kill();
    server.begin();
    assert_eq!(server.query("SELECT epoch FROM epochgate.epochs"), "42");
    assert_stale(&session_of(&server, 41).say("INSERT INTO orders VALUES (1)"));
}

#[test]
fn before_the_first_raise_all_may_write_and_are_waited_for_at_it() {
    let server = server();
    psql(server.address, "app", "app", "CREATE TABLE orders (id int)").unwrap();
    put_in(&server, "orders");
    let mut open = Session::open(server.address, "app", "app");
    assert_eq!(open.say("BEGIN; INSERT INTO orders VALUES (1)"), "");
    assert!(Asker::of(server.address).prove(42).unwrap().ended >= 1);
    assert!(open.say("COMMIT").contains("57P01"));
    assert_eq!(count(&server), "0");
}

#[test]
fn it_goes_away_without_a_trace_and_only_its_own_part() {
    let (server, asker) = fenced();
    psql(server.address, "app", "app", "CREATE TABLE other (id int)").unwrap();
    let other = sql(&["--tables", "other"]).replace("'orders'", "'others'");
    psql(server.address, "app", "app", &other).unwrap();
    psql(server.address, "app", "app", &sql(&["--drop"])).unwrap();
    psql(server.address, "app", "app", "INSERT INTO orders VALUES (1)").unwrap();
    assert_eq!(server.query("SELECT string_agg(resource, ',') FROM epochgate.epochs"), "others");
    assert!(!asker.prove(42).unwrap().in_target, "{} has no row any more", orders());
    psql(server.address, "app", "app", &sql(&["--drop"]).replace("'orders'", "'others'")).unwrap();
    assert_eq!(server.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'epochgate'"), "0");
    assert_eq!(server.query("SELECT count(*) FROM pg_trigger WHERE tgname = 'epochgate_fence'"), "0");
}

#[test]
fn a_function_that_is_anybodys_is_not_called() {
    let server = server();
    server.query(
        "CREATE SCHEMA epochgate; CREATE FUNCTION epochgate.raise_epoch(text, bigint, text, text) RETURNS boolean \
         LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''called as %'', current_user; END'; \
         GRANT USAGE ON SCHEMA epochgate TO epochgate",
    );
    assert!(!Asker::of(server.address).prove(42).unwrap().in_target);
    await_running(&server, "raise_epoch", 0);
}
