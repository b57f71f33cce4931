//! Sessions that may only read: who gets one, and how it begins and ends.

use super::super::message::tests::message;
use super::super::startup::tests::startup;
use super::support::*;
use crate::config::resolved::{IncomingStamp, Role as ListenerRole, Stale, StampSettings, UntilArmed};
use crate::fence::{Outcome, Reason};
use crate::net::proxy_header;
use crate::protocol::http::tests::support::refusal;
use crate::protocol::{CutReason, Decision, Kind};

/// Whose refusal lets a session read.
const READS: [Reason; 4] = [Reason::StaleEpoch, Reason::StampRequired, Reason::EpochConflict, Reason::EpochDenied];

/// A guard that lets stale sessions read; the next session is refused with this.
async fn refusing(reason: Reason) -> World {
    let world = world_where(|listener| listener.stale = Stale::ReadOnly).await;
    refuse_next(&world, reason);
    world
}

fn refuse_next(world: &World, reason: Reason) {
    world.role.next.borrow_mut().push_back(Decision::Refuse(refusal(reason)));
}

/// The startup message as the server gets it.
fn for_reading() -> Vec<u8> {
    startup(&[("user", "app"), ("application_name", "[epochgate reads]"), ("default_transaction_read_only", "on")])
}

fn greeting_of(version: &str) -> Vec<u8> {
    let status = message(b'S', format!("server_version\0{version}\0").as_bytes());
    [message(b'R', &[0; 4]), status, message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]), ready()].concat()
}

/// A client that reads, and its server.
async fn reading(world: &World) -> (End, End) {
    let (mut client, _) = world.client().await;
    client.send(&startup(&[("user", "app"), ("epochgate.epoch", "41")])).await;
    let mut server = world.at_server().await;
    server.expect(&for_reading()).await;
    server.send(&greeting_of("16.4")).await;
    client.expect(&greeting_of("16.4")).await;
    (client, server)
}

#[test]
fn who_is_behind_or_says_nothing_reads_and_whose_word_is_wrong_is_told_so() {
    run(async {
        for reason in Reason::ALL {
            let world = refusing(*reason).await;
            if READS.contains(reason) {
                let (client, mut server) = reading(&world).await;
                drop(client);
                assert_eq!(server.rest().await, (b"X\0\0\0\x04".to_vec(), true));
                world.role.until_finished(Kind::Read, Outcome::Answered).await;
                assert!(world.role.refused.borrow().is_empty() && world.role.settled().is_empty(), "{reason}");
            } else {
                let (mut client, _) = world.client().await;
                client.send(&startup(&[("user", "app")])).await;
                assert!(client.told().await[4].contains(&format!("reason {reason}")));
                assert_eq!(*world.role.refused.borrow(), [*reason]);
            }
        }
        let world = world().await;
        refuse_next(&world, Reason::StaleEpoch);
        let (mut client, _) = world.client().await;
        client.send(&startup(&[("user", "app")])).await;
        assert_eq!(client.told().await[2], "C57P01", "where nobody said so, nobody reads");
    });
}

#[test]
fn what_it_is_sent_for_stands_behind_what_the_guard_has_run_first() {
    run(async {
        let world = refusing(Reason::StaleEpoch).await;
        let (mut client, mut server) = reading(&world).await;
        client.send(&query()).await;
        let close = |kind: &str| message(b'C', format!("{kind}epochgate\0").as_bytes());
        let begin = message(b'P', b"epochgate\0BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY\0\0\0");
        server.expect(&[close("P"), close("S"), begin].concat()).await;
        // A write that the server refuses is said, with who leads.
        let fenced_in: Vec<u8> = b"3312C3312DC33".iter().flat_map(|kind| message(*kind, b"")).collect();
        server.send(&fenced_in).await;
        server.send(&message(b'E', b"SERROR\0VERROR\0C25006\0Mcannot execute INSERT\0\0")).await;
        until("it is said", || *world.role.refused.borrow() == [Reason::StaleEpoch]).await;
        assert!(world.role.finished.borrow().is_empty(), "it goes on");
    });
}

/// As psycopg sends when it leaves a pipeline.
#[test]
fn a_sync_that_ends_nothing_is_answered_by_itself() {
    run(async {
        let world = refusing(Reason::StaleEpoch).await;
        let (mut client, _server) = reading(&world).await;
        for _ in 0..3 {
            client.send(&[message(b'S', b""), message(b'H', b"")].concat()).await;
            client.expect(&ready()).await;
        }
    });
}

