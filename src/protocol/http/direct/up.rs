//! The way of a request to the upstream: what leaves, and when it may.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::super::body::Spoilt;
use super::super::forward::Trouble;
use super::exchange::Exchange;
use super::scratch::Scratch;
use crate::fence::Outcome;
use crate::protocol::signal::Ask;

impl Exchange<'_> {
    /// Whether nothing more of the request may leave.
    fn is_shut(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| !keeper.may_send())
            || self.signal.as_ref().is_some_and(|signal| signal.asked() >= Ask::CutHalfSent)
    }

    /// Has the request leave; ready when there is no more to be done about it.
    pub(super) fn poll_up(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        while !self.sent && !self.deaf && self.upstream.is_some() {
            if !self.up.waiting().is_empty() {
                let up = std::mem::take(&mut self.up);
                let sent = self.send(up.waiting(), now, context);
                self.up = up;
                self.up.taken(std::task::ready!(sent)?);
            } else {
                let mut space = Scratch::to_read();
                let came = std::task::ready!(self.read_body(&mut space, now, context))?;
                let came = &space[..came];
                match self.send(came, now, context) {
                    Poll::Ready(taken) => self.up.add([came, &[]], taken?),
                    Poll::Pending => self.up.add([came, &[]], 0),
                }
            }
            self.sent = !self.deaf && self.unread == 0 && self.up.waiting().is_empty();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes to the upstream, unless nothing more may leave. Returns how much was taken.
    fn send(&mut self, bytes: &[u8], now: Instant, context: &mut Context<'_>) -> Poll<Result<usize, Trouble>> {
        if self.is_shut() {
            return Poll::Ready(Err(Trouble::Fenced));
        }
        let written = match &mut self.upstream {
            Some(upstream) => std::task::ready!(Pin::new(&mut upstream.stream).poll_write(context, bytes)),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        match written {
            Ok(taken) => {
                self.limits.moved(now);
                if !std::mem::replace(&mut self.left, true) {
                    self.finish.ends_as(Outcome::Unknown);
                }
                Poll::Ready(Ok(taken))
            }
            Err(_) => {
                self.deaf = true;
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    /// Reads more of the request's body, and nothing beyond it.
    fn read_body(&mut self, space: &mut [u8], now: Instant, context: &mut Context<'_>) -> Poll<Result<usize, Trouble>> {
        let most = usize::try_from(self.unread).unwrap_or(usize::MAX).min(space.len());
        let mut buffer = ReadBuf::new(&mut space[..most]);
        let Poll::Ready(read) = Pin::new(&mut *self.client).poll_read(context, &mut buffer) else {
            self.limits.waits_for_client(now);
            return Poll::Pending;
        };
        let came = buffer.filled().len();
        if read.is_err() || came == 0 {
            return Poll::Ready(Err(Trouble::Spoilt(Spoilt::Client)));
        }
        self.unread -= came as u64;
        self.limits.moved(now);
        Poll::Ready(Ok(came))
    }
}
