//! A connection of the sidecar's own to a Redis server: logs in, asks, and reads whole replies.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::value::Value;
use crate::config::resolved::Control;
use crate::config::secrets;
use crate::net::Stream;

/// A connection over which one question is asked at a time. It speaks RESP2. Dropped in the middle of a question, it is of no
/// use any more: drop it whole.
pub struct Client {
    stream: Stream,
    read: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection does not work.
    Connection(String),
    /// The server says no, in these words.
    Refused(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Connection(why) => f.write_str(why),
            Failure::Refused(why) => write!(f, "the server says {why:?}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Connection(error.to_string())
    }
}

impl Client {
    /// Over a connection on which nothing was said yet.
    pub fn new(stream: Stream) -> Client {
        Client { stream, read: Vec::new() }
    }

    /// Asks, and reads the reply.
    ///
    /// # Errors
    /// Also where the reply is an error.
    pub async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Failure> {
        let mut request = Zeroizing::new(format!("*{}\r\n", words.len()).into_bytes());
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        loop {
            let read = Value::read(&self.read).map_err(|why| Failure::Connection(why.to_owned()))?;
            if let Some((value, length)) = read {
                self.read.drain(..length);
                return match value {
                    Value::Error(error) => Err(Failure::Refused(error)),
                    value => Ok(value),
                };
            }
            self.read.reserve(16 * 1024);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(Failure::Connection("the server closed the connection".into()));
            }
        }
    }

    /// Logs in, where there is somebody to log in as.
    ///
    /// # Errors
    /// Where the password cannot be read, or the server does not take it.
    pub async fn log_in(&mut self, control: Option<&Control>) -> Result<(), Failure> {
        let Some(Control { user, password_file: Some(file), .. }) = control else { return Ok(()) };
        let password = secrets::password("upstream.control.password_file", file).map_err(Failure::Connection)?;
        match user {
            Some(user) => self.ask(&[b"AUTH", user.as_bytes(), password.as_bytes()]).await?,
            None => self.ask(&[b"AUTH", password.as_bytes()]).await?,
        };
        Ok(())
    }

    /// Resolves when the server has closed the connection. Nothing is to come on it meanwhile.
    pub async fn closed(&mut self) {
        let mut byte = [0];
        while let Ok(1..) = self.stream.read(&mut byte).await {}
    }

    /// Its stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}
