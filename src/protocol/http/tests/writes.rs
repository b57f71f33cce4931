//! What becomes of writes, and what their right is settled as.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{refusal, run, until, world};
use crate::fence::{Outcome, Reason};
use crate::protocol::right::Settled;
use crate::protocol::{Decision, Kind};

const PUT: &str = "PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 3\r\n\r\nabc";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_write_is_stamped_forwarded_and_answered() {
    run(async {
        let world = world(|_| {}).await;
        let request = "PUT /a?b=c HTTP/1.1\r\nHost: db\r\nFencing-Epoch: 7\r\nFencing_Epoch: 8\r\nFencing-Expect: 7\r\n\
                       Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nX-Forwarded-For: 1.1.1.1\r\n\
                       Proxy-Authorization: no\r\nX-Spelt: so\r\nContent-Length: 3\r\n\r\nabc";
        let mut client = world.client().await;
        client.send(request).await;
        let mut target = world.at_target().await;
        let head = target.up_to("\r\n\r\n").await;
        assert_eq!(target.exactly(3).await, "abc");
        assert!(head.starts_with("PUT /a?b=c HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nX-Spelt: so\r\n"), "{head}");
        let head = head.to_lowercase();
        assert_eq!(head.matches("fencing").count(), 1, "{head}");
        for there in ["\r\nfencing-epoch: 42\r\n", "\r\nhost: db\r\n", "\r\nx-forwarded-for: 1.1.1.1, 127.0.0.1\r\n"] {
            assert!(head.contains(there), "{there} in {head}");
        }
        for gone in ["connection", "x-mine", "keep-alive", "proxy-", "transfer-encoding"] {
            assert!(!head.contains(gone), "{gone} in {head}");
        }
        assert_eq!(world.role.settled(), []);
        target.send("HTTP/1.1 201 Made\r\nX-Spelt: so\r\nFencing-Refused: lie\r\nContent-Length: 2\r\n\r\nok").await;
        let head = client.up_to("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 201 Made\r\nX-Spelt: so\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("fencing-refused"), "{head}");
        assert_eq!(client.exactly(2).await, "ok");
        world.role.until_settled(Settled::Answered).await;
        world.role.until_finished(Kind::Write, Outcome::Answered).await;
        assert_eq!(world.role.writes.confirms.get(), 1);
        assert!(world.role.refused.borrow().is_empty());
    });
}

#[test]
fn a_refused_write_is_not_asked_for_its_body() {
    run(async {
        let world = world(|_| {}).await;
        world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(Reason::StaleEpoch)));
        let mut client = world.client().await;
        let ask = "PUT /a HTTP/1.1\r\nhost: db\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
        client.send(ask).await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 412 "), "{head}");
        assert!(head.contains("\r\nfencing-refused: stale_epoch\r\n"), "{head}");
        assert!(body.contains(r#""outcome":"not_applied""#), "{body}");
        world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
        assert_eq!(*world.role.refused.borrow(), [Reason::StaleEpoch]);

        let mut client = world.client().await;
        client.send(ask).await;
        assert_eq!(client.up_to("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        let mut target = world.at_target().await;
        assert!(!target.head().await.contains("expect"));
        client.send("abc").await;
        assert_eq!(target.exactly(3).await, "abc");
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
    });
}

#[test]
fn the_answer_to_an_early_refusal_survives_the_rest_of_the_body() {
    run(async {
        let world = world(|_| {}).await;
        world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(Reason::StaleEpoch)));
        let mut client = world.client().await;
        client.send("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 200000\r\n\r\n").await;
        client.send(&"x".repeat(100_000)).await;
        until("refused", || !world.role.refused.borrow().is_empty()).await;
        client.send(&"x".repeat(100_000)).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
    });
}

#[test]
fn an_answer_that_crossed_the_rest_of_the_request_proves_nothing() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) =
            world.sent("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 6\r\n\r\nabc").await;
        target.exactly(3).await;
        // The proxy gets both in one turn: the answer is there before the rest leaves, and is looked at afterwards.
        client.send("def").await;
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        assert_eq!(world.role.settled(), [Settled::Lost]);
    });
}

