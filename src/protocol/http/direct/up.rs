//! The way of a request to the upstream: what leaves, and when it may.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::super::body::Spoilt;
use super::super::forward::Trouble;
use super::exchange::Exchange;
use super::scratch::Scratch;
use crate::fence::Outcome;
use crate::protocol::right::Keeper;
use crate::protocol::signal::{Ask, Signal};

/// Whether nothing more may leave of what has this keeper and this signal: asked before every part, on both protocols.
pub fn is_shut(keeper: Option<&dyn Keeper>, signal: Option<&Signal>) -> bool {
    keeper.is_some_and(|keeper| !keeper.may_send()) || signal.is_some_and(|signal| signal.asked() >= Ask::CutHalfSent)
}

impl Exchange<'_> {
    /// Whether nothing more of the request may leave.
    fn is_shut(&self) -> bool {
        is_shut(self.keeper.as_deref(), self.signal.as_ref())
    }

    /// Has the request leave; ready when there is no more to be done about it.
    pub(super) fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        while !self.sent && !self.deaf && self.upstream.is_some() {
            if !self.up.waiting().is_empty() {
                let up = std::mem::take(&mut self.up);
                let sent = self.send(up.waiting(), context);
                self.up = up;
                self.up.taken(ready!(sent)?);
            } else if self.pipe.is_some() {
                ready!(self.poll_pipe(context))?;
            } else {
                let mut space = Scratch::to_read();
                let came = ready!(self.read_body(&mut space, context))?;
                let came = &space[..came];
                match self.send(came, context) {
                    Poll::Ready(taken) => self.up.add([came, &[]], taken?),
                    Poll::Pending => self.up.add([came, &[]], 0),
                }
            }
            let waits = !self.up.waiting().is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.holds() > 0);
            self.sent = !self.deaf && self.unread == 0 && !waits;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes to the upstream, unless nothing more may leave. Returns how much was taken.
    fn send(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<Result<usize, Trouble>> {
        if self.is_shut() {
            return Poll::Ready(Err(Trouble::Fenced));
        }
        if !self.left
            && let Some(right) = &self.right
        {
            // The upstream took nothing at once: since the right was confirmed, others have had their turn.
            right.confirm().map_err(Trouble::NotSent)?;
        }
        let written = match &mut self.upstream {
            Some(upstream) => ready!(Pin::new(&mut upstream.stream).poll_write(context, bytes)),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        Poll::Ready(Ok(self.has_left(written).unwrap_or(bytes.len())))
    }

    /// Notes how much has left; `None` where the upstream takes no more.
    fn has_left(&mut self, written: io::Result<usize>) -> Option<usize> {
        match written {
            Ok(taken) => {
                self.limits.moved(self.now);
                if !std::mem::replace(&mut self.left, true) {
                    self.finish.ends_as(Outcome::Unknown);
                }
                Some(taken)
            }
            Err(_) => {
                self.deaf = true;
                None
            }
        }
    }

    /// Takes a long body one step further: out of the pipe what is in it, unless nothing more may leave; else more of it
    /// in. Where that cannot be had, the pipe is taken away, and the rest is copied.
    fn poll_pipe(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let upstream = self.upstream.as_ref().and_then(|upstream| upstream.stream.as_tcp());
        let (Some(mut pipe), Some(client), Some(upstream)) = (self.pipe.take(), self.client.as_tcp(), upstream) else {
            return Poll::Ready(Ok(()));
        };
        if pipe.holds() == 0 {
            let most = usize::try_from(self.unread).unwrap_or(usize::MAX);
            let filled = pipe.poll_fill(client, most, context);
            return match filled {
                // Whether it is the socket or a sandbox that will not, a plain read tells.
                Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
                filled => {
                    self.pipe = Some(pipe);
                    self.has_come(filled).map_ok(|_| ())
                }
            };
        }
        if self.is_shut() {
            return Poll::Ready(Err(Trouble::Fenced));
        }
        let emptied = pipe.poll_empty(upstream, context);
        self.pipe = Some(pipe);
        self.has_left(ready!(emptied));
        Poll::Ready(Ok(()))
    }

    /// Reads more of the request's body, and nothing beyond it.
    fn read_body(&mut self, space: &mut [u8], context: &mut Context<'_>) -> Poll<Result<usize, Trouble>> {
        let most = usize::try_from(self.unread).unwrap_or(usize::MAX).min(space.len());
        let mut buffer = ReadBuf::new(&mut space[..most]);
        let read = Pin::new(&mut *self.client).poll_read(context, &mut buffer);
        self.has_come(read.map_ok(|()| buffer.filled().len()))
    }

    /// Notes how much of the body has come; nothing, where its client has gone.
    fn has_come(&mut self, read: Poll<io::Result<usize>>) -> Poll<Result<usize, Trouble>> {
        match read {
            Poll::Pending => {
                self.limits.waits_for_client(self.now);
                Poll::Pending
            }
            Poll::Ready(Ok(came @ 1..)) => {
                self.unread -= came as u64;
                self.limits.moved(self.now);
                Poll::Ready(Ok(came))
            }
            Poll::Ready(_) => Poll::Ready(Err(Trouble::Spoilt(Spoilt::Client))),
        }
    }
}
