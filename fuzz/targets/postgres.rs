//! Bytes of PostgreSQL's clients and servers.

use bytes::BytesMut;

use crate::fence::{Epoch, Reason, Refusal};
use crate::protocol::postgres::message::{self, First, Walk, leading};
use crate::protocol::postgres::reading::lockstep::{Lockstep, Out};
use crate::protocol::postgres::reading::words::Words;
use crate::protocol::postgres::startup::Startup;
use crate::protocol::postgres::tracker::Tracker;

/// What a client begins with: found at the same place however much follows, and what the target gets of it says the epoch
/// that was admitted, once, and all else as it came.
#[test]
fn pg_startup() {
    let words = [
        "\0\0\0\u{8}\u{4}\u{d2}\u{16}\u{2f}",
        "\0\u{3}\0\0",
        "\0\u{3}\0\u{2}",
        "user\0",
        "database\0",
        "options\0",
        "application_name\0",
        "epochgate.epoch\0",
        "EPOCHGATE.EPOCH",
        "-c epochgate.epoch=42",
        "--epochgate.epoch=42",
        "-c ",
        "\\",
        "\\ ",
        "\0\0",
        "_pq_.",
    ];
    crate::fuzz::engine::fuzz("pg_startup", &words, |input| {
        let (first, length) = match message::first(input) {
            Ok(Some(found)) => found,
            Ok(None) => return ("more".to_owned(), None),
            Err(why) => return (why.to_string(), None),
        };
        assert!(length <= input.len() && message::first(&input[..length]) == Ok(Some((first, length))));
        assert!((0..length).all(|cut| matches!(message::first(&input[..cut]), Ok(None))));
        let First::Startup(packet) = first else { return (format!("{first:?}"), None) };
        let startup = match Startup::parse(packet) {
            Ok(startup) => startup,
            Err(why) => return (why.to_string(), None),
        };
        assert!(startup.path().starts_with('/') && startup.path().is_ascii());
        let said = startup.epoch();
        let rewritten = Epoch::new(42).map(|epoch| startup.for_target(epoch));
        if let Some(Ok(rewritten)) = &rewritten {
            let Ok(Some((First::Startup(again), _))) = message::first(rewritten) else { panic!("it is none any more") };
            let again = Startup::parse(again).expect("what was read can be read again");
            assert_eq!(again.path(), startup.path());
            if said.as_ref().is_ok_and(|said| said.is_none()) {
                assert_eq!(again.epoch().expect("once").as_deref(), Some(&b"42"[..]));
            }
        }
        (format!("{:?}", said.map(|said| said.is_some())), rewritten.map(|written| written.is_ok()))
    });
}

/// A session's bytes both ways: what is said of it does not depend on how they are cut, and nothing that they hold makes it
/// idle while a message is unanswered that nobody skips.
#[test]
fn pg_session() {
    let words = [
        "Q\0\0\0\u{4}",
        "P\0\0\0\u{4}",
        "B\0\0\0\u{4}",
        "E\0\0\0\u{4}",
        "S\0\0\0\u{4}",
        "H\0\0\0\u{4}",
        "X\0\0\0\u{4}",
        "d\0\0\0\u{4}",
        "c\0\0\0\u{4}",
        "f\0\0\0\u{4}",
        "p\0\0\0\u{4}",
        "Z\0\0\0\u{5}I",
        "Z\0\0\0\u{5}T",
        "1\0\0\0\u{4}",
        "2\0\0\0\u{4}",
        "C\0\0\0\u{4}",
        "G\0\0\0\u{4}",
        "W\0\0\0\u{4}",
        "K\0\0\0\u{c}",
        "R\0\0\0\u{8}\0\0\0\0",
    ];
    crate::fuzz::engine::fuzz("pg_session", &words, |input| {
        // The first byte says how they are cut; a piece's own first bit, whose they are.
        let (size, stream) = input.split_first().map_or((1, input), |(size, rest)| (usize::from(*size) + 1, rest));
        let play = |pieces: usize| {
            let (mut tracker, mut said) = (Tracker::default(), Vec::new());
            for (turn, part) in stream.chunks(size).enumerate() {
                for piece in part.chunks(pieces) {
                    let followed = if turn % 2 == 0 { tracker.came(piece) } else { tracker.sent(piece) };
                    if let Err(why) = followed {
                        assert!(!tracker.is_idle(), "lost, and called idle");
                        said.push((why.0, false, false));
                        return said;
                    }
                }
                said.push(("", tracker.is_idle(), tracker.is_full()));
            }
            said
        };
        let whole = play(usize::MAX);
        assert_eq!(play(1), whole, "it depends on how the reads are cut");
        assert_eq!(play(3), whole, "it depends on how the reads are cut");
        let (mut walk, mut messages) = (Walk::default(), 0_usize);
        let walked = walk.over(stream, |part| {
            messages += usize::from(part.ends);
            Ok(())
        });
        let led = leading(stream, |_| true);
        assert_eq!(walked.is_ok(), led.is_ok());
        assert_eq!(led.is_ok_and(|end| end == stream.len()), walked.is_ok() && walk.is_between());
        (whole, messages.min(8))
    });
}

