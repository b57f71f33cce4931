//! Plain HTTP/2 streams to an HTTP/1.1 upstream, without hyper's client.
//!
//! Hyper speaks HTTP/2 with the client; from a stream's head to its answer's the request goes the way of the direct path:
//! its head is written once, into the bytes that the upstream reads; connection, body and answer are polled by the
//! stream's own task; nothing is sent through a channel. Where the role says yes and a connection waits, the first byte
//! leaves in the turn in which the head was read, before there is a task. A stream that says more than a plain request
//! does (see [`head`]) goes the way of [`super::super::forward`].
//!
//! What differs from the direct path of HTTP/1.1 is the client's leaving: hyper then drops the stream's future, at any
//! moment. Where nothing has left by then, nothing will; a write of which something has left goes on in a task of its
//! own ([`sent`]), as does every answer that does not come in one piece.
//!
//! | file | what it holds |
//! |---|---|
//! | here | a stream, from its head to its answer |
//! | [`head`] | what its head says, and the head as the upstream sees it |
//! | [`launch`] | a connection, the right confirmed, the first byte |
//! | [`exchange`] | the request and its answer: [`up`] the one, [`down`] the other |
//! | [`sent`] | who waits for the answer, and what goes on without that |

mod down;
mod exchange;
mod head;
mod launch;
mod sent;
mod up;

use std::rc::Rc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio::task::coop;
use tokio::time::Instant;

use self::head::Said;
use self::launch::{NotSent, Unsent};
use self::sent::Sent;
use self::up::Body;
use super::super::body::Answer;
use super::super::classify::{self, Seen};
use super::super::client::{Busy, Client};
use super::super::finish::Finish;
use super::super::forward::{plain_of, refusal_of, stamp_in_trailer, unreachable};
use super::super::{Answering, Http};
use super::failure::Failed;
use super::scratch::Scratch;
use crate::config::resolved::UpstreamVersion;
use crate::fence::Resource;
use crate::net::Closing;
use crate::protocol::{Decision, Kind, Party, Right};

/// A plain stream: its head, and what is known of it.
struct Stream {
    head: Parts,
    said: Said,
    client: Rc<Client>,
    who: Party,
}

/// What a stream waits for whose first byte could not leave at once.
enum Wait {
    /// The role's word, for which there is this body.
    Decision(Decision, Incoming, Finish),
    /// A connection.
    Connection(Box<Unsent>),
    /// Nothing: this has happened.
    Failed(Failed),
}

impl Http {
    /// Begins to answer a plain stream; gives another request back. A future that is dropped leaves nothing undone: see
    /// the module.
    #[allow(clippy::result_large_err, reason = "what is given back is moved once, and goes a way that costs far more")]
    pub(in super::super) fn begin_stream(
        self: &Rc<Http>,
        busy: Busy,
        who: &Party,
        closing: &Closing,
        request: Request<Incoming>,
    ) -> Result<Answering, (Busy, Request<Incoming>)> {
        if !self.direct.is_on() || self.listener.upstream.version != UpstreamVersion::Http1 {
            return Err((busy, request));
        }
        let (head, body) = request.into_parts();
        let Some(said) = head::look(&head, body.is_end_stream(), self.listener.limits.headers) else {
            return Err((busy, Request::from_parts(head, body)));
        };
        let stream = Stream { head, said, client: Rc::clone(busy.client()), who: who.clone() };
        let mut finish = Finish::new(self, Kind::of_method(stream.head.method.as_str()));
        let wait = match self.role.decide(&stream.facts()) {
            Decision::Forward(right) => {
                finish.is(right.kind());
                let unsent = self.unsent(&stream, body, right, finish);
                match self.sent_at_once(unsent, closing) {
                    Ok(exchange) => return Ok(Box::pin(Sent::new(self, stream, exchange, busy))),
                    Err(NotSent::Unconnected(unsent)) => Wait::Connection(unsent),
                    Err(NotSent::Failed(failed)) => Wait::Failed(failed),
                }
            }
            decision => Wait::Decision(decision, body, finish),
        };
        Ok(Box::pin(Rc::clone(self).waited(stream, wait, closing.clone(), busy)))
    }

    fn unsent(&self, stream: &Stream, body: Incoming, right: Right, finish: Finish) -> Unsent {
        let mut head = Scratch::to_write();
        stream.write(&self.names, right.stamp(), &mut head);
        let is_head = stream.head.method == http::Method::HEAD;
        Unsent::new(right, finish, head, Body::new(body, stream.said.body), is_head)
    }

    /// Where a connection waits, and the client's own task may still do something in its turn: one that may not is told
    /// that nothing is ready, also where something is.
    fn sent_at_once(self: &Rc<Http>, unsent: Unsent, closing: &Closing) -> Result<exchange::Exchange, NotSent> {
        let now = Instant::now();
        match coop::has_budget_remaining().then(|| self.direct.idle.take(now)).flatten() {
            Some(upstream) => self.first_byte(unsent, upstream, closing, now),
            None => Err(NotSent::Unconnected(Box::new(unsent))),
        }
    }

    /// The answer to a stream that has to wait before anything of it leaves.
    async fn waited(
        self: Rc<Http>,
        stream: Stream,
        mut wait: Wait,
        mut closing: Closing,
        busy: Busy,
    ) -> Result<Response<Answer>, std::convert::Infallible> {
        let failed = loop {
            wait = match wait {
                Wait::Decision(Decision::Forward(right), body, mut finish) => {
                    finish.is(right.kind());
                    Wait::Connection(Box::new(self.unsent(&stream, body, right, finish)))
                }
                Wait::Decision(Decision::Refuse(refusal), _, mut finish) => {
                    finish.ends_as(refusal.reason.outcome());
                    break Failed::Refused(refusal);
                }
                Wait::Decision(Decision::Hold(held), body, finish) => {
                    let decision = match held.await {
                        Ok(()) => self.role.decide(&stream.facts()),
                        Err(refusal) => Decision::Refuse(refusal),
                    };
                    Wait::Decision(decision, body, finish)
                }
                Wait::Connection(unsent) => match self.launched_stream(unsent, &mut closing).await {
                    Ok(exchange) => return Sent::new(&self, stream, exchange, busy).await,
                    Err(failed) => Wait::Failed(failed),
                },
                Wait::Failed(failed) => break failed,
            };
        };
        let mut answer = self.stream_failed(stream, failed, None);
        answer.body_mut().keep_busy(busy);
        Ok(answer)
    }

    /// Says that there is no answer of the upstream's, and why.
    fn stream_failed(&self, stream: Stream, failed: Failed, resource: Option<Resource>) -> Response<Answer> {
        let Stream { head, client, who, .. } = stream;
        let seen = match classify::read(&head, true, &self.names, self.listener.limits.headers) {
            Ok(said) => Seen::new(head, said, who),
            Err(_) => Seen::unread(head, who),
        };
        let mut refusal = match failed {
            Failed::Refused(refusal) => return self.refused(&seen, &refusal, &client),
            Failed::Unreachable(why) => unreachable(&why),
            Failed::Trouble(trouble, outcome) => {
                let refusal = refusal_of(&trouble, &self.listener.upstream);
                match refusal.or_else(|| stamp_in_trailer(&trouble, outcome)) {
                    Some(refusal) => refusal,
                    None => return plain_of(&trouble, outcome, &seen.head.method),
                }
            }
        };
        // A read has a right to no resource in particular.
        refusal.resource = resource.or_else(|| self.role.resource(&seen.facts()));
        self.refused(&seen, &refusal, &client)
    }
}
