//! Plain HTTP/2 streams to an HTTP/1.1 target: what leaves, what comes back, and what their rights are settled as.
//!
//! It is long because it is one list: what is shown of HTTP/1.1, shown once more of streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason as Why;
use h2::client::SendRequest;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use super::http2::{all, client};
use super::support::{Change, Raw, World, proxy, refusal, run, until, world};
use crate::config::resolved::UpstreamVersion;
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Outcome, Reason};
use crate::net::dial::Dialling;
use crate::net::{Closer, Dial, Stream};
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;
use crate::protocol::{Decision, Kind, Role as _};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// More than all windows and kernel buffers on the way hold.
const LARGE: usize = 16 * 1024 * 1024;

async fn to_http1(change: impl FnOnce(&mut Change<'_>)) -> World {
    world(|to| {
        to.upstream.version = UpstreamVersion::Http1;
        change(to);
    })
    .await
}

fn put(path: &str, length: usize) -> Request<()> {
    let request = Request::builder().method("PUT").uri(format!("http://db{path}"));
    request.header("content-length", length).body(()).expect("a request")
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://db{path}")).body(()).expect("a request")
}

/// A write of three bytes, up to its arrival at the target.
async fn sent(world: &World, sender: &mut SendRequest<Bytes>) -> (h2::client::ResponseFuture, Raw) {
    let (answer, mut body) = sender.send_request(put("/a", 3), false).expect("sent");
    body.send_data("abc".into(), true).expect("data");
    let mut target = world.at_target().await;
    target.head().await;
    assert_eq!(target.exactly(3).await, "abc");
    (answer, target)
}

#[test]
fn a_plain_write_is_stamped_and_its_connection_carries_the_next() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let request = Request::builder()
            .method("PUT")
            .uri("http://db/a?b")
            .header("content-length", 3)
            .header("fencing-epoch", "7")
            .header("fencing-expect", "7")
            .header("x-forwarded-for", "1.1.1.1")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let (answer, mut body) = sender.send_request(request.body(()).expect("a request"), false).expect("sent");
        body.send_data("abc".into(), true).expect("data");
        let mut target = world.at_target().await;
        let head = target.head().await;
        assert!(head.starts_with("put /a?b http/1.1\r\n"), "{head}");
        assert_eq!(head.matches("fencing").count(), 1, "{head}");
        for line in ["host: db", "fencing-epoch: 42", "x-forwarded-for: 1.1.1.1, 127.0.0.1", "cookie: a=1; b=2"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
        }
        assert_eq!(target.exactly(3).await, "abc");
        assert_eq!(world.role.settled(), []);
        target
            .send(
                "HTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 201 Made\r\nx-twice: 1\r\nX-Twice: 2\r\n\
                 Connection: keep-alive, x-mine\r\nx-mine: 1\r\nfencing-refused: lie\r\ncontent-length: 2\r\n\r\nok",
            )
            .await;
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers().get_all("x-twice").iter().count(), 2);
        assert_eq!(
            (&answer.headers()["content-length"], answer.headers().contains_key("date")),
            (&"2".parse().expect("value"), true)
        );
        for gone in ["connection", "x-mine", "link", "fencing-refused"] {
            assert!(!answer.headers().contains_key(gone), "{gone}");
        }
        assert_eq!(world.role.settled(), [Settled::Answered], "before the answer is handed on");
        assert_eq!(all(answer.into_body()).await.expect("a whole body").0, b"ok");
        assert_eq!(world.role.writes.confirms.get(), 1);

        let (answer, _) = sender.send_request(get("/b"), true).expect("sent");
        assert!(target.head().await.starts_with("get /b http/1.1\r\n"));
        target.send("HTTP/1.1 204 None\r\n\r\n").await;
        assert_eq!(answer.await.expect("an answer").status(), 204);
        assert_eq!(*world.role.finished.borrow(), [(Kind::Write, Outcome::Answered), (Kind::Read, Outcome::Answered)]);
    });
}

#[test]
fn an_upload_with_a_length_that_is_reset_is_never_delivered_as_whole() {
    for why in [Why::NO_ERROR, Why::CANCEL] {
        run(async {
            let world = to_http1(|_| {}).await;
            let (mut sender, _connection) = client(world.address).await;
            let (_answer, mut body) = sender.send_request(put("/a", 9), false).expect("sent");
            body.send_data("abc".into(), false).expect("data");
            let mut target = world.at_target().await;
            target.head().await;
            assert_eq!(target.exactly(3).await, "abc");
            body.send_reset(why);
            assert!(target.is_reset().await, "{why:?}: it ended in order");
            world.role.until_settled(Settled::Lost).await;
            world.role.until_finished(Kind::Write, Outcome::Unknown).await;
            until("no longer in flight", || world.http.writes_in_flight() == 0).await;
        });
    }
}

