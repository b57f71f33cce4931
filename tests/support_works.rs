//! The tests' own tools do what the other tests rely on.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use support::client::{self, Connection};
use support::nginx::Nginx;
use support::ports;
use support::process::{LONG, Launch, eventually, program};
use support::upstream::Upstream;

const STAMP: (&str, &str) = ("Fencing-Epoch", "42;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"");

mod processes {
    use super::*;

    fn is_alive(id: u32) -> bool {
        std::path::Path::new(&format!("/proc/{id}")).exists()
    }

    #[test]
    fn one_is_heard_and_its_end_is_seen() {
        let script = "echo hello; echo trouble >&2; exit 3";
        let process = Launch::program("sh").args(["-c", script]).named("speaker").run(LONG);
        assert_eq!(process.stdout(), "hello\n");
        assert_eq!(process.stderr(), "trouble\n");
        assert!(process.recent().contains("speaker") && process.recent().contains("| trouble"));
    }

    #[test]
    fn one_that_is_dropped_is_gone_also_when_its_test_panics() {
        let start = || Launch::program("sleep").arg("1000").start();
        let process = start();
        let id = process.id();
        drop(process);
        assert!(!is_alive(id));

        let mut id = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let process = start();
            process.pause();
            id = process.id();
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && !is_alive(id));
    }

    #[test]
    fn a_stopped_one_stands_still_until_it_is_resumed() {
        let mut process = Launch::program("sh")
            .args(["-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done"])
            .start();
        process.await_words("up", LONG);
        process.pause();
        process.terminate();
        assert!(process.is_running() && !process.has_said("bye"));
        process.resume();
        assert_eq!(process.wait(LONG).code(), Some(7));
        assert!(process.has_said("bye"));
    }

    #[test]
    fn what_does_not_come_is_named() {
        let panicked = catch_unwind(|| eventually("the sky falls", Duration::from_millis(20), || false));
        let message = panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("the sky falls"), "{message}");

        let panicked = catch_unwind(|| {
            Launch::program("sh").args(["-c", "echo no"]).start().await_words("yes", LONG);
        });
        let message = panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("never said `yes`"), "{message}");
    }
}

#[test]
fn free_ports_differ_and_are_free() {
    let ports: Vec<u16> = (0..50).map(|_| ports::free()).collect();
    let mut different = ports.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), ports.len());
}

#[test]
fn nginx_stores_reads_and_deletes() {
    let nginx = Nginx::start();
    assert_eq!(client::put(nginx.address, "/orders/1", "one").unwrap().status, 201);
    assert_eq!(nginx.stored("/orders/1").unwrap(), b"one");
    assert_eq!(client::get(nginx.address, "/orders/1").unwrap().text(), "one");

    // A truncated upload leaves what was there.
    let mut cut = Connection::open(nginx.address).unwrap();
    cut.send_head("PUT", "/orders/1", &[("Content-Length", "100")]).unwrap();
    cut.send(b"half").unwrap();
    drop(cut);
    assert_eq!(client::request(nginx.address, "DELETE", "/orders/2", &[], b"").unwrap().status, 404);
    assert_eq!(nginx.stored("/orders/1").unwrap(), b"one");
    assert_eq!(client::request(nginx.address, "DELETE", "/orders/1", &[], b"").unwrap().status, 204);
    assert!(nginx.stored("/orders/1").is_none());
}

mod client_and_upstream {
    use super::*;

