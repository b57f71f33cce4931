//! One request's way to the upstream and back, and how its right is settled.
//!
//! The order is fixed: a connection that can take the request at once; the right confirmed; the request handed to
//! hyper, with no await in between. From there on every way out settles the right exactly once: as answered, as
//! nothing left, or, by being dropped if by nothing else, as lost.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::body::{Answer, Spoilt, Upload, UploadBody};
use super::classify::Seen;
use super::client::Client;
use super::finish::{Finish, Running};
use super::pipe::{self, Writer};
use super::pool::{Lease, Pending};
use super::reception::Reception;
use super::{Http, head, refuse};
use crate::config::resolved::Upstream;
use crate::fence::mechanism::Mechanism;
use crate::fence::{Outcome, Reason, Refusal};
use crate::net::{Closing, Stage};
use crate::protocol::right::Settled;
use crate::protocol::signal::{Ask, Signal};
use crate::protocol::tunnel::{Ends, Tunnel};
use crate::protocol::{CutReason, Kind, Right};

/// What ends a request that is under way before its answer is whole.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The fence wants it cut.
    Fenced,
    /// The answer, or a part of it, did not come in time.
    Late,
    /// The upstream takes nothing of the request.
    Stalled,
    /// The upstream's connection, or its answer, broke.
    Broken(String),
    /// The client's body will never be whole.
    Spoilt(Spoilt),
    /// The client sends nothing of the body.
    ClientIdle,
    /// The client takes nothing of the answer.
    ClientSlow,
    /// The worker ends.
    Closing,
    /// Nothing has left, for certain: what its client is told.
    NotSent(Box<Refusal>),
}

impl Trouble {
    /// The same where it is certain that nothing has left.
    pub fn before_the_first_byte(self) -> Trouble {
        match self {
            Trouble::Broken(why) => Trouble::NotSent(Box::new(unreachable(&why))),
            other => other,
        }
    }

    fn of(spoilt: Spoilt) -> Trouble {
        if spoilt == Spoilt::Shut { Trouble::Fenced } else { Trouble::Spoilt(spoilt) }
    }
}

/// Why a request got no answer of the upstream's.
enum Failed {
    /// The role took its word back: nothing has left.
    Refused(Box<Refusal>),
    /// There is no connection: nothing has left.
    Unreachable(String),
    /// The client went away: nothing has left.
    Gone,
    /// The client's body failed before anything had left.
    NeverSent(Trouble),
    /// A byte may have left.
    Trouble(Trouble),
}

/// One request with the right to it.
pub struct Flight {
    pub(super) http: Rc<Http>,
    pub(super) seen: Seen,
    pub(super) client: Rc<Client>,
    pub(super) upload: Rc<Upload>,
    /// From the connection to its end. Declared, and so dropped, before the right: nothing leaves after settlement.
    pub(super) lease: Option<Lease>,
    right: Option<Right>,
    pub(super) signal: Option<Signal>,
    closing: Closing,
    http2: bool,
    pub(super) timer: Pin<Box<Sleep>>,
    /// Until when what came while this process stood still goes before a limit that passed meanwhile.
    pub(super) catching_up: Option<Instant>,
    /// Since when the next part of the answer has been waited for.
    pub(super) waits_since: Instant,
    finish: Option<Finish>,
}

enum Begun {
    /// The whole answer: a refusal, or one without a body.
    Whole(Response<Answer>),
    /// An answer whose body is still to come.
    Head(Response<()>, Box<Reception>),
}

impl Flight {
    #[allow(clippy::too_many_arguments, reason = "called once; a struct of the same fields would say nothing more")]
    pub fn new(
        http: &Rc<Http>,
        seen: Seen,
        client: &Rc<Client>,
        upload: Rc<Upload>,
        right: Right,
        finish: Finish,
        closing: Closing,
        http2: bool,
    ) -> Flight {
        let now = Instant::now();
        Flight {
            http: Rc::clone(http),
            seen,
            client: Rc::clone(client),
            upload,
            lease: None,
            signal: right.signal(),
            right: Some(right),
            closing,
            http2,
            timer: Box::pin(tokio::time::sleep_until(now)),
            catching_up: None,
            waits_since: now,
            finish: Some(finish),
        }
    }

    /// Runs as a task of its own, which a client that goes away does not end; resolves with the answer.
    pub async fn in_own_task(self, request: Request<UploadBody>) -> Response<Answer> {
        let (writer, reader) = pipe::pipe();
        let method = request.method().clone();
        let running = Running::on(&self.http);
        tokio::task::spawn_local(async move {
            let _running = running;
            Box::pin(self.run(request, writer)).await;
        });
        match reader.answer().await {
            Some(answer) => answer,
            None => refuse::plain(StatusCode::INTERNAL_SERVER_ERROR, "The request's task failed.", &method),
        }
    }

