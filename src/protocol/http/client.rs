//! The client's side of a connection: its socket, shared between hyper and those who watch it, and what happens on it.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::Frames;
use crate::config::resolved::Limits;
use crate::net::Stream;
use crate::peer::Peer;
use crate::protocol::CutReason;
use crate::protocol::tunnel::Tunnel;

/// For so long an HTTP/2 client may begin streams on a connection that ends: those that were on their way.
const LAST_STREAM: Duration = Duration::from_secs(5);

/// One client connection.
pub struct Client {
    stream: Cell<Option<Stream>>,
    /// Read already, but not by hyper yet.
    ahead: RefCell<Bytes>,
    at_end: Cell<bool>,
    requests: Cell<usize>,
    /// How many answers wait for their client: it has not taken the part before yet.
    untaken: Cell<usize>,
    /// Grows with every part of an answer that is taken.
    progress: Cell<u64>,
    /// What its frames are worth, where it speaks HTTP/2.
    frames: RefCell<Option<Frames>>,
    flooded: Cell<bool>,
    /// How often everything that was to be written had been; and how often when the last request ended.
    flushes: Cell<u64>,
    flushes_at_end: Cell<Option<u64>>,
    /// When the last request ended, or the connection began.
    idle_since: Cell<Instant>,
    /// When the first byte of a head came that is not complete yet. Kept up for HTTP/1 only.
    head_since: Cell<Option<Instant>>,
    /// Whether an answer was given while the request's body was still coming.
    unread: Cell<bool>,
    to_be_closed: Cell<Option<CutReason>>,
    /// Since when an HTTP/2 client knows that its connection ends.
    finishing_since: Cell<Option<Instant>>,
    driver: Cell<Option<Waker>>,
    tunnel: RefCell<Option<Tunnel>>,
    peer_text: OnceCell<String>,
}

impl Client {
    /// Over this stream, of which `ahead` has been read, the first byte of it at `since`.
    pub fn new(stream: Stream, ahead: Bytes, since: Instant) -> Rc<Client> {
        Rc::new(Client {
            stream: Cell::new(Some(stream)),
            ahead: RefCell::new(ahead),
            at_end: Cell::new(false),
            requests: Cell::new(0),
            untaken: Cell::new(0),
            progress: Cell::new(0),
            frames: RefCell::default(),
            flooded: Cell::new(false),
            flushes: Cell::new(0),
            flushes_at_end: Cell::new(None),
            idle_since: Cell::new(since),
            head_since: Cell::new(Some(since)),
            unread: Cell::new(false),
            to_be_closed: Cell::new(None),
            finishing_since: Cell::new(None),
            driver: Cell::new(None),
            tunnel: RefCell::new(None),
            peer_text: OnceCell::new(),
        })
    }

    /// Its peer, which is always the same, as X-Forwarded-For has it.
    pub fn peer_text(&self, peer: Peer) -> &str {
        self.peer_text.get_or_init(|| peer.forwarded_for())
    }

    /// What hyper reads from and writes to.
    pub fn socket(self: &Rc<Client>) -> ClientSocket {
        ClientSocket(Rc::clone(self))
    }

    /// Counts a request in until the guard is dropped.
    pub fn begin_request(self: &Rc<Client>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        self.head_since.set(None);
        Busy { client: Rc::clone(self), untaken: false }
    }

    /// Weighs what comes from now on as HTTP/2 frames, beginning with the preface.
    pub fn weigh_frames(&self) {
        self.frames.replace(Some(Frames::new(Instant::now())));
    }

    /// Whether it sent more than a client has use for: it is read no further.
    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// How many parts of answers have been taken: where nothing comes of that, and all answers wait, the client is slow.
    pub fn progress(&self) -> u64 {
        self.progress.get()
    }

    /// Has the connection end by reset: the kernel is not to go on offering the client what it does not take.
    pub fn reset_on_close(&self) {
        if let Some(stream) = self.stream.take() {
            stream.reset_on_close().set(true);
            self.stream.set(Some(stream));
        }
    }

    /// When to end the connection if nothing happens before, and why; without a reason: when to look again.
    /// `stands_since` is when [`Client::progress`] last changed.
    pub fn deadline(&self, limits: &Limits, is_http2: bool, stands_since: Instant) -> (Instant, Option<CutReason>) {
        if self.requests.get() > 0 {
            return match self.untaken.get() == self.requests.get() {
                true => (stands_since + limits.answer_idle_timeout, Some(CutReason::SlowReader)),
                false => (Instant::now() + limits.idle_timeout.min(limits.answer_idle_timeout), None),
            };
        }
        match self.head_since.get() {
            Some(since) if !is_http2 => (since + limits.header_timeout, Some(CutReason::HeaderTimeout)),
            _ => (self.idle_since.get() + limits.idle_timeout, Some(CutReason::Idle)),
        }
    }

    /// Notes that the connection's end must not destroy an answer that the client, still sending, has not read yet.
    pub fn note_unread(&self) {
        self.unread.set(true);
    }

    /// See [`Client::note_unread`].
    pub fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// Whether it stands between two requests, with the last answer out and nothing against a next one.
    pub fn is_free(&self) -> bool {
        let out = self.flushes_at_end.get().is_some_and(|at_end| self.flushes.get() > at_end);
        let stays = !self.unread.get() && !self.at_end.get() && self.to_be_closed.get().is_none();
        self.requests.get() == 0 && out && stays && self.tunnel.borrow().is_none()
    }

