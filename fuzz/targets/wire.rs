//! Bytes of a client through the whole proxy: what comes out at the target is what was let in, request for request, and
//! no reader can read it two ways. (A message hidden in another is the classic way around a proxy.)

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::LocalSet;

use crate::fence::mechanism::Mechanisms;
use crate::net::dial::Dialling;
use crate::net::{Closer, Dial, Stream};
use crate::protocol::http::tests::support::proxy;
use crate::protocol::{Binding, Role as _};

/// What fits between the two ends.
pub const ROOM: usize = 256 * 1024;
/// On a clock that goes on by itself when nothing happens.
pub const LONG: Duration = Duration::from_secs(3600);

const WORDS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "PUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/2.0",
    "Content-Length: 0\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    " chunked",
    "Connection: close\r\n",
    "Connection: Content-Length\r\n",
    "Connection: fencing-epoch\r\n",
    "Fencing-Epoch: 9\r\n",
    "Fencing_Epoch: 9\r\n",
    "Trailer: fencing-epoch\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: websocket\r\n",
    "Connection: upgrade\r\n",
    "\r\n\r\n",
    "\n\n",
    "0\r\n\r\n",
    "5;ext=\"\r\n",
    "0\r\nFencing-Epoch: 9\r\n\r\n",
    "ffffffffffffffff\r\n",
    "X: y\r\n z\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT a:80 ",
    "OPTIONS * ",
    "http://b/",
    "\u{b}",
    "\0",
];

#[test]
fn http1() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    crate::fuzz::engine::fuzz_for("http1", WORDS, 2_000, |input| {
        // By the direct path and by hyper's alone: the same requests come out, whichever it is.
        let [direct, hyper] = [true, false].map(|direct| LocalSet::new().block_on(&runtime, through(input, direct)));
        assert_eq!(direct.0, hyper.0);
        direct
    });
}

/// What came out at the target, and what the client was told.
async fn through(input: &[u8], direct: bool) -> (Vec<String>, Vec<String>) {
    let target = Rc::new(Target::default());
    let (http, role) = proxy(Mechanisms::all(), "target:80".into(), Some(Rc::clone(&target) as _), |change| {
        change.direct = direct;
    });
    let (mut client, server) = duplex(ROOM);
    let (peer, closer): (SocketAddr, _) = ("127.0.0.1:1".parse().expect("an address"), Closer::default());
    assert_eq!(role.bind(), Binding::default());
    let serving = tokio::task::spawn_local(Rc::clone(&http).serve(
        Stream::other(server),
        crate::protocol::Party::unnamed(peer, Binding::default()),
        closer.handle(),
    ));
    // It may have hung up before it has read all.
    let _ = client.write_all(input).await;
    let _ = client.shutdown().await;
    let mut answers = Vec::new();
    let _ = tokio::time::timeout(LONG, client.read_to_end(&mut answers)).await.expect("the client is left waiting");
    drop(client);
    tokio::time::timeout(LONG, serving).await.expect("the connection is never given up").expect("no panic");
    drop(http);
    // Until every connection to the target has seen its end.
    tokio::time::sleep(LONG).await;

    let connections = target.0.borrow();
    let mut out = Vec::new();
    for read in connections.iter().flat_map(|connection| &connection.requests) {
        match read {
            Ok(request) => out.push(request.clone()),
            Err(why) => panic!("the target got what can be read in two ways: {why}"),
        }
    }
    let admitted = role.paths.borrow();
    assert!(out.len() <= admitted.len(), "{} requests were let in, and {} came out", admitted.len(), out.len());
    let paths = out.iter().map(|request| request.path.as_str());
    assert!(
        is_part_of(paths, admitted.iter().map(String::as_str)),
        "{out:?} is not part of what was let in: {admitted:?}"
    );
    for request in &out {
        let expected: &[&str] =
            if ["GET", "HEAD"].contains(&request.method.as_str()) && !request.upgrade { &[] } else { &["42"] };
        assert_eq!(request.stamps, expected, "{request:?}");
    }
    let writes = role.finished.borrow().iter().filter(|(kind, _)| *kind == crate::protocol::Kind::Write).count();
    assert!(role.settled().len() <= writes, "{:?} for {writes} writes", role.settled());
    let statuses =
        String::from_utf8_lossy(&answers).split("HTTP/1.").skip(1).map(|rest| rest.chars().take(5).collect()).collect();
    (out.iter().map(Request::shape).collect(), statuses)
}

/// Whether the first is the second with some left out.
fn is_part_of<'a>(mut part: impl Iterator<Item = &'a str>, mut whole: impl Iterator<Item = &'a str>) -> bool {
    part.all(|one| whole.any(|other| other == one))
}

/// One request as the strictest reader has it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The request line and the fields, sorted; names in lower case.
    pub lines: Vec<String>,
    method: String,
    path: String,
    stamps: Vec<String>,
    upgrade: bool,
    body: Option<usize>,
}

impl Request {
    fn shape(&self) -> String {
        let method =
            if ["GET", "HEAD", "PUT"].contains(&self.method.as_str()) { self.method.as_str() } else { "other" };
        format!("{method} {} {:?}", self.upgrade, self.body.map(|length| length.min(4)))
    }
}

#[derive(Default)]
pub struct Connection {
    pub requests: Vec<Result<Request, String>>,
}

