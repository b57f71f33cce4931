//! Connections to the upstream: idle ones are used again, the one that was used last first.
//!
//! A lease is handed out only when its connection can take a request at once: hyper would let a request wait unseen,
//! and the comparison right before its first byte (DESIGN 3.2) would be of long ago when it leaves.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::body::UploadBody;
use super::link::{Link, LinkSocket};
use super::{BUFFER, Spawn};
use crate::config::resolved::Listener;
use crate::net::bell::Bell;
use crate::net::{Dial, Speaks, Stream};

/// How often an HTTP/2 upstream is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// What an HTTP/2 upstream may send ahead of being read, for one answer...
const STREAM_WINDOW: u32 = 256 * 1024;
/// ...and for all of a connection.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Waits for the head of an answer.
pub type Pending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<UploadBody>>>>>>;

/// An HTTP/1.1 connection: one request at a time.
struct One {
    sender: http1::SendRequest<UploadBody>,
    link: Rc<Link>,
    task: AbortHandle,
    /// Resolves when hyper is done with a connection that was to be upgraded, with what it had read too much.
    rest: oneshot::Receiver<Bytes>,
    idle_since: Instant,
}

/// An HTTP/2 connection: as many requests as the upstream allows.
struct Many {
    sender: http2::SendRequest<UploadBody>,
    link: Rc<Link>,
    streams: Cell<usize>,
    most: Rc<Cell<usize>>,
    /// It holds a lost write: nothing new goes out on it.
    retired: Cell<bool>,
    idle_since: Cell<Instant>,
}

impl Many {
    fn has_room(&self) -> bool {
        !self.retired.get() && !self.sender.is_closed() && self.streams.get() < self.most.get()
    }

    fn is_over(&self, idle_timeout: Duration) -> bool {
        let idle = self.streams.get() == 0;
        self.retired.get() || self.sender.is_closed() || (idle && self.idle_since.get().elapsed() >= idle_timeout)
    }
}

/// One stream of a connection that many share; dropping it frees the stream.
struct Place(Rc<Many>);

