//! A client's connection between two requests: waits for the next head, and asks the role about it.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::Instant;

use super::super::Http;
use super::super::finish::Finish;
use super::exchange::Request;
use super::launch::Body;
use super::limits::Ticker;
use super::request::{self, Plain, Read};
use super::scratch::Scratch;
use crate::fence::Refusal;
use crate::net::{Closing, Stage, Stream};
use crate::protocol::{CutReason, Decision, Held, Kind, Party};

/// A head that comes in more pieces is hyper's: here each look at one begins anew.
const MOST_LOOKS: u32 = 8;

/// Where so much of a held request has come, no more is read to see whether its client leaves.
const MOST_HELD: usize = 16 * 1024;

/// A client's connection between two requests.
pub struct Line {
    pub stream: Stream,
    /// What has come of the next request.
    pub ahead: Vec<u8>,
    /// When its first byte came, where one has.
    pub head_since: Option<Instant>,
    /// Since when the connection has carried nothing.
    pub idle_since: Instant,
    /// Whether `ahead` has not been looked at yet.
    pub unseen: bool,
    catching_up: Option<Instant>,
    /// The time, where it was read in this very poll.
    now: Option<Instant>,
    /// How often a head has been looked at in vain.
    looks: u32,
    pub who: Party,
    /// The peer as X-Forwarded-For has it.
    peer_text: String,
}

impl Line {
    /// Of this stream, of which `ahead` has come.
    pub fn new(stream: Stream, ahead: Vec<u8>, since: Instant, who: Party) -> Line {
        let head_since = (!ahead.is_empty()).then_some(since);
        let peer_text = who.peer.forwarded_for();
        Line {
            stream,
            unseen: head_since.is_some(),
            catching_up: None,
            now: None,
            looks: 0,
            ahead,
            head_since,
            idle_since: since,
            who,
            peer_text,
        }
    }

    /// A request of it is over, at this moment of the present poll: the next one may come, or has.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.now = Some(now);
        self.idle_since = now;
        self.unseen = !self.ahead.is_empty();
        self.head_since = self.unseen.then_some(now);
    }
}

/// A plain request, as far as it has come.
pub(super) struct Came {
    /// Its head.
    pub(super) head: Scratch,
    /// What has come of its body.
    pub(super) body: Body,
    /// The bytes of all of that.
    pub(super) length: u64,
    /// Whether some of it is still to be read from its client.
    pub(super) is_unread: bool,
    /// Whether its client's connection ends with the answer.
    pub(super) close: bool,
    /// When it was looked at last.
    pub(super) now: Instant,
}

/// A plain request, and what is to become of it.
pub(super) struct Turn {
    pub(super) came: Came,
    /// Until somebody takes it on.
    pub(super) decided: Option<Decided>,
}

/// What the role says of a request.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
pub(super) enum Decided {
    /// It is to be forwarded.
    Forward(Request),
    /// It is not.
    Refuse(Box<Refusal>, Finish),
    /// It waits.
    Hold(Held, Finish),
}

/// What comes next on a connection.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
pub(super) enum Next {
    /// A plain request.
    Plain(Turn),
    /// What is hyper's.
    Odd,
    /// The client has left.
    Gone,
    /// It is ended by this side.
    Cut(CutReason),
}

impl Http {
    /// Waits for the next head.
    pub(super) fn poll_next(
        self: &Rc<Http>,
        line: &mut Line,
        ticker: &mut Ticker,
        closing: &mut Closing,
        context: &mut Context<'_>,
    ) -> Poll<Next> {
        let limits = &self.listener.limits;
        let mut now = line.now.take();
        loop {
            let mut space = Scratch::to_read();
            let kept = line.ahead.len();
            if kept >= space.len() {
                return Poll::Ready(Next::Odd);
            }
            space[..kept].copy_from_slice(&line.ahead);
            if std::mem::take(&mut line.unseen) {
                let now = *now.get_or_insert_with(Instant::now);
                if let Some(next) = self.look(line, (space, kept), now, closing) {
                    return Poll::Ready(next);
                }
                continue;
            }
            let mut buffer = ReadBuf::new(&mut space[kept..]);
            match Pin::new(&mut line.stream).poll_read(context, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let filled = kept + buffer.filled().len();
                    let now = *now.get_or_insert_with(Instant::now);
                    line.head_since.get_or_insert(now);
                    if let Some(next) = self.look(line, (space, filled), now, closing) {
                        return Poll::Ready(next);
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Next::Gone),
            }
        }
        let stage = closing.watch(context);
        if stage == Stage::Now || (stage == Stage::Finishing && line.head_since.is_none()) {
            return Poll::Ready(Next::Cut(CutReason::Shutdown));
        }
        let (deadline, reason) = match line.head_since {
            Some(since) => (since + limits.header_timeout, CutReason::HeaderTimeout),
            None => (line.idle_since + limits.idle_timeout, CutReason::Idle),
        };
        let now = now.unwrap_or_else(Instant::now);
        let late = ticker.poll_late(&mut line.catching_up, now, deadline, context);
        late.map(|()| Next::Cut(reason))
    }