#[test]
fn a_client_that_goes_away_does_not_cancel_what_was_sent_whole() {
    run(async {
        let world = world(|_| {}).await;
        let (client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        drop(client);
        assert_eq!(world.http.writes_in_flight(), 1);
        target.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await;
        // A byte is missing: it is not answered yet.
        let mut other = world.client().await;
        other.send("GET /b HTTP/1.1\r\nhost: db\r\n\r\n").await;
        let mut second = world.at_target().await;
        second.head().await;
        second.send(OK).await;
        assert_eq!(other.answer().await.1, "ok");
        assert_eq!(world.role.settled(), []);
        target.send("k").await;
        world.role.until_settled(Settled::Answered).await;
        until("its task ended", || world.http.writes_in_flight() == 0).await;
    });
}

#[test]
fn a_client_that_goes_away_half_way_loses_the_write() {
    for request in [
        "PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 30\r\n\r\nabc",
        "PUT /a HTTP/1.1\r\nhost: db\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "PUT /a HTTP/1.1\r\nhost: db\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n",
    ] {
        run(async {
            let world = world(|_| {}).await;
            let (client, mut target, head) = world.sent(request).await;
            if head.contains("chunked") {
                target.up_to("3\r\nabc\r\n").await;
            } else {
                target.exactly(3).await;
            }
            let reset = async {
                drop(client);
                target.is_reset().await
            };
            assert!(reset.await, "an orderly end could pass for a whole body");
            world.role.until_settled(Settled::Lost).await;
            world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        });
    }
}

#[test]
fn an_upstream_that_breaks_off_leaves_the_outcome_unknown() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        drop(target);
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 502 ") && head.contains("fencing-refused: upstream_broken"), "{head}");
        assert!(body.contains(r#""outcome":"unknown""#) && body.contains(r#""resource":"orders""#), "{body}");
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        assert_eq!(*world.role.refused.borrow(), [Reason::UpstreamBroken]);
    });
}

#[test]
fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        target.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").await;
        client.head().await;
        drop(target);
        let rest = client.rest().await;
        assert_eq!(rest, "hal");
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
    });
}

#[test]
fn a_gateway_error_of_the_targets_is_no_answer() {
    for (status, how, outcome) in [
        (502, Settled::Lost, Outcome::Unknown),
        (504, Settled::Lost, Outcome::Unknown),
        (503, Settled::Answered, Outcome::Answered),
    ] {
        run(async {
            let world = world(|_| {}).await;
            let (mut client, mut target, _) = world.sent(PUT).await;
            target.exactly(3).await;
            target.send(&format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\n\r\nno")).await;
            let (head, body) = client.answer().await;
            assert!(head.starts_with(&format!("http/1.1 {status} so\r\n")), "{head}");
            assert_eq!(body, "no");
            world.role.until_settled(how).await;
            world.role.until_finished(Kind::Write, outcome).await;
        });
    }
}

#[test]
fn without_a_connection_nothing_has_left() {
    run(async {
        let world = world(|change| change.upstream.authority = "127.0.0.1:1".into()).await;
        let mut client = world.client().await;
        client.send(PUT).await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 502 ") && head.contains("fencing-refused: upstream_unreachable"), "{head}");
        assert!(body.contains(r#""outcome":"not_applied""#), "{body}");
        world.role.until_settled(Settled::NothingLeft).await;
        world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
        assert_eq!(world.role.writes.confirms.get(), 0);
    });
}

#[test]
fn what_is_not_confirmed_does_not_leave() {
    run(async {
        let world = world(|_| {}).await;
        world.role.writes.unconfirmed.replace(Some(refusal(Reason::StaleEpoch)));
        let mut client = world.client().await;
        client.send(PUT).await;
        let (head, _) = client.answer().await;
        assert!(head.starts_with("http/1.1 412 "), "{head}");
        world.role.until_settled(Settled::NothingLeft).await;
        // The upstream connection that it did not use carries the next one: nothing of the first was on it.
        let mut client = world.client().await;
        client.send("PUT /b HTTP/1.1\r\nhost: db\r\ncontent-length: 0\r\n\r\n").await;
        let mut target = world.at_target().await;
        assert!(target.head().await.starts_with("put /b "));
        assert_eq!(world.role.writes.confirms.get(), 2);
    });
}

#[test]
fn an_idle_connection_that_the_target_closed_carries_nothing_twice() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        target.send(OK).await;
        client.answer().await;
        drop(target);
        client.send(PUT).await;
        let mut target = world.at_target().await;
        target.head().await;
        target.exactly(3).await;
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        assert_eq!(world.role.settled(), [Settled::Answered; 2]);

        // One that is closed after it took the request: it may have been applied.
        client.send(PUT).await;
        target.head().await;
        target.exactly(3).await;
        drop(target);
        assert!(client.answer().await.0.starts_with("http/1.1 502 "));
        assert_eq!(world.role.settled()[2], Settled::Lost);
        let again = tokio::time::timeout(Duration::from_millis(50), world.target.accept()).await;
        assert!(again.is_err(), "it was sent again");
    });
}