impl Place {
    fn on(many: &Rc<Many>) -> Place {
        many.streams.set(many.streams.get() + 1);
        Place(Rc::clone(many))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// The connections of one listener, in one worker, to its upstream.
pub struct Pool {
    listener: Arc<Listener>,
    dial: Rc<dyn Dial>,
    idle: RefCell<Vec<One>>,
    shared: RefCell<Vec<Rc<Many>>>,
    /// Whether an HTTP/2 connection is being made: all who want one wait for the same.
    dialling: Cell<bool>,
    failures: Cell<u64>,
    dialled: Bell,
    sweeping: Cell<bool>,
}

impl Pool {
    /// To the upstream of this listener.
    pub fn new(listener: Arc<Listener>, dial: Rc<dyn Dial>) -> Rc<Pool> {
        Rc::new(Pool {
            listener,
            dial,
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialling: Cell::new(false),
            failures: Cell::new(0),
            dialled: Bell::default(),
            sweeping: Cell::new(false),
        })
    }

    /// A connection that takes a request at once; a new one where `fresh`. Cancel-safe.
    ///
    /// # Errors
    /// Where none can be made within the connect timeout.
    pub async fn connect(self: &Rc<Pool>, http2: bool, fresh: bool) -> io::Result<Lease> {
        self.sweep();
        let leased = async {
            match http2 {
                true => self.place().await.map(Kind::Many),
                false => self.one(fresh).await.map(Kind::One),
            }
        };
        let kind = match tokio::time::timeout(self.listener.upstream.connect_timeout, leased).await {
            Ok(kind) => kind?,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")),
        };
        Ok(Lease { kind: Some(kind), pool: Rc::downgrade(self), carries: Carries::Nothing, written_before: 0 })
    }

    async fn one(&self, fresh: bool) -> io::Result<(One, bool)> {
        if !fresh && let Some(one) = self.take_idle() {
            return Ok((one, true));
        }
        let link = Link::new(self.dial.dial(&self.listener.upstream.authority, Speaks::Http1).await?);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER).preserve_header_case(true);
        let (mut sender, connection) =
            builder.handshake(TokioIo::new(link.socket())).await.map_err(io::Error::other)?;
        let (rest_out, rest) = oneshot::channel();
        let task = tokio::task::spawn_local(run_one(connection, Rc::clone(&link), rest_out)).abort_handle();
        sender.ready().await.map_err(io::Error::other)?;
        Ok((One { sender, link, task, rest, idle_since: Instant::now() }, false))
    }

    fn take_idle(&self) -> Option<One> {
        let idle_timeout = self.listener.upstream.idle_timeout;
        let mut over = Vec::new();
        let taken = {
            let mut idle = self.idle.borrow_mut();
            over.extend(idle.extract_if(.., |one| one.sender.is_closed() || one.idle_since.elapsed() >= idle_timeout));
            let ready = idle.iter().rposition(|one| one.sender.is_ready());
            ready.map(|at| idle.remove(at))
        };
        drop(over);
        taken
    }

    async fn place(&self) -> io::Result<Place> {
        let mut ear = self.dialled.ear();
        let failures = self.failures.get();
        loop {
            if let Some(many) = self.shared.borrow().iter().rfind(|many| many.has_room()) {
                return Ok(Place::on(many));
            }
            if !self.dialling.get() {
                let dialling = Dialling::of(self);
                let many = self.many().await?;
                let place = Place::on(&many);
                self.shared.borrow_mut().push(many);
                dialling.succeeded();
                return Ok(place);
            }
            poll_fn(|context| {
                if self.dialling.get() {
                    ear.listen(context);
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            if self.failures.get() > failures {
                return Err(io::Error::other("the connection that this request waited for could not be made"));
            }
        }
    }

    async fn many(&self) -> io::Result<Rc<Many>> {
        let upstream = &self.listener.upstream;
        let link = Link::new(self.dial.dial(&upstream.authority, Speaks::Http2).await?);
        let mut builder = http2::Builder::new(Spawn);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(upstream.send_timeout)
            // Zero until the upstream has said how many it allows.
            .initial_max_send_streams(0);
        let (sender, mut connection) =
            builder.handshake(TokioIo::new(link.socket())).await.map_err(io::Error::other)?;
        // Nothing is sent before the upstream has shown that it speaks HTTP/2.
        poll_fn(|context| {
            if connection.current_max_send_streams() > 0 {
                return Poll::Ready(Ok(()));
            }
            link.watch_reads(context);
            match Pin::new(&mut connection).poll(context) {
                Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        let most = Rc::new(Cell::new(connection.current_max_send_streams()));
        let seen = Rc::clone(&most);
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|context| {
                let polled = Pin::new(&mut connection).poll(context);
                seen.set(connection.current_max_send_streams());
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        let (streams, retired, idle_since) = (Cell::new(0), Cell::new(false), Cell::new(Instant::now()));
        Ok(Rc::new(Many { sender, link, streams, most, retired, idle_since }))
    }

    fn give_back(&self, mut one: One) {
        one.idle_since = Instant::now();
        self.idle.borrow_mut().push(one);
    }

    /// Has a task close what has been idle for too long, as long as the pool is there.
    fn sweep(self: &Rc<Pool>) {
        if self.sweeping.replace(true) {
            return;
        }
        let every = (self.listener.upstream.idle_timeout / 2).max(Duration::from_millis(10));
        let pool = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.close_idle();
            }
        });
    }

    fn close_idle(&self) {
        let idle_timeout = self.listener.upstream.idle_timeout;
        let over_one = |one: &mut One| one.sender.is_closed() || one.idle_since.elapsed() >= idle_timeout;
        let ones: Vec<One> = self.idle.borrow_mut().extract_if(.., over_one).collect();
        let many: Vec<Rc<Many>> = self.shared.borrow_mut().extract_if(.., |many| many.is_over(idle_timeout)).collect();
        drop((ones, many));
    }
}

/// One attempt at an HTTP/2 connection that others wait for, however it ends.
struct Dialling<'a>(&'a Pool, bool);

impl<'a> Dialling<'a> {
    fn of(pool: &'a Pool) -> Dialling<'a> {
        pool.dialling.set(true);
        Dialling(pool, false)
    }

    fn succeeded(mut self) {
        self.1 = true;
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.dialling.set(false);
        if !self.1 {
            self.0.failures.set(self.0.failures.get() + 1);
        }
        self.0.dialled.ring();
    }
}

async fn run_one(
    mut connection: http1::Connection<TokioIo<LinkSocket>, UploadBody>,
    link: Rc<Link>,
    rest: oneshot::Sender<Bytes>,
) {
    if let Err(error) = poll_fn(|context| connection.poll_without_shutdown(context)).await {
        tracing::debug!(%error, "an upstream connection ended");
        return;
    }
    let parts = connection.into_parts();
    if link.is_kept_open() {
        // Who asked for an upgrade takes the stream from here; who did not get it drops it.
        let _ = rest.send(parts.read_buf);
        return;
    }
    let mut socket = parts.io.into_inner();
    let _ = poll_fn(|context| tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut socket), context)).await;
}

enum Kind {
    /// With whether it has carried another request before.
    One((One, bool)),
    Many(Place),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    Nothing,
    Read,
    Write,
}

/// A connection for one request. Dropping it ends a request that is on it: a write's connection is reset, or, where
/// others share it, takes nothing new on and is reset when they are done.
pub struct Lease {
    /// There until the lease is given back or dropped.
    kind: Option<Kind>,
    pool: Weak<Pool>,
    carries: Carries,
    written_before: u64,
}

impl Lease {
    fn kind(&self) -> &Kind {
        self.kind.as_ref().expect("a lease has its connection until it is given back")
    }

    /// The connection's socket.
    pub fn link(&self) -> &Rc<Link> {
        match self.kind() {
            Kind::One((one, _)) => &one.link,
            Kind::Many(place) => &place.0.link,
        }
    }

    /// Whether it has carried another request before, so that the upstream may just have closed it.
    pub fn is_used(&self) -> bool {
        match self.kind() {
            Kind::One((_, used)) => *used,
            Kind::Many(_) => true,
        }
    }

    /// Hands the request to hyper, at once. From here on a byte of it may leave.
    pub fn send(&mut self, request: Request<UploadBody>, write: bool, upgrade: bool) -> Pending {
        self.carries = if write { Carries::Write } else { Carries::Read };
        self.written_before = self.link().written();
        match self.kind.as_mut().expect("a lease has its connection until it is given back") {
            Kind::One((one, _)) => {
                // However hyper ends the connection from here on: what it carries is a write without an answer.
                one.link.reset_on_close(write);
                one.link.keep_open(upgrade);
                Box::pin(one.sender.try_send_request(request))
            }
            Kind::Many(place) => Box::pin(place.0.sender.clone().try_send_request(request)),
        }
    }

    /// Hyper gave the request back: nothing of it has left.
    pub fn was_not_taken(&mut self) {
        self.carries = Carries::Nothing;
    }

    /// Hyper gave the request up: whether it is certain that nothing of it has left, nor will. (Of a connection that
    /// others share nobody can tell.)
    pub fn is_ended_untouched(&self) -> bool {
        match self.kind() {
            Kind::One((one, _)) => {
                one.link.reset();
                one.link.written() == self.written_before
            }
            Kind::Many(_) => false,
        }
    }

    /// When the kernel last took something of this request, where that can be told from others'.
    pub fn moved(&self) -> Option<Instant> {
        matches!(self.kind(), Kind::One(_)).then(|| self.link().moved())
    }

    /// The stream, and what came on it after the 101, once hyper is done with it. It is closed by reset until
    /// somebody says otherwise. `None` where the connection broke instead.
    pub async fn upgraded(mut self) -> Option<(Stream, Bytes)> {
        let Some(Kind::One((one, _))) = self.kind.take() else { return None };
        let rest = one.rest.await.ok()?;
        Some((one.link.take_stream()?, rest))
    }

    /// The request is over: the connection is free.
    pub fn give_back(mut self) {
        self.carries = Carries::Nothing;
    }

    /// Its answer is whole, and an HTTP/1 connection ends with it.
    pub fn end(mut self) {
        if let Some(Kind::One((one, _))) = self.kind.take_if(|kind| matches!(kind, Kind::One(_))) {
            one.link.reset_on_close(false);
        }
        self.carries = Carries::Nothing;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(kind) = self.kind.take() else { return };
        let pool = self.pool.upgrade();
        match (kind, self.carries) {
            (Kind::One((one, _)), Carries::Nothing) => {
                one.link.reset_on_close(false);
                one.link.keep_open(false);
                if let Some(pool) = pool.filter(|_| !one.sender.is_closed()) {
                    pool.give_back(one);
                }
            }
            (Kind::One((one, _)), Carries::Read | Carries::Write) => {
                one.link.reset();
                one.task.abort();
            }
            (Kind::Many(place), carries) => {
                let lost = carries == Carries::Write;
                if lost {
                    place.0.retired.set(true);
                    place.0.link.reset_on_close(true);
                }
                drop(place);
                if let Some(pool) = pool.filter(|_| lost) {
                    pool.close_idle();
                }
            }
        }
    }
}
