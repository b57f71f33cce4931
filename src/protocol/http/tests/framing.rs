//! How messages are cut out of the byte stream: what two readers could read two ways goes no further.

use super::support::{run, until, world};
use crate::fence::{Outcome, Reason};
use crate::protocol::Kind;
use crate::protocol::right::Settled;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What is refused before the target has seen any of it.
#[test]
fn what_is_ambiguous_goes_no_further() {
    let refused = [
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 4\r\n\r\nabcd",
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd",
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost : a\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.2\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
        "PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "PUT http://b/ HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a b/c@d\r\ncontent-length: 0\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\na",
        "PUT / HTTP/1.1\r\nhost: a\r\nconnection: fencing_epoch\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\ntrailer: fencing-epoch\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    run(async {
        let world = world(|_| {}).await;
        for request in refused {
            let mut client = world.client().await;
            client.send(&format!("{request}PUT /next HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await;
            let head = client.head().await;
            assert!(head.starts_with("http/1.1 400 ") || head.starts_with("http/1.0 400 "), "{request:?}: {head}");
            assert!(head.contains("\r\nconnection: close\r\n"), "{request:?}: {head}");
            client.rest().await;
        }
        assert!(world.role.paths.borrow().is_empty(), "the role was asked");
        until("closed", || world.role.open.get() == 0).await;
        // All that reached this code was counted, and what misused the stamp was refused by name.
        assert!(world.role.finished.borrow().iter().all(|(_, outcome)| *outcome == Outcome::NotApplied));
        assert_eq!(*world.role.refused.borrow(), [Reason::MalformedStamp; 2]);
    });
}

#[test]
fn too_large_a_head_is_refused() {
    run(async {
        let world = world(|change| {
            change.limits.headers = 10;
            change.limits.header_bytes = 16 * 1024;
        })
        .await;
        let many: String = (0..20).map(|n| format!("x-{n}: 1\r\n")).collect();
        for fields in [many, format!("x: {}\r\n", "y".repeat(20 * 1024))] {
            let mut client = world.client().await;
            client.send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
            assert!(client.head().await.starts_with("http/1.1 431 "));
        }
    });
}

#[test]
fn what_means_one_thing_is_said_plainly() {
    let said = [
        // A length beside chunks is dropped, and the connection with it (RFC 9112 6.3).
        (
            "PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "put /a http/1.1\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
            "put /a http/1.1\r\n",
            "abc",
        ),
        ("\r\nPUT http://a/b HTTP/1.1\nhost: a\ncontent-length: 3\n\nabc", "put /b http/1.1\r\n", "abc"),
        // Its body must not be lost, nor be taken for the next request.
        (
            "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "get /a http/1.1\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        ("PUT /a HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc", "put /a http/1.1\r\n", "abc"),
        ("get /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", "get /a http/1.1\r\n", "abc"),
    ];
    for (request, line, body) in said {
        run(async {
            let world = world(|_| {}).await;
            let (mut client, mut target, head) = world.sent(request).await;
            assert!(head.starts_with(line), "{head}");
            assert_eq!(head.matches("\r\nhost: ").count(), 1, "{head}");
            assert!(!(head.contains("content-length") && head.contains("transfer-encoding")), "{head}");
            assert_eq!(target.exactly(body.len()).await, body);
            target.send(OK).await;
            assert_eq!(client.answer().await.1, "ok");
        });
    }
}

#[test]
fn an_unknown_method_is_a_write() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent("PURGE /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        target.send(OK).await;
        client.answer().await;
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn trailers_travel_both_ways() {
    run(async {
        let world = world(|_| {}).await;
        let request = "PUT /a HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntrailer: x-sum, content-length\r\n\
                       transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 6\r\ncontent-length: 9\r\n\r\n";
        let (mut client, mut target, head) = world.sent(request).await;
        assert!(head.contains("\r\nte: trailers\r\n") && head.contains("\r\nconnection: te\r\n"), "{head}");
        assert_eq!(target.up_to("\r\n\r\n").await, "3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n");
        target
            .send(
                "HTTP/1.1 200 OK\r\ntrailer: x-sum, fencing-refused\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                 x-sum: 7\r\nfencing-refused: lie\r\n\r\n",
            )
            .await;
        client.head().await;
        assert_eq!(client.up_to("\r\n\r\n").await, "2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n");
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn a_stamp_in_a_trailer_spoils_the_request() {
    run(async {
        let world = world(|_| {}).await;
        let request = "PUT /a HTTP/1.1\r\nhost: a\r\ntrailer: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n\
                       0\r\nfencing_epoch: 7\r\n\r\n";
        let (mut client, mut target, _) = world.sent(request).await;
        assert!(target.is_reset().await, "it was delivered as whole");
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 400 ") && body.contains(r#""outcome":"unknown""#), "{head}{body}");
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
    });
}

#[test]
fn an_answer_with_a_length_beside_chunks_is_read_by_its_chunks() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent("PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        target
            .send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
        let head = client.head().await;
        assert!(!head.contains("content-length"), "{head}");
        assert_eq!(client.up_to("\r\n\r\n").await, "2\r\nok\r\n0\r\n\r\n");
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn answers_without_a_body_end_where_they_end() {
    run(async {
        let world = world(|_| {}).await;
        let mut client = world.client().await;
        client.send("HEAD /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut target = world.at_target().await;
        target.head().await;
        target.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
        assert!(client.head().await.contains("\r\ncontent-length: 9\r\n"));
        client.send("DELETE /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        target.head().await;
        target.send("HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 Gone\r\n\r\n").await;
        assert!(client.head().await.starts_with("http/1.1 204 "));
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent("DELETE /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        target.send("HTTP/1.0 200 OK\r\n\r\nok").await;
        drop(target);
        client.head().await;
        assert_eq!(client.up_to("0\r\n\r\n").await, "2\r\nok\r\n0\r\n\r\n");
        world.role.until_settled(Settled::Answered).await;
    });
}

/// What follows an answer belongs to nobody: the next request must not be answered with it.
#[test]
fn a_connection_on_which_more_came_than_the_answer_carries_nothing_more() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent("PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        target.send(&format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")).await;
        assert_eq!(client.answer().await.1, "ok");
        client.send("PUT /b HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        let mut fresh = world.at_target().await;
        fresh.head().await;
        fresh.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
    });
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served_like_any_other() {
    run(async {
        let world = world(|_| {}).await;
        let mut client = world.client().await;
        for byte in "PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".chars() {
            client.send(&byte.to_string()).await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut target = world.at_target().await;
        target.head().await;
        assert_eq!(target.exactly(3).await, "abc");
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        // The connection takes the next one too, whoever serves it.
        client.send("PUT /b HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        tokio::select! {
            _ = target.head() => target.send(OK).await,
            mut fresh = world.at_target() => {
                fresh.head().await;
                fresh.send(OK).await;
            }
        }
        assert_eq!(client.answer().await.1, "ok");
    });
}
