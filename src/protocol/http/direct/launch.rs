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
use super::scratch::Scratch;
use crate::net::{Closing, Stage};
use crate::protocol::Kind;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;

impl Http {
    /// Has the first byte leave: finds a connection, confirms the right, writes; with how much the upstream took. On a
    /// connection that the upstream had closed, so that the kernel takes nothing, it tries once more on a new one.
    pub(super) async fn launched(
        &self,
        request: Request,
        body: &mut Body,
        closing: &mut Closing,
    ) -> Result<(Request, Upstream, usize), Failed> {
        let idle = &self.direct.idle;
        let mut waiting = idle.take(Instant::now());
        let failed = loop {
            let mut upstream = match waiting.take() {
                Some(upstream) => upstream,
                None => {
                    body.keep();
                    match self.dialled(&request, closing).await {
                        Ok(upstream) => upstream,
                        Err(failed) => break failed,
                    }
                }
            };
            if let Err(refusal) = request.right.confirm() {
                idle.give_back(upstream, Instant::now());
                break Failed::Refused(refusal);
            }
            // However the connection ends from here on: what it carries is a write without an answer.
            upstream.stream.reset_on_close().set(request.right.kind() == Kind::Write);
            let parts = [&request.head[..], body.bytes()];
            let written = poll_fn(|context| Poll::Ready(exchange::write_parts(&mut upstream.stream, parts, context)));
            match written.await {
                Poll::Ready(Ok(taken)) => return Ok((request, upstream, taken)),
                Poll::Pending => return Ok((request, upstream, 0)),
                Poll::Ready(Err(_)) if upstream.used => {}
                Poll::Ready(Err(error)) => break Failed::Unreachable(error.to_string()),
            }
        };
        request.right.settle(Settled::NothingLeft);
        Err(failed)
    }

    /// A new connection. Nothing has left yet: a fence that moves on ends the wait.
    async fn dialled(&self, request: &Request, closing: &mut Closing) -> Result<Upstream, Failed> {
        let mut signal = request.right.signal();
        let mut dialling = pin!(self.direct.idle.dial());
        poll_fn(|context| {
            if let Poll::Ready(made) = dialling.as_mut().poll(context) {
                return Poll::Ready(made.map_err(|error| Failed::Unreachable(error.to_string())));
            }
            if closing.watch(context) == Stage::Now {
                return Poll::Ready(Err(Failed::Trouble(Trouble::Closing)));
            }
            let moved_on = signal.as_mut().is_some_and(|signal| signal.poll_for(Ask::Hurry, context).is_ready());
            if moved_on && let Err(refusal) = request.right.confirm() {
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
