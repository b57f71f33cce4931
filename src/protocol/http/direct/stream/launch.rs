//! The first byte of a stream's request: a connection in hand, the right confirmed, and no await in between.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::super::super::Http;
use super::super::super::finish::Finish;
use super::super::super::forward::Trouble;
use super::super::failure::Failed;
use super::super::idle::Upstream;
use super::super::scratch::Scratch;
use super::exchange::Exchange;
use super::up::Body;
use crate::fence::Outcome;
use crate::net::Closing;
use crate::protocol::right::Settled;
use crate::protocol::{Kind, Right};

/// A request of which nothing has left. Dropped, as when its client leaves, it says so.
pub struct Unsent {
    /// There until the first byte leaves.
    right: Option<(Right, Finish)>,
    /// The head as the upstream is to see it.
    head: Scratch,
    body: Body,
    is_head: bool,
}

impl Unsent {
    /// With the right to it.
    pub fn new(right: Right, finish: Finish, head: Scratch, body: Body, is_head: bool) -> Unsent {
        Unsent { right: Some((right, finish)), head, body, is_head }
    }

    fn right(&self) -> &Right {
        &self.right.as_ref().expect("it is there until the first byte leaves").0
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some((right, _finish)) = self.right.take() {
            right.settle(Settled::NothingLeft);
        }
    }
}

/// Why nothing has left.
pub enum NotSent {
    /// There is no connection, or the upstream had closed it, so that the kernel took nothing: it may go out on another.
    Unconnected(Box<Unsent>),
    Failed(Failed),
}

impl Http {
    /// Confirms the right, and writes.
    pub(super) fn first_byte(
        self: &Rc<Http>,
        mut unsent: Unsent,
        mut upstream: Upstream,
        closing: &Closing,
        now: Instant,
    ) -> Result<Exchange, NotSent> {
        // Whoever waits for the answer polls all of this again.
        let mut context = Context::from_waker(Waker::noop());
        if unsent.body.ahead.is_empty()
            && let Poll::Ready(Err(spoilt)) = unsent.body.poll_ahead(&self.names, &mut context)
        {
            self.direct.idle.give_back(upstream, now);
            return Err(NotSent::Failed(Failed::Trouble(Trouble::Spoilt(spoilt), Outcome::NotApplied)));
        }
        if let Err(refusal) = unsent.right().confirm() {
            self.direct.idle.give_back(upstream, now);
            return Err(NotSent::Failed(Failed::Refused(refusal)));
        }
        // However the connection ends from here on: what it carries is a write without an answer.
        upstream.stream.reset_on_close().set(unsent.right().kind() == Kind::Write);
        let taken = match unsent.body.poll_write(&unsent.head, &mut upstream.stream, &mut context) {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Pending => 0,
            Poll::Ready(Err(_)) if upstream.used => return Err(NotSent::Unconnected(Box::new(unsent))),
            Poll::Ready(Err(error)) => return Err(NotSent::Failed(Failed::Unreachable(error.to_string()))),
        };
        let right = unsent.right.take().expect("it is there until the first byte leaves");
        let mut body = std::mem::take(&mut unsent.body);
        match taken.checked_sub(unsent.head.len()) {
            Some(of_body) => body.left(of_body),
            None => body.ahead.push_front(Bytes::copy_from_slice(&unsent.head[taken..])),
        }
        Ok(Exchange::new(self, upstream, right, (body, unsent.is_head), (taken > 0, now), closing.clone()))
    }

    /// Has the first byte leave, on a new connection where there is no other. It tries one that waited first, and each
    /// once.
    pub(super) async fn launched_stream(
        self: &Rc<Http>,
        mut unsent: Box<Unsent>,
        closing: &mut Closing,
    ) -> Result<Exchange, Failed> {
        let mut waiting = self.direct.idle.take(Instant::now());
        loop {
            let upstream = match waiting.take() {
                Some(upstream) => upstream,
                None => Box::pin(self.dialled(unsent.right(), closing)).await?,
            };
            match self.first_byte(*unsent, upstream, closing, Instant::now()) {
                Ok(exchange) => return Ok(exchange),
                Err(NotSent::Failed(failed)) => return Err(failed),
                Err(NotSent::Unconnected(again)) => unsent = again,
            }
        }
    }
}
