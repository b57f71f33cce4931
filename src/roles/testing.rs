//! What the tests of both roles and of the worker share.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

pub(crate) use super::field::tests::Head;
use crate::clock::Clock;
use crate::event::{Event, EventSink, sink::Recorder};
use crate::fence::mechanism::Mechanisms;
use crate::fence::tenure::{Armed, Standing};
use crate::fence::{Epoch, Moment, Nonce, Refusal, Resource, Stamp, Term};
use crate::peer::Peer;
use crate::protocol::{Binding, Decision, Facts, Held, Right};

/// A clock that stands until it is set; its wall clock stands apart.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64, AtomicU64);

impl TestClock {
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds * 1_000_000_000, Ordering::SeqCst);
    }

    /// Seconds of UTC since 1970.
    pub(crate) fn set_wall(&self, seconds: u64) {
        self.1.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> jiff::Timestamp {
        let seconds = i64::try_from(self.1.load(Ordering::SeqCst)).expect("a time that people know");
        jiff::Timestamp::from_second(seconds).expect("a time that people know")
    }
}

pub(crate) fn recording() -> (Arc<Recorder>, EventSink) {
    let recorder = Arc::new(Recorder::default());
    (Arc::clone(&recorder), EventSink::new(vec![Box::new(recorder)]))
}

/// The events that came in, by the name that the history gives them.
pub(crate) fn names(recorder: &Recorder) -> Vec<String> {
    let name = |event: &Event| match serde_json::to_value(event).expect("events can be written") {
        serde_json::Value::Object(fields) => fields["event"].as_str().expect("a name").to_owned(),
        other => panic!("{other}"),
    };
    recorder.all().iter().map(|recorded| name(&recorded.event)).collect()
}

pub(crate) fn epoch(number: u64) -> Epoch {
    Epoch::new(number).expect("in range")
}

/// The term of this number: writer `orders-a` for odd ones, `orders-b` for even ones.
pub(crate) fn term(number: u64) -> Term {
    let writer = if number.is_multiple_of(2) { "orders-b" } else { "orders-a" };
    Term {
        epoch: epoch(number),
        nonce: Nonce::from_bytes(number.to_be_bytes()),
        writer: writer.parse().expect("an id"),
    }
}

pub(crate) fn orders() -> Resource {
    "orders".parse().expect("a resource")
}

/// The whole stamp of [`term`] for `orders`, as it travels.
pub(crate) fn stamp(number: u64) -> String {
    Stamp::of(&term(number), &orders()).to_string()
}

/// A standing that leads `orders` with term `number` until second 100.
pub(crate) fn leading(number: u64, armed: Armed) -> Standing {
    let mut standing = Standing::new(Mechanisms::all());
    standing.deadline = Some(Moment::from_nanos(100_000_000_000));
    standing.begin(orders(), term(number));
    standing.tenures.get_mut(&orders()).expect("it leads").armed = armed;
    standing
}

pub(crate) fn peer() -> Peer {
    Peer::Tcp("10.0.0.7:5123".parse().expect("an address"))
}

/// A request from [`peer`], bound to `standing`; the path may have a query.
pub(crate) fn facts<'a>(method: &'a str, path: &'a str, head: &'a Head, standing: u64) -> Facts<'a> {
    let binding = Binding { standing };
    let (target, path) = (path, path.split('?').next().unwrap_or(path));
    Facts {
        method,
        path,
        target,
        fields: head,
        upgrade: false,
        grpc: false,
        kind: None,
        peer: peer(),
        names: None,
        binding,
    }
}

pub(crate) fn forwarded(decision: Decision) -> Right {
    match decision {
        Decision::Forward(right) => right,
        Decision::Refuse(refusal) => panic!("refused: {refusal:?}"),
        Decision::Hold(_) => panic!("held"),
    }
}

pub(crate) fn refused(decision: Decision) -> Box<Refusal> {
    match decision {
        Decision::Refuse(refusal) => refusal,
        Decision::Forward(_) => panic!("forwarded"),
        Decision::Hold(_) => panic!("held"),
    }
}

pub(crate) fn held(decision: Decision) -> Held {
    match decision {
        Decision::Hold(held) => held,
        Decision::Forward(_) => panic!("forwarded"),
        Decision::Refuse(refusal) => panic!("refused: {refusal:?}"),
    }
}

/// Polls once, with nobody to wake.
pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}
