//! Every end that a session has, and what becomes of its right.

use tokio::io::AsyncWriteExt as _;

use super::super::message::tests::message;
use super::support::*;
use crate::fence::{Outcome, Reason};
use crate::protocol::http::tests::support::refusal;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;
use crate::protocol::{CutReason, Decision, Kind};

const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// What the role says of the session's stamp once it is over.
fn is_stale_now(world: &World) {
    world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(Reason::StaleEpoch)));
}

#[test]
fn what_is_idle_is_over_at_once_also_in_a_transaction() {
    run(async {
        for state in [ready(), in_transaction()] {
            let world = world().await;
            let (mut client, mut server) = world.session().await;
            client.send(&query()).await;
            server.expect(&query()).await;
            server.send(&state).await;
            client.expect(&state).await;
            is_stale_now(&world);
            world.fence.ask(Ask::Hurry);
            world.role.until_settled(Settled::Answered).await;
            let told = client.told().await;
            assert_eq!(told[2], "C57P01");
            assert!(told[4].contains("outcome idle"), "{told:?}");
            assert_eq!(server.rest().await, (TERMINATE.to_vec(), true), "the server is told, and nothing else");
            assert_eq!(*world.role.cuts.borrow(), [CutReason::Fenced]);
        }
    });
}

#[test]
fn nothing_more_of_the_client_leaves_and_the_answer_still_comes() {
    run(async {
        let (world, mut client, mut server) = running().await;
        is_stale_now(&world);
        world.fence.ask(Ask::Hurry);
        until("it is heard", || !world.role.cuts.borrow().is_empty()).await;
        client.send(&message(b'Q', b"commit\0")).await;
        server.send(&message(b'D', b"row")).await;
        client.expect(&message(b'D', b"row")).await;
        assert!(world.role.settled().is_empty(), "it runs");
        server.send(&done()).await;
        world.role.until_settled(Settled::Answered).await;
        client.expect(&done()).await;
        assert_eq!(client.told().await[2], "C57P01");
        assert_eq!(server.rest().await.0, TERMINATE, "the commit did not leave");
        world.role.until_finished(Kind::Write, Outcome::Answered).await;
    });
}

#[test]
fn what_is_overdue_is_cancelled_by_its_own_key() {
    run(async {
        let (world, mut client, mut server) = running().await;
        is_stale_now(&world);
        world.fence.ask(Ask::CutHalfSent);
        let mut cancel = world.at_server().await;
        cancel.expect(&[0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 7, 1, 2, 3, 4]).await;
        drop(cancel);
        let cancelled = [message(b'E', b"SERROR\0VERROR\0C57014\0\0"), ready()].concat();
        server.send(&cancelled).await;
        world.role.until_settled(Settled::Answered).await;
        client.expect(&cancelled).await;
        assert_eq!(client.told().await[2], "C57P01");
    });
}

#[test]
fn what_no_cancelling_ends_is_cut_and_lost() {
    run(async {
        let (world, mut client, mut server) = running().await;
        is_stale_now(&world);
        world.fence.ask(Ask::CutHalfSent);
        let _cancel = world.at_server().await;
        world.role.until_settled(Settled::Lost).await;
        let told = client.told().await;
        assert!(told[4].contains("outcome unknown"), "{told:?}");
        assert_eq!(server.rest().await, (Vec::new(), false), "cut by reset");
        world.role.until_finished(Kind::Write, Outcome::Unknown).await;
    });
}

#[test]
fn a_cut_asks_nobody() {
    run(async {
        let (world, _client, mut server) = running().await;
        is_stale_now(&world);
        world.fence.ask(Ask::Cut);
        world.role.until_settled(Settled::Lost).await;
        assert!(!server.rest().await.1);
    });
}

#[test]
fn a_session_that_may_not_go_on_sends_nothing_more() {
    run(async {
        let world = world().await;
        let (mut client, mut server) = world.session().await;
        is_stale_now(&world);
        world.role.writes.shut.set(true);
        client.send(&query()).await;
        world.role.until_settled(Settled::Answered).await;
        assert_eq!(client.told().await[2], "C57P01");
        assert_eq!(server.rest().await.0, TERMINATE);
    });
}

