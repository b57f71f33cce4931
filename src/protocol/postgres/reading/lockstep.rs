//! The lockstep of a reading session: bytes of both sides in, bytes for both sides out. Touches no socket.
//!
//! A *step* is all that the client sends up to one Execute (or one Query, or one FunctionCall), and it follows what the guard
//! has the server run first ([`own::fence_in`]) without a Sync in between: so the server itself skips it where that failed. Once
//! the step is answered comes the guard's Sync, and before the next step the server is fenced in anew, in whatever state the
//! statement left it. So nothing rests on what a statement was. What a statement *said* it was (the tag of a BEGIN) only
//! decides whether the guard ends the transaction when the client expects none: comfort.
//!
//! In a transaction that has failed the server runs nothing but its end: there a step is not fenced in.

use bytes::{Buf as _, BytesMut};

use super::super::message::{HEAD, LONGEST, Malformed, Part, Walk, number};
use super::own::{self, Ending};
use super::words::{self, Words};

/// So much is kept for the server before more of the client is taken.
const FULL: usize = 128 * 1024;
/// So much of a message is gathered to be looked at; a longer one passes as it is.
const LOOKED_AT: u32 = 64 * 1024;
/// So often is a block ended that the client has not asked for: a request to cancel may hit the end itself.
const TRIES: u8 = 5;

/// The state of the server's transaction, as ReadyForQuery says it.
const NONE: u8 = b'I';
const OPEN: u8 = b'T';
const FAILED: u8 = b'E';

/// What is to leave, each way.
#[derive(Debug, Default)]
pub struct Out {
    /// For the server.
    pub server: BytesMut,
    /// For the client.
    pub client: BytesMut,
}

/// Why a session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client has said that it ends.
    Terminated,
    /// The client does not speak the protocol.
    Client(Malformed),
    /// The server does not, or has not done what it was told.
    Server(Malformed),
    /// The server is of this major version, or of an unknown one (0), where read-only transactions can write.
    TooOld(u32),
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The server has not greeted the client yet.
    Login,
    /// Nothing is under way.
    Rest,
    /// What leads up to an Execute passes.
    Open,
    /// An Execute or a call has left, and its end has not come.
    Running,
    /// The server takes in a COPY.
    CopyIn,
    /// A ReadyForQuery is to come.
    Closing,
}

/// What ends a step, once no message of the client's stands half sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Sync,
    SyncAndEnd(Ending),
}

/// What becomes of a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    /// It is taken when something else has come.
    Wait,
}

/// A client's message that has begun.
#[derive(Clone, Copy, Debug)]
struct Passing {
    kind: u8,
    left: usize,
    passes: bool,
}

/// What becomes of a server's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Pass,
    Swallow,
    /// It is looked at when it is whole.
    Gather,
}

/// One reading session.
#[derive(Debug)]
pub struct Lockstep {
    words: Words,
    step: Step,
    passing: Option<Passing>,
    down: Walk,
    shown: Shown,
    gathered: Vec<u8>,
    version: u32,
    /// What the server answers next to the guard's own messages, before anything else.
    owed: &'static [u8],
    /// What it answers to them after what it still answers to the client's, from a ReadyForQuery on.
    then: &'static [u8],
    wants: Option<Wants>,
    state: u8,
    /// The client has begun a transaction itself, and is to see it.
    in_own_block: bool,
    /// The statement of this step said that it was a BEGIN.
    began: bool,
    /// The step is a Query, of which the client sees no answers to the guard's Parse and Bind.
    is_query: bool,
    /// It is a FunctionCall, which the server answers with a ReadyForQuery of its own.
    is_call: bool,
    /// The client waits for a ReadyForQuery.
    is_due: bool,
    /// What the client sends up to its next Sync is dropped, as the server does it after an error.
    skips: bool,
    tries: u8,
    refused: u32,
}

impl Lockstep {
    /// Of a session whose startup message is on its way. `words` are what stands behind each refused write.
    pub fn new(words: Words) -> Lockstep {
        Lockstep {
            words,
            step: Step::Login,
            passing: None,
            down: Walk::default(),
            shown: Shown::Pass,
            gathered: Vec::new(),
            version: 0,
            owed: b"",
            then: b"",
            wants: None,
            state: NONE,
            in_own_block: false,
            began: false,
            is_query: false,
            is_call: false,
            is_due: false,
            skips: false,
            tries: 0,
            refused: 0,
        }
    }

