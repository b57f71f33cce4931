//! A very small HTTP/1.1 server, for the target and the shops of the demo.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Orders are short.
const MAX_BODY: usize = 64 << 10;

/// An answer under way.
pub type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>>>>;

/// Serves on a free port of this host until the local set that it runs in ends. A body that comes in part is not
/// handed on.
pub async fn serve(handle: impl Fn(Request<Bytes>) -> Answering + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let handle = Rc::new(handle);
    tokio::task::spawn_local(async move {
        // A failed accept is about a connection that is gone already, or about descriptors: the next try tells.
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            let handle = Rc::clone(&handle);
            let service = service_fn(move |request| answer(Rc::clone(&handle), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A connection that breaks is the client's to notice.
            tokio::task::spawn_local(async move { connection.await.ok() });
        }
    });
    Ok(address)
}

async fn answer(
    handle: Rc<impl Fn(Request<Bytes>) -> Answering>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    Ok(match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => handle(Request::from_parts(head, body.to_bytes())).await,
        Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
    })
}

/// An answer of plain text.
pub fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
