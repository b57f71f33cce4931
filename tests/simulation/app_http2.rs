//! The service as a client that speaks HTTP/2: several writes at a time on one connection, through hyper.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use epochgate::fence::Outcome;
use futures_util::future::join_all;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::sleep;

use crate::app::{App, Ended, Op, understand};
use crate::socket::Socket;

/// A body whose parts come when they come.
type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone, Copy)]
struct Spawn;

impl<F: Future + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

impl App {
    /// Writes on one connection, a few operations at a time.
    pub async fn over_http2(self: &Rc<App>, socket: Socket, target: u8) -> io::Result<()> {
        let (sender, connection) = handshake(Spawn, TokioIo::new(socket)).await.map_err(io::Error::other)?;
        let driver = tokio::task::spawn_local(connection);
        for _ in 0..=self.below(4) {
            let together = self.below(3) + 1;
            let writes = (0..together).map(|_| {
                let op = self.op(target);
                let (this, sender) = (Rc::clone(self), sender.clone());
                async move { this.send(&op, |name| this.exchange_http2(sender, &op, name)).await.outcome }
            });
            let outcomes = join_all(writes).await;
            if sender.is_closed() || !outcomes.contains(&Outcome::Answered) {
                break;
            }
            sleep(self.pause()).await;
        }
        drop(sender);
        // A connection that the other side does not close in time is dropped.
        let abort = driver.abort_handle();
        if tokio::time::timeout(Duration::from_secs(1), driver).await.is_err() {
            abort.abort();
        }
        Ok(())
    }

    async fn exchange_http2(&self, mut sender: SendRequest<Body>, op: &Op, name: String) -> io::Result<Ended> {
        let stalls = !self.calm.get() && self.percent(10);
        let pause = if stalls { self.millis(50, 2_500) } else { Duration::ZERO };
        let at = usize::try_from(self.below(op.length as u64 + 1)).unwrap_or(0);
        let breaks = stalls && self.percent(30);
        let request = Request::put(format!("http://shop/{}/ops/{name}", op.resource))
            .header("x-op", &name)
            .header("x-length", op.length)
            .header("content-length", op.length)
            .body(body(op.length, at, pause))
            .map_err(io::Error::other)?;
        let exchange = async {
            let answer: Response<Incoming> = sender.send_request(request).await.map_err(io::Error::other)?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
            Ok(understand(head.status.as_u16(), field, &body))
        };
        if breaks {
            // The stream is reset with the body half sent.
            return match tokio::time::timeout(pause / 2, exchange).await {
                Ok(ended) => ended,
                Err(_) => Ok(Ended::unknown("broke off")),
            };
        }
        exchange.await
    }
}

/// So many bytes, with a pause after some of them.
fn body(length: usize, at: usize, pause: Duration) -> Body {
    let parts = [(Duration::ZERO, at), (pause, length - at)].into_iter().filter(|(_, part)| *part > 0);
    let parts = stream::unfold(parts, |mut parts| async {
        let (pause, part) = parts.next()?;
        if !pause.is_zero() {
            sleep(pause).await;
        }
        Some((Ok(Frame::data(Bytes::from(vec![b'x'; part]))), parts))
    });
    StreamBody::new(parts).boxed_unsync()
}
