//! A client of Redis that does exactly what it is told, and shows replies as text.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub fn open(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("an option");
        stream.set_nodelay(true).expect("an option");
        Client { stream, read: Vec::new() }
    }

    /// Sends a command: words between blanks.
    #[track_caller]
    pub fn send(&mut self, command: &str) {
        self.send_words(&command.split(' ').collect::<Vec<_>>());
    }

    #[track_caller]
    pub fn send_words(&mut self, words: &[&str]) {
        let mut bytes = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| bytes += &format!("${}\r\n{word}\r\n", word.len()));
        self.send_bytes(bytes.as_bytes());
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it is open");
    }

    /// Sends a command and returns the reply.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.reply()
    }

    /// The next reply: `OK`, `READONLY …`, `(nil)`, `[a, 1]`.
    #[track_caller]
    pub fn reply(&mut self) -> String {
        self.try_reply().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub fn try_reply(&mut self) -> io::Result<String> {
        let line = self.line()?;
        let (form, rest) = line.split_at(1);
        let many = |times: usize| rest.parse::<usize>().map_or(0, |many| many * times);
        match form {
            "$" | "=" if rest != "-1" => {
                let length = many(1);
                let text = self.exactly(length + 2)?;
                Ok(text[..length].to_owned())
            }
            "*" | "~" | ">" | "%" if rest != "-1" => {
                let elements: io::Result<Vec<String>> =
                    (0..many(if form == "%" { 2 } else { 1 })).map(|_| self.try_reply()).collect();
                Ok(format!("{}[{}]", if form == ">" { ">" } else { "" }, elements?.join(", ")))
            }
            "$" | "*" | "_" => Ok("(nil)".to_owned()),
            _ => Ok(rest.to_owned()),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
                self.read.drain(..end + 2);
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, bytes: usize) -> io::Result<String> {
        while self.read.len() < bytes {
            self.more()?;
        }
        let text = String::from_utf8_lossy(&self.read[..bytes]).into_owned();
        self.read.drain(..bytes);
        Ok(text)
    }

    fn more(&mut self) -> io::Result<()> {
        let mut space = [0; 16 * 1024];
        match self.stream.read(&mut space)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            more => {
                self.read.extend_from_slice(&space[..more]);
                Ok(())
            }
        }
    }

    /// Whether the other side has ended it, with nothing more to say.
    pub fn has_ended(&mut self) -> bool {
        self.try_reply().is_err()
    }
}
