//! Plain HTTP/2 streams to an HTTP/1.1 upstream, without hyper's client.
//!
//! Hyper speaks HTTP/2 with the client; from a stream's head to its answer's the request goes the way of the direct path:
//! its head is written once, into the bytes that the upstream reads; connection, body and answer are polled by the
//! stream's own task; nothing is sent through a channel. A stream that says more than a plain request does (see [`head`])
//! goes the way of [`super::super::forward`].
//!
//! What differs from the direct path of HTTP/1.1 is the client's leaving: hyper then drops the stream's future, at any
//! moment. Where nothing has left by then, nothing will; a write of which something has left goes on in a task of its
//! own ([`alone`]), as does every answer that does not come in one piece.
//!
//! | file | what it holds |
//! |---|---|
//! | here | a stream, from its head to its answer |
//! | [`head`] | what its head says, and the head as the upstream sees it |
//! | [`launch`] | a connection, the right confirmed, the first byte |
//! | [`exchange`] | the request and its answer: [`up`] the one, [`down`] the other |
//! | [`alone`] | what goes on without the stream's own task |

mod alone;
mod down;
mod exchange;
mod head;
mod launch;
mod up;

use std::net::SocketAddr;
use std::rc::Rc;

use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use self::alone::{Begun, Watched};
pub use self::head::{Said, look};
use self::up::Body;
use super::super::Http;
use super::super::body::Answer;
use super::super::classify::{self, Seen};
use super::super::client::Client;
use super::super::finish::Finish;
use super::super::forward::{plain_of, refusal_of, unreachable};
use super::failure::Failed;
use super::scratch::Scratch;
use crate::config::resolved::UpstreamVersion;
use crate::fence::Resource;
use crate::net::Closing;
use crate::protocol::{Binding, Decision, Kind, Right};

/// A plain stream: its head, and what is known of it.
pub struct Stream {
    pub head: Parts,
    pub said: Said,
    pub client: Rc<Client>,
    pub peer: SocketAddr,
    pub binding: Binding,
}

impl Http {
    /// Whether plain streams take this way.
    pub(in super::super) fn takes_streams(&self) -> bool {
        self.direct.is_on() && self.listener.upstream.version == UpstreamVersion::Http1
    }

    /// Answers a plain stream. A future that is dropped leaves nothing undone: see the module.
    pub(in super::super) async fn answer_stream(
        self: &Rc<Http>,
        stream: Stream,
        body: Incoming,
        closing: Closing,
    ) -> Response<Answer> {
        let mut finish = Finish::new(self, Kind::of_method(stream.head.method.as_str()));
        let refusal = loop {
            match self.role.decide(&stream.facts()) {
                Decision::Forward(right) => return self.send_stream(stream, body, right, finish, closing).await,
                Decision::Refuse(refusal) => break refusal,
                Decision::Hold(held) => match held.await {
                    Ok(()) => {}
                    Err(refusal) => break refusal,
                },
            }
        };
        finish.ends_as(refusal.reason.outcome());
        self.refused(&self.seen_stream(stream.head, stream.peer, stream.binding), &refusal, &stream.client)
    }

    async fn send_stream(
        self: &Rc<Http>,
        stream: Stream,
        body: Incoming,
        right: Right,
        mut finish: Finish,
        closing: Closing,
    ) -> Response<Answer> {
        finish.is(right.kind());
        let mut head = Scratch::to_write();
        stream.write(&self.names, right.stamp(), &mut head);
        let body = Body::new(body, stream.said.body);
        let is_head = stream.head.method == http::Method::HEAD;
        let launched = self.launched_stream(right, finish, (head, is_head), body, closing).await;
        let (failed, resource) = match launched {
            Ok(exchange) => match Watched::new(exchange).begun().await {
                Begun::Whole(answer, data) if data.is_empty() => return answer.map(|()| Answer::empty()),
                Begun::Whole(answer, data) => return answer.map(|()| Answer::full(data)),
                Begun::Head(answer, reader) => return answer.map(|()| Answer::piped(reader)),
                Begun::Failed(trouble, resource) => (Failed::Trouble(trouble), resource),
            },
            Err(failed) => (failed, None),
        };
        self.stream_failed(stream, failed, resource)
    }

    fn stream_failed(&self, stream: Stream, failed: Failed, resource: Option<Resource>) -> Response<Answer> {
        let Stream { head, client, peer, binding, .. } = stream;
        let seen = self.seen_stream(head, peer, binding);
        let mut refusal = match failed {
            Failed::Refused(refusal) => return self.refused(&seen, &refusal, &client),
            Failed::Unreachable(why) => unreachable(&why),
            Failed::Trouble(trouble) => match refusal_of(&trouble, &self.listener.upstream) {
                Some(refusal) => refusal,
                None => return plain_of(&trouble, &seen.head.method),
            },
        };
        // A read has a right to no resource in particular.
        refusal.resource = resource.or_else(|| self.role.resource(&seen.facts()));
        self.refused(&seen, &refusal, &client)
    }

    /// The request as hyper's path would have it.
    fn seen_stream(&self, head: Parts, peer: SocketAddr, binding: Binding) -> Seen {
        match classify::read(&head, true, &self.names, self.listener.limits.headers) {
            Ok(said) => Seen::new(head, said, peer, binding),
            Err(_) => Seen::unread(head, peer, binding),
        }
    }
}
