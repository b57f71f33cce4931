//! The epoch moves on while a write is under way: it is answered, or seen to be over, or counts as lost.

use std::time::Duration;

use super::support::{READONLY, World, run, until};
use crate::protocol::CutReason;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;

const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
const BLPOP: &str = "*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n0\r\n";

#[test]
fn what_is_under_way_is_answered_and_nothing_follows_it() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(SET, SET).await;
        world.role.fence();
        client.send(&[GET, SET, GET].concat()).await;
        server.gets(GET).await;
        assert!(world.role.settled().is_empty());
        server.send("+OK\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        server.gets(GET).await;
        server.send("$1\r\na\r\n$1\r\nb\r\n").await;
        client.gets(&format!("+OK\r\n$1\r\na\r\n{READONLY}$1\r\nb\r\n")).await;
    });
}

#[test]
fn reads_behind_a_write_do_not_keep_its_right() {
    run(async {
        let world = World::new().await;
        let all = [SET, GET].concat();
        let (mut client, mut server) = world.sent(&all, &all).await;
        world.role.fence();
        server.send("+OK\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        client.gets("+OK\r\n").await;
    });
}

#[test]
fn what_waits_for_others_is_ended_and_seen_to_be_over() {
    run(async {
        let world = World::new().await;
        let all = [GET, BLPOP].concat();
        let (mut client, mut server) = world.sent(&all, &all).await;
        server.send("$1\r\na\r\n").await;
        client.gets("$1\r\na\r\n").await;
        world.role.fence();
        assert_eq!(server.rest().await, "", "an end in order");
        assert!(client.rest().await.starts_with("-ERR fenced_in_flight"));
        assert!(world.role.settled().is_empty(), "the server has not let go yet");
        drop(server);
        world.role.until_settled(&[Settled::Answered]).await;
        assert_eq!(*world.role.cuts.borrow(), [CutReason::Fenced]);
    });
}

#[test]
fn what_waits_for_others_and_is_served_in_time_is_answered() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(BLPOP, BLPOP).await;
        server.send("*2\r\n$1\r\nk\r\n").await;
        client.gets("*2\r\n$1\r\nk\r\n").await;
        world.role.fence();
        server.send("$1\r\nv\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        client.gets("$1\r\nv\r\n").await;
        assert!(world.role.cuts.borrow().is_empty());
    });
}

#[test]
fn what_is_not_over_in_time_is_cut_and_lost_if_the_server_does_not_let_go() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(SET, SET).await;
        let caller = world.role.fence();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(world.role.cuts.borrow().is_empty(), "it may go on until the drain has lasted long enough");
        caller.ask(Ask::CutHalfSent);
        assert!(client.rest().await.starts_with("-ERR fenced_in_flight"));
        world.role.until_settled(&[Settled::Lost]).await;
        assert_eq!(server.rest().await, "", "it was told that nothing follows");
        until("reset", || server.socket.try_write(b"+OK\r\n").is_err()).await;
    });
}

#[test]
fn half_a_write_is_cut_and_over_when_the_server_has_let_go() {
    run(async {
        let world = World::new().await;
        let half = &SET[..SET.len() - 3];
        let (_client, mut server) = world.sent(half, half).await;
        world.role.fence().ask(Ask::CutHalfSent);
        assert_eq!(server.rest().await, "", "no other byte of it");
        drop(server);
        world.role.until_settled(&[Settled::Answered]).await;
    });
}

#[test]
fn a_server_that_breaks_off_leaves_a_write_lost() {
    run(async {
        let world = World::new().await;
        let (mut client, server) = world.sent(SET, SET).await;
        drop(server);
        world.role.until_settled(&[Settled::Lost]).await;
        assert!(matches!(client.socket.try_read(&mut [0]), Ok(0) | Err(_)) || client.rest().await.is_empty());
    });
}

#[test]
fn a_client_that_does_not_read_holds_no_drain() {
    run(async {
        let world = World::new().await;
        let all = [GET, SET].concat();
        let (client, mut server) = world.sent(&all, &all).await;
        let answer = format!("${}\r\n{}\r\n", 1 << 25, "v".repeat(1 << 25));
        let (_, ()) = tokio::join!(
            async {
                server.send(&answer).await;
                server.send("+OK\r\n").await;
            },
            async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                world.role.fence();
            }
        );
        world.role.until_settled(&[Settled::Answered]).await;
        drop(client);
    });
}

#[test]
fn a_door_whose_session_is_over_sends_no_more_of_a_write() {
    run(async {
        let world = World::new().await;
        let half = &SET[..SET.len() - 3];
        let (mut client, mut server) = world.sent(half, half).await;
        world.role.books.shut.set(true);
        client.send(&SET[SET.len() - 3..]).await;
        world.role.until_settled(&[Settled::Lost]).await;
        assert!(server.is_reset().await);
    });
}

#[test]
fn a_sidecar_that_stops_lets_what_is_under_way_end() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(SET, SET).await;
        world.closer.finish();
        server.send("+OK\r\n").await;
        assert_eq!(client.rest().await, "+OK\r\n");
        assert_eq!(world.role.settled(), [Settled::Answered]);

        let world = World::new().await;
        let (_client, mut server) = world.sent(SET, SET).await;
        world.closer.now();
        world.role.until_settled(&[Settled::Lost]).await;
        assert!(server.is_reset().await);
        until("counted", || *world.role.cuts.borrow() == [CutReason::Shutdown]).await;
    });
}
