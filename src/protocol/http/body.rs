//! Bodies: what goes up to the upstream, and what goes down to the client.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::client::Busy;
use super::head::Names;
use super::link::Link;
use super::pipe::Reader;
use super::reception::Reception;
use crate::protocol::right::Keeper;

/// A body that ended before its end: the connection that it goes to is cut, so that nobody takes it for whole.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body ended before its end")]
pub struct Broken;

/// The body of an answer to a client.
pub struct Answer {
    kind: Kind,
    busy: Option<Busy>,
}

enum Kind {
    Empty,
    Full(Option<Bytes>),
    /// A write's, from its own task.
    Piped(Reader),
    /// A read's, straight from the upstream.
    Received(Box<Reception>),
}

impl Answer {
    /// None.
    pub const fn empty() -> Answer {
        Answer { kind: Kind::Empty, busy: None }
    }

    /// All of it, at once.
    pub const fn full(bytes: Bytes) -> Answer {
        Answer { kind: Kind::Full(Some(bytes)), busy: None }
    }

    /// What a task writes into the other end.
    pub const fn piped(reader: Reader) -> Answer {
        Answer { kind: Kind::Piped(reader), busy: None }
    }

    /// What the upstream sends.
    pub const fn received(reception: Box<Reception>) -> Answer {
        Answer { kind: Kind::Received(reception), busy: None }
    }

    /// Keeps its connection busy until all of it was taken.
    pub fn keep_busy(&mut self, mut busy: Busy) {
        // Its head is there for the client.
        busy.waits_for_client(true);
        self.busy = Some(busy);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Piped(reader) => reader.poll_frame(context),
            Kind::Received(reception) => {
                reception.poll_frame(context).map(|frame| frame.map(|f| f.map_err(|_| Broken)))
            }
        };
        // Whoever asks has taken the part before.
        if let Some(busy) = &mut self.busy {
            busy.waits_for_client(polled.is_ready());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Piped(reader) => reader.is_at_end(),
            Kind::Received(reception) => reception.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Piped(_) => SizeHint::default(),
            Kind::Received(reception) => reception.size_hint(),
        }
    }
}

/// Why a request's body will never be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spoilt {
    /// The client is gone, or broke its own framing.
    #[error("the client's body broke off")]
    Client,
    /// It ended without its end (RST_STREAM with NO_ERROR, which hyper takes for an orderly end).
    #[error("the client's body was cut short")]
    Truncated,
    /// A trailer pretends to be a stamp.
    #[error("a trailer carries the stamp's name")]
    StampInTrailer,
    /// The door may send nothing more.
    #[error("this door may send nothing more")]
    Shut,
    /// This side gave it up.
    #[error("the request was given up")]
    GivenUp,
}

/// What is known of a request's body while hyper has it.
pub struct Upload {
    whole: Cell<bool>,
    spoilt: Cell<Option<Spoilt>>,
    /// Whether hyper asked for more and the client has not sent it.
    waits_for_client: Cell<bool>,
    /// When `waits_for_client` was last decided.
    since: Cell<Instant>,
    link: RefCell<Option<Rc<Link>>>,
    flushes_at_end: Cell<u64>,
    hyper: Cell<Option<Waker>>,
    owner: Cell<Option<Waker>>,
}

impl Upload {
    /// Whether hyper has all of it.
    pub fn is_handed_over(&self) -> bool {
        self.whole.get()
    }

    /// Whether all of it has left, as far as can be known: hyper has all of it, and has since had nothing left that
    /// the kernel did not take.
    pub fn is_sent(&self) -> bool {
        self.had_left(Link::flushes)
    }

    /// Whether all of it had left when the upstream last said something. What answered before knows nothing of the rest,
    /// also where that has left by the time at which the answer is looked at.
    pub fn was_sent_before_the_answer(&self) -> bool {
        self.had_left(Link::flushes_at_read)
    }

    fn had_left(&self, by: fn(&Link) -> u64) -> bool {
        let flushes = self.link.borrow().as_ref().map_or(0, |link| by(link));
        self.whole.get() && flushes > self.flushes_at_end.get()
    }

    /// Why it will never be whole.
    pub fn spoilt(&self) -> Option<Spoilt> {
        self.spoilt.get()
    }

    /// Since when nothing has moved, and whether it is the client that is waited for.
    pub fn standing_since(&self) -> (Instant, bool) {
        (self.since.get(), self.waits_for_client.get())
    }

    /// The connection that it is to leave by, right before it is handed to hyper.
    pub fn leaves_by(&self, link: &Rc<Link>) {
        self.flushes_at_end.set(link.flushes());
        self.since.set(Instant::now());
        self.link.replace(Some(Rc::clone(link)));
    }

    /// Ends it: hyper gets an error where it still wants more, and never an end.
    pub fn give_up(&self) {
        if !self.whole.get() && self.spoilt.get().is_none() {
            self.spoilt.set(Some(Spoilt::GivenUp));
            wake(self.hyper.take());
        }
    }

