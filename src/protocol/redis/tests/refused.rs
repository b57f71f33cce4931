//! What is refused gets its error in its place, and leaves nothing behind at the server.

use super::support::{READONLY, World, run, stale, stamp_role, until};
use crate::config::resolved::Stale;
use crate::fence::{Outcome, Reason, Refusal};
use crate::protocol::right::Settled;
use crate::protocol::{Decision, Kind};

const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
const MULTI: &str = "*1\r\n$5\r\nMULTI\r\n";
const EXEC: &str = "*1\r\n$4\r\nEXEC\r\n";
const DISCARD: &str = "*1\r\n$7\r\nDISCARD\r\n";

#[test]
fn a_stale_writer_is_told_in_its_place_and_may_read() {
    run(async {
        let world = World::new().await;
        world.role.stale.set(true);
        let all = [GET, SET, GET, "nonsense x\r\n", GET].concat();
        let (mut client, mut server) = world.sent(&all, &GET.repeat(3)).await;
        server.send("$1\r\na\r\n").await;
        client.gets(&format!("$1\r\na\r\n{READONLY}")).await;
        server.send("$1\r\nb\r\n$1\r\nc\r\n").await;
        client.gets(&format!("$1\r\nb\r\n{READONLY}$1\r\nc\r\n")).await;
        assert_eq!(*world.role.refused.borrow(), [Reason::StaleEpoch; 2]);
        let paths: Vec<String> = world.role.asked.borrow().iter().map(|(path, ..)| path.clone()).collect();
        assert_eq!(paths, ["/SET", "/nonsense"]);
        assert!(world.role.settled().is_empty());
        assert_eq!(world.role.finished.borrow()[..2], [(Kind::Write, Outcome::NotApplied); 2]);
    });
}

#[test]
fn the_words_of_a_refused_write_never_reach_the_server() {
    run(async {
        let world = World::new().await;
        world.role.stale.set(true);
        let value = format!("{EXEC}{SET}").repeat(5000);
        let big = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
        let (mut client, mut server) = world.sent(&format!("{GET}{big}{GET}"), &GET.repeat(2)).await;
        server.send("$1\r\na\r\n$1\r\nb\r\n").await;
        client.gets(&format!("$1\r\na\r\n{READONLY}$1\r\nb\r\n")).await;
    });
}

#[test]
fn a_transaction_with_a_refused_command_is_not_executed() {
    run(async {
        let world = World::new().await;
        world.role.stale.set(true);
        let all = [MULTI, GET, SET, EXEC, GET].concat();
        let (mut client, mut server) = world.sent(&all, &[MULTI, GET, DISCARD, GET].concat()).await;
        server.send("+OK\r\n+QUEUED\r\n+OK\r\n$1\r\na\r\n").await;
        client.gets(&format!("+OK\r\n+QUEUED\r\n{READONLY}-EXECABORT ")).await;
        let mut rest = String::new();
        while !rest.ends_with("$1\r\na\r\n") {
            rest += &client.exactly(1).await;
        }
        assert_eq!(rest.matches("+OK").count(), 0, "the answer to DISCARD is nobody's: {rest}");
    });
}

#[test]
fn exec_is_refused_once_the_epoch_has_moved_on() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(&[MULTI, SET].concat(), &[MULTI, SET].concat()).await;
        server.send("+OK\r\n+QUEUED\r\n").await;
        client.gets("+OK\r\n+QUEUED\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        world.role.fence();
        client.send(EXEC).await;
        server.gets(DISCARD).await;
        server.send("+OK\r\n").await;
        client.gets(READONLY).await;
        client.send(GET).await;
        server.gets(GET).await;
        server.send("$-1\r\n").await;
        client.gets("$-1\r\n").await;
    });
}

#[test]
fn a_write_that_is_not_confirmed_does_not_leave() {
    run(async {
        let world = World::new().await;
        world.role.books.unconfirmed.replace(Some(stale()));
        let (mut client, mut server) = world.sent(&[GET, SET].concat(), GET).await;
        server.send("$-1\r\n").await;
        client.gets(&format!("$-1\r\n{READONLY}")).await;
        assert_eq!(world.role.settled(), [Settled::NothingLeft]);
        client.send(GET).await;
        server.gets(GET).await;
    });
}

