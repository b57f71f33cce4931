//! Reading sessions: `stale: read_only` lets a session read that may not write.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`may_read`]: whose refusal lets a session read; [`Reading`]: one at a guard, from its startup message to its end |
//! | [`lockstep`] | what makes it safe: each statement stands in a read-only transaction with a snapshot |
//! | [`own`] | the guard's own messages for that |
//! | [`words`] | what the server says of versions and errors |
//!
//! It never gets a right: what it does is not in the ledger, no handoff waits for it, and none ends it. So that it can change
//! nothing rests on the server's own rules alone, and on their order: a transaction that is read-only and has its snapshot
//! cannot become read-write again; what of one is to last has an id, and one that has an id is not committed. SQL is parsed by
//! nobody but the server.

pub mod lockstep;
mod own;
pub mod words;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use self::lockstep::{Lockstep, Out, Stop};
use self::words::Words;
use super::{Named, Postgres, farewell, refuse};
use crate::fence::{Outcome, Reason, Refusal};
use crate::net::{Closing, Stage, Stream};
use crate::protocol::CutReason;
use crate::protocol::session::Finish;
use crate::protocol::tunnel::Ends as _;

/// What one read takes at most.
const CHUNK: usize = 64 * 1024;
/// So much is kept for a client that takes nothing before more of the server is read.
const KEPT: usize = 256 * 1024;
/// So much of a client is read while what it has said before waits.
const AHEAD: usize = 16 * 1024;
/// Terminate.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

