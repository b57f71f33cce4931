//! The server's side: what of it the client sees, and what follows from it.

use super::super::own::{self, Ending};
use super::super::words;
use super::{FAILED, Lockstep, NONE, OPEN, Out, Shown, Step, Stop, Wants};
use crate::protocol::postgres::message::{Malformed, Part};

/// So much of a message is gathered to be looked at; a longer one passes as it is.
const LOOKED_AT: u32 = 64 * 1024;

impl Lockstep {
    pub(super) fn said(&mut self, part: Part<'_>, out: &mut Out) -> Result<(), Stop> {
        if part.begins {
            self.gathered.clear();
            self.shown = self.shown(part.kind, part.length)?;
            if self.shown == Shown::Pass {
                own::head(part.kind, part.length, &mut out.client);
                // One too long to be added to is counted all the same: what it is stands in its first fields.
                self.refused += u32::from(part.kind == b'E' && words::is_refused_write(part.body));
            }
        }
        match self.shown {
            Shown::Pass => out.client.extend_from_slice(part.body),
            Shown::Swallow => {}
            Shown::Gather => self.gathered.extend_from_slice(part.body),
        }
        if part.ends { self.ended(part.kind, out) } else { Ok(()) }
    }

    fn shown(&self, kind: u8, length: u32) -> Result<Shown, Stop> {
        let gathers = || if length <= LOOKED_AT { Shown::Gather } else { Shown::Pass };
        if self.step == Step::Login {
            return Ok(if matches!(kind, b'S' | b'Z') { gathers() } else { Shown::Pass });
        }
        match kind {
            b'A' | b'S' => Ok(Shown::Pass),
            b'N' | b'E' => Ok(gathers()),
            b'C' | b'Z' if length > LOOKED_AT => Err(UNEXPECTED),
            _ if self.owed.first() == Some(&kind) => Ok(if kind == b'Z' { Shown::Gather } else { Shown::Swallow }),
            _ if !self.owed.is_empty() => Err(UNEXPECTED),
            b'Z' if !self.then.is_empty() => Ok(Shown::Gather),
            _ if self.step == Step::Rest => Err(UNEXPECTED),
            b'1' | b'2' | b'n' if self.is_query => Ok(Shown::Swallow),
            b'1' | b'2' | b'3' | b'T' | b't' | b'n' => Ok(Shown::Pass),
            b'D' | b'd' | b'c' | b'H' | b'G' | b'I' | b's' | b'V' if self.step == Step::Running => Ok(Shown::Pass),
            b'C' if self.step == Step::Running => Ok(Shown::Gather),
            _ => Err(UNEXPECTED),
        }
    }

    /// A message of the server's is whole.
    fn ended(&mut self, kind: u8, out: &mut Out) -> Result<(), Stop> {
        let gathered = std::mem::take(&mut self.gathered);
        let ended = self.whole(kind, &gathered, out);
        self.gathered = gathered;
        ended
    }

