//! Listening sockets, one a worker, and the acceptor over them.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Type};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use super::Stream;
use super::unix::{self, Name};
use crate::config::resolved::ListenAt;
use crate::peer::{Credentials, Peer};

/// Connections that wait in the kernel to be accepted, per socket.
const BACKLOG: i32 = 1024;
/// How long to wait after an error that accepting again at once would only repeat (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(100);
/// At most so often is such an error logged.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// With port 0 the port found by the first socket may be taken before the others have it.
const PORT_TRIES: usize = 8;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}: {source}")]
pub struct BindError {
    /// Where.
    pub at: ListenAt,
    /// Why; [`io::ErrorKind::AddrInUse`] where another process, or another listener, has it.
    pub source: io::Error,
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_all(address: SocketAddr, sockets: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // SO_REUSEPORT lets any process of the same user join in, and the kernel would then give it every other
    // connection. So one socket without it asks first whether anybody is there.
    let probe = socket(address, false)?;
    probe.listen(1)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..sockets)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

/// Listens on `address` with so many sockets (at least one), one for each worker; the kernel spreads the connections
/// over them. With port 0 all of them have the same free port.
///
/// # Errors
/// Where the address is taken, also by another process that would share it, or not this host's.
pub fn bind(address: SocketAddr, sockets: usize) -> Result<Vec<std::net::TcpListener>, BindError> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_all(address, sockets.max(1)) {
            Ok(listeners) => return Ok(listeners),
            Err(source) if tries > 0 && source.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(BindError { at: address.into(), source }),
        }
    }
}

/// A listening socket, of one worker.
#[derive(Debug)]
pub enum Socket {
    /// At an address.
    Tcp(std::net::TcpListener),
    /// At a path.
    Unix(UnixListener),
}

/// One listener's sockets, one for each worker.
#[derive(Debug)]
pub struct Bound {
    /// Where it is, with the port that the system chose where 0 was asked for.
    pub at: ListenAt,
    /// One for each worker.
    pub sockets: Vec<Socket>,
    /// The name of a unix socket, as long as this process has it.
    pub name: Option<Name>,
}

/// Listens with so many sockets (at least one), one for each worker. Those of a unix socket share one queue, and whoever
/// looks first takes what waits.
///
/// # Errors
/// Where it is taken, or cannot be had.
pub fn bind_at(at: &ListenAt, mode: u32, sockets: usize) -> Result<Bound, BindError> {
    match at {
        ListenAt::Tcp(address) => {
            let sockets = bind(*address, sockets)?;
            let address = sockets.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(*address);
            Ok(Bound { at: address.into(), sockets: sockets.into_iter().map(Socket::Tcp).collect(), name: None })
        }
        ListenAt::Unix(path) => {
            let failed = |source| BindError { at: at.clone(), source };
            let (listener, name) = unix::bind(path, mode).map_err(failed)?;
            let clone = |_| listener.try_clone().map(Socket::Unix);
            let sockets = (0..sockets.max(1)).map(clone).collect::<io::Result<_>>().map_err(failed)?;
            Ok(Bound { at: at.clone(), sockets, name: Some(name) })
        }
    }
}

/// Where new connections come from: a listening socket, or a test's or the simulation's own source.
pub trait Accept {
    /// The next connection.
    ///
    /// # Errors
    /// Where this one could not be had; the next may be.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>>;

    /// A connection that waits already, without waiting for one; asks the kernel itself, so that nothing that has
    /// arrived is overlooked. `None` where nothing waits.
    ///
    /// # Errors
    /// Where something may wait, and cannot be had now (no descriptors left).
    fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>>;
}

struct Tcp(TcpListener);

