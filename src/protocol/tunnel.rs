//! Bytes both ways, for as long as the fence allows: a connection that became something else, or a session of any protocol.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::right::Settled;
use super::signal::{Ask, Signal};
use super::{CutReason, Right, Role};
use crate::fence::Outcome;
use crate::net::{Closing, Stage, Stream};

/// What one read takes at most. Smaller ones cost three times the CPU of a large transfer.
const CHUNK: usize = 256 * 1024;

/// A session in which nothing has moved for so long stands still.
const QUIET: Duration = Duration::from_secs(1);

thread_local! {
    /// One buffer for all tunnels of a worker: what the other side does not take at once is copied, so an idle or a
    /// fast tunnel holds none.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Somebody who is told how a tunnel ended; dropped with it.
pub trait Ends {
    /// So it would end now.
    fn ends_as(&mut self, outcome: Outcome);
}

/// The upstream's end of a tunnel, with the right that the tunnel lives by.
pub struct Tunnel {
    /// Its stream. Declared, and so dropped, before the right.
    pub upstream: Stream,
    /// What it sent before the tunnel began.
    pub ahead: Bytes,
    /// Settled when the tunnel is over.
    pub right: Option<Right>,
    /// What the fence wants of it.
    pub signal: Option<Signal>,
    /// Tells the role when it is over.
    pub finish: Option<Box<dyn Ends>>,
    /// Who is told of a cut.
    pub role: Rc<dyn Role>,
    /// Whether it ends, once it stands still, when its listener is to finish: a session may last for ever.
    pub yields: bool,
}

impl Tunnel {
    /// Runs it to its end, over the client's stream, of which `ahead` was read before.
    pub async fn run(mut self, mut client: Stream, ahead: Bytes, mut closing: Closing) {
        let mut up = Way { left: ahead, ..Way::default() };
        let mut down = Way { left: std::mem::take(&mut self.ahead), ..Way::default() };
        self.upstream.reset_on_close().set(false);
        let mut quiet: Option<Pin<Box<tokio::time::Sleep>>> = None;
        let ended = poll_fn(|context| {
            if let Some(signal) = &mut self.signal
                && signal.poll_for(Ask::Hurry, context).is_ready()
            {
                return Poll::Ready(End::Fenced);
            }
            let stage = closing.watch(context);
            if stage == Stage::Now {
                return Poll::Ready(End::Stopped);
            }
            up.is_late = down.at_end;
            let right = self.right.as_ref();
            let goes_on = || right.is_none_or(Right::goes_on);
            let sent = match up.poll(&mut client, &mut self.upstream, goes_on, context) {
                Poll::Ready(Err(stop)) => return Poll::Ready(stop.into()),
                polled => polled.is_ready(),
            };
            let received = match down.poll(&mut self.upstream, &mut client, || true, context) {
                Poll::Ready(Err(stop)) => return Poll::Ready(stop.into()),
                polled => polled.is_ready(),
            };
            if sent && received {
                return Poll::Ready(End::Whole);
            }
            if self.yields && stage == Stage::Finishing {
                let moved = std::mem::take(&mut up.moved) | std::mem::take(&mut down.moved);
                let quiet = quiet.get_or_insert_with(|| Box::pin(tokio::time::sleep(QUIET)));
                if moved {
                    quiet.as_mut().reset(Instant::now() + QUIET);
                }
                ready!(quiet.as_mut().poll(context));
                return Poll::Ready(End::Yielded);
            }
            Poll::Pending
        })
        .await;
        match ended {
            End::Whole => {
                // What was sent after the upstream had ended its side is answered by nothing.
                let (outcome, settled) = match up.sent_late {
                    true => (Outcome::Unknown, Settled::Lost),
                    false => (Outcome::Answered, Settled::Answered),
                };
                if let Some(finish) = &mut self.finish {
                    finish.ends_as(outcome);
                }
                if let Some(right) = self.right.take() {
                    right.settle(settled);
                }
            }
            End::Fenced | End::Stopped | End::Yielded | End::Broken => {
                client.reset_on_close().set(true);
                drop(client);
                if let Some(finish) = &mut self.finish {
                    finish.ends_as(Outcome::Unknown);
                }
                match ended {
                    End::Fenced => self.role.cut(CutReason::Fenced),
                    End::Stopped | End::Yielded => self.role.cut(CutReason::Shutdown),
                    End::Whole | End::Broken => {}
                }
                // A connection that broke is no end: what comes of it must not look like one at the upstream.
                let may_be_told = matches!(ended, End::Fenced | End::Yielded);
                let over = may_be_told && !down.at_end && self.upstream_closes(closing).await;
                // An upstream that ended its side by itself may not have all of it yet: nothing more is to reach it.
                self.upstream.reset_on_close().set(true);
                if let Some(right) = self.right.take_if(|_| over) {
                    right.settle(Settled::Answered);
                }
            }
        }
    }

    /// Sends nothing more but the end, and waits until the upstream has ended its side too: then nothing of this
    /// tunnel can take effect any more, and no quarantine is needed. `false` where it broke, or has to be cut.
    async fn upstream_closes(&mut self, mut closing: Closing) -> bool {
        let mut told = false;
        let mut buffer = [0; 1024];
        poll_fn(|context| {
            let half_sent = self.signal.as_mut().map(|signal| signal.poll_for(Ask::CutHalfSent, context));
            if half_sent.is_some_and(|asked| asked.is_ready()) || closing.watch(context) == Stage::Now {
                return Poll::Ready(false);
            }
            if !told {
                match Pin::new(&mut self.upstream).poll_shutdown(context) {
                    Poll::Ready(Ok(())) => told = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
            loop {
                let mut space = ReadBuf::new(&mut buffer);
                match ready!(Pin::new(&mut self.upstream).poll_read(context, &mut space)) {
                    Ok(()) if space.filled().is_empty() => return Poll::Ready(true),
                    Ok(()) => {}
                    Err(_) => return Poll::Ready(false),
                }
            }
        })
        .await
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Not settled: what the upstream has not got yet must not go on trickling out. The stream is closed before the
        // right is dropped, and so settled as lost.
        if self.right.is_some() {
            self.upstream.reset_on_close().set(true);
        }
    }
}

/// How a tunnel ended.
#[derive(Clone, Copy)]
enum End {
    /// Both sides have ended theirs.
    Whole,
    /// Its epoch is over.
    Fenced,
    /// This process ends.
    Stopped,
    /// It stood still while this process was about to end.
    Yielded,
    /// A connection broke.
    Broken,
}

/// Why nothing more goes one way.
enum Stop {
    /// The term is over.
    Fenced,
    /// A connection broke.
    Broke,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Stop {
        Stop::Broke
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> End {
        match stop {
            Stop::Fenced => End::Fenced,
            Stop::Broke => End::Broken,
        }
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read, and not taken yet.
    left: Bytes,
    at_end: bool,
    /// Something came since somebody last looked.
    moved: bool,
    /// The other way has ended: nothing will answer what goes this way now.
    is_late: bool,
    /// Something has gone this way since then.
    sent_late: bool,
    ended: bool,
    unflushed: bool,
}

impl Way {
    /// Ready when `from` has ended and `to` has been told. `goes_on` is asked before each part.
    fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        goes_on: impl Fn() -> bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Stop>> {
        while !self.ended {
            while !self.left.is_empty() {
                if !goes_on() {
                    return Poll::Ready(Err(Stop::Fenced));
                }
                let taken = ready!(Pin::new(&mut *to).poll_write(context, &self.left))?;
                if taken == 0 {
                    return Poll::Ready(Err(Stop::Broke));
                }
                self.left.advance(taken);
                self.moved = true;
                self.sent_late |= self.is_late;
                self.unflushed = true;
            }
            if self.at_end {
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.ended = true;
                break;
            }
            let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
            let moved = self.poll_move(&mut buffer, from, to, &goes_on, context);
            BUFFER.set(Some(buffer));
            if moved?.is_pending() {
                if self.unflushed && self.left.is_empty() {
                    ready!(Pin::new(&mut *to).poll_flush(context))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_move(
        &mut self,
        buffer: &mut [u8],
        from: &mut Stream,
        to: &mut Stream,
        goes_on: impl Fn() -> bool,
        context: &mut Context<'_>,
    ) -> Result<Poll<()>, Stop> {
        let mut space = ReadBuf::new(buffer);
        if Pin::new(from).poll_read(context, &mut space)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let read = space.filled();
        self.at_end = read.is_empty();
        self.moved = true;
        if !goes_on() {
            return Err(Stop::Fenced);
        }
        let taken = match Pin::new(to).poll_write(context, read) {
            Poll::Ready(Ok(taken)) if !read.is_empty() => taken,
            Poll::Ready(Err(error)) => return Err(error.into()),
            _ => 0,
        };
        self.unflushed |= taken > 0;
        self.sent_late |= taken > 0 && self.is_late;
        self.left = Bytes::copy_from_slice(&read[taken..]);
        Ok(Poll::Ready(()))
    }
}