    fn whole(&mut self, kind: u8, body: &[u8], out: &mut Out) -> Result<(), Stop> {
        let was_gathered = self.shown == Shown::Gather;
        if self.step == Step::Login {
            if kind == b'S' {
                self.version = words::server_version(body).unwrap_or(self.version);
            }
            if was_gathered && kind != b'Z' {
                own::message(kind, &[body], &mut out.client);
            }
            return if kind == b'Z' { self.greeted(body, out) } else { Ok(()) };
        }
        match kind {
            b'A' | b'S' => Ok(()),
            b'N' => {
                if was_gathered && !self.is_of_the_guards_own(body) {
                    own::message(kind, &[body], &mut out.client);
                }
                Ok(())
            }
            b'E' => {
                if was_gathered {
                    // Within the guard's own statements only the guard's own can have failed so.
                    let is_guards_own = !self.owed.is_empty() && words::code(body) == Some(own::CHANGED);
                    let words = &self.words;
                    let is_refused = if is_guards_own {
                        words.write_refusal(&mut out.client);
                        true
                    } else {
                        words.write_error(body, self.is_query, &mut out.client)
                    };
                    self.refused += u32::from(is_refused);
                }
                self.failed(out);
                Ok(())
            }
            b'Z' => self.ready(body, out),
            _ if !self.owed.is_empty() => {
                self.owed = &self.owed[1..];
                Ok(())
            }
            b'C' => {
                own::message(kind, &[body], &mut out.client);
                self.began = matches!(body, b"BEGIN\0" | b"START TRANSACTION\0");
                self.done(out);
                Ok(())
            }
            b'I' | b's' => {
                self.done(out);
                Ok(())
            }
            b'V' => {
                // A ReadyForQuery follows by itself.
                (self.step, self.then) = (Step::Closing, own::SYNCED);
                Ok(())
            }
            b'G' => {
                self.step = Step::CopyIn;
                // The server overlooks a Sync within a COPY.
                self.is_due = self.is_query;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The first ReadyForQuery.
    fn greeted(&mut self, body: &[u8], out: &mut Out) -> Result<(), Stop> {
        if self.version < words::OLDEST {
            return Err(Stop::TooOld(self.version));
        }
        (self.step, self.state) = (Step::Rest, state(body)?);
        own::message(b'Z', &[body], &mut out.client);
        Ok(())
    }

    /// A warning that only the guard's own statements have brought about.
    fn is_of_the_guards_own(&self, body: &[u8]) -> bool {
        let about_blocks = matches!(words::code(body), Some(b"25001" | b"25P01"));
        about_blocks && (!self.owed.is_empty() || !self.in_own_block)
    }

    /// What ran has ended well.
    fn done(&mut self, out: &mut Out) {
        self.close_with(Ending::Commit, out);
    }

    fn close_with(&mut self, how: Ending, out: &mut Out) {
        // What the client began itself it ends itself.
        let ends = self.is_due && !self.in_own_block && !self.began;
        self.close(if ends { Wants::SyncAndEnd(how) } else { Wants::Sync }, out);
    }

    /// The server has said that something failed, and skips to the next Sync.
    fn failed(&mut self, out: &mut Out) {
        match self.step {
            Step::Open | Step::Running | Step::CopyIn => {
                let was_fenced_in = std::mem::take(&mut self.owed).is_empty();
                if self.is_call && was_fenced_in {
                    // After a call that fails it skips nothing.
                    (self.step, self.then) = (Step::Closing, own::SYNCED);
                    return;
                }
                self.skips = !self.is_due;
                self.close_with(Ending::Rollback, out);
            }
            // In the guard's own end of a block: the server skips to the Sync behind it.
            Step::Closing if self.then.is_empty() => {
                self.owed = if self.owed.is_empty() { b"" } else { own::SYNCED };
            }
            Step::Closing => {
                self.owed = b"";
                self.skips = !self.is_due;
            }
            Step::Rest | Step::Login => {}
        }
    }

    /// ReadyForQuery, to the guard's own Sync, or behind a call.
    fn ready(&mut self, body: &[u8], out: &mut Out) -> Result<(), Stop> {
        let owed = if self.owed.is_empty() { std::mem::take(&mut self.then) } else { self.owed };
        let Some((b'Z', rest)) = owed.split_first() else { return Err(UNEXPECTED) };
        (self.owed, self.state) = (rest, state(body)?);
        self.in_own_block = self.state != NONE && (self.in_own_block || std::mem::take(&mut self.began));
        if !rest.is_empty() {
            return Ok(());
        }
        self.step = Step::Rest;
        if self.is_due { self.answer(out) } else { Ok(()) }
    }
}

const UNEXPECTED: Stop = Stop::Server(Malformed("the server says what nothing asked for"));

fn state(body: &[u8]) -> Result<u8, Stop> {
    match body {
        [state @ (NONE | OPEN | FAILED)] => Ok(*state),
        _ => Err(Stop::Server(Malformed("the server says that it is ready in an unknown form"))),
    }
}
