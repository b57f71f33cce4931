//! What the fence does to requests: holds, refuses, hurries and cuts them.

use std::time::Duration;

use super::support::{refusal, run, until, world};
use crate::fence::{Outcome, Reason};
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;
use crate::protocol::{CutReason, Decision, Kind};

const PUT: &str = "PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 3\r\n\r\nabc";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_slow_client_holds_the_answer_up_only_until_the_fence_hurries() {
    run(async {
        let world = world(|_| {}).await;
        let fence = world.role.fence();
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        // More than all kernel buffers on the way hold.
        const LARGE: usize = 64 * 1024 * 1024;
        target.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        let sending = tokio::task::spawn_local(async move {
            target.send(&"x".repeat(LARGE)).await;
            target
        });
        client.head().await;
        tokio::task::yield_now().await;
        assert_eq!(world.role.settled(), []);
        assert!(!sending.is_finished());
        fence.ask(Ask::Hurry);
        world.role.until_settled(Settled::Answered).await;
        let _target = sending.await.expect("all was read");
        // What the client did not take in time it does not get as if it were all.
        let mut got = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(read @ 1..) = tokio::io::AsyncReadExt::read(&mut client.socket, &mut buffer).await {
            got += read;
        }
        assert!(got < LARGE);
    });
}

/// As much as the client likes to send would else be in this process' memory, for as long as the hold lasts.
#[test]
fn what_a_held_request_goes_on_to_send_waits_at_its_client() {
    run(async {
        // More than all kernel buffers on the way hold.
        const LARGE: usize = 32 * 1024 * 1024;
        let world = world(|_| {}).await;
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let held = async {
            let _ = released.await;
            Ok(())
        };
        world.role.next.borrow_mut().push_back(Decision::Hold(Box::pin(held)));
        let mut client = world.client().await;
        client.send(&format!("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        until("it is asked", || !world.role.paths.borrow().is_empty()).await;
        let sending = tokio::task::spawn_local(async move {
            client.send(&"x".repeat(LARGE)).await;
            client
        });
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!sending.is_finished(), "all of it is here");
        release.send(()).expect("it is waited for");
        let mut target = world.at_target().await;
        target.head().await;
        assert_eq!(target.exactly(LARGE).await.len(), LARGE);
        target.send(OK).await;
        assert_eq!(sending.await.expect("all was sent").answer().await.1, "ok");
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn what_is_half_sent_is_cut_when_the_fence_says_so() {
    run(async {
        let world = world(|_| {}).await;
        let fence = world.role.fence();
        let (mut client, mut target, _) =
            world.sent("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 9\r\n\r\nabc").await;
        target.exactly(3).await;
        fence.ask(Ask::Hurry);
        fence.ask(Ask::CutHalfSent);
        assert!(target.is_reset().await);
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 502 ") && head.contains("fenced_in_flight"), "{head}");
        assert!(body.contains(r#""outcome":"unknown""#), "{body}");
        world.role.until_settled(Settled::Lost).await;
        assert_eq!(*world.role.refused.borrow(), [Reason::FencedInFlight]);
    });
}

#[test]
fn what_was_sent_whole_is_cut_only_by_the_last_word() {
    run(async {
        let world = world(|_| {}).await;
        let fence = world.role.fence();
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        // It is sent whole once hyper has flushed it, which it does in the turn in which the target got it.
        tokio::task::yield_now().await;
        fence.ask(Ask::CutHalfSent);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.role.settled(), []);
        fence.ask(Ask::Cut);
        assert!(target.is_reset().await);
        assert!(client.answer().await.0.contains("fenced_in_flight"));
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
    });
}

#[test]
fn a_held_write_waits_and_goes_with_its_client() {
    run(async {
        let world = world(|_| {}).await;
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let held = Box::pin(async move {
            released.await.expect("released");
            Ok(())
        });
        world.role.next.borrow_mut().push_back(Decision::Hold(held));
        let mut client = world.client().await;
        client.send(PUT).await;
        until("asked", || !world.role.paths.borrow().is_empty()).await;
        release.send(()).expect("it waits");
        let mut target = world.at_target().await;
        target.head().await;
        assert_eq!(target.exactly(3).await, "abc");
        target.send(OK).await;
        assert_eq!(client.answer().await.1, "ok");
        assert_eq!(world.role.paths.borrow().len(), 2);

        let (alive, mut gone) = tokio::sync::oneshot::channel::<()>();
        let held = Box::pin(async move {
            let _alive = alive;
            std::future::pending().await
        });
        world.role.next.borrow_mut().push_back(Decision::Hold(held));
        client.send("DELETE /a HTTP/1.1\r\nhost: db\r\n\r\n").await;
        until("asked", || world.role.paths.borrow().len() == 3).await;
        assert!(gone.try_recv().is_err());
        drop(client);
        gone.await.expect_err("the place is given back");
        until("finished", || world.role.finished.borrow().len() == 2).await;
        assert_eq!(world.role.finished.borrow()[1], (Kind::Write, Outcome::NotApplied));
        assert!(world.role.refused.borrow().is_empty());
    });
}

#[test]
fn a_held_write_whose_body_came_after_its_head_goes_with_its_client() {
    run(async {
        let world = world(|_| {}).await;
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        let held = Box::pin(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
            Ok(())
        });
        world.role.next.borrow_mut().push_back(Decision::Hold(held));
        let mut client = world.client().await;
        let (head, body) = PUT.split_at(PUT.len() - 3);
        client.send(head).await;
        until("asked", || !world.role.paths.borrow().is_empty()).await;
        client.send(body).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(client);
        gone.await.expect_err("its place is given back");
        world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
    });
}

#[test]
fn a_hold_may_end_in_a_refusal() {
    run(async {
        let world = world(|_| {}).await;
        let held = Box::pin(async { Err(refusal(Reason::HoldTimeout)) });
        world.role.next.borrow_mut().push_back(Decision::Hold(held));
        let mut client = world.client().await;
        client.send(PUT).await;
        let (head, _) = client.answer().await;
        assert!(head.starts_with("http/1.1 503 ") && head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert_eq!(*world.role.refused.borrow(), [Reason::HoldTimeout]);
    });
}

#[test]
fn a_changed_term_closes_the_connection_and_a_lost_leadership_does_not() {
    run(async {
        let world = world(|_| {}).await;
        let mut client = world.client().await;
        for reason in [Reason::NotLeader, Reason::TermChanged] {
            world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(reason)));
            client.send("DELETE /a HTTP/1.1\r\nhost: db\r\n\r\n").await;
            let (head, _) = client.answer().await;
            assert!(head.starts_with("http/1.1 421 "), "{head}");
            assert_eq!(head.contains("\r\nconnection: close\r\n"), reason == Reason::TermChanged);
        }
        assert_eq!(client.rest().await, "");
        until("cut", || *world.role.cuts.borrow() == [CutReason::TermChanged]).await;
    });
}

#[test]
fn a_stamping_sidecar_passes_a_guards_refusal_on() {
    run(async {
        let world = world(|change| change.strip_refused = false).await;
        let (mut client, mut target, _) = world.sent(PUT).await;
        target.exactly(3).await;
        target.send("HTTP/1.1 412 No\r\nfencing-refused: stale_epoch\r\ncontent-length: 2\r\n\r\n{}").await;
        let (head, body) = client.answer().await;
        assert!(head.contains("\r\nfencing-refused: stale_epoch\r\n"), "{head}");
        assert_eq!(body, "{}");
        world.role.until_settled(Settled::Answered).await;
        world.role.until_finished(Kind::Write, Outcome::NotApplied).await;
        assert!(world.role.refused.borrow().is_empty());
    });
}

#[test]
fn a_passed_refusal_says_itself_what_became_of_the_write() {
    for (reason, how, outcome) in [
        (Reason::UpstreamUnreachable, Settled::Answered, Outcome::NotApplied),
        (Reason::UpstreamBroken, Settled::Lost, Outcome::Unknown),
    ] {
        run(async {
            let world = world(|change| change.strip_refused = false).await;
            let (mut client, mut target, _) = world.sent(PUT).await;
            target.exactly(3).await;
            let refused = format!("fencing-refused: {reason}\r\n");
            target.send(&format!("HTTP/1.1 502 No\r\n{refused}content-length: 2\r\n\r\n{{}}")).await;
            assert!(client.answer().await.0.contains(&refused));
            world.role.until_settled(how).await;
            world.role.until_finished(Kind::Write, outcome).await;
        });
    }
}

#[test]
fn a_door_that_may_send_nothing_more_is_asked_before_each_chunk() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target, _) =
            world.sent("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: 9\r\n\r\nabc").await;
        target.exactly(3).await;
        world.role.writes.shut.set(true);
        client.send("defghi").await;
        assert!(target.is_reset().await);
        assert!(client.answer().await.0.contains("fenced_in_flight"));
        world.role.until_settled(Settled::Lost).await;
        assert_eq!(*world.role.refused.borrow(), [Reason::FencedInFlight]);
    });
}
