//! Peers that take nothing, never end, or ask for nothing very often: each is bounded, cut, and counted.

use std::time::Duration;

use http::{HeaderMap, Request};
use tokio::io::AsyncWriteExt as _;

use super::http2::{all, client};
use super::support::{Raw, run, until, world};
use crate::config::resolved::UpstreamVersion;
use crate::fence::{Outcome, Reason};
use crate::protocol::right::Settled;
use crate::protocol::{CutReason, Kind};

const SOON: Duration = Duration::from_millis(300);
/// More than all windows and kernel buffers on the way hold.
const LARGE: usize = 64 * 1024 * 1024;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Has the target give a large answer; `true` where somebody took all of it.
fn answering(mut target: Raw) -> tokio::task::JoinHandle<bool> {
    tokio::task::spawn_local(async move {
        target.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        target.socket.write_all(&vec![b'x'; LARGE]).await.is_ok()
    })
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_cut() {
    for method in ["GET", "PUT"] {
        run(async {
            let world = world(|change| change.limits.answer_idle_timeout = SOON).await;
            let request = format!("{method} /a HTTP/1.1\r\nhost: db\r\ncontent-length: 0\r\n\r\n");
            let (mut client, target, _) = world.sent(&request).await;
            let sending = answering(target);
            client.head().await;
            until("cut", || *world.role.cuts.borrow() == [CutReason::SlowReader]).await;
            until("closed", || world.role.open.get() == 0).await;
            // Of a write somebody may wait for the end, so its answer is read to its own.
            let taken = sending.await.expect("no panic");
            assert_eq!(taken, method == "PUT");
            if taken {
                world.role.until_settled(Settled::Answered).await;
            }
            assert!(client.is_reset().await, "the kernel goes on offering the rest");
        });
    }
}

#[test]
fn a_client_that_neither_sends_nor_takes_in_the_middle_of_an_answer_is_cut() {
    run(async {
        let world = world(|change| {
            change.limits.answer_idle_timeout = SOON;
            change.limits.body_idle_timeout = SOON;
        })
        .await;
        let (mut client, target, _) = world.sent("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 9\r\n\r\nabc").await;
        let sending = answering(target);
        client.head().await;
        world.role.until_settled(Settled::Lost).await;
        until("closed", || world.role.open.get() == 0).await;
        assert_eq!(world.role.cuts.borrow().len(), 1);
        sending.abort();
    });
}

#[test]
fn an_http2_connection_all_of_whose_answers_wait_for_its_client_is_cut() {
    run(async {
        let world = world(|change| {
            change.limits.answer_idle_timeout = SOON;
            change.upstream.version = UpstreamVersion::Http1;
        })
        .await;
        // A window of its own for each: the one that is shut is not to shut the other.
        let socket = tokio::net::TcpStream::connect(world.address).await.expect("connect");
        let mut wide = h2::client::Builder::new();
        let (mut sender, connection) = wide
            .initial_connection_window_size(1024 * 1024)
            .handshake::<_, bytes::Bytes>(socket)
            .await
            .expect("handshake");
        tokio::task::spawn_local(connection);
        let get = |path: &str| Request::builder().uri(format!("http://db{path}")).body(()).expect("a request");
        let (stalled, _) = sender.send_request(get("/stalled"), true).expect("sent");
        let mut target = world.at_target().await;
        target.head().await;
        let sending = answering(target);
        // Nothing is taken of it: its window stays shut. But the other one waits for the target.
        let _body = stalled.await.expect("an answer").into_body();
        let (other, _) = sender.send_request(get("/other"), true).expect("sent");
        let mut target = world.at_target().await;
        target.head().await;
        tokio::time::sleep(SOON * 4).await;
        assert_eq!(*world.role.cuts.borrow(), []);
        target.send(OK).await;
        assert_eq!(all(other.await.expect("an answer").into_body()).await.expect("a whole one").0, b"ok");
        until("cut", || *world.role.cuts.borrow() == [CutReason::SlowReader]).await;
        until("closed", || world.role.open.get() == 0).await;
        assert!(!sending.await.expect("no panic"), "somebody took all of a read whose client is gone");
    });
}

#[test]
fn interim_answers_win_no_time() {
    for http2 in [false, true] {
        run(async {
            let world = world(|change| {
                change.upstream.response_timeout = SOON;
                change.upstream.version = UpstreamVersion::Http1;
            })
            .await;
            let flood = async |mut target: Raw| {
                target.head().await;
                while target.socket.write_all(b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if http2 {
                let (mut sender, _connection) = client(world.address).await;
                let request = Request::builder().method("DELETE").uri("http://db/a").body(()).expect("a request");
                let (answer, _) = sender.send_request(request, true).expect("sent");
                flood(world.at_target().await).await;
                assert_eq!(answer.await.expect("an answer").status(), 504);
            } else {
                let mut client = world.client().await;
                client.send("DELETE /a HTTP/1.1\r\nhost: db\r\n\r\n").await;
                flood(world.at_target().await).await;
                assert!(client.head().await.starts_with("http/1.1 504 "));
            }
            world.role.until_settled(Settled::Lost).await;
            assert_eq!(*world.role.refused.borrow(), [Reason::UpstreamTimeout]);
        });
    }
}

/// What hyper's client takes is bounded by time alone.
#[test]
fn so_many_interim_answers_are_taken_and_no_more() {
    run(async {
        for (count, passes) in [(100, true), (101, false)] {
            let world = world(|_| {}).await;
            if !world.http.direct.is_on() {
                return;
            }
            let (mut client, mut target, _) = world.sent("DELETE /a HTTP/1.1\r\nhost: db\r\n\r\n").await;
            target.send(&format!("{}{OK}", "HTTP/1.1 103 Hints\r\n\r\n".repeat(count))).await;
            let head = client.head().await;
            assert_eq!(head.starts_with("http/1.1 200 "), passes, "{count}: {head}");
            let how = if passes { Settled::Answered } else { Settled::Lost };
            world.role.until_settled(how).await;
        }
    });
}

fn trailers(name: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), "7".parse().expect("a value"))])
}

