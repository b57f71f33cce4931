//! A small blocking HTTP/1.1 client that does exactly what a test says: half a head, a body in pieces, a pause, a reset.
//!
//! It never retries, never follows, and adds nothing but `Host` and the body's framing.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::process::LONG;

/// An answer, read whole.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The final status.
    pub status: u16,
    /// The 1xx statuses that came before it.
    pub interim: Vec<u16>,
    /// The fields of the final head, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// The fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// The first field of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// Why epochgate refused; `None` where the answer is the target's own.
    pub fn refused(&self) -> Option<&str> {
        self.header("fencing-refused")
    }

    fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// One request on a connection of its own.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    Connection::open(to)?.request(method, path, headers, body)
}

/// A GET on a connection of its own.
pub fn get(from: SocketAddr, path: &str) -> io::Result<Answer> {
    request(from, "GET", path, &[], b"")
}

/// A PUT on a connection of its own.
pub fn put(to: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> io::Result<Answer> {
    request(to, "PUT", path, &[], body.as_ref())
}

/// One connection. Reads wait for at most [`LONG`], then fail.
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// What was read and not yet understood.
    read: Vec<u8>,
    /// The method of the request that is answered next: HEAD has no body.
    method: String,
}

impl Connection {
    /// Connects.
    pub fn open(to: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&to, LONG)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_write_timeout(Some(LONG))?;
        Ok(Connection { stream, peer: to, read: Vec::new(), method: String::new() })
    }

    /// Waits for each answer, and for each byte to leave, no longer than this.
    pub fn patience(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        self.stream.set_write_timeout(Some(limit))
    }

    /// Sends a whole request with a `Content-Length` (none for an empty body of GET, HEAD, DELETE) and reads the answer.
    /// Can be called again for as long as the connection lasts.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        if !body.is_empty() || !["GET", "HEAD", "DELETE"].contains(&method) {
            headers.push(("Content-Length", &length));
        }
        let mut bytes = self.head(method, path, &headers).into_bytes();
        bytes.extend_from_slice(body);
        // A refusal may come while the body is on its way: it is worth more than the error.
        let sent = self.stream.write_all(&bytes);
        self.answer().or_else(|error| sent.and(Err(error)))
    }

    /// Sends a head alone: `Host`, and what is given. The framing is the caller's.
    pub fn send_head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let head = self.head(method, path, headers);
        self.send(head.as_bytes())
    }

    /// Sends a head that announces a chunked body; [`Connection::send_chunk`] sends it, [`Connection::end_chunks`] ends it.
    pub fn begin_chunked(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut headers = headers.to_vec();
        headers.push(("Transfer-Encoding", "chunked"));
        self.send_head(method, path, &headers)
    }

    /// Sends one chunk.
    pub fn send_chunk(&mut self, data: &[u8]) -> io::Result<()> {
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\r\n");
        self.send(&bytes)
    }

    /// Ends a chunked body, with trailers.
    pub fn end_chunks(&mut self, trailers: &[(&str, &str)]) -> io::Result<()> {
        let mut end = "0\r\n".to_owned();
        for (name, value) in trailers {
            let _ = write!(end, "{name}: {value}\r\n");
        }
        end.push_str("\r\n");
        self.send(end.as_bytes())
    }

    /// Sends these bytes, whatever they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one answer whole, and the interim ones before it.
    ///
    /// # Errors
    /// `UnexpectedEof` where the connection ends first (a truncated body is an error, never an answer), `WouldBlock` or
    /// `TimedOut` after [`LONG`], `InvalidData` for what is not HTTP/1.1.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let head = self.until(b"\r\n\r\n")?;
            let (status, headers) = parse_head(&head)?;
            if (100..200).contains(&status) && status != 101 {
                answer.interim.push(status);
                continue;
            }
            (answer.status, answer.headers) = (status, headers);
            break;
        }
        let bodiless = self.method == "HEAD" || [101, 204, 304].contains(&answer.status);
        let is_chunked = answer.header("transfer-encoding").is_some_and(|value| value.ends_with("chunked"));
        let length = answer.header("content-length").map(|length| length.parse().map_err(|_| invalid(length)));
        match (bodiless, is_chunked, length.transpose()?) {
            (true, ..) => {}
            (_, true, _) => self.read_chunks(&mut answer)?,
            (_, _, Some(length)) => answer.body = self.exactly(length)?,
            // Without either, the body ends with the connection.
            (_, _, None) => {
                answer.body = std::mem::take(&mut self.read);
                self.stream.read_to_end(&mut answer.body)?;
            }
        }
        Ok(answer)
    }

    /// The next bytes as they come, for tunnels and half answers; empty at the end.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        if self.read.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.read))
    }

    /// Whether the other side ends the connection (or has reset it) within `limit` without another byte.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let _ = self.stream.set_read_timeout(Some(limit));
        let ended = match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0 && self.read.is_empty(),
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        };
        let _ = self.stream.set_read_timeout(Some(LONG));
        ended
    }

    /// Ends the sending side only.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Goes away without a goodbye: the other side gets a reset.
    pub fn reset(self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        Ok(())
    }

    /// This side's address: what the other side names as its peer.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Whether this answer leaves the connection open for another request.
    pub fn stays_open_after(&mut self, answer: &Answer) -> bool {
        !answer.is_last() && !self.ends_within(Duration::from_millis(1))
    }

    fn head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        method.clone_into(&mut self.method);
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            let _ = write!(head, "Host: {}\r\n", self.peer);
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head
    }

    fn read_chunks(&mut self, answer: &mut Answer) -> io::Result<()> {
        loop {
            let line = self.until(b"\r\n")?;
            let size = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            let size = std::str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            match size.ok_or_else(|| invalid("a chunk's size"))? {
                0 => break,
                size => answer.body.extend(self.exactly(size)?),
            }
            self.until(b"\r\n")?;
        }
        loop {
            let line = self.until(b"\r\n")?;
            if line.is_empty() {
                return Ok(());
            }
            answer.trailers.push(parse_field(&line)?);
        }
    }

    /// What comes before `end`, which is taken too.
    fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let rest = self.read.split_off(at + end.len());
                let mut found = std::mem::replace(&mut self.read, rest);
                found.truncate(at);
                return Ok(found);
            }
            self.fill_more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.fill_more()?;
        }
        let rest = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    fn fill_more(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the answer did")),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.read.extend_from_slice(&piece[..count]);
        Ok(count)
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
}

type Head = (u16, Vec<(String, String)>);

fn parse_head(head: &[u8]) -> io::Result<Head> {
    let mut lines = head.split(|&byte| byte == b'\n');
    let first = lines.next().map(String::from_utf8_lossy).unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    let fields: io::Result<Vec<_>> = lines.map(parse_field).collect();
    Ok((status.ok_or_else(|| invalid(&first))?, fields?))
}

fn parse_field(line: &[u8]) -> io::Result<(String, String)> {
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP/1.1: {what}"))
}
