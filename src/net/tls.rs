//! A TLS session over a TCP socket (rustls), as a stream whose promises the fence can count on.
//!
//! What differs from the session of tokio-rustls that is inside:
//! - an error of a write means that nothing of *this* write can reach the peer: no more than one record is sealed at a
//!   time, and a peer can do nothing with a part of one (RFC 8446 5.2: it is authenticated as a whole). So the rule that
//!   nothing is sent twice (R6) holds as it does on a bare socket;
//! - what was sealed and did not fit into the kernel's buffer goes out with the next call of any kind, and
//!   [`Tls::has_sent_all`] says whether there is any;
//! - an orderly drop says so to the peer (`close_notify`), so that it can tell the end from a connection that broke.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{ResetOnClose, Stream};
use crate::peer::Names;
use crate::tls::certificate::Certificate;

/// The most that one record holds (RFC 8446 5.1).
const RECORD: usize = 16 * 1024;

/// A session in use.
pub struct Tls(TlsStream<TcpStream>);

impl Tls {
    /// The socket that carries it.
    pub(super) fn socket(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    /// Whether nothing that was sealed waits for the kernel to take it.
    pub(super) fn has_sent_all(&self) -> bool {
        !self.0.get_ref().1.wants_write()
    }

    /// The certificates that the peer has shown, its own first; they were verified.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.0.get_ref().1.peer_certificates()
    }

    /// Says that nothing follows, as far as the kernel takes it at once: whoever is gone does not hear it.
    pub(super) fn say_goodbye(&mut self) {
        let said = match &mut self.0 {
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                session.send_close_notify();
                write_out(socket, |to| session.write_tls(to))
            }
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                session.send_close_notify();
                write_out(socket, |to| session.write_tls(to))
            }
        };
        if let Err(error) = said {
            tracing::trace!(%error, "a session ended without a word");
        }
    }

    /// Has the kernel take what was sealed before.
    fn poll_sealed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_sent_all() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.0).poll_flush(context) }
    }
}

/// Writes until there is nothing more, or the kernel takes no more.
fn write_out(socket: &TcpStream, mut write: impl FnMut(&mut dyn Write) -> io::Result<usize>) -> io::Result<()> {
    struct AtOnce<'a>(&'a TcpStream);
    impl Write for AtOnce<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.try_write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    while write(&mut AtOnce(socket))? > 0 {}
    Ok(())
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Who reads waits for the other side, and that may wait for what is still here. An error shows in the reading too.
        let _ = self.poll_sealed(context);
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sealed(context))?;
        Pin::new(&mut self.0).poll_write(context, &bytes[..bytes.len().min(RECORD)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first) = slices.iter().position(|slice| !slice.is_empty()) else { return Poll::Ready(Ok(0)) };
        let one = slices[first].len().min(RECORD);
        let Some(next) = slices[first + 1..].iter().find(|slice| !slice.is_empty()) else {
            return self.poll_write(context, &slices[first][..one]);
        };
        ready!(self.poll_sealed(context))?;
        let two = next.len().min(RECORD - one);
        let parts = [IoSlice::new(&slices[first][..one]), IoSlice::new(&next[..two])];
        Pin::new(&mut self.0).poll_write_vectored(context, &parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sealed(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Agrees on a session with a client. Cancel-safe: dropping it closes the connection. The caller sets the time limit.
///
/// # Errors
/// Where there is no TCP connection under the stream, or the two cannot agree: the client has been told why, as far as
/// TLS has words for it.
pub async fn accept(stream: Stream, config: &Arc<ServerConfig>) -> io::Result<Stream> {
    let (socket, reset) = bare(stream)?;
    let session = TlsAcceptor::from(Arc::clone(config)).accept(socket).await?;
    Ok(Stream::secured(Tls(TlsStream::Server(session)), reset))
}

/// Agrees on a session with a server, and waits until it has taken this side's certificate where it asked for one: with
/// TLS 1.3 this side could write before the server has looked at it, and what is written then is lost with the
/// connection if the server refuses (RFC 8446 4.4.2, appendix C). What shows that it was taken is the first ticket; a
/// server that gives none is waited for no longer than `patience`.
///
/// # Errors
/// As [`accept`]; nothing has been written then.
pub async fn connect(
    stream: Stream,
    config: &ClientConfig,
    name: ServerName<'static>,
    patience: std::time::Duration,
) -> io::Result<Stream> {
    let (socket, reset) = bare(stream)?;
    let asked = Arc::new(asked::Asked::around(config));
    let mut own = config.clone();
    own.client_auth_cert_resolver = Arc::clone(&asked) as _;
    let mut session = TlsConnector::from(Arc::new(own)).connect(name, socket).await?;
    if asked.was_asked() && session.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
        match tokio::time::timeout(patience, first_word(&mut session)).await {
            Ok(heard) => heard?,
            Err(_) => tracing::debug!("the server gives no ticket: whether it takes the certificate will show"),
        }
    }
    Ok(Stream::secured(Tls(TlsStream::Client(session)), reset))
}

/// Waits for a ticket, or for the alert that is sent in its place.
async fn first_word(session: &mut tokio_rustls::client::TlsStream<TcpStream>) -> io::Result<()> {
    std::future::poll_fn(|context| {
        loop {
            if session.get_ref().1.tls13_tickets_received() > 0 {
                return Poll::Ready(Ok(()));
            }
            // Looked at, and left where it is: a server may speak first.
            let spoke = Pin::new(&mut *session).poll_fill_buf(context).map_ok(|bytes| !bytes.is_empty());
            match spoke {
                Poll::Ready(Ok(false)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if session.get_ref().1.tls13_tickets_received() > 0 => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// What the peer's certificate names it, where it has shown one. One that the verifier took, and this cannot read, names nobody:
/// then it may write as nobody.
pub fn peer_names(stream: &Stream) -> Option<Rc<Names>> {
    let own = stream.tls()?.peer_certificates()?.first()?;
    Some(Rc::new(Certificate::read(own).map(|certificate| certificate.names).unwrap_or_default()))
}

fn bare(stream: Stream) -> io::Result<(TcpStream, ResetOnClose)> {
    stream.into_tcp().ok_or_else(|| io::Error::other("TLS goes over a TCP connection, and this is none"))
}

mod asked {
    //! Whether a server asked for a certificate.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustls::client::ResolvesClientCert;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, SignatureScheme};

    /// Says yes to what the configuration says, and remembers that it was asked.
    #[derive(Debug)]
    pub struct Asked {
        inner: Arc<dyn ResolvesClientCert>,
        asked: AtomicBool,
    }

    impl Asked {
        pub fn around(config: &ClientConfig) -> Asked {
            Asked { inner: Arc::clone(&config.client_auth_cert_resolver), asked: AtomicBool::new(false) }
        }

        pub fn was_asked(&self) -> bool {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl ResolvesClientCert for Asked {
        fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            self.asked.store(true, Ordering::Relaxed);
            self.inner.resolve(hints, schemes)
        }

        fn has_certs(&self) -> bool {
            // Asked also where there is none to show: that is what is to be known.
            true
        }
    }
}