#[test]
fn a_stamp_in_the_trailers_behind_a_length_is_not_overlooked() {
    for name in ["fencing-epoch", "fencing_epoch"] {
        run(async {
            let world = world(|change| change.upstream.version = UpstreamVersion::Http1).await;
            let (mut sender, _connection) = client(world.address).await;
            let request = Request::builder().method("PUT").uri("http://db/a").header("content-length", 3);
            let (answer, mut body) = sender.send_request(request.body(()).expect("a request"), false).expect("sent");
            body.send_data("abc".into(), false).expect("data");
            let mut target = world.at_target().await;
            target.head().await;
            body.send_trailers(trailers(name)).expect("trailers");
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 400);
            let (said, _) = all(answer.into_body()).await.expect("a whole one");
            let said = String::from_utf8(said).expect("text");
            assert!(said.contains(r#""outcome":"unknown""#), "{said}");
            assert!(target.is_reset().await, "it was delivered as whole");
            world.role.until_settled(Settled::Lost).await;
            world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        });
    }
}

#[test]
fn a_stamp_in_the_trailers_behind_no_bytes_is_refused_before_anything_has_left() {
    run(async {
        let world = world(|change| change.upstream.version = UpstreamVersion::Http1).await;
        let (mut sender, _connection) = client(world.address).await;
        let put = || Request::builder().method("PUT").uri("http://db/a").header("content-length", 0);
        let (answer, mut body) = sender.send_request(put().body(()).expect("a request"), false).expect("sent");
        body.send_trailers(trailers("fencing-epoch")).expect("trailers");
        let answer = answer.await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["fencing-refused"]),
            (400, &"malformed_stamp".parse().expect("value"))
        );
        assert_eq!((world.role.paths.borrow().len(), world.role.settled().len()), (0, 0), "the role was asked");
        assert_eq!(*world.role.refused.borrow(), [Reason::MalformedStamp]);
        // Without one it goes on, as soon as it has ended.
        let (answer, mut body) = sender.send_request(put().body(()).expect("a request"), false).expect("sent");
        body.send_trailers(trailers("x-sum")).expect("trailers");
        let mut target = world.at_target().await;
        target.head().await;
        target.send(OK).await;
        assert_eq!(answer.await.expect("an answer").status(), 200);
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn other_trailers_behind_a_length_end_it_and_so_does_an_empty_frame() {
    for ends_with_trailers in [true, false] {
        run(async {
            let world = world(|change| change.upstream.version = UpstreamVersion::Http1).await;
            let (mut sender, _connection) = client(world.address).await;
            let request = Request::builder().method("PUT").uri("http://db/a").header("content-length", 3);
            let (answer, mut body) = sender.send_request(request.body(()).expect("a request"), false).expect("sent");
            body.send_data("abc".into(), false).expect("data");
            let mut target = world.at_target().await;
            assert!(target.head().await.contains("\r\ncontent-length: 3\r\n"));
            match ends_with_trailers {
                true => body.send_trailers(trailers("x-sum")).expect("trailers"),
                false => body.send_data("".into(), true).expect("data"),
            }
            assert_eq!(target.exactly(3).await, "abc");
            target.send(OK).await;
            assert_eq!(answer.await.expect("an answer").status(), 200);
            world.role.until_settled(Settled::Answered).await;
        });
    }
}

#[test]
fn frames_that_ask_for_nothing_are_taken_so_often_and_no_more() {
    /// A frame on no stream.
    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a small one");
        [&[0, 0, length, kind, 0, 0, 0, 0, 0], payload].concat()
    }
    for (what, flood) in [("pings", frame(6, &[0; 8])), ("settings", frame(4, &[])), ("unknown", frame(99, b"x"))] {
        run(async {
            let world = world(|_| {}).await;
            let mut client = world.client().await;
            client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            client.socket.write_all(&frame(4, &[])).await.expect("write");
            let (mut reading, mut writing) = client.socket.into_split();
            let _reading = tokio::task::spawn_local(async move {
                let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
            });
            let many = flood.repeat(1000);
            while writing.write_all(&many).await.is_ok() {}
            until(what, || *world.role.cuts.borrow() == [CutReason::Flood]).await;
            until("closed", || world.role.open.get() == 0).await;
        });
    }
}

#[test]
fn what_the_library_ends_for_being_too_much_counts_as_a_flood() {
    run(async {
        let world = world(|_| {}).await;
        let mut client = world.client().await;
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("write");
        // A head that never ends: `:method: GET`, and then the same small field again and again.
        client.socket.write_all(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await.expect("write");
        let field = [0x00, 1, b'x', 1, b'y'].repeat(200);
        let length = u16::try_from(field.len()).expect("it fits a frame").to_be_bytes();
        let more = [&[0, length[0], length[1], 9, 0, 0, 0, 0, 1], &field[..]].concat();
        while client.socket.write_all(&more).await.is_ok() {}
        until("cut", || *world.role.cuts.borrow() == [CutReason::Flood]).await;
    });
}
