//! What the upstream sends back.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Response};

use super::{Arrived, Script};

/// The body of an answer, which may break off.
pub type AnswerBody = UnsyncBoxBody<Bytes, GoneAway>;

/// The upstream ends the connection without (the rest of) its answer.
#[derive(Clone, Copy, Debug)]
pub struct GoneAway;

impl fmt::Display for GoneAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream went away")
    }
}

impl std::error::Error for GoneAway {}

/// A plain answer.
pub fn plain(status: u16, body: impl Into<Bytes>) -> Response<AnswerBody> {
    // These have none, and hyper would send it in HTTP/2.
    let body = if [204, 304].contains(&status) { Bytes::new() } else { body.into() };
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).expect("a status is all there is to it")
}

/// The answer to a write whose body was this, or was not read.
pub fn of(script: &Script, head: &Arrived, body: Option<Bytes>) -> Result<Response<AnswerBody>, GoneAway> {
    if script.close {
        return Err(GoneAway);
    }
    if script.partial {
        return Ok(half());
    }
    if head.header("content-type").is_some_and(|value| value.starts_with("application/grpc")) {
        return Ok(grpc(body.unwrap_or_default()));
    }
    Ok(plain(script.status.unwrap_or(200), if body.is_some() { "applied\n" } else { "not read\n" }))
}

/// The answer to a read.
pub fn of_read(script: &Script, head: &Arrived, stored: Option<Bytes>) -> Result<Response<AnswerBody>, GoneAway> {
    if script.close || script.partial {
        return of(script, head, stored);
    }
    let status = if stored.is_some() { 200 } else { 404 };
    if head.method == "HEAD" {
        // Hyper sends the body of an answer to HEAD in HTTP/2, which no client takes.
        let mut answer = plain(script.status.unwrap_or(status), "");
        answer.headers_mut().insert("content-length", stored.unwrap_or_default().len().into());
        return Ok(answer);
    }
    Ok(plain(script.status.unwrap_or(status), stored.unwrap_or_default()))
}

/// A head that promises 100 bytes, ten of them, and the end.
fn half() -> Response<AnswerBody> {
    let pieces = stream::unfold(0, |piece| async move {
        if piece == 0 {
            return Some((Ok(Frame::data(Bytes::from_static(b"half of it"))), 1));
        }
        // What was written has to be on its way first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Err(GoneAway), 2))
    });
    let body = StreamBody::new(pieces).boxed_unsync();
    Response::builder().header("content-length", "100").body(body).expect("the header is well formed")
}

/// A head, half of a body, and the rest when `rest` says so.
pub fn split(rest: tokio::sync::oneshot::Receiver<()>) -> Response<AnswerBody> {
    let piece = |bytes: &'static [u8]| Ok(Frame::data(Bytes::from_static(bytes)));
    let first = stream::once(async move { piece(b"half, ") });
    let second = stream::once(async move {
        let _ = rest.await;
        piece(b"and applied\n")
    });
    let pieces = futures_util::StreamExt::chain(first, second);
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

/// The call's own messages, and the status that says all went well.
fn grpc(messages: Bytes) -> Response<AnswerBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(messages)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
    Response::builder().header("content-type", "application/grpc").body(body).expect("the header is well formed")
}
