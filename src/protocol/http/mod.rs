//! HTTP/1.1, HTTP/2 and gRPC: one proxy that guards and stamping sidecars run alike.
//!
//! A request's way: [`serve`] takes its connection, [`classify`] reads its head, the role decides, [`forward`] sends
//! it and brings the answer back. A write's way to the upstream is a task of its own that owns the right to it, so that
//! a client that goes away ends nothing that has been sent.
//!
//! What must never happen here:
//! - a byte of a write leaves without its right having been confirmed with the connection ready ([`forward`]);
//! - a request is sent twice, but for one that hyper gave back untouched;
//! - a body that broke off is ended as if it were whole ([`body`]);
//! - a right is settled as answered unless the request was sent whole and the answer came whole.
//!
//! | file | what it holds |
//! |---|---|
//! | [`serve`] | a connection: which version, its times and its end |
//! | [`client`], [`link`] | the sockets of both sides, shared between hyper and those who watch them |
//! | [`frames`] | what an HTTP/2 client's frames are worth |
//! | [`direct`] | plain HTTP/1.1 requests, without hyper |
//! | [`classify`], [`head`] | what a head says; what of it travels on |
//! | [`forward`], [`reception`] | one request's way to the upstream; its answer's way back, and its settlement |
//! | [`finish`] | what the role is told when a request is over |
//! | [`overdue`] | its time limits |
//! | [`pool`] | connections to the upstream |
//! | [`body`], [`pipe`] | bodies up and down; the way from a write's task to its client |
//! | [`refuse`], [`grpc`] | refusals as answers |

mod body;
mod classify;
mod client;
mod direct;
mod finish;
mod forward;
mod frames;
mod grpc;
pub(crate) mod head;
mod link;
mod overdue;
mod pipe;
mod pool;
mod reception;
mod refuse;
mod serve;
#[cfg(test)]
pub(crate) mod tests;
/// The same tests once more, with everything left to hyper.
#[cfg(test)]
#[path = "tests/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "both paths have to pass the same tests")]
mod tests_over_hyper;

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use self::body::{Answer, UploadBody};
use self::classify::{Seen, Unreadable};
use self::client::{Busy, Client};
use self::direct::Direct;
use self::finish::Finish;
use self::forward::Flight;
use self::head::{Keep, Names};
use self::pool::Pool;
use crate::clock::Clock;
use crate::config::resolved::{Listener, UpstreamVersion};
use crate::fence::mechanism::{Mechanism, Mechanisms};
use crate::fence::{Outcome, Reason, Refusal};
use crate::net::{Closing, Dial};
use crate::protocol::right::Settled;
use crate::protocol::{CutReason, Decision, Held, Kind, Party, Right, Role};

/// What hyper buffers of a connection, in each direction, on each side: its default of 400 KiB is paid by every upload
/// that stalls.
const BUFFER: usize = 64 * 1024;

/// The body of a refused request is read where it is no larger, and comes within [`UNWANTED_WAIT`].
const UNWANTED: u64 = 64 * 1024;
const UNWANTED_WAIT: Duration = Duration::from_millis(100);

/// A request on its way to its answer, as hyper has it.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>>>>;

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Spawn;

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// What a listener's proxy goes by.
pub struct Settings {
    /// The listener: its upstream and its limits.
    pub listener: Arc<Listener>,
    /// The field that stamps travel in.
    pub header: HeaderName,
    /// For how long requests took.
    pub clock: Arc<dyn Clock>,
    /// Take `Fencing-Refused` off the upstream's answers: a guard does, for its target has no say in it; a stamping
    /// sidecar does not, for it passes on what its guard refused.
    pub strip_refused_from_upstream: bool,
    /// What the tests took out.
    pub mechanisms: Mechanisms,
}

