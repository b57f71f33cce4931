//! What the sidecar does itself of what a client asks for: CLIENT REPLY, EPOCHGATE, and what is said in the place of replies.

use bytes::Bytes;

use super::super::Kind;
use super::refuse;
use super::request::{Command, Malformed, Word};
use super::session::Session;
use super::up::Fate;
use crate::fence::stamp::Stamp;
use crate::fence::{Reason, Refusal};

/// Which replies the client wants (CLIENT REPLY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// All of them.
    #[default]
    None,
    /// All but the next one.
    Once,
    /// None.
    Always,
}

impl Session {
    /// Says this in the place of a reply, where the client wants one.
    pub(super) fn say(&mut self, text: Vec<u8>) {
        if !self.is_silent() {
            self.owed.own(text);
        }
    }

    /// Whether the client does not want the reply to the next command.
    pub(super) fn is_silent(&mut self) -> bool {
        match self.up.silence {
            Silence::None => false,
            Silence::Once => {
                self.up.silence = Silence::None;
                true
            }
            Silence::Always => true,
        }
    }

    /// CLIENT REPLY: the server goes on answering, so that it is known when it has; the client does not see it.
    pub(super) fn silence(&mut self, command: &Command<'_>) -> Result<Option<Fate>, Malformed> {
        let mode = match command.argument(2)? {
            Word::Cut => return Ok(Some(Fate::Wait)),
            Word::Whole(mode) if command.arguments == 2 => mode.to_ascii_lowercase(),
            _ => return Ok(None),
        };
        match &*mode {
            b"on" | b"off" | b"skip" if self.up.in_transaction => {
                self.up.is_spoilt = true;
                self.say(refuse::plain("CLIENT REPLY inside a transaction does not go through epochgate"));
            }
            b"off" => self.up.silence = Silence::Always,
            b"skip" if self.up.silence == Silence::None => self.up.silence = Silence::Once,
            b"skip" => {}
            b"on" => {
                self.up.silence = Silence::None;
                return Ok(None);
            }
            _ => return Ok(None),
        }
        Ok(Some(Fate::Drop))
    }

    /// EPOCHGATE: what a client without a sidecar says to this one.
    pub(super) fn own(&mut self, command: &Command<'_>) -> Result<Fate, Malformed> {
        let (what, value) = (command.argument(1)?, command.argument(2)?);
        if what == Word::Cut || value == Word::Cut {
            return Ok(Fate::Wait);
        }
        let is_epoch = what.whole().is_some_and(|what| what.eq_ignore_ascii_case(b"epoch")) && command.arguments == 2;
        if !is_epoch {
            self.say(refuse::plain("there is only one such command: EPOCHGATE EPOCH <epoch>"));
            return Ok(Fate::Drop);
        }
        let text = if self.redis.sessions.is_stamp() {
            let detail = "this sidecar is to be the only one that stamps (incoming_stamp: refuse)";
            let refusal = Refusal::new(Reason::StampPresent, detail);
            self.redis.sessions.say_refused(&self.asked("/EPOCHGATE", Kind::Write), &refusal);
            refuse::error(&refusal)
        } else if self.stamp.is_some() {
            refuse::plain("this connection has its stamp already, and keeps it: connect again to say another")
        } else {
            let taken = value.whole().ok_or("it is too long").and_then(|value| match Stamp::parse(value) {
                Ok(_) => Ok(value),
                Err(malformed) => Err(malformed.0),
            });
            match taken {
                Ok(value) => {
                    self.stamp = Some(Bytes::copy_from_slice(value));
                    b"+OK\r\n".to_vec()
                }
                Err(why) => {
                    let refusal = Refusal::new(Reason::MalformedStamp, why);
                    self.redis.sessions.say_refused(&self.asked("/EPOCHGATE", Kind::Write), &refusal);
                    refuse::error(&refusal)
                }
            }
        };
        self.say(text);
        Ok(Fate::Drop)
    }
}