    /// Wakes the caller's task when it is whole or spoilt.
    pub fn watch(&self, context: &Context<'_>) {
        self.owner.set(Some(context.waker().clone()));
    }

    fn stand(&self, waits_for_client: bool) {
        self.waits_for_client.set(waits_for_client);
        self.since.set(Instant::now());
    }

    fn end(&self) {
        self.whole.set(true);
        self.stand(false);
        let flushes = self.link.borrow().as_ref().map_or(0, |link| link.flushes());
        self.flushes_at_end.set(flushes);
        wake(self.owner.take());
    }

    fn spoil(&self, why: Spoilt) -> Spoilt {
        self.spoilt.set(Some(why));
        wake(self.owner.take());
        why
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A request's body as hyper's client sends it. It ends only where the client ended it; whatever else happens is an
/// error, on which hyper aborts the request.
pub struct UploadBody {
    from: Incoming,
    /// Hyper mistakes a reset for an end in HTTP/2 bodies.
    check_end: bool,
    names: Rc<Names>,
    keeper: Option<Rc<dyn Keeper>>,
    upload: Rc<Upload>,
    /// The last of a body whose end is still to be seen: trailers may follow it.
    last: Option<Frame<Bytes>>,
}

/// Wraps a request's body; `check_end` for one that comes over HTTP/2; `keeper` is asked before each chunk. Not polled
/// before hyper does it, so that `100 Continue` is not said before the request is admitted.
pub fn upload(
    from: Incoming,
    check_end: bool,
    names: Rc<Names>,
    keeper: Option<Rc<dyn Keeper>>,
) -> (UploadBody, Rc<Upload>) {
    let upload = Rc::new(Upload {
        // Hyper does not ask for a body of no bytes.
        whole: Cell::new(is_whole(&from, false)),
        spoilt: Cell::new(None),
        waits_for_client: Cell::new(false),
        since: Cell::new(Instant::now()),
        link: RefCell::new(None),
        flushes_at_end: Cell::new(0),
        hyper: Cell::new(None),
        owner: Cell::new(None),
    });
    (UploadBody { from, check_end, names, keeper, upload: Rc::clone(&upload), last: None }, upload)
}

/// Whether nothing more is to come: its end was seen, or its announced length is there. Over HTTP/2 (`check_end`) trailers
/// may follow the length, and a stamp among them is to be refused, not overlooked.
fn is_whole(body: &Incoming, check_end: bool) -> bool {
    body.is_end_stream() || (!check_end && body.size_hint().exact() == Some(0))
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Spoilt;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Spoilt>>> {
        let this = &mut *self;
        let upload = &*this.upload;
        if let Some(why) = upload.spoilt.get() {
            return Poll::Ready(Some(Err(why)));
        }
        if upload.whole.get() {
            return Poll::Ready(None);
        }
        let polled = loop {
            match Pin::new(&mut this.from).poll_frame(context) {
                // All that was announced: nobody gets the last of it before the end was seen.
                Poll::Ready(Some(Ok(frame))) if this.holds_back(&frame) => {
                    upload.stand(false);
                    this.last.get_or_insert(frame);
                }
                polled => break polled,
            }
        };
        let Poll::Ready(frame) = polled else {
            if !upload.waits_for_client.get() {
                upload.stand(true);
            }
            upload.hyper.set(Some(context.waker().clone()));
            return Poll::Pending;
        };
        upload.stand(false);
        if this.keeper.as_ref().is_some_and(|keeper| !keeper.may_send()) {
            return Poll::Ready(Some(Err(upload.spoil(Spoilt::Shut))));
        }
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    if trailers.keys().any(|name| this.names.is_stamp(name)) {
                        return Poll::Ready(Some(Err(upload.spoil(Spoilt::StampInTrailer))));
                    }
                    this.names.strip_trailers(trailers);
                    upload.end();
                } else if is_whole(&this.from, this.check_end) {
                    upload.end();
                }
                // What has come behind an announced length, trailers or nothing, is only its end.
                let frame = this.last.take().unwrap_or(frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => Poll::Ready(Some(Err(upload.spoil(Spoilt::Client)))),
            None if this.check_end && !this.from.is_end_stream() => {
                Poll::Ready(Some(Err(upload.spoil(Spoilt::Truncated))))
            }
            None => {
                upload.end();
                Poll::Ready(this.last.take().map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upload.whole.get() && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.from.size_hint()
    }
}

impl UploadBody {
    /// Whether this is the last part of an announced length, and not seen to be the end.
    fn holds_back(&self, frame: &Frame<Bytes>) -> bool {
        self.check_end && frame.is_data() && self.from.size_hint().exact() == Some(0) && !self.from.is_end_stream()
    }
}
