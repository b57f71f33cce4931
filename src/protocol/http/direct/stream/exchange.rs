//! A stream's request of which something has left, or is about to, and its answer.
//!
//! The rules are those of [`super::super::exchange`]: every way out settles the right exactly once, before the last byte of
//! the answer is handed on; dropping the exchange resets the connection, and then settles.

use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::super::super::Http;
use super::super::super::finish::{Finish, Running};
use super::super::super::forward::Trouble;
use super::super::down::Down;
use super::super::idle::Upstream;
use super::super::limits::{Limits, Ticker};
use super::down::Part;
use super::up::Body;
use crate::fence::{Outcome, Resource};
use crate::net::{Closing, Stage};
use crate::protocol::right::{Keeper, Settled};
use crate::protocol::signal::{Ask, Signal};
use crate::protocol::{Kind, Right};

/// So many timers wait for their next exchange.
const MOST_TICKERS: usize = 256;

/// A request under way.
pub struct Exchange {
    pub(super) http: Rc<Http>,
    /// Declared, and so reset, before the right is given back.
    pub(super) upstream: Option<Upstream>,
    right: Option<Right>,
    pub(super) write: bool,
    pub(super) keeper: Option<Rc<dyn Keeper>>,
    pub(super) signal: Option<Signal>,
    pub(super) finish: Finish,
    pub(super) is_head: bool,
    pub(super) body: Body,
    /// Whether a byte has left.
    pub(super) left: bool,
    /// Whether all of it has.
    pub(super) sent: bool,
    /// Whether the upstream takes no more of it; its answer may be there all the same.
    pub(super) deaf: bool,
    pub(super) down: Down,
    /// How many interim answers there were.
    pub(super) interim: u32,
    pub(super) stays: bool,
    pub(super) no_answer: bool,
    pub(super) outcome: Outcome,
    pub(super) limits: Limits,
    /// What its right was for, where it was given up.
    pub given_up: Option<Resource>,
    /// There until the exchange is dropped.
    ticker: Option<Ticker>,
    closing: Closing,
    _running: Option<Running>,
}

impl Exchange {
    /// Of a request of whose head, and of what had come of its body, the upstream has taken a part (`left`: any of it).
    pub fn new(
        http: &Rc<Http>,
        upstream: Upstream,
        (right, mut finish): (Right, Finish),
        (body, is_head): (Body, bool),
        (left, now): (bool, Instant),
        closing: Closing,
    ) -> Exchange {
        if left {
            finish.ends_as(Outcome::Unknown);
        }
        let write = right.kind() == Kind::Write;
        let ticker = http.direct.tickers.borrow_mut().pop().unwrap_or_else(|| Ticker::new(&http.listener));
        Exchange {
            http: Rc::clone(http),
            upstream: Some(upstream),
            keeper: right.keeper(),
            signal: right.signal(),
            write,
            right: Some(right),
            finish,
            is_head,
            left,
            sent: left && body.is_all_out(),
            body,
            deaf: false,
            down: Down::Head(Vec::new()),
            interim: 0,
            stays: false,
            no_answer: false,
            outcome: Outcome::Answered,
            limits: Limits::new(now),
            given_up: None,
            ticker: Some(ticker),
            closing,
            _running: write.then(|| Running::on(http)),
        }
    }

    /// What became of a request that was given up.
    pub fn outcome_given_up(&self) -> Outcome {
        if self.left { Outcome::Unknown } else { Outcome::NotApplied }
    }

    /// Whether the answer is whole.
    pub fn is_over(&self) -> bool {
        matches!(self.down, Down::Whole)
    }

    /// Whether it goes on where its client leaves.
    pub fn outlives_its_client(&self) -> bool {
        self.write && self.left && self.right.is_some()
    }

    /// Whether the fence wants it read without waiting for the client.
    pub fn is_hurried(&mut self, context: &Context<'_>) -> bool {
        self.signal.as_mut().is_some_and(|signal| signal.poll_for(Ask::Hurry, context).is_ready())
    }

    /// Goes as far as it goes now: to the next part of the answer. After an error it is over, and settled.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Part, Trouble>> {
        let now = Instant::now();
        // The answer first: one that was there before the rest of the request left says nothing of that rest.
        match self.poll_down(now, context) {
            Poll::Ready(Ok(part)) => return Poll::Ready(Ok(part)),
            Poll::Ready(Err(trouble)) => return Poll::Ready(Err(self.give_up(trouble))),
            Poll::Pending => {}
        }
        if let Poll::Ready(Err(trouble)) = self.poll_up(now, context) {
            return Poll::Ready(Err(self.give_up(trouble)));
        }
        self.poll_trouble(now, context).map(|trouble| Err(self.give_up(trouble)))
    }

    /// Where the upstream took nothing at once: since the right was confirmed, others have had their turn.
    pub(super) fn confirm_again(&self) -> Result<(), Trouble> {
        match &self.right {
            Some(right) if !self.left => right.confirm().map_err(Trouble::NotSent),
            _ => Ok(()),
        }
    }

    pub(super) fn settle(&mut self, how: Settled, outcome: Outcome) {
        self.finish.ends_as(outcome);
        if let Some(right) = self.right.take() {
            right.settle(how);
        }
    }

    /// Ends what has no whole answer: nothing of it leaves from here on.
    fn give_up(&mut self, trouble: Trouble) -> Trouble {
        drop(self.upstream.take());
        self.given_up = self.right.as_ref().and_then(Right::resource).cloned();
        let how = if self.left { Settled::Lost } else { Settled::NothingLeft };
        self.settle(how, self.outcome_given_up());
        if self.left { trouble } else { trouble.before_the_first_byte() }
    }

    /// Ready when the request has to be given up.
    fn poll_trouble(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<Trouble> {
        if let Some(signal) = &mut self.signal
            && let Poll::Ready(asked) = signal.poll_for(Ask::CutHalfSent, context)
            && (!self.sent || asked == Ask::Cut || signal.poll_for(Ask::Cut, context).is_ready())
        {
            return Poll::Ready(Trouble::Fenced);
        }
        if self.closing.watch(context) == Stage::Now {
            return Poll::Ready(Trouble::Closing);
        }
        let Some(ticker) = &mut self.ticker else { return Poll::Pending };
        let deadline = self.limits.deadline(&self.http.listener, self.body.is_open(), self.sent);
        ticker.poll_late(&mut self.limits.catching_up, now, deadline.0, context).map(|()| deadline.1)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.right.is_some() {
            self.give_up(Trouble::Closing);
        }
        if let Some(ticker) = self.ticker.take() {
            let mut tickers = self.http.direct.tickers.borrow_mut();
            if tickers.len() < MOST_TICKERS {
                tickers.push(ticker);
            }
        }
    }
}
