//! The first byte of a request: a connection in hand, the right confirmed, and no await in between.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::Poll;

use tokio::time::Instant;

use super::super::Http;
use super::super::forward::Trouble;
use super::exchange::{self, Request};
use super::failure::Failed;
use super::idle::Upstream;
use super::line::Came;
use super::scratch::Scratch;
use crate::fence::Outcome;
use crate::net::{Closing, Stage};
use crate::protocol::signal::Ask;
use crate::protocol::{Kind, Right};

/// A request that is on its way.
pub struct Launched {
    /// What it leaves on.
    pub upstream: Upstream,
    /// How much of what has come of it the upstream took at once.
    pub taken: usize,
    /// When.
    pub now: Instant,
}

impl Http {
    /// Has the first byte leave: finds a connection, confirms the right, writes. On a connection that the upstream had
    /// closed, so that the kernel takes nothing, it tries once more on a new one.
    ///
    /// # Errors
    /// Why nothing has left: the caller settles the right.
    pub(super) async fn launched(
        &self,
        request: &Request,
        Came { body, now, .. }: &mut Came,
        closing: &mut Closing,
    ) -> Result<Launched, Failed> {
        let idle = &self.direct.idle;
        let mut waiting = idle.take(*now);
        loop {
            let mut upstream = match waiting.take() {
                Some(upstream) => upstream,
                None => {
                    body.keep();
                    let upstream = Box::pin(self.dialled(&request.right, closing)).await?;
                    *now = Instant::now();
                    upstream
                }
            };
            if let Err(refusal) = request.right.confirm() {
                idle.give_back(upstream, *now);
                return Err(Failed::Refused(refusal));
            }
            // However the connection ends from here on: what it carries is a write without an answer.
            upstream.stream.reset_on_close().set(request.right.kind() == Kind::Write);
            let parts = [&request.head[..], body.bytes()];
            let written = poll_fn(|context| Poll::Ready(exchange::write_parts(&mut upstream.stream, parts, context)));
            match written.await {
                Poll::Ready(Ok(taken)) => return Ok(Launched { upstream, taken, now: *now }),
                Poll::Pending => return Ok(Launched { upstream, taken: 0, now: *now }),
                Poll::Ready(Err(_)) if upstream.used => {}
                Poll::Ready(Err(error)) => return Err(Failed::Unreachable(error.to_string())),
            }
        }
    }

    /// A new connection. Nothing has left yet: a fence that moves on ends the wait.
    pub(super) async fn dialled(&self, right: &Right, closing: &mut Closing) -> Result<Upstream, Failed> {
        let mut signal = right.signal();
        let mut dialling = pin!(self.direct.idle.dial());
        poll_fn(|context| {
            if let Poll::Ready(made) = dialling.as_mut().poll(context) {
                return Poll::Ready(made.map_err(|error| Failed::Unreachable(error.to_string())));
            }
            if closing.watch(context) == Stage::Now {
                return Poll::Ready(Err(Failed::Trouble(Trouble::Closing, Outcome::NotApplied)));
            }
            let moved_on = signal.as_mut().is_some_and(|signal| signal.poll_for(Ask::Hurry, context).is_ready());
            if moved_on && let Err(refusal) = right.confirm() {
                return Poll::Ready(Err(Failed::Refused(refusal)));
            }
            Poll::Pending
        })
        .await
    }
}

/// What has come of a request's body with its head.
pub(super) enum Body {
    Lent(Scratch, Range<usize>),
    Kept(Vec<u8>),
}

impl Default for Body {
    fn default() -> Body {
        Body::Kept(Vec::new())
    }
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Body::Lent(space, range) => &space[range.clone()],
            Body::Kept(bytes) => bytes,
        }
    }

    /// Adds what has come since.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.keep();
        if let Body::Kept(body) = self {
            body.extend_from_slice(bytes);
        }
    }

    /// Puts it in a buffer of its own size: while a connection is made, others need the lent one.
    pub(super) fn keep(&mut self) {
        if let Body::Lent(space, range) = self {
            *self = Body::Kept(space[range.clone()].to_vec());
        }
    }
}