    async fn run(self, request: Request<UploadBody>, writer: Writer) {
        match self.begin(request, Some(&writer)).await {
            Begun::Whole(answer) => writer.answer(answer),
            Begun::Head(head, mut reception) => {
                writer.head(head);
                while !reception.is_over() {
                    std::future::poll_fn(|context| {
                        if reception.is_hurried(context) { Poll::Ready(()) } else { writer.poll_room(context) }
                    })
                    .await;
                    match std::future::poll_fn(|context| reception.poll_frame(context)).await {
                        Some(Ok(frame)) => writer.frame(frame),
                        // The client's answer breaks off with the writer.
                        Some(Err(_)) => return,
                        None => break,
                    }
                }
                writer.finish();
            }
        }
    }

    /// Runs where it is awaited, and in the body of the answer: it ends with them.
    pub async fn here(self, request: Request<UploadBody>) -> Response<Answer> {
        match Box::pin(self.begin(request, None)).await {
            Begun::Whole(answer) => answer,
            Begun::Head(head, reception) => head.map(|()| Answer::received(reception)),
        }
    }

    fn right(&self) -> &Right {
        self.right.as_ref().expect("a flight has its right until it is settled")
    }

    fn ends_as(&mut self, outcome: Outcome) {
        if let Some(finish) = &mut self.finish {
            finish.ends_as(outcome);
        }
    }

    /// Gives the right back, and says how the request ends.
    pub(super) fn settle(&mut self, how: Settled, outcome: Outcome) {
        self.ends_as(outcome);
        if let Some(right) = self.right.take() {
            right.settle(how);
        }
    }

    async fn begin(mut self, request: Request<UploadBody>, client: Option<&Writer>) -> Begun {
        let answer = match self.launch(request, client).await {
            Ok(answer) => answer,
            Err(failed) => return Begun::Whole(self.fail(failed)),
        };
        let (mut head, body) = answer.into_parts();
        let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let stays = match head::stays_after(&head.headers) {
            Ok(stays) => stays || self.http2,
            Err(why) => return Begun::Whole(self.fail(Failed::Trouble(Trouble::Broken(why.to_owned())))),
        };
        let refused = head.headers.get(head::REFUSED).filter(|_| !self.http.strip_refused);
        let passed = refused.and_then(|value| refuse::outcome_of_passed_refusal(value.as_bytes()));
        self.http.names.strip_answer(&mut head.headers, upgraded, self.http.strip_refused);
        head.version = Version::HTTP_11;
        head.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let status = head.status;
        let head = Response::from_parts(head, ());
        if upgraded {
            return Begun::Whole(self.upgrade(head).await);
        }
        let write = self.right().kind() == Kind::Write;
        let (no_answer, outcome) = self.http.meaning(write, status.as_u16(), passed);
        if !self.http.mechanisms.keeps(Mechanism::WholeAnswer) {
            self.settle(Settled::Answered, outcome);
        }
        let check_end = self.http2 && self.http.mechanisms.keeps(Mechanism::Truncation);
        let reception = Reception::new(self, body, (check_end, stays), no_answer, outcome);
        if reception.is_over() {
            return Begun::Whole(head.map(|()| Answer::empty()));
        }
        Begun::Head(head, Box::new(reception))
    }

    /// Sends the request, and waits for the head of the answer.
    async fn launch(
        &mut self,
        mut request: Request<UploadBody>,
        client: Option<&Writer>,
    ) -> Result<Response<Incoming>, Failed> {
        let write = self.right().kind() == Kind::Write;
        let upgrade = self.seen.upgrade && !self.http2;
        let mut fresh = false;
        loop {
            let mut lease = self.connect(fresh, client).await?;
            // From here to `send` nothing is awaited: what is compared here is compared right before the first byte.
            self.right().confirm().map_err(Failed::Refused)?;
            self.upload.leaves_by(lease.link());
            let used = lease.is_used();
            let pending = lease.send(request, write, upgrade);
            self.lease = Some(lease);
            self.ends_as(Outcome::Unknown);
            match self.answered(pending).await? {
                Ok(answer) => return Ok(answer),
                Err(given_back) => {
                    if let Some(mut lease) = self.lease.take() {
                        lease.was_not_taken();
                    }
                    self.ends_as(Outcome::NotApplied);
                    if fresh || !used {
                        return Err(Failed::Unreachable("the upstream closes every connection at once".into()));
                    }
                    request = given_back;
                    fresh = true;
                }
            }
        }
    }

