//! An answer on its way from the upstream to the client, and the settlement that comes with its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::forward::{Flight, Trouble};
use crate::fence::Outcome;
use crate::fence::mechanism::Mechanism;
use crate::protocol::CutReason;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;

/// An answer on its way from the upstream. Dropping it before its end gives the request up.
pub struct Reception {
    /// There until the answer is whole, or broken.
    flight: Option<Flight>,
    body: Incoming,
    check_end: bool,
    /// Whether its connection may carry another request.
    stays: bool,
    no_answer: bool,
    outcome: Outcome,
    /// Whether the upstream is what is waited for: a client that is slow is not the upstream's delay.
    waits: bool,
    broken: bool,
}

impl Reception {
    /// Of a request that is under way, with the body of its answer. `check_end` where hyper would mistake a reset for
    /// its end; `stays` where the connection may carry another request; `no_answer` where its status says that the target, behind another proxy, may still be at it; `outcome`
    /// for when it is whole.
    pub fn new(
        flight: Flight,
        body: Incoming,
        (check_end, stays): (bool, bool),
        no_answer: bool,
        outcome: Outcome,
    ) -> Reception {
        let mut reception =
            Reception { flight: Some(flight), body, check_end, stays, no_answer, outcome, waits: false, broken: false };
        if reception.body.is_end_stream() {
            reception.complete();
        }
        reception
    }

    /// Whether all of it is there.
    pub fn is_over(&self) -> bool {
        self.flight.is_none() && !self.broken
    }

    /// What is known of the length of the rest.
    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// Whether the fence wants it read without waiting for the client.
    pub fn is_hurried(&mut self, context: &Context<'_>) -> bool {
        let signal = self.flight.as_mut().and_then(|flight| flight.signal.as_mut());
        signal.is_some_and(|signal| signal.poll_for(Ask::Hurry, context).is_ready())
    }

    /// The next part. The request is settled before the last one, or the error, is handed out.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Trouble>>> {
        let Some(flight) = &mut self.flight else {
            let again = || Err(Trouble::Broken("it broke off before".to_owned()));
            return Poll::Ready(self.broken.then(again));
        };
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            if !std::mem::replace(&mut self.waits, true) {
                flight.waits_since = Instant::now();
            }
            let trouble = std::task::ready!(flight.poll_trouble(context));
            return Poll::Ready(Some(Err(self.give_up(trouble))));
        };
        self.waits = false;
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    flight.http.names.strip_trailers(trailers);
                    self.complete();
                } else if self.body.is_end_stream() {
                    self.complete();
                } else if flight.signal.as_ref().is_some_and(|signal| signal.asked() == Ask::Cut) {
                    return Poll::Ready(Some(Err(self.give_up(Trouble::Fenced))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(self.give_up(Trouble::Broken(error.to_string()))))),
            None if self.check_end && !self.body.is_end_stream() => {
                Poll::Ready(Some(Err(self.give_up(Trouble::Broken("it was cut short".to_owned())))))
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    /// The answer is whole.
    fn complete(&mut self) {
        let Some(mut flight) = self.flight.take() else { return };
        if flight.upload.was_sent_before_the_answer() || !flight.http.mechanisms.keeps(Mechanism::SentWhole) {
            match flight.lease.take() {
                Some(lease) if self.stays => lease.give_back(),
                Some(lease) => lease.end(),
                None => {}
            }
            flight.settle(if self.no_answer { Settled::Lost } else { Settled::Answered }, self.outcome);
        } else {
            // The upstream answered what it has not read to the end: that is no word about what it does with the rest.
            flight.client.note_unread();
            flight.abort();
            flight.settle(Settled::Lost, Outcome::Unknown);
        }
    }

    fn give_up(&mut self, trouble: Trouble) -> Trouble {
        self.broken = true;
        if let Some(mut flight) = self.flight.take() {
            tracing::debug!(?trouble, "an answer broke off");
            // Of an HTTP/2 connection only the stream is reset.
            let cut = match trouble {
                _ if flight.seen.is_http2() => None,
                Trouble::Fenced => Some(CutReason::Fenced),
                Trouble::ClientIdle => Some(CutReason::Idle),
                _ => None,
            };
            flight.abort();
            flight.settle(Settled::Lost, Outcome::Unknown);
            if let Some(cut) = cut {
                flight.http.role.cut(cut);
            }
        }
        trouble
    }
}
