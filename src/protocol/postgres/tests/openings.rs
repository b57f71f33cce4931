//! From the first byte to a session.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::super::message::tests::{message, packet};
use super::super::startup::tests::startup;
use super::support::*;
use crate::fence::{Outcome, Reason};
use crate::protocol::http::tests::support::refusal;
use crate::protocol::right::Settled;
use crate::protocol::{CutReason, Decision, Kind};

const TLS: u32 = (1234 << 16) | 5679;
const GSS: u32 = (1234 << 16) | 5680;
const CANCEL: u32 = (1234 << 16) | 5678;

#[test]
fn nothing_leaves_before_the_role_has_let_it_in() {
    run(async {
        let world = world().await;
        world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(Reason::StaleEpoch)));
        let (mut client, serving) = world.client().await;
        client.send(&startup(&[("user", "app"), ("database", "shop")])).await;
        let told = client.told().await;
        assert_eq!((told[2].as_str(), told[3].as_str()), ("C57P01", "MThe write is of an epoch that is over"));
        serving.await.expect("it ends");
        assert_eq!(*world.role.paths.borrow(), ["/shop"]);
        assert_eq!(*world.role.refused.borrow(), [Reason::StaleEpoch]);
        assert_eq!(*world.role.finished.borrow(), [(Kind::Write, Outcome::NotApplied)]);
        // The server has heard of nobody: the next connection is that of the next client.
        let (_client, _server) = world.session().await;
    });
}

#[test]
fn one_that_is_held_gives_its_place_back_when_its_client_goes() {
    run(async {
        let world = world().await;
        let (held, waits) = tokio::sync::oneshot::channel::<()>();
        let hold = Box::pin(async move { waits.await.map_err(|_| refusal(Reason::HoldTimeout)) });
        world.role.next.borrow_mut().push_back(Decision::Hold(hold));
        let (mut client, serving) = world.client().await;
        client.send(&startup(&[("user", "app")])).await;
        until("it is held", || !world.role.paths.borrow().is_empty()).await;
        drop(client);
        serving.await.expect("it ends");
        assert!(held.is_closed() && world.role.settled().is_empty());
    });
}

#[test]
fn passwords_pass_and_all_else_waits_until_the_server_has_greeted() {
    run(async {
        let world = world().await;
        let (mut client, _serving) = world.client().await;
        let password = message(b'p', b"secret\0");
        // All at once, as a client that waits for nothing sends it.
        client.send(&[&startup(&[("user", "app")])[..], &password, &query()].concat()).await;
        let mut server = world.at_server().await;
        server.expect(&rewritten()).await;
        server.expect(&password).await;
        server.send(&message(b'R', &[0, 0, 0, 11])).await;
        client.send(&password).await;
        let mut nothing = [0];
        let waited = tokio::time::timeout(Duration::from_millis(50), server.0.peek(&mut nothing)).await;
        assert!(waited.is_err(), "the query, or what follows it, has left: {nothing:?}");
        server.send(&greeting()).await;
        server.expect(&query()).await;
    });
}

#[test]
fn encryption_is_refused_politely_once() {
    run(async {
        let world = world().await;
        let (mut client, _serving) = world.client().await;
        for request in [TLS, GSS] {
            client.send(&packet(request, b"")).await;
            client.expect(b"N").await;
        }
        client.send(&packet(TLS, b"")).await;
        assert!(client.told().await[4].contains("second time"));
        let (mut client, _serving) = world.client().await;
        client.send(&[packet(TLS, b""), startup(&[("user", "app")])].concat()).await;
        assert!(client.told().await[4].contains("plain text"));
        assert!(world.role.paths.borrow().is_empty(), "no role was asked");
    });
}

#[test]
fn a_request_to_cancel_passes_as_it_is_and_needs_no_right() {
    run(async {
        let world = world().await;
        for key in [&[7; 8][..], &[9; 4 + 32]] {
            let request = packet(CANCEL, key);
            let (mut client, _serving) = world.client().await;
            client.send(&request).await;
            let mut server = world.at_server().await;
            server.expect(&request).await;
            drop(server);
            assert_eq!(client.rest().await, (Vec::new(), true));
        }
        assert!(world.role.paths.borrow().is_empty(), "no role was asked");
    });
}

#[test]
fn a_client_that_takes_its_leave_first_is_told_nothing() {
    run(async {
        let world = world().await;
        for behind in [vec![], startup(&[("user", "app")])] {
            let (mut client, serving) = world.client().await;
            client.send(&[message(b'X', b""), behind].concat()).await;
            assert_eq!(client.rest().await.0, b"");
            serving.await.expect("it ends");
        }
        assert!(world.role.paths.borrow().is_empty(), "no role was asked");
    });
}

#[test]
fn a_client_that_says_nothing_is_not_waited_for() {
    run(async {
        let world = world_with(|limits| limits.header_timeout = Duration::from_millis(20)).await;
        let (mut client, _serving) = world.client().await;
        client.send(&startup(&[("user", "app")])[..9]).await;
        assert_eq!(client.rest().await.0, b"");
        assert_eq!(*world.role.cuts.borrow(), [CutReason::HeaderTimeout]);
    });
}

#[test]
fn a_client_that_is_asked_for_a_password_and_goes_has_done_nothing() {
    run(async {
        let world = world().await;
        let (mut client, _serving) = world.client().await;
        client.send(&startup(&[("user", "app")])).await;
        let mut server = world.at_server().await;
        server.expect(&rewritten()).await;
        let ask = message(b'R', &[0, 0, 0, 3]);
        server.send(&ask).await;
        client.expect(&ask).await;
        client.0.shutdown().await.expect("shutdown");
        world.role.until_settled(Settled::Answered).await;
    });
}
