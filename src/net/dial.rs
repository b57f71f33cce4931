//! Connections to an upstream.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::{Stream, tls};
use crate::config::resolved::Upstream;
use crate::tls::{ClientSide, explain};

/// At most so often is it logged that an upstream gives no session.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A connection in the making.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Stream>> + 'a>>;

/// What a connection is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something that has no versions: nothing is said of it.
    Sessions,
    /// PostgreSQL: TLS is asked for first, as every version of it knows.
    Postgres,
}

/// PostgreSQL's SSLRequest.
const ASK_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// How connections to an upstream are made.
pub trait Dial {
    /// Connects to `authority`, a host and a port. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// Where no connection can be made; the error names the authority.
    fn dial<'a>(&'a self, authority: &'a str, speaks: Speaks) -> Dialling<'a>;
}

/// What sessions with an upstream are made with now; it changes when its files do.
pub type ClientSlot = Rc<RefCell<Option<Arc<ClientSide>>>>;

/// As a configuration says.
#[derive(Clone, Debug)]
pub struct UpstreamDial {
    /// The unix socket to connect to, whatever the authority.
    pub socket: Option<PathBuf>,
    /// What TLS sessions are made with; plain text where there is nothing.
    pub tls: ClientSlot,
    /// For one connection, over all addresses of the name, with its session.
    pub connect_timeout: Duration,
    /// How long the kernel goes on sending what the upstream does not acknowledge.
    pub send_timeout: Duration,
    /// When it was last said that there is no session.
    said: Cell<Option<Instant>>,
}

impl UpstreamDial {
    /// To this upstream, with what is in the slot.
    pub fn new(upstream: &Upstream, tls: ClientSlot) -> UpstreamDial {
        UpstreamDial {
            socket: upstream.socket.clone(),
            tls,
            connect_timeout: upstream.connect_timeout,
            send_timeout: upstream.send_timeout,
            said: Cell::new(None),
        }
    }

    async fn connect(&self, authority: &str, speaks: Speaks) -> io::Result<Stream> {
        if let Some(path) = &self.socket {
            return UnixStream::connect(path).await.map(Stream::unix);
        }
        let mut stream = self.connect_over_tcp(authority).await?;
        let Some(side) = self.tls.borrow().clone() else { return Ok(stream) };
        if speaks == Speaks::Postgres {
            ask_for_tls(&mut stream).await?;
        }
        let config = match speaks {
            Speaks::Http1 => &side.http1,
            Speaks::Http2 => &side.http2,
            Speaks::Sessions | Speaks::Postgres => &side.sessions,
        };
        // Half of the time is for a server that says nothing of the certificate that it asked for.
        let session = tls::connect(stream, config, side.name.clone(), self.connect_timeout / 2).await;
        session.map_err(|error| {
            let (why, text) = explain::explain(&error, false);
            self.complain(authority, why.as_str(), &text);
            io::Error::new(error.kind(), text)
        })
    }

    /// Says in the log why there is no session, now and then: each request that needs one fails for the same reason.
    fn complain(&self, authority: &str, why: &str, text: &str) {
        if self.said.get().is_none_or(|last| last.elapsed() >= SAY_EVERY) {
            self.said.set(Some(Instant::now()));
            tracing::warn!(upstream = authority, why, "no session: {text}");
        }
    }

    async fn connect_over_tcp(&self, authority: &str) -> io::Result<Stream> {
        let addresses: Vec<SocketAddr> = match authority.parse() {
            Ok(address) => vec![address],
            Err(_) => tokio::net::lookup_host(authority).await?.collect(),
        };
        // Each address gets its share: one that swallows packets must not use up the time of those that answer.
        let share = self.connect_timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    let stream = Stream::tcp(socket)?;
                    stream.give_up_sending_after(self.send_timeout)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt"),
            }
        }
        Err(last)
    }
}

/// Has a PostgreSQL server begin with TLS. Only its one byte is read: what came behind that in plain text would have to pass for
/// TLS, and does not (CVE-2021-23222).
async fn ask_for_tls(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(&ASK_FOR_TLS).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    match answer[0] {
        b'S' => Ok(()),
        b'N' => Err(io::Error::other("the server takes no TLS: set `ssl = on` there, or take upstream.tls out")),
        _ => Err(io::Error::other("the server answers the request for TLS with something else than yes or no")),
    }
}

impl Dial for UpstreamDial {
    fn dial<'a>(&'a self, authority: &'a str, speaks: Speaks) -> Dialling<'a> {
        Box::pin(async move {
            let made = match tokio::time::timeout(self.connect_timeout, self.connect(authority, speaks)).await {
                Ok(made) => made,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")),
            };
            made.map_err(|error| {
                let whereto = match &self.socket {
                    Some(path) => format!("unix:{}", path.display()),
                    None => authority.to_owned(),
                };
                io::Error::new(error.kind(), format!("cannot connect to {whereto}: {error}"))
            })
        })
    }
}

/// What tests put in the place of [`UpstreamDial`]: connections that are closed in an orderly way whatever is on them,
/// and whose kernel goes on sending by its own rules.
#[cfg(feature = "danger-test-switches")]
pub struct LingeringDial;

#[cfg(feature = "danger-test-switches")]
impl Dial for LingeringDial {
    fn dial<'a>(&'a self, authority: &'a str, _: Speaks) -> Dialling<'a> {
        Box::pin(async move { Ok(Stream::other(TcpStream::connect(authority).await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_dialled_and_errors_name_them() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (connect_timeout, send_timeout) = (Duration::from_secs(20), Duration::from_secs(5));
        let mut dial = UpstreamDial {
            socket: None,
            tls: ClientSlot::default(),
            connect_timeout,
            send_timeout,
            said: Cell::default(),
        };
        dial.dial(&format!("127.0.0.1:{port}"), Speaks::Http1).await.expect("by address");
        dial.dial(&format!("localhost:{port}"), Speaks::Http1).await.expect("by name");
        drop(listener);
        let error = dial.dial(&format!("127.0.0.1:{port}"), Speaks::Http1).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("up.sock");
        dial.socket = Some(path.clone());
        let error = dial.dial("localhost", Speaks::Http1).await.expect_err("nobody listens");
        assert!(error.to_string().contains(&format!("unix:{}", path.display())), "{error}");
        let _listener = tokio::net::UnixListener::bind(&path).expect("bind");
        dial.dial("localhost", Speaks::Http1).await.expect("by path");
    }
}