impl Accept for Tcp {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        self.0.poll_accept(context).map(|accepted| {
            let (socket, peer) = accepted?;
            Ok((Stream::tcp(socket)?, peer.into()))
        })
    }

    fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        loop {
            match SockRef::from(&self.0).accept() {
                Ok((socket, peer)) => {
                    let Some(peer) = peer.as_socket() else { continue };
                    let made = socket
                        .set_nonblocking(true)
                        .and_then(|()| TcpStream::from_std(socket.into()))
                        .and_then(Stream::tcp);
                    // One that is broken already is nobody's loss: its peer is gone.
                    if let Ok(stream) = made {
                        return Ok(Some((stream, peer.into())));
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

struct Unix(tokio::net::UnixListener);

impl Unix {
    /// With the credentials of its peer: one that has none is nobody's loss, it is gone.
    fn stream(socket: UnixStream) -> io::Result<(Stream, Peer)> {
        let peer = socket.peer_cred()?;
        let peer = Peer::Unix(Credentials { uid: peer.uid(), pid: peer.pid() });
        Ok((Stream::unix(socket), peer))
    }
}

impl Accept for Unix {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        self.0.poll_accept(context).map(|accepted| Unix::stream(accepted?.0))
    }

    fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        loop {
            match SockRef::from(&self.0).accept() {
                Ok((socket, _)) => {
                    let made = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket.into()));
                    if let Ok(accepted) = made.and_then(Unix::stream) {
                        return Ok(Some(accepted));
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether the error is about the connection that was to be accepted, rather than about accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Accepts connections, one after the other, whatever happens.
pub struct Acceptor {
    source: Box<dyn Accept>,
    pause: Option<Pin<Box<Sleep>>>,
    logged: Cell<Option<Instant>>,
}

impl Acceptor {
    /// From a socket that [`bind_at`] made. To be called on the worker's runtime.
    ///
    /// # Errors
    /// Where the runtime cannot watch the socket.
    pub fn on(socket: Socket) -> io::Result<Acceptor> {
        match socket {
            Socket::Tcp(listener) => Acceptor::tcp(listener),
            Socket::Unix(listener) => Ok(Acceptor::from_source(Unix(tokio::net::UnixListener::from_std(listener)?))),
        }
    }

    /// From a socket that [`bind`] made. To be called on the worker's runtime.
    ///
    /// # Errors
    /// Where the runtime cannot watch the socket.
    pub fn tcp(listener: std::net::TcpListener) -> io::Result<Acceptor> {
        Ok(Acceptor::from_source(Tcp(TcpListener::from_std(listener)?)))
    }

    /// From anything else.
    pub fn from_source(source: impl Accept + 'static) -> Acceptor {
        Acceptor { source: Box::new(source), pause: None, logged: Cell::new(None) }
    }

    /// The next connection. An error that would only repeat itself (no descriptors left) is logged and waited out.
    /// Cancel-safe.
    pub async fn accept(&mut self) -> (Stream, Peer) {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<(Stream, Peer)> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match std::task::ready!(self.source.poll_accept(context)) {
                Ok(accepted) => return Poll::Ready(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.log(&error);
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        }
    }

    fn log(&self, error: &io::Error) {
        let now = Instant::now();
        if self.logged.get().is_none_or(|last| now - last >= LOG_EVERY) {
            self.logged.set(Some(now));
            tracing::warn!(%error, "cannot accept connections for now: raise the limit of open files, or lower limits.connections");
        }
    }

    /// A connection that waits already, without waiting for one; `None` where none does.
    ///
    /// # Errors
    /// Where something may wait, and cannot be had now.
    pub fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        self.source.accept_waiting()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn workers_share_a_port_and_nobody_else_does() {
        let mine = bind("127.0.0.1:0".parse().expect("address"), 3).expect("bind");
        let address = mine[0].local_addr().expect("address");
        assert!(mine.iter().all(|listener| listener.local_addr().expect("address") == address));
        let error = bind(address, 1).expect_err("taken");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        drop(mine);
        bind(address, 1).expect("free again");
    }

    #[tokio::test]
    async fn what_waits_is_had_without_waiting() {
        let listener = bind("127.0.0.1:0".parse().expect("address"), 1).expect("bind").remove(0);
        let address = listener.local_addr().expect("address");
        let mut acceptor = Acceptor::tcp(listener).expect("acceptor");
        assert!(acceptor.accept_waiting().expect("it can be told").is_none());
        // A blocking connect returns when the kernel has put it into the queue: no turn of the runtime is needed.
        let client = std::net::TcpStream::connect(address).expect("connect");
        let (_, peer) = acceptor.accept_waiting().expect("it can be told").expect("one waits");
        assert_eq!(peer, client.local_addr().expect("address").into());
        assert!(acceptor.accept_waiting().expect("it can be told").is_none());
        let client = std::net::TcpStream::connect(address).expect("connect");
        assert_eq!(acceptor.accept().await.1, client.local_addr().expect("address").into());
    }

    struct Scripted(VecDeque<io::Result<(Stream, Peer)>>);

    impl Accept for Scripted {
        fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
            self.0.pop_front().map_or(Poll::Pending, Poll::Ready)
        }

        fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>> {
            Ok(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn running_out_of_descriptors_is_waited_out() {
        let peer = "127.0.0.1:9".parse().expect("address");
        let no_descriptors = || Err(io::Error::from_raw_os_error(24));
        let mut acceptor = Acceptor::from_source(Scripted(VecDeque::from([
            no_descriptors(),
            Err(io::ErrorKind::ConnectionAborted.into()),
            no_descriptors(),
            Ok((Stream::other(tokio::io::duplex(1).0), peer)),
        ])));
        let before = Instant::now();
        assert_eq!(acceptor.accept().await.1, peer);
        assert_eq!(before.elapsed(), 2 * PAUSE);
    }
}
