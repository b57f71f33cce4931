//! A byte stream between two peers.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// After so much silence the kernel asks whether the peer is still there...
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// ...so often...
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// ...and so many times before it gives the connection up.
const KEEPALIVE_TRIES: u32 = 3;

trait Io: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Io for T {}

enum Kind {
    Tcp(TcpStream),
    Other(Pin<Box<dyn Io>>),
}

/// Whether a stream is closed by reset; shared between the stream and whoever knows what it carries.
///
/// A reset throws away what the kernel has not sent yet, so that a lost write does not go on trickling out for minutes
/// after its connection was given up.
#[derive(Clone, Debug, Default)]
pub struct ResetOnClose(Rc<Cell<bool>>);

impl ResetOnClose {
    /// Decides how the stream is closed, from now on.
    pub fn set(&self, reset: bool) {
        self.0.set(reset);
    }

    /// How it would be closed now.
    pub fn get(&self) -> bool {
        self.0.get()
    }
}

/// A byte stream: a TCP socket, or any other (tests, the simulation).
pub struct Stream {
    kind: Kind,
    reset: ResetOnClose,
}

impl Stream {
    /// A connected TCP socket: small writes leave at once, and a peer that is gone is noticed.
    ///
    /// # Errors
    /// Where the socket refuses an option: it is closed already.
    pub fn tcp(socket: TcpStream) -> io::Result<Stream> {
        socket.set_nodelay(true)?;
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_TRIES);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        Ok(Stream { kind: Kind::Tcp(socket), reset: ResetOnClose::default() })
    }

    /// Any other stream. Its reset is a plain drop.
    pub fn other(io: impl AsyncRead + AsyncWrite + 'static) -> Stream {
        Stream { kind: Kind::Other(Box::pin(io)), reset: ResetOnClose::default() }
    }

    /// The socket, where it is a TCP one.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Tcp(socket) => Some(socket),
            Kind::Other(_) => None,
        }
    }

    /// What decides how it is closed.
    pub fn reset_on_close(&self) -> ResetOnClose {
        self.reset.clone()
    }

    /// How long the kernel goes on sending what nobody acknowledges (TCP_USER_TIMEOUT). Nothing but a TCP socket has
    /// such a thing.
    ///
    /// # Errors
    /// Where the socket refuses the option.
    pub fn give_up_sending_after(&self, limit: Duration) -> io::Result<()> {
        match &self.kind {
            Kind::Tcp(socket) => SockRef::from(socket).set_tcp_user_timeout(Some(limit)),
            Kind::Other(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Tcp(socket) => socket.fmt(f),
            Kind::Other(_) => f.write_str("Stream"),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let (true, Kind::Tcp(socket)) = (self.reset.get(), &self.kind) {
            // It fails only for a socket that has no connection any more: then there is nothing to reset.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Kind::Other(io) => io.as_mut().poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Kind::Other(io) => io.as_mut().poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Kind::Other(io) => io.as_mut().poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Tcp(socket) => socket.is_write_vectored(),
            Kind::Other(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Kind::Other(io) => io.as_mut().poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.get() {
            // An orderly end would promise the peer that what it got is all of it.
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Kind::Other(io) => io.as_mut().poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Stream::tcp(near.expect("connect")).expect("options"), far.expect("accept").0)
    }

    #[tokio::test]
    async fn a_stream_ends_orderly_unless_it_was_told_to_reset() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"all of it").await.expect("write");
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("an orderly end");
        assert_eq!(got, b"all of it");

        let (mut near, mut far) = pair().await;
        near.write_all(b"half").await.expect("write");
        near.reset_on_close().set(true);
        near.shutdown().await.expect("nothing to do");
        drop(near);
        let error = far.read_to_end(&mut Vec::new()).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
