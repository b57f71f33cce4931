//! HTTP/2 on either side, and gRPC.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason as Why, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

use super::support::{World, refusal, run, until, world};
use crate::config::resolved::UpstreamVersion;
use crate::fence::{Outcome, Reason};
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;
use crate::protocol::{CutReason, Decision, Kind};

pub async fn client(address: SocketAddr) -> (SendRequest<Bytes>, Rc<tokio::task::JoinHandle<Result<(), h2::Error>>>) {
    let socket = TcpStream::connect(address).await.expect("connect");
    socket.set_nodelay(true).expect("a socket");
    let (sender, connection) = h2::client::handshake(socket).await.expect("handshake");
    (sender, Rc::new(tokio::task::spawn_local(connection)))
}

fn put(path: &str) -> Request<()> {
    let request = Request::builder().method("PUT").uri(format!("http://db{path}"));
    request.body(()).expect("a request")
}

pub async fn all(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len()).expect("it was received");
        bytes.extend_from_slice(&part);
    }
    Ok((bytes, body.trailers().await?))
}

type AtTarget = h2::server::Connection<TcpStream, Bytes>;

async fn h2_target(world: &World, streams: u32) -> AtTarget {
    let socket = world.target.accept().await.expect("accept").0;
    h2::server::Builder::new().max_concurrent_streams(streams).handshake(socket).await.expect("handshake")
}

/// Answers every request with its path, as long as the connection lasts.
async fn echo(mut target: AtTarget) {
    while let Some(Ok((request, mut respond))) = target.accept().await {
        tokio::task::spawn_local(async move {
            let path = request.uri().path().to_owned();
            if all(request.into_body()).await.is_ok()
                && let Ok(mut body) = respond.send_response(Response::new(()), false)
            {
                let _ = body.send_data(path.into(), true);
            }
        });
    }
}

#[test]
fn an_http2_client_reaches_an_http1_target() {
    run(async {
        let world = world(|change| change.upstream.version = UpstreamVersion::Http1).await;
        let (mut sender, _connection) = client(world.address).await;
        let request = Request::builder().method("PUT").uri("http://db/a?b").header("te", "trailers");
        let (answer, mut body) = sender.send_request(request.body(()).expect("request"), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "6".parse().expect("value"));
        body.send_trailers(trailers).expect("trailers");
        let mut target = world.at_target().await;
        let head = target.head().await;
        assert!(head.starts_with("put /a?b http/1.1\r\n") && head.contains("\r\nhost: db\r\n"), "{head}");
        assert!(head.contains("\r\nfencing-epoch: 42\r\n") && head.contains("\r\nte: trailers\r\n"), "{head}");
        // HTTP/1.1 has trailers only where they were announced.
        assert_eq!(target.up_to("0\r\n\r\n").await, "3\r\nabc\r\n0\r\n\r\n");
        target
            .send(
                "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                 2\r\nok\r\n0\r\nx-sum: 7\r\nfencing-epoch: 9\r\n\r\n",
            )
            .await;
        let answer = answer.await.expect("an answer");
        assert!(!answer.headers().contains_key("connection"));
        let (bytes, trailers) = all(answer.into_body()).await.expect("a whole body");
        assert_eq!(bytes, b"ok");
        let trailers = trailers.expect("trailers");
        assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"7".parse().expect("value")));
        world.role.until_settled(Settled::Answered).await;
    });
}

/// Hyper 1.12 takes RST_STREAM(NO_ERROR) for the end of the body.
#[test]
fn an_upload_that_is_reset_is_never_delivered_as_whole() {
    for why in [Why::NO_ERROR, Why::CANCEL] {
        run(async {
            let world = world(|change| change.upstream.version = UpstreamVersion::Http1).await;
            let (mut sender, _connection) = client(world.address).await;
            let (_answer, mut body) = sender.send_request(put("/a"), false).expect("sent");
            body.send_data("abc".into(), false).expect("data");
            let mut target = world.at_target().await;
            target.head().await;
            assert_eq!(target.exactly(8).await, "3\r\nabc\r\n");
            body.send_reset(why);
            assert!(target.is_reset().await, "{why:?}: it ended in order");
            world.role.until_settled(Settled::Lost).await;
            world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        });
    }
}

