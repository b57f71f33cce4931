//! What passes, passes as it came, and each batch of writes has one right.

use super::support::{World, run};
use crate::fence::{Outcome, Reason};
use crate::protocol::Kind;
use crate::protocol::right::Settled;

const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";

#[test]
fn a_write_has_a_right_until_it_is_answered() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(SET, SET).await;
        assert_eq!(*world.role.asked.borrow(), [("/SET".into(), Kind::Write, Some("42".into()))]);
        assert!(world.role.settled().is_empty());
        server.send("+O").await;
        client.gets("+O").await;
        assert!(world.role.settled().is_empty(), "half an answer is none");
        server.send("K\r\n").await;
        client.gets("K\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        assert_eq!(*world.role.finished.borrow(), [(Kind::Write, Outcome::Answered)]);
        client.send(GET).await;
        server.gets(GET).await;
        server.send("$1\r\nv\r\n").await;
        client.gets("$1\r\nv\r\n").await;
        assert_eq!(world.role.asked.borrow().len(), 1, "nobody is asked about a read");
    });
}

#[test]
fn writes_under_way_together_share_a_right() {
    run(async {
        let world = World::new().await;
        let all = [SET, GET, SET, GET].concat();
        let (mut client, mut server) = world.sent(&all, &all).await;
        server.send("+OK\r\n$1\r\nv\r\n").await;
        client.gets("+OK\r\n$1\r\nv\r\n").await;
        client.send(SET).await;
        server.gets(SET).await;
        assert!(world.role.settled().is_empty());
        server.send("+OK\r\n$1\r\nv\r\n").await;
        client.gets("+OK\r\n$1\r\nv\r\n").await;
        assert!(world.role.settled().is_empty(), "one more was sent under it");
        server.send("+OK\r\n").await;
        client.gets("+OK\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        assert_eq!(world.role.asked.borrow().len(), 1);
    });
}

/// However what both sides send is cut, the other side gets the same.
#[test]
fn cuts_change_nothing() {
    run(async {
        let sent = format!(
            "{SET}get k\r\n\r\n*0\r\n{GET}*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000\r\n{}\r\n{GET}",
            "v".repeat(3000)
        );
        let answers = "+OK\r\n$1\r\nv\r\n*2\r\n:1\r\n$2\r\nab\r\n+OK\r\n$-1\r\n";
        for piece in [1, 2, 7, 1000] {
            let world = World::new().await;
            let (mut client, mut there) = (world.client(Some("42")).await, 0);
            client.send(&sent[..1]).await;
            let mut server = world.at_server().await;
            for begin in (1..sent.len()).step_by(piece) {
                client.send(&sent[begin..(begin + piece).min(sent.len())]).await;
                if begin % 5 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            server.gets(&sent).await;
            while there < answers.len() {
                let end = (there + piece).min(answers.len());
                server.send(&answers[there..end]).await;
                client.gets(&answers[there..end]).await;
                there = end;
            }
            world.role.until_settled(&[Settled::Answered]).await;
        }
    });
}

#[test]
fn a_client_that_wants_no_replies_gets_none_and_its_writes_are_counted_all_the_same() {
    run(async {
        let world = World::new().await;
        let reply = |mode: &str| format!("*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n${}\r\n{mode}\r\n", mode.len());
        let off = format!("{}{SET}{}{GET}", reply("off"), reply("SKIP"));
        let (mut client, mut server) = world.sent(&off, &format!("{SET}{GET}")).await;
        assert!(world.role.settled().is_empty());
        server.send("+OK\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        server.send("$1\r\nv\r\n").await;
        client.send(&format!("{}{}{GET}{GET}", reply("ON"), reply("SKIP"))).await;
        server.gets(&format!("{}{GET}{GET}", reply("ON"))).await;
        server.send("+OK\r\n$1\r\na\r\n$1\r\nb\r\n").await;
        client.gets("+OK\r\n$1\r\nb\r\n").await;
    });
}

#[test]
fn a_client_says_its_epoch_itself_and_once() {
    run(async {
        let world = World::new().await;
        let mut client = world.client(None).await;
        client.send("EPOCHGATE EPOCH 0x7\r\nEPOCHGATE EPOCH 42\r\nEPOCHGATE EPOCH 43\r\nEPOCHGATE STATUS\r\n").await;
        client.send(SET).await;
        let mut server = world.at_server().await;
        server.gets(SET).await;
        server.send("+OK\r\n").await;
        let said = client.exactly(5).await;
        assert_eq!(said, "-ERR ");
        let mut said = said;
        while said.matches("\r\n").count() < 5 {
            said += &client.exactly(1).await;
        }
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].contains("malformed_stamp"), "{said}");
        assert_eq!(*world.role.refused.borrow(), [Reason::MalformedStamp], "it is in the books");
        assert_eq!(lines[1], "+OK");
        assert!(lines[2].contains("has its stamp already"), "{said}");
        assert!(lines[3].contains("EPOCHGATE EPOCH <epoch>"), "{said}");
        assert_eq!(lines[4], "+OK");
        assert_eq!(*world.role.asked.borrow(), [("/SET".into(), Kind::Write, Some("42".into()))]);

        let mut stamped = world.client(Some("41")).await;
        stamped.send("EPOCHGATE EPOCH 42\r\n").await;
        let _server = world.at_server().await;
        assert!(stamped.exactly(4).await.starts_with("-ERR"), "a sidecar has spoken for it");
    });
}

#[test]
fn a_client_that_ends_its_side_gets_all_its_answers() {
    run(async {
        let world = World::new().await;
        let (mut client, mut server) = world.sent(SET, SET).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.socket).await.expect("an end");
        assert_eq!(server.rest().await, "", "the server is told");
        server.send("+OK\r\n").await;
        client.gets("+OK\r\n").await;
        world.role.until_settled(&[Settled::Answered]).await;
        drop(server);
        assert_eq!(client.rest().await, "");
    });
}