#[test]
fn a_write_that_was_sent_whole_outlives_its_stream_and_its_connection() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, connection) = client(world.address).await;
        let (answer, mut target) = sent(&world, &mut sender).await;
        drop((answer, sender));
        connection.abort();
        until("closed", || world.role.open.get() == 0).await;
        assert_eq!((world.role.settled(), world.http.writes_in_flight()), (vec![], 1));
        target.send(&OK[..OK.len() - 1]).await;
        // A byte is missing: it is not answered yet.
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut second) = sent(&world, &mut sender).await;
        second.send(OK).await;
        answer.await.expect("an answer");
        assert_eq!((world.role.settled(), world.http.writes_in_flight()), (vec![Settled::Answered], 1));
        target.send(&OK[OK.len() - 1..]).await;
        until("settled", || world.role.settled() == [Settled::Answered; 2]).await;
        until("no longer in flight", || world.http.writes_in_flight() == 0).await;
    });
}

#[test]
fn a_write_whose_stream_is_reset_in_the_middle_of_its_answer_goes_on() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut target) = sent(&world, &mut sender).await;
        target.send(&OK[..OK.len() - 1]).await;
        let answer = answer.await.expect("a head");
        drop(answer);
        assert_eq!(world.role.settled(), []);
        target.send(&OK[OK.len() - 1..]).await;
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn a_read_ends_with_its_stream() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, _) = sender.send_request(get("/a"), true).expect("sent");
        let mut target = world.at_target().await;
        target.head().await;
        drop(answer);
        until("the target's connection ends", || target.socket.try_read(&mut [0]).is_ok()).await;
        // And in the middle of its answer.
        let (answer, _) = sender.send_request(get("/b"), true).expect("sent");
        let mut target = world.at_target().await;
        target.head().await;
        target.send(&OK[..OK.len() - 1]).await;
        drop(answer.await.expect("a head"));
        until("the target's connection ends", || !matches!(target.socket.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)).await;
    });
}

/// Connects to nothing, for ever.
struct Never;

impl Dial for Never {
    fn dial<'a>(&'a self, _: &'a str, _: crate::net::Speaks) -> Dialling<'a> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_stream_that_leaves_before_anything_was_sent_is_sure_of_it() {
    run(async {
        let (http, role) = proxy(Mechanisms::all(), "db:80".to_owned(), Some(Rc::new(Never)), |change| {
            change.upstream.version = UpstreamVersion::Http1;
        });
        let (near, far) = tokio::io::duplex(1 << 16);
        let (peer, closer) = ("10.0.0.7:1".parse::<crate::peer::Peer>().expect("address"), Closer::default());
        tokio::task::spawn_local(http.serve(
            Stream::other(far),
            crate::protocol::Party::unnamed(peer, role.bind()),
            closer.handle(),
        ));
        let (mut sender, connection) = h2::client::handshake(near).await.expect("handshake");
        tokio::task::spawn_local(connection);
        let (answer, mut body) = sender.send_request(put("/a", 3), false).expect("sent");
        body.send_data("abc".into(), true).expect("data");
        until("decided", || role.paths.borrow().len() == 1).await;
        assert_eq!(role.settled(), []);
        drop((answer, body));
        role.until_settled(Settled::NothingLeft).await;
        role.until_finished(Kind::Write, Outcome::NotApplied).await;
    });
}

#[test]
fn an_answer_to_a_stream_that_crossed_the_rest_of_it_proves_nothing() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut body) = sender.send_request(put("/a", 6), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut target = world.at_target().await;
        target.head().await;
        target.exactly(3).await;
        target.send(OK).await;
        let answer = answer.await.expect("an answer");
        assert_eq!(all(answer.into_body()).await.expect("a whole body").0, b"ok");
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        assert_eq!(world.role.settled(), [Settled::Lost]);
        assert!(target.is_reset().await, "its connection carries nothing more");
    });
}

