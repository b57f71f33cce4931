//! One client connection, from its first byte to its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::client::Client;
use super::direct::{Left, Line};
use super::{Answering, BUFFER, Http, Spawn};
use crate::config::resolved::UpstreamVersion;
use crate::net::{Closing, Stage, Stream};
use crate::protocol::{CutReason, Party, Role};

/// How a client that speaks HTTP/2 begins (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often an HTTP/2 client is asked whether it is still there, and how long it may think.
const PING_EVERY: Duration = Duration::from_secs(20);
/// An upload that stalls holds so much at most; the window of a whole connection.
const STREAM_WINDOW: u32 = 64 * 1024 - 1;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// After an early answer the rest of the request is read and dropped: closing at once would answer what still comes
/// with a reset, and the reset would destroy the answer before the client has read it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;
/// How long a connection that is closed in order may take over it.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a connection's first bytes were.
enum Beginning {
    Http1,
    Http2,
    /// The client left.
    Gone,
    /// It took too long, or the worker stops.
    Cut(CutReason),
}

/// Tells the role of a connection as long as it is there.
struct Open(Rc<dyn Role>);

impl Open {
    fn new(role: &Rc<dyn Role>) -> Open {
        role.connection(true);
        Open(Rc::clone(role))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connection(false);
    }
}

/// Closes a connection when it is dropped, also while a write that came on it still runs.
struct Connected(Rc<Client>);

impl Drop for Connected {
    fn drop(&mut self) {
        drop((self.0.take_stream(), self.0.take_tunnel()));
    }
}

