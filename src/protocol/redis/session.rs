//! One connection that is being served: both directions, what the fence wants, and how it ends.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::super::session::{Asked, Finish, stopping};
use super::super::signal::Ask;
use super::super::{CutReason, Kind, Party};
use super::down::Down;
use super::owed::Owed;
use super::up::Up;
use super::writing::Writing;
use super::{METHOD, Redis, refuse};
use crate::fence::{Outcome, Reason, Refusal};
use crate::net::{Closing, Stage, Stream};

/// What one read takes at most.
pub const CHUNK: usize = 128 * 1024;

/// So much is there room for before what is read: what could not be taken yet.
pub const ROOM: usize = 192 * 1024;

/// So long does a command that may wait for others (BLPOP) get for its answer once its epoch is over: time enough where the
/// server has something to do for it.
const BLOCKED: Duration = Duration::from_millis(100);

/// So long does a server get to end a connection that is cut. One that is not busy does it at once.
const GRACE: Duration = Duration::from_millis(250);

/// So long is what a client sends still read after its connection was ended.
const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    /// One buffer for all connections of a worker: an idle one holds none.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Calls `with` with the worker's buffer.
pub fn with_buffer<T>(with: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; ROOM + CHUNK].into_boxed_slice());
    let result = with(&mut buffer);
    BUFFER.set(Some(buffer));
    result
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// In order.
    Over,
    /// Its epoch is over, and something of it is still under way.
    Fenced,
    /// This sidecar stops.
    Shutdown,
    /// The server's end broke.
    Broken,
}

/// One connection.
pub struct Session {
    pub(super) redis: Rc<Redis>,
    pub(super) who: Party,
    /// The text of the stamp that its writes carry.
    pub(super) stamp: Option<Bytes>,
    /// At a stamp: the one that was sent ahead.
    pub(super) announced: Option<Bytes>,
    pub(super) client: Stream,
    /// Declared, and so dropped, before the right.
    pub(super) server: Stream,
    pub(super) up: Up,
    pub(super) down: Down,
    pub(super) owed: Owed,
    pub(super) writing: Option<Writing>,
    /// Reads under way, for the counters.
    pub(super) reading: Option<Finish>,
    /// Nothing more is taken of the client: it ends when all that is due has come.
    pub(super) ending: bool,
    patience: Option<Pin<Box<Sleep>>>,
}

impl Session {
    /// Between these two.
    pub fn new(
        redis: Rc<Redis>,
        who: Party,
        stamp: Option<Bytes>,
        announced: Option<Bytes>,
        client: Stream,
        server: Stream,
    ) -> Session {
        Session {
            redis,
            who,
            stamp,
            announced,
            client,
            server,
            up: Up::default(),
            down: Down::default(),
            owed: Owed::default(),
            writing: None,
            reading: None,
            ending: false,
            patience: None,
        }
    }

    /// Runs it to its end.
    pub async fn run(mut self, mut closing: Closing) {
        let how = poll_fn(|context| self.poll(&mut closing, context)).await;
        match how {
            End::Over if self.writing.is_none() => return self.end_client(closing).await,
            // The server has ended its side because this one did: whatever it had to do for it is done.
            End::Over if self.down.let_go => return self.settle(Outcome::Unknown),
            End::Over | End::Fenced => {}
            End::Shutdown | End::Broken => {
                let reason = (how == End::Shutdown).then_some(CutReason::Shutdown);
                reason.into_iter().for_each(|reason| self.redis.sessions.role.cut(reason));
                self.server.reset_on_close().set(true);
                return;
            }
        }
        if how == End::Fenced {
            self.redis.sessions.role.cut(CutReason::Fenced);
            self.say_cut();
        }
        if self.server_closes(&mut closing).await {
            self.settle(Outcome::Unknown);
        } else {
            // Nothing more is to reach it; the right is dropped after the stream, and counts as lost.
            self.server.reset_on_close().set(true);
        }
        if how == End::Over {
            self.end_client(closing).await;
        }
    }

    /// Gives everything up but the client, which has been told the last thing.
    async fn end_client(mut self, closing: Closing) {
        let client = std::mem::replace(&mut self.client, Stream::other(tokio::io::empty()));
        drop(self);
        end(client, closing).await;
    }

    fn poll(&mut self, closing: &mut Closing, context: &mut Context<'_>) -> Poll<End> {
        loop {
            let stage = closing.watch(context);
            match stage {
                Stage::Now => return Poll::Ready(End::Shutdown),
                Stage::Finishing if self.owed.is_empty() && self.up.is_between() => self.ending = true,
                Stage::Finishing => self.stop_waiting(stopping()),
                Stage::Open => {}
            }
            if self.is_to_be_cut(context) {
                return Poll::Ready(End::Fenced);
            }
            let Ok(came) = self.poll_down(context) else { return Poll::Ready(End::Broken) };
            let Ok(went) = self.poll_up(context) else { return Poll::Ready(End::Broken) };
            if self.down.ended && self.down.is_empty() {
                let lost = self.writing.is_some() && !self.down.let_go;
                return Poll::Ready(if lost { End::Broken } else { End::Over });
            }
            if self.ending && self.owed.is_empty() && self.down.is_empty() {
                return Poll::Ready(End::Over);
            }
            // Each direction has taken all that was there: what one does for the other is all that is left to do. Up comes
            // after down, so that is what down may say now, and in a hurry or at the end whatever has moved.
            let again = match stage {
                Stage::Open if !self.is_hurried() => went && self.has_own_to_say(),
                _ => came || went,
            };
            if again {
                continue;
            }
            // A write that has begun just now has a signal that nobody has listened to yet.
            if went && self.is_to_be_cut(context) {
                return Poll::Ready(End::Fenced);
            }
            if !(went && self.is_hurried()) {
                return Poll::Pending;
            }
        }
    }

