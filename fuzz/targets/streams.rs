//! HTTP/2 streams of a client through the whole proxy, to a target that speaks HTTP/1.1: the same requests come out,
//! field for field, whether they take the direct way or hyper's.

use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use http::header::{HeaderName, HeaderValue};
use tokio::io::duplex;
use tokio::task::LocalSet;

use super::wire::{LONG, ROOM, Target};
use crate::config::resolved::UpstreamVersion;
use crate::fence::mechanism::Mechanisms;
use crate::net::{Closer, Stream};
use crate::protocol::Binding;
use crate::protocol::http::tests::support::proxy;

const WORDS: &[&str] = &[
    "PUT /a\n",
    "GET /a?b\n",
    "HEAD /\n",
    "OPTIONS *\n",
    "content-length: 3\n",
    "content-length: 0\n",
    "content-length: 03\n",
    "cookie: a=1\n",
    "fencing-epoch: 7\n",
    "fencing_epoch: 7\n",
    "fencing-expect: 7\n",
    "x-forwarded-for: 1.2.3.4\n",
    "te: trailers\n",
    "trailer: x\n",
    "expect: 100-continue\n",
    "host: db\n",
    "host: other\n",
    "proxy-authorization: x\n",
    "http2-settings: x\n",
    "content-type: application/grpc\n",
    "content-type: application/grpc-web\n",
    "\nabc",
    "\"",
    "%2f",
    "#",
];

#[test]
fn http2() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    crate::fuzz::engine::fuzz_for("http2", WORDS, 1_000, |input| {
        let [direct, hyper] = [true, false].map(|direct| LocalSet::new().block_on(&runtime, through(input, direct)));
        assert_eq!(direct, hyper);
        direct.map(|(out, status)| (out.len(), out.first().map_or(0, Vec::len), status))
    });
}

/// The input as a request: method and target, a field a line, an empty line and a body.
fn request(input: &[u8]) -> Option<(Request<()>, &[u8])> {
    let end = input.windows(2).position(|window| window == b"\n\n");
    let (head, body) = end.map_or((input, &b""[..]), |end| (&input[..end], &input[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(format!("http://db{target}"));
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some((request.body(()).ok()?, body))
}

/// What came out at the target, and what the client was told; `None` where it is no request.
async fn through(input: &[u8], direct: bool) -> Option<(Vec<Vec<String>>, Option<u16>)> {
    let (request, body) = request(input)?;
    let target = Rc::new(Target::default());
    let (http, role) = proxy(Mechanisms::all(), "target:80".into(), Some(Rc::clone(&target) as _), |change| {
        change.direct = direct;
        change.upstream.version = UpstreamVersion::Http1;
    });
    let (client, server) = duplex(ROOM);
    let (peer, closer) = ("127.0.0.1:1".parse::<std::net::SocketAddr>().expect("an address"), Closer::default());
    let serving = tokio::task::spawn_local(http.serve(
        Stream::other(server),
        crate::protocol::Party::unnamed(peer, Binding::default()),
        closer.handle(),
    ));
    let (mut sender, connection) = h2::client::handshake(client).await.expect("both speak HTTP/2");
    let connection = tokio::task::spawn_local(connection);
    let mut status = None;
    if let Ok((answer, mut upload)) = sender.send_request(request, body.is_empty()) {
        if !body.is_empty() {
            let _ = upload.send_data(Bytes::copy_from_slice(body), true);
        }
        let answer = tokio::time::timeout(LONG, answer).await.expect("the client is left waiting");
        status = answer.ok().map(|answer| answer.status().as_u16());
    }
    drop(sender);
    let _ = tokio::time::timeout(LONG, connection).await.expect("the connection ends");
    tokio::time::timeout(LONG, serving).await.expect("the connection is never given up").expect("no panic");
    // Until every connection to the target has seen its end.
    tokio::time::sleep(LONG).await;
    let mut out = Vec::new();
    for read in target.0.borrow().iter().flat_map(|connection| &connection.requests) {
        match read {
            Ok(request) => out.push(request.lines.clone()),
            Err(why) => panic!("the target got what can be read in two ways: {why}"),
        }
    }
    assert!(out.len() <= role.paths.borrow().len(), "more came out than was let in");
    Some((out, status))
}
