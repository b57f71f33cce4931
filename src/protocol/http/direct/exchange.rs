//! One request and its answer, byte by byte: what leaves, when it may leave, and how its right is settled.
//!
//! The order is the one of hyper's path ([`super::super::forward`]): a connection; the right confirmed; the first byte,
//! with no await in between. From there on every way out settles the right exactly once, before the last byte of the
//! answer is handed on; dropping the exchange resets the connection, and then settles as lost.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::super::Http;
use super::super::finish::{Finish, Running};
use super::super::forward::Trouble;
use super::down::Down;
use super::idle::Upstream;
use super::launch::Launched;
use super::limits::{Limits, Ticker};
use super::pipe::{self, Pipe};
use super::scratch::Scratch;
use crate::fence::{Outcome, Resource};
use crate::net::{Closing, Stage, Stream};
use crate::protocol::right::{Keeper, Settled};
use crate::protocol::signal::{Ask, Signal};
use crate::protocol::{Kind, Right};

/// A request of which nothing has left yet.
pub struct Request {
    pub right: Right,
    pub finish: Finish,
    /// The head as the upstream is to see it.
    pub head: Scratch,
    /// The bytes of its body.
    pub body: u64,
    /// Whether it is a HEAD.
    pub is_head: bool,
    /// Whether the client's connection ends with the answer.
    pub close: bool,
}

/// How an exchange ended, as far as the client's connection is concerned.
pub enum End {
    /// The answer has been handed on; `unread` where the client was not read to the end of its request; `last` where it
    /// was told that its connection ends.
    Answered { unread: bool, last: bool },
    /// There is no answer, and none has begun; `unread` as above; with this outcome.
    Failed { trouble: Trouble, unread: bool, outcome: Outcome, resource: Option<Resource> },
    /// The answer broke off, or its client is gone: the connection is cut.
    Cut(Trouble),
}

/// A request under way.
pub struct Exchange<'a> {
    pub(super) http: &'a Rc<Http>,
    pub(super) client: &'a mut Stream,
    /// Declared, and so reset, before the right is given back.
    pub(super) upstream: Option<Upstream>,
    pub(super) right: Option<Right>,
    pub(super) write: bool,
    pub(super) keeper: Option<Rc<dyn Keeper>>,
    pub(super) signal: Option<Signal>,
    pub(super) finish: Finish,
    pub(super) is_head: bool,
    pub(super) close: bool,
    pub(super) up: Backlog,
    /// What a long body goes through.
    pub(super) pipe: Option<Box<Pipe>>,
    /// The bytes of the body that have not been read yet.
    pub(super) unread: u64,
    /// Whether a byte has left.
    pub(super) left: bool,
    /// Whether all of it has.
    pub(super) sent: bool,
    /// Whether the last of it left while the answer was not looked at: all of that may have been there before.
    pub(super) sent_unseen: bool,
    /// Whether the upstream takes no more of it; its answer may be there all the same.
    pub(super) deaf: bool,
    pub(super) down: Down,
    pub(super) out: Backlog,
    /// Whether any of the answer has been handed to the client.
    pub(super) begun: bool,
    pub(super) client_gone: bool,
    /// Whether it was this side that gave it up, since it took nothing of its answer.
    client_slow: bool,
    /// How many interim answers there were.
    pub(super) interim: u32,
    pub(super) stays: bool,
    pub(super) no_answer: bool,
    pub(super) outcome: Outcome,
    pub(super) limits: Limits,
    /// When this poll began: one reading of the clock does for all of it.
    pub(super) now: Instant,
    /// Whether the first poll, at that time, is still to come.
    unpolled: bool,
    _running: Option<Running>,
}

/// Bytes that the other side did not take at once.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    at: usize,
}

impl Backlog {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn taken(&mut self, bytes: usize) {
        self.at += bytes;
        if self.at == self.bytes.len() {
            *self = Backlog::default();
        }
    }

    /// What is left of these parts once `skip` bytes of them were taken.
    pub(super) fn add(&mut self, parts: [&[u8]; 2], mut skip: usize) {
        for part in parts {
            let skipped = skip.min(part.len());
            self.bytes.extend_from_slice(&part[skipped..]);
            skip -= skipped;
        }
    }
}

