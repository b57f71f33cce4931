//! One session, from its startup message to its end.
//!
//! What it ends by, and what becomes of its right:
//!
//! - its epoch is over: nothing more of the client is forwarded. Once nothing is outstanding: *answered*. After `drain.timeout` it is
//!   cancelled; what is not answered soon after is cut, and *lost*;
//! - its client goes: the server is told that nothing follows, and may answer what it has: *answered* then;
//! - its server ends it: *answered* where nothing was outstanding, or the server has said that it ends it; else *lost*;
//! - a connection breaks, or what passes is not the protocol: *lost*, unless nothing was outstanding;
//! - the listener is to finish: once nothing is outstanding and no transaction open: *answered*.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite as _;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::message::{self, Malformed};
use super::tracker::{Tracker, Transaction};
use super::watches::{Down, Slow, Startup, Up};
use super::{Named, Postgres, farewell, login, refuse};
use crate::fence::{Outcome, Reason, Refusal};
use crate::net::{Closing, Stage, Stream};
use crate::protocol::right::Settled;
use crate::protocol::session::Finish;
use crate::protocol::signal::{Ask, Signal};
use crate::protocol::tunnel::Ends as _;
use crate::protocol::way::{Stop, Way};
use crate::protocol::{CutReason, Decision, Right};

/// A client that takes nothing for so long does not hold up the end of its session: the rest is read without it.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long may the answer to a cancellation take where a proof follows...
const GRACE: Duration = Duration::from_millis(500);
/// ...and where only time does.
const GRACE_BEFORE_TIME: Duration = Duration::from_secs(2);
/// Terminate.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// A session in progress.
pub struct Session {
    service: Rc<Postgres>,
    named: Named,
    client: Stream,
    /// Closed, and so dropped, before the right is given back.
    upstream: Option<Stream>,
    right: Option<Right>,
    /// At a stamp whose writer does not lead: it has no right, and the guard sees to it that it only reads.
    reads: bool,
    signal: Option<Signal>,
    tracker: Tracker,
    up: Way,
    down: Way,
    /// The startup message, as far as it has not left.
    startup: Way,
    /// Nothing more can be sent to the upstream; what it has said may still be read.
    up_is_over: bool,
    /// Nothing more is said to the client.
    deaf: bool,
    finish: Finish,
    closing: Closing,
}

/// Why a session does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its term is over.
    Fenced,
    /// The listener is to finish, and nothing is outstanding.
    Finishing,
    /// Everything is to end at once.
    Now,
    ClientEnded,
    ClientBroke,
    ServerEnded,
    ServerBroke,
    ClientMalformed(Malformed),
    ServerMalformed,
}

/// What the end of a session waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing is outstanding.
    Idle,
    /// The server has ended its side.
    Ended,
    /// The server broke, or speaks something else.
    Broke,
    /// It is not waited for any longer.
    Overdue,
}

impl Session {
    /// With everything that it needs; `packet` is what the upstream is to get first, and `ahead` what its client has sent already.
    #[expect(clippy::too_many_arguments, reason = "each is another's, and they come together only here")]
    pub fn begin(
        service: Rc<Postgres>,
        named: Named,
        client: Stream,
        ahead: BytesMut,
        upstream: Stream,
        packet: &[u8],
        right: Option<Right>,
        mut finish: Finish,
        closing: Closing,
    ) -> Session {
        finish.ends_as(Outcome::Unknown);
        upstream.reset_on_close().set(false);
        Session {
            service,
            named,
            client,
            upstream: Some(upstream),
            signal: right.as_ref().and_then(Right::lasting_signal),
            reads: right.is_none(),
            right,
            tracker: Tracker::default(),
            up: Way::with(ahead),
            down: Way::default(),
            startup: Way::with(BytesMut::from(packet)),
            up_is_over: false,
            deaf: false,
            finish,
            closing,
        }
    }