#[test]
fn an_upload_that_is_reset_is_never_delivered_as_whole_over_http2() {
    for why in [Why::NO_ERROR, Why::CANCEL] {
        run(async {
            let world = world(|_| {}).await;
            let (mut sender, _connection) = client(world.address).await;
            let (_answer, mut body) = sender.send_request(put("/a"), false).expect("sent");
            body.send_data("abc".into(), false).expect("data");
            let mut target = h2_target(&world, 10).await;
            let (request, _respond) = target.accept().await.expect("a request").expect("whole");
            let connection = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
            let mut upload = request.into_body();
            assert_eq!(upload.data().await.expect("data").expect("data"), "abc");
            body.send_reset(why);
            let end = upload.data().await.expect("not an end").expect_err("a reset");
            assert!(end.is_reset() || end.is_io(), "{why:?}: {end}");
            world.role.until_settled(Settled::Lost).await;
            drop(upload);
            connection.abort();
        });
    }
}

/// The switch takes the guard out: without it the truncated write passes for whole. So the guard is needed.
#[cfg(feature = "danger-test-switches")]
#[test]
fn without_the_guard_a_reset_upload_passes_for_whole() {
    use super::support::world_without;
    use crate::fence::mechanism::Mechanism;
    run(async {
        let world = world_without(Mechanism::Truncation).await;
        let (mut sender, _connection) = client(world.address).await;
        let (_answer, mut body) = sender.send_request(put("/a"), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut target = world.at_target().await;
        target.head().await;
        assert_eq!(target.exactly(8).await, "3\r\nabc\r\n");
        body.send_reset(Why::NO_ERROR);
        assert_eq!(target.exactly(5).await, "0\r\n\r\n");
    });
}

#[test]
fn an_http2_client_that_leaves_does_not_cancel_what_was_sent_whole() {
    run(async {
        let world = world(|change| change.upstream.version = UpstreamVersion::Http1).await;
        let (mut sender, connection) = client(world.address).await;
        let (answer, mut body) = sender.send_request(put("/a"), false).expect("sent");
        body.send_data("abc".into(), true).expect("data");
        let mut target = world.at_target().await;
        target.head().await;
        target.up_to("0\r\n\r\n").await;
        drop((answer, body, sender));
        connection.abort();
        until("closed", || world.role.open.get() == 0).await;
        assert_eq!(world.role.settled(), []);
        target.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn http2_goes_through_with_its_trailers() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut body) = sender.send_request(put("/a?b"), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "6".parse().expect("value"));
        trailers.insert("fencing-other", "6".parse().expect("value"));
        body.send_trailers(trailers).expect("trailers");
        let mut target = h2_target(&world, 10).await;
        let (request, mut respond) = target.accept().await.expect("a request").expect("whole");
        let connection = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
        assert_eq!(request.uri().to_string(), "http://db/a?b");
        assert_eq!(request.headers()["fencing-epoch"], "42");
        assert!(!request.headers().contains_key("host"));
        let (bytes, trailers) = all(request.into_body()).await.expect("a whole body");
        assert_eq!(bytes, b"abc");
        assert_eq!(trailers.map(|trailers| trailers.len()), Some(1));
        let mut body = respond.send_response(Response::new(()), false).expect("answered");
        body.send_data("ok".into(), false).expect("data");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("value"));
        body.send_trailers(trailers).expect("trailers");
        let (bytes, trailers) = all(answer.await.expect("an answer").into_body()).await.expect("a whole body");
        assert_eq!(bytes, b"ok");
        assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
        world.role.until_settled(Settled::Answered).await;
        connection.abort();
    });
}

#[test]
fn a_truncated_http2_answer_is_no_answer() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, _body) = sender.send_request(put("/a"), true).expect("sent");
        let mut target = h2_target(&world, 10).await;
        let (_request, mut respond) = target.accept().await.expect("a request").expect("whole");
        let connection = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
        let mut body = respond.send_response(Response::new(()), false).expect("answered");
        body.send_data("hal".into(), false).expect("data");
        let mut got = answer.await.expect("a head").into_body();
        assert_eq!(got.data().await.expect("data").expect("data"), "hal");
        body.send_reset(Why::NO_ERROR);
        got.data().await.expect("not an end").expect_err("a reset");
        world.role.until_settled(Settled::Lost).await;
        connection.abort();
    });
}

