//! From a client to its server: what may pass does so as it came, many commands at a time; what may not is answered here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::super::session::Asked;
use super::super::{Held, Kind};
use super::find::{Found, find};
use super::owed::Due;
use super::own::Silence;
use super::passing::{Allowed, Begun, Read};
use super::request::{Command, Front, Malformed, front};
use super::session::{CHUNK, Session, with_buffer, write_now};
use super::table::{Does, Nature, Table};
use super::writing::{self, Leave, Pass};
use super::{METHOD, refuse};
use crate::fence::{Reason, Refusal};

/// While a write is held, no more is read than this: it is to be noticed when its client goes away.
const MOST_WAITING: usize = 64 * 1024;

/// The way up.
#[derive(Default)]
pub struct Up {
    /// Read, and not taken yet.
    kept: Vec<u8>,
    /// Whether that is to be looked at again before more is read.
    again: bool,
    begun: Begun,
    /// For the server, which has not taken it yet.
    left: Vec<u8>,
    unflushed: bool,
    waiting: Waiting,
    /// Between MULTI and EXEC.
    pub(super) in_transaction: bool,
    /// A command of the transaction was refused.
    pub(super) is_spoilt: bool,
    /// The server is to forget what was queued.
    discards: bool,
    pub(super) silence: Silence,
    /// The client has ended its side.
    ended: bool,
    /// The server has been told that nothing follows.
    pub told: bool,
}

/// What the command that is next waits for.
#[derive(Default)]
enum Waiting {
    #[default]
    Nothing,
    /// The role.
    Held(Held),
    /// The end of the writes that are under way.
    Answers,
    /// Nothing any more: it has been refused.
    Refused(Box<Refusal>),
}

/// What is to become of a command.
pub(super) enum Fate {
    /// To the server, which owes this for it, and whether that may be a long time coming.
    Pass(Pass, Due, bool),
    /// Nowhere: it has been answered.
    Drop,
    /// It waits.
    Wait,
}

impl Up {
    /// Whether no command has begun that is not whole.
    pub fn is_between(&self) -> bool {
        self.begun.is_over() && self.kept.is_empty() && self.left.is_empty()
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.ended = true;
        self.waiting = Waiting::Nothing;
        self.kept = Vec::new();
    }
}

