//! The way of a write's answer from its own task to the client's connection.
//!
//! The writing end outlives the client: what it writes for one that is gone is dropped.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Response;
use http_body::Frame;

use super::body::{Answer, Broken};

/// So much waits for a client before the target's answer is read on.
const SLOW: usize = 64 * 1024;
/// So much waits for a client where the target's answer is read without waiting for it.
const HURRIED: usize = 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

enum Head {
    Alone(Response<Answer>),
    OfBody(Response<()>),
}

#[derive(Default)]
struct Shared {
    head: Option<Head>,
    waiting: VecDeque<Frame<Bytes>>,
    bytes: usize,
    end: Option<End>,
    client_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

type Pipe = Rc<RefCell<Shared>>;

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A new pipe.
pub fn pipe() -> (Writer, Reader) {
    let shared = Pipe::default();
    (Writer(Rc::clone(&shared)), Reader(shared))
}

/// The task's end. Dropped before [`Writer::finish`], it leaves the client with a broken answer.
pub struct Writer(Pipe);

impl Writer {
    /// Hands the whole answer over. Its body is its own: nothing more is to be written.
    pub fn answer(&self, answer: Response<Answer>) {
        self.begin(Head::Alone(answer));
    }

    /// Hands the head over; the body follows through the pipe.
    pub fn head(&self, head: Response<()>) {
        self.begin(Head::OfBody(head));
    }

    fn begin(&self, head: Head) {
        let reader = {
            let mut shared = self.0.borrow_mut();
            shared.head = Some(head);
            shared.reader.take()
        };
        wake(reader);
    }

    /// Ready when the client wants more, or is gone.
    pub fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.client_gone || shared.bytes < SLOW {
            return Poll::Ready(());
        }
        shared.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Ready when the client is gone.
    pub fn poll_gone(&self, context: &Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.client_gone {
            return Poll::Ready(());
        }
        shared.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Hands a part of the body over, room or not. A client that has left too much waiting is cut: its answer ends
    /// broken, and what follows is dropped.
    pub fn frame(&self, frame: Frame<Bytes>) {
        let (reader, dropped) = {
            let mut shared = self.0.borrow_mut();
            if shared.client_gone || shared.end.is_some() {
                (None, VecDeque::new())
            } else {
                shared.bytes += frame.data_ref().map_or(0, Bytes::len);
                shared.waiting.push_back(frame);
                let mut dropped = VecDeque::new();
                if shared.bytes > HURRIED {
                    shared.end = Some(End::Broken);
                    dropped = std::mem::take(&mut shared.waiting);
                }
                (shared.reader.take(), dropped)
            }
        };
        drop(dropped);
        wake(reader);
    }

    /// The body is whole.
    pub fn finish(self) {
        self.end(End::Whole);
    }

    fn end(&self, end: End) {
        let reader = {
            let mut shared = self.0.borrow_mut();
            shared.end.get_or_insert(end);
            shared.reader.take()
        };
        wake(reader);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(End::Broken);
    }
}

/// The client's end.
pub struct Reader(Pipe);

impl Reader {
    /// The answer; `None` where the task ended without one. Dropping the future, as dropping the answer, tells the
    /// task that the client is gone.
    pub async fn answer(self) -> Option<Response<Answer>> {
        let head = poll_fn(|context| {
            let mut shared = self.0.borrow_mut();
            match shared.head.take() {
                Some(head) => Poll::Ready(Some(head)),
                None if shared.end.is_some() => Poll::Ready(None),
                None => {
                    shared.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        match head? {
            Head::Alone(answer) => Some(answer),
            Head::OfBody(head) => Some(head.map(|()| Answer::piped(self))),
        }
    }

    /// The next part of the body.
    pub fn poll_frame(&self, context: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let (frame, writer) = {
            let mut shared = self.0.borrow_mut();
            match (shared.waiting.pop_front(), shared.end) {
                (Some(frame), _) => {
                    shared.bytes -= frame.data_ref().map_or(0, Bytes::len);
                    (Some(Ok(frame)), shared.writer.take())
                }
                (None, Some(End::Whole)) => (None, None),
                (None, Some(End::Broken)) => (Some(Err(Broken)), None),
                (None, None) => {
                    shared.reader = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        wake(writer);
        Poll::Ready(frame)
    }

    /// Whether all of the body has been read.
    pub fn is_at_end(&self) -> bool {
        let shared = self.0.borrow();
        shared.waiting.is_empty() && shared.end == Some(End::Whole)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (dropped, writer) = {
            let mut shared = self.0.borrow_mut();
            shared.client_gone = true;
            shared.bytes = 0;
            ((shared.head.take(), std::mem::take(&mut shared.waiting)), shared.writer.take())
        };
        drop(dropped);
        wake(writer);
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use std::pin::Pin;

    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn data(bytes: usize) -> Frame<Bytes> {
        Frame::data(Bytes::from(vec![0; bytes]))
    }

    async fn streaming() -> (Writer, Answer) {
        let (writer, reader) = pipe();
        writer.head(Response::new(()));
        (writer, reader.answer().await.expect("a head was written").into_body())
    }

    #[tokio::test]
    async fn a_slow_client_is_waited_for_and_a_gone_one_is_not() {
        let (writer, answer) = streaming().await;
        assert!(writer.poll_room(&context()).is_ready());
        writer.frame(data(SLOW));
        assert!(writer.poll_room(&context()).is_pending());
        assert!(writer.poll_gone(&context()).is_pending());
        drop(answer);
        assert!(writer.poll_gone(&context()).is_ready() && writer.poll_room(&context()).is_ready());
        writer.frame(data(HURRIED * 2));
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_the_end_is_told_from_a_break() {
        let (writer, mut answer) = streaming().await;
        writer.frame(data(3));
        writer.finish();
        let frame = Pin::new(&mut answer).poll_frame(&mut context());
        assert!(matches!(frame, Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|d| d.len() == 3)));
        assert!(answer.is_end_stream());

        let (writer, mut answer) = streaming().await;
        drop(writer);
        assert!(!answer.is_end_stream());
        assert!(matches!(Pin::new(&mut answer).poll_frame(&mut context()), Poll::Ready(Some(Err(_)))));
    }

    #[tokio::test]
    async fn a_client_that_leaves_too_much_waiting_is_cut() {
        let (writer, mut answer) = streaming().await;
        writer.frame(data(HURRIED));
        writer.frame(data(1));
        writer.frame(data(1));
        assert!(matches!(Pin::new(&mut answer).poll_frame(&mut context()), Poll::Ready(Some(Err(_)))));
        writer.finish();
        assert!(!answer.is_end_stream());
    }

    #[tokio::test]
    async fn a_task_that_ends_without_an_answer_is_noticed() {
        let (writer, reader) = pipe();
        drop(writer);
        assert!(reader.answer().await.is_none());
    }
}
