//! Bodies that are long enough to go through a pipe, where they take the direct path.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::support::{Raw, World, run, until, world};
use crate::fence::{Outcome, Reason};
use crate::protocol::Kind;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;

/// More than all kernel buffers on the way hold.
const LONG: usize = 32 * 1024 * 1024;
const PART: usize = 2 * 1024 * 1024;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn head(length: usize) -> String {
    format!("PUT /a HTTP/1.1\r\nhost: db\r\ncontent-length: {length}\r\n\r\n")
}

/// No two places of it are alike.
fn text(length: usize) -> String {
    (0..length / 8).map(|at| format!("{at:07x},")).collect()
}

/// A request of which only a part has been sent, and has reached the target.
async fn begun(world: &World) -> (Raw, Raw) {
    let (mut client, mut target, _) = world.sent(&head(LONG)).await;
    client.send(&text(PART)).await;
    assert!(target.exactly(PART).await == text(PART), "it comes as it was sent");
    (client, target)
}

/// What else comes before the connection is reset; `None` where it ends otherwise.
async fn until_reset(target: &mut Raw) -> Option<usize> {
    let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match target.socket.read(&mut buffer).await {
            Ok(0) => return None,
            Ok(read) => got += read,
            Err(error) => return (error.kind() == std::io::ErrorKind::ConnectionReset).then_some(got),
        }
    }
}

#[test]
fn a_long_body_arrives_whole_and_nothing_beyond_it() {
    run(async {
        let world = world(|_| {}).await;
        let (client, mut target, _) = world.sent(&head(LONG)).await;
        let (from_proxy, mut to_proxy) = client.socket.into_split();
        let sending = tokio::task::spawn_local(async move {
            let (body, next) = (text(LONG), "DELETE /b HTTP/1.1\r\nhost: db\r\n\r\n");
            for part in body.as_bytes().chunks(777_777) {
                to_proxy.write_all(part).await.expect("write");
            }
            to_proxy.write_all(next.as_bytes()).await.expect("write");
            to_proxy
        });
        // A target that takes nothing for a while, and then a little at a time.
        sleep(Duration::from_millis(100)).await;
        let mut got = String::new();
        while got.len() < LONG {
            got.push_str(&target.exactly(65_536.min(LONG - got.len())).await);
        }
        assert!(got == text(LONG), "it comes as it was sent");
        target.send(OK).await;
        assert!(target.head().await.starts_with("delete /b "));
        target.send(OK).await;
        let to_proxy = sending.await.expect("all was sent");
        let mut client = Raw::from(from_proxy.reunite(to_proxy).expect("two halves"));
        assert_eq!([client.answer().await.1, client.answer().await.1], ["ok", "ok"]);
        until_settled(&world, &[Settled::Answered; 2]).await;
    });
}

async fn until_settled(world: &World, how: &[Settled]) {
    until("settled", || world.role.settled().len() >= how.len()).await;
    assert_eq!(world.role.settled(), how);
}

#[test]
fn a_door_that_may_send_nothing_more_is_asked_before_each_part() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target) = begun(&world).await;
        world.role.writes.shut.set(true);
        client.send(&text(PART)).await;
        assert_eq!(until_reset(&mut target).await, Some(0), "nothing more has left");
        assert!(client.answer().await.0.contains("fenced_in_flight"));
        until_settled(&world, &[Settled::Lost]).await;
        assert_eq!(*world.role.refused.borrow(), [Reason::FencedInFlight]);
    });
}

#[test]
fn what_waits_for_a_target_that_stands_still_goes_when_the_fence_says_so() {
    run(async {
        let world = world(|_| {}).await;
        let fence = world.role.fence();
        let (client, mut target) = begun(&world).await;
        let (_from_proxy, mut to_proxy) = client.socket.into_split();
        let sending = tokio::task::spawn_local(async move {
            let _ = to_proxy.write_all(text(LONG - PART).as_bytes()).await;
        });
        sleep(Duration::from_millis(300)).await;
        assert!(!sending.is_finished(), "all of it is under way");
        fence.ask(Ask::CutHalfSent);
        until_settled(&world, &[Settled::Lost]).await;
        assert!(until_reset(&mut target).await.is_some(), "what the kernel still had is thrown away");
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
        sending.abort();
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_is_a_lost_write() {
    run(async {
        let world = world(|_| {}).await;
        let (client, mut target) = begun(&world).await;
        drop(client);
        assert!(until_reset(&mut target).await.is_some());
        until_settled(&world, &[Settled::Lost]).await;
    });
}

#[test]
fn an_answer_before_the_end_of_the_body_is_no_word_about_the_write() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, mut target) = begun(&world).await;
        target.send(OK).await;
        assert!(client.head().await.starts_with("http/1.1 200 "));
        until_settled(&world, &[Settled::Lost]).await;
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
    });
}

#[test]
fn a_target_that_closes_in_the_middle_is_said_to_the_client() {
    run(async {
        let world = world(|_| {}).await;
        let (mut client, target) = begun(&world).await;
        drop(target);
        let (head, _) = client.answer().await;
        assert!(head.starts_with("http/1.1 502 "), "{head}");
        until_settled(&world, &[Settled::Lost]).await;
    });
}

/// As where a sandbox forbids what pipes need.
#[test]
fn where_there_can_be_no_pipe_a_long_body_is_copied() {
    run(async {
        let (mut target, upstream) = tokio::io::duplex(1 << 16);
        let world = world(|change| change.dialled.push_back(upstream)).await;
        let mut client = world.client().await;
        client.send(&head(LONG)).await;
        let sending = tokio::task::spawn_local(async move {
            client.send(&text(LONG)).await;
            client
        });
        let (mut got, body) = (Vec::new(), text(LONG));
        while !got.ends_with(&body.as_bytes()[LONG - 16..]) {
            assert_ne!(target.read_buf(&mut got).await.expect("it comes"), 0);
        }
        assert!(got.ends_with(body.as_bytes()), "it comes as it was sent");
        target.write_all(OK.as_bytes()).await.expect("there is room");
        assert_eq!(sending.await.expect("all was sent").answer().await.1, "ok");
        until_settled(&world, &[Settled::Answered]).await;
    });
}
