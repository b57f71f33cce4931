//! A byte stream between two peers.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls::Tls;

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
    Tls(Box<Tls>),
    Unix(UnixStream),
    Other(Pin<Box<dyn Io>>),
    Looked(Box<Looked>),
}

/// A stream of which something was read ahead, until that is read: apart, for hardly any stream is one for long.
struct Looked {
    kind: Kind,
    ahead: Vec<u8>,
}

impl Kind {
    /// Stands in while a kind is taken out.
    fn nothing() -> Kind {
        Kind::Other(Box::pin(tokio::io::empty()))
    }

    /// The stream beneath what was read ahead.
    fn beneath(&self) -> &Kind {
        match self {
            Kind::Looked(looked) => &looked.kind,
            other => other,
        }
    }

    /// What was read ahead, to add to.
    fn ahead(&mut self) -> &mut Vec<u8> {
        if !matches!(self, Kind::Looked(_)) {
            let kind = std::mem::replace(self, Kind::nothing());
            *self = Kind::Looked(Box::new(Looked { kind, ahead: Vec::new() }));
        }
        match self {
            Kind::Looked(looked) => &mut looked.ahead,
            _ => unreachable!("made one above"),
        }
    }

    /// The stream as a reader and writer of bytes; what was read ahead is not among them.
    fn io(&mut self) -> Pin<&mut dyn Io> {
        match self {
            Kind::Looked(looked) => looked.kind.io(),
            Kind::Tcp(socket) => Pin::<&mut TcpStream>::new(socket),
            Kind::Tls(tls) => Pin::<&mut Tls>::new(tls),
            Kind::Unix(socket) => Pin::<&mut UnixStream>::new(socket),
            Kind::Other(io) => io.as_mut(),
        }
    }
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

/// A byte stream: a TCP socket, plain or with TLS, a unix socket, or any other (tests, the simulation).
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

    /// A session over a stream that [`Stream::tcp`] made.
    pub(super) fn secured(tls: Tls, reset: ResetOnClose) -> Stream {
        Stream { kind: Kind::Tls(Box::new(tls)), reset }
    }

    /// A connected unix socket. What was written is in the peer's hands at once, so its reset is a plain drop.
    pub fn unix(socket: UnixStream) -> Stream {
        Stream { kind: Kind::Unix(socket), reset: ResetOnClose::default() }
    }

    /// Any other stream. Its reset is a plain drop.
    pub fn other(io: impl AsyncRead + AsyncWrite + 'static) -> Stream {
        Stream { kind: Kind::Other(Box::pin(io)), reset: ResetOnClose::default() }
    }