/// The rest of the request and the answer are there in one turn: what was read first counts.
#[test]
fn an_answer_to_a_stream_is_looked_at_before_the_rest_of_it_leaves() {
    run(async {
        let (upstream, mut target) = tokio::io::duplex(1 << 16);
        let (http, role) = proxy(Mechanisms::all(), "db:80".to_owned(), None, |change| {
            change.upstream.version = UpstreamVersion::Http1;
            change.dialled.push_back(upstream);
        });
        let (near, far) = tokio::io::duplex(1 << 16);
        let (peer, closer) = ("10.0.0.7:1".parse::<crate::peer::Peer>().expect("address"), Closer::default());
        tokio::task::spawn_local(http.serve(
            Stream::other(far),
            crate::protocol::Party::unnamed(peer, role.bind()),
            closer.handle(),
        ));
        let (mut sender, mut connection) = h2::client::handshake(near).await.expect("handshake");
        let (answer, mut body) = sender.send_request(put("/a", 6), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut came = Vec::new();
        while !came.ends_with(b"abc") {
            tokio::select! {
                _ = &mut connection => panic!("the connection ends"),
                read = target.read_buf(&mut came) => assert_ne!(read.expect("a request"), 0),
            }
        }
        body.send_data("def".into(), true).expect("data");
        // Both within one turn of this task, the proxy's turn comes after it.
        let flushed = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context))).await;
        assert!(flushed.is_pending());
        assert_eq!(
            poll_fn(|context| Pin::new(&mut target).poll_write(context, OK.as_bytes())).await.expect("room"),
            OK.len()
        );
        tokio::select! {
            _ = &mut connection => panic!("the connection ends"),
            answer = answer => assert_eq!(answer.expect("an answer").status(), 200),
        }
        role.until_finished(Kind::Write, Outcome::Unknown).await;
        assert_eq!(role.settled(), [Settled::Lost]);
    });
}

#[test]
fn answers_end_where_they_end_however_that_is_told() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", "ok"),
        ("HTTP/1.1 200 OK\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        ("HTTP/1.1 304 Same\r\ncontent-length: 7\r\n\r\n", ""),
    ] {
        for at in 1..answer.len() {
            run(async {
                let world = to_http1(|_| {}).await;
                let (mut sender, _connection) = client(world.address).await;
                let (coming, mut target) = sent(&world, &mut sender).await;
                target.send(&answer[..at]).await;
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                target.send(&answer[at..]).await;
                drop(target);
                let (bytes, _) = all(coming.await.expect("an answer").into_body()).await.expect("a whole body");
                assert_eq!(bytes, body.as_bytes(), "{answer:?} at {at}");
                world.role.until_settled(Settled::Answered).await;
            });
        }
    }
}

#[test]
fn an_answer_to_a_stream_that_breaks_off_is_none() {
    for (answer, begins) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-le", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nok", false),
        ("HTTP/1.1 101 Other\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", false),
    ] {
        run(async {
            let world = to_http1(|_| {}).await;
            let (mut sender, _connection) = client(world.address).await;
            let (coming, mut target) = sent(&world, &mut sender).await;
            target.send(answer).await;
            drop(target);
            let coming = coming.await.expect("an answer of some kind");
            match begins {
                true => drop(all(coming.into_body()).await.expect_err("it breaks off for the client too")),
                false => assert_eq!(coming.headers()["fencing-refused"], "upstream_broken", "{answer}"),
            }
            world.role.until_settled(Settled::Lost).await;
            world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        });
    }
}

#[test]
fn a_gateway_error_in_answer_to_a_stream_proves_nothing() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut target) = sent(&world, &mut sender).await;
        target.send("HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(answer.await.expect("an answer").status(), 502);
        world.role.until_settled(Settled::Lost).await;
    });
}

#[test]
fn a_stream_that_is_not_confirmed_does_not_leave() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        world.role.writes.unconfirmed.replace(Some(refusal(Reason::StaleEpoch)));
        let (answer, mut body) = sender.send_request(put("/a", 3), false).expect("sent");
        body.send_data("abc".into(), true).expect("data");
        let mut target = world.at_target().await;
        let answer = answer.await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["fencing-refused"]),
            (412, &"stale_epoch".parse().expect("value"))
        );
        world.role.until_settled(Settled::NothingLeft).await;
        world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
        // The first byte on that connection is the next request's.
        let (_answer, mut body) = sender.send_request(put("/b", 3), false).expect("sent");
        body.send_data("abc".into(), true).expect("data");
        assert!(target.head().await.starts_with("put /b "));
    });
}

