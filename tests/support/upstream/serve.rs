//! The upstream's loop: connections in, heads and bodies read, scripts followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::answer::{self, AnswerBody, GoneAway};
use super::{Arrived, Shared};

/// What came of a body.
pub struct Received {
    pub body: Bytes,
    pub trailers: Vec<(String, String)>,
    pub complete: bool,
}

/// Serves every connection, each on a task of its own.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut first = [0; 3];
    while let Ok(count) = stream.peek(&mut first).await {
        match count {
            0 => return,
            1 | 2 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => break,
        }
    }
    let service = service_fn(move |request| {
        // On a task of its own: the connection's end must not drop a write that came whole.
        let serving = tokio::spawn(serve(Arc::clone(&shared), request));
        async { serving.await.unwrap_or(Err(GoneAway)) }
    });
    // How a connection ends is the client's business.
    let io = TokioIo::new(stream);
    if &first == b"PRI" {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<AnswerBody>, GoneAway> {
    let head = head_of(&request, shared.began.elapsed());
    let script = match shared.arrive(&head) {
        Ok(script) => script,
        Err(problem) => return Ok(answer::plain(400, problem)),
    };
    if script.early {
        return answer::of(&script, &head, None);
    }
    if script.eager {
        let answer = answer::of(&script, &head, None);
        tokio::spawn(async move {
            let received = receive(request, script.slow_read).await;
            let complete = received.complete;
            shared.wait(&script.apply).await;
            shared.commit(head, received, complete);
        });
        return answer;
    }
    shared.wait(&script.read).await;
    let received = receive(request, script.slow_read).await;
    if !head.is_write() {
        let stored = shared.lock().stored.get(&head.path).cloned();
        shared.wait(&script.answer).await;
        return answer::of_read(&script, &head, stored);
    }
    if !received.complete {
        shared.commit(head, received, false);
        return Err(GoneAway);
    }
    let body = received.body.clone();
    shared.wait(&script.apply).await;
    if let Some(step) = script.late.clone() {
        let answer = answer::of(&script, &head, Some(body));
        tokio::spawn(async move {
            shared.wait(&step).await;
            shared.commit(head, received, true);
        });
        return answer;
    }
    if let Some(step) = script.split.clone() {
        let (send_rest, rest) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            shared.wait(&step).await;
            shared.commit(head, received, true);
            // Whoever reads the answer may be gone.
            let _ = send_rest.send(());
        });
        return Ok(answer::split(rest));
    }
    if !script.skip {
        shared.commit(head.clone(), received, true);
    }
    shared.wait(&script.answer).await;
    answer::of(&script, &head, Some(body))
}

fn head_of(request: &Request<Incoming>, at: Duration) -> Arrived {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Arrived {
        at,
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        http2: request.version() == Version::HTTP_2,
    }
}

/// Reads a body, `slow` before each piece. A reset that looks like an end (RST_STREAM with NO_ERROR, to hyper) is none.
async fn receive(request: Request<Incoming>, slow: Duration) -> Received {
    let is_http2 = request.version() == Version::HTTP_2;
    let may_be_empty = request.method() == Method::GET || request.method() == Method::HEAD;
    let mut incoming = request.into_body();
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    let complete = loop {
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        match incoming.frame().await {
            None => break !is_http2 || may_be_empty || incoming.is_end_stream(),
            Some(Err(_)) => break false,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => {
                    for (name, value) in frame.trailers_ref().into_iter().flatten() {
                        trailers.push((name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
                    }
                }
            },
        }
    };
    Received { body: body.into(), trailers, complete }
}