    /// The socket, where the bytes of this stream are those of a TCP connection.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Tcp(socket) => Some(socket),
            _ => None,
        }
    }

    /// The TCP connection that carries it, in whatever form.
    fn carrier(&self) -> Option<&TcpStream> {
        match self.kind.beneath() {
            Kind::Tcp(socket) => Some(socket),
            Kind::Tls(tls) => Some(tls.socket()),
            Kind::Unix(_) | Kind::Other(_) | Kind::Looked(_) => None,
        }
    }

    /// The two ends of the TCP connection that carries it, this one's first; `None` where there is none under it.
    pub fn tcp_ends(&self) -> Option<io::Result<(SocketAddr, SocketAddr)>> {
        self.carrier().map(|socket| Ok((socket.local_addr()?, socket.peer_addr()?)))
    }

    /// Takes the TCP socket out again, with what decides how it is closed; `None` where it is none, or has become
    /// something else.
    pub(super) fn into_tcp(mut self) -> Option<(TcpStream, ResetOnClose)> {
        match std::mem::replace(&mut self.kind, Kind::nothing()) {
            Kind::Tcp(socket) => Some((socket, self.reset.clone())),
            _ => None,
        }
    }

    /// Copies what the stream begins with into `bytes`, as far as it is there, and leaves it to be read: waits for the first byte,
    /// and returns how many there are; none at its end. To be called before anything was read. Cancel-safe.
    ///
    /// # Errors
    /// Where the stream breaks.
    pub async fn look(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Kind::Tcp(socket) = &self.kind {
            return socket.peek(bytes).await;
        }
        let known = match &self.kind {
            Kind::Looked(looked) => looked.ahead.len(),
            _ => 0,
        };
        if known < bytes.len() {
            let mut more = [0; 64];
            let space = (bytes.len() - known).min(more.len());
            let mut space = ReadBuf::new(&mut more[..space]);
            std::future::poll_fn(|context| match self.kind.io().poll_read(context, &mut space) {
                Poll::Pending if known > 0 => Poll::Ready(Ok(())),
                polled => polled,
            })
            .await?;
            // Not before: nothing read ahead, where this is given up, would be read as the stream's end.
            if !space.filled().is_empty() {
                self.kind.ahead().extend(space.filled());
            }
        }
        let Kind::Looked(looked) = &self.kind else { return Ok(0) };
        let there = looked.ahead.len().min(bytes.len());
        bytes[..there].copy_from_slice(&looked.ahead[..there]);
        Ok(there)
    }

    /// The address that it is connected to, where there is one.
    pub fn peer_address(&self) -> Option<std::net::SocketAddr> {
        self.carrier()?.peer_addr().ok()
    }

    /// The address that it is connected from, where there is one.
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.carrier()?.local_addr().ok()
    }

    /// Whether everything that was written is out of this process' hands. Never wrong where it says no: what TLS has
    /// sealed and the kernel has not taken yet waits in here.
    pub fn has_sent_all(&self) -> bool {
        match self.kind.beneath() {
            Kind::Tls(tls) => tls.has_sent_all(),
            Kind::Tcp(_) | Kind::Unix(_) | Kind::Other(_) | Kind::Looked(_) => true,
        }
    }

    /// The session, where it has TLS.
    pub fn tls(&self) -> Option<&Tls> {
        match self.kind.beneath() {
            Kind::Tls(tls) => Some(tls),
            _ => None,
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
        self.carrier().map_or(Ok(()), |socket| SockRef::from(socket).set_tcp_user_timeout(Some(limit)))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.beneath() {
            Kind::Tcp(socket) => socket.fmt(f),
            Kind::Tls(tls) => tls.socket().fmt(f),
            Kind::Unix(socket) => socket.fmt(f),
            Kind::Other(_) | Kind::Looked(_) => f.write_str("Stream"),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.reset.get() {
            if let Some(socket) = self.carrier() {
                // It fails only for a socket that has no connection any more: then there is nothing to reset.
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            return;
        }
        let beneath = match &mut self.kind {
            Kind::Looked(looked) => &mut looked.kind,
            other => other,
        };
        if let Kind::Tls(tls) = beneath {
            tls.say_goodbye();
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
            Kind::Looked(looked) => {
                let taken = looked.ahead.len().min(buffer.remaining());
                buffer.put_slice(&looked.ahead[..taken]);
                looked.ahead.drain(..taken);
                if looked.ahead.is_empty() {
                    self.kind = std::mem::replace(&mut looked.kind, Kind::nothing());
                }
                Poll::Ready(Ok(()))
            }
            other => other.io().poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            other => other.io().poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.kind {
            Kind::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            other => other.io().poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self.kind.beneath() {
            Kind::Other(io) => io.is_write_vectored(),
            Kind::Tcp(_) | Kind::Tls(_) | Kind::Unix(_) | Kind::Looked(_) => true,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            // The kernel has it already.
            Kind::Tcp(_) => Poll::Ready(Ok(())),
            other => other.io().poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.get() {
            // An orderly end would promise the peer that what it got is all of it.
            return Poll::Ready(Ok(()));
        }
        self.kind.io().poll_shutdown(context)
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
    async fn a_look_that_is_given_up_leaves_no_end_behind() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Stream::other(near);
        let mut first = [0; 4];
        assert!(futures_util::FutureExt::now_or_never(near.look(&mut first)).is_none());
        far.write_all(b"word").await.expect("write");
        let mut got = [0; 4];
        assert_eq!(near.read(&mut got).await.expect("read"), 4);
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
