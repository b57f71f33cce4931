//! The direct path: plain HTTP/1.1 on both sides, without hyper.
//!
//! Most requests are plain: an origin-form target, one Host, a length or no body, nothing said of the connection. For
//! them the bytes go from one socket to the other with the head written anew, in one task for each client connection,
//! with no allocation once the worker is warm; what a role refuses or holds is refused and held here. Everything else
//! (chunked requests, upgrades, `Expect`, trailers, HTTP/1.0, all that is malformed, heads that come in many pieces) is
//! handed to hyper with the bytes that have come, before the role was asked, and the connection comes back when hyper is
//! done with it. So there is nothing to repair here, and what is ambiguous is said in one place, [`super::classify`].
//!
//! What holds for hyper's path ([`super::forward`]) holds here, word for word: the right is confirmed with the
//! connection in hand and no await before the first byte; nothing is sent twice unless the kernel took no byte of it;
//! what was not sent whole is never settled as answered.
//!
//! | file | what it holds |
//! |---|---|
//! | here | a client connection, from request to request |
//! | [`line`] | what comes next on it, and what the role says of that |
//! | [`request`], [`answer`] | heads, read strictly and written anew; [`fields`] is what stands in them |
//! | [`launch`] | a connection, the right confirmed, the first byte |
//! | [`exchange`] | one request and its answer: [`up`] the one, [`down`] the other |
//! | [`pipe`] | long bodies, which nobody copies |
//! | [`chunks`] | the chunked coding of answers |
//! | [`limits`] | time limits, with one timer a connection |
//! | [`idle`] | connections to the upstream |
//! | [`failure`] | what is said where there is no answer |
//! | [`scratch`] | buffers |
//! | [`stream`] | plain HTTP/2 streams, which share all of this but the client's side |

mod answer;
mod chunks;
mod down;
mod exchange;
mod failure;
mod fields;
mod idle;
mod launch;
mod limits;
mod line;
mod pipe;
mod request;
mod scratch;
mod stream;
mod up;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::exchange::{End, Exchange};
use self::failure::Failed;
use self::idle::Idle;
use self::limits::Ticker;
pub use self::line::Line;
use self::line::{Decided, Next, Turn};
use super::Http;
use super::finish::Finish;
use super::forward::Trouble;
use crate::clock::Clock;
use crate::config::resolved::Listener;
use crate::fence::Refusal;
use crate::net::{Closing, Dial, Stage};
use crate::protocol::CutReason;
use crate::protocol::right::Settled;

/// What the direct path of one listener has in one worker.
pub struct Direct {
    idle: Rc<Idle>,
    /// Timers of exchanges that are over: the next ones take them as they are set.
    tickers: RefCell<Vec<Ticker>>,
    clock: Arc<dyn Clock>,
    date: RefCell<Date>,
    on: Cell<bool>,
}

/// A Date field's value, and until when it holds.
#[derive(Default)]
struct Date {
    until: Option<Instant>,
    text: String,
}

impl Direct {
    /// To this listener's upstream, where it is `on`.
    pub fn new(listener: Arc<Listener>, dial: Rc<dyn Dial>, clock: Arc<dyn Clock>, on: bool) -> Direct {
        Direct {
            idle: Idle::new(listener, dial),
            tickers: RefCell::default(),
            clock,
            date: RefCell::default(),
            on: Cell::new(on),
        }
    }

    /// Whether requests may take it.
    pub fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Leaves everything to hyper: the tests of both paths are the same ones.
    #[cfg(test)]
    pub fn turn_off(&self) {
        self.on.set(false);
    }

    /// Writes the Date of now (RFC 9110 6.6.1), for an answer that came without one.
    fn date(&self, now: Instant, to: &mut Vec<u8>) {
        let mut date = self.date.borrow_mut();
        if date.until.is_none_or(|until| now >= until) {
            let wall = self.clock.wall();
            let rest = Duration::from_secs(1)
                .saturating_sub(Duration::from_nanos(wall.subsec_nanosecond().unsigned_abs().into()));
            *date = Date { until: Some(now + rest), text: wall.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string() };
        }
        to.extend_from_slice(date.text.as_bytes());
    }
}

/// How the direct path leaves a connection.
pub enum Left {
    /// Ended.
    Over,
    /// At a request for hyper, of which nothing has been decided.
    AtOdd,
    /// With an answer that the client may not have read, while it still sends.
    Unread,
}