#[test]
fn a_held_write_waits_and_what_is_behind_it_too() {
    run(async {
        let world = World::new().await;
        let (release, released) = tokio::sync::oneshot::channel::<Result<(), Box<Refusal>>>();
        let held = async { released.await.expect("released") };
        world.role.next.borrow_mut().push_back(Decision::Hold(Box::pin(held)));
        let (mut client, mut server) = world.sent(&[GET, SET, GET].concat(), GET).await;
        server.send("$1\r\na\r\n").await;
        client.gets("$1\r\na\r\n").await;
        release.send(Ok(())).expect("it waits");
        server.gets(&[SET, GET].concat()).await;
        server.send("+OK\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;

        let (release, released) = tokio::sync::oneshot::channel::<Result<(), Box<Refusal>>>();
        let held = async { released.await.expect("released") };
        world.role.next.borrow_mut().push_back(Decision::Hold(Box::pin(held)));
        client.send(SET).await;
        until("asked", || world.role.asked.borrow().len() == 3).await;
        release.send(Err(stale())).expect("it waits");
        client.gets("+OK\r\n").await;
        server.send("$1\r\nb\r\n").await;
        client.gets(&format!("$1\r\nb\r\n{READONLY}")).await;
    });
}

#[test]
fn a_held_write_whose_client_goes_away_is_dropped() {
    run(async {
        let world = World::new().await;
        let (release, released) = tokio::sync::oneshot::channel::<Result<(), Box<Refusal>>>();
        let held = async { released.await.unwrap_or(Ok(())) };
        world.role.next.borrow_mut().push_back(Decision::Hold(Box::pin(held)));
        let (client, mut server) = world.sent(&[GET, SET].concat(), GET).await;
        drop(client);
        assert_eq!(server.rest().await, "");
        assert!(release.is_closed());
        assert!(world.role.settled().is_empty());
    });
}

#[test]
fn what_is_no_request_ends_the_connection_after_what_came_before() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(&format!("{SET}*x\r\n{SET}"), SET).await;
        server.send("+OK\r\n").await;
        assert_eq!(client.rest().await, "+OK\r\n-ERR Protocol error: invalid multibulk length\r\n");
        assert_eq!(server.rest().await, "");
        world.role.until_settled(&[Settled::Answered]).await;
    });
}

#[test]
fn a_command_that_begins_well_and_goes_on_badly_keeps_neither_its_client_nor_the_gate_waiting() {
    run(async {
        // A write, behind one that is whole; a read; what the server does not let go of.
        for (sent, goes, said) in [
            (format!("{SET}*3\r\n$3\r\nSET\r\n$1\r\nk\r\nfooz\r\n"), format!("{SET}*3\r\n$3\r\nSET\r\n"), "+OK\r\n"),
            ("*2\r\n$3\r\nGET\r\nfooz\r\n".to_owned(), "*2\r\n$3\r\nGET\r\n".to_owned(), ""),
        ] {
            let world = World::new().await;
            let (mut client, mut server) = world.sent(&sent, &goes).await;
            server.send(said).await;
            client.gets(&format!("{said}-ERR Protocol error: expected '$', got 'f'\r\n")).await;
            server.rest().await;
            drop(server);
            assert_eq!(client.rest().await, "");
            until("over", || world.role.settled().iter().all(|how| *how == Settled::Answered)).await;
        }
        let world = World::new().await;
        let (mut client, mut server) = world.sent("*2\r\n$3\r\nDEL\r\n$-7\r\n", "*2\r\n$3\r\nDEL\r\n").await;
        client.gets("-ERR Protocol error: invalid bulk length\r\n").await;
        assert_eq!(server.rest().await, "", "it is told that nothing follows");
        assert!(world.role.settled().is_empty(), "until it has let go of it, it may have taken something");
        world.role.fence().ask(crate::protocol::signal::Ask::CutHalfSent);
        world.role.until_settled(&[Settled::Lost]).await;
    });
}

#[test]
fn where_stale_is_refused_it_may_not_read_either() {
    run(async {
        let world = World::with(|listener| listener.stale = Stale::Refuse).await;
        let (mut client, mut server) = world.sent(&[GET, "PING\r\n"].concat(), &[GET, "PING\r\n"].concat()).await;
        server.send("$1\r\na\r\n+PONG\r\n").await;
        client.gets("$1\r\na\r\n+PONG\r\n").await;
        world.role.fence();
        client.send(&[GET, GET].concat()).await;
        assert_eq!(client.rest().await, READONLY);
        assert_eq!(server.rest().await, "");
    });
}

#[test]
fn what_is_monitored_cannot_be_told_apart_and_takes_no_writes() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent("MONITOR\r\n", "MONITOR\r\n").await;
        server.send("+OK\r\n+1 [0] \"get\"\r\n").await;
        client.gets("+OK\r\n+1 [0] \"get\"\r\n").await;
        client.send(SET).await;
        assert!(client.rest().await.starts_with("-LOADING unverifiable"));
        assert_eq!(server.rest().await, "");
    });
}

