//! `protocol: tcp`: a connection belongs to its epoch, and ends with it, whatever it carries.
//!
//! Real processes: etcd, MariaDB as the target that knows nothing of epochs, a guard, stamps, HAProxy in front.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::etcd::Etcd;
use support::haproxy::Haproxy;
use support::history;
use support::mariadb::{self, Mariadb, mariadb};
use support::ports;
use support::process::{LONG, eventually, eventually_some};
use support::sidecar::{Setup, Sidecar, epoch_of, etcd, guard, stamp};

/// etcd, a target, a guard, and a writer that leads.
struct World {
    a: Sidecar,
    guard: Sidecar,
    etcd: Etcd,
    stamp_of_a: String,
}

impl World {
    fn before(target: SocketAddr) -> World {
        World::with(target, |guard| guard, |stamp| stamp)
    }

    /// With something different about the guard and about A.
    fn with(target: SocketAddr, of_guard: impl Fn(Setup) -> Setup, of_a: impl Fn(Setup) -> Setup) -> World {
        let etcd = etcd();
        let guard = of_guard(guard("guard", etcd.url(), &format!("tcp://{target}")).protocol("tcp")).start();
        let a = of_a(stamp("orders-a", etcd.url(), guard.address).protocol("tcp")).start();
        let stamp_of_a = a.await_leadership();
        World { a, guard, etcd, stamp_of_a }
    }

    /// Stops A's sidecar until a second writer leads; that one.
    fn fail_over(&mut self) -> Sidecar {
        let b = stamp("orders-b", self.etcd.url(), self.guard.address).protocol("tcp").start();
        self.a.process().pause();
        let stamp_of_b = b.await_leadership();
        assert!(epoch_of(&stamp_of_b) > epoch_of(&self.stamp_of_a), "{stamp_of_b}");
        b
    }
}

/// The last record of the audit log that is a refusal, once there is one.
#[track_caller]
fn refusal(of: &Sidecar) -> Value {
    eventually_some("a refusal is in the audit log", LONG, || refusals(of).pop())
}

fn refusals(of: &Sidecar) -> Vec<Value> {
    let text = fs::read_to_string(of.config().with_file_name("audit.jsonl")).unwrap_or_default();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["event"] == "refused").collect()
}

/// Connects, sends these bytes, and returns what comes until the other side ends the connection.
fn exchange(with: SocketAddr, bytes: &[u8]) -> (SocketAddr, Vec<u8>) {
    let mut connection = TcpStream::connect(with).expect("it listens");
    connection.set_read_timeout(Some(LONG)).expect("a limit can be set");
    let own = connection.local_addr().expect("it is connected");
    // It may be ended before all was sent.
    let _ = connection.write_all(bytes);
    let mut answer = Vec::new();
    match connection.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    (own, answer)
}

/// A PROXY protocol header of version 2 with this stamp, written here by hand: no address, and one field of type 0xE7.
fn header(stamp: &str) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x20\x00".to_vec();
    let length = u16::try_from(stamp.len()).expect("a stamp is short");
    header.extend((length + 3).to_be_bytes());
    header.push(0xE7);
    header.extend(length.to_be_bytes());
    header.extend(stamp.as_bytes());
    header
}

