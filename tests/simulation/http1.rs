//! As much of HTTP/1.1 as the world's own clients and targets need: they must be able to break off anywhere, which a
//! library would not let them.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::socket::Socket;

/// A message's head.
#[derive(Debug)]
pub struct Head {
    /// The first line.
    pub first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The value of a field, by its name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A field as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// An answer's status.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn parse(text: &str) -> Option<Head> {
        let mut lines = text.split("\r\n");
        let first = lines.next()?.to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some(Head { first, fields: lines.filter(|line| !line.is_empty()).map(field).collect::<Option<_>>()? })
    }
}

/// A connection that messages are read from and written to.
pub struct Wire {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn new(socket: Socket) -> Wire {
        Wire { socket, buffer: Vec::new() }
    }

    /// Its connection.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// How many bytes were read that no message has needed yet.
    pub fn ahead(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Closes it by reset.
    pub fn abort(self) {
        self.socket.abort();
    }

    /// Writes all of it.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    async fn more(&mut self) -> io::Result<usize> {
        let mut space = [0; 2048];
        let read = self.socket.read(&mut space).await?;
        self.buffer.extend_from_slice(&space[..read]);
        Ok(read)
    }

    /// The next message's head; none where the peer has said all.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let text: Vec<u8> = self.buffer.drain(..end + 4).collect();
                let head = String::from_utf8(text).ok().and_then(|text| Head::parse(&text));
                return head.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
            if self.more().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The body that follows a head.
    pub async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        if head.field("transfer-encoding") != Some("chunked") {
            let length = usize::try_from(head.number("content-length").unwrap_or(0)).unwrap_or(0);
            return self.exactly(length).await;
        }
        let mut body = Vec::new();
        loop {
            let size = loop {
                if let Some(end) = find(&self.buffer, b"\r\n") {
                    let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                    let text = String::from_utf8_lossy(&line[..end]).into_owned();
                    break usize::from_str_radix(&text, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                }
                self.must_have_more().await?;
            };
            let chunk = self.exactly(size + 2).await?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.must_have_more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn must_have_more(&mut self) -> io::Result<()> {
        if self.more().await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