#[test]
fn a_stream_on_an_idle_connection_that_the_target_closed_is_confirmed_again() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut target) = sent(&world, &mut sender).await;
        target.send(OK).await;
        assert_eq!(all(answer.await.expect("an answer").into_body()).await.expect("a whole body").0, b"ok");
        drop(target);
        let (answer, mut target) = sent(&world, &mut sender).await;
        target.send(OK).await;
        assert_eq!(answer.await.expect("an answer").status(), 200);
        assert_eq!(world.role.settled(), [Settled::Answered; 2]);
    });
}

#[test]
fn a_connection_on_which_more_came_than_the_answer_carries_no_other_stream() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut target) = sent(&world, &mut sender).await;
        target.send(&format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlies")).await;
        assert_eq!(all(answer.await.expect("an answer").into_body()).await.expect("a whole body").0, b"ok");
        let (answer, mut second) = sent(&world, &mut sender).await;
        second.send(OK).await;
        assert_eq!(all(answer.await.expect("an answer").into_body()).await.expect("a whole body").0, b"ok");
    });
}

#[test]
fn a_half_sent_stream_is_cut_and_one_that_was_sent_whole_only_by_the_last_word() {
    run(async {
        let world = to_http1(|_| {}).await;
        let fence = world.role.fence();
        let (mut sender, _connection) = client(world.address).await;
        let (half, mut body) = sender.send_request(put("/half", 9), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut half_target = world.at_target().await;
        half_target.head().await;
        half_target.exactly(3).await;
        let (whole, mut whole_target) = sent(&world, &mut sender).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        fence.ask(Ask::CutHalfSent);
        assert!(half_target.is_reset().await);
        let half = half.await.expect("an answer");
        assert_eq!(
            (half.status().as_u16(), &half.headers()["fencing-refused"]),
            (502, &"fenced_in_flight".parse().expect("value"))
        );
        assert_eq!(world.role.settled(), [Settled::Lost]);
        fence.ask(Ask::Cut);
        assert!(whole_target.is_reset().await);
        assert_eq!(whole.await.expect("an answer").headers()["fencing-refused"], "fenced_in_flight");
        assert_eq!(world.role.settled(), [Settled::Lost; 2]);
    });
}

#[test]
fn a_door_that_is_shut_sends_nothing_more_of_a_stream() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut body) = sender.send_request(put("/a", 6), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut target = world.at_target().await;
        target.head().await;
        target.exactly(3).await;
        world.role.writes.shut.set(true);
        body.send_data("def".into(), true).expect("data");
        assert!(target.is_reset().await);
        assert_eq!(answer.await.expect("an answer").headers()["fencing-refused"], "fenced_in_flight");
        world.role.until_settled(Settled::Lost).await;
    });
}

#[test]
fn a_slow_stream_holds_the_answer_up_only_until_the_fence_hurries() {
    run(async {
        let world = to_http1(|_| {}).await;
        let fence = world.role.fence();
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut target) = sent(&world, &mut sender).await;
        target.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        let sending = tokio::task::spawn_local(async move {
            target.send(&"x".repeat(LARGE)).await;
            target
        });
        let answer = answer.await.expect("a head");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!sending.is_finished());
        assert_eq!(world.role.settled(), []);
        fence.ask(Ask::Hurry);
        world.role.until_settled(Settled::Answered).await;
        let _target = sending.await.expect("all was read");
        all(answer.into_body()).await.expect_err("what the client did not take it does not get as if it were all");
    });
}