#[test]
fn a_mariadb_client_notices_nothing() {
    let server = Mariadb::start();
    let world = World::before(server.address);
    let through = |sql: &str| mariadb(world.a.address, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    through("CREATE TABLE t (n INT PRIMARY KEY, data LONGTEXT); INSERT INTO t VALUES (1, 'one'), (2, 'two')");
    assert_eq!(through("SELECT n, data FROM t ORDER BY n"), "1\tone\n2\ttwo");
    assert_eq!(through("PREPARE p FROM 'SELECT ? + n FROM t WHERE n = ?'; EXECUTE p USING 40, 2"), "42");
    assert!(mariadb(world.a.address, "SELECT no").unwrap_err().contains("1054"));

    // 32 MiB each way, in packets of 16.
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.sql");
    let text: String = (0..4 << 20).map(|n| format!("{n:08x}")).collect();
    fs::write(&large, format!("INSERT INTO t VALUES (3, '{text}');")).unwrap();
    let inserted = mariadb::mariadb_launch(world.a.address).input(&large).start().told();
    assert_eq!(inserted.as_deref(), Ok(""));
    assert_eq!(server.query("SELECT LENGTH(data), RIGHT(data, 8) FROM t WHERE n = 3"), "33554432\t003fffff");
    assert!(through("SELECT data FROM t WHERE n = 3") == text, "not what was written");
}

#[test]
fn sessions_end_with_their_epoch_before_the_next_one_writes() {
    let server = Mariadb::start();
    server.query("CREATE TABLE t (n INT PRIMARY KEY, by_whom TEXT); INSERT INTO t VALUES (1, 'nobody')");
    let mut world = World::before(server.address);
    let mut idle = mariadb::talk(world.a.address);
    assert_eq!(idle.say("SELECT 1;"), "1");
    let mut busy = mariadb::talk(world.a.address);
    assert_eq!(busy.say("BEGIN; UPDATE t SET by_whom = 'A' WHERE n = 1;"), "");

    let b = world.fail_over();
    // The row is locked by A's transaction until that has ended; and its other session has ended too.
    let first = "UPDATE t SET by_whom = 'B' WHERE n = 1; SELECT COUNT(*) FROM information_schema.processlist";
    assert_eq!(mariadb(b.address, first).as_deref(), Ok("1"));
    assert_eq!(world.guard.resource()["last_handoff"]["by"], "answers", "the server was seen to end them");

    world.a.process().resume();
    for (old, says) in [(&mut busy, "COMMIT;"), (&mut idle, "UPDATE t SET by_whom = 'A';")] {
        let told = old.say(says);
        assert!(told.contains("ERROR 2013") || told.contains("ERROR 2006"), "{told}");
    }
    assert!(mariadb(world.a.address, "UPDATE t SET by_whom = 'A'").is_err());
    assert_eq!(refusal(&world.a)["method"], "TCP");
    assert_eq!(server.query("SELECT by_whom FROM t"), "B");
    let lines = history::of_files([&world.guard, &world.a, &b].map(Sidecar::history_file));
    history::assert_rules_kept(&lines);
}

#[test]
fn a_statement_that_does_not_end_is_waited_out() {
    let server = Mariadb::start();
    server.query("CREATE TABLE t (n INT)");
    let mut world = World::before(server.address);
    let mut long = mariadb::talk(world.a.address);
    long.begin("SELECT SLEEP(4); INSERT INTO t VALUES (1);");
    let asleep = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'";
    eventually("it sleeps", LONG, || server.query(asleep) == "1");
    let b = world.fail_over();
    assert_eq!(mariadb(b.address, "INSERT INTO t VALUES (2)").as_deref(), Ok(""));
    assert_eq!(world.guard.resource()["last_handoff"]["by"], "time");
    assert_eq!(server.query("SELECT n FROM t"), "2", "what came after the sleep never reached the server");
}

#[test]
fn an_old_stamp_and_none_are_refused_with_nothing_sent() {
    let (target, heard) = listener_that_answers();
    let mut world = World::before(target);
    let guard = world.guard.address;
    let with_stamp = [&header(&world.stamp_of_a)[..], b"hello"].concat();
    let mut kept = TcpStream::connect(guard).unwrap();
    kept.write_all(&with_stamp).unwrap();
    kept.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "5 bytes", "the stamp is in force");

    let b = world.fail_over();
    assert_eq!(exchange(guard, &with_stamp).1, b"");
    let refused = refusal(&world.guard);
    assert_eq!((&refused["reason"], &refused["writer"]), (&"stale_epoch".into(), &"orders-a".into()), "{refused}");
    let epochs = [&world.stamp_of_a, &b.await_leadership()].map(|stamp| epoch_of(stamp).to_string());
    assert_eq!([&refused["epoch"], &refused["required_epoch"]], [epochs[0].as_str(), epochs[1].as_str()], "{refused}");

    let forged = "999999999999999;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"";
    for bytes in [b"hello".to_vec(), header("1,2"), header(forged), b"\r\n\r\n\0\r\nQUIT\n\x31\x00\0\0".to_vec()] {
        assert_eq!(exchange(guard, &bytes).1, b"", "{bytes:?}");
    }
    let reasons: Vec<Value> = refusals(&world.guard).into_iter().map(|mut record| record["reason"].take()).collect();
    assert_eq!(reasons, ["stale_epoch", "stamp_required", "malformed_stamp", "epoch_denied"]);
    assert_eq!(heard.lock().unwrap().len(), 1, "the target heard of nobody but of A while it led");
    // And B's go on.
    assert_eq!(half_closed(b.address, b"hello!"), "6 bytes");
}

