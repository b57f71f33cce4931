//! What takes too long, and how a worker stops.

use std::time::Duration;

use super::support::{Raw, run, until, world};
use crate::fence::{Outcome, Reason};
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;
use crate::protocol::{CutReason, Kind};

const SOON: Duration = Duration::from_millis(50);
const PUT: &str = "PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 3\r\n\r\nabc";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_head_that_does_not_come_whole_is_cut() {
    for beginning in ["P", "PRI * HTT", "PUT /a HTTP/1.1\r\nhost: db\r\n"] {
        run(async {
            let world = world(|change| change.limits.header_timeout = SOON).await;
            let mut client = world.client().await;
            client.send(beginning).await;
            assert_eq!(client.rest().await, "");
            until("cut", || *world.role.cuts.borrow() == [CutReason::HeaderTimeout]).await;
            until("closed", || world.role.open.get() == 0).await;
        });
    }
}

#[test]
fn a_second_head_that_does_not_come_whole_is_cut() {
    run(async {
        let world = world(|change| change.limits.header_timeout = SOON).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.send(OK).await;
        client.answer().await;
        client.send("PUT /b").await;
        assert_eq!(client.rest().await, "");
        until("cut", || *world.role.cuts.borrow() == [CutReason::HeaderTimeout]).await;
    });
}

#[test]
fn an_idle_connection_is_cut() {
    run(async {
        let world = world(|change| change.limits.idle_timeout = SOON).await;
        let mut silent = world.client().await;
        assert_eq!(silent.rest().await, "");
        until("cut", || *world.role.cuts.borrow() == [CutReason::Idle]).await;
        // A request in flight is not idle, however long it takes.
        // (Written before the proxy's first look at it: a machine that is slow cannot make it idle.)
        let mut socket = std::net::TcpStream::connect(world.address).expect("connect");
        std::io::Write::write_all(&mut socket, PUT.as_bytes()).expect("write");
        socket.set_nonblocking(true).expect("option");
        let mut client = Raw::from(tokio::net::TcpStream::from_std(socket).expect("socket"));
        let mut target = world.at_target().await;
        target.head().await;
        tokio::time::sleep(SOON * 4).await;
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        assert_eq!(client.rest().await, "");
        until("cut", || *world.role.cuts.borrow() == [CutReason::Idle; 2]).await;
    });
}

#[test]
fn an_idle_connection_is_cut_although_its_time_was_over_long_before_this_process_went_on() {
    run(async {
        let world = world(|change| change.limits.idle_timeout = SOON).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        std::thread::sleep(SOON + std::time::Duration::from_millis(500));
        assert_eq!(client.rest().await, "");
        until("cut", || *world.role.cuts.borrow() == [CutReason::Idle]).await;
    });
}

#[test]
fn a_body_that_does_not_come_on_is_given_up() {
    run(async {
        let world = world(|change| change.limits.body_idle_timeout = SOON).await;
        let (mut client, mut target, _) =
            world.sent("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 9\r\n\r\nabc").await;
        assert!(target.is_reset().await);
        let (head, _) = client.answer().await;
        assert!(head.starts_with("http/1.1 408 "), "{head}");
        world.role.until_settled(Settled::Lost).await;
        until("cut", || *world.role.cuts.borrow() == [CutReason::Idle]).await;
    });
}

