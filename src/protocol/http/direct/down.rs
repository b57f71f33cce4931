//! The way of an answer to the client: read, settled, handed on.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::super::forward::Trouble;
use super::super::refuse;
use super::answer::{self, Framing, Read};
use super::chunks::{self, Chunks};
use super::exchange::{Backlog, Exchange, write_parts};
use super::scratch::Scratch;
use crate::fence::Outcome;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;

/// So much of an answer waits for a slow client at most where the fence wants the answer read to its end.
const HURRIED: usize = 1024 * 1024;
/// So many interim answers (1xx) may come before the answer.
pub(super) const MOST_INTERIM: u32 = 100;
pub(super) const TOO_MANY_INTERIM: &str = "it sends interim answers without end";
/// An answer's head is no larger.
pub(super) const LARGEST_HEAD: usize = 64 * 1024;

/// How far the answer has come.
pub(super) enum Down {
    /// Its head is awaited; what has come of it.
    Head(Vec<u8>),
    /// So much of its body is.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    /// It is whole.
    Whole,
}

impl From<Framing> for Down {
    fn from(framing: Framing) -> Down {
        match framing {
            Framing::None => Down::Whole,
            Framing::Length(length) => Down::Length(length),
            Framing::Chunked => Down::Chunked(Chunks::default()),
            Framing::UntilClose => Down::UntilClose,
        }
    }
}

