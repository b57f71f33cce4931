//! `stale: read_only`: what a session may do that may not write. Before PostgreSQL 16 or later; left out where there is none.

use std::fs;

use crate::support::postgres::{Postgres, Session, psql, psql_launch};
use crate::support::process::{LONG, eventually};
use crate::support::sidecar::{Sidecar, stamp};
use crate::{World, program, psql_with, refusal, session};

/// A world whose guard lets stale sessions read, and a second stamp, whose writer does not lead.
pub struct Readers {
    pub world: World,
    pub b: Sidecar,
}

/// What could be there to be changed.
const THINGS: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, what text);
    INSERT INTO orders VALUES (1, 'of A');
    CREATE SEQUENCE numbers;
    CREATE MATERIALIZED VIEW seen AS SELECT * FROM orders;
    CREATE FUNCTION says_immutable() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
      'BEGIN INSERT INTO orders VALUES (2, ''immutable''); RETURN 1; END';
    CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS
      'BEGIN INSERT INTO orders VALUES (3, ''volatile''); RETURN 1; END';
    CREATE FUNCTION turns() RETURNS int LANGUAGE plpgsql AS
      'BEGIN PERFORM set_config(''transaction_read_only'', ''off'', false); INSERT INTO orders VALUES (4, ''turned''); RETURN 1; END';
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS
      'BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO orders VALUES (5, ''called''); COMMIT; END';
    CREATE FUNCTION hides() RETURNS int LANGUAGE plpgsql AS
      'BEGIN EXECUTE ''EXPLAIN ANALYZE CREATE TABLE made AS SELECT 1 AS a''; RETURN 1; END';
    CREATE FUNCTION one(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE OPERATOR public./ (LEFTARG = int, RIGHTARG = int, FUNCTION = one);
    CREATE FUNCTION public.pg_current_xact_id_if_assigned() RETURNS xid8 LANGUAGE sql AS 'SELECT NULL::xid8';
    SELECT lo_from_bytea(4711, 'kept')";

/// One that only the leader decides.
const PREPARED: &str = "BEGIN; INSERT INTO orders VALUES (6, 'prepared'); PREPARE TRANSACTION 'of A'";

/// All of that, as it is.
const STATE: &str = "
    SELECT string_agg(id || what, ',') FROM orders; SELECT last_value, is_called FROM numbers; SELECT count(*) FROM seen;
    SELECT loid, data FROM pg_largeobject; SELECT gid FROM pg_prepared_xacts; SELECT count(*) FROM pg_class;
    SELECT count(*) FROM pg_database; SELECT count(*) FROM pg_roles; SELECT count(*) FROM pg_proc;
    SELECT relacl FROM pg_class WHERE relname = 'orders'; SHOW work_mem";

impl Readers {
    /// `None`, with a word, where no server can hold a session to reading.
    pub fn start() -> Option<Readers> {
        let postgres = Postgres::start_for_reading()?;
        let world = World::over(postgres, |guard| guard.listener("stale: read_only"));
        world.sql(THINGS);
        world.sql(PREPARED);
        let b = stamp("orders-b", world.etcd.url(), world.guard.address).protocol("postgres");
        let b = b.listener("stale: read_only").start();
        eventually("B's writer knows that it does not lead", LONG, || {
            psql(b.address, "app", "app", "SELECT 1").as_deref() == Ok("1")
        });
        Some(Readers { world, b })
    }

    #[track_caller]
    pub fn state(&self) -> String {
        self.world.postgres.query(STATE)
    }

    /// A session of a client without a sidecar that names no epoch.
    fn unstamped(&self, user: &str) -> Session {
        Session::open(self.world.guard.address, user, "app")
    }
}

#[test]
fn who_does_not_lead_reads_and_writes_nothing() {
    let Some(readers) = Readers::start() else { return };
    let (world, b) = (&readers.world, &readers.b);
    let before = readers.state();
    let mut reads = session(b);
    assert_eq!(reads.say("SELECT what FROM orders"), "of A");
    assert_eq!(reads.say("SHOW application_name"), "psql [epochgate reads]");
    assert!(reads.say("\\d orders\n").contains("what|text"), "psql's own queries");
    let told = reads.say("UPDATE orders SET what = 'of B'");
    assert!(told.contains("25006") && told.contains("reason stamp_required"), "{told}");
    assert!(told.contains("outcome not_applied") && told.contains("HINT"), "{told}");
    let record = refusal(&world.guard);
    assert_eq!((&record["reason"], &record["path"]), (&"stamp_required".into(), &"/app".into()), "{record}");
    assert_eq!(reads.say("SELECT what FROM orders"), "of A", "the session goes on");
    let told = reads.say("SELECT 1\\; SELECT 2");
    assert!(told.contains("42601") && told.contains("one statement at a time"), "{told}");

    // It is counted as a read, and as a connection; no handoff waits for it.
    assert_eq!(world.guard.resource()["gate"]["in_flight"], 0, "the leader has no session now");
    assert_eq!(world.guard.metric("epochgate_connections_open{listener=\"guard\"}"), 1.0);
    reads.process().kill();
    let read = "epochgate_requests_total{kind=\"read\",listener=\"guard\",outcome=\"answered\"}";
    eventually("it has ended, and is counted", LONG, || world.guard.metric(read) >= 1.0);
    let rejected = "epochgate_rejections_total{listener=\"guard\",reason=\"stamp_required\",resource=\"orders\"}";
    assert_eq!(world.guard.metric(rejected), 1.0);
    assert_eq!(readers.state(), before);
    world.assert_rules_kept();
}

#[test]
fn what_clients_do_to_read_works() {
    let Some(readers) = Readers::start() else { return };
    let (world, at) = (&readers.world, &readers.b);
    let bench = |args: &[&str]| {
        let mut bench = program("pgbench", at.address).args(args).arg("app").run(LONG * 4);
        assert!(bench.wait(LONG).success(), "{}", bench.recent());
        bench.stdout()
    };
    let mut made = program("pgbench", world.a.address).args(["-i", "-q", "-s", "1", "app"]).run(LONG * 4);
    assert!(made.wait(LONG).success(), "{}", made.recent());
    for mode in ["simple", "extended", "prepared"] {
        let said = bench(&["-n", "-S", "-c", "4", "-t", "50", "--protocol", mode]);
        assert!(said.contains("200/200"), "{mode}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("pipeline.sql");
    let lines: String = (0..50).map(|n| format!("SELECT {n};\n")).collect();
    fs::write(&script, format!("BEGIN;\n\\startpipeline\n{lines}\\endpipeline\nCOMMIT;\n")).unwrap();
    let said = bench(&["-n", "-c", "2", "-t", "10", "--protocol", "extended", "-f", &script.display().to_string()]);
    assert!(said.contains("20/20"), "{said}");

    // A large COPY, of which a client takes its time.
    let file = folder.path().join("rows").display().to_string();
    let copy = format!("\\copy pgbench_accounts TO '{file}'");
    let copied = psql_launch(at.address, "app", "app").args(["-c", &copy]).run(LONG * 4).told();
    assert!(copied.is_ok() && fs::read_to_string(&file).unwrap().lines().count() == 100_000, "{copied:?}");

    let mut one = session(at);
    for (sql, answer) in [
        ("BEGIN", ""),
        ("SELECT what FROM orders", "of A"),
        ("SAVEPOINT s", ""),
        ("SELECT nothing", "42703"),
        ("SELECT 1", "25P02"),
        ("ROLLBACK TO s", ""),
        ("DECLARE c CURSOR FOR SELECT generate_series(1, 100)", ""),
        ("FETCH 2 FROM c", "1\n2"),
        ("COMMIT", ""),
        ("FETCH 2 FROM c", "34000"),
        ("DECLARE h CURSOR WITH HOLD FOR SELECT what FROM orders", "25006"),
        ("PREPARE p (int) AS SELECT $1 + 1", ""),
        ("EXECUTE p (41)", "42"),
        ("SET work_mem = '5MB'", ""),
        ("SHOW work_mem", "5MB"),
        ("LISTEN news", ""),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ""),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", ""),
        ("LOCK TABLE orders IN ACCESS SHARE MODE", ""),
        ("SELECT pg_export_snapshot() IS NOT NULL", "t"),
        ("ROLLBACK", ""),
        ("BEGIN ISOLATION LEVEL READ COMMITTED", "25001"),
        ("SELECT lo_get(4711)", "\\x6b657074"),
        ("EXPLAIN (COSTS OFF) SELECT 1", "Result"),
        ("SHOW default_transaction_read_only", "on"),
        ("", ""),
    ] {
        let said = one.say(sql);
        assert!(said.contains(answer) && (said.is_empty() == answer.is_empty()), "{sql}: {said}");
    }
    world.sql("NOTIFY news, 'told'");
    eventually("the notification comes", LONG, || one.say("SELECT 1").contains("told"));
    // Ctrl-C, by a connection of its own.
    one.begin("SELECT pg_sleep(600)");
    eventually("it runs", LONG, || {
        world.postgres.query(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'",
        ) == "1"
    });
    one.interrupt();
    assert!(one.answer().contains("57014"));
    // libpq sees that it reads.
    let wants = |attributes: &str| {
        let launch = psql_launch(at.address, "app", "app").env("PGTARGETSESSIONATTRS", attributes);
        launch.args(["-At", "-c", "SELECT 1"]).start().told()
    };
    assert_eq!(wants("read-only").as_deref(), Ok("1"));
    assert!(wants("read-write").expect_err("it is not").contains("session is read-only"));
    eventually("all have ended", LONG, || world.postgres.sessions() == 0);
    world.assert_rules_kept();
}

/// What the server refuses of a reading session, whoever it is, each in a transaction of the client's and in none.
const REFUSED: &[&str] = &[
    "INSERT INTO orders VALUES (7, 'x')",
    "UPDATE orders SET what = 'x'",
    "DELETE FROM orders",
    "TRUNCATE orders",
    "MERGE INTO orders USING (VALUES (1)) v (i) ON id = i WHEN MATCHED THEN UPDATE SET what = 'x'",
    "WITH x AS (INSERT INTO orders VALUES (8, 'x') RETURNING *) SELECT * FROM x",
    "EXPLAIN ANALYZE INSERT INTO orders VALUES (9, 'x')",
    "SELECT * FROM orders FOR UPDATE",
    "SELECT * FROM orders FOR KEY SHARE",
    "SELECT * INTO copied FROM orders",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 77)",
    "SELECT lo_create(0)",
    "SELECT lo_put(4711, 0, 'x')",
    "SELECT lo_unlink(4711)",
    "SELECT lo_open(4711, 131072)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT says_immutable()",
    "SELECT writes()",
    "SELECT turns()",
    "SELECT query_to_xml('INSERT INTO orders VALUES (10, ''x'') RETURNING 1', true, true, '')",
    "CALL commits()",
    "DO 'BEGIN INSERT INTO orders VALUES (11, ''x''); END'",
    "DO 'BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO orders VALUES (12, ''x''); END'",
    "COMMIT PREPARED 'of A'",
    "ROLLBACK PREPARED 'of A'",
    "CREATE TABLE made (a int)",
    "CREATE TEMP TABLE made (a int)",
    "DROP TABLE orders",
    "CREATE ROLE made",
    "CREATE DATABASE made",
    "GRANT SELECT ON orders TO PUBLIC",
    "COMMENT ON TABLE orders IS 'x'",
    "REFRESH MATERIALIZED VIEW seen",
    "VACUUM orders",
    "ALTER SYSTEM SET work_mem = '5MB'",
    "COPY orders FROM PROGRAM 'echo 13'",
    "SET transaction_read_only = off",
    "SET LOCAL transaction_read_only = off",
    "SET TRANSACTION READ WRITE",
    "RESET transaction_read_only",
    "SET transaction_read_only TO DEFAULT",
    "SET LOCAL transaction_read_only TO DEFAULT",
    "SELECT set_config('transaction_read_only', NULL, false)",
    "SELECT set_config('transaction_read_only', NULL, true)",
    "DO 'BEGIN BEGIN SET LOCAL transaction_read_only TO off; EXCEPTION WHEN division_by_zero THEN NULL; END; INSERT INTO orders VALUES (18, ''x''); END'",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'transaction_read_only'",
    "ALTER ROLE CURRENT_USER SET default_transaction_read_only = off",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "BEGIN READ WRITE",
    "START TRANSACTION READ WRITE",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE",
    "DISCARD ALL",
    "SELECT 1\\; INSERT INTO orders VALUES (14, 'x')",
    "COMMIT\\; INSERT INTO orders VALUES (15, 'x')",
];

/// What it lets a session say, and what follows is refused all the same.
const ALLOWED: &[&str] = &[
    "SET default_transaction_read_only = off",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "PREPARE p AS INSERT INTO orders VALUES (16, 'x')",
    "RESET ALL",
    "RESET default_transaction_read_only",
    "SAVEPOINT s",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "COMMIT",
    "ROLLBACK",
    "END",
    "ABORT",
    "SET ROLE app",
    "RESET ROLE",
];

/// What it lets a read-only transaction write, or run at its end: that is never committed.
const HIDDEN: &[&str] = &[
    "EXPLAIN ANALYZE CREATE TABLE made AS SELECT 1 AS a",
    "EXPLAIN ANALYZE CREATE MATERIALIZED VIEW made AS SELECT 1 AS a",
    "EXPLAIN ANALYZE CREATE TEMP TABLE made AS SELECT 1 AS a",
    "EXPLAIN ANALYZE SELECT 1 AS a INTO made",
    "SELECT hides()",
    "DECLARE h CURSOR WITH HOLD FOR SELECT hides()",
    "DECLARE h CURSOR WITH HOLD FOR SELECT 1",
    "SELECT pg_catalog.pg_current_xact_id() IS NOT NULL",
    "SELECT pg_logical_emit_message(true, 'a', 'b') IS NOT NULL",
    "ANALYZE orders",
    "SELECT pg_import_system_collations('public') >= 0",
];

#[test]
fn writes_of_every_kind_are_refused_by_the_server() {
    let Some(readers) = Readers::start() else { return };
    let before = readers.state();
    for user in ["app", "postgres"] {
        let mut one = readers.unstamped(user);
        for sql in REFUSED {
            for in_own in [false, true] {
                if in_own {
                    assert_eq!(one.say("BEGIN"), "", "{sql}");
                }
                let told = one.say(sql);
                assert!(told.contains("ERROR:"), "{user}: {sql}: {told}");
                if in_own {
                    assert_eq!(one.say("ROLLBACK"), "", "{sql}");
                }
                assert_eq!(one.say("SELECT 'on'"), "on", "{user}: {sql}");
            }
            assert_eq!(readers.state(), before, "{user}: {sql}");
        }
        // What the guard itself says does not go by this.
        assert_eq!(one.say("SET search_path TO public, pg_catalog"), "");
        for sql in HIDDEN {
            let told = one.say(sql);
            let has_no_right = user == "app" && told.contains("42501");
            let is_refused = told.contains("25006") && told.contains("stamp_required");
            assert!(is_refused || has_no_right, "{user}: {sql}: {told}");
            assert_eq!(one.say("BEGIN"), "", "{sql}");
            let _ = one.say(sql);
            let told = one.say("COMMIT");
            assert!(told.contains("25006") || told.is_empty(), "{user}: {sql}: {told}");
            let _ = one.say("ROLLBACK");
            assert_eq!(one.say("SELECT 'on'"), "on", "{user}: {sql}");
            assert_eq!(readers.state(), before, "{user}: {sql}");
            assert_eq!(readers.world.postgres.query("SELECT to_regclass('public.made') IS NULL"), "t", "{user}: {sql}");
        }
        assert_eq!(one.say("SET search_path TO DEFAULT"), "");
        for first in ALLOWED {
            for second in ["SET TRANSACTION READ WRITE", "RELEASE s", "COMMIT AND CHAIN", "EXECUTE p"] {
                let told: Vec<String> =
                    ["BEGIN", first, second, "SET TRANSACTION READ WRITE", INSERT, "COMMIT", INSERT, "ROLLBACK"]
                        .iter()
                        .map(|sql| one.say(sql))
                        .collect();
                assert!(told[6].contains("25006"), "{user}: {first}: {told:?}");
                let _ = one.say("DEALLOCATE ALL");
                assert_eq!(readers.state(), before, "{user}: {first}, {second}");
            }
        }
    }
    readers.world.assert_rules_kept();
}

/// One that nobody gets through.
pub const INSERT: &str = "INSERT INTO orders VALUES (17, 'x')";

#[test]
fn a_session_reads_on_through_a_failover_and_its_writer_connects_anew_to_lead() {
    let Some(readers) = Readers::start() else { return };
    let Readers { mut world, b } = readers;
    let epoch = world.epoch_of_a();
    let mut writes = session(&world.a);
    let (mut reads, mut of_b) = (Session::open(world.guard.address, "app", "app"), session(&b));
    assert!(!reads.say("BEGIN; SELECT 1").is_empty());
    assert_eq!(reads.say("SELECT what FROM orders"), "of A");
    assert_eq!(writes.say("UPDATE orders SET what = 'again of A'"), "");

    world.a.process().pause();
    b.await_leadership();
    // It holds no handoff up, and none ends it.
    assert_eq!(world.guard.resource()["last_handoff"]["by"], "answers");
    assert_eq!(reads.say("SELECT 'goes on'"), "goes on");
    // Of a stamp whose writer leads now it is to connect anew, and may write then.
    assert!(of_b.say("SELECT 1").contains("term_changed"));
    assert_eq!(psql(b.address, "app", "app", "UPDATE orders SET what = 'of B'").as_deref(), Ok(""));

    // The old writer is told; what names its epoch from now on reads, and hears both epochs when it writes.
    world.a.process().resume();
    assert!(writes.say("UPDATE orders SET what = 'late'").contains("57P01"));
    let option = format!("-c epochgate.epoch={epoch}");
    assert_eq!(psql_with(world.guard.address, &option, "SELECT what FROM orders").as_deref(), Ok("of B"));
    let told = psql_with(world.guard.address, &option, "DELETE FROM orders").expect_err("it is stale");
    assert!(
        told.contains("25006")
            && told.contains(&format!(
                "stale_epoch, outcome not_applied, resource orders, epoch {epoch} given, {} required",
                epoch + 1
            )),
        "{told}"
    );
    // So does what names an epoch that there is not. What cannot be read is refused as ever.
    let forged =
        psql_with(world.guard.address, "-c epochgate.epoch=4711", "DELETE FROM orders").expect_err("it is forged");
    assert!(forged.contains("25006") && forged.contains("epoch_denied"), "{forged}");
    assert!(
        psql_with(world.guard.address, "-c epochgate.epoch=x", "SELECT 1")
            .expect_err("nothing")
            .contains("malformed_stamp")
    );
    assert_eq!(world.postgres.query("SELECT what FROM orders"), "of B");
    world.assert_rules_kept();
}

#[test]
fn replication_and_a_server_that_cannot_hold_a_session_to_reading_are_refused() {
    if let Some(readers) = Readers::start() {
        let mut receive = program("pg_recvlogical", readers.world.guard.address)
            .args(["-d", "app", "--slot", "s", "--create-slot", "-P", "test_decoding"])
            .start();
        assert!(!receive.wait(LONG).success());
        assert!(receive.recent().contains("takes no part in replication"), "{}", receive.recent());
        assert_eq!(readers.world.postgres.query("SELECT count(*) FROM pg_replication_slots"), "0");
    }
    let postgres = Postgres::start();
    if postgres.major() >= 16 {
        return eprintln!("left out: this needs a PostgreSQL before 16");
    }
    let world = World::over(postgres, |guard| guard.listener("stale: read_only"));
    let told = psql(world.guard.address, "app", "app", "SELECT 1").expect_err("it is too old");
    assert!(told.contains("FATAL") && told.contains("stale: read_only needs 16"), "{told}");
    assert_eq!(refusal(&world.guard)["reason"], "stamp_required");
    assert_eq!(world.sql("SELECT 1"), "1", "who leads writes and reads");
}