#[test]
fn no_more_streams_are_opened_than_the_target_allows() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let mut answers = Vec::new();
        for n in 0..3 {
            answers.push(sender.send_request(put(&format!("/{n}")), true).expect("sent").0);
        }
        // Each of the target's connections allows one: so there are three, and nothing waits inside hyper.
        let mut waiting = HashMap::new();
        let mut connections = Vec::new();
        for _ in 0..3 {
            let mut target = h2_target(&world, 1).await;
            let (request, respond) = target.accept().await.expect("a request").expect("whole");
            waiting.insert(request.uri().path().to_owned(), respond);
            connections.push(tokio::task::spawn_local(async move { while target.accept().await.is_some() {} }));
        }
        assert_eq!(waiting.len(), 3);
        assert_eq!(world.role.writes.confirms.get(), 3);
        for (_, mut respond) in waiting {
            respond.send_response(Response::new(()), true).expect("answered");
        }
        for answer in answers {
            assert_eq!(answer.await.expect("an answer").status(), 200);
        }
        until("settled", || world.role.settled() == [Settled::Answered; 3]).await;
        connections.into_iter().for_each(|connection| connection.abort());
    });
}

#[test]
fn many_requests_share_one_connection() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let mut answers = Vec::new();
        for n in 0..50 {
            answers.push(sender.send_request(put(&format!("/{n}")), true).expect("sent").0);
        }
        let target = tokio::task::spawn_local(echo(h2_target(&world, 100).await));
        for (n, answer) in answers.into_iter().enumerate() {
            let (path, _) = all(answer.await.expect("an answer").into_body()).await.expect("a whole body");
            assert_eq!(path, format!("/{n}").into_bytes());
        }
        assert!(world.role.settled().iter().all(|how| *how == Settled::Answered));
        target.abort();
    });
}

#[test]
fn an_upstream_that_does_not_speak_http2_gets_nothing_of_the_request() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, _) = sender.send_request(put("/a"), true).expect("sent");
        let mut target = world.at_target().await;
        target.up_to("SM\r\n\r\n").await;
        target.send("HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n").await;
        let answer = answer.await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["fencing-refused"]),
            (502, &"upstream_unreachable".parse().expect("value"))
        );
        world.role.until_settled(Settled::NothingLeft).await;
    });
}

#[test]
fn a_half_sent_stream_is_cut_and_its_connection_retired() {
    run(async {
        let world = world(|_| {}).await;
        let fence = world.role.fence();
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut body) = sender.send_request(put("/a"), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut target = h2_target(&world, 10).await;
        let (request, _respond) = target.accept().await.expect("a request").expect("whole");
        let connection = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
        let mut upload = request.into_body();
        upload.data().await.expect("data").expect("data");
        fence.ask(Ask::CutHalfSent);
        upload.data().await.expect("not an end").expect_err("a reset");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["fencing-refused"], "fenced_in_flight");
        world.role.until_settled(Settled::Lost).await;
        drop(upload);
        world.role.writes.caller.replace(None);
        let (answer, _) = sender.send_request(put("/b"), true).expect("sent");
        let second = tokio::task::spawn_local(echo(h2_target(&world, 10).await));
        assert_eq!(answer.await.expect("an answer").status(), 200);
        connection.abort();
        second.abort();
    });
}

#[test]
fn a_changed_term_says_goodbye() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, connection) = client(world.address).await;
        world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(Reason::TermChanged)));
        let (answer, _) = sender.send_request(put("/a"), true).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 421);
        assert!(!answer.headers().contains_key("connection"));
        let connection = Rc::into_inner(connection).expect("ours alone");
        drop(answer);
        drop(sender);
        connection.await.expect("no panic").expect("an orderly end");
        until("cut", || *world.role.cuts.borrow() == [CutReason::TermChanged]).await;
    });
}

#[test]
fn a_refused_grpc_call_is_told_in_its_own_words() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(Reason::HoldFull)));
        let request = Request::builder()
            .method("POST")
            .uri("http://db/shop.Orders/Put")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let (answer, mut body) = sender.send_request(request.body(()).expect("request"), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let answer = answer.await.expect("an answer");
        assert!(answer.body().is_end_stream(), "it is not Trailers-only");
        let headers = answer.headers();
        assert_eq!((answer.status().as_u16(), &headers["grpc-status"]), (200, &"14".parse().expect("value")));
        assert_eq!(headers["fencing-refused"], "hold_full");
        assert!(headers.contains_key("grpc-status-details-bin"));
        assert_eq!(*world.role.refused.borrow(), [Reason::HoldFull]);
    });
}

