//! The way of a stream's request to the upstream: what has come of its body, what leaves, and when it may.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::super::super::body::Spoilt;
use super::super::super::forward::Trouble;
use super::super::super::head::Names;
use super::super::up::is_shut;
use super::exchange::Exchange;
use crate::fence::Outcome;
use crate::net::Stream;

/// So much of a body is taken from its client at a time: what is taken may be followed by as much again.
const MOST_AHEAD: usize = 64 * 1024;
/// So many parts are written at once.
const MOST_PARTS: usize = 8;

/// A stream's body.
#[derive(Default)]
pub struct Body {
    from: Option<Incoming>,
    /// The bytes that have not come yet.
    pub unread: u64,
    /// What has come and has not left.
    pub ahead: VecDeque<Bytes>,
    /// The last of it, until its end was seen: trailers may follow, and a stamp among them is to be refused.
    last: Option<Bytes>,
}

impl Body {
    /// Of so many bytes.
    pub fn new(from: Incoming, bytes: u64) -> Body {
        Body { from: Some(from), unread: bytes, ahead: VecDeque::new(), last: None }
    }

    /// Whether more of it is to come, or its end.
    pub fn is_open(&self) -> bool {
        self.unread > 0 || self.last.is_some()
    }

    /// Whether all of it has left.
    pub fn is_all_out(&self) -> bool {
        !self.is_open() && self.ahead.is_empty()
    }

    /// Takes what has come, up to [`MOST_AHEAD`]; ready when there is any, or nothing more to come.
    pub fn poll_ahead(&mut self, names: &Names, context: &mut Context<'_>) -> Poll<Result<(), Spoilt>> {
        let mut bytes = 0;
        while self.is_open() && bytes < MOST_AHEAD && self.ahead.len() < MOST_PARTS {
            let Some(from) = &mut self.from else { return Poll::Ready(Err(Spoilt::Truncated)) };
            let frame = match Pin::new(&mut *from).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Spoilt::Client)),
                Poll::Ready(None) if self.unread == 0 && from.is_end_stream() => {
                    self.ahead.extend(self.last.take());
                    break;
                }
                // Also RST_STREAM with NO_ERROR, which hyper takes for an orderly end.
                Poll::Ready(None) => return Poll::Ready(Err(Spoilt::Truncated)),
                Poll::Pending if self.ahead.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            };
            let ended = from.is_end_stream();
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) if has_stamp(&frame, names) => return Poll::Ready(Err(Spoilt::StampInTrailer)),
                // They are the end; a body of an announced length goes on without them.
                Err(_) if self.unread == 0 => {
                    self.ahead.extend(self.last.take());
                    break;
                }
                Err(_) => return Poll::Ready(Err(Spoilt::Truncated)),
            };
            let Some(unread) = self.unread.checked_sub(data.len() as u64) else {
                return Poll::Ready(Err(Spoilt::Client));
            };
            self.unread = unread;
            bytes += data.len();
            if unread == 0 && !ended {
                self.last.get_or_insert(data);
                continue;
            }
            self.ahead.extend(self.last.take());
            if !data.is_empty() {
                self.ahead.push_back(data);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// So much of it has left.
    pub fn left(&mut self, mut bytes: usize) {
        while bytes > 0
            && let Some(first) = self.ahead.front_mut()
        {
            let part = bytes.min(first.len());
            first.advance(part);
            bytes -= part;
            if first.is_empty() {
                self.ahead.pop_front();
            }
        }
    }

    /// Writes this head, and what has come, as one.
    pub fn poll_write(&self, head: &[u8], to: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut parts = [IoSlice::new(&[]); MOST_PARTS + 1];
        let mut count = 0;
        for part in std::iter::once(head).chain(self.ahead.iter().map(|part| &part[..])).filter(|part| !part.is_empty())
        {
            if let Some(place) = parts.get_mut(count) {
                *place = IoSlice::new(part);
                count += 1;
            }
        }
        match count {
            1 => Pin::new(to).poll_write(context, &parts[0]),
            _ => Pin::new(to).poll_write_vectored(context, &parts[..count]),
        }
    }
}

fn has_stamp(frame: &Frame<Bytes>, names: &Names) -> bool {
    frame.trailers_ref().is_some_and(|trailers| trailers.keys().any(|name| names.is_stamp(name)))
}

impl Exchange {
    /// Whether nothing more of the request may leave.
    fn is_shut(&self) -> bool {
        is_shut(self.keeper.as_deref(), self.signal.as_ref())
    }

    /// Has the request leave; ready when there is no more to be done about it.
    pub(super) fn poll_up(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        while !self.sent && !self.deaf && self.upstream.is_some() {
            if self.body.ahead.is_empty() {
                let Poll::Ready(came) = self.body.poll_ahead(&self.http.names, context) else {
                    self.limits.waits_for_client(now);
                    return Poll::Pending;
                };
                came.map_err(Trouble::Spoilt)?;
                self.limits.moved(now);
            }
            std::task::ready!(self.poll_send(now, context))?;
            self.sent = !self.deaf && self.body.is_all_out();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes to the upstream, unless nothing more may leave.
    fn poll_send(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        if self.body.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.is_shut() {
            return Poll::Ready(Err(Trouble::Fenced));
        }
        self.confirm_again()?;
        let written = match &mut self.upstream {
            Some(upstream) => std::task::ready!(self.body.poll_write(&[], &mut upstream.stream, context)),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        match written {
            Ok(taken) => {
                self.limits.moved(now);
                self.body.left(taken);
                if !std::mem::replace(&mut self.left, true) {
                    self.finish.ends_as(Outcome::Unknown);
                }
            }
            // It takes no more; its answer may be there all the same.
            Err(_) => {
                self.deaf = true;
                self.body.ahead.clear();
            }
        }
        Poll::Ready(Ok(()))
    }
}