    /// Notes that the client is told that its connection ends.
    pub fn begin_finishing(&self) {
        self.finishing_since.set(self.finishing_since.get().or_else(|| Some(Instant::now())));
    }

    /// When its last stream may begin; `None` as long as nothing ends.
    pub fn last_stream_by(&self) -> Option<Instant> {
        self.finishing_since.get().map(|since| since + LAST_STREAM)
    }

    /// Whether a stream that begins now comes too late: whoever has not heard of the end by now does not want to.
    pub fn takes_no_more(&self) -> bool {
        self.last_stream_by().is_some_and(|last| Instant::now() >= last)
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.requests.get() == 0
    }

    /// Has the connection closed once what is in flight has been answered.
    pub fn close(&self, reason: CutReason) {
        self.to_be_closed.set(Some(reason));
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Whether, and why, somebody wants the connection closed; wakes the caller's task when somebody does.
    pub fn watch_close(&self, context: &Context<'_>) -> Option<CutReason> {
        let reason = self.to_be_closed.get();
        if reason.is_none() {
            self.driver.set(Some(context.waker().clone()));
        }
        reason
    }

    /// Why somebody wants the connection closed, if anybody does.
    pub fn close_reason(&self) -> Option<CutReason> {
        self.to_be_closed.get()
    }

    /// What the connection is to become once its 101 is out.
    pub fn become_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(tunnel));
    }

    /// See [`Client::become_tunnel`].
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }

    /// Takes the stream away from hyper, with what was read of it and not used.
    pub fn take_stream(&self) -> Option<(Stream, Bytes)> {
        Some((self.stream.take()?, self.ahead.take()))
    }

    /// Resolves when the client has closed its side. For HTTP/1 and between hyper's own reads: a byte that comes
    /// first is kept for hyper, and nothing is noticed beyond it.
    pub async fn gone(&self) {
        poll_fn(|context| self.poll_gone(context)).await;
    }

    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.at_end.get() {
            return Poll::Ready(());
        }
        if !self.ahead.borrow().is_empty() {
            return Poll::Pending;
        }
        let mut space = [0; 512];
        let mut buffer = ReadBuf::new(&mut space);
        match self.poll_stream(context, |stream, context| stream.poll_read(context, &mut buffer)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                self.at_end.set(true);
                Poll::Ready(())
            }
            Poll::Ready(Ok(())) => {
                self.ahead.replace(Bytes::copy_from_slice(buffer.filled()));
                // Hyper, in the same task, may have been waiting for these very bytes.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Polls the stream; it is away from its place meanwhile, so that no borrow is held over foreign code.
    fn poll_stream<T>(
        &self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(mut stream) = self.stream.take() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let polled = poll(Pin::new(&mut stream), context);
        self.stream.set(Some(stream));
        polled
    }

    fn poll_write(
        &self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_stream(context, write);
        if let (Poll::Ready(Ok(bytes)), Some(frames)) = (&written, &mut *self.frames.borrow_mut()) {
            frames.sent(*bytes);
        }
        written
    }

    fn poll_read(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        {
            let mut ahead = self.ahead.borrow_mut();
            if !ahead.is_empty() {
                let part = ahead.len().min(buffer.remaining());
                buffer.put_slice(&ahead[..part]);
                ahead.advance(part);
            }
        }
        if buffer.filled().len() == before && !self.at_end.get() {
            let read = self.poll_stream(context, |stream, context| stream.poll_read(context, buffer));
            std::task::ready!(read)?;
            self.at_end.set(buffer.filled().len() == before);
        }
        let came = buffer.filled().len() > before;
        if let Some(frames) = &mut *self.frames.borrow_mut()
            && !frames.read(&buffer.filled()[before..], Instant::now)
        {
            self.flooded.set(true);
            return Poll::Ready(Err(io::Error::other("more frames than a client has use for")));
        }
        if came && self.requests.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
        Poll::Ready(Ok(()))
    }
}

/// A request in flight on a connection.
pub struct Busy {
    client: Rc<Client>,
    /// Whether its answer waits for the client.
    untaken: bool,
}

impl Busy {
    /// The connection.
    pub fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// Its answer has a part for the client (`true`), or waits for the upstream.
    pub fn waits_for_client(&mut self, waits: bool) {
        self.client.progress.set(self.client.progress.get() + 1);
        if self.untaken != waits {
            self.untaken = waits;
            let count = self.client.untaken.get();
            self.client.untaken.set(if waits { count + 1 } else { count - 1 });
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.waits_for_client(false);
        self.client.requests.set(self.client.requests.get() - 1);
        self.client.idle_since.set(Instant::now());
        self.client.flushes_at_end.set(Some(self.client.flushes.get()));
    }
}

/// A [`Client`]'s stream as hyper has it.
pub struct ClientSocket(Rc<Client>);

impl AsyncRead for ClientSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        // Hyper asks before anything has happened; a stream that cannot do it takes the first slice of each call.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Hyper flushes its socket only when it has nothing left to write.
        let polled = self.0.poll_stream(context, |stream, context| stream.poll_flush(context));
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.0.flushes.set(self.0.flushes.get() + 1);
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_stream(context, |stream, context| stream.poll_shutdown(context))
    }
}
