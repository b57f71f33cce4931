//! A way to an HTTP server with weather on it: pieces are delayed, connections break, one direction or both fall
//! silent, whole requests come a second time and later.
//!
//! It is a client to the server, and a request that it repeats is one more send: `on_repeat` is told of it before.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::dice::Dice;

/// What it is like on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing comes through to the server, and nobody is told.
    pub cut_there: bool,
    /// Nothing comes back from it.
    pub cut_back: bool,
    /// Each piece takes up to so long.
    pub delay: Duration,
    /// So many of a thousand pieces break their connection instead of coming through.
    pub breaks: u64,
    /// So many of a thousand whole requests are sent again on a connection of their own.
    pub repeats: u64,
    /// Up to so long after the first time.
    pub repeats_after: Duration,
}

/// What it did.
#[derive(Debug, Default)]
pub struct Did {
    /// Connections.
    pub connections: AtomicU64,
    /// Connections that it broke.
    pub broken: AtomicU64,
    /// Requests that it repeated.
    pub repeated: AtomicU64,
}

/// Is given the bytes of a request that is about to be sent again.
pub type OnRepeat = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A TCP forwarder on a thread of its own. It ends when it is dropped.
pub struct FaultyLink {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it did so far.
    pub did: Arc<Did>,
    weather: watch::Sender<Weather>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    servers: Arc<Vec<SocketAddr>>,
    weather: watch::Receiver<Weather>,
    dice: Arc<Mutex<Dice>>,
    did: Arc<Did>,
    on_repeat: OnRepeat,
}

impl Shared {
    fn server(&self) -> SocketAddr {
        *self.dice.lock().expect("no holder of it panics").one(&self.servers)
    }
}

impl FaultyLink {
    /// Listens on a free port of `host`, in fair weather. Each connection is led to one of the servers.
    pub fn to(servers: &[SocketAddr], host: IpAddr, dice: Dice, on_repeat: OnRepeat) -> FaultyLink {
        let listener = std::net::TcpListener::bind((host, 0)).expect("there is a free port");
        listener.set_nonblocking(true).expect("a listener can be set to non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let (set, weather) = watch::channel(Weather::default());
        let (end, ended) = oneshot::channel();
        let did = Arc::new(Did::default());
        let servers = Arc::new(servers.to_vec());
        let shared = Shared { servers, weather, dice: Arc::new(Mutex::new(dice)), did: Arc::clone(&did), on_repeat };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is non-blocking");
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = ended => {}
                }
            });
        });
        FaultyLink { address, did, weather: set, end: Some(end), thread: Some(thread) }
    }

    /// From now on it is like this. Connections that a cut has silenced break when it is over: what was in them is gone.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Its panic is in the output already.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Shared) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.did.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(forward(client, shared.clone()));
    }
}

async fn forward(client: TcpStream, shared: Shared) {
    let connecting = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(shared.server()));
    let Ok(Ok(server)) = connecting.await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = Pump { from: from_client, to: to_server, there: true, shared: shared.clone() };
    let back = Pump { from: from_server, to: to_client, there: false, shared };
    // Where one side ends, both do: what is sent to nobody is not to arrive later.
    let (there, back) = (tokio::spawn(there.run()), tokio::spawn(back.run()));
    let (there_ends, back_ends) = (there.abort_handle(), back.abort_handle());
    tokio::select! {
        _ = there => back_ends.abort(),
        _ = back => there_ends.abort(),
    }
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    there: bool,
    shared: Shared,
}

impl Pump {
    async fn run(mut self) {
        match self.pump().await {
            // In order: the other side hears the same.
            Ok(()) => drop(self.to.shutdown().await),
            Err(_) => self.reset(),
        }
    }

    async fn pump(&mut self) -> io::Result<()> {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let mut weather = self.shared.weather.clone();
            let there = self.there;
            let is_cut = move |weather: &Weather| if there { weather.cut_there } else { weather.cut_back };
            let length = tokio::select! {
                length = self.from.read(&mut piece) => Some(length?),
                cut = async { weather.wait_for(is_cut).await.map(drop) } => cut.err().map(|_| 0),
            };
            let Some(length) = length else { return self.silence().await };
            if length == 0 {
                return Ok(());
            }
            let now = self.shared.weather.borrow().clone();
            let (delay, breaks, repeats, after) = {
                let mut dice = self.shared.dice.lock().expect("no holder of it panics");
                let delay = dice.span(Duration::ZERO, now.delay);
                (
                    delay,
                    dice.per_mille(now.breaks),
                    dice.per_mille(now.repeats),
                    dice.span(Duration::ZERO, now.repeats_after),
                )
            };
            if breaks {
                self.shared.did.broken.fetch_add(1, Ordering::Relaxed);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if repeats && self.there && is_whole_request(&piece[..length]) {
                tokio::spawn(repeat(piece[..length].to_vec(), after, self.shared.clone()));
            }
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if is_cut(&self.shared.weather.borrow()) {
                return self.silence().await;
            }
            self.to.write_all(&piece[..length]).await?;
        }
    }

    /// Nothing is heard until the cut is over; then the connection breaks.
    async fn silence(&mut self) -> io::Result<()> {
        let there = self.there;
        let whole = |weather: &Weather| if there { !weather.cut_there } else { !weather.cut_back };
        let _ = self.shared.weather.wait_for(whole).await;
        Err(io::ErrorKind::ConnectionReset.into())
    }

    fn reset(&self) {
        for stream in [self.from.as_ref(), self.to.as_ref()] {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

async fn repeat(request: Vec<u8>, after: Duration, shared: Shared) {
    tokio::time::sleep(after).await;
    let Ok(mut server) = TcpStream::connect(shared.server()).await else { return };
    (shared.on_repeat)(&request);
    shared.did.repeated.fetch_add(1, Ordering::Relaxed);
    if server.write_all(&request).await.is_ok() {
        // Whoever sent it first waits for the other answer; this one is read so that it is no reset.
        let mut answer = [0; 4096];
        let _ = tokio::time::timeout(Duration::from_secs(10), server.read(&mut answer)).await;
    }
}

/// Whether these bytes are one HTTP/1.1 request, from its first byte to its last.
fn is_whole_request(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let length = field(&bytes[..end], "content-length").and_then(|length| length.parse::<usize>().ok());
    length == Some(bytes.len() - end - 4)
}

/// A field of the head of a request.
pub fn field(request: &[u8], name: &str) -> Option<String> {
    let head = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(request, |end| &request[..end]);
    let head = String::from_utf8_lossy(head);
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}