/// The HTTP proxy of one listener in one worker. It lives on that worker's thread, in a `LocalSet`.
pub struct Http {
    listener: Arc<Listener>,
    clock: Arc<dyn Clock>,
    strip_refused: bool,
    /// What HTTP/2 says of the way to the upstream.
    scheme: &'static str,
    mechanisms: Mechanisms,
    names: Rc<Names>,
    role: Rc<dyn Role>,
    pool: Rc<Pool>,
    direct: Direct,
    writes: Cell<usize>,
}

impl Http {
    /// A proxy that asks `role` and sends to what `dial` connects to.
    pub fn new(settings: Settings, role: Rc<dyn Role>, dial: Rc<dyn Dial>) -> Rc<Http> {
        Rc::new(Http {
            // What the tests take out they take out of hyper's path: that the direct one has each mechanism is shown by the
            // bugs that are planted in it.
            direct: Direct::new(
                Arc::clone(&settings.listener),
                Rc::clone(&dial),
                Arc::clone(&settings.clock),
                settings.mechanisms == Mechanisms::all(),
            ),
            pool: Pool::new(Arc::clone(&settings.listener), dial),
            scheme: if settings.listener.upstream.tls.is_some() { "https" } else { "http" },
            listener: settings.listener,
            clock: settings.clock,
            strip_refused: settings.strip_refused_from_upstream,
            mechanisms: settings.mechanisms,
            names: Rc::new(Names::new(settings.header)),
            role,
            writes: Cell::new(0),
        })
    }

    /// How many writes run in tasks of their own; they outlive the connections that they came on.
    pub fn writes_in_flight(&self) -> usize {
        self.writes.get()
    }

    /// What a whole answer says of a request: whether it is none at all, and what became of it; `passed` where a sidecar
    /// further on refused it.
    fn meaning(&self, write: bool, status: u16, passed: Option<Outcome>) -> (bool, Outcome) {
        let counts = write && self.mechanisms.keeps(Mechanism::NoAnswer);
        match passed {
            // A sidecar further on knows better than its status says.
            Some(outcome) => (counts && outcome == Outcome::Unknown, outcome),
            None if counts && self.listener.upstream.no_answer.contains(&status) => (true, Outcome::Unknown),
            None => (false, Outcome::Answered),
        }
    }

    /// Begins to answer one request.
    fn answering(self: &Rc<Http>, busy: Busy, who: &Party, closing: &Closing, request: Request<Incoming>) -> Answering {
        if busy.client().takes_no_more() {
            // Nobody is asked: the connection may be of settings, or of a term, that is over.
            let why = "This connection ends: open a new one. Nothing was applied.";
            let mut answer = refuse::plain(StatusCode::SERVICE_UNAVAILABLE, why, request.method());
            answer.body_mut().keep_busy(busy);
            return Box::pin(std::future::ready(Ok(answer)));
        }
        match self.begin_stream(busy, who, closing, request) {
            Ok(answering) => answering,
            Err((busy, request)) => Box::pin(Rc::clone(self).answer(busy, who.clone(), closing.clone(), request)),
        }
    }