/// Takes every connection, and answers every request.
#[derive(Default)]
pub struct Target(pub Rc<RefCell<Vec<Connection>>>);

impl Dial for Target {
    fn dial<'a>(&'a self, _: &'a str, _: crate::net::Speaks) -> Dialling<'a> {
        let (near, far) = duplex(ROOM);
        self.0.borrow_mut().push(Connection::default());
        tokio::task::spawn_local(answer_all(far, Rc::clone(&self.0), self.0.borrow().len() - 1));
        Box::pin(async { Ok(Stream::other(near)) })
    }
}

async fn answer_all(mut stream: DuplexStream, seen: Rc<RefCell<Vec<Connection>>>, place: usize) {
    let mut bytes = Vec::new();
    loop {
        match strict::read(&bytes) {
            Ok(strict::Read::Whole(request, length)) => {
                bytes.drain(..length);
                seen.borrow_mut()[place].requests.push(Ok(request));
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                    return;
                }
                continue;
            }
            Ok(strict::Read::Part) => {}
            Err(why) => {
                let shown = String::from_utf8_lossy(&bytes).chars().take(400).collect::<String>();
                return seen.borrow_mut()[place].requests.push(Err(format!("{why}: {shown:?}")));
            }
        }
        match stream.read_buf(&mut bytes).await {
            // What is cut off in the middle is applied by nobody.
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// HTTP/1.1 with no freedom at all: RFC 9112 as a sender has to write it.
mod strict {
    use super::Request;

    pub enum Read {
        /// And how long it is.
        Whole(Request, usize),
        Part,
    }

    pub fn read(bytes: &[u8]) -> Result<Read, String> {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(Read::Part) };
        // A value may have bytes beyond ASCII: each is a character here.
        let head: String = bytes[..end].iter().copied().map(char::from).collect();
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("request line {line:?}"));
        };
        if method.is_empty() || !method.bytes().all(is_token) || !(target.starts_with('/') || target == "*") {
            return Err(format!("request line {line:?}"));
        }
        let path: Vec<u8> = target.split('?').next().unwrap_or_default().chars().map(|c| c as u8).collect();
        let path = String::from_utf8_lossy(&path).into_owned();
        let mut request = Request {
            lines: vec![line.into()],
            method: method.into(),
            path,
            stamps: Vec::new(),
            upgrade: false,
            body: None,
        };
        let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
        for line in lines {
            let (name, value) = line.split_once(": ").or(line.split_once(':')).ok_or(format!("field {line:?}"))?;
            if name.is_empty()
                || !name.bytes().all(is_token)
                || value.chars().any(|c| c.is_ascii_control() && c != '\t')
            {
                return Err(format!("field {line:?}"));
            }
            request.lines.push(format!("{}: {value}", name.to_ascii_lowercase()));
            match name.to_ascii_lowercase().replace('_', "-").as_str() {
                "content-length" => lengths.push(value),
                "transfer-encoding" => codings.push(value),
                "host" => hosts += 1,
                "upgrade" => request.upgrade = true,
                "fencing-epoch" => request.stamps.push(value.into()),
                _ => {}
            }
        }
        request.lines.sort_unstable();
        if hosts != 1 {
            return Err(format!("{hosts} Host fields"));
        }
        let after = &bytes[end + 4..];
        let length = match (&lengths[..], &codings[..]) {
            ([], []) => 0,
            ([length], []) => {
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits).ok_or(format!("length {length:?}"))?;
                request.body = Some(length);
                length
            }
            ([], ["chunked"]) => match chunked(after)? {
                Some((length, body)) => {
                    request.body = Some(body);
                    length
                }
                None => return Ok(Read::Part),
            },
            _ => return Err(format!("framing by {lengths:?} and {codings:?}")),
        };
        Ok(if after.len() < length { Read::Part } else { Read::Whole(request, end + 4 + length) })
    }

    /// How long the chunks are on the wire, and what is in them; `None` where they do not end yet.
    fn chunked(mut bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
        let (whole, mut body) = (bytes.len(), 0);
        loop {
            let Some(end) = find(bytes, b"\r\n") else { return Ok(None) };
            let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "a chunk's size is not text")?;
            let hex = !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
            let size = usize::from_str_radix(line, 16).ok().filter(|_| hex).ok_or(format!("chunk size {line:?}"))?;
            bytes = &bytes[end + 2..];
            if size == 0 {
                break;
            }
            let Some(rest) = bytes.get(size..) else { return Ok(None) };
            bytes = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [] | [b'\r'] => return Ok(None),
                _ => return Err("a chunk is longer than it says".into()),
            };
            body += size;
        }
        loop {
            let Some(end) = find(bytes, b"\r\n") else { return Ok(None) };
            let line = &bytes[..end];
            bytes = &bytes[end + 2..];
            if line.is_empty() {
                return Ok(Some((whole - bytes.len(), body)));
            }
            let name = String::from_utf8_lossy(line).split(':').next().unwrap_or_default().to_ascii_lowercase();
            if name.starts_with("fencing") || ["content-length", "transfer-encoding", "host"].contains(&name.as_str()) {
                return Err(format!("trailer {name:?}"));
            }
        }
    }

    fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
        bytes.windows(what.len()).position(|window| window == what)
    }

    fn is_token(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
    }
}
