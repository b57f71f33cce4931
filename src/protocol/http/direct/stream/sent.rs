//! Who waits for the answer to a stream of which something has left; what goes on when nobody does.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Response;
use http_body::Frame;

use super::super::super::Http;
use super::super::super::body::Answer;
use super::super::super::client::Busy;
use super::super::super::forward::Trouble;
use super::super::super::pipe::{self, Writer};
use super::super::failure::Failed;
use super::Stream;
use super::down::Part;
use super::exchange::Exchange;

/// Resolves with the answer, or with what is said where there is none. Dropped before, as when the client leaves, the
/// exchange goes on where it has to.
pub struct Sent {
    http: Rc<Http>,
    /// What is there until there is an answer.
    waiting: Option<(Exchange, Stream, Busy)>,
}

impl Sent {
    /// From now on.
    pub fn new(http: &Rc<Http>, stream: Stream, exchange: Exchange, busy: Busy) -> Sent {
        Sent { http: Rc::clone(http), waiting: Some((exchange, stream, busy)) }
    }
}

impl Future for Sent {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((exchange, ..)) = &mut self.waiting else { return Poll::Pending };
        let began = std::task::ready!(exchange.poll(context));
        let Some((mut exchange, stream, busy)) = self.waiting.take() else { return Poll::Pending };
        let mut answer = match began {
            Ok(part) => begun(exchange, part),
            Err(trouble) => {
                let failed = Failed::Trouble(trouble, exchange.outcome_given_up());
                self.http.stream_failed(stream, failed, exchange.given_up.take())
            }
        };
        answer.body_mut().keep_busy(busy);
        Poll::Ready(Ok(answer))
    }
}

/// An answer that has begun: all of it, or its head, whose body follows.
fn begun(exchange: Exchange, part: Part) -> Response<Answer> {
    let head = part.head.unwrap_or_default();
    if exchange.is_over() {
        return head.map(|()| if part.data.is_empty() { Answer::empty() } else { Answer::full(part.data) });
    }
    let (writer, reader) = pipe::pipe();
    if !part.data.is_empty() {
        writer.frame(Frame::data(part.data));
    }
    tokio::task::spawn_local(go_on(Box::new(exchange), writer));
    head.map(|()| Answer::piped(reader))
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some((exchange, ..)) = self.waiting.take()
            && exchange.outlives_its_client()
        {
            let (writer, reader) = pipe::pipe();
            drop(reader);
            tokio::task::spawn_local(go_on(Box::new(exchange), writer));
        }
    }
}

/// Takes an exchange to its end, whether its client is there or not; a read whose client has left is given up.
async fn go_on(mut exchange: Box<Exchange>, writer: Writer) {
    while !exchange.is_over() {
        poll_fn(|context| if exchange.is_hurried(context) { Poll::Ready(()) } else { writer.poll_room(context) }).await;
        let part = poll_fn(|context| {
            if !exchange.outlives_its_client() && writer.poll_gone(context).is_ready() {
                return Poll::Ready(Err(Trouble::Closing));
            }
            exchange.poll(context)
        })
        .await;
        match part {
            Ok(part) if part.data.is_empty() => {}
            Ok(part) => writer.frame(Frame::data(part.data)),
            // The client's answer breaks off with the writer.
            Err(trouble) => return tracing::debug!(?trouble, "an answer broke off"),
        }
    }
    writer.finish();
}