impl<'a> Exchange<'a> {
    /// Of a request of whose head, and of the `body` that came with it, the upstream has just taken some.
    pub fn new(
        http: &'a Rc<Http>,
        client: &'a mut Stream,
        request: Request,
        body: &[u8],
        Launched { upstream, taken, now }: Launched,
    ) -> Exchange<'a> {
        let Request { right, mut finish, head, body: length, is_head, close } = request;
        let mut up = Backlog::default();
        let unread = length - body.len() as u64;
        let took_all = taken == head.len() + body.len();
        if !took_all {
            up.add([&head, body], taken);
        }
        if taken > 0 {
            finish.ends_as(Outcome::Unknown);
        }
        Exchange {
            http,
            client,
            upstream: Some(upstream),
            keeper: right.keeper(),
            signal: right.signal(),
            write: right.kind() == Kind::Write,
            _running: (right.kind() == Kind::Write).then(|| Running::on(http)),
            right: Some(right),
            finish,
            is_head,
            close,
            up,
            pipe: if unread >= pipe::LONG { Pipe::new().map(Box::new) } else { None },
            unread,
            left: taken > 0,
            sent: took_all && unread == 0,
            sent_unseen: false,
            deaf: false,
            down: Down::Head(Vec::new()),
            out: Backlog::default(),
            begun: false,
            client_gone: false,
            client_slow: false,
            interim: 0,
            stays: false,
            no_answer: false,
            outcome: Outcome::Answered,
            limits: Limits::new(now),
            now,
            unpolled: true,
        }
    }

    /// Goes as far as it goes now.
    pub fn poll(&mut self, ticker: &mut Ticker, closing: &mut Closing, context: &mut Context<'_>) -> Poll<End> {
        if !std::mem::take(&mut self.unpolled) {
            self.now = Instant::now();
        }
        self.close |= closing.stage() >= Stage::Finishing;
        loop {
            // The answer first: one that was there before the rest of the request left says nothing of that rest.
            match self.poll_down(context) {
                Poll::Ready(Ok(())) if self.client_slow => return Poll::Ready(End::Cut(Trouble::ClientSlow)),
                Poll::Ready(Ok(())) if self.client_gone => return Poll::Ready(End::Cut(Trouble::Closing)),
                Poll::Ready(Ok(())) => return Poll::Ready(End::Answered { unread: self.unread > 0, last: self.close }),
                Poll::Ready(Err(_)) if self.client_slow => return Poll::Ready(self.give_up(Trouble::ClientSlow)),
                Poll::Ready(Err(trouble)) => return Poll::Ready(self.give_up(trouble)),
                Poll::Pending => {}
            }
            let (had_been_sent, blind) = (self.sent, self.is_blind());
            if let Poll::Ready(Err(trouble)) = self.poll_up(context) {
                return Poll::Ready(self.give_up(trouble));
            }
            self.sent_unseen |= blind && self.sent && !had_been_sent;
            match std::task::ready!(self.poll_trouble(ticker, closing, context)) {
                Trouble::ClientSlow => self.give_its_client_up(),
                trouble => return Poll::Ready(self.give_up(trouble)),
            }
        }
    }

    /// Nothing more goes to the client. What it has asked for goes on as where a client has gone: a read ends, a write is
    /// taken to its answer's end, so that nobody has to wait for what became of it.
    fn give_its_client_up(&mut self) {
        // The kernel is not to go on offering it what it does not take.
        self.client.reset_on_close().set(true);
        (self.client_slow, self.client_gone) = (true, true);
        self.out = Backlog::default();
        self.limits.taken();
    }

    pub(super) fn settle(&mut self, how: Settled, outcome: Outcome) {
        self.finish.ends_as(outcome);
        if let Some(right) = self.right.take() {
            right.settle(how);
        }
    }

    /// Ends what has no whole answer: nothing of it leaves from here on.
    fn give_up(&mut self, trouble: Trouble) -> End {
        drop(self.upstream.take());
        let resource = self.right.as_ref().and_then(Right::resource).cloned();
        let (how, outcome) = match self.left {
            true => (Settled::Lost, Outcome::Unknown),
            false => (Settled::NothingLeft, Outcome::NotApplied),
        };
        self.settle(how, outcome);
        let trouble = if self.left { trouble } else { trouble.before_the_first_byte() };
        match self.begun || self.client_gone {
            true => End::Cut(trouble),
            false => End::Failed { trouble, unread: self.unread > 0, outcome, resource },
        }
    }

    /// Ready when the request has to be given up.
    fn poll_trouble(&mut self, ticker: &mut Ticker, closing: &mut Closing, context: &mut Context<'_>) -> Poll<Trouble> {
        if self.upstream.is_some()
            && let Some(signal) = &mut self.signal
            && let Poll::Ready(asked) = signal.poll_for(Ask::CutHalfSent, context)
            && (!self.sent || asked == Ask::Cut || signal.poll_for(Ask::Cut, context).is_ready())
        {
            return Poll::Ready(Trouble::Fenced);
        }
        if closing.watch(context) == Stage::Now {
            return Poll::Ready(Trouble::Closing);
        }
        // A client that is slow is not the upstream's delay.
        let blind = self.is_blind();
        let listener = &self.http.listener;
        let deadline = match blind {
            true => (self.limits.taken_by(listener), Trouble::ClientSlow),
            false => self.limits.deadline(listener, self.unread > 0, self.sent),
        };
        ticker.poll_late(&mut self.limits.catching_up, self.now, deadline.0, context).map(|()| deadline.1)
    }
}

/// Writes two parts as one.
pub fn write_parts(stream: &mut Stream, parts: [&[u8]; 2], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
    if parts[1].is_empty() {
        return Pin::new(stream).poll_write(context, parts[0]);
    }
    Pin::new(stream).poll_write_vectored(context, &parts.map(IoSlice::new))
}
