//! PUTs over HTTP/2 without TLS, for counts: as many streams at once as h2load opens in `http2`. It measures no time.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

use crate::callgrind::CONNECTIONS;

const STREAMS: usize = 10;

static BODY: [u8; 100] = [b'.'; 100];

/// Sends so many PUTs with a body of 100 bytes.
///
/// # Errors
/// What went wrong.
pub fn send(to: SocketAddr, fields: &str, count: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let tasks = LocalSet::new();
    let all = tasks.run_until(all(to, parse(fields), count));
    let limited = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(300), all).await });
    limited.map_err(|_| "no answer within five minutes".to_owned())?
}

/// Fields as they stand in HTTP/1.1, each with its line end.
fn parse(fields: &str) -> HeaderMap {
    let pairs = fields.lines().filter_map(|line| line.split_once(": "));
    let field =
        |(name, value): (&str, &str)| Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?));
    pairs.filter_map(field).collect()
}

async fn all(to: SocketAddr, fields: HeaderMap, count: u64) -> Result<(), String> {
    let left = Rc::new(Cell::new(count));
    let mut streams = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
        // Slower without, and no more than that.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = client::handshake(stream).await.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(connection);
        for _ in 0..STREAMS {
            streams.spawn_local(one_after_the_other(sender.clone(), to, fields.clone(), Rc::clone(&left)));
        }
    }
    while let Some(ended) = streams.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn one_after_the_other(
    mut sender: SendRequest<Bytes>,
    to: SocketAddr,
    fields: HeaderMap,
    left: Rc<Cell<u64>>,
) -> Result<(), String> {
    while left.get() > 0 {
        left.set(left.get() - 1);
        let request = http::Request::put(format!("http://{to}/orders/7")).body(());
        let mut request = request.map_err(|error| error.to_string())?;
        *request.headers_mut() = fields.clone();
        // As h2load says it; a stream that does not takes another path, through hyper's client.
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(BODY.len()));
        sender = sender.ready().await.map_err(|error| error.to_string())?;
        let (answer, mut body) = sender.send_request(request, false).map_err(|error| error.to_string())?;
        body.send_data(Bytes::from_static(&BODY), true).map_err(|error| error.to_string())?;
        let answer = answer.await.map_err(|error| error.to_string())?;
        if answer.status() != 200 {
            return Err(format!("answered {}", answer.status()));
        }
        let mut body = answer.into_body();
        while let Some(bytes) = body.data().await {
            let count = bytes.map_err(|error| error.to_string())?.len();
            body.flow_control().release_capacity(count).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