impl Http {
    /// Serves one connection to its end, or to that of `closing`. Dropping the future closes the connection; writes
    /// that have been sent whole go on in tasks of their own (on the caller's `LocalSet`).
    ///
    /// A connection keeps this future for as long as it lives.
    #[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    pub fn serve(self: Rc<Http>, mut stream: Stream, who: Party, mut closing: Closing) -> impl Future<Output = ()> {
        async move {
            let _open = Open::new(&self.role);
            let mut first = [0; PREFACE.len()];
            let mut read = 0;
            let (beginning, since) = self.begin(&mut stream, &mut first, &mut read, &mut closing).await;
            let client = |stream| Connected(Client::new(stream, Bytes::copy_from_slice(&first[..read]), since));
            match beginning {
                Beginning::Http1 if self.direct.is_on() && self.listener.upstream.version != UpstreamVersion::Http2 => {
                    let line = Line::new(stream, first[..read].to_vec(), since, who);
                    self.serve_plain(line, closing).await;
                }
                Beginning::Http1 => {
                    let client = client(stream);
                    Box::pin(self.serve_http1(&client.0, who, closing, false)).await;
                }
                Beginning::Http2 => {
                    let client = client(stream);
                    Box::pin(self.serve_http2(&client.0, who, closing)).await;
                }
                Beginning::Gone => {}
                Beginning::Cut(reason) => self.role.cut(reason),
            }
        }
    }

    /// Reads until it is clear what the client speaks; holds nothing but the few bytes in `first` meanwhile.
    async fn begin(
        &self,
        stream: &mut Stream,
        first: &mut [u8; PREFACE.len()],
        read: &mut usize,
        closing: &mut Closing,
    ) -> (Beginning, Instant) {
        let limits = &self.listener.limits;
        let mut since = Instant::now();
        let mut timer = pin!(sleep_until(since + limits.idle_timeout));
        let beginning = poll_fn(|context| {
            loop {
                let mut buffer = ReadBuf::new(&mut first[*read..]);
                match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                        if *read == 0 {
                            since = Instant::now();
                            timer.as_mut().reset(since + limits.header_timeout);
                        }
                        *read += buffer.filled().len();
                    }
                    Poll::Ready(_) => return Poll::Ready(Beginning::Gone),
                    Poll::Pending => break,
                }
                if first[..*read] != PREFACE[..*read] {
                    return Poll::Ready(Beginning::Http1);
                }
                if *read == PREFACE.len() {
                    return Poll::Ready(Beginning::Http2);
                }
            }
            let stage = closing.watch(context);
            if stage == Stage::Now || (stage == Stage::Finishing && *read == 0) {
                return Poll::Ready(Beginning::Cut(CutReason::Shutdown));
            }
            let reason = if *read == 0 { CutReason::Idle } else { CutReason::HeaderTimeout };
            timer.as_mut().poll(context).map(|()| Beginning::Cut(reason))
        })
        .await;
        (beginning, since)
    }

    fn service(
        self: &Rc<Http>,
        client: &Rc<Client>,
        who: Party,
        closing: &Closing,
    ) -> impl Fn(Request<Incoming>) -> Answering + use<> {
        let (http, client, closing) = (Rc::clone(self), Rc::clone(client), closing.clone());
        move |request| http.answering(client.begin_request(), &who, &closing, request)
    }

    /// Serves HTTP/1.1 by the direct path, and what is not plain by hyper.
    #[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    fn serve_plain(self: &Rc<Http>, mut line: Line, mut closing: Closing) -> impl Future<Output = ()> {
        async move {
            loop {
                match self.serve_direct(&mut line, &mut closing).await {
                    Left::Over => return,
                    Left::Unread => {
                        let client = Connected(Client::new(line.stream, Bytes::new(), Instant::now()));
                        return Box::pin(say_goodbye(&client.0, true, closing)).await;
                    }
                    Left::AtOdd => {
                        let since = line.head_since.unwrap_or_else(Instant::now);
                        let who = line.who;
                        let client = Connected(Client::new(line.stream, Bytes::from(line.ahead), since));
                        let back = Box::pin(self.serve_http1(&client.0, who.clone(), closing.clone(), true)).await;
                        let Some((stream, ahead)) = back else { return };
                        line = Line::new(stream, ahead.into(), Instant::now(), who);
                    }
                }
            }
        }
    }

    /// Serves a connection to its end; where it `returns`, only up to where it stands between two requests, and hands it
    /// back with what has come of the next one.
    async fn serve_http1(
        self: &Rc<Http>,
        client: &Rc<Client>,
        who: Party,
        closing: Closing,
        returns: bool,
    ) -> Option<(Stream, Bytes)> {
        let limits = &self.listener.limits;
        let mut connection = http1::Builder::new()
            .half_close(true)
            .preserve_header_case(true)
            .max_headers(limits.headers)
            .max_header_size(limits.header_bytes)
            .max_buf_size(BUFFER.max(limits.header_bytes))
            .serve_connection(TokioIo::new(client.socket()), service_fn(self.service(client, who, &closing)));
        let mut watch = Watch::new(self, client, closing.clone(), false);
        let ended = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.poll_without_shutdown(context) {
                    return Poll::Ready(Ended::ByItself(ended));
                }
                if returns && watch.reason().is_none() && client.is_free() {
                    return Poll::Ready(Ended::Free);
                }
                match watch.poll(context) {
                    Poll::Ready(Wish::Finish) => Pin::new(&mut connection).graceful_shutdown(),
                    Poll::Ready(Wish::End(reason)) => return Poll::Ready(Ended::Cut(reason)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        let tunnel = client.take_tunnel();
        match (ended, tunnel) {
            (Ended::Free, _) => {
                let rest = connection.into_parts().read_buf;
                let (stream, ahead) = client.take_stream()?;
                return Some((stream, joined(rest, ahead)));
            }
            (Ended::ByItself(Ok(())), Some(tunnel)) => {
                let rest = connection.into_parts().read_buf;
                if let Some((stream, ahead)) = client.take_stream() {
                    tunnel.run(stream, joined(rest, ahead), closing).await;
                }
            }
            (Ended::ByItself(ended), tunnel) => {
                drop((connection, tunnel));
                if let Some(reason) = watch.reason() {
                    self.role.cut(reason);
                }
                if let Err(error) = &ended {
                    tracing::debug!(%error, "a client connection ended");
                }
                say_goodbye(client, client.is_unread() || ended.is_err(), closing).await;
            }
            (Ended::Cut(reason), _) => {
                if reason == CutReason::SlowReader {
                    client.reset_on_close();
                }
                self.role.cut(reason);
            }
        }
        None
    }

    async fn serve_http2(self: &Rc<Http>, client: &Rc<Client>, who: Party, closing: Closing) {
        let limits = &self.listener.limits;
        let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(Spawn)
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(header_bytes)
            .max_send_buf_size(BUFFER)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .serve_connection(TokioIo::new(client.socket()), service_fn(self.service(client, who, &closing)));
        let mut connection = pin!(connection);
        client.weigh_frames();
        let mut watch = Watch::new(self, client, closing, true);
        let ended = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(Ok(ended));
                }
                match watch.poll(context) {
                    Poll::Ready(Wish::Finish) => connection.as_mut().graceful_shutdown(),
                    Poll::Ready(Wish::End(reason)) => return Poll::Ready(Err(reason)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        match ended {
            Ok(ended) => {
                let flooded = client.is_flooded() || ended.as_ref().is_err_and(is_told_to_calm_down);
                // A client that answers no ping.
                let silent = ended.as_ref().is_err_and(hyper::Error::is_timeout).then_some(CutReason::Idle);
                if let Some(reason) = flooded.then_some(CutReason::Flood).or(watch.reason()).or(silent) {
                    self.role.cut(reason);
                }
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client connection ended");
                }
            }
            Err(reason) => {
                if reason == CutReason::SlowReader {
                    client.reset_on_close();
                } else if reason != CutReason::Shutdown {
                    // Nothing is in flight: it takes no longer than the client's answer to a ping.
                    connection.as_mut().graceful_shutdown();
                    let _ = timeout(GOODBYE, connection).await;
                }
                self.role.cut(reason);
            }
        }
    }
}

/// Whether the library ended a connection since its client sends more than it takes: resets, parts of heads, tiny frames.
fn is_told_to_calm_down(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        source = error.source();
    }
    false
}