/// The target's end of the idle connection closes between the choice of it and hyper's look at it.
#[test]
fn what_hyper_gives_back_is_confirmed_again_before_it_goes_out_again() {
    for refused in [false, true] {
        run(async {
            let (near, mut first) = tokio::io::duplex(1 << 16);
            let (fresh, mut second) = tokio::io::duplex(1 << 16);
            let world = world(|change| change.dialled = [near, fresh].into()).await;
            let mut client = world.client().await;
            client.send(PUT).await;
            let mut request = vec![0; 1];
            while !request.ends_with(b"abc") {
                first.read_buf(&mut request).await.expect("a request");
            }
            first.write_all(OK.as_bytes()).await.expect("write");
            assert_eq!(client.answer().await.1, "ok");
            until("settled", || world.role.settled() == [Settled::Answered]).await;

            let books = std::rc::Rc::clone(&world.role.writes);
            world.role.writes.at_confirm.set(Some(Box::new(move || {
                drop(first);
                books.unconfirmed.replace(refused.then(|| refusal(Reason::StaleEpoch)));
            })));
            client.send(PUT).await;
            if refused {
                let (head, _) = client.answer().await;
                assert!(head.starts_with("http/1.1 412 "), "{head}");
                assert_eq!(world.role.settled(), [Settled::Answered, Settled::NothingLeft]);
                assert_eq!(*world.role.refused.borrow(), [Reason::StaleEpoch]);
            } else {
                let mut request = Vec::new();
                while !request.ends_with(b"abc") {
                    second.read_buf(&mut request).await.expect("a request");
                }
                second.write_all(OK.as_bytes()).await.expect("write");
                assert_eq!(client.answer().await.1, "ok");
                assert_eq!(world.role.settled(), [Settled::Answered; 2]);
            }
            assert_eq!(world.role.writes.confirms.get(), 3);
        });
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_is_passed_on_and_proves_nothing() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) =
            world.sent("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 9\r\n\r\nabc").await;
        target.exactly(3).await;
        target.send("HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nno").await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 413 "), "{head}");
        assert_eq!(body, "no");
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        assert!(target.is_reset().await);
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn an_answer_to_what_has_not_all_left_proves_nothing() {
    run(async {
        // All of the body fits into what this side buffers, and not into what the target's side takes.
        let (mut target, upstream) = tokio::io::duplex(1024);
        let world = world(|change| change.dialled.push_back(upstream)).await;
        let mut client = world.client().await;
        let body = "x".repeat(8 * 1024);
        client.send(&format!("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        let mut first = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut target, &mut first).await.expect("it comes");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        tokio::io::AsyncWriteExt::write_all(&mut target, OK.as_bytes()).await.expect("there is room");
        assert_eq!(client.answer().await.1, "ok");
        world.role.until_settled(Settled::Lost).await;
    });
}

#[test]
fn a_client_may_close_its_side_and_still_gets_its_answer() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.socket).await.expect("shutdown");
        target.exactly(3).await;
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        assert_eq!(client.rest().await, "");
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn a_read_ends_with_its_client() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) = world.sent("GET /a HTTP/1.1\r\nhost: db\r\n\r\n").await;
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        world.role.until_finished(Kind::Read, Outcome::Answered).await;
        assert_eq!(*world.role.reads.settled.borrow(), [Settled::Answered]);
        client.send("GET /b HTTP/1.1\r\nhost: db\r\n\r\n").await;
        assert!(target.head().await.starts_with("get /b "));
        target.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
        client.up_to("x").await;
        drop(client);
        let broken = async {
            loop {
                if tokio::io::AsyncWriteExt::write_all(&mut target.socket, b"1\r\nx\r\n").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        broken.await;
        until("finished", || world.role.finished.borrow().len() == 2).await;
        assert_eq!(world.role.finished.borrow()[1], (Kind::Read, Outcome::Unknown));
    });
}

