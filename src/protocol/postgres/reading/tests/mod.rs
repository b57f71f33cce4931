//! The lockstep before a server that plays PostgreSQL and judges ([`model`]); single scenes, and scripts at random.

mod model;
mod scenes;
mod scripts;

use bytes::BytesMut;

use self::model::Server;
use super::lockstep::{Lockstep, Out, Stop};
use super::words::Words;
use crate::fence::{Reason, Refusal};
use crate::protocol::postgres::message::Walk;
use crate::protocol::postgres::message::tests::message;

/// A lockstep, with a server behind it.
struct Play {
    lockstep: Lockstep,
    server: Server,
    ahead: BytesMut,
    out: Out,
    /// What the client has been told, and nobody looked at.
    told: Vec<u8>,
}

impl Play {
    /// Of a session that has just been greeted.
    fn start() -> Play {
        let mut play = Play::ungreeted();
        assert_eq!(play.greet_as("16.11 (Debian)"), Ok(()));
        assert_eq!(play.told(), "R S K ZI");
        play
    }

    fn ungreeted() -> Play {
        let words = Words::of(&Refusal::new(Reason::StaleEpoch, "it is over"));
        let mut server = Server::default();
        server.guarded = true;
        Play { lockstep: Lockstep::new(words), server, ahead: BytesMut::new(), out: Out::default(), told: Vec::new() }
    }

    fn greet_as(&mut self, version: &str) -> Result<(), Stop> {
        let status = format!("server_version\0{version}\0");
        let greeting =
            [message(b'R', &[0; 4]), message(b'S', status.as_bytes()), message(b'K', &[0; 8]), message(b'Z', b"I")]
                .concat();
        let said = self.lockstep.server(&greeting, &mut self.out);
        self.told.extend(self.out.client.split());
        said
    }

    /// The client sends this, in one piece; all of it is answered.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.ahead.extend_from_slice(bytes);
        self.turn(usize::MAX)
    }

    /// Everything is moved that can be, the server's words in pieces of this length.
    fn turn(&mut self, piece: usize) -> Result<(), Stop> {
        loop {
            self.lockstep.client(&mut self.ahead, &mut self.out)?;
            let sent = self.out.server.split();
            let said = self.server.take(&sent);
            for piece in said.chunks(piece.max(1)) {
                self.lockstep.server(piece, &mut self.out)?;
                // Between two pieces too: nothing may come of it in the middle of a message.
                self.lockstep.client(&mut self.ahead, &mut self.out)?;
            }
            self.told.extend(self.out.client.split());
            if sent.is_empty() && self.out.server.is_empty() {
                return Ok(());
            }
        }
    }

    /// What the client has been told since, in short.
    fn told(&mut self) -> String {
        short(&std::mem::take(&mut self.told))
    }
}

/// Messages in short: their types, and what matters of their bodies.
fn short(bytes: &[u8]) -> String {
    let (mut walk, mut all, mut body) = (Walk::default(), Vec::new(), Vec::new());
    walk.over(bytes, |part| {
        body.extend_from_slice(part.body);
        if part.ends {
            let body = std::mem::take(&mut body);
            let text = match part.kind {
                b'Z' => String::from_utf8_lossy(&body).into_owned(),
                b'C' => format!("({})", String::from_utf8_lossy(&body[..body.len() - 1])),
                b'E' => format!("({})", String::from_utf8_lossy(super::words::code(&body).expect("a code"))),
                _ => String::new(),
            };
            all.push(format!("{}{text}", char::from(part.kind)));
        }
        Ok(())
    })
    .expect("messages");
    assert!(walk.is_between(), "whole ones: {}", bytes.escape_ascii());
    all.join(" ")
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes())
}

fn describe(what: &str) -> Vec<u8> {
    message(b'D', format!("{what}\0").as_bytes())
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

/// Parse, Bind, Execute.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", ""), execute("")].concat()
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}
