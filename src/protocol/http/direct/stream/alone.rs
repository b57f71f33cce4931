//! What goes on without the stream's own task: a write whose client has left, and answers in more than one piece.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use http::Response;
use http_body::Frame;

use super::super::super::forward::Trouble;
use super::super::super::pipe::{self, Reader, Writer};
use super::exchange::Exchange;
use crate::fence::Resource;

/// How an answer begins.
pub enum Begun {
    /// It is whole.
    Whole(Response<()>, Bytes),
    /// Its body follows.
    Head(Response<()>, Reader),
    /// There is none.
    Failed(Trouble, Option<Resource>),
}

/// An exchange that its stream watches. Dropped, as when the client leaves, it goes on where it has to.
pub struct Watched(Option<Box<Exchange>>);

impl Watched {
    /// From now on.
    pub fn new(exchange: Box<Exchange>) -> Watched {
        Watched(Some(exchange))
    }

    /// Waits until the answer begins.
    pub async fn begun(mut self) -> Begun {
        let began = poll_fn(|context| match &mut self.0 {
            Some(exchange) => exchange.poll(context),
            None => Poll::Ready(Err(Trouble::Closing)),
        })
        .await;
        match (began, self.0.take()) {
            (Ok(part), exchange) => {
                let head = part.head.unwrap_or_default();
                match exchange.filter(|exchange| !exchange.is_over()) {
                    None => Begun::Whole(head, part.data),
                    Some(exchange) => {
                        let (writer, reader) = pipe::pipe();
                        if !part.data.is_empty() {
                            writer.frame(Frame::data(part.data));
                        }
                        tokio::task::spawn_local(go_on(exchange, writer));
                        Begun::Head(head, reader)
                    }
                }
            }
            (Err(trouble), exchange) => {
                Begun::Failed(trouble, exchange.and_then(|mut exchange| exchange.given_up.take()))
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take().filter(|exchange| exchange.outlives_its_client()) {
            let (writer, reader) = pipe::pipe();
            drop(reader);
            tokio::task::spawn_local(go_on(exchange, writer));
        }
    }
}

/// Takes an exchange to its end, whether its client is there or not; a read whose client has left is given up.
async fn go_on(mut exchange: Box<Exchange>, writer: Writer) {
    while !exchange.is_over() {
        poll_fn(|context| if exchange.is_hurried(context) { Poll::Ready(()) } else { writer.poll_room(context) }).await;
        let part = poll_fn(|context| {
            if !exchange.outlives_its_client() && writer.poll_gone(context).is_ready() {
                return Poll::Ready(None);
            }
            exchange.poll(context).map(Some)
        })
        .await;
        match part {
            Some(Ok(part)) if part.data.is_empty() => {}
            Some(Ok(part)) => writer.frame(Frame::data(part.data)),
            // The client's answer breaks off with the writer.
            Some(Err(trouble)) => return tracing::debug!(?trouble, "an answer broke off"),
            None => return,
        }
    }
    writer.finish();
}
