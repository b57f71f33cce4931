//! What of the bytes that a client has sent may go to its server: whole commands that have leave, and nothing else.
//!
//! Nothing of a client is written to its server but an [`Allowed`], and only a [`Read`] makes one, of commands that were each handed
//! over with a [`Pass`]. A pass in turn comes from [`super::writing`] alone: from a confirmed right, or for what changes nothing.

use super::request::{Malformed, Rest};
use super::writing::Pass;

/// What the server is told in place of an EXEC that is refused: it drops what was queued.
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

/// A command whose first part was handed over, and of which more is to come.
#[derive(Default)]
pub enum Begun {
    /// There is none.
    #[default]
    Nothing,
    /// One that has leave.
    Passing(Pass, Rest),
    /// One that goes nowhere.
    Dropping(Rest),
}

impl Begun {
    /// Whether the command is over.
    pub fn is_over(&self) -> bool {
        match self {
            Begun::Nothing => true,
            Begun::Passing(_, rest) | Begun::Dropping(rest) => rest.is_over(),
        }
    }
}

/// Bytes that may go to the server.
#[derive(Clone, Copy)]
pub struct Allowed<'a>(&'a [u8]);

impl<'a> Allowed<'a> {
    /// DISCARD.
    pub fn discard() -> Allowed<'static> {
        Allowed(DISCARD)
    }

    /// The bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// What was read of a client at once, taken command by command. What passes is kept in one piece for as long as it is one.
pub struct Read<'a> {
    bytes: &'a [u8],
    /// What passes begins here...
    from: usize,
    /// ...and this is how far it was taken.
    at: usize,
}

impl<'a> Read<'a> {
    /// Nothing is taken yet.
    pub fn of(bytes: &'a [u8]) -> Read<'a> {
        Read { bytes, from: 0, at: 0 }
    }

    /// What was not taken yet.
    pub fn ahead(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// How much was taken.
    pub fn taken(&self) -> usize {
        self.at
    }

    /// So much passes with this leave.
    pub fn pass(&mut self, _: &Pass, length: usize) {
        self.at += length;
    }

    /// So much is no command, and the server does nothing for it ([`Front::Nothing`](super::request::Front::Nothing)): it passes too.
    pub fn pass_nothing(&mut self, length: usize) {
        self.at += length;
    }

    /// So much does not pass; what passes before it is to be sent.
    pub fn skip(&mut self, length: usize) -> Allowed<'a> {
        let allowed = self.allowed();
        self.at += length;
        self.from = self.at;
        allowed
    }

    /// What passes and was not given out yet.
    pub fn allowed(&mut self) -> Allowed<'a> {
        let allowed = Allowed(&self.bytes[self.from..self.at]);
        self.from = self.at;
        allowed
    }

    /// Takes what has come of a command that had begun; what passes before is to be sent.
    ///
    /// # Errors
    /// Where it is no command; what came before passes.
    pub fn go_on(&mut self, begun: &mut Begun) -> Result<Allowed<'a>, Malformed> {
        const NOTHING: Allowed<'static> = Allowed(&[]);
        match begun {
            Begun::Nothing => Ok(NOTHING),
            Begun::Passing(pass, rest) => {
                let taken = rest.pass(self.ahead())?;
                self.pass(pass, taken);
                Ok(NOTHING)
            }
            Begun::Dropping(rest) => {
                let taken = rest.pass(self.ahead())?;
                Ok(self.skip(taken))
            }
        }
    }
}
