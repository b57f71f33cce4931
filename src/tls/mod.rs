//! Certificates and keys: read from files, checked whole, made into what a session needs.
//!
//! Nothing here opens a connection: [`crate::net::tls`] does, with what this makes. Everything that is wrong with the
//! files of a configuration is found before any of it is used, and said with the file, and with what to do.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`load`]: what every listener of a configuration needs |
//! | [`files`] | certificates and keys as files |
//! | [`certificate`] | what a certificate says: its names, until when, what for |
//! | [`sides`] | what a session needs: one side takes connections, the other makes them |
//! | [`explain`] | why a session could not be had, in words, and in one word |
//!
//! One provider of cryptography is linked in (ring), and named at every place: rustls would panic where it has to choose.

pub mod certificate;
pub mod explain;
mod files;
pub mod sides;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;

use crate::config::resolved::{EtcdTls, KeyPair, Listener};
use crate::peer::Names;
use certificate::Purpose;
pub use sides::ClientSide;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What, and where: it names the listener, the key of the configuration and the file.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.help)
    }
}

impl std::error::Error for Problem {}

/// Which certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// What a listener shows.
    Server,
    /// What a listener's upstream is shown.
    Client,
    /// The authority of clients.
    ClientCa,
    /// The authority of an upstream.
    UpstreamCa,
}

impl Usage {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Usage::Server => "server",
            Usage::Client => "client",
            Usage::ClientCa => "client_ca",
            Usage::UpstreamCa => "upstream_ca",
        }
    }
}

/// Until when a certificate of a listener holds: of several in a file the one that ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Which.
    pub usage: Usage,
    /// The last moment.
    pub until: Timestamp,
}

/// What one listener needs for its sessions.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// For the connections that it takes.
    pub server: Option<Arc<ServerConfig>>,
    /// For those to its upstream.
    pub client: Option<Arc<ClientSide>>,
    /// What the certificate names this side that is shown to the upstream.
    pub own_names: Option<Names>,
    /// Until when all of that holds.
    pub expiries: Vec<Expiry>,
}

/// Reads what one listener needs, as of `now`. Blocks on the disk.
///
/// # Errors
/// Everything that is wrong with its files; nothing of it is to be used then.
pub fn load(listener: &Listener, now: Timestamp) -> Result<Sides, Vec<Problem>> {
    let owner = format!("listener {}", listener.name);
    let mut reader = files::Reader::new(&owner, now);
    let server = listener.tls.as_ref().and_then(|tls| sides::server(tls, listener.protocol, &mut reader));
    let client = listener.upstream.tls.as_ref().and_then(|tls| sides::client(tls, &mut reader));
    let own_names = reader.own_names.take();
    reader.finish().map(|expiries| Sides { server, client, own_names, expiries })
}

/// Until when the certificates hold that etcd is reached with, as of `now`. Blocks on the disk.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn look_at_etcd(tls: &EtcdTls, now: Timestamp) -> Result<Vec<Expiry>, Vec<Problem>> {
    let mut reader = files::Reader::new("coordinator.etcd", now);
    if let Some(ca) = &tls.ca {
        reader.authorities("tls.ca", ca, Usage::UpstreamCa);
    }
    if let (Some(cert), Some(key)) = (tls.cert.clone(), tls.key.clone()) {
        reader.pair(["tls.cert", "tls.key"], &KeyPair { cert, key }, Purpose::Client);
    }
    reader.finish()
}