/// An upstream connection that takes nothing yet, and its other end.
async fn full() -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
    let (mut near, far) = tokio::io::duplex(8);
    tokio::io::AsyncWriteExt::write_all(&mut near, b"12345678").await.expect("there is room");
    (near, far)
}

/// Between the confirmation and the first byte others have their turn: the fence may move on, a lease may run out.
#[test]
fn a_first_byte_that_has_to_wait_is_confirmed_when_it_leaves() {
    run(async {
        let (near, mut target) = full().await;
        let world = world(|change| change.dialled.push_back(near)).await;
        if !world.http.direct.is_on() {
            return;
        }
        let mut client = world.client().await;
        client.send(PUT).await;
        until("confirmed", || world.role.writes.confirms.get() > 0).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        world.role.writes.unconfirmed.replace(Some(refusal(Reason::StaleEpoch)));
        tokio::io::AsyncReadExt::read_exact(&mut target, &mut [0; 8]).await.expect("what was there before");
        let (head, _) = client.answer().await;
        assert!(head.starts_with("http/1.1 412 "), "{head}");
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut target, &mut rest).await.expect("its end");
        assert_eq!(String::from_utf8_lossy(&rest), "");
        world.role.until_settled(Settled::NothingLeft).await;
        world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
    });
}

#[test]
fn what_a_target_says_before_anything_has_left_is_no_answer() {
    run(async {
        let (near, mut target) = full().await;
        let world = world(|change| change.dialled.push_back(near)).await;
        if !world.http.direct.is_on() {
            return;
        }
        let mut client = world.client().await;
        tokio::io::AsyncWriteExt::write_all(&mut target, b"HTTP/").await.expect("there is room");
        client.send(PUT).await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 502 ") && head.contains("upstream_unreachable"), "{head}");
        assert!(body.contains(r#""outcome":"not_applied""#), "{body}");
        world.role.until_settled(Settled::NothingLeft).await;
        world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
    });
}

/// While a slow client is waited for, the answer is not read; all of it may lie there before the rest of the request leaves.
#[test]
fn an_answer_that_waited_for_its_client_while_the_rest_of_the_request_left_proves_nothing() {
    run(async {
        let (near, mut target) = tokio::io::duplex(16 * 1024);
        let world = world(|change| change.dialled.push_back(near)).await;
        if !world.http.direct.is_on() {
            return;
        }
        let mut client = world.client().await;
        client.send("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 6\r\n\r\nabc").await;
        let mut request = Vec::new();
        while !request.ends_with(b"abc") {
            target.read_buf(&mut request).await.expect("a request");
        }
        let write = async |target: &mut tokio::io::DuplexStream, bytes: &[u8]| {
            tokio::time::timeout(Duration::from_millis(200), target.write_all(bytes)).await.is_ok()
        };
        assert!(write(&mut target, b"HTTP/1.1 200 OK\r\n\r\n").await);
        while write(&mut target, &[b'x'; 16 * 1024]).await {}
        target.shutdown().await.expect("all of the answer is there");
        client.send("def").await;
        while !request.ends_with(b"abcdef") {
            target.read_buf(&mut request).await.expect("the rest");
        }
        assert_eq!(world.role.settled(), []);
        let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
        while world.role.settled().is_empty() {
            got += client.socket.read(&mut buffer).await.expect("an answer");
        }
        assert!(got > 0);
        assert_eq!(world.role.settled(), [Settled::Lost]);
    });
}