    /// Answers one request that takes no direct way.
    async fn answer(
        self: Rc<Http>,
        busy: Busy,
        who: Party,
        closing: Closing,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let client = Rc::clone(busy.client());
        let http1 = request.version() < Version::HTTP_2;
        let (parts, mut body) = request.into_parts();
        let unread = !body.is_end_stream();
        let mut said = classify::read(&parts, !unread, &self.names, self.listener.limits.headers);
        if said.is_ok() && unread && !http1 && body.size_hint().exact() == Some(0) {
            said = self.ends(&mut body).await.and(said);
        }
        let mut answer = match said {
            Ok(said) => self.decided(Seen::new(parts, said, who), body, &client, closing).await,
            Err(unreadable) => {
                // What follows may be the rest of a request that somebody before us read another way, or the bytes of
                // a tunnel: it is never taken for the next request.
                client.note_unread();
                let seen = Seen::unread(parts, who);
                let mut answer = self.unreadable(&seen, unreadable);
                say_last(&mut answer, &seen);
                answer
            }
        };
        if http1 && client.is_unread() {
            // Hyper ends such a connection without a word: the client's next request on it would break.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer.body_mut().keep_busy(busy);
        Ok(answer)
    }

    /// Waits for the end of an HTTP/2 body that has announced no bytes: what follows it may be trailers.
    async fn ends(&self, body: &mut Incoming) -> Result<(), Unreadable> {
        let ended = async {
            while let Some(frame) = body.frame().await {
                let trailers = frame.map_err(|_| "The client's body broke off.")?.into_trailers().unwrap_or_default();
                if trailers.keys().any(|name| self.names.is_stamp(name)) {
                    return Ok(Err(Unreadable::Stamp("A trailer carries the stamp's name.")));
                }
            }
            if body.is_end_stream() { Ok(Ok(())) } else { Err("The client's body was cut short.") }
        };
        let ended = tokio::time::timeout(self.listener.limits.body_idle_timeout, ended).await;
        match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(why)) => Err(Unreadable::Ambiguous(StatusCode::BAD_REQUEST, why)),
            Err(_) => {
                let why = "The request's body did not come in time.";
                Err(Unreadable::Ambiguous(StatusCode::REQUEST_TIMEOUT, why))
            }
        }
    }

    fn unreadable(self: &Rc<Http>, seen: &Seen, unreadable: Unreadable) -> Response<Answer> {
        let _finish = Finish::new(self, seen.kind_by_method());
        match unreadable {
            Unreadable::Ambiguous(status, why) => refuse::plain(status, why, &seen.head.method),
            Unreadable::Stamp(why) => {
                let mut refusal = Refusal::new(Reason::MalformedStamp, why);
                refusal.resource = self.role.resource(&seen.facts());
                self.role.refused(&seen.facts(), &refusal);
                refuse::refusal(&refusal, seen)
            }
        }
    }

    /// Asks the role, as often as it holds the request, and does what it says.
    async fn decided(
        self: &Rc<Http>,
        seen: Seen,
        mut body: Incoming,
        client: &Rc<Client>,
        closing: Closing,
    ) -> Response<Answer> {
        let mut finish = Finish::new(self, seen.kind_by_method());
        let refusal = loop {
            match self.role.decide(&seen.facts()) {
                Decision::Forward(right) => {
                    finish.is(right.kind());
                    return self.forward(seen, body, right, finish, client, closing).await;
                }
                Decision::Refuse(refusal) => break refusal,
                Decision::Hold(held) => match held_or_gone(held, &seen, client).await {
                    Some(Ok(())) => {}
                    Some(Err(refusal)) => break refusal,
                    None => {
                        client.note_unread();
                        return refuse::plain(StatusCode::REQUEST_TIMEOUT, "The client is gone.", &seen.head.method);
                    }
                },
            }
        };
        finish.ends_as(refusal.reason.outcome());
        let answer = self.refused(&seen, &refusal, client);
        if !body.is_end_stream() && (seen.is_http2() || !came_whole(&mut body, &seen).await) {
            client.note_unread();
        }
        answer
    }

    /// Says no, once.
    fn refused(&self, seen: &Seen, refusal: &Refusal, client: &Client) -> Response<Answer> {
        self.role.refused(&seen.facts(), refusal);
        let mut answer = refuse::refusal(refusal, seen);
        if refusal.reason == Reason::TermChanged {
            close_after(&mut answer, seen, client, CutReason::TermChanged);
        }
        answer
    }

    async fn forward(
        self: &Rc<Http>,
        mut seen: Seen,
        body: Incoming,
        right: Right,
        finish: Finish,
        client: &Rc<Client>,
        closing: Closing,
    ) -> Response<Answer> {
        let http2 = match self.listener.upstream.version {
            UpstreamVersion::Same => seen.is_http2(),
            UpstreamVersion::Http1 => false,
            UpstreamVersion::Http2 => true,
        };
        let check_end = seen.is_http2() && self.mechanisms.keeps(Mechanism::Truncation);
        let (body, upload) = body::upload(body, check_end, Rc::clone(&self.names), right.keeper());
        let Some(request) = self.request(&mut seen, body, &right, http2) else {
            right.settle(Settled::NothingLeft);
            client.note_unread();
            let why = "The host that the request names is no host.";
            return refuse::plain(StatusCode::BAD_REQUEST, why, &seen.head.method);
        };
        let write = right.kind() == Kind::Write;
        let flight = Flight::new(self, seen, client, upload, right, finish, closing, http2);
        if write { flight.in_own_task(request).await } else { flight.here(request).await }
    }

    /// The request as the upstream is to see it. `None` where its host cannot be said in HTTP/2.
    fn request(&self, seen: &mut Seen, body: UploadBody, right: &Right, http2: bool) -> Option<Request<UploadBody>> {
        let upgrade = seen.upgrade && !http2;
        let keep = Keep { trailers: true, upgrade, options: !http2 };
        let chunked = !http2 && !body.is_end_stream() && body.size_hint().exact().is_none();
        let mut request = Request::new(body);
        let mut headers =
            self.names.to_upstream(&seen.head.headers, &seen.who.peer.forwarded_for(), right.stamp(), keep);
        let upstream = &self.listener.upstream.authority;
        let host = seen.host.clone().or_else(|| HeaderValue::from_str(upstream).ok());
        if http2 {
            let authority = host.as_ref()?.to_str().ok()?;
            let uri = Uri::builder().scheme(self.scheme).authority(authority).path_and_query(seen.target());
            *request.uri_mut() = uri.build().ok()?;
            *request.version_mut() = Version::HTTP_2;
        } else {
            headers.insert(header::HOST, host?);
            if seen.is_http2() {
                head::join_cookies(&mut headers);
            }
            if chunked {
                // Hyper leaves the body of a GET out where nothing says how it is framed.
                headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            *request.uri_mut() = Uri::from(seen.target());
        }
        *request.method_mut() = seen.head.method.clone();
        *request.headers_mut() = headers;
        // Hyper keeps the names as they were spelt there.
        *request.extensions_mut() = std::mem::take(&mut seen.head.extensions);
        request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
        Some(request)
    }
}

