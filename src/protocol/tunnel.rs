//! Bytes both ways, for as long as the fence allows: a connection that became something else, or a session of any protocol.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::right::Settled;
use super::signal::{Ask, Signal};
use super::way::{Stop, Watch, Way};
use super::{CutReason, Right, Role};
use crate::fence::Outcome;
use crate::net::{Closing, Stage, Stream};

/// A session in which nothing has moved for so long stands still.
const QUIET: Duration = Duration::from_secs(1);

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
        let mut up = Direction::with(ahead);
        let mut down = Direction::with(std::mem::take(&mut self.ahead));
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
            up.is_late = down.way.at_end;
            let sent = match up.poll(&mut client, &mut self.upstream, self.right.as_ref(), context) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                polled => polled.is_ready(),
            };
            let received = match down.poll(&mut self.upstream, &mut client, None, context) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
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
                let over = may_be_told && !down.way.at_end && self.upstream_closes(closing).await;
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

impl From<Stop> for End {
    fn from(stop: Stop) -> End {
        match stop {
            Stop::Forbidden => End::Fenced,
            // Whatever passes is right for a tunnel: it does not look.
            Stop::End | Stop::FromBroke | Stop::ToBroke | Stop::Malformed(_) => End::Broken,
        }
    }
}

/// One direction, with the end that it passes on.
struct Direction {
    way: Way,
    /// Something came or went since somebody last looked.
    moved: bool,
    /// The other direction has ended: nothing will answer what goes this way now.
    is_late: bool,
    /// Something has gone this way since then.
    sent_late: bool,
    ended: bool,
}

impl Direction {
    fn with(ahead: Bytes) -> Direction {
        let way = Way::with(BytesMut::from(ahead));
        Direction { way, moved: false, is_late: false, sent_late: false, ended: false }
    }

    /// Ready when `from` has ended and `to` has been told. The right, where it lives by one, is asked before each part.
    fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        right: Option<&Right>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let Direction { way, moved, is_late, sent_late, .. } = self;
        let mut passing = Passing { right, moved, is_late: *is_late, sent_late };
        match ready!(way.poll(from, to, &mut passing, context)) {
            Stop::End if passing.may_leave() => {}
            Stop::End => return Poll::Ready(Err(End::Fenced)),
            stop => return Poll::Ready(Err(stop.into())),
        }
        if ready!(Pin::new(to).poll_shutdown(context)).is_err() {
            return Poll::Ready(Err(End::Broken));
        }
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

/// What is seen of the bytes that pass.
struct Passing<'a> {
    right: Option<&'a Right>,
    moved: &'a mut bool,
    is_late: bool,
    sent_late: &'a mut bool,
}

impl Watch for Passing<'_> {
    fn read(&mut self, _: &[u8]) -> Result<(), &'static str> {
        *self.moved = true;
        Ok(())
    }

    fn taken(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        *self.moved |= !bytes.is_empty();
        *self.sent_late |= self.is_late && !bytes.is_empty();
        Ok(())
    }

    fn may_leave(&self) -> bool {
        self.right.is_none_or(Right::goes_on)
    }
}