#[test]
fn a_worker_that_stops_says_goodbye_and_finishes() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, connection) = client(world.address).await;
        let (answer, _) = sender.send_request(put("/a"), true).expect("sent");
        let mut target = h2_target(&world, 10).await;
        let (_request, mut respond) = target.accept().await.expect("a request").expect("whole");
        let at_target = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
        world.closer.finish();
        respond.send_response(Response::new(()), true).expect("answered");
        assert_eq!(answer.await.expect("an answer").status(), 200);
        drop(sender);
        Rc::into_inner(connection).expect("ours alone").await.expect("no panic").expect("an orderly end");
        until("closed", || world.role.open.get() == 0).await;
        assert_eq!(*world.role.cuts.borrow(), [CutReason::Shutdown]);
        at_target.abort();
    });
}

#[test]
fn an_idle_http2_connection_is_cut() {
    run(async {
        let world = world(|change| change.limits.idle_timeout = std::time::Duration::from_millis(50)).await;
        let (sender, connection) = client(world.address).await;
        until("cut", || *world.role.cuts.borrow() == [CutReason::Idle]).await;
        drop(sender);
        let _ = Rc::into_inner(connection).expect("ours alone").await.expect("no panic");
    });
}

#[test]
fn an_early_answer_over_http2_is_passed_on_and_proves_nothing() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, mut body) = sender.send_request(put("/a"), false).expect("sent");
        body.send_data("abc".into(), false).expect("data");
        let mut target = h2_target(&world, 10).await;
        let (request, mut respond) = target.accept().await.expect("a request").expect("whole");
        let connection = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
        let mut answering = respond.send_response(Response::new(()), false).expect("answered");
        answering.send_data("no".into(), true).expect("data");
        // What h2 makes of it: RST_STREAM with NO_ERROR, behind the end of the answer.
        drop((request, respond, answering));
        let (bytes, _) = all(answer.await.expect("an answer").into_body()).await.expect("a whole body");
        assert_eq!(bytes, b"no");
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        connection.abort();
    });
}

#[test]
fn connect_is_refused() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let request = Request::connect("db:80").body(()).expect("a request");
        let (answer, _body) = sender.send_request(request, false).expect("sent");
        assert_eq!(answer.await.expect("an answer").status(), 400);
        assert!(world.role.paths.borrow().is_empty());
    });
}

#[test]
fn one_stream_that_the_target_resets_takes_no_other_with_it() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (lost, _) = sender.send_request(put("/lost"), true).expect("sent");
        let (kept, _) = sender.send_request(put("/kept"), true).expect("sent");
        let mut target = h2_target(&world, 10).await;
        let mut waiting = HashMap::new();
        for _ in 0..2 {
            let (request, respond) = target.accept().await.expect("a request").expect("whole");
            waiting.insert(request.uri().path().to_owned(), respond);
        }
        let connection = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
        waiting.remove("/lost").expect("it came").send_reset(Why::INTERNAL_ERROR);
        let answer = lost.await.expect("an answer");
        assert_eq!(answer.headers()["fencing-refused"], "upstream_broken");
        assert_eq!(world.role.settled(), [Settled::Lost]);
        waiting.remove("/kept").expect("it came").send_response(Response::new(()), true).expect("answered");
        assert_eq!(kept.await.expect("an answer").status(), 200);
        until("settled", || world.role.settled() == [Settled::Lost, Settled::Answered]).await;
        connection.abort();
    });
}

#[test]
fn a_connection_that_the_target_ends_is_followed_by_another() {
    run(async {
        let world = world(|_| {}).await;
        let (mut sender, _connection) = client(world.address).await;
        let (answer, _) = sender.send_request(put("/a"), true).expect("sent");
        let mut target = h2_target(&world, 10).await;
        let (_request, mut respond) = target.accept().await.expect("a request").expect("whole");
        respond.send_response(Response::new(()), true).expect("answered");
        target.graceful_shutdown();
        let connection = tokio::task::spawn_local(async move { while target.accept().await.is_some() {} });
        assert_eq!(answer.await.expect("an answer").status(), 200);
        connection.await.expect("an orderly end");
        let (answer, _) = sender.send_request(put("/b"), true).expect("sent");
        let second = tokio::task::spawn_local(echo(h2_target(&world, 10).await));
        let (path, _) = all(answer.await.expect("an answer").into_body()).await.expect("a whole body");
        assert_eq!(path, b"/b");
        assert_eq!(world.role.settled(), [Settled::Answered; 2]);
        second.abort();
    });
}
