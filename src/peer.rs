//! Who is at the other end of a connection, as far as the connection itself says: an address, the credentials of a
//! process of this host, the names of a certificate.

use std::borrow::Cow;
use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The other end of a connection, as it stands in the audit log: `10.0.0.7:5123`, or `unix:uid=1001,pid=4711`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket: a process of this host, as the kernel vouched for it when it connected.
    Unix(Credentials),
}

/// Who a process was when it connected (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Its user.
    pub uid: u32,
    /// Its id, where the kernel says it. It may have ended, and another may have its id: for people only.
    pub pid: Option<i32>,
}

impl Peer {
    /// As X-Forwarded-For has it; a process of this host has no address to say.
    pub fn forwarded_for(&self) -> String {
        match self {
            Peer::Tcp(address) => address.ip().to_canonical().to_string(),
            Peer::Unix(_) => "unknown".to_owned(),
        }
    }

    /// The same for every connection of whoever this is: without the port, or the process.
    #[must_use]
    pub fn whoever_connects(self) -> Peer {
        match self {
            Peer::Tcp(address) => Peer::Tcp(SocketAddr::new(address.ip().to_canonical(), 0)),
            Peer::Unix(Credentials { uid, .. }) => Peer::Unix(Credentials { uid, pid: None }),
        }
    }

    /// The user that it runs as, where it is a process of this host.
    pub fn uid(&self) -> Option<u32> {
        match self {
            Peer::Tcp(_) => None,
            Peer::Unix(credentials) => Some(credentials.uid),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        Peer::Tcp(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix(Credentials { uid, pid: Some(pid) }) => write!(f, "unix:uid={uid},pid={pid}"),
            Peer::Unix(Credentials { uid, pid: None }) => write!(f, "unix:uid={uid}"),
        }
    }
}

impl FromStr for Peer {
    type Err = AddrParseError;

    /// Reads what [`Display`](fmt::Display) wrote.
    fn from_str(text: &str) -> Result<Peer, AddrParseError> {
        match unix(text) {
            Some(credentials) => Ok(Peer::Unix(credentials)),
            None => text.parse().map(Peer::Tcp),
        }
    }
}

fn unix(text: &str) -> Option<Credentials> {
    let user = text.strip_prefix("unix:uid=")?;
    match user.split_once(",pid=") {
        Some((uid, pid)) => Some(Credentials { uid: uid.parse().ok()?, pid: Some(pid.parse().ok()?) }),
        None => Some(Credentials { uid: user.parse().ok()?, pid: None }),
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Peer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Peer, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format!("'{text}' is no peer")))
    }
}

/// So many names are said of a certificate that has hundreds.
const NAMES_SAID: usize = 8;

/// The names that a peer's certificate gives it, once the certificate was verified. (Its subject counts for nothing:
/// RFC 9525.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names, in lower case.
    pub dns: Vec<Box<str>>,
    /// URIs, as written: a SPIFFE id is one.
    pub uris: Vec<Box<str>>,
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.uris.iter().chain(&self.dns);
        match all.next() {
            Some(first) => f.write_str(first)?,
            None => f.write_str("no name")?,
        }
        all.by_ref().take(NAMES_SAID - 1).try_for_each(|name| write!(f, ", {name}"))?;
        match all.count() {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_written_as_the_audit_log_has_it() {
        let tcp: SocketAddr = "[::ffff:10.0.0.7]:5123".parse().expect("an address");
        assert_eq!(Peer::from(tcp).to_string(), "[::ffff:10.0.0.7]:5123");
        assert_eq!(Peer::from(tcp).forwarded_for(), "10.0.0.7");
        let unix = |pid| Peer::Unix(Credentials { uid: 1001, pid });
        assert_eq!(unix(Some(9)).to_string(), "unix:uid=1001,pid=9");
        for peer in [unix(None), unix(Some(9)), Peer::from(tcp)] {
            let text = serde_json::to_string(&peer).expect("text");
            assert_eq!(serde_json::from_str::<Peer>(&text).expect("a peer"), peer, "{text}");
        }
        assert_eq!((unix(None).uid(), unix(None).forwarded_for().as_str()), (Some(1001), "unknown"));
        let names = Names { dns: vec!["orders-a".into()], uris: vec!["spiffe://prod/orders-a".into()] };
        assert_eq!(names.to_string(), "spiffe://prod/orders-a, orders-a");
        assert_eq!(Names::default().to_string(), "no name");
        let many = Names { dns: vec!["a".into(); 900], uris: vec![] };
        assert!(many.to_string().ends_with("a, a, and 892 more"), "{many}");
    }
}
