//! What takes too long, and how a worker stops.

use std::time::Duration;

use super::support::{run, until, world};
use crate::fence::{Outcome, Reason};
use crate::protocol::right::Settled;
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
        let (mut client, mut target, _) = world.sent(PUT).await;
        tokio::time::sleep(SOON * 4).await;
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        assert_eq!(client.rest().await, "");
        until("cut", || *world.role.cuts.borrow() == [CutReason::Idle; 2]).await;
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
    for part in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal"] {
        run(async {
            let world = world(|change| change.upstream.response_timeout = SOON).await;
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