    /// Waits for a connection. Nothing has left yet: a client that goes away, and a fence that moves on, end it.
    async fn connect(&mut self, fresh: bool, client: Option<&Writer>) -> Result<Lease, Failed> {
        let pool = Rc::clone(&self.http.pool);
        let mut connecting = pin!(pool.connect(self.http2, fresh));
        std::future::poll_fn(|context| {
            if let Poll::Ready(made) = connecting.as_mut().poll(context) {
                return Poll::Ready(made.map_err(|error| Failed::Unreachable(error.to_string())));
            }
            let gone = client.is_some_and(|client| client.poll_gone(context).is_ready());
            if gone || self.closing.watch(context) == Stage::Now {
                return Poll::Ready(Err(Failed::Gone));
            }
            let moved_on = self.signal.as_mut().is_some_and(|signal| signal.poll_for(Ask::Hurry, context).is_ready());
            if moved_on && let Err(refusal) = self.right().confirm() {
                return Poll::Ready(Err(Failed::Refused(refusal)));
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for the head of the answer, or for the request itself where hyper gave it back untouched.
    async fn answered(
        &mut self,
        mut pending: Pending,
    ) -> Result<Result<Response<Incoming>, Request<UploadBody>>, Failed> {
        let answered = std::future::poll_fn(|context| match pending.as_mut().poll(context) {
            Poll::Ready(answered) => Poll::Ready(Ok(answered)),
            Poll::Pending => self.poll_trouble(context).map(Err),
        })
        .await;
        match answered {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Ok(Err(request)),
                None => Err(self.broken(&error.into_error())),
            },
            Err(trouble) => Err(Failed::Trouble(trouble)),
        }
    }

    /// Hyper gave up on the connection while the request was on it.
    fn broken(&mut self, error: &hyper::Error) -> Failed {
        let untouched = self.lease.as_ref().is_some_and(Lease::is_ended_untouched);
        let spoilt = self.upload.spoilt().map(Trouble::of);
        match (untouched, spoilt) {
            (_, Some(Trouble::Fenced)) => Failed::Trouble(Trouble::Fenced),
            (true, Some(spoilt)) => Failed::NeverSent(spoilt),
            (true, None) => Failed::Unreachable(error.to_string()),
            (false, Some(spoilt)) => Failed::Trouble(spoilt),
            (false, None) => Failed::Trouble(Trouble::Broken(error.to_string())),
        }
    }

    /// Ready when the request has to be given up.
    pub(super) fn poll_trouble(&mut self, context: &mut Context<'_>) -> Poll<Trouble> {
        if let Some(signal) = &mut self.signal
            && let Poll::Ready(asked) = signal.poll_for(Ask::CutHalfSent, context)
            && (!self.upload.is_sent() || asked == Ask::Cut || signal.poll_for(Ask::Cut, context).is_ready())
        {
            return Poll::Ready(Trouble::Fenced);
        }
        if self.closing.watch(context) == Stage::Now {
            return Poll::Ready(Trouble::Closing);
        }
        if let Some(spoilt) = self.upload.spoilt() {
            return Poll::Ready(Trouble::of(spoilt));
        }
        self.upload.watch(context);
        self.poll_late(context)
    }

    /// Ends a request that has no answer: settles, then says so.
    fn fail(mut self, failed: Failed) -> Response<Answer> {
        if !self.upload.is_handed_over() {
            self.client.note_unread();
        }
        let resource = self.right.as_ref().and_then(Right::resource).cloned();
        self.abort();
        let how = match &failed {
            Failed::Trouble(_) => Settled::Lost,
            Failed::Refused(_) | Failed::Unreachable(_) | Failed::Gone | Failed::NeverSent(_) => Settled::NothingLeft,
        };
        let outcome = if how == Settled::Lost { Outcome::Unknown } else { Outcome::NotApplied };
        self.settle(how, outcome);
        let trouble = match failed {
            Failed::Refused(refusal) => return self.http.refused(&self.seen, &refusal, &self.client),
            Failed::Unreachable(why) => {
                return self.refuse(unreachable(&why), resource);
            }
            Failed::Gone => return self.plain(StatusCode::SERVICE_UNAVAILABLE, "The request has not been sent."),
            Failed::NeverSent(trouble) | Failed::Trouble(trouble) => trouble,
        };
        match refusal_of(&trouble, &self.http.listener.upstream).or_else(|| stamp_in_trailer(&trouble, outcome)) {
            Some(refusal) => self.refuse(refusal, resource),
            None => self.client_failed(&trouble, outcome),
        }
    }

    fn refuse(&self, mut refusal: Refusal, resource: Option<crate::fence::Resource>) -> Response<Answer> {
        // A read has a right to no resource in particular.
        refusal.resource = resource.or_else(|| self.http.role.resource(&self.seen.facts()));
        self.http.refused(&self.seen, &refusal, &self.client)
    }

    fn client_failed(&self, trouble: &Trouble, outcome: Outcome) -> Response<Answer> {
        let mut answer = plain_of(trouble, outcome, &self.seen.head.method);
        if matches!(trouble, Trouble::ClientIdle) && !self.seen.is_http2() {
            super::close_after(&mut answer, &self.seen, &self.client, CutReason::Idle);
        }
        answer
    }

    fn plain(&self, status: StatusCode, detail: &str) -> Response<Answer> {
        refuse::plain(status, detail, &self.seen.head.method)
    }

    /// Ends what is left of the request on its connection, before this returns.
    pub(super) fn abort(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.upload.give_up();
            drop(lease);
        }
    }

    /// The upstream changed the protocol: both connections become a tunnel, and the right goes with it.
    async fn upgrade(mut self, head: Response<()>) -> Response<Answer> {
        let asked = self.seen.upgrade && !self.http2;
        let Some(lease) = self.lease.take().filter(|_| asked) else {
            let why = "it answered 101 to a request that asked for no upgrade".to_owned();
            return self.fail(Failed::Trouble(Trouble::Broken(why)));
        };
        let Some((stream, ahead)) = lease.upgraded().await else {
            let why = "it broke off right after its 101".to_owned();
            return self.fail(Failed::Trouble(Trouble::Broken(why)));
        };
        let role = Rc::clone(&self.http.role);
        self.client.become_tunnel(Tunnel {
            upstream: stream,
            ahead,
            right: self.right.take(),
            signal: self.signal.take(),
            finish: self.finish.take().map(|finish| Box::new(finish) as Box<dyn Ends>),
            role,
            yields: false,
        });
        head.map(|()| Answer::empty())
    }
}

/// What the fence, or the upstream, did to a request of which a byte may have left; none for what its client did.
pub fn refusal_of(trouble: &Trouble, upstream: &Upstream) -> Option<Refusal> {
    let (reason, detail) = match trouble {
        Trouble::Fenced => (
            Reason::FencedInFlight,
            "The request was cut because this side may send nothing more of its epoch; whether it was applied is not \
             known."
                .to_owned(),
        ),
        Trouble::Late => (
            Reason::UpstreamTimeout,
            format!(
                "The upstream did not answer within {:?}; whether the request was applied is not known.",
                upstream.response_timeout
            ),
        ),
        Trouble::Stalled => (
            Reason::UpstreamTimeout,
            format!(
                "The upstream took nothing of the request for {:?}; whether it was applied is not known.",
                upstream.send_timeout
            ),
        ),
        Trouble::Broken(why) => (
            Reason::UpstreamBroken,
            format!("The upstream connection broke ({why}); whether the request was applied is not known."),
        ),
        Trouble::NotSent(refusal) => return Some((**refusal).clone()),
        Trouble::Spoilt(_) | Trouble::ClientIdle | Trouble::ClientSlow | Trouble::Closing => return None,
    };
    Some(Refusal::new(reason, detail))
}

/// There is no connection: nothing has left.
pub fn unreachable(why: &str) -> Refusal {
    Refusal::new(Reason::UpstreamUnreachable, format!("The request has not been sent: {why}."))
}

/// What is said of a request that its own client, or this side's end, has spoilt, and what became of it.
pub fn plain_of(trouble: &Trouble, outcome: Outcome, method: &http::Method) -> Response<Answer> {
    let (status, detail) = match trouble {
        Trouble::Spoilt(why) => (StatusCode::BAD_REQUEST, format!("The request was not sent whole: {why}.")),
        Trouble::ClientIdle => (StatusCode::REQUEST_TIMEOUT, "The request's body did not come in time.".to_owned()),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "This sidecar is stopping.".to_owned()),
    };
    refuse::spoilt(status, &detail, outcome, method)
}

/// The refusal of a request whose trailers carry a stamp, where nothing of it has left.
pub fn stamp_in_trailer(trouble: &Trouble, outcome: Outcome) -> Option<Refusal> {
    let is_so = matches!(trouble, Trouble::Spoilt(Spoilt::StampInTrailer)) && outcome == Outcome::NotApplied;
    is_so.then(|| Refusal::new(Reason::MalformedStamp, "a trailer carries the stamp's name: it belongs into the head"))
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.abort();
    }
}