    #[test]
    fn writes_are_recorded_with_their_stamp() {
        let upstream = Upstream::start();
        let mut connection = Connection::open(upstream.address).unwrap();
        let answer = connection.request("PUT", "/a?q=1", &[STAMP], b"body").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "applied\n"));
        assert!(connection.stays_open_after(&answer));
        assert_eq!(connection.request("GET", "/a", &[], b"").unwrap().text(), "body");

        let log = upstream.applied();
        assert_eq!((log.len(), log[0].head.path.as_str(), &log[0].body[..]), (1, "/a", &b"body"[..]));
        assert_eq!((log[0].stamp.as_deref(), upstream.epochs()), (Some(STAMP.1), vec![42]));
        assert!(!log[0].head.http2);
    }

    #[test]
    fn a_write_waits_at_a_latch_while_another_overtakes_it() {
        let upstream = Upstream::start();
        upstream.next("/a", "apply=@old");
        let mut old = Connection::open(upstream.address).unwrap();
        old.send_head("PUT", "/a", &[("Content-Length", "3"), ("Fencing-Epoch", "1")]).unwrap();
        old.send(b"old").unwrap();
        eventually("the old write waits", LONG, || upstream.waiting("old") == 1);
        client::request(upstream.address, "PUT", "/a", &[("Fencing-Epoch", "2")], b"new").unwrap();
        // Its client goes away: a server that has the whole of it goes on.
        drop(old);
        upstream.open("old");
        eventually("the old write lands", LONG, || upstream.applied().len() == 2);
        assert_eq!((upstream.epochs(), &upstream.stored("/a").unwrap()[..]), (vec![2, 1], &b"old"[..]));
        let complaint = catch_unwind(AssertUnwindSafe(|| upstream.assert_epochs_never_decrease()));
        assert!(complaint.is_err());
    }

    #[test]
    fn a_truncated_body_is_recorded_and_not_applied() {
        let upstream = Upstream::start();
        let mut with_length = Connection::open(upstream.address).unwrap();
        with_length.send_head("PUT", "/length", &[("Content-Length", "10")]).unwrap();
        with_length.send(b"half").unwrap();
        let mut chunked = Connection::open(upstream.address).unwrap();
        chunked.begin_chunked("PUT", "/chunked", &[]).unwrap();
        chunked.send_chunk(b"half").unwrap();
        eventually("both heads are there", LONG, || upstream.arrived().len() == 2);
        with_length.reset().unwrap();
        drop(chunked);
        eventually("both are given up", LONG, || upstream.log().len() == 2);
        assert!(upstream.applied().is_empty() && upstream.stored("/chunked").is_none());
    }

    #[test]
    fn a_chunked_body_comes_whole_with_its_trailers() {
        let upstream = Upstream::start();
        let mut connection = Connection::open(upstream.address).unwrap();
        connection.begin_chunked("POST", "/a", &[("Trailer", "x-sum"), ("TE", "trailers")]).unwrap();
        connection.send_chunk(b"one ").unwrap();
        connection.send_chunk(b"two").unwrap();
        connection.end_chunks(&[("X-Sum", "7")]).unwrap();
        assert_eq!(connection.answer().unwrap().status, 200);
        let write = upstream.applied().remove(0);
        assert_eq!(&write.body[..], b"one two");
        assert_eq!(write.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn a_script_bends_the_answer() {
        let upstream = Upstream::start();
        let put = |script| client::request(upstream.address, "PUT", "/a", &[("X-Upstream", script)], b"x");
        assert_eq!(put("status=503, skip").unwrap().status, 503);
        assert!(upstream.log().is_empty());
        assert_eq!(put("early").unwrap().text(), "not read\n");
        assert!(upstream.log().is_empty());
        assert!(put("close").is_err());
        assert!(put("partial").is_err());
        assert_eq!(upstream.applied().len(), 2, "applied, and no answer came");
        assert_eq!(put("slow_read=5ms, apply=5ms, answer=5ms").unwrap().status, 200);
        assert_eq!(put("what").unwrap().status, 400);
        upstream.always("status=500");
        upstream.next("/a", "status=201");
        let plain = || client::put(upstream.address, "/a", "x").unwrap().status;
        assert_eq!((plain(), plain()), (201, 500));
    }

    #[test]
    fn a_script_has_a_write_applied_after_its_answer() {
        let upstream = Upstream::start();
        let put = |script| client::request(upstream.address, "PUT", "/a", &[("X-Upstream", script)], b"x");
        assert_eq!(put("late=@later, status=504").unwrap().status, 504);
        assert!(upstream.log().is_empty());
        upstream.open("later");
        eventually("it is applied", LONG, || upstream.applied().len() == 1);

        let mut eager = Connection::open(upstream.address).unwrap();
        eager.begin_chunked("PUT", "/a", &[("X-Upstream", "eager")]).unwrap();
        assert_eq!(eager.answer().unwrap().status, 200);
        eager.send_chunk(b"all").unwrap();
        eager.end_chunks(&[]).unwrap();
        eventually("it is applied", LONG, || upstream.applied().len() == 2);

        let mut split = Connection::open(upstream.address).unwrap();
        let head = [("X-Upstream", "split=@rest"), ("Content-Length", "1")];
        split.send_head("PUT", "/a", &head).unwrap();
        split.send(b"x").unwrap();
        assert!(split.receive().unwrap().starts_with(b"HTTP/1.1 200"));
        assert_eq!(upstream.applied().len(), 2);
        upstream.open("rest");
        eventually("it is applied", LONG, || upstream.applied().len() == 3);
    }

    #[test]
    fn the_upstream_answers_expect_before_the_body() {
        let upstream = Upstream::start();
        let mut connection = Connection::open(upstream.address).unwrap();
        connection.send_head("PUT", "/a", &[("Content-Length", "4"), ("Expect", "100-continue")]).unwrap();
        assert!(connection.receive().unwrap().starts_with(b"HTTP/1.1 100"));
        connection.send(b"body").unwrap();
        assert_eq!(connection.answer().unwrap().status, 200);
    }

    #[test]
    fn a_connection_that_the_other_side_ends_is_seen_to_end() {
        let upstream = Upstream::start();
        let mut connection = Connection::open(upstream.address).unwrap();
        assert!(!connection.ends_within(Duration::from_millis(1)));
        connection.send(b"no request\r\n\r\n").unwrap();
        assert_eq!(connection.answer().unwrap().status, 400);
        assert!(connection.ends_within(LONG));
    }
}

mod http2 {
    use super::*;

    async fn sender(upstream: &Upstream) -> h2::client::SendRequest<Bytes> {
        let stream = tokio::net::TcpStream::connect(upstream.address).await.expect("it listens");
        let (sender, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        sender.ready().await.expect("it allows a stream")
    }

    fn put(upstream: &Upstream, path: &str) -> http::Request<()> {
        let request = http::Request::put(format!("{}{path}", upstream.url()));
        request.version(http::Version::HTTP_2).header(STAMP.0, STAMP.1).body(()).expect("it is well formed")
    }

    #[tokio::test]
    async fn is_served_and_a_reset_without_an_error_is_no_end() {
        let upstream = Upstream::start();
        let mut sender = sender(&upstream).await;
        let (answer, mut body) = sender.send_request(put(&upstream, "/whole"), false).unwrap();
        body.send_data(Bytes::from_static(b"body"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);

        let mut sender = sender.ready().await.unwrap();
        let (_answer, mut body) = sender.send_request(put(&upstream, "/cut"), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        while upstream.arrived().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        body.send_reset(h2::Reason::NO_ERROR);
        while upstream.log().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let log = upstream.log();
        assert!(log[0].complete && log[0].head.http2 && log[0].epoch() == Some(42));
        assert!(!log[1].complete, "a truncated write looked whole");
    }

    #[tokio::test]
    async fn a_grpc_call_gets_its_message_and_a_status() {
        let upstream = Upstream::start();
        let mut sender = sender(&upstream).await;
        let mut call = put(&upstream, "/shop.Orders/Put");
        *call.method_mut() = http::Method::POST;
        call.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        let (answer, mut body) = sender.send_request(call, false).unwrap();
        body.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), Bytes::from_static(b"\0\0\0\0\x01x"));
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    }
}

mod databases {
    use super::support::haproxy::Haproxy;
    use super::support::mariadb::{Mariadb, mariadb};
    use super::support::pgbouncer::Pgbouncer;
    use super::support::postgres::{Postgres, Session, psql};
    use super::support::redis::{self, Redis};
    use super::*;

    #[test]
    fn postgres_keeps_what_it_was_told_through_its_end() {
        let mut postgres = Postgres::start_with(&[("fsync", "on"), ("synchronous_commit", "on")]);
        postgres.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)");
        assert_eq!(postgres.query("SELECT n, -n FROM t ORDER BY n"), "1|-1\n2|-2");
        postgres.stop();
        postgres.begin();
        assert_eq!(postgres.query("SELECT count(*) FROM t"), "2");
        postgres.kill();
        postgres.begin();
        assert_eq!(postgres.query("SELECT count(*) FROM t"), "2");
        assert_eq!(postgres.query("SHOW wal_level; SHOW max_prepared_transactions"), "logical\n10");
    }

    #[test]
    fn postgres_asks_one_user_for_a_password_and_says_all_of_an_error() {
        let postgres = Postgres::start();
        let methods = "SELECT user_name, auth_method FROM pg_hba_file_rules ORDER BY line_number";
        assert_eq!(postgres.query(methods), "{scram}|scram-sha-256\n{all}|trust");
        for user in ["app", "scram"] {
            let sql = "CREATE TABLE IF NOT EXISTS of_both (n int); SELECT current_user";
            assert_eq!(psql(postgres.address, user, "app", sql).as_deref(), Ok(user));
        }
        let error = psql(postgres.address, "app", "app", "SELECT 1/0").unwrap_err();
        assert!(error.contains("22012"), "{error}");
        assert!(psql(ports::free_address(), "app", "app", "SELECT 1").is_err());
    }

    #[test]
    fn a_session_of_postgres_stays_in_its_transaction() {
        let postgres = Postgres::start();
        let mut session = Session::open(postgres.address, "app", "app");
        assert_eq!(session.say("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1)"), "");
        assert_eq!((postgres.sessions(), postgres.query("SELECT count(*) FROM t").as_str()), (1, "0"));
        assert!(session.say("SELECT no").contains("42703"));
        assert!(session.say("COMMIT; SELECT count(*) FROM t").ends_with('0'));

        postgres.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
        let told = session.say("SELECT 1");
        assert!(told.contains("57P01"), "{told}");
        eventually("its session is gone", LONG, || postgres.sessions() == 0);

        let mut session = Session::open(postgres.address, "app", "app");
        session.begin("SELECT pg_sleep(1000)");
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("it sleeps", LONG, || postgres.query(asleep) == "1");
        session.interrupt();
        assert!(session.answer().contains("57014"));
    }

    #[test]
    fn a_paused_postgres_says_nothing_until_it_is_resumed() {
        let postgres = Postgres::start();
        let mut session = Session::open(postgres.address, "scram", "app");
        postgres.pause();
        session.begin("SELECT 7");
        let mut new = Session::try_open(postgres.address, "app", "app");
        new.begin("SELECT 8");
        postgres.resume();
        assert_eq!((session.answer().as_str(), new.answer().as_str()), ("7", "8"));
    }

    #[test]
    fn pgbouncer_and_haproxy_forward_to_postgres() {
        let postgres = Postgres::start();
        let (pool, balancer) = (Pgbouncer::start(postgres.address), Haproxy::start(postgres.address, ""));
        for address in [pool.address, balancer.address] {
            assert_eq!(psql(address, "app", "app", "SELECT 1 + 1").as_deref(), Ok("2"));
        }
    }

    #[test]
    fn redis_keeps_what_it_is_told_to_keep() {
        let mut redis = Redis::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]);
        assert_eq!(redis.cli(&["SET", "a", "1"]), "OK");
        redis.kill();
        redis.begin();
        assert_eq!(redis.cli(&["GET", "a"]), "1");
        assert!(redis.cli(&["LPUSH", "a", "1"]).starts_with("WRONGTYPE"));
        redis.stop();
        assert!(redis::cli(redis.address, &["PING"]).is_err());
    }

    #[test]
    fn mariadb_keeps_what_it_was_told_through_its_end() {
        let mut server = Mariadb::start();
        server.query("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)");
        assert_eq!(server.query("SELECT n, -n FROM t ORDER BY n"), "1\t-1\n2\t-2");
        server.stop();
        server.begin();
        assert_eq!(server.query("SELECT COUNT(*) FROM t"), "2");
        let error = mariadb(server.address, "SELECT no").unwrap_err();
        assert!(error.contains("1054"), "{error}");
    }
}

#[test]
fn every_fetched_tool_runs() {
    for tool in ["etcd", "promtool", "curl"] {
        assert!(Command::new(program(tool)).arg("--version").output().unwrap().status.success(), "{tool}");
    }
}