impl Http {
    /// Serves plain requests until another comes, or the connection ends. Dropping the future resets what is under way.
    ///
    /// An idle connection costs what this future is large: what is rare is boxed, and what is large is passed by
    /// reference.
    pub(super) async fn serve_direct(self: &Rc<Http>, line: &mut Line, closing: &mut Closing) -> Left {
        let mut ticker = Ticker::new(&self.listener);
        loop {
            let mut turn = match poll_fn(|context| self.poll_next(line, &mut ticker, closing, context)).await {
                Next::Plain(turn) => turn,
                Next::Odd => return Left::AtOdd,
                Next::Gone => return Left::Over,
                Next::Cut(reason) => {
                    self.role.cut(reason);
                    return Left::Over;
                }
            };
            match self.answered(line, &mut turn, &mut ticker, closing).await {
                Ok(After { unread: true, .. }) => return Left::Unread,
                Ok(After { last: true, .. }) => {
                    if closing.stage() >= Stage::Finishing {
                        self.role.cut(CutReason::Shutdown);
                    }
                    return Left::Over;
                }
                Ok(After { now, .. }) => line.begin_anew(now),
                Err(cut) => {
                    if let Some(reason) = cut {
                        self.role.cut(reason);
                    }
                    return Left::Over;
                }
            }
        }
    }

    /// One request, and its answer; `Err` where the connection is cut.
    async fn answered(
        self: &Rc<Http>,
        line: &mut Line,
        turn: &mut Turn,
        ticker: &mut Ticker,
        closing: &mut Closing,
    ) -> Result<After, Option<CutReason>> {
        let request = loop {
            match turn.decided.take() {
                Some(Decided::Forward(request)) => break request,
                Some(Decided::Hold(held, finish)) => {
                    Box::pin(self.unheld(line, turn, (held, finish), closing)).await.ok_or(None)?;
                }
                Some(Decided::Refuse(refusal, finish)) => {
                    return Box::pin(self.say_refused(line, turn, (refusal, finish))).await;
                }
                None => return Err(None),
            }
        };
        let (failed, resource) = match self.launched(&request, &mut turn.came, closing).await {
            Ok(launched) => {
                let body = std::mem::take(&mut turn.came.body);
                let mut exchange = Exchange::new(self, &mut line.stream, request, body.bytes(), launched);
                drop(body);
                match poll_fn(|context| exchange.poll(ticker, closing, context)).await {
                    End::Answered { unread, last } => return Ok(After { unread, last, now: exchange.now }),
                    End::Cut(trouble) => return Err(reason_of_cut(&trouble)),
                    End::Failed { trouble: Trouble::Closing, .. } => return Err(Some(CutReason::Shutdown)),
                    End::Failed { trouble, unread, outcome, resource } => {
                        turn.came.is_unread = unread;
                        (Failed::Trouble(trouble, outcome), resource)
                    }
                }
            }
            Err(failed) => {
                request.right.settle(Settled::NothingLeft);
                if matches!(failed, Failed::Trouble(Trouble::Closing, _)) {
                    return Err(Some(CutReason::Shutdown));
                }
                (failed, None)
            }
        };
        Box::pin(self.say_failed(line, &turn.came, failed, resource)).await
    }

    /// Says so to the client of a refused request.
    async fn say_refused(
        self: &Rc<Http>,
        line: &mut Line,
        turn: &mut Turn,
        (refusal, mut finish): (Box<Refusal>, Finish),
    ) -> Result<After, Option<CutReason>> {
        finish.ends_as(refusal.reason.outcome());
        turn.came.is_unread = turn.came.is_unread && !self.came_whole(line, &turn.came).await;
        self.say_failed(line, &turn.came, Failed::Refused(refusal), None).await
    }
}

/// What follows a request on its connection.
struct After {
    /// The client has not been read to the end of it: nothing may follow.
    unread: bool,
    /// The client was told that nothing follows.
    last: bool,
    /// When that was.
    now: Instant,
}

/// Why this side ended a connection in the middle of an answer.
fn reason_of_cut(trouble: &Trouble) -> Option<CutReason> {
    tracing::debug!(?trouble, "an answer broke off");
    match trouble {
        Trouble::Fenced => Some(CutReason::Fenced),
        Trouble::ClientIdle => Some(CutReason::Idle),
        Trouble::ClientSlow => Some(CutReason::SlowReader),
        _ => None,
    }
}