#[test]
fn a_message_is_not_torn_to_tell_of_the_end() {
    run(async {
        let (world, mut client, mut server) = running().await;
        // Half of a row, and no more.
        let half = &message(b'D', &[7; 100])[..50];
        server.send(half).await;
        client.expect(half).await;
        is_stale_now(&world);
        world.fence.ask(Ask::Cut);
        world.role.until_settled(Settled::Lost).await;
        assert_eq!(client.rest().await.0, b"", "an error within a row would be taken for a part of it");
    });
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_the_fence_up() {
    run(async {
        let (world, _client, mut server) = running().await;
        // More than the kernel takes for a client that does not read.
        let sending = tokio::task::spawn_local(async move {
            let rows = message(b'D', &vec![7; 1 << 20]);
            for _ in 0..32 {
                server.send(&rows).await;
            }
            server.send(&done()).await;
            server
        });
        is_stale_now(&world);
        world.fence.ask(Ask::Hurry);
        world.role.until_settled(Settled::Answered).await;
        let _server = sending.await.expect("all of it was read");
    });
}

#[test]
fn a_client_that_goes_lets_its_statement_end() {
    run(async {
        let (world, mut client, mut server) = running().await;
        client.0.shutdown().await.expect("shutdown");
        assert_eq!(server.rest().await, (Vec::new(), true), "it is told that nothing follows");
        assert!(world.role.settled().is_empty(), "it runs");
        server.send(&done()).await;
        client.expect(&done()).await;
        world.role.until_settled(Settled::Answered).await;
        // One that is idle is over at once, with a word to the server.
        let world = super::support::world().await;
        let (client, mut server) = world.session().await;
        drop(client);
        world.role.until_settled(Settled::Answered).await;
        assert_eq!(server.rest().await.0, TERMINATE);
    });
}

#[test]
fn a_server_that_goes_has_answered_only_what_it_answered() {
    run(async {
        let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0\0");
        for (last, how) in [(Vec::new(), Settled::Lost), (fatal, Settled::Answered), (ready(), Settled::Answered)] {
            let world = world().await;
            let (mut client, mut server) = world.session().await;
            client.send(&query()).await;
            server.expect(&query()).await;
            server.send(&last).await;
            drop(server);
            world.role.until_settled(how).await;
            assert_eq!(client.rest().await.0, last);
        }
    });
}

#[test]
fn what_is_no_message_ends_it_and_counts_as_lost() {
    run(async {
        let world = world().await;
        let (mut client, _server) = world.session().await;
        client.send(b"Y\0\0\0\x04").await;
        world.role.until_settled(Settled::Lost).await;
        assert_eq!(client.told().await[2], "C08P01");
        // The server says that it is ready, and nobody asked.
        let world = super::support::world().await;
        let (_client, mut server) = world.session().await;
        server.send(&ready()).await;
        world.role.until_settled(Settled::Lost).await;
    });
}

#[test]
fn a_listener_that_finishes_lets_transactions_end() {
    run(async {
        let world = world().await;
        let (mut client, mut server) = world.session().await;
        let (mut idle, _idle_at_server) = world.session().await;
        client.send(&query()).await;
        server.expect(&query()).await;
        server.send(&in_transaction()).await;
        client.expect(&in_transaction()).await;
        world.closer.finish();
        assert_eq!(idle.told().await[2], "C57P01");
        client.send(&query()).await;
        server.expect(&query()).await;
        server.send(&done()).await;
        client.expect(&done()).await;
        assert_eq!(client.told().await[2], "C57P01");
        until("both are settled", || world.role.settled() == [Settled::Answered; 2]).await;
        assert_eq!(*world.role.cuts.borrow(), [CutReason::Shutdown; 2]);
    });
}

#[test]
fn what_ends_at_once_is_lost_where_something_runs() {
    run(async {
        let (world, _client, mut server) = running().await;
        world.closer.now();
        world.role.until_settled(Settled::Lost).await;
        assert!(!server.rest().await.1, "cut by reset");
    });
}

#[test]
fn a_task_that_is_dropped_is_a_loss_and_a_reset() {
    run(async {
        let world = world().await;
        let (mut client, serving) = world.client().await;
        client.send(&super::super::startup::tests::startup(&[("user", "app")])).await;
        let mut server = world.at_server().await;
        server.expect(&rewritten()).await;
        serving.abort();
        world.role.until_settled(Settled::Lost).await;
        assert!(!server.rest().await.1, "cut by reset");
    });
}
