//! The admin side's sockets and thread.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tower::ServiceExt as _;

use super::guests::{Guest, Guests};
use super::nearby::Peer;
use super::{Control, routes};
use crate::clock::Clock;
use crate::config::resolved::Admin as Settings;
use crate::metrics::Metrics;
use crate::net::unix::{self, Name};

/// Connections at once: anybody may connect, and must not use up the descriptors that the data path needs. The socket has
/// as many of its own, so that whoever fills the address keeps no operator out.
const CONNECTIONS: usize = 128;

/// Of them, those of one address.
const CONNECTIONS_OF_ONE: usize = 32;

/// A connection that sends no request is closed after this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection ends after its current answer once it has lasted this long; who reads nothing is cut soon after.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
const LAST_ANSWER: Duration = Duration::from_secs(60);

/// What comes in on one connection before it is read: requests are short.
const READ_BUFFER: usize = 16 * 1024;

/// After a failed accept (no descriptors left) the next try waits for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Why the admin side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, or not of this host.
    #[error(
        "the admin address {address} cannot be used: {source}; give each process of a host its own, such as --admin 127.0.0.1:9465, or none with --admin none"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket's path is taken or cannot be written.
    #[error("the admin socket {path} cannot be used: {source}; choose another path in `admin.socket`")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread or no runtime.
    #[error("the admin thread cannot be started: {0}")]
    Thread(io::Error),
}

/// The running admin side. Dropping it ends it.
#[derive(Debug)]
pub struct AdminServer {
    address: Option<SocketAddr>,
    socket: Option<Name>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Listens where `settings` says, then serves on a thread of its own. Where it says nowhere, nothing is started.
    ///
    /// # Errors
    /// Where a listening place cannot be had (it is named), or the system gives no thread.
    pub fn start(
        settings: &Settings,
        control: Arc<dyn Control>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<AdminServer, AdminError> {
        let mut server = AdminServer { address: None, socket: None, stop: None, thread: None };
        if settings.listen.is_none() && settings.socket.is_none() {
            return Ok(server);
        }
        let tcp = settings.listen.map(listen).transpose()?;
        server.address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let unix = settings.socket.as_deref().map(listen_at).transpose()?;
        let unix = unix.map(|(listener, name)| {
            server.socket = Some(name);
            listener
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Thread)?;
        let router = routes::router(control, metrics, clock);
        let (stop, stopped) = oneshot::channel();
        server.stop = Some(stop);
        let thread = std::thread::Builder::new().name("admin".into());
        let thread = thread.spawn(move || runtime.block_on(serve(tcp, unix, router, stopped)));
        server.thread = Some(thread.map_err(AdminError::Thread)?);
        Ok(server)
    }

    /// Where it listens, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for AdminServer {
    /// Ends every connection and waits for the thread.
    fn drop(&mut self) {
        // First the name, while nobody else can have taken it; it may be gone already.
        drop(self.socket.take());
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread ended by a panic");
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, AdminError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| AdminError::Listen { address, source })
}

/// A socket that only its owner (and root) can open: whoever opens it may change things.
fn listen_at(path: &Path) -> Result<(UnixListener, Name), AdminError> {
    unix::bind(path, 0o600).map_err(|source| AdminError::Socket { path: path.to_owned(), source })
}

async fn serve(tcp: Option<TcpListener>, unix: Option<UnixListener>, router: Router, stopped: oneshot::Receiver<()>) {
    let over_tcp = async {
        let Some(Ok(listener)) = tcp.map(tokio::net::TcpListener::from_std) else { return };
        let (room, guests) = (Arc::new(Semaphore::new(CONNECTIONS)), Guests::default());
        loop {
            let permit = permit(&room).await;
            match listener.accept().await {
                Ok((stream, peer)) => match guests.admit(peer.ip(), CONNECTIONS_OF_ONE) {
                    Some(guest) => spawn(stream, Peer::Tcp(peer), &router, (permit, Some(guest))),
                    None => tracing::debug!(%peer, "an address has too many connections to the admin side"),
                },
                Err(error) => pause(&error).await,
            }
        }
    };
    let over_unix = async {
        let Some(Ok(listener)) = unix.map(tokio::net::UnixListener::from_std) else { return };
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let permit = permit(&room).await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let peer = owner_or_not(&stream);
                    spawn(stream, peer, &router, (permit, None));
                }
                Err(error) => pause(&error).await,
            }
        }
    };
    tokio::select! {
        // The sender is never used, only dropped.
        _ = stopped => {}
        _ = async { tokio::join!(over_tcp, over_unix) } => {}
    }
}

/// Whether who opened the socket is the user of this process, or root. Its mode says so too, unless somebody has changed
/// that.
fn owner_or_not(stream: &tokio::net::UnixStream) -> Peer {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own || peer.uid() == 0 => Peer::Socket,
        _ => Peer::OtherUser,
    }
}

async fn permit(room: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(room).acquire_owned().await.expect("the semaphore is never closed")
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the admin side cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn spawn(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: &Router,
    room: (OwnedSemaphorePermit, Option<Guest>),
) {
    let router = router.clone();
    tokio::spawn(async move {
        connection(stream, peer, router).await;
        drop(room);
    });
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Peer, router: Router) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A peer that goes away or talks nonsense is its own business: errors end the connection and nothing else.
    if tokio::time::timeout(CONNECTION_AGE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        tokio::time::timeout(LAST_ANSWER, connection).await.ok();
    }
}
