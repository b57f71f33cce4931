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
//! | [`request`], [`answer`] | heads, read strictly and written anew |
//! | [`launch`] | a connection, the right confirmed, the first byte |
//! | [`exchange`] | one request and its answer: [`up`] the one, [`down`] the other |
//! | [`chunks`] | the chunked coding of answers |
//! | [`limits`] | time limits, with one timer a connection |
//! | [`idle`] | connections to the upstream |
//! | [`failure`] | what is said where there is no answer |
//! | [`scratch`] | buffers |

mod answer;
mod chunks;
mod down;
mod exchange;
mod failure;
mod idle;
mod launch;
mod limits;
mod line;
mod request;
mod scratch;
mod up;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use self::exchange::{End, Exchange, Request};
use self::failure::Failed;
use self::idle::Idle;
use self::limits::Ticker;
pub use self::line::Line;
use self::line::{Came, Decided, Next};
use super::Http;
use super::forward::Trouble;
use crate::clock::Clock;
use crate::config::resolved::Listener;
use crate::net::{Closing, Dial, Stage};
use crate::protocol::CutReason;

/// What the direct path of one listener has in one worker.
pub struct Direct {
    idle: Rc<Idle>,
    clock: Arc<dyn Clock>,
    /// The Date field of this second.
    date: RefCell<(i64, String)>,
    on: Cell<bool>,
}

impl Direct {
    /// To this listener's upstream, where it is `on`.
    pub fn new(listener: Arc<Listener>, dial: Rc<dyn Dial>, clock: Arc<dyn Clock>, on: bool) -> Direct {
        Direct { idle: Idle::new(listener, dial), clock, date: RefCell::default(), on: Cell::new(on) }
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
    fn date(&self, to: &mut Vec<u8>) {
        let now = self.clock.wall();
        let mut date = self.date.borrow_mut();
        if date.0 != now.as_second() || date.1.is_empty() {
            *date = (now.as_second(), now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        to.extend_from_slice(date.1.as_bytes());
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
    pub(super) async fn serve_direct(self: &Rc<Http>, line: &mut Line, closing: &mut Closing) -> Left {
        let mut ticker = Ticker::new(&self.listener);
        loop {
            let next = poll_fn(|context| self.poll_next(line, &mut ticker, closing, context)).await;
            let (came, decided) = match next {
                Next::Plain(came, decided) => (came, decided),
                Next::Odd => return Left::AtOdd,
                Next::Gone => return Left::Over,
                Next::Cut(reason) => {
                    self.role.cut(reason);
                    return Left::Over;
                }
            };
            match self.answered(line, came, decided, &mut ticker, closing).await {
                Ok(After { unread: true, .. }) => return Left::Unread,
                Ok(After { last: true, .. }) => {
                    if closing.stage() >= Stage::Finishing {
                        self.role.cut(CutReason::Shutdown);
                    }
                    return Left::Over;
                }
                Ok(After { .. }) => {}
                Err(cut) => {
                    if let Some(reason) = cut {
                        self.role.cut(reason);
                    }
                    return Left::Over;
                }
            }
            let now = Instant::now();
            line.idle_since = now;
            line.unseen = !line.ahead.is_empty();
            line.head_since = line.unseen.then_some(now);
        }
    }

    /// One request, and its answer; `Err` where the connection is cut.
    async fn answered(
        self: &Rc<Http>,
        line: &mut Line,
        mut came: Came,
        mut decided: Decided,
        ticker: &mut Ticker,
        closing: &mut Closing,
    ) -> Result<After, Option<CutReason>> {
        loop {
            match decided {
                Decided::Forward(request) => return self.exchange(line, came, request, ticker, closing).await,
                Decided::Hold(held, finish) => {
                    decided = self.unheld(line, &mut came, (held, finish), closing).await.ok_or(None)?;
                }
                Decided::Refuse(refusal, mut finish) => {
                    finish.ends_as(refusal.reason.outcome());
                    let after =
                        After { unread: came.is_unread() && !self.came_whole(line, &came).await, last: came.close };
                    return self.say_failed(line, &came.head, Failed::Refused(refusal), None, after).await;
                }
            }
        }
    }

    async fn exchange(
        self: &Rc<Http>,
        line: &mut Line,
        came: Came,
        request: Request,
        ticker: &mut Ticker,
        closing: &mut Closing,
    ) -> Result<After, Option<CutReason>> {
        let mut after = After { unread: came.is_unread(), last: came.close };
        let Came { head, mut body, .. } = came;
        let (failed, resource) = match self.launched(request, &mut body, closing).await {
            Ok((request, upstream, taken)) => {
                let mut exchange = Exchange::new(self, &mut line.stream, upstream, request, body.bytes(), taken);
                drop(body);
                match poll_fn(|context| exchange.poll(ticker, closing, context)).await {
                    End::Answered { unread, last } => return Ok(After { unread, last }),
                    End::Cut(trouble) => return Err(reason_of_cut(&trouble)),
                    End::Failed { trouble: Trouble::Closing, .. } => return Err(Some(CutReason::Shutdown)),
                    End::Failed { trouble, unread, resource } => {
                        after.unread = unread;
                        (Failed::Trouble(trouble), resource)
                    }
                }
            }
            Err(Failed::Trouble(Trouble::Closing)) => return Err(Some(CutReason::Shutdown)),
            Err(failed) => (failed, None),
        };
        self.say_failed(line, &head, failed, resource, after).await
    }
}

/// What follows a request on its connection.
struct After {
    /// The client has not been read to the end of it: nothing may follow.
    unread: bool,
    /// The client was told that nothing follows.
    last: bool,
}

/// Why this side ended a connection in the middle of an answer.
fn reason_of_cut(trouble: &Trouble) -> Option<CutReason> {
    tracing::debug!(?trouble, "an answer broke off");
    match trouble {
        Trouble::Fenced => Some(CutReason::Fenced),
        Trouble::ClientIdle => Some(CutReason::Idle),
        _ => None,
    }
}