/// Has a connection closed with this answer.
fn close_after(answer: &mut Response<Answer>, seen: &Seen, client: &Client, reason: CutReason) {
    client.close(reason);
    say_last(answer, seen);
}

/// Says that an answer is the last one on its connection; in HTTP/2 every stream is framed by itself, and goes on.
fn say_last(answer: &mut Response<Answer>, seen: &Seen) {
    if !seen.is_http2() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Reads the body of a refused request where it is small and about to come, so that its connection can take another.
async fn came_whole(body: &mut Incoming, seen: &Seen) -> bool {
    let small = body.size_hint().upper().is_some_and(|most| most <= UNWANTED);
    // Who asked before sending is told no, and sends nothing.
    if !small || seen.head.headers.contains_key(header::EXPECT) {
        return false;
    }
    let read = async {
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok::<(), hyper::Error>(())
    };
    matches!(tokio::time::timeout(UNWANTED_WAIT, read).await, Ok(Ok(())))
}

/// Waits as long as the role holds the request; `None` where its client goes away meanwhile. (Of an HTTP/2 client that
/// does so hyper drops the request itself.)
async fn held_or_gone(mut held: Held, seen: &Seen, client: &Client) -> Option<Result<(), Box<Refusal>>> {
    if seen.is_http2() {
        return Some(held.await);
    }
    tokio::select! {
        biased;
        ended = &mut held => Some(ended),
        () = client.gone() => None,
    }
}
