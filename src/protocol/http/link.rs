//! The upstream's side of a connection: its socket, shared between hyper and those who must know what has left, and
//! must be able to end it at once.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::net::{ResetOnClose, Stream};

/// One upstream connection's socket.
pub struct Link {
    stream: Cell<Option<Stream>>,
    ended: Cell<bool>,
    reset: ResetOnClose,
    kept_open: Cell<bool>,
    /// Bytes that the kernel took.
    written: Cell<u64>,
    /// When it last took any.
    moved: Cell<Instant>,
    /// How often everything that was to be written had been.
    flushes: Cell<u64>,
    /// How often, when the upstream last said something.
    flushes_at_read: Cell<u64>,
    reader: Cell<Option<Waker>>,
}

impl Link {
    /// Over this stream.
    pub fn new(stream: Stream) -> Rc<Link> {
        Rc::new(Link {
            reset: stream.reset_on_close(),
            stream: Cell::new(Some(stream)),
            ended: Cell::new(false),
            kept_open: Cell::new(false),
            written: Cell::new(0),
            moved: Cell::new(Instant::now()),
            flushes: Cell::new(0),
            flushes_at_read: Cell::new(0),
            reader: Cell::new(None),
        })
    }

    /// What hyper reads from and writes to.
    pub fn socket(self: &Rc<Link>) -> LinkSocket {
        LinkSocket(Rc::clone(self))
    }

    /// Whether a close from now on is a reset: while a write is on it that has no answer.
    pub fn reset_on_close(&self, reset: bool) {
        self.reset.set(reset);
    }

    /// Whether the stream is left open when hyper is done with it: for an upgrade.
    pub fn keep_open(&self, kept_open: bool) {
        self.kept_open.set(kept_open);
    }

    /// See [`Link::keep_open`].
    pub fn is_kept_open(&self) -> bool {
        self.kept_open.get()
    }

    /// Closes the socket by reset, before this returns: no byte leaves afterwards.
    pub fn reset(&self) {
        self.reset.set(true);
        self.ended.set(true);
        drop(self.stream.take());
    }

    /// Takes the stream away from hyper.
    pub fn take_stream(&self) -> Option<Stream> {
        self.stream.take()
    }

    /// How many bytes the kernel has taken.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// When the kernel last took any.
    pub fn moved(&self) -> Instant {
        self.moved.get()
    }

    /// How often everything that was to be written had been.
    pub fn flushes(&self) -> u64 {
        self.flushes.get()
    }

    /// The same, when the upstream last said something, or that it says no more.
    pub fn flushes_at_read(&self) -> u64 {
        self.flushes_at_read.get()
    }

    /// Wakes the caller's task when the upstream has sent something.
    pub fn watch_reads(&self, context: &Context<'_>) {
        self.reader.set(Some(context.waker().clone()));
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
        if !self.ended.get() {
            self.stream.set(Some(stream));
        }
        polled
    }

    fn count(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes @ 1..)) = polled {
            self.written.set(self.written.get() + bytes as u64);
            self.moved.set(Instant::now());
        }
        polled
    }
}

/// A [`Link`]'s stream as hyper has it.
pub struct LinkSocket(Rc<Link>);

impl AsyncRead for LinkSocket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = self.0.poll_stream(context, |stream, context| stream.poll_read(context, buffer));
        if polled.is_ready() {
            self.0.flushes_at_read.set(self.0.flushes.get());
            if let Some(reader) = self.0.reader.take() {
                reader.wake();
            }
        }
        polled
    }
}

impl AsyncWrite for LinkSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.count(self.0.poll_stream(context, |stream, context| stream.poll_write(context, bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.count(self.0.poll_stream(context, |stream, context| stream.poll_write_vectored(context, slices)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Hyper and h2 flush their socket only when they have nothing left to write.
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
