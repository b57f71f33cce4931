//! The client's side: what of it leaves and when, and what the guard sends itself.

use super::super::own::{self, Ending};
use super::{FAILED, Fate, Lockstep, NONE, Out, Step, Stop, Wants};
use crate::protocol::postgres::message::Malformed;

/// So often is a block ended that the client has not asked for: a request to cancel may hit the end itself.
const TRIES: u8 = 5;

impl Lockstep {
    pub(super) fn fate(&mut self, kind: u8, out: &mut Out) -> Result<Fate, Stop> {
        if self.step == Step::Login {
            return match kind {
                b'p' => Ok(Fate::Pass),
                b'X' => Err(Stop::Terminated),
                // It speaks before it is asked: that waits.
                _ => Ok(Fate::Wait),
            };
        }
        if !b"PBCDEHSQFdcfX".contains(&kind) {
            return Err(Stop::Client(Malformed("a client sends no message of this type")));
        }
        match (self.step, kind) {
            (Step::Running | Step::Closing, b'X') => Ok(Fate::Wait),
            (_, b'X') => Err(Stop::Terminated),
            (Step::Rest, b'S') => Ok(self.client_synced(out)?),
            (Step::Rest, _) if self.skips => Ok(Fate::Drop),
            (Step::Rest, b'H' | b'd' | b'c' | b'f') => Ok(Fate::Drop),
            (Step::Rest, _) => {
                self.open(kind, out);
                Ok(Fate::Pass)
            }
            (Step::Open, b'P' | b'B' | b'C' | b'D' | b'E' | b'H') => Ok(Fate::Pass),
            (Step::Open, b'd' | b'c' | b'f') => Ok(Fate::Drop),
            (Step::Open, _) => {
                self.close(Wants::Sync, out);
                Ok(Fate::Wait)
            }
            (Step::Running, b'S') if !self.is_due => {
                self.is_due = true;
                Ok(Fate::Drop)
            }
            (Step::Running, b'H') => Ok(Fate::Drop),
            (Step::Running | Step::Closing | Step::Login, _) => Ok(Fate::Wait),
            (Step::CopyIn, b'd' | b'c' | b'f') => Ok(Fate::Pass),
            (Step::CopyIn, b'S' | b'H') => Ok(Fate::Drop),
            (Step::CopyIn, _) => Err(Stop::Client(Malformed("a message comes within COPY that cannot"))),
        }
    }

    /// Fences the server in for what follows.
    fn open(&mut self, kind: u8, out: &mut Out) {
        self.step = Step::Open;
        (self.is_query, self.is_call) = (kind == b'Q', kind == b'F');
        self.is_due = self.is_query || self.is_call;
        self.began = false;
        if self.state != FAILED {
            own::fence_in(&mut out.server);
            self.owed = own::FENCED_IN;
        }
    }

    /// The message that was passing is whole.
    pub(super) fn passed(&mut self, out: &mut Out) {
        let Some(passing) = self.passing.take().filter(|passing| passing.passes) else { return };
        if passing.kind == b'Q' {
            // Also where the server has failed before: it skips all of this.
            own::parse_ends(&mut out.server);
        }
        match (self.step, passing.kind) {
            (Step::Open, b'Q' | b'F') => self.step = Step::Running,
            (Step::Open, b'E') => {
                self.step = Step::Running;
                own::flush(&mut out.server);
            }
            (Step::CopyIn, b'c' | b'f') => {
                self.step = Step::Running;
                own::flush(&mut out.server);
            }
            _ => {}
        }
        self.send_what_waits(out);
    }

    /// A Sync has come, and nothing is under way: the client waits for a ReadyForQuery.
    fn client_synced(&mut self, out: &mut Out) -> Result<Fate, Stop> {
        if !self.down.is_between() {
            return Ok(Fate::Wait);
        }
        (self.skips, self.is_due) = (false, true);
        self.answer(out)?;
        Ok(Fate::Drop)
    }

    /// Says ReadyForQuery, once no block of the guard's is open any more.
    pub(super) fn answer(&mut self, out: &mut Out) -> Result<(), Stop> {
        if self.in_own_block || self.state == NONE {
            (self.is_due, self.tries) = (false, 0);
            own::message(b'Z', &[&[self.state]], &mut out.client);
            return Ok(());
        }
        self.tries += 1;
        if self.tries > TRIES {
            return Err(Stop::Server(Malformed("the server does not end a transaction")));
        }
        let how = if self.state == FAILED { Ending::Rollback } else { Ending::Commit };
        own::end(how, &mut out.server);
        (self.step, self.owed) = (Step::Closing, how.ended());
        Ok(())
    }

    pub(super) fn close(&mut self, wants: Wants, out: &mut Out) {
        (self.step, self.wants) = (Step::Closing, Some(wants));
        self.send_what_waits(out);
    }

    fn send_what_waits(&mut self, out: &mut Out) {
        if self.is_half_sent() {
            return;
        }
        let Some(wants) = self.wants.take() else { return };
        own::sync(&mut out.server);
        self.then = own::SYNCED;
        if let Wants::SyncAndEnd(how) = wants {
            own::end(how, &mut out.server);
            self.then = how.synced_and_ended();
        }
    }
}