/// How hyper's part in an HTTP/1 connection ended.
enum Ended {
    ByItself(Result<(), hyper::Error>),
    /// This side ends it.
    Cut(CutReason),
    /// It stands between two requests.
    Free,
}

fn joined(first: Bytes, then: Bytes) -> Bytes {
    match (first.is_empty(), then.is_empty()) {
        (true, _) => then,
        (_, true) => first,
        _ => Bytes::from([first, then].concat()),
    }
}

/// What is wanted of a connection.
enum Wish {
    /// To finish what is in flight and then close.
    Finish,
    /// To end now.
    End(CutReason),
}

/// Watches a connection's times, and who wants it closed.
struct Watch<'a> {
    http: &'a Http,
    client: &'a Client,
    closing: Closing,
    is_http2: bool,
    finishing: Option<CutReason>,
    /// How much of the answers had been taken when it was last looked at, and since when no more has been.
    progress: (u64, Instant),
    timer: Pin<Box<Sleep>>,
}

impl<'a> Watch<'a> {
    fn new(http: &'a Http, client: &'a Client, closing: Closing, is_http2: bool) -> Watch<'a> {
        let now = Instant::now();
        let (at, _) = client.deadline(&http.listener.limits, is_http2, now);
        let progress = (client.progress(), now);
        Watch { http, client, closing, is_http2, finishing: None, progress, timer: Box::pin(sleep_until(at)) }
    }

    /// Why this side closed the connection, if it did.
    fn reason(&self) -> Option<CutReason> {
        self.finishing.or(self.client.close_reason())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Wish> {
        let stage = self.closing.watch(context);
        if stage == Stage::Now {
            return Poll::Ready(Wish::End(CutReason::Shutdown));
        }
        let shutdown = (stage == Stage::Finishing).then_some(CutReason::Shutdown);
        // An HTTP/1 connection is closed by the answer itself.
        let asked = if self.is_http2 { self.client.watch_close(context) } else { None };
        if self.finishing.is_none()
            && let Some(reason) = shutdown.or(asked)
        {
            self.finishing = Some(reason);
            if self.is_http2 {
                self.client.begin_finishing();
            }
            return Poll::Ready(Wish::Finish);
        }
        loop {
            let now = Instant::now();
            if self.progress.0 != self.client.progress() {
                self.progress = (self.client.progress(), now);
            }
            let (mut at, mut reason) = self.client.deadline(&self.http.listener.limits, self.is_http2, self.progress.1);
            if let Some(last) = self.client.last_stream_by()
                && self.client.is_idle()
                && last < at
            {
                (at, reason) = (last, self.reason());
            }
            if let Some(reason) = reason
                && now >= at
            {
                return Poll::Ready(Wish::End(reason));
            }
            let armed = self.timer.deadline();
            if armed <= now || armed > at {
                self.timer.as_mut().reset(at);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Closes an HTTP/1 connection in order; where `linger`, so that an answer that the client has not read survives.
async fn say_goodbye(client: &Client, linger: bool, mut closing: Closing) {
    let Some((mut stream, _)) = client.take_stream() else { return };
    let _ = timeout(GOODBYE, stream.shutdown()).await;
    if !linger {
        return;
    }
    let mut left = LINGER_BYTES;
    let mut buffer = vec![0; 16 * 1024];
    let drained = async {
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    tokio::select! {
        biased;
        _ = timeout(LINGER, drained) => {}
        () = closing.until(Stage::Now) => {}
    }
}