#[test]
fn no_epoch_that_moves_on_ends_it_and_a_listener_that_stops_does_when_it_rests() {
    run(async {
        let world = refusing(Reason::StaleEpoch).await;
        let (mut client, mut server) = reading(&world).await;
        world.fence.ask(crate::protocol::signal::Ask::Cut);
        world.closer.finish();
        assert_eq!(client.told().await[2], "C57P01");
        assert_eq!(server.rest().await.0, b"X\0\0\0\x04");
        assert_eq!(*world.role.cuts.borrow(), [CutReason::Shutdown]);
    });
}

#[test]
fn a_server_that_is_too_old_and_replication_are_refused() {
    run(async {
        let world = refusing(Reason::StaleEpoch).await;
        let (mut client, _) = world.client().await;
        client.send(&startup(&[("user", "app")])).await;
        let mut server = world.at_server().await;
        server.expect(&for_reading()).await;
        let old = greeting_of("15.4 (Debian)");
        server.send(&old).await;
        // All but the last word of it: that it takes queries.
        client.expect(&old[..old.len() - 6]).await;
        let told = client.told().await;
        assert!(told[2] == "C57P01" && told[4].contains("PostgreSQL 15"), "{told:?}");
        assert_eq!(server.rest().await.0, b"", "nothing was run");
        assert_eq!(*world.role.refused.borrow(), [Reason::StaleEpoch]);
        world.role.until_finished(Kind::Read, Outcome::NotApplied).await;

        for (value, reads) in
            [("true", false), ("database", false), ("1", false), ("ON", false), ("false", true), ("off", true)]
        {
            let world = refusing(Reason::StaleEpoch).await;
            let (mut client, _) = world.client().await;
            client.send(&startup(&[("user", "app"), ("replication", value)])).await;
            if reads {
                world.at_server().await;
            } else {
                assert!(client.told().await[4].contains("replication"), "{value}");
                assert_eq!(*world.role.refused.borrow(), [Reason::StaleEpoch]);
            }
        }
    });
}

#[test]
fn a_stamp_passes_on_who_does_not_lead_and_ends_that_when_its_writer_does() {
    run(async {
        let world = world_where(|listener| {
            listener.stale = Stale::ReadOnly;
            listener.role = ListenerRole::Stamp(StampSettings {
                advertise: None,
                campaign: Vec::new(),
                incoming_stamp: IncomingStamp::Refuse,
                expect_required: false,
                until_armed: UntilArmed::Hold,
                keep_on_coordinator_loss: false,
            });
        })
        .await;
        refuse_next(&world, Reason::NotLeader);
        let (mut client, _) = world.client().await;
        let said = startup(&[("user", "app")]);
        client.send(&said).await;
        let mut guard = world.at_server().await;
        guard.expect(&proxy_header::write(None, None, None)).await;
        guard.expect(&said).await;
        guard.send(&greeting()).await;
        client.expect(&greeting()).await;
        client.send(&query()).await;
        guard.expect(&query()).await;
        guard.send(&done()).await;
        client.expect(&done()).await;
        // Something has changed, but not that.
        refuse_next(&world, Reason::NotLeader);
        world.role.standing.set(1);
        client.send(&query()).await;
        guard.expect(&query()).await;
        guard.send(&done()).await;
        client.expect(&done()).await;
        for _ in 0..2 {
            refuse_next(&world, Reason::TermChanged);
        }
        world.role.standing.set(2);
        client.send(&query()).await;
        let told = client.told().await;
        assert!(told[2] == "C57P01" && told[4].contains("reason term_changed, outcome idle"), "{told:?}");
        assert_eq!(guard.rest().await.0, b"X\0\0\0\x04", "the query did not leave");
        assert_eq!(*world.role.cuts.borrow(), [CutReason::TermChanged]);
        world.role.until_finished(Kind::Read, Outcome::Answered).await;

        refuse_next(&world, Reason::TermChanged);
        let (mut client, _) = world.client().await;
        client.send(&said).await;
        assert!(client.told().await[4].contains("term_changed"), "who does lead is to connect anew");
        refuse_next(&world, Reason::NotLeader);
        let (mut client, _) = world.client().await;
        client.send(&startup(&[("user", "app"), ("options", "-c epochgate.epoch=42")])).await;
        assert!(client.told().await[4].contains("not_leader"), "at the guard it would be a stamp");
    });
}
