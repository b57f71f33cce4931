//! The right of a connection's writes that are under way: taken with the first, settled when the last is answered.

use super::super::right::Settled;
use super::super::session::{Asked, Finish, Sessions};
use super::super::signal::{Ask, Signal};
use super::super::tunnel::Ends as _;
use super::super::{Decision, Held, Kind, Right};
use super::table::Nature;
use crate::fence::stamp::Stamp;
use crate::fence::{Outcome, Reason, Refusal};

/// Writes under way.
pub struct Writing {
    right: Right,
    /// What the fence wants of them.
    pub signal: Option<Signal>,
    /// The last of them: settled when so many commands have been answered.
    pub until: u64,
    finish: Finish,
}

/// That one command may go to the server. Made here alone, for a write that a confirmed right covers until it is answered, and for
/// what changes nothing.
pub struct Pass {
    _made_here: (),
}

const PASS: Pass = Pass { _made_here: () };

/// What is to become of a command.
pub enum Leave {
    /// It may pass.
    Granted(Pass),
    /// It is refused, and that has been said.
    Refused(Box<Refusal>),
    /// It is asked about again when this resolves.
    Held(Held),
    /// It is asked about again when what is under way has been answered.
    After,
}

impl Writing {
    /// Whether another write may pass with the same right.
    fn covers(&self) -> bool {
        self.signal.as_ref().is_none_or(|signal| signal.asked() < Ask::Hurry) && self.right.goes_on()
    }

    /// Whether more of a write that has begun may be sent.
    pub fn goes_on(&self) -> bool {
        self.right.goes_on()
    }

    /// All of them are over: answered, or seen to be.
    pub fn settle(mut self, outcome: Outcome) {
        self.finish.ends_as(outcome);
        self.right.settle(Settled::Answered);
    }
}

/// Asks for the right to send a write, the `nth` command of its connection, and confirms it: it is to be sent at once.
/// `announced` is the stamp that a stamp has sent ahead.
pub fn ask_for_a_write(
    sessions: &Sessions,
    asked: &Asked<'_>,
    announced: Option<&[u8]>,
    nth: u64,
    writing: &mut Option<Writing>,
) -> Leave {
    if let Some(writing) = writing {
        if !writing.covers() {
            return Leave::After;
        }
        writing.until = nth;
        return Leave::Granted(PASS);
    }
    let right = match decide(sessions, asked) {
        Ok(right) => right,
        Err(leave) => return leave,
    };
    if sessions.is_stamp() && !is_of(announced, right.stamp().map(http::HeaderValue::as_bytes)) {
        right.settle(Settled::NothingLeft);
        let detail =
            "this connection was made before the writer's present term began; nothing was applied: connect again";
        return refused(sessions, asked, Box::new(Refusal::new(Reason::TermChanged, detail)));
    }
    let mut finish = sessions.begin(Kind::Write);
    finish.ends_as(Outcome::Unknown);
    *writing = Some(Writing { signal: right.signal(), right, until: nth, finish });
    Leave::Granted(PASS)
}

/// Asks for leave to send a read. It changes nothing, so nothing of it is kept.
pub fn ask_for_a_read(sessions: &Sessions, asked: &Asked<'_>) -> Leave {
    match decide(sessions, asked) {
        Ok(right) => {
            right.settle(Settled::Answered);
            Leave::Granted(PASS)
        }
        Err(leave) => leave,
    }
}

/// Leave for what the role is not asked about: what neither reads nor writes, and reads where only writes are fenced.
pub fn without_asking(nature: Nature, asks_reads: bool) -> Option<Pass> {
    match nature {
        Nature::Neutral => Some(PASS),
        Nature::Read => (!asks_reads).then_some(PASS),
        Nature::Write => None,
    }
}

/// A right that was confirmed, or what is to become of the command without.
fn decide(sessions: &Sessions, asked: &Asked<'_>) -> Result<Right, Leave> {
    let right = match sessions.ask(asked) {
        Decision::Forward(right) => right,
        Decision::Refuse(refusal) => return Err(refused(sessions, asked, refusal)),
        Decision::Hold(held) => return Err(Leave::Held(held)),
    };
    match right.confirm() {
        Ok(()) => Ok(right),
        Err(refusal) => {
            right.settle(Settled::NothingLeft);
            Err(refused(sessions, asked, refusal))
        }
    }
}

/// Says that a command is refused, to all but its client.
pub fn refused(sessions: &Sessions, asked: &Asked<'_>, refusal: Box<Refusal>) -> Leave {
    sessions.say_refused(asked, &refusal);
    // Dropped: not applied.
    drop(sessions.begin(asked.kind));
    Leave::Refused(refusal)
}

/// Whether two stamps are of the same term: whatever they are signed with.
fn is_of(announced: Option<&[u8]>, own: Option<&[u8]>) -> bool {
    match (announced, own) {
        (Some(announced), Some(own)) => announced == own || Stamp::parse(announced) == Stamp::parse(own),
        _ => false,
    }
}