    /// Looks at what has come: `None` where a head is not whole yet.
    fn look(
        self: &Rc<Http>,
        line: &mut Line,
        (space, filled): (Scratch, usize),
        now: Instant,
        closing: &Closing,
    ) -> Option<Next> {
        let limits = &self.listener.limits;
        let mut plain = None;
        let partial = request::read(&space[..filled], limits.headers, |read| match read {
            Read::Partial => filled < limits.header_bytes && line.looks < MOST_LOOKS,
            Read::Plain(found) if found.len <= limits.header_bytes => {
                let decided = self.decide(line, &found, closing, None);
                plain = Some((decided, found.len, found.body, found.close));
                false
            }
            Read::Odd | Read::Plain(_) => false,
        });
        let Some((decided, head_end, length, close)) = plain else {
            line.looks += 1;
            line.ahead = space[..filled].to_vec();
            return (!partial).then_some(Next::Odd);
        };
        line.looks = 0;
        let end = head_end.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(filled);
        line.ahead = space[end..filled].to_vec();
        let mut head = Scratch::to_write();
        head.extend_from_slice(&space[..head_end]);
        let close = close || closing.stage() >= Stage::Finishing;
        let is_unread = ((end - head_end) as u64) < length;
        let came = Came { head, body: Body::Lent(space, head_end..end), length, is_unread, close, now };
        Some(Next::Plain(Turn { came, decided: Some(decided) }))
    }

    /// Asks the role; once more where it was held, with what tells the role of its end.
    fn decide(
        self: &Rc<Http>,
        line: &Line,
        plain: &Plain<'_, '_>,
        closing: &Closing,
        finish: Option<Finish>,
    ) -> Decided {
        let mut finish = finish.unwrap_or_else(|| Finish::new(self, Kind::of_method(plain.method)));
        let right = match self.role.decide(&plain.facts(&line.who)) {
            Decision::Forward(right) => right,
            Decision::Refuse(refusal) => return Decided::Refuse(refusal, finish),
            Decision::Hold(held) => return Decided::Hold(held, finish),
        };
        finish.is(right.kind());
        let mut head = Scratch::to_write();
        plain.write(&self.names, &line.peer_text, right.stamp(), &mut head);
        Decided::Forward(Request {
            right,
            finish,
            head,
            body: plain.body,
            is_head: plain.method == "HEAD",
            close: plain.close || closing.stage() >= Stage::Finishing,
        })
    }

    /// Waits as long as the role holds a request, and asks it again. `None` where its client goes away meanwhile, or the
    /// worker ends.
    pub(super) async fn unheld(
        self: &Rc<Http>,
        line: &mut Line,
        Turn { came, decided }: &mut Turn,
        (mut held, finish): (Held, Finish),
        closing: &mut Closing,
    ) -> Option<()> {
        // Others need the lent buffer meanwhile.
        came.body.keep();
        let mut watches = true;
        let ended = poll_fn(|context| {
            if let Poll::Ready(ended) = held.as_mut().poll(context) {
                return Poll::Ready(Some(ended));
            }
            if closing.watch(context) == Stage::Now {
                return Poll::Ready(None);
            }
            while watches && let Poll::Ready(gone) = self.poll_gone(line, came, context) {
                if gone {
                    return Poll::Ready(None);
                }
                // Many clients send head and body apart: what has come since does not make the end of it unseen.
                watches = came.body.bytes().len() + line.ahead.len() < MOST_HELD;
            }
            Poll::Pending
        })
        .await?;
        drop(held);
        came.now = Instant::now();
        if let Err(refusal) = ended {
            *decided = Some(Decided::Refuse(refusal, finish));
            return Some(());
        }
        let mut finish = Some(finish);
        *decided = request::read(&came.head, self.listener.limits.headers, |read| match read {
            Read::Plain(plain) => Some(self.decide(line, &plain, closing, finish.take())),
            // It was plain before.
            Read::Partial | Read::Odd => None,
        });
        Some(())
    }

    /// Whether a client whose request waits has gone. What it sends instead is kept; beyond [`MOST_HELD`] nothing is
    /// noticed.
    fn poll_gone(&self, line: &mut Line, came: &mut Came, context: &mut Context<'_>) -> Poll<bool> {
        const AHEAD: usize = 512;
        let mut space = [0; AHEAD];
        let mut buffer = ReadBuf::new(&mut space);
        match std::task::ready!(Pin::new(&mut line.stream).poll_read(context, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {
                let missing = usize::try_from(came.length - came.body.bytes().len() as u64).unwrap_or(usize::MAX);
                let (body, ahead) = buffer.filled().split_at(missing.min(buffer.filled().len()));
                came.body.add(body);
                came.is_unread = (came.body.bytes().len() as u64) < came.length;
                line.ahead.extend_from_slice(ahead);
                Poll::Ready(false)
            }
            _ => Poll::Ready(true),
        }
    }
}
