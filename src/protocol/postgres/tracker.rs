//! What a session has outstanding at its server: seen from the heads of the messages that pass both ways.
//!
//! The fence has one question: can anything that was sent still take effect? It cannot where the server has answered all of
//! it, and waits. Every Query, FunctionCall and Sync is answered with one ReadyForQuery, in order; but after an error among
//! messages of the extended protocol the server skips to the next Sync, and while it takes in a COPY it overlooks a Sync. So
//! what was sent is remembered in *units*, each up to what ends it. Where the server alone knows whether it has overlooked a
//! Sync, that one is *doubtful*, and the session counts as busy until a reply settles it: never the other way.
//!
//! An open transaction is nothing outstanding: without another message it can only be rolled back. The same holds for what
//! was executed and answered before any Sync.

use std::collections::VecDeque;

use super::message::{Malformed, Part, Walk, number};

/// So many kinds of units may be outstanding before the client is not read any further. Equal ones in a row are one.
const MOST_RUNS: usize = 1024;
/// So much of an error is looked at: its severity stands first.
const ERROR_LOOKED_AT: usize = 64;

/// What ends a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Query or FunctionCall: answered with ReadyForQuery, unless it is skipped.
    Query,
    /// Sync: answered with ReadyForQuery, and never skipped, but overlooked within a COPY.
    Sync,
    /// CopyDone or CopyFail, sent while something was outstanding: the end of a COPY, where one is under way. No answer of its own.
    Copy,
}

/// Something sent, and what has not been answered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    /// Messages of the extended protocol that stand before its end and are answered one by one.
    extended: u32,
    end: End,
    /// Whether the server may have overlooked it.
    doubtful: bool,
}

impl Unit {
    const fn bare_sync(doubtful: bool) -> Unit {
        Unit { extended: 0, end: End::Sync, doubtful }
    }

    fn is_bare_sync(&self) -> bool {
        *self == Unit::bare_sync(self.doubtful)
    }
}

/// How far the server's greeting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// The server is at work.
    Working,
    /// The server has asked the client for something.
    Asking,
    /// ReadyForQuery has come.
    Over,
}

/// The transaction that a session is in, as its last ReadyForQuery said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// None.
    None,
    /// One that is open, or has failed and not been ended.
    Open,
}

/// Follows one session, from its startup on.
#[derive(Debug)]
pub struct Tracker {
    up: Walk,
    down: Walk,
    login: Login,
    /// Process and key, as the server gave them.
    key: Vec<u8>,
    /// What is being answered.
    current: Option<Unit>,
    /// What is answered after that.
    queue: VecDeque<(Unit, u32)>,
    /// How many messages of the extended protocol of the unit that has not ended yet are not answered.
    open: u32,
    /// The server skips what comes, to the next Sync.
    skipping: bool,
    /// The server takes in a COPY whose end has not been sent yet.
    copying: bool,
    /// Replication streams both ways.
    streaming: bool,
    /// Syncs that the server overlooks in the COPY that is under way.
    overlooked: u32,
    transaction: Transaction,
    terminated: bool,
    fatal: bool,
    error: Vec<u8>,
    /// Something of the client's passed that cannot be followed.
    up_is_lost: bool,
    /// Something of the server's did.
    down_is_lost: bool,
}

impl Default for Tracker {
    /// A session whose startup message has just been sent.
    fn default() -> Tracker {
        Tracker {
            up: Walk::default(),
            down: Walk::default(),
            login: Login::Working,
            key: Vec::new(),
            current: None,
            queue: VecDeque::new(),
            open: 0,
            skipping: false,
            copying: false,
            streaming: false,
            overlooked: 0,
            transaction: Transaction::None,
            terminated: false,
            fatal: false,
            error: Vec::new(),
            up_is_lost: false,
            down_is_lost: false,
        }
    }
}

impl Tracker {
    /// These bytes of the client have left for the server.
    ///
    /// # Errors
    /// Where they are no messages of a client: nothing can be said of the session any more.
    pub fn sent(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut walk = self.up;
        // A message that is not whole yet can take no effect.
        let followed = walk.over(bytes, |part| if part.ends { self.client_said(part.kind) } else { Ok(()) });
        self.up = walk;
        self.up_is_lost |= followed.is_err();
        followed
    }

    /// These bytes have come from the server.
    ///
    /// # Errors
    /// As for [`Tracker::sent`].
    pub fn came(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut walk = self.down;
        let followed = walk.over(bytes, |part| self.server_said(part));
        self.down = walk;
        self.down_is_lost |= followed.is_err();
        followed
    }

    /// Whether nothing that was sent can still take effect.
    pub fn is_idle(&self) -> bool {
        match self.login {
            _ if self.up_is_lost || self.down_is_lost => false,
            Login::Working => false,
            Login::Asking => true,
            Login::Over => {
                let answered = self.current.is_none() && self.queue.is_empty() && self.open == 0;
                answered || self.only_streams()
            }
        }
    }

