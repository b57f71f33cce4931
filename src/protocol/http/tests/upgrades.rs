//! Connections that become something else.

use super::support::{Raw, World, run, until, world};
use crate::fence::{Outcome, Reason};
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;
use crate::protocol::{CutReason, Kind};

const ASK: &str = "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n";
const GRANT: &str = "HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

async fn tunnel(world: &World) -> (Raw, Raw) {
    let (mut client, mut target, head) = world.sent(ASK).await;
    assert!(head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nfencing-epoch: 42\r\n"), "{head}");
    target.send(&format!("{GRANT}first")).await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert_eq!(client.exactly(5).await, "first");
    (client, target)
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_ends_in_order() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target) = tunnel(&world).await;
        client.send("hello").await;
        assert_eq!(target.exactly(5).await, "hello");
        let large = "x".repeat(3_000_000);
        let sending = async {
            target.send(&large).await;
            tokio::io::AsyncWriteExt::shutdown(&mut target.socket).await.expect("shutdown");
        };
        let ((), got) = tokio::join!(sending, client.rest());
        assert_eq!(got.len(), large.len());
        assert_eq!(world.role.settled(), [], "the client's side is open yet");
        drop(client);
        assert_eq!(target.rest().await, "");
        world.role.until_settled(Settled::Answered).await;
        world.role.until_finished(Kind::Write, Outcome::Answered).await;
        until("closed", || world.role.open.get() == 0).await;
    });
}

#[test]
fn what_is_sent_after_the_target_has_ended_its_side_arrives_and_is_answered_by_nothing() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target) = tunnel(&world).await;
        tokio::io::AsyncWriteExt::shutdown(&mut target.socket).await.expect("shutdown");
        assert_eq!(client.rest().await, "");
        client.send("bye").await;
        drop(client);
        assert_eq!(target.rest().await, "bye");
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
    });
}

#[test]
fn a_tunnel_is_cut_when_the_epoch_moves_on() {
    run(async {
        let world = world(|_| {}).await;
        let fence = world.role.fence();
        let (mut client, mut target) = tunnel(&world).await;
        fence.ask(Ask::Hurry);
        assert!(client.is_reset().await);
        assert_eq!(target.rest().await, "", "the target is told the end, and may close its side too");
        assert_eq!(world.role.settled(), [], "not before it has, or has to be cut");
        fence.ask(Ask::CutHalfSent);
        world.role.until_settled(Settled::Lost).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        assert_eq!(*world.role.cuts.borrow(), [CutReason::Fenced]);
    });
}

#[test]
fn a_cut_tunnel_whose_target_closes_its_side_too_is_over() {
    run(async {
        let world = world(|_| {}).await;
        let fence = world.role.fence();
        let (mut client, mut target) = tunnel(&world).await;
        fence.ask(Ask::Hurry);
        assert!(client.is_reset().await);
        assert_eq!(target.rest().await, "");
        drop(target);
        world.role.until_settled(Settled::Answered).await;
    });
}

#[test]
fn a_tunnel_whose_client_breaks_off_is_lost() {
    run(async {
        let world = world(|_| {}).await;
        let (client, mut target) = tunnel(&world).await;
        socket2::SockRef::from(&client.socket).set_linger(Some(std::time::Duration::ZERO)).expect("linger");
        drop(client);
        assert!(target.is_reset().await);
        world.role.until_settled(Settled::Lost).await;
    });
}

#[test]
fn nothing_is_forwarded_before_the_101_and_no_101_is_believed_unasked() {
    run(async {
        let world = world(|_| {}).await;
        // The bytes after the request are a second request until the target says otherwise, and it never does.
        let mut client = world.client().await;
        client.send(&format!("{ASK}DELETE /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let mut target = world.at_target().await;
        target.head().await;
        target.send("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno").await;
        assert_eq!(client.answer().await.1, "no");
        let head = target.head().await;
        assert!(head.starts_with("delete /smuggled ") && head.contains("fencing-epoch: 42"), "{head}");
        assert_eq!(*world.role.paths.borrow(), ["/socket", "/smuggled"]);

        let (mut client, mut target, _) = world.sent("DELETE /a HTTP/1.1\r\nhost: a\r\nupgrade: x\r\n\r\n").await;
        target.send(GRANT).await;
        let (head, _) = client.answer().await;
        assert!(head.starts_with("http/1.1 502 ") && head.contains("upstream_broken"), "{head}");
        until("refused", || *world.role.refused.borrow() == [Reason::UpstreamBroken]).await;
        assert!(world.role.settled().contains(&Settled::Lost));
    });
}

#[test]
fn an_upgrade_to_http2_is_not_passed_on() {
    run(async {
        let world = world(|_| {}).await;
        let ask = "GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                   http2-settings: AAMAAABkAAQ\r\n\r\n";
        let (mut client, mut target, head) = world.sent(ask).await;
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
        target.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(client.answer().await.1, "ok");
    });
}