#[test]
fn a_stamp_ends_a_connection_whose_term_is_over() {
    run(async {
        let world = World::with(|listener| listener.role = stamp_role()).await;
        let mut client = world.client(None).await;
        client.send(SET).await;
        let mut server = world.at_server().await;
        assert_eq!(server.announced().await.as_deref(), Some(&b"42"[..]));
        server.gets(SET).await;
        server.send("+OK\r\n").await;
        client.gets("+OK\r\n").await;
        world.role.until_settled(&[Settled::NothingLeft, Settled::Answered]).await;
        let refusal = Box::new(Refusal::new(Reason::NotLeader, "orders-b leads"));
        world.role.next.borrow_mut().push_back(Decision::Refuse(refusal));
        client.send(SET).await;
        assert!(client.rest().await.starts_with("-READONLY not_leader: orders-b leads"));
        assert_eq!(server.rest().await, "");
    });
}

#[test]
fn a_stamp_that_does_not_lead_lets_its_client_read() {
    run(async {
        let world = World::with(|listener| listener.role = stamp_role()).await;
        for _ in 0..2 {
            let refusal = Box::new(Refusal::new(Reason::NotLeader, "orders-b leads"));
            world.role.next.borrow_mut().push_back(Decision::Refuse(refusal));
        }
        let mut client = world.client(None).await;
        client.send(&[SET, GET].concat()).await;
        let mut server = world.at_server().await;
        assert_eq!(server.announced().await, None);
        server.gets(GET).await;
        server.send("$-1\r\n").await;
        let mut said = client.exactly(10).await;
        while !said.ends_with("$-1\r\n") {
            said += &client.exactly(1).await;
        }
        assert!(said.starts_with("-READONLY not_leader"), "{said}");
        // Now it leads; but what it was when this connection was made is what counts.
        client.send(SET).await;
        assert!(client.rest().await.starts_with("-READONLY term_changed"));
        assert_eq!(world.role.settled(), [Settled::NothingLeft]);
    });
}

/// A renamed SUBSCRIBE is confirmed once for each of its words: none of that answers what was sent behind it.
#[test]
fn what_the_server_does_not_list_leaves_nothing_to_be_told_apart() {
    run(async {
        let world = World::new().await;
        let all = ["sub_x a b\r\n", SET].concat();
        let (mut client, mut server) = world.sent(&all, &all).await;
        let confirmed = |channel, count| format!("*3\r\n$9\r\nsubscribe\r\n$1\r\n{channel}\r\n:{count}\r\n");
        let both = [confirmed("a", 1), confirmed("b", 2)].concat();
        server.send(&both).await;
        client.gets(&both).await;
        assert!(world.role.settled().is_empty(), "SET has not been answered");
        client.send(SET).await;
        client.gets("-LOADING unverifiable").await;
        assert!(world.role.refused.borrow().contains(&Reason::Unverifiable));
    });
}

#[test]
fn a_name_that_no_command_has_is_the_servers_to_refuse() {
    run(async {
        let world = World::new().await;
        let odd = "*1\r\n$4\r\n\u{e1} \n\r\n";
        let (mut client, mut server) = world.sent(odd, odd).await;
        assert_eq!(*world.role.asked.borrow(), [("/????".to_owned(), Kind::Write, Some("42".to_owned()))]);
        server.send("-ERR unknown command\r\n").await;
        client.gets("-ERR unknown command\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
    });
}

#[test]
fn a_name_with_a_zero_byte_does_not_pass() {
    run(async {
        let world = World::new().await;
        let mut client = world.client(Some("42")).await;
        client.send("*2\r\n$10\r\nSUBSCRIBE\0\r\n$1\r\na\r\n").await;
        client.gets("-ERR ").await;
        assert!(world.role.asked.borrow().is_empty());
    });
}

#[test]
fn a_client_that_reads_nothing_is_not_read_from() {
    run(async {
        let world = World::new().await;
        world.role.stale.set(true);
        let mut client = world.client(Some("41")).await;
        let many = SET.repeat(1_000);
        let mut sent = 0;
        // Far more than the sockets on the way hold of it, and of what it would be told.
        while sent < 400 {
            let chunk = tokio::time::timeout(std::time::Duration::from_secs(5), client.send(&many));
            if chunk.await.is_err() {
                return;
            }
            sent += 1;
        }
        panic!("{} refusals wait for it", world.role.refused.borrow().len());
    });
}
