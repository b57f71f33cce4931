//! The lockstep of a reading session: bytes of both sides in, bytes for both sides out. Touches no socket.
//!
//! A *step* is all that the client sends up to one Execute (or one Query, or one FunctionCall), and it follows what the guard
//! has the server run first ([`own::fence_in`]) without a Sync in between: so the server itself skips it where that failed. Once
//! the step is answered comes the guard's Sync, and before the next step the server is fenced in anew, in whatever state the
//! statement left it. So nothing rests on what a statement was. What a statement *said* it was (the tag of a BEGIN) only
//! decides whether the guard ends the transaction when the client expects none: comfort.
//!
//! In a transaction that has failed the server runs nothing but its end: there a step is not fenced in.

mod client;
mod server;

use bytes::{Buf as _, BytesMut};

use super::super::message::{HEAD, LONGEST, Malformed, Walk, number};
use super::own::{self, Ending};
use super::words::Words;

/// So much is kept for the server before more of the client is taken.
const FULL: usize = 128 * 1024;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}
