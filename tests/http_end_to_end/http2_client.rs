//! A small HTTP/2 client (prior knowledge) that waits for each answer.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::support::client::Answer;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One connection.
pub struct Http2 {
    runtime: Runtime,
    send: SendRequest<Body>,
}

impl Http2 {
    /// Connects.
    pub fn open(to: SocketAddr) -> Http2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(to).await.expect("somebody listens");
            stream.set_nodelay(true).expect("it is open");
            let (send, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 is spoken");
            tokio::spawn(connection);
            send
        });
        Http2 { runtime, send }
    }

    /// Sends one request, in pieces of 16 KiB and with these trailers, and waits for the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        trailers: &[(&str, &str)],
    ) -> hyper::Result<Answer> {
        let mut frames: Vec<Result<Frame<Bytes>, Infallible>> =
            body.chunks(16 * 1024).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        if !trailers.is_empty() {
            frames.push(Ok(Frame::trailers(map(trailers))));
        }
        let mut request = Request::builder().method(method).uri(format!("http://target.test{path}"));
        request.headers_mut().expect("method and path are well formed").extend(map(headers));
        let body: Body = match frames.is_empty() {
            true => http_body_util::Empty::new().boxed_unsync(),
            false => StreamBody::new(stream::iter(frames)).boxed_unsync(),
        };
        let request = request.body(body).expect("it is well formed");
        let send = &mut self.send;
        self.runtime.block_on(async {
            let answer = send.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().map(fields).unwrap_or_default();
            let (status, headers) = (head.status.as_u16(), fields(&head.headers));
            Ok(Answer { status, interim: Vec::new(), headers, body: body.to_bytes().to_vec(), trailers })
        })
    }
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let pairs = fields.iter().map(|(name, value)| {
        (HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"))
    });
    pairs.collect()
}

fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
