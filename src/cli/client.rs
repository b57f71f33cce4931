//! One HTTP/1.1 exchange on a connection of its own, and nothing twice: how commands talk to a running process.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// How long a question may take.
pub const ASK_LIMIT: Duration = Duration::from_secs(5);

/// How long something that changes the process may take: a step-down waits for writes in flight.
pub const CHANGE_LIMIT: Duration = Duration::from_secs(120);

/// More than the status of ten thousand resources needs.
const MAX_ANSWER: usize = 64 << 20;

/// Where a process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp(String),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("write unix:/path/of/the/socket".into())
            } else {
                Ok(Address::Unix(path.into()))
            };
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let wrong = || "write host:port, such as 127.0.0.1:9464, or unix:/path/of/the/socket".to_owned();
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        // The address that a process listens at, taken from the same variable: all interfaces means this host.
        let host = match host {
            "" | "0.0.0.0" => "127.0.0.1",
            "[::]" => "[::1]",
            host => host,
        };
        Ok(Address::Tcp(format!("{host}:{port}")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(authority) => f.write_str(authority),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, what is no UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made: nothing was asked.
    #[error("cannot connect to {0}: {1}")]
    Connect(Address, io::Error),
    /// The connection ended without a whole answer.
    #[error("{0} gave no whole answer: {1}")]
    Broken(Address, String),
    /// It took too long.
    #[error("{0} did not answer within {n} s", n = .1.as_secs())]
    Slow(Address, Duration),
}

/// Sends one request and reads the whole answer, within `limit`. Never tries again. `Host` is filled in.
///
/// Dropping the future ends the connection; whether the request had its effect is then unknown.
///
/// # Errors
/// [`ClientError`], where no whole answer came.
pub async fn send(to: &Address, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, ClientError> {
    let exchanged = async {
        match to {
            Address::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(|e| ClientError::Connect(to.clone(), e))?;
                exchange(to, stream, authority, request).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| ClientError::Connect(to.clone(), e))?;
                exchange(to, stream, "localhost", request).await
            }
        }
    };
    tokio::time::timeout(limit, exchanged).await.unwrap_or_else(|_| Err(ClientError::Slow(to.clone(), limit)))
}

/// A GET.
///
/// # Errors
/// As [`send`].
pub async fn get(to: &Address, path: &str) -> Result<Answer, ClientError> {
    send(to, request("GET", path, ""), ASK_LIMIT).await
}

/// A request with a text as its body.
pub fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .expect("methods and paths of commands are written in the program, their values encoded")
}

/// A value as it may stand in a query.
pub fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

async fn exchange<S>(
    to: &Address,
    stream: S,
    host: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: &dyn fmt::Display| ClientError::Broken(to.clone(), error.to_string());
    let host = host.parse().map_err(|e: http::header::InvalidHeaderValue| broken(&e))?;
    request.headers_mut().insert(http::header::HOST, host);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let answered = async {
        let (head, body) = sender.send_request(request).await.map_err(|e| broken(&e))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| broken(&e))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    // The connection is driven here, not by a task: when this future is dropped, it closes.
    tokio::pin!(answered, connection);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        _ = &mut connection => answered.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixListener};

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, written) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("http://localhost:9464/", "localhost:9464"),
            (":9464", "127.0.0.1:9464"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("unix:/run/e.sock", "unix:/run/e.sock"),
        ] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(written.to_owned()));
        }
        for bad in ["", "9464", "a:b", "unix:", "a:99999"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert_eq!(encoded("orders/7 &x"), "orders/7%20%26x");
    }

    async fn answer_once(mut stream: impl AsyncRead + AsyncWrite + Unpin, with: &str) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request comes"));
        }
        stream.write_all(with.as_bytes()).await.expect("the client reads");
        stream.shutdown().await.ok();
        String::from_utf8(head).expect("a head is text")
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn tcp_and_unix_sockets_answer() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let to = Address::Tcp(listener.local_addr().expect("an address").to_string());
            let serve = async {
                answer_once(
                    listener.accept().await.expect("a client").0,
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
                )
                .await
            };
            let (head, answer) = tokio::join!(serve, get(&to, "/x?a=b"));
            assert!(head.starts_with("GET /x?a=b HTTP/1.1\r\n") && head.contains(&format!("host: {to}\r\n")), "{head}");
            assert_eq!(answer.expect("an answer").text(), "hi");

            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("admin.sock");
            let listener = UnixListener::bind(&path).expect("a socket");
            let serve = async {
                answer_once(listener.accept().await.expect("a client").0, "HTTP/1.1 503 No\r\n\r\nby\0").await
            };
            let to = Address::Unix(path);
            let (_, answer) = tokio::join!(serve, get(&to, "/"));
            assert_eq!(answer.expect("an answer").status, 503);
        });
    }

    #[test]
    fn what_is_not_there_is_told_apart_from_what_breaks() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let to = Address::Tcp(listener.local_addr().expect("an address").to_string());
            let serve = async {
                answer_once(
                    listener.accept().await.expect("a client").0,
                    "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi",
                )
                .await
            };
            let (_, answer) = tokio::join!(serve, get(&to, "/"));
            assert!(matches!(answer, Err(ClientError::Broken(..))), "a truncated answer is none: {answer:?}");
            let silent = send(&to, request("GET", "/", ""), Duration::from_millis(20)).await;
            assert!(matches!(silent, Err(ClientError::Slow(..))), "{silent:?}");
            drop(listener);
            assert!(matches!(get(&to, "/").await, Err(ClientError::Connect(..))));
        });
    }
}