impl Session {
    /// Moves what there is to move; says whether something was.
    ///
    /// # Errors
    /// Where the server's end broke.
    pub(super) fn poll_up(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            if !self.poll_left(context)? {
                return Ok(moved);
            }
            if self.up.ended {
                return self.tell_the_end(context).map(|told| told || moved);
            }
            if self.ending || !self.poll_waiting(context) {
                return Ok(moved);
            }
            // A client that reads nothing is not read from either: what it is to be told would fill the memory.
            if self.owed.is_full() || self.down.waits_for_the_client() {
                return Ok(moved);
            }
            let more = with_buffer(|buffer| self.poll_take(buffer, context))?;
            if !more {
                return Ok(moved);
            }
            moved = true;
        }
    }

    /// Writes what the server has not taken yet; whether it has all of it.
    fn poll_left(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        if !self.up.left.is_empty() {
            if !self.writing.as_ref().is_none_or(writing::Writing::goes_on) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let written = write_now(&mut self.server, &self.up.left, context)?;
            self.up.left.drain(..written);
            if !self.up.left.is_empty() {
                return Ok(false);
            }
            self.up.left = Vec::new();
        }
        if self.up.unflushed && Pin::new(&mut self.server).poll_flush(context)?.is_ready() {
            self.up.unflushed = false;
        }
        Ok(true)
    }

    fn tell_the_end(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        if self.up.told || Pin::new(&mut self.server).poll_shutdown(context)?.is_pending() {
            return Ok(false);
        }
        self.up.told = true;
        Ok(true)
    }

    /// Whether the next command need not wait any longer.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> bool {
        let decided = match &mut self.up.waiting {
            Waiting::Nothing | Waiting::Refused(_) => return true,
            Waiting::Answers if self.writing.is_some() => return false,
            Waiting::Answers => Waiting::Nothing,
            Waiting::Held(held) => match held.as_mut().poll(context) {
                Poll::Ready(Ok(())) => Waiting::Nothing,
                Poll::Ready(Err(refusal)) => Waiting::Refused(refusal),
                Poll::Pending => {
                    self.poll_gone(context);
                    return self.up.ended;
                }
            },
        };
        self.up.waiting = decided;
        self.up.again = true;
        true
    }

    /// Reads on while a command is held: its client may go away.
    fn poll_gone(&mut self, context: &mut Context<'_>) {
        while self.up.kept.len() < MOST_WAITING && !self.up.ended {
            let ended = with_buffer(|buffer| {
                let mut space = ReadBuf::new(&mut buffer[..CHUNK]);
                match Pin::new(&mut self.client).poll_read(context, &mut space) {
                    Poll::Pending => None,
                    Poll::Ready(Ok(())) if !space.filled().is_empty() => {
                        self.up.kept.extend_from_slice(space.filled());
                        Some(false)
                    }
                    Poll::Ready(_) => Some(true),
                }
            });
            match ended {
                None => return,
                Some(true) => self.up.end(),
                Some(false) => {}
            }
        }
    }

    /// Takes what was kept and what the client has sent since; `false` where nothing was there.
    fn poll_take(&mut self, buffer: &mut [u8], context: &mut Context<'_>) -> io::Result<bool> {
        let kept = self.up.kept.len();
        buffer[..kept].copy_from_slice(&self.up.kept);
        let mut there = kept;
        if !std::mem::take(&mut self.up.again) {
            let mut space = ReadBuf::new(&mut buffer[kept..kept + CHUNK]);
            match Pin::new(&mut self.client).poll_read(context, &mut space) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(())) if !space.filled().is_empty() => there += space.filled().len(),
                Poll::Ready(Ok(())) => {
                    self.up.end();
                    return Ok(true);
                }
                Poll::Ready(Err(_)) => {
                    self.client_is_gone();
                    return Ok(true);
                }
            }
        }
        let taken = self.take(&buffer[..there], context)?;
        self.up.kept.clear();
        self.up.kept.extend_from_slice(&buffer[taken..there]);
        Ok(true)
    }

    /// Takes what can be taken of `bytes`; says how much that was. Where the next command waits, the rest is left.
    fn take(&mut self, bytes: &[u8], context: &mut Context<'_>) -> io::Result<usize> {
        let table = self.redis.commands.table();
        let mut read = Read::of(bytes);
        let malformed = loop {
            match read.go_on(&mut self.up.begun) {
                Ok(allowed) => self.pass_to_server(allowed, context)?,
                Err(malformed) => {
                    // The server has the beginning of it, and waits for the rest.
                    if let Begun::Passing(..) = self.up.begun {
                        self.owed.give_up_last();
                    }
                    break Some(malformed);
                }
            }
            if !self.up.begun.is_over() || self.ending {
                break None;
            }
            self.up.begun = Begun::Nothing;
            match front(read.ahead()) {
                Err(malformed) => break Some(malformed),
                Ok(Front::Cut) => break None,
                Ok(Front::Nothing(length)) => read.pass_nothing(length),
                Ok(Front::Command(command)) => match self.fate(&table, &command) {
                    Err(malformed) => break Some(malformed),
                    Ok(Fate::Wait) => break None,
                    Ok(fate) => self.take_one(&mut read, fate, &command, context)?,
                },
            }
        };
        self.pass_to_server(read.allowed(), context)?;
        if let Some(malformed) = malformed {
            self.owed.own(refuse::plain(&malformed.to_string()));
            self.ending = true;
        }
        Ok(if self.ending { bytes.len() } else { read.taken() })
    }

    /// Takes the first part of one command, whose fate is known.
    fn take_one(
        &mut self,
        read: &mut Read<'_>,
        fate: Fate,
        command: &Command<'_>,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        let (length, rest) = command.rest();
        match fate {
            Fate::Pass(pass, due, blocks) => {
                let hidden = self.is_silent();
                self.owed.owe(due, hidden, blocks);
                read.pass(&pass, length);
                self.up.begun = Begun::Passing(pass, rest);
            }
            Fate::Drop | Fate::Wait => {
                self.pass_to_server(read.skip(length), context)?;
                self.up.begun = Begun::Dropping(rest);
                if std::mem::take(&mut self.up.discards) {
                    self.pass_to_server(Allowed::discard(), context)?;
                    self.owed.owe(Due::Reply, true, false);
                }
            }
        }
        Ok(())
    }

    fn pass_to_server(&mut self, allowed: Allowed<'_>, context: &mut Context<'_>) -> io::Result<()> {
        let bytes = allowed.bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        // A part of a write whose first bytes left some time ago.
        if !self.writing.as_ref().is_none_or(writing::Writing::goes_on) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let written = if self.up.left.is_empty() { write_now(&mut self.server, bytes, context)? } else { 0 };
        self.up.unflushed = true;
        self.up.left.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// What is to become of a command, which is next.
    fn fate(&mut self, table: &Table, command: &Command<'_>) -> Result<Fate, Malformed> {
        let Some(found) = find(table, command)? else { return Ok(Fate::Wait) };
        if let Waiting::Refused(_) = self.up.waiting
            && let Waiting::Refused(refusal) = std::mem::take(&mut self.up.waiting)
        {
            let asked = self.asked(&found.path, Kind::Write);
            let leave = writing::refused(&self.redis.sessions, &asked, refusal);
            return Ok(self.without_leave(&found, leave));
        }
        match found.does {
            Does::Own => return self.own(command),
            Does::Reply => {
                if let Some(fate) = self.silence(command)? {
                    return Ok(fate);
                }
            }
            Does::Replicate => {
                self.say(refuse::plain("replication does not go through epochgate: connect to the server itself"));
                return Ok(Fate::Drop);
            }
            Does::Exec if self.up.is_spoilt => {
                self.say(refuse::aborted());
                self.forget_transaction();
                return Ok(Fate::Drop);
            }
            _ => {}
        }
        match self.leave(&found) {
            Leave::Granted(pass) => Ok(Fate::Pass(pass, self.passes(found.does, command), found.blocks)),
            leave => Ok(self.without_leave(&found, leave)),
        }
    }

    pub(super) fn asked<'a>(&'a self, path: &'a str, kind: Kind) -> Asked<'a> {
        Asked { method: METHOD, path, kind, lasts: false, who: &self.who, stamp: self.stamp.as_deref() }
    }

    /// Asks for leave, where the command needs some.
    fn leave(&mut self, found: &Found<'_>) -> Leave {
        let (nth, sessions) = (self.owed.sent() + 1, &self.redis.sessions);
        let stamp = self.stamp.as_deref();
        let asked = |kind| Asked { method: METHOD, path: &found.path, kind, lasts: false, who: &self.who, stamp };
        let leave = match writing::without_asking(found.nature, self.redis.asks_reads) {
            Some(pass) => Leave::Granted(pass),
            None if found.nature == Nature::Read => {
                // Where what is stale is refused, nobody reads who may not write.
                let kind = if self.redis.refuses_stale { Kind::Write } else { Kind::Read };
                writing::ask_for_a_read(sessions, &asked(kind))
            }
            None if self.owed.is_uncounted() => {
                let detail = "on this connection it can no longer be told which reply is whose (MONITOR, or SUBSCRIBE in a \
                              transaction); nothing was applied: write over another one";
                let refusal = Refusal::new(Reason::Unverifiable, detail);
                self.ending = true;
                writing::refused(sessions, &asked(Kind::Write), Box::new(refusal))
            }
            None => {
                let announced = self.announced.as_deref();
                writing::ask_for_a_write(sessions, &asked(Kind::Write), announced, nth, &mut self.writing)
            }
        };
        if found.nature == Nature::Read && matches!(leave, Leave::Granted(_)) && self.reading.is_none() {
            self.reading = Some(sessions.begin(Kind::Read));
        }
        leave
    }

    fn without_leave(&mut self, found: &Found<'_>, leave: Leave) -> Fate {
        match leave {
            Leave::Held(held) => {
                self.up.waiting = Waiting::Held(held);
                Fate::Wait
            }
            Leave::After => {
                self.up.waiting = Waiting::Answers;
                Fate::Wait
            }
            Leave::Refused(refusal) => {
                self.up.is_spoilt |= self.up.in_transaction;
                self.ending |= self.ends_with(&refusal);
                if found.does == Does::Exec {
                    self.forget_transaction();
                }
                self.say(refuse::error(&refusal));
                Fate::Drop
            }
            // It has been dealt with.
            Leave::Granted(_) => Fate::Drop,
        }
    }

    /// Whether a connection is of no use any more after this.
    fn ends_with(&self, refusal: &Refusal) -> bool {
        let term_is_over = self.redis.sessions.is_stamp()
            && match refusal.reason {
                Reason::TermChanged => true,
                Reason::NotLeader => self.announced.is_some(),
                _ => false,
            };
        term_is_over || self.redis.refuses_stale
    }

    /// What a command that passes does to its connection, and what is due for it.
    fn passes(&mut self, does: Does, command: &Command<'_>) -> Due {
        match does {
            Does::Multi => self.up.in_transaction = true,
            Does::Exec | Does::Discard => (self.up.in_transaction, self.up.is_spoilt) = (false, false),
            Does::Reset => {
                (self.up.in_transaction, self.up.is_spoilt) = (false, false);
                self.up.silence = Silence::None;
            }
            _ => {}
        }
        match does {
            Does::Unknown => Due::Doubtful,
            Does::Hello => Due::Hello,
            Does::Reset => Due::Reset,
            Does::Monitor => Due::Monitor,
            Does::Subscribe(topic) => Due::Subscription { topic, ends: false, words: command.arguments },
            Does::Unsubscribe(topic) => Due::Subscription { topic, ends: true, words: command.arguments },
            _ => Due::Reply,
        }
    }

    /// The server still has what was queued of a transaction that will not be executed.
    fn forget_transaction(&mut self) {
        (self.up.in_transaction, self.up.is_spoilt, self.up.discards) = (false, false, true);
    }

    /// What waits for the role is not to wait any longer.
    pub(super) fn stop_waiting(&mut self, refusal: Refusal) {
        if let Waiting::Held(_) = self.up.waiting {
            self.up.waiting = Waiting::Refused(Box::new(refusal));
            self.up.again = true;
        }
    }
}
