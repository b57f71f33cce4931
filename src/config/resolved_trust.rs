//! Whom listeners and upstreams trust, as the program uses it. See [`super::resolved`].

use std::path::PathBuf;
use std::sync::Arc;

use crate::fence::{Resource, WriterId};

/// TLS of a listener, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// What it shows.
    pub pair: KeyPair,
    /// The authorities of client certificates; with them every client has to show one.
    pub client_ca: Option<PathBuf>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
}

/// TLS towards an upstream, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whom to trust.
    pub ca: PathBuf,
    /// What to show where it asks.
    pub pair: Option<KeyPair>,
    /// The name that it must have.
    pub server_name: Arc<str>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
}

/// A certificate and its key, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, and what stands between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Somebody who may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// How it is known.
    pub who: Who,
    /// As whom it may write; `None`: as the one that its name says, or, where the name says none, as anybody.
    pub writer: Option<WriterId>,
    /// To what, sorted; `None`: to everything that the listener serves.
    pub resources: Option<Vec<Resource>>,
}

/// How somebody is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// By a name of its certificate.
    Named(San),
    /// By the user that it runs as.
    User(u32),
}

/// A name of a certificate, with or without the place of a writer's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct San {
    /// Whether it is a URI; else it is a DNS name, in lower case.
    pub is_uri: bool,
    /// What stands before the writer's id, or the whole name.
    pub before: Box<str>,
    /// What stands after the writer's id, where the name has one.
    pub after: Option<Box<str>>,
}

impl San {
    /// Of these parts: DNS names are compared in lower case (RFC 4343).
    pub fn new(is_uri: bool, before: &str, after: Option<&str>) -> San {
        let part = |part: &str| if is_uri { part.into() } else { part.to_ascii_lowercase().into() };
        San { is_uri, before: part(before), after: after.map(part) }
    }
}
