//! The first byte of a stream's request: a connection in hand, the right confirmed, and no await in between.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::super::Http;
use super::super::super::finish::Finish;
use super::super::super::forward::Trouble;
use super::super::failure::Failed;
use super::super::scratch::Scratch;
use super::exchange::Exchange;
use super::up::Body;
use crate::net::Closing;
use crate::protocol::right::Settled;
use crate::protocol::{Kind, Right};

/// A right with which nothing has been sent: dropped, as when the client leaves, it says so.
struct Unsent(Option<Right>);

impl Unsent {
    fn right(&self) -> &Right {
        self.0.as_ref().expect("it is there until the first byte leaves")
    }

    fn taken(mut self) -> Right {
        self.0.take().expect("it is there until the first byte leaves")
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(right) = self.0.take() {
            right.settle(Settled::NothingLeft);
        }
    }
}

impl Http {
    /// Has the first byte leave: finds a connection, confirms the right, writes. On a connection that the upstream had
    /// closed, so that the kernel takes nothing, it tries once more on a new one.
    pub(super) async fn launched_stream(
        self: &Rc<Http>,
        right: Right,
        finish: Finish,
        (head, is_head): (Scratch, bool),
        mut body: Body,
        mut closing: Closing,
    ) -> Result<Box<Exchange>, Failed> {
        let unsent = Unsent(Some(right));
        let idle = &self.direct.idle;
        let mut waiting = idle.take(Instant::now());
        loop {
            let mut upstream = match waiting.take() {
                Some(upstream) => upstream,
                None => Box::pin(self.dialled(unsent.right(), &mut closing)).await?,
            };
            if body.ahead.is_empty()
                && let Poll::Ready(Err(spoilt)) = poll_fn(|context| Poll::Ready(body.poll_ahead(context))).await
            {
                idle.give_back(upstream, Instant::now());
                return Err(Failed::Trouble(Trouble::Spoilt(spoilt)));
            }
            if let Err(refusal) = unsent.right().confirm() {
                idle.give_back(upstream, Instant::now());
                return Err(Failed::Refused(refusal));
            }
            // However the connection ends from here on: what it carries is a write without an answer.
            upstream.stream.reset_on_close().set(unsent.right().kind() == Kind::Write);
            let written = poll_fn(|context| Poll::Ready(body.poll_write(&head, &mut upstream.stream, context))).await;
            let taken = match written {
                Poll::Ready(Ok(taken)) => taken,
                Poll::Pending => 0,
                Poll::Ready(Err(_)) if upstream.used => continue,
                Poll::Ready(Err(error)) => return Err(Failed::Unreachable(error.to_string())),
            };
            match taken.checked_sub(head.len()) {
                Some(of_body) => body.left(of_body),
                None => body.ahead.push_front(Bytes::copy_from_slice(&head[taken..])),
            }
            let right = (unsent.taken(), finish);
            return Ok(Exchange::new(self, upstream, right, (body, is_head), taken > 0, closing));
        }
    }
}