#[test]
fn each_side_may_end_alone() {
    let (target, _) = listener_that_answers();
    let world = World::before(target);
    let large = vec![b'x'; 10_000_000];
    assert_eq!(half_closed(world.a.address, &large), "10000000 bytes");
}

#[test]
fn the_header_of_a_load_balancer_says_who_the_client_is() {
    let (target, heard) = listener_that_answers();
    let balancers = "proxy_protocol: { from: [127.0.0.0/8], required: true }";
    let mut world = World::with(target, |guard| guard, |stamp| stamp.listener(balancers));
    for words in ["send-proxy-v2", "send-proxy"] {
        let to_stamp = Haproxy::start(world.a.address, words);
        assert_eq!(half_closed(to_stamp.address, b"hello"), "5 bytes", "{words}");
        let to_guard = Haproxy::start(world.guard.address, words);
        let (client, answer) = exchange(to_guard.address, b"hello");
        assert_eq!(answer, b"", "{words}: it carries no stamp");
        let says = || refusals(&world.guard).iter().any(|record| record["peer"] == client.to_string());
        eventually(&format!("the audit log names the client behind {words}"), LONG, says);
    }
    assert_eq!(exchange(world.a.address, b"hello").1, b"", "required, and there is none");
    // HAProxy was asked before whether it listens: those say nothing.
    assert_eq!(heard.lock().unwrap().iter().filter(|&&bytes| bytes > 0).collect::<Vec<_>>(), [&5, &5]);
    assert!(world.a.process().is_running());
}

#[test]
fn the_header_of_somebody_else_is_not_believed() {
    let (target, heard) = listener_that_answers();
    let others = "proxy_protocol: { from: [10.0.0.0/8] }";
    let etcd = etcd();
    let guard = guard("guard", etcd.url(), &format!("tcp://{target}")).protocol("tcp").listener(others).start();
    let a = stamp("orders-a", etcd.url(), guard.address).protocol("tcp").start();
    let stamp_of_a = a.await_leadership();
    assert_eq!(exchange(guard.address, &[&header(&stamp_of_a)[..], b"hello"].concat()).1, b"");
    assert_eq!(refusal(&guard)["reason"], "stamp_required");
    assert_eq!(exchange(a.address, b"hello").1, b"", "its own stamp is none to this guard either");
    assert!(heard.lock().unwrap().is_empty());
}

/// Sends all, ends its side, and returns the answer.
fn half_closed(with: SocketAddr, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(with).expect("it listens");
    connection.set_read_timeout(Some(LONG)).expect("a limit can be set");
    connection.write_all(bytes).expect("it takes all");
    connection.shutdown(Shutdown::Write).expect("it is connected");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers in text");
    answer
}

/// What the target heard of each connection that ended.
type Heard = std::sync::Arc<std::sync::Mutex<Vec<usize>>>;

/// A target that counts what it gets until its client has ended, and answers only then.
fn listener_that_answers() -> (SocketAddr, Heard) {
    let listener = TcpListener::bind(ports::free_address()).expect("it was free");
    let (address, heard) = (listener.local_addr().expect("it listens"), Heard::default());
    let keep = heard.clone();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let heard = keep.clone();
            thread::spawn(move || {
                let mut all = Vec::new();
                if connection.read_to_end(&mut all).is_ok() {
                    heard.lock().expect("nobody panics with it").push(all.len());
                    thread::sleep(Duration::from_millis(50));
                    let _ = connection.write_all(format!("{} bytes", all.len()).as_bytes());
                }
            });
        }
    });
    (address, heard)
}