#[test]
fn large_bodies_stream_both_ways() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut body) = sender.send_request(put("/a", LARGE), false).expect("sent");
        tokio::task::spawn_local(async move {
            let mut left = LARGE;
            while left > 0 {
                body.reserve_capacity(left);
                let room = std::future::poll_fn(|context| body.poll_capacity(context)).await;
                let part = room.expect("the stream is there").expect("it goes on");
                left -= part;
                body.send_data(vec![b'x'; part].into(), left == 0).expect("data");
            }
        });
        let mut target = world.at_target().await;
        target.head().await;
        assert!(target.exactly(LARGE).await.bytes().all(|byte| byte == b'x'));
        tokio::task::spawn_local(async move {
            target.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
            target.send(&"y".repeat(LARGE)).await;
        });
        let (bytes, _) = all(answer.await.expect("an answer").into_body()).await.expect("a whole body");
        assert!(bytes.len() == LARGE && bytes.iter().all(|byte| *byte == b'y'));
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn streams_have_their_time_limits() {
    const SOON: Duration = Duration::from_millis(60);
    run(async {
        let world = to_http1(|change| change.upstream.response_timeout = SOON).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, _target) = sent(&world, &mut sender).await;
        assert_eq!(answer.await.expect("an answer").headers()["fencing-refused"], "upstream_timeout");
        world.role.until_settled(Settled::Lost).await;
    });
    run(async {
        let world = to_http1(|change| change.limits.body_idle_timeout = SOON).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, _body) = sender.send_request(put("/a", 9), false).expect("sent");
        let mut target = world.at_target().await;
        assert_eq!(answer.await.expect("an answer").status(), 408);
        assert!(target.is_reset().await);
        world.role.until_settled(Settled::Lost).await;
    });
}

#[test]
fn a_held_stream_waits_and_goes_with_its_client() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let held = async {
            let _ = released.await;
            Ok(())
        };
        world.role.next.borrow_mut().push_back(Decision::Hold(Box::pin(held)));
        let (answer, mut body) = sender.send_request(put("/a", 3), false).expect("sent");
        body.send_data("abc".into(), true).expect("data");
        until("held", || world.role.paths.borrow().len() == 1).await;
        release.send(()).expect("it waits");
        let mut target = world.at_target().await;
        target.head().await;
        target.send(OK).await;
        assert_eq!(answer.await.expect("an answer").status(), 200);

        let (gone, goes) = tokio::sync::oneshot::channel::<()>();
        let held = async {
            let _gone = gone;
            std::future::pending::<()>().await;
            Ok(())
        };
        world.role.next.borrow_mut().push_back(Decision::Hold(Box::pin(held)));
        let (answer, _body) = sender.send_request(put("/b", 3), false).expect("sent");
        until("held", || world.role.paths.borrow().len() == 3).await;
        drop((answer, _body));
        goes.await.expect_err("its place is given back");
        until("finished", || world.role.finished.borrow().len() == 2).await;
        assert_eq!(world.role.finished.borrow()[1], (Kind::Write, Outcome::NotApplied));
    });
}

#[test]
fn a_worker_that_ends_loses_the_streams_that_are_in_flight() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (_answer, mut target) = sent(&world, &mut sender).await;
        world.closer.now();
        assert!(target.is_reset().await);
        world.role.until_settled(Settled::Lost).await;
        until("no longer in flight", || world.http.writes_in_flight() == 0).await;
    });
}

#[test]
fn a_head_request_has_an_answer_without_a_body() {
    run(async {
        let world = to_http1(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        for _ in 0..2 {
            let request = Request::head("http://db/a").body(()).expect("a request");
            let (answer, _) = sender.send_request(request, true).expect("sent");
            let mut target = world.at_target().await;
            target.head().await;
            target.send("HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n").await;
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.headers()["content-length"], "7");
            assert!(answer.body().is_end_stream());
        }
    });
}

#[test]
fn the_first_byte_of_a_stream_that_has_to_wait_is_confirmed_when_it_leaves() {
    for speaks in [false, true] {
        run(async {
            let (mut near, mut target) = tokio::io::duplex(8);
            tokio::io::AsyncWriteExt::write_all(&mut near, b"12345678").await.expect("there is room");
            let world = to_http1(|change| change.dialled.push_back(near)).await;
            if !world.http.direct.is_on() {
                return;
            }
            let (mut sender, _connection) = client(world.address).await;
            let (answer, mut body) = sender.send_request(put("/a", 3), false).expect("sent");
            body.send_data("abc".into(), true).expect("data");
            until("confirmed", || world.role.writes.confirms.get() > 0).await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            if speaks {
                tokio::io::AsyncWriteExt::write_all(&mut target, b"HTTP/").await.expect("there is room");
            } else {
                world.role.writes.unconfirmed.replace(Some(refusal(Reason::StaleEpoch)));
                target.read_exact(&mut [0; 8]).await.expect("what was there before");
            }
            let refused = if speaks { "upstream_unreachable" } else { "stale_epoch" };
            assert_eq!(answer.await.expect("an answer").headers()["fencing-refused"], refused);
            world.role.until_settled(Settled::NothingLeft).await;
            world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
        });
    }
}