impl Exchange<'_> {
    /// Has the answer come, and hands it on; ready when all of it has been.
    pub(super) fn poll_down(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        loop {
            if self.poll_out(context).is_pending() && !self.reads_on_without_its_client() {
                return Poll::Pending;
            }
            if self.client_gone && !self.write {
                return Poll::Ready(Err(Trouble::Closing));
            }
            let Some(upstream) = self.upstream.as_mut().filter(|_| !matches!(self.down, Down::Whole)) else {
                let out = self.out.waiting().is_empty() && self.client.has_sent_all();
                return if out { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            let mut space = Scratch::to_read();
            let mut buffer = ReadBuf::new(&mut space);
            let Poll::Ready(read) = Pin::new(&mut upstream.stream).poll_read(context, &mut buffer) else {
                self.limits.waits_for_upstream(self.now);
                return Poll::Pending;
            };
            if !matches!(self.down, Down::Head(_)) {
                // Interim answers, and a head that comes in pieces, are no answer: they win no time.
                self.limits.answers();
            }
            if !self.left {
                return Poll::Ready(Err(Trouble::Broken("it spoke, or closed, before it was asked".to_owned())));
            }
            let came = buffer.filled().len();
            let taken = match read {
                Ok(()) if came > 0 => self.take(&space[..came], context),
                Ok(()) => self.take_end(context),
                Err(error) => Err(Trouble::Broken(error.to_string())),
            };
            if let Err(trouble) = taken {
                return Poll::Ready(Err(trouble));
            }
        }
    }

    /// Where the fence is in a hurry the answer to a write is read to its end, whatever its client does; one that leaves
    /// too much waiting is cut.
    fn reads_on_without_its_client(&mut self) -> bool {
        let hurried = self.signal.as_ref().is_some_and(|signal| signal.asked() >= Ask::Hurry);
        if hurried && self.out.waiting().len() > HURRIED {
            self.client_gone = true;
            self.out = Backlog::default();
        }
        hurried && !matches!(self.down, Down::Whole)
    }

    /// Whether the upstream is not looked at until the client has taken what waits for it.
    pub(super) fn is_blind(&mut self) -> bool {
        !self.out.waiting().is_empty() && !self.reads_on_without_its_client()
    }

    /// Has the client take what waits for it.
    pub(super) fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.out.waiting().is_empty() {
            let Poll::Ready(taken) = Pin::new(&mut *self.client).poll_write(context, self.out.waiting()) else {
                self.limits.waits_to_be_taken(self.now);
                return Poll::Pending;
            };
            match taken {
                Ok(taken @ 1..) => {
                    self.limits.taken();
                    self.out.taken(taken);
                }
                Ok(_) | Err(_) => {
                    self.client_gone = true;
                    self.out = Backlog::default();
                }
            }
        }
        // What the session has sealed is not out yet; an error shows with the next write, or is nobody's loss.
        let out = Pin::new(&mut *self.client).poll_flush(context).map(|_| ());
        if out.is_ready() {
            self.limits.taken();
        }
        out
    }

    /// Hands these bytes to the client, after what waits already.
    fn hand_on(&mut self, parts: [&[u8]; 2], context: &mut Context<'_>) {
        self.begun = true;
        if self.client_gone {
            return;
        }
        let mut taken = 0;
        if self.out.waiting().is_empty() {
            match write_parts(self.client, parts, context) {
                Poll::Ready(Ok(bytes)) => taken = bytes,
                Poll::Ready(Err(_)) => self.client_gone = true,
                Poll::Pending => {}
            }
        }
        if !self.client_gone && taken < parts[0].len() + parts[1].len() {
            self.out.add(parts, taken);
        }
    }

    /// Takes in what the upstream sent.
    fn take(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Result<(), Trouble> {
        match &mut self.down {
            Down::Head(part) if part.is_empty() => self.take_head(bytes, context),
            Down::Head(part) => {
                let mut all = std::mem::take(part);
                all.extend_from_slice(bytes);
                self.take_head(&all, context)
            }
            _ if self.signal.as_ref().is_some_and(|signal| signal.asked() == Ask::Cut) => Err(Trouble::Fenced),
            _ => self.take_body(Scratch::to_write(), bytes, context),
        }
    }

    fn take_head(&mut self, mut bytes: &[u8], context: &mut Context<'_>) -> Result<(), Trouble> {
        let broken = |why: &str| Err(Trouble::Broken(why.to_owned()));
        loop {
            let mut head = Scratch::to_write();
            let (http, now) = (self.http, self.now);
            let to = answer::To {
                head: self.is_head,
                strip_refused: http.strip_refused,
                close: self.close,
                date: &|to| http.direct.date(now, to),
            };
            match answer::read(bytes, &to, &mut head) {
                Read::Partial if bytes.len() < LARGEST_HEAD => {
                    self.down = Down::Head(bytes.to_vec());
                    return Ok(());
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
                    bytes = &bytes[said.len..];
                }
                Read::Head(said) => {
                    self.begin(&said);
                    return self.take_body(head, &bytes[said.len..], context);
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

    /// Takes in a part of the answer's body, and hands it on after `before`.
    fn take_body(&mut self, mut before: Scratch, bytes: &[u8], context: &mut Context<'_>) -> Result<(), Trouble> {
        let (plain, used, whole) = match &mut self.down {
            Down::Head(_) => return Ok(()),
            Down::Whole => (0, 0, true),
            Down::Length(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= part as u64;
                (part, part, *left == 0)
            }
            Down::Chunked(chunks) => {
                let used = chunks.take(bytes, |data| chunks::write(data, &mut before));
                let used = used.map_err(|_| Trouble::Broken("the chunks of its answer are broken".to_owned()))?;
                if chunks.is_over() {
                    before.extend_from_slice(chunks::END);
                }
                (0, used, chunks.is_over())
            }
            Down::UntilClose => {
                chunks::write(bytes, &mut before);
                (0, bytes.len(), false)
            }
        };
        if whole {
            // Settled before the last of it is handed on: who has its answer may count on that.
            self.complete(used == bytes.len());
        }
        self.hand_on([&before, &bytes[..plain]], context);
        Ok(())
    }

    /// The upstream has closed its side.
    fn take_end(&mut self, context: &mut Context<'_>) -> Result<(), Trouble> {
        if !matches!(self.down, Down::UntilClose) {
            return Err(Trouble::Broken("it closed the connection before its answer was whole".to_owned()));
        }
        self.complete(false);
        self.hand_on([chunks::END, &[]], context);
        Ok(())
    }

    /// The answer is whole. `clean`: nothing came after it.
    fn complete(&mut self, clean: bool) {
        self.down = Down::Whole;
        let upstream = self.upstream.take();
        let out = upstream.as_ref().is_none_or(|upstream| upstream.stream.has_sent_all());
        if self.sent && out && !self.sent_unseen {
            match upstream {
                Some(upstream) if self.stays && clean => {
                    self.http.direct.idle.give_back(upstream, self.now);
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