    /// Runs it to its end.
    pub async fn run(mut self) {
        let why = poll_fn(|context| self.poll(context)).await;
        match why {
            Why::Fenced => self.fenced().await,
            Why::Finishing => {
                self.cut(CutReason::Shutdown);
                self.answered();
                self.tell(&refuse::stopping()).await;
            }
            Why::Now => {
                self.cut(CutReason::Shutdown);
                self.over_or_lost();
            }
            Why::ClientEnded => self.client_ended().await,
            Why::ClientBroke => {
                self.deaf = true;
                self.client_ended().await;
            }
            Why::ServerEnded | Why::ServerBroke | Why::ServerMalformed => {
                self.server_ended();
                self.tell(&[]).await;
            }
            Why::ClientMalformed(why) => {
                self.over_or_lost();
                self.tell(&refuse::unreadable(why)).await;
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Why> {
        if self.closing.watch(context) == Stage::Now {
            return Poll::Ready(Why::Now);
        }
        if self.asked(Ask::Hurry, context) {
            return Poll::Ready(Why::Fenced);
        }
        // The server's side first: what it says decides what the client may.
        loop {
            if let Poll::Ready(stop) = self.poll_down(context) {
                return Poll::Ready(match stop {
                    Stop::ToBroke => Why::ClientBroke,
                    Stop::FromBroke => Why::ServerBroke,
                    Stop::Malformed(_) => Why::ServerMalformed,
                    Stop::End | Stop::Forbidden => Why::ServerEnded,
                });
            }
            match self.poll_up(context) {
                Poll::Pending => break,
                Poll::Ready(Stop::End) => return Poll::Ready(Why::ClientEnded),
                Poll::Ready(Stop::FromBroke) => return Poll::Ready(Why::ClientBroke),
                Poll::Ready(Stop::Forbidden) => return Poll::Ready(Why::Fenced),
                Poll::Ready(Stop::Malformed(why)) => return Poll::Ready(Why::ClientMalformed(Malformed(why))),
                // What it has said before is still to be heard.
                Poll::Ready(Stop::ToBroke) => self.up_is_over = true,
            }
        }
        let rests = self.tracker.has_begun() && self.is_idle() && self.tracker.transaction() == Transaction::None;
        if rests && self.up.left.is_empty() && self.down.left.is_empty() && self.closing.stage() >= Stage::Finishing {
            return Poll::Ready(Why::Finishing);
        }
        Poll::Pending
    }

    fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<Stop> {
        let is_led = self.reads && self.is_led();
        let (Some(upstream), false) = (&mut self.upstream, self.up_is_over) else { return Poll::Pending };
        let right = self.right.as_ref();
        if !self.startup.left.is_empty()
            && let Some(stop) = std::task::ready!(self.startup.poll_left(upstream, &mut Startup(right), context))
        {
            return Poll::Ready(stop);
        }
        let mut watch = Up { tracker: &mut self.tracker, right, is_led };
        if watch.tracker.has_begun() {
            self.up.poll(&mut self.client, upstream, &mut watch, context)
        } else {
            login::poll(&mut self.up, &mut self.client, upstream, &mut watch, context)
        }
    }

    fn poll_down(&mut self, context: &mut Context<'_>) -> Poll<Stop> {
        self.poll_down_counting(&mut 0, context)
    }

    fn poll_down_counting(&mut self, taken: &mut u64, context: &mut Context<'_>) -> Poll<Stop> {
        let Some(upstream) = &mut self.upstream else { return Poll::Ready(Stop::FromBroke) };
        let mut watch = Down(&mut self.tracker, taken);
        if self.deaf {
            self.down.poll_discard(upstream, &mut watch, context)
        } else {
            self.down.poll(upstream, &mut self.client, &mut watch, context)
        }
    }

    /// Whether nothing that has left can still take effect. Without the whole startup message a server does nothing.
    fn is_idle(&self) -> bool {
        self.tracker.is_idle() || !self.startup.left.is_empty()
    }

    /// Whether the writer of a session that only reads is elected by now: its client is to connect again, or it would read for ever.
    fn is_led(&mut self) -> bool {
        let role = Rc::clone(&self.service.sessions.role);
        let standing = role.bind();
        if standing == self.named.who.binding {
            return false;
        }
        match self.service.sessions.ask(&self.named.asked()) {
            Decision::Refuse(refusal) if refusal.reason == Reason::NotLeader => {
                self.named.who.binding = standing;
                false
            }
            Decision::Hold(_) | Decision::Refuse(_) => true,
            Decision::Forward(right) => {
                right.settle(Settled::NothingLeft);
                true
            }
        }
    }

    fn asked(&mut self, ask: Ask, context: &Context<'_>) -> bool {
        self.signal.as_mut().is_some_and(|signal| signal.poll_for(ask, context).is_ready())
    }

    /// Its epoch is over.
    async fn fenced(&mut self) {
        self.cut(if self.reads { CutReason::TermChanged } else { CutReason::Fenced });
        let was_idle = self.is_idle();
        let mut left = self.leave().await;
        if left == Left::Overdue {
            left = self.cancelled().await;
        }
        match left {
            Left::Idle => self.answered(),
            Left::Ended => self.server_ended(),
            Left::Broke | Left::Overdue => self.over_or_lost(),
        }
        let words = refuse::fenced(&self.over(), was_idle || left == Left::Idle);
        self.tell(&words).await;
    }

    /// Its client has said all that it says, or has gone.
    async fn client_ended(&mut self) {
        let mut left = Left::Idle;
        if !self.is_idle() {
            self.half_close().await;
            left = self.leave().await;
            if left == Left::Overdue {
                left = self.cancelled().await;
            }
        }
        match left {
            Left::Idle => self.answered(),
            Left::Ended => self.server_ended(),
            Left::Broke | Left::Overdue => self.over_or_lost(),
        }
        if !self.deaf {
            self.tell(&[]).await;
        }
    }

    /// Waits until nothing is outstanding, and passes the server's answers on meanwhile; but for no longer than the fence allows.
    async fn leave(&mut self) -> Left {
        let mut slow = Slow::default();
        let mut ticks = interval(PATIENCE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|context| {
            if self.closing.watch(context) == Stage::Now || self.asked(Ask::CutHalfSent, context) {
                // What has come already counts.
                let settled = self.is_idle();
                return Poll::Ready(if settled { Left::Idle } else { Left::Overdue });
            }
            self.poll_leaving(&mut slow, &mut ticks, context)
        })
        .await
    }

    fn poll_leaving(&mut self, slow: &mut Slow, ticks: &mut Interval, context: &mut Context<'_>) -> Poll<Left> {
        loop {
            let ended = self.poll_down_counting(&mut slow.taken, context);
            // A client that is slow is no reason to wait: what is outstanding counts, and what it has not got is lost to it.
            if self.is_idle() && (self.down.left.is_empty() || self.deaf) {
                return Poll::Ready(Left::Idle);
            }
            match ended {
                Poll::Ready(Stop::ToBroke) => self.deaf = true,
                Poll::Ready(Stop::End) => return Poll::Ready(Left::Ended),
                Poll::Ready(_) => return Poll::Ready(Left::Broke),
                Poll::Pending => {
                    if ticks.poll_tick(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.deaf |= slow.stands_still(!self.down.left.is_empty());
                }
            }
        }
    }

    /// Asks the server to cancel what runs, and waits a moment for the answer.
    async fn cancelled(&mut self) -> Left {
        let may_ask =
            self.closing.stage() < Stage::Now && self.signal.as_ref().is_none_or(|signal| signal.asked() < Ask::Cut);
        let Some(request) = self.tracker.key().map(message::cancel).filter(|_| may_ask) else { return Left::Overdue };
        let (service, who) = (Rc::clone(&self.service), self.named.who.clone());
        let is_proved = service.sessions.listener.upstream.control.is_some();
        let asking = async {
            service.cancels.send(&service.sessions, &who, &request).await;
            std::future::pending::<()>().await;
        };
        let (mut slow, mut ticks) = (Slow::default(), interval(PATIENCE));
        let answered = poll_fn(|context| {
            if self.closing.watch(context) == Stage::Now || self.asked(Ask::Cut, context) {
                return Poll::Ready(Left::Overdue);
            }
            self.poll_leaving(&mut slow, &mut ticks, context)
        });
        tokio::select! {
            biased;
            left = answered => left,
            () = asking => Left::Overdue,
            () = sleep(if is_proved { GRACE } else { GRACE_BEFORE_TIME }) => Left::Overdue,
        }
    }

    /// Tells the upstream that nothing follows; it may still answer.
    async fn half_close(&mut self) {
        let Some(upstream) = &mut self.upstream else { return };
        let told = poll_fn(|context| Pin::new(&mut *upstream).poll_shutdown(context));
        // What cannot be told now is told by the connection's end.
        let _ = tokio::time::timeout(PATIENCE, told).await;
    }

    /// Nothing is outstanding: the upstream is told that the session ends, and the right is given back at once.
    fn answered(&mut self) {
        if let Some(mut upstream) = self.upstream.take() {
            let nobody = &mut Context::from_waker(std::task::Waker::noop());
            let politely =
                self.tracker.is_between_messages() && !self.tracker.is_terminated() && self.startup.left.is_empty();
            if politely && self.tracker.has_begun() {
                // As far as the kernel takes it at once: the connection's end says the same.
                let _ = Pin::new(&mut upstream).poll_write(nobody, TERMINATE);
            }
            let _ = Pin::new(&mut upstream).poll_shutdown(nobody);
        }
        self.settle(Settled::Answered);
    }

    fn server_ended(&mut self) {
        // Until the server has greeted it, a client has done nothing but say who it is.
        let is_over = self.is_idle() || self.tracker.is_ended_by_server() || !self.tracker.has_begun();
        if is_over { self.answered() } else { self.lost() }
    }

    fn over_or_lost(&mut self) {
        if self.is_idle() { self.answered() } else { self.lost() }
    }

    /// Cuts the upstream: what it has not got yet must not go on trickling out.
    fn lost(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.reset_on_close().set(true);
        }
        self.settle(Settled::Lost);
    }

    fn settle(&mut self, how: Settled) {
        self.signal = None;
        if self.right.is_some() || self.reads {
            self.finish.ends_as(if how == Settled::Answered { Outcome::Answered } else { Outcome::Unknown });
        }
        if let Some(right) = self.right.take() {
            right.settle(how);
        }
    }

    fn cut(&self, reason: CutReason) {
        self.service.sessions.role.cut(reason);
    }

    /// What the role says of its stamp today: who leads now, and which epoch would be let in.
    fn over(&self) -> Cow<'static, Refusal> {
        let asked = self.named.asked();
        let refusal = match self.service.sessions.ask(&asked) {
            Decision::Refuse(refusal) => Some(*refusal),
            Decision::Forward(right) => {
                right.settle(Settled::NothingLeft);
                None
            }
            Decision::Hold(_) => None,
        };
        Cow::Owned(refusal.unwrap_or_else(|| Refusal::new(Reason::FencedInFlight, "this session's epoch is over")))
    }

    /// Says the last words to the client, where it can be told: between two messages, and if it listens.
    async fn tell(&mut self, words: &[u8]) {
        let nothing = Stream::other(tokio::io::empty());
        let client = std::mem::replace(&mut self.client, nothing);
        if self.deaf || !self.down.left.is_empty() {
            client.reset_on_close().set(true);
            return;
        }
        let words = if self.tracker.is_between_replies() { words } else { &[] };
        farewell::tell(client, words, &mut self.closing).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Not settled: the stream is closed before the right is dropped, and so settled as lost.
        if let Some(upstream) = self.upstream.take_if(|_| self.right.is_some()) {
            upstream.reset_on_close().set(true);
        }
    }
}
