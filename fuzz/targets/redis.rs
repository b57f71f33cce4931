//! What Redis' clients and servers send: however it is cut, the same is read of it, and of what a client sends nothing is
//! read otherwise than Redis reads it.

use crate::protocol::redis::reply::Replies;
use crate::protocol::redis::request::{Front, Word, front};

const WORDS: &[&str] = &[
    "*1\r\n",
    "*2\r\n",
    "*3\r\n",
    "$3\r\nSET\r\n",
    "$1\r\nk\r\n",
    "$0\r\n\r\n",
    "$64\r\n",
    "*-1\r\n",
    "\r\n",
    "$-1\r\n",
    "\"",
    "'",
    "\\x41",
    "get k\r\n",
    "*2147483647\r\n",
];

/// A command: where it begins, and its words.
type Found = (usize, Vec<Vec<u8>>);

/// Commands one after the other: where each begins, with its words; and whether it ended with what is no request.
fn commands(bytes: &[u8]) -> (Vec<Found>, usize, bool) {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        match front(&bytes[at..]) {
            Err(_) => return (found, at, true),
            Ok(Front::Cut) => return (found, at, false),
            Ok(Front::Nothing(length)) => at += length,
            Ok(Front::Command(command)) => {
                let mut words = vec![command.name().whole().map(<[u8]>::to_vec).unwrap_or_default()];
                for nth in 1..=command.arguments.min(2) {
                    match command.argument(nth) {
                        Err(_) => return (found, at, true),
                        Ok(Word::Cut) => return (found, at, false),
                        Ok(word) => words.push(word.whole().map(<[u8]>::to_vec).unwrap_or_default()),
                    }
                }
                let (length, mut rest) = command.rest();
                match rest.pass(&bytes[at + length..]) {
                    Err(_) => return (found, at, true),
                    Ok(_) if !rest.is_over() => return (found, at, false),
                    Ok(taken) => {
                        found.push((at, words));
                        at += length + taken;
                    }
                }
            }
        }
    }
}

#[test]
fn redis_requests() {
    crate::fuzz::engine::fuzz("redis_requests", WORDS, |input| {
        let (whole, taken, malformed) = commands(input);
        // Cut where something begins, or in the middle of it.
        for cut in [taken, input.len() / 2, input.len().saturating_sub(1)] {
            let (mut first, at, early) = commands(&input[..cut.min(input.len())]);
            if !early {
                let (second, ..) = commands(&input[at..]);
                first.extend(second.into_iter().map(|(begins, words)| (begins + at, words)));
            }
            assert_eq!(first, whole[..first.len()], "a cut at {cut} changes what is read");
            assert!(early || first.len() == whole.len());
        }
        (whole.len().min(20), malformed, whole.iter().map(|(_, words)| words.len()).max())
    });
}

#[test]
fn redis_replies() {
    let words = [
        "+OK\r\n",
        "-ERR\r\n",
        ":1\r\n",
        "$2\r\nab\r\n",
        "*2\r\n",
        "%1\r\n",
        "~1\r\n",
        ">3\r\n",
        "|1\r\n",
        "_\r\n",
        "#t\r\n",
        "*?\r\n",
        ".\r\n",
        "$?\r\n",
        ";1\r\n",
        ";0\r\n",
        "$7\r\nmessage\r\n",
        "*-1\r\n",
    ];
    crate::fuzz::engine::fuzz("redis_replies", &words, |input| {
        let read = |pieces: usize| {
            let (mut replies, mut found, mut begins) = (Replies::default(), Vec::new(), 0);
            for piece in input.chunks(pieces.max(1)) {
                let mut at = 0;
                while at < piece.len() {
                    match replies.read(&piece[at..]) {
                        Err(no_reply) => return (found, Some(no_reply)),
                        Ok((taken, reply)) => {
                            assert!(taken > 0 && (reply.is_some() || at + taken == piece.len()));
                            at += taken;
                            found.extend(reply.map(|reply| (begins + at, reply)));
                        }
                    }
                }
                begins += piece.len();
            }
            (found, None)
        };
        let whole = read(input.len());
        for pieces in [1, 3, 10] {
            assert_eq!(read(pieces), whole);
        }
        (whole.0.len().min(20), whole.1, whole.0.last().map(|(_, reply)| reply.form))
    });
}