#[test]
fn an_answer_that_does_not_come_is_given_up() {
    // The second is long enough for the test to send its part on any machine.
    for (limit, part) in [(SOON, ""), (SOON * 50, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal")] {
        run(async {
            let world = world(|change| change.upstream.response_timeout = limit).await;
            let (mut client, mut target, _) = world.sent(PUT).await;
            target.send(part).await;
            if part.is_empty() {
                let (head, body) = client.answer().await;
                assert!(head.starts_with("http/1.1 504 ") && head.contains("upstream_timeout"), "{head}");
                assert!(body.contains(r#""outcome":"unknown""#), "{body}");
                assert_eq!(*world.role.refused.borrow(), [Reason::UpstreamTimeout]);
            } else {
                client.head().await;
                assert_eq!(client.rest().await, "hal");
            }
            assert!(target.is_reset().await);
            world.role.until_settled(Settled::Lost).await;
            world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        });
    }
}

#[test]
fn a_target_that_takes_nothing_is_given_up() {
    run(async {
        let world = world(|change| change.upstream.send_timeout = Duration::from_millis(300)).await;
        const LARGE: usize = 64 * 1024 * 1024;
        let mut client = world.client().await;
        client.send(&format!("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        let (mut reading, mut writing) = client.socket.into_split();
        let _sending = tokio::task::spawn_local(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writing, &vec![b'x'; LARGE]).await;
        });
        let mut target = world.at_target().await;
        target.head().await;
        world.role.until_settled(Settled::Lost).await;
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut reading, &mut answer).await.expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 50"), "{answer:?}");
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
    });
}

#[test]
fn a_worker_that_stops_finishes_what_is_in_flight() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        let mut idle = world.client().await;
        idle.send("GET /b HTTP/1.1\r\nhost: db\r\n\r\n").await;
        let mut second = world.at_target().await;
        second.head().await;
        second.send(OK).await;
        idle.answer().await;
        let mut silent = world.client().await;
        until("accepted", || world.role.open.get() == 3).await;
        world.closer.finish();
        assert_eq!(idle.rest().await, "");
        assert_eq!(silent.rest().await, "");
        target.send(OK).await;
        let (head, body) = client.answer().await;
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        assert_eq!(body, "ok");
        assert_eq!(client.rest().await, "");
        world.role.until_settled(Settled::Answered).await;
        until("closed", || world.role.open.get() == 0).await;
        assert_eq!(*world.role.cuts.borrow(), [CutReason::Shutdown; 3]);
    });
}

#[test]
fn a_worker_that_ends_loses_what_is_in_flight() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        world.closer.now();
        assert!(target.is_reset().await);
        client.is_reset().await;
        world.role.until_settled(Settled::Lost).await;
        until("closed", || world.role.open.get() == 0).await;
        until("its task ended", || world.http.writes_in_flight() == 0).await;
        assert_eq!(*world.role.cuts.borrow(), [CutReason::Shutdown]);
    });
}

#[test]
fn an_idle_upstream_connection_is_closed() {
    run(async {
        let world = world(|change| change.upstream.idle_timeout = SOON).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        target.send(OK).await;
        client.answer().await;
        assert_eq!(target.rest().await, "");
    });
}

#[test]
fn a_slow_client_is_not_the_targets_delay() {
    for method in ["GET", "PUT"] {
        run(async {
            let world = world(|change| change.upstream.response_timeout = Duration::from_secs(2)).await;
            let request = format!("{method} /a HTTP/1.1\r\nhost: db\r\ncontent-length: 0\r\n\r\n");
            let (mut client, mut target, _) = world.sent(&request).await;
            const LARGE: usize = 64 * 1024 * 1024;
            let sending = tokio::task::spawn_local(async move {
                target.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
                target.send(&"x".repeat(LARGE)).await;
                target
            });
            client.head().await;
            // Longer than the limit the client takes nothing; then the target still has the rest to send.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            assert!(!sending.is_finished());
            assert_eq!(client.exactly(LARGE).await.len(), LARGE);
            sending.await.expect("all was read");
            until("answered", || world.role.finished.borrow().iter().any(|(_, how)| *how == Outcome::Answered)).await;
        });
    }
}

/// Else a client that reads nothing would keep a drain waiting for good.
#[test]
fn a_target_that_stalls_is_given_up_whatever_its_client_does_where_the_fence_hurries() {
    run(async {
        let (near, mut target) = tokio::io::duplex(16 * 1024);
        let world = world(|change| {
            change.dialled.push_back(near);
            change.upstream.response_timeout = SOON * 10;
        })
        .await;
        let fence = world.role.fence();
        let mut client = world.client().await;
        client.send(PUT).await;
        let mut request = Vec::new();
        while !request.ends_with(b"abc") {
            tokio::io::AsyncReadExt::read_buf(&mut target, &mut request).await.expect("a request");
        }
        let write = async |target: &mut tokio::io::DuplexStream, bytes: &[u8]| {
            let writing = tokio::io::AsyncWriteExt::write_all(target, bytes);
            tokio::time::timeout(SOON * 4, writing).await.is_ok_and(|written| written.is_ok())
        };
        assert!(write(&mut target, b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await);
        while write(&mut target, &[b'x'; 16 * 1024]).await {}
        assert_eq!(world.role.settled(), []);
        fence.ask(Ask::Hurry);
        world.role.until_settled(Settled::Lost).await;
        drop(client);
    });
}