    /// Whether all that runs is a stream of replication: its server reads, and applies nothing.
    fn only_streams(&self) -> bool {
        self.streaming && self.open == 0 && self.queue.iter().all(|(unit, _)| unit.end == End::Copy)
    }

    /// Whether the server has greeted the client: from here on it takes queries.
    pub fn has_begun(&self) -> bool {
        self.login == Login::Over
    }

    /// The transaction that it is in.
    pub fn transaction(&self) -> Transaction {
        self.transaction
    }

    /// Whether the client has said that it ends.
    pub fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// Whether the server has said that it ends the session.
    pub fn is_ended_by_server(&self) -> bool {
        self.fatal
    }

    /// Whether the server's stream stands between two messages.
    pub fn is_between_replies(&self) -> bool {
        self.down.is_between() && !self.down_is_lost
    }

    /// Whether what has left for the server ends with a whole message.
    pub fn is_between_messages(&self) -> bool {
        self.up.is_between() && !self.up_is_lost
    }

    /// Whether so much is outstanding that the client is better not read now.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= MOST_RUNS
    }

    /// Process and key of the session, where the server has given them: what a request to cancel names.
    pub fn key(&self) -> Option<&[u8]> {
        (!self.key.is_empty()).then_some(&self.key)
    }

    fn client_said(&mut self, kind: u8) -> Result<(), Malformed> {
        match kind {
            // A password, and whatever else belongs to the greeting.
            b'p' if self.login != Login::Over => self.login = Login::Working,
            b'P' | b'B' | b'C' | b'D' | b'E' if !self.skipping => self.open += 1,
            b'S' => self.client_synced(),
            b'Q' | b'F' if !self.skipping => self.push(End::Query),
            b'c' | b'f' if self.copying => self.copying = false,
            b'c' | b'f' if self.current.is_some() || self.open > 0 => self.push(End::Copy),
            b'X' => self.terminated = true,
            // Data, Flush, and what the server skips or overlooks.
            b'P' | b'B' | b'C' | b'D' | b'E' | b'Q' | b'F' | b'c' | b'f' | b'd' | b'H' => {}
            _ => return Err(Malformed("a client sends no message of this type")),
        }
        Ok(())
    }

    fn client_synced(&mut self) {
        if self.copying {
            self.overlooked += 1;
            return;
        }
        self.skipping = false;
        self.push(End::Sync);
    }

    /// What was sent since the last unit is one.
    fn push(&mut self, end: End) {
        let unit = Unit { extended: std::mem::take(&mut self.open), end, doubtful: false };
        if self.current.is_none() {
            self.current = Some(unit);
            return;
        }
        match self.queue.back_mut() {
            Some((last, times)) if *last == unit => *times += 1,
            _ => self.queue.push_back((unit, 1)),
        }
    }

    fn pop(&mut self) -> Option<Unit> {
        let (unit, times) = self.queue.front_mut()?;
        let unit = *unit;
        *times -= 1;
        if *times == 0 {
            self.queue.pop_front();
        }
        Some(unit)
    }

    fn server_said(&mut self, part: Part<'_>) -> Result<(), Malformed> {
        if part.begins {
            match part.kind {
                // Rows, and data: never the first reply to anything.
                b'D' | b'd' | b'A' | b'N' | b'c' => return Ok(()),
                b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b'I' | b's' => self.replied(),
                b't' | b'H' | b'V' => self.settle_doubt(),
                b'G' => self.copy_begins(),
                b'W' => {
                    self.settle_doubt();
                    self.streaming = true;
                }
                b'E' => {
                    self.error.clear();
                    self.failed();
                }
                b'Z' => return self.ready(part),
                b'R' if self.login != Login::Over => return self.asked(part),
                b'K' if self.login != Login::Over => self.key.clear(),
                _ => return Ok(()),
            }
        }
        match part.kind {
            b'E' => {
                let room = ERROR_LOOKED_AT.saturating_sub(self.error.len());
                self.error.extend_from_slice(&part.body[..part.body.len().min(room)]);
                self.fatal |= part.ends && is_fatal(&self.error);
            }
            b'R' if self.login != Login::Over => return self.asked(part),
            b'K' if self.login != Login::Over => {
                if part.length > 4 + 256 {
                    return Err(Malformed("the server gives a key that none can be"));
                }
                self.key.extend_from_slice(part.body);
            }
            b'Z' => return self.ready(part),
            _ => {}
        }
        Ok(())
    }

    /// One message of the extended protocol is answered; or it is a reply to a Query, which has many.
    fn replied(&mut self) {
        self.settle_doubt();
        self.overlooked = 0;
        self.pass_ends_of_copies();
        match &mut self.current {
            Some(unit) => unit.extended = unit.extended.saturating_sub(1),
            None => self.open = self.open.saturating_sub(1),
        }
    }

    /// Nothing is left to be answered of the end of a COPY.
    fn pass_ends_of_copies(&mut self) {
        while self.current.is_some_and(|unit| unit.end == End::Copy && unit.extended == 0) {
            self.current = self.pop();
        }
    }

    /// A reply has come that no bare Sync gets: those before it that were doubtful were overlooked.
    fn settle_doubt(&mut self) {
        while self.current.is_some_and(|unit| unit.doubtful) {
            self.current = self.pop();
        }
    }

    /// The server takes in a COPY: it overlooks each Sync from here to the COPY's end.
    fn copy_begins(&mut self) {
        self.settle_doubt();
        self.overlooked = 0;
        match self.current.map(|unit| unit.end) {
            // Its end was sent ahead.
            Some(End::Copy) => return,
            Some(End::Sync) => self.overlooked = 1,
            Some(End::Query) | None => {}
        }
        let mut end_was_sent = false;
        while let Some((unit, times)) = self.queue.front().copied() {
            if unit.is_bare_sync() {
                self.overlooked += times;
                self.queue.pop_front();
            } else {
                end_was_sent = unit.end == End::Copy && unit.extended == 0;
                if end_was_sent {
                    self.pop();
                }
                break;
            }
        }
        if let Some(unit) = self.current.as_mut().filter(|unit| unit.end == End::Sync) {
            if end_was_sent {
                unit.end = End::Copy;
            } else {
                // Its unit goes on.
                self.open += unit.extended;
                self.current = None;
            }
        }
        self.copying = !end_was_sent;
    }

    fn failed(&mut self) {
        self.settle_doubt();
        self.pass_ends_of_copies();
        self.copying = false;
        let doubtful = std::mem::take(&mut self.overlooked);
        let failed_extended = match self.current {
            Some(unit) => unit.extended > 0,
            None => self.open > 0,
        };
        if failed_extended {
            self.skip_to_sync();
            if doubtful > 0 {
                // Whether the server still skips is not known either: what comes is counted.
                self.skipping = false;
                if let Some(sync) = self.current.take() {
                    self.queue.push_front((sync, 1));
                }
            }
        }
        if doubtful > 0 {
            self.queue.push_front((Unit::bare_sync(true), doubtful));
            if self.current.is_none() {
                self.current = self.pop();
            }
        }
    }

    /// Drops what the server does not look at any more: everything up to a Sync, which it answers.
    fn skip_to_sync(&mut self) {
        while let Some(unit) = self.current {
            if unit.end == End::Sync {
                self.current = Some(Unit::bare_sync(false));
                return;
            }
            self.current = self.pop();
        }
        self.open = 0;
        self.skipping = true;
    }

    /// ReadyForQuery, whose body is the transaction's state.
    fn ready(&mut self, part: Part<'_>) -> Result<(), Malformed> {
        if part.length != 1 {
            return Err(Malformed("the server says that it is ready in an unknown form"));
        }
        let [state] = part.body else { return Ok(()) };
        self.transaction = if *state == b'I' { Transaction::None } else { Transaction::Open };
        self.streaming = false;
        if self.login != Login::Over {
            self.login = Login::Over;
            return Ok(());
        }
        self.overlooked = 0;
        let answered = loop {
            let Some(unit) = self.current else {
                return Err(Malformed("the server says that it is ready, and nothing was outstanding"));
            };
            self.current = self.pop();
            if unit.end != End::Copy {
                break unit;
            }
        };
        self.pass_ends_of_copies();
        if answered.doubtful
            && let Some(next) = self.current.as_mut().filter(|next| next.is_bare_sync())
        {
            // Either that was answered, or this: what else comes will tell.
            next.doubtful = true;
        }
        Ok(())
    }

    /// An authentication message, whose code says who is next.
    fn asked(&mut self, part: Part<'_>) -> Result<(), Malformed> {
        // The code may be cut: it is gathered where errors are, of which there is none yet.
        if part.begins {
            self.error.clear();
        }
        let room = 4_usize.saturating_sub(self.error.len());
        self.error.extend_from_slice(&part.body[..part.body.len().min(room)]);
        if part.ends {
            let code = number(&self.error, 0).ok_or(Malformed("the server asks for nothing"))?;
            // Password, MD5, GSSAPI, SSPI, SASL, SASL again. Not GSSAPI again: that may be the server's last word.
            let asks = matches!(code, 3 | 5 | 7 | 9 | 10 | 11);
            self.login = if asks { Login::Asking } else { Login::Working };
        }
        Ok(())
    }
}

/// Whether an error ends the session. Its fields are a letter and a text each; V is the severity in no language.
fn is_fatal(error: &[u8]) -> bool {
    let mut fields = error.split(|byte| *byte == 0);
    let severity = fields.find_map(|field| field.strip_prefix(b"V"));
    matches!(severity, Some(b"FATAL" | b"PANIC"))
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