    /// Takes what may be taken now of what the client has sent; the rest is to be shown again when the server has spoken, or when
    /// `out.server` has room.
    ///
    /// # Errors
    /// Where the session cannot go on.
    pub fn client(&mut self, bytes: &mut BytesMut, out: &mut Out) -> Result<(), Stop> {
        while out.server.len() < FULL {
            if let Some(passing) = &mut self.passing {
                let here = bytes.len().min(passing.left);
                if passing.passes {
                    out.server.extend_from_slice(&bytes[..here]);
                }
                bytes.advance(here);
                passing.left -= here;
                if passing.left > 0 {
                    return Ok(());
                }
                self.passed(out);
            }
            let (Some(kind), Some(length)) = (bytes.first().copied(), number(bytes, 1)) else { return Ok(()) };
            if !(4..=LONGEST).contains(&length) {
                return Err(Stop::Client(Malformed("a message has a length that none can have")));
            }
            let passes = match self.fate(kind, out)? {
                Fate::Wait => return Ok(()),
                fate => fate == Fate::Pass,
            };
            bytes.advance(HEAD);
            let length = length - 4;
            match kind {
                b'Q' if passes => own::parse_begins(length, &mut out.server),
                _ if passes => own::head(kind, length, &mut out.server),
                _ => {}
            }
            self.passing = Some(Passing { kind, left: length as usize, passes });
        }
        Ok(())
    }

    /// Takes what the server has sent, all of it.
    ///
    /// # Errors
    /// Where the session cannot go on.
    pub fn server(&mut self, bytes: &[u8], out: &mut Out) -> Result<(), Stop> {
        let (mut walk, mut stop) = (self.down, None);
        let walked = walk.over(bytes, |part| {
            self.said(part, out).map_err(|why| {
                stop = Some(why);
                Malformed("the session cannot go on")
            })
        });
        self.down = walk;
        match (stop, walked) {
            (Some(stop), _) => Err(stop),
            (None, Err(why)) => Err(Stop::Server(why)),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Whether the server has greeted the client, and nothing is under way, no transaction of the client's either.
    pub fn rests(&self) -> bool {
        self.step == Step::Rest && !self.in_own_block && self.passing.is_none()
    }

    /// Whether the client can be told something: its stream stands between two messages.
    pub fn is_between_replies(&self) -> bool {
        self.down.is_between()
    }

    /// Whether the server can be: what has left for it ends with a whole message.
    pub fn is_between_messages(&self) -> bool {
        self.step != Step::Login && !self.is_half_sent()
    }

    /// How many writes the server has refused since this was asked last.
    pub fn take_refused(&mut self) -> u32 {
        std::mem::take(&mut self.refused)
    }

    fn is_half_sent(&self) -> bool {
        self.passing.is_some_and(|passing| passing.passes)
    }

    // ---- the client's side ---------------------------------------------------------------------------------------------------

    fn fate(&mut self, kind: u8, out: &mut Out) -> Result<Fate, Stop> {
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
            // Of an error behind which the server skips.
            (Step::Open | Step::Running, b'd' | b'c' | b'f') => Ok(Fate::Drop),
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
    fn passed(&mut self, out: &mut Out) {
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
    fn answer(&mut self, out: &mut Out) -> Result<(), Stop> {
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
        (self.step, self.owed) = (Step::Closing, own::ENDED);
        Ok(())
    }

    fn close(&mut self, wants: Wants, out: &mut Out) {
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
            self.then = own::SYNCED_AND_ENDED;
        }
    }

    // ---- the server's side ---------------------------------------------------------------------------------------------------

    fn said(&mut self, part: Part<'_>, out: &mut Out) -> Result<(), Stop> {
        if part.begins {
            self.gathered.clear();
            self.shown = self.shown(part.kind, part.length)?;
            if self.shown == Shown::Pass {
                own::head(part.kind, part.length, &mut out.client);
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
            _ if self.owed.first() == Some(&kind) => Ok(if kind == b'Z' { Shown::Gather } else { Shown::Swallow }),
            _ if !self.owed.is_empty() => Err(UNEXPECTED),
            b'Z' if !self.then.is_empty() => Ok(Shown::Gather),
            _ if self.step == Step::Rest => Err(UNEXPECTED),
            b'1' | b'2' | b'n' if self.is_query => Ok(Shown::Swallow),
            b'1' | b'2' | b'3' | b'T' | b't' | b'n' => Ok(Shown::Pass),
            b'D' | b'd' | b'c' | b'H' | b'G' | b'I' | b's' | b'V' if self.step == Step::Running => Ok(Shown::Pass),
            b'C' if self.step == Step::Running => Ok(gathers()),
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
                    self.refused += u32::from(self.words.write_error(body, self.is_query, &mut out.client));
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
            Step::Closing if self.then.is_empty() => self.owed = own::SYNCED,
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