/// A reading session's bytes both ways: what comes of them does not depend on how the server's are cut, and what leaves for
/// either side is messages.
#[test]
fn pg_reading() {
    let words = [
        "R\0\0\0\u{8}\0\0\0\0S\0\0\0\u{16}server_version\x0016\0Z\0\0\0\u{5}I",
        "3\0\0\0\u{4}3\0\0\0\u{4}1\0\0\0\u{4}2\0\0\0\u{4}C\0\0\0\u{4}",
        "D\0\0\0\u{4}",
        "T\0\0\0\u{4}",
        "Z\0\0\0\u{5}I",
        "Z\0\0\0\u{5}T",
        "Z\0\0\0\u{5}E",
        "E\0\0\0\u{c}C25006\0\0",
        "N\0\0\0\u{c}C25001\0\0",
        "G\0\0\0\u{4}",
        "V\0\0\0\u{4}",
        "Q\0\0\0\u{6}x\0",
        "P\0\0\0\u{4}",
        "S\0\0\0\u{4}",
        "H\0\0\0\u{4}",
        "F\0\0\0\u{4}",
        "X\0\0\0\u{4}",
        "d\0\0\0\u{4}",
        "c\0\0\0\u{4}",
        "p\0\0\0\u{4}",
    ];
    crate::fuzz::engine::fuzz("pg_reading", &words, |input| {
        let (size, stream) = input.split_first().map_or((1, input), |(size, rest)| (usize::from(*size) + 1, rest));
        let play = |pieces: usize| {
            let refusal = Refusal::new(Reason::StaleEpoch, "it is over");
            let (mut lockstep, mut out) = (Lockstep::new(Words::of(&refusal)), Out::default());
            let mut ahead = BytesMut::new();
            let mut all = (Vec::new(), Vec::new());
            for (turn, part) in stream.chunks(size).enumerate() {
                let mut went = Ok(());
                if turn % 2 == 0 {
                    went = part.chunks(pieces).try_for_each(|piece| lockstep.server(piece, &mut out));
                } else {
                    ahead.extend_from_slice(part);
                }
                let went = went.and_then(|()| lockstep.client(&mut ahead, &mut out));
                all.0.extend(out.server.split());
                all.1.extend(out.client.split());
                if let Err(stop) = went {
                    return (all, Some(stop));
                }
            }
            (all, None)
        };
        let whole = play(usize::MAX);
        // What a message that is cut short had shown of itself may differ where the session ends within it.
        if whole.1.is_none() {
            assert_eq!(play(1), whole, "it depends on how the reads are cut");
        }
        let ((server, client), stop) = whole;
        let seen = [server, client].map(|bytes| {
            let (mut walk, mut kinds) = (Walk::default(), Vec::new());
            let walked = walk.over(&bytes, |part| {
                kinds.extend(part.begins.then_some(part.kind));
                Ok(())
            });
            assert!(walked.is_ok(), "no messages: {}", bytes.escape_ascii());
            kinds.truncate(64);
            kinds
        });
        (seen, stop)
    });
}
