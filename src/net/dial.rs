//! Connections to an upstream.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;

use super::Stream;

/// A connection in the making.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Stream>> + 'a>>;

/// How connections to an upstream are made.
pub trait Dial {
    /// Connects to `authority`, a host and a port. Dropping the future gives the attempt up.
    ///
    /// # Errors
    /// Where no connection can be made; the error names the authority.
    fn dial<'a>(&'a self, authority: &'a str) -> Dialling<'a>;
}

/// Over TCP.
#[derive(Clone, Copy, Debug)]
pub struct TcpDial {
    /// For one connection, over all addresses of the name.
    pub connect_timeout: Duration,
    /// How long the kernel goes on sending what the upstream does not acknowledge.
    pub send_timeout: Duration,
}

impl TcpDial {
    async fn connect(self, authority: &str) -> io::Result<Stream> {
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

impl Dial for TcpDial {
    fn dial<'a>(&'a self, authority: &'a str) -> Dialling<'a> {
        Box::pin(async move {
            let made = match tokio::time::timeout(self.connect_timeout, self.connect(authority)).await {
                Ok(made) => made,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")),
            };
            made.map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {authority}: {error}")))
        })
    }
}

/// What tests put in the place of [`TcpDial`]: connections that are closed in an orderly way whatever is on them, and
/// whose kernel goes on sending by its own rules.
#[cfg(feature = "danger-test-switches")]
pub struct LingeringDial;

#[cfg(feature = "danger-test-switches")]
impl Dial for LingeringDial {
    fn dial<'a>(&'a self, authority: &'a str) -> Dialling<'a> {
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
        let dial = TcpDial { connect_timeout: Duration::from_secs(20), send_timeout: Duration::from_secs(5) };
        dial.dial(&format!("127.0.0.1:{port}")).await.expect("by address");
        dial.dial(&format!("localhost:{port}")).await.expect("by name");
        drop(listener);
        let error = dial.dial(&format!("127.0.0.1:{port}")).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
