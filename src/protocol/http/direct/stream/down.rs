//! The way of an answer to the stream: read, settled, handed on.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::Instant;

use super::super::super::forward::Trouble;
use super::super::super::refuse;
use super::super::answer::{self, Fields, Read};
use super::super::down::{Down, LARGEST_HEAD, MOST_INTERIM, TOO_MANY_INTERIM};
use super::super::scratch::Scratch;
use super::exchange::Exchange;
use crate::fence::Outcome;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;

/// What has come of an answer.
pub struct Part {
    /// Its head, once.
    pub head: Option<Response<()>>,
    pub data: Bytes,
}

fn broken<T>(why: &str) -> Result<T, Trouble> {
    Err(Trouble::Broken(why.to_owned()))
}

/// The fields as hyper wants them; their values are parts of `bytes`.
fn fields_of(bytes: &Bytes, fields: &Fields<'_, '_>, to: &answer::To<'_>) -> Option<HeaderMap> {
    // One more: hyper puts a Date on.
    let mut map = HeaderMap::with_capacity(fields.count() + 1);
    let mut whole = true;
    fields.each_for_client(to, |name, value| {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(bytes.slice_ref(value))) {
            (Ok(name), Ok(value)) => {
                map.append(name, value);
            }
            _ => whole = false,
        }
    });
    whole.then_some(map)
}

impl Exchange {
    /// The next part of the answer. It is the last one where [`Exchange::is_over`] afterwards.
    pub(super) fn poll_down(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<Result<Part, Trouble>> {
        loop {
            let Some(upstream) = &mut self.upstream else { return Poll::Ready(broken("it broke off before")) };
            let mut space = Scratch::to_read();
            let mut buffer = ReadBuf::new(&mut space);
            let Poll::Ready(read) = Pin::new(&mut upstream.stream).poll_read(context, &mut buffer) else {
                self.limits.waits_for_upstream(now);
                return Poll::Pending;
            };
            if !matches!(self.down, Down::Head(_)) {
                // Interim answers, and a head that comes in pieces, are no answer: they win no time.
                self.limits.answers();
            }
            if !self.left {
                return Poll::Ready(broken("it spoke, or closed, before it was asked"));
            }
            let came = buffer.filled();
            let part = match read {
                Ok(()) if !came.is_empty() => self.take(came, now)?,
                Ok(()) => Some(self.take_end(now)?),
                Err(error) => return Poll::Ready(broken(&error.to_string())),
            };
            if let Some(part) = part {
                return Poll::Ready(Ok(part));
            }
        }
    }

    /// Takes in what the upstream sent.
    fn take(&mut self, came: &[u8], now: Instant) -> Result<Option<Part>, Trouble> {
        match &mut self.down {
            Down::Head(part) if part.is_empty() => self.take_head(Bytes::copy_from_slice(came), now),
            Down::Head(part) => {
                let mut all = std::mem::take(part);
                all.extend_from_slice(came);
                self.take_head(all.into(), now)
            }
            _ if self.signal.as_ref().is_some_and(|signal| signal.asked() == Ask::Cut) => Err(Trouble::Fenced),
            _ => {
                let data = self.take_body(Bytes::copy_from_slice(came), now)?;
                let any = !data.is_empty() || self.is_over();
                Ok(any.then_some(Part { head: None, data }))
            }
        }
    }

    fn take_head(&mut self, mut bytes: Bytes, now: Instant) -> Result<Option<Part>, Trouble> {
        // Hyper sees to the Date, and every stream is framed by itself.
        let to = answer::To { head: self.is_head, strip_refused: self.http.strip_refused, close: false, date: &|_| () };
        loop {
            let mut fields = None;
            match answer::parse(&bytes, &to, |found, said, _| {
                fields = (said.status >= 200).then(|| fields_of(&bytes, found, &to)).flatten();
            }) {
                Read::Partial if bytes.len() < LARGEST_HEAD => {
                    self.down = Down::Head(bytes.into());
                    return Ok(None);
                }
                Read::Partial => return broken("the head of its answer has no end"),
                Read::Broken(why) => return broken(why),
                Read::Head(said) if said.status == 101 => {
                    return broken("it answered 101 to a request that asked for no upgrade");
                }
                Read::Head(said) if said.status < 200 => {
                    self.interim += 1;
                    if self.interim > MOST_INTERIM {
                        return broken(TOO_MANY_INTERIM);
                    }
                    bytes = bytes.slice(said.len..);
                }
                Read::Head(said) => {
                    let (Some(fields), Ok(status)) = (fields, StatusCode::from_u16(said.status)) else {
                        return broken("its answer's head cannot be said in HTTP/2");
                    };
                    self.begin(&said);
                    let data = self.take_body(bytes.slice(said.len..), now)?;
                    let mut head = Response::new(());
                    *head.status_mut() = status;
                    *head.headers_mut() = fields;
                    return Ok(Some(Part { head: Some(head), data }));
                }
            }
        }
    }

    /// The answer's head is there.
    fn begin(&mut self, said: &answer::Head) {
        let passed = said.refused.as_deref().and_then(refuse::outcome_of_passed_refusal);
        (self.no_answer, self.outcome) = self.http.meaning(self.write, said.status, passed);
        self.stays = said.stays;
        self.down = said.framing.into();
    }

    /// Takes in a part of the answer's body.
    fn take_body(&mut self, bytes: Bytes, now: Instant) -> Result<Bytes, Trouble> {
        let (data, used, whole) = match &mut self.down {
            Down::Head(_) => return Ok(Bytes::new()),
            Down::Whole => (Bytes::new(), 0, true),
            Down::Length(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= part as u64;
                (bytes.slice(..part), part, *left == 0)
            }
            Down::Chunked(chunks) => {
                let mut data = Vec::new();
                match chunks.take(&bytes, |piece| data.extend_from_slice(piece)) {
                    Ok(used) => (data.into(), used, chunks.is_over()),
                    Err(_) => return broken("the chunks of its answer are broken"),
                }
            }
            Down::UntilClose => (bytes.clone(), bytes.len(), false),
        };
        if whole {
            // Settled before the last of it is handed on: who has its answer may count on that.
            self.complete(used == bytes.len(), now);
        }
        Ok(data)
    }

    /// The upstream has closed its side.
    fn take_end(&mut self, now: Instant) -> Result<Part, Trouble> {
        if !matches!(self.down, Down::UntilClose) {
            return broken("it closed the connection before its answer was whole");
        }
        self.complete(false, now);
        Ok(Part { head: None, data: Bytes::new() })
    }

    /// The answer is whole. `clean`: nothing came after it.
    fn complete(&mut self, clean: bool, now: Instant) {
        self.down = Down::Whole;
        let upstream = self.upstream.take();
        let out = upstream.as_ref().is_none_or(|upstream| upstream.stream.has_sent_all());
        if self.sent && out {
            match upstream {
                Some(upstream) if self.stays && clean => {
                    self.http.direct.idle.give_back(upstream, now);
                }
                Some(upstream) => upstream.stream.reset_on_close().set(false),
                None => {}
            }
            self.settle(if self.no_answer { Settled::Lost } else { Settled::Answered }, self.outcome);
        } else {
            // The upstream answered what it has not read to the end: that is no word about what it does with the rest.
            drop(upstream);
            self.settle(Settled::Lost, Outcome::Unknown);
        }
    }
}
