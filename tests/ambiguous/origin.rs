//! A target that believes nothing: it reads requests as strictly as RFC 9112 lets anybody, keeps every byte, and holds
//! against the sender whatever two readers could read two ways.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request as it came, whole or not.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its first line.
    pub line: String,
    /// Its fields, as they were spelt.
    pub fields: Vec<(String, String)>,
    /// Its body, without its framing.
    pub body: Vec<u8>,
    /// The fields after a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Whether it came to its end.
    pub whole: bool,
    /// What a strict reader has against it.
    pub faults: Vec<String>,
    /// Every byte of it.
    pub raw: Vec<u8>,
}

impl Record {
    /// The second word of its first line.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        let method = self.line.split(' ').next().unwrap_or_default();
        !["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method) || self.values("x-http-method-override").count() > 0
    }

    /// The values of a field, in either spelling of `-`.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |other: &str| other.to_ascii_lowercase().replace('_', "-") == name;
        self.fields.iter().filter(move |(other, _)| same(other)).map(|(_, value)| value.as_str())
    }
}

/// A running origin. Its threads end with its clients.
pub struct Origin {
    pub address: SocketAddr,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Origin {
    /// Starts one on a free port.
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, records) = (listener.local_addr().unwrap(), Arc::default());
        let of_thread = Arc::clone(&records);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let records = Arc::clone(&of_thread);
                thread::spawn(move || Reader { stream, read: Vec::new(), now: Record::default() }.serve(&records));
            }
        });
        Origin { address, records }
    }

    /// Everything that came, in the order in which it was noticed.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }
}

/// One connection.
struct Reader {
    stream: TcpStream,
    /// What has come and was not taken yet.
    read: Vec<u8>,
    now: Record,
}

impl Reader {
    fn serve(mut self, records: &Mutex<Vec<Record>>) {
        let _ = self.stream.set_nodelay(true);
        loop {
            let began = self.fill().unwrap_or(0) > 0 || !self.read.is_empty();
            if !began {
                return;
            }
            let ended = self.request();
            let mut record = std::mem::take(&mut self.now);
            record.whole = ended.is_ok() && record.faults.is_empty();
            let (whole, target) = (record.whole, record.target().to_owned());
            records.lock().unwrap().push(record);
            if !whole {
                return;
            }
            let answer = format!("HTTP/1.1 200 OK\r\nx-path: {target}\r\ncontent-length: 0\r\n\r\n");
            if self.stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// Reads one request; an error where it breaks off, or cannot be read on.
    fn request(&mut self) -> io::Result<()> {
        self.now.line = self.text_line()?;
        let words: Vec<&str> = self.now.line.split(' ').collect();
        let plain = matches!(words[..], [method, target, "HTTP/1.1"]
            if is_token(method) && !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic()));
        if !plain {
            return self.fault("its first line");
        }
        self.now.fields = self.fields()?;
        if self.now.values("host").count() != 1 {
            self.now.faults.push("not one Host".to_owned());
        }
        let lengths: Vec<String> = self.now.values("content-length").map(str::to_owned).collect();
        let codings: Vec<String> = self.now.values("transfer-encoding").map(str::to_owned).collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(()),
            ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| io::Error::other("too long"))?;
                self.now.body = self.exactly(length)?;
                Ok(())
            }
            ([], [coding]) if coding == "chunked" => self.chunks(),
            other => self.fault(&format!("its framing is {other:?}")),
        }
    }

    fn chunks(&mut self) -> io::Result<()> {
        loop {
            let size = self.text_line()?;
            let plain = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            let Ok(size) = usize::from_str_radix(&size, 16) else { return self.fault("a chunk's size") };
            if !plain {
                return self.fault("a chunk's size");
            }
            if size == 0 {
                self.now.trailers = self.fields()?;
                return Ok(());
            }
            let data = self.exactly(size)?;
            self.now.body.extend(data);
            if !self.text_line()?.is_empty() {
                return self.fault("a chunk's end");
            }
        }
    }

    /// Fields up to the empty line.
    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.text_line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            match line.split_once(':') {
                Some((name, value))
                    if is_token(name) && !value.contains(|c: char| c != '\t' && c.is_ascii_control()) =>
                {
                    fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
                }
                _ => self.fault(&format!("the field {line:?}"))?,
            }
        }
    }

    fn fault(&mut self, what: &str) -> io::Result<()> {
        self.now.faults.push(what.to_owned());
        Err(io::Error::other(what.to_owned()))
    }

    /// A line that ends with CRLF and holds neither of the two; each byte is one character.
    fn text_line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(at) = self.read.iter().position(|byte| *byte == b'\n') {
                break at;
            }
            self.more()?;
        };
        let line: String = self.take(end + 1).into_iter().map(char::from).collect();
        match line.strip_suffix("\r\n") {
            Some(line) if !line.contains('\r') => Ok(line.to_owned()),
            _ => self.fault(&format!("the line end of {line:?}")).map(|()| line),
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.more()?;
        }
        Ok(self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.read.split_off(length);
        let taken = std::mem::replace(&mut self.read, rest);
        self.now.raw.extend_from_slice(&taken);
        taken
    }

    fn more(&mut self) -> io::Result<()> {
        if self.fill()? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.read.extend_from_slice(&piece[..count]);
        Ok(count)
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
