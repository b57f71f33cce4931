//! The request that is sent, and just enough HTTP/1.1 to know where a message ends.

use std::net::SocketAddr;

/// What long bodies are made of.
pub static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// A request: the head and a short body as they go out in one write, and how much of a long body follows.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    rest: u64,
}

impl Request {
    /// A PUT with seven fields, as a client of a service would send, and `more` of them (each with its line end).
    pub fn put(to: SocketAddr, body: u64, more: &str) -> Request {
        Request::put_at("/orders/7", to, body, more)
    }

    /// The same to another path.
    pub fn put_at(path: &str, to: SocketAddr, body: u64, more: &str) -> Request {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: compare\r\nAccept: */*\r\n\
             Content-Type: application/octet-stream\r\nX-Request-Id: 5c2f0a5e-8a5b-4b58-9d0c-1b7c7d3f9a11\r\n\
             {more}Content-Length: {body}\r\n\r\n"
        );
        Request::of(head, body)
    }

    /// A GET with `more` fields (each with its line end), for a first answer.
    pub fn get(to: SocketAddr, more: &str) -> Request {
        Request::of(format!("GET /orders/7 HTTP/1.1\r\nHost: {to}\r\n{more}\r\n"), 0)
    }

    fn of(head: String, body: u64) -> Request {
        let mut bytes = head.into_bytes();
        let first = body.min(ZEROS.len() as u64);
        bytes.resize(bytes.len() + first as usize, 0);
        Request { bytes, rest: body - first }
    }

    /// How long it is in all.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64 + self.rest
    }

    /// The next bytes when `sent` of it are out.
    pub fn after<'a>(&'a self, sent: u64, zeros: &'a [u8]) -> &'a [u8] {
        match self.bytes.get(sent as usize..) {
            Some(bytes) if !bytes.is_empty() => bytes,
            _ => &zeros[..(zeros.len() as u64).min(self.length() - sent) as usize],
        }
    }
}

/// What the bytes so far are.
pub enum Answer {
    /// Not all of it.
    Part,
    /// A whole 200, and nothing more.
    Whole,
    /// A whole answer with another status.
    Other(String),
    /// Something else.
    Bad(String),
}

/// Looks at what came for one request.
pub fn parse_answer(bytes: &[u8]) -> Answer {
    let Some(head) = head_length(bytes) else { return Answer::Part };
    let Some(length) = content_length(&bytes[..head]) else {
        return Answer::Bad(String::from_utf8_lossy(bytes).replace("\r\n", " | "));
    };
    match (bytes.len() as u64).cmp(&(head as u64 + length)) {
        std::cmp::Ordering::Less => Answer::Part,
        std::cmp::Ordering::Equal if bytes.get(9..12) == Some(b"200") => Answer::Whole,
        std::cmp::Ordering::Equal => Answer::Other(String::from_utf8_lossy(bytes).replace("\r\n", " | ")),
        std::cmp::Ordering::Greater => Answer::Bad("more than one answer".into()),
    }
}

/// How long the head is, with the empty line; `None` while it is not whole.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// What a head says of its body.
pub fn content_length(head: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|&byte| byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}