    /// Whether the fence waits no longer for what is under way: its time is over, or it waits for others itself.
    fn is_to_be_cut(&mut self, context: &mut Context<'_>) -> bool {
        let signal = self.writing.as_mut().and_then(|writing| writing.signal.as_mut());
        let Some(signal) = signal else {
            self.patience = None;
            return false;
        };
        let Poll::Ready(_) = signal.poll_for(Ask::Hurry, context) else { return false };
        if signal.poll_for(Ask::CutHalfSent, context).is_ready() {
            return true;
        }
        if !self.owed.blocks() {
            self.patience = None;
            return false;
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(BLOCKED)));
        patience.as_mut().poll(context).is_ready()
    }

    /// Whether the fence waits for what is under way.
    pub(super) fn is_hurried(&self) -> bool {
        let signal = self.writing.as_ref().and_then(|writing| writing.signal.as_ref());
        signal.is_some_and(|signal| signal.asked() >= Ask::Hurry)
    }

    /// Tells the client that what it waits for may or may not be done, if that can be said between two replies.
    fn say_cut(&mut self) {
        let detail = "the epoch moved on while a write of this connection was under way; it may have been applied";
        let refusal = Refusal::new(Reason::FencedInFlight, detail);
        let stamp = self.stamp.as_deref();
        let asked = Asked { method: METHOD, path: "/", kind: Kind::Write, lasts: false, who: &self.who, stamp };
        self.redis.sessions.say_refused(&asked, &refusal);
        if self.down.is_between() && self.down.is_empty() {
            let mut context = Context::from_waker(std::task::Waker::noop());
            // As much as its socket takes: nobody waits for a client here.
            let _ = Pin::new(&mut self.client).poll_write(&mut context, &refuse::error(&refusal));
            let _ = Pin::new(&mut self.client).poll_flush(&mut context);
            let _ = Pin::new(&mut self.client).poll_shutdown(&mut context);
        } else {
            self.client.reset_on_close().set(true);
        }
    }

    /// Sends nothing more but the end, and waits until the server has ended its side too: Redis lets go of a client, also of
    /// one that waits, when it reads that. Then nothing of this connection can take effect any more.
    async fn server_closes(&mut self, closing: &mut Closing) -> bool {
        let (mut told, mut grace) = (self.up.told, None);
        poll_fn(|context| {
            if closing.watch(context) == Stage::Now {
                return Poll::Ready(false);
            }
            let signal = self.writing.as_mut().and_then(|writing| writing.signal.as_mut());
            // Where nothing is asked of it, nobody waits for it either, but for its end.
            if signal.is_none_or(|signal| signal.poll_for(Ask::CutHalfSent, context).is_ready()) {
                let grace = grace.get_or_insert_with(|| Box::pin(sleep(GRACE)));
                if grace.as_mut().poll(context).is_ready() {
                    return Poll::Ready(false);
                }
            }
            if !told {
                if ready!(Pin::new(&mut self.server).poll_shutdown(context)).is_err() {
                    return Poll::Ready(false);
                }
                told = true;
            }
            with_buffer(|buffer| {
                loop {
                    let mut space = ReadBuf::new(buffer);
                    match ready!(Pin::new(&mut self.server).poll_read(context, &mut space)) {
                        Ok(()) if space.filled().is_empty() => return Poll::Ready(true),
                        Ok(()) => {}
                        Err(_) => return Poll::Ready(false),
                    }
                }
            })
        })
        .await
    }

    /// The writes under way are over.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        if let Some(writing) = self.writing.take() {
            writing.settle(outcome);
        }
    }

    /// The client is gone: nothing more is sent to it, and the server is told.
    pub(super) fn client_is_gone(&mut self) {
        self.down.deafen();
        self.up.end();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What the server has not got yet must not go on trickling out. The stream is closed before the right is dropped, and so
        // settled as lost.
        if self.writing.is_some() {
            self.server.reset_on_close().set(true);
        }
    }
}

/// Ends a client's connection so that it gets what was said to it last: what it has sent meanwhile is read, and dropped. A
/// socket that is closed with something unread is reset, and its other end forgets what it had not read yet.
pub(super) async fn end(mut client: Stream, mut closing: Closing) {
    let drained = async {
        client.shutdown().await?;
        let mut dropped = [0; 4096];
        while client.read(&mut dropped).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::select! {
        biased;
        // Whether it ends in order is its own business.
        _ = tokio::time::timeout(LINGER, drained) => {}
        () = closing.until(Stage::Now) => {}
    }
}

/// Writes what `stream` takes now of `bytes`; says how much that was.
pub(super) fn write_now(stream: &mut Stream, bytes: &[u8], context: &mut Context<'_>) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match Pin::new(&mut *stream).poll_write(context, &bytes[written..]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(more)) => written += more,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(written)
}