thread_local! {
    /// One buffer for all sessions of a worker: an idle one holds none.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Whether a session that is refused with this may read: where it does not lead, or not any more, or does not say so. They are the
/// reasons that Redis' clients are told `READONLY` for. Whoever says nothing that can be read, or may not write as whom it says it
/// is, is to hear that; and who may succeed in a moment is to try again, or it would read for ever.
pub fn may_read(reason: Reason) -> bool {
    match reason {
        Reason::StampRequired | Reason::StaleEpoch | Reason::EpochConflict | Reason::EpochDenied => true,
        Reason::MalformedStamp
        | Reason::PathNotNormal
        | Reason::StampPresent
        | Reason::EpochExpected
        | Reason::IdentityRefused
        | Reason::SignatureRefused
        | Reason::NotLeader
        | Reason::TermChanged
        | Reason::ResourceUnknown
        | Reason::ResourceMismatch
        | Reason::Unverifiable
        | Reason::HoldFull
        | Reason::HoldTimeout
        | Reason::GateShut
        | Reason::NotArmed
        | Reason::UpstreamUnreachable
        | Reason::UpstreamBroken
        | Reason::FencedInFlight
        | Reason::UpstreamTimeout => false,
    }
}

/// A reading session in progress.
pub(super) struct Reading {
    service: Rc<Postgres>,
    named: Named,
    refusal: Box<Refusal>,
    client: Stream,
    upstream: Stream,
    lockstep: Lockstep,
    out: Out,
    /// Of the client, and not taken yet.
    ahead: BytesMut,
    /// What was written may still be within TLS: to the server, to the client.
    unflushed: (bool, bool),
    finish: Finish,
}

/// Why it does not go on.
enum End {
    /// One side has gone; the server may still have said something.
    Gone,
    /// The listener is to finish, and nothing is under way.
    Finishing,
    /// Everything is to end at once.
    Now,
    Stopped(Stop),
}

impl Reading {
    /// Of a session that was refused with `refusal`; `packet` is its startup message for the server, and `ahead` what its client has
    /// sent already.
    #[expect(clippy::too_many_arguments, reason = "each is another's, and they come together only here")]
    pub(super) fn begin(
        service: Rc<Postgres>,
        named: Named,
        refusal: Box<Refusal>,
        client: Stream,
        ahead: BytesMut,
        upstream: Stream,
        packet: &[u8],
        mut finish: Finish,
    ) -> Reading {
        finish.ends_as(Outcome::Answered);
        let lockstep = Lockstep::new(Words::of(&refusal));
        let out = Out { server: BytesMut::from(packet), client: BytesMut::new() };
        Reading { service, named, refusal, client, upstream, lockstep, out, ahead, unflushed: (false, false), finish }
    }

    /// Runs it to its end.
    pub(super) async fn run(mut self, mut closing: Closing) {
        let end = poll_fn(|context| self.poll(&mut closing, context)).await;
        let role = &self.service.sessions.role;
        let words = match end {
            End::Gone | End::Stopped(Stop::Terminated) => Vec::new(),
            End::Finishing => {
                role.cut(CutReason::Shutdown);
                refuse::stopping()
            }
            End::Now => return role.cut(CutReason::Shutdown),
            End::Stopped(Stop::Client(why)) => refuse::unreadable(why),
            End::Stopped(Stop::Server(why)) => {
                tracing::warn!(%why, listener = %self.service.sessions.listener.name, "a reading session is ended");
                refuse::unreadable(why)
            }
            End::Stopped(Stop::TooOld(version)) => self.too_old(version),
        };
        self.say_goodbye(&words, closing).await;
    }

    fn poll(&mut self, closing: &mut Closing, context: &mut Context<'_>) -> Poll<End> {
        loop {
            match closing.watch(context) {
                Stage::Now => return Poll::Ready(End::Now),
                Stage::Finishing if self.rests() => return Poll::Ready(End::Finishing),
                Stage::Finishing | Stage::Open => {}
            }
            match self.poll_once(context) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    fn rests(&self) -> bool {
        let nothing_left = self.ahead.is_empty() && self.out.server.is_empty() && self.out.client.is_empty();
        self.lockstep.rests() && nothing_left
    }

    /// Moves what there is to move; says whether there may be more. The server's side first: what it says decides what the client may.
    fn poll_once(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved =
            write(&mut self.client, &mut self.out.client, &mut self.unflushed.1, context).map_err(|_| End::Gone)?;
        if self.out.client.len() < KEPT {
            moved |= self.poll_server(context)?;
        }
        // A client that reads nothing is not read from either: what it is to be told would fill the memory.
        let listens = self.out.client.len() < KEPT;
        if listens {
            let before = self.out.client.len();
            self.lockstep.client(&mut self.ahead, &mut self.out).map_err(End::Stopped)?;
            // The guard answers a Sync that ends nothing by itself: no server's answer wakes anybody for that.
            moved |= self.out.client.len() > before;
        }
        if listens && self.ahead.len() < AHEAD {
            moved |= self.poll_client(context)?;
        }
        moved |=
            write(&mut self.upstream, &mut self.out.server, &mut self.unflushed.0, context).map_err(|_| End::Gone)?;
        Ok(moved)
    }

    fn poll_server(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let (lockstep, out) = (&mut self.lockstep, &mut self.out);
        let read = read(&mut self.upstream, context, |bytes| lockstep.server(bytes, out));
        let moved = read.map_err(|_| End::Gone)?.transpose().map_err(End::Stopped)?.is_some();
        for _ in 0..self.lockstep.take_refused() {
            self.service.sessions.say_refused(&self.named.asked(), &self.refusal);
        }
        Ok(moved)
    }

    fn poll_client(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let ahead = &mut self.ahead;
        let read = read(&mut self.client, context, |bytes| ahead.extend_from_slice(bytes));
        Ok(read.map_err(|_| End::Gone)?.is_some())
    }

    /// The server cannot hold a session to reading: it is refused as it would have been.
    fn too_old(&mut self, version: u32) -> Vec<u8> {
        self.finish.ends_as(Outcome::NotApplied);
        let refusal = Refusal {
            detail: format!(
                "{}; the server is PostgreSQL {version}, which cannot hold a session to reading: stale: read_only needs {}",
                self.refusal.detail.trim_end_matches('.'),
                words::OLDEST
            )
            .into(),
            ..(*self.refusal).clone()
        };
        self.service.sessions.say_refused(&self.named.asked(), &refusal);
        refuse::refusal(&refusal)
    }

    /// Ends both sides; with these last words to the client, where it can be told.
    async fn say_goodbye(mut self, words: &[u8], mut closing: Closing) {
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        if self.lockstep.is_between_messages() && self.out.server.is_empty() {
            // As far as the kernel takes it at once: the connection's end says the same.
            let _ = Pin::new(&mut self.upstream).poll_write(&mut nobody, TERMINATE);
        }
        let _ = Pin::new(&mut self.upstream).poll_shutdown(&mut nobody);
        drop(self.upstream);
        if self.lockstep.is_between_replies() {
            self.out.client.extend_from_slice(words);
        }
        farewell::tell(self.client, &self.out.client, &mut closing).await;
    }
}

/// Writes what `stream` takes now; says whether that was anything.
fn write(
    stream: &mut Stream,
    bytes: &mut BytesMut,
    unflushed: &mut bool,
    context: &mut Context<'_>,
) -> io::Result<bool> {
    let mut moved = false;
    while !bytes.is_empty() {
        match Pin::new(&mut *stream).poll_write(context, bytes) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(taken)) => bytes.advance(taken),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(moved),
        }
        (moved, *unflushed) = (true, true);
    }
    if moved {
        *bytes = BytesMut::new();
    }
    if *unflushed && let Poll::Ready(flushed) = Pin::new(stream).poll_flush(context) {
        flushed?;
        *unflushed = false;
    }
    Ok(moved)
}

/// Reads once, and shows what came; `None` where nothing is there.
fn read<T>(stream: &mut Stream, context: &mut Context<'_>, show: impl FnOnce(&[u8]) -> T) -> io::Result<Option<T>> {
    let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
    let mut space = ReadBuf::new(&mut buffer);
    let polled = Pin::new(stream).poll_read(context, &mut space);
    let shown = match polled {
        Poll::Pending => Ok(None),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(())) if space.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        Poll::Ready(Ok(())) => Ok(Some(show(space.filled()))),
    };
    BUFFER.set(Some(buffer));
    shown
}
