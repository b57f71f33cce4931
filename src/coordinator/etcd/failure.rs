//! Why a call to one endpoint failed, and what that allows: told by the message, since etcd and the client say the same
//! thing under several codes (a reset is `Unknown`, a timeout `Cancelled`, "no leader" comes under two).

use std::error::Error as _;
use std::io;

use etcd_client::Error;

/// How one attempt at one endpoint failed. The texts say what happened and what to do; never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing of the request left this host: any call may be made elsewhere.
    NotSent(String),
    /// Sent, perhaps, and no answer that says what became of it.
    NoAnswer(String),
    /// The login has lapsed; refused before anything was applied.
    Login(String),
    /// Refused for good; nothing was applied. Another endpoint would say the same.
    Denied(String),
    /// The lease does not exist.
    LeaseGone,
    /// This endpoint is not one to be used: another cluster's, or too old.
    Unfit(String),
    /// What this process was given to connect with cannot be used, at any endpoint: a file, mostly.
    Unusable(String),
}

/// What etcd says, and what it means. The first that is found in the text holds.
const LEASE_GONE: [&str; 2] = ["requested lease not found", "lease not found"];
const LOGIN: [&str; 3] = ["invalid auth token", "user name is empty", "revision of auth store is old"];
const DENIED: [(&str, &str); 10] = [
    ("permission denied", "grant the user's role what its keys need"),
    ("authentication failed", "check `coordinator.etcd.user` and its password file"),
    ("invalid user ID or password", "check `coordinator.etcd.user` and its password file"),
    ("too many operations in txn", "more keys in one transaction than the server's --max-txn-ops allows"),
    ("duplicate key given in txn", "a key may stand once in a transaction"),
    ("request is too large", "more bytes in one request than the server's --max-request-bytes allows"),
    ("received message larger than max", "more bytes in one request than the server's --max-request-bytes allows"),
    ("database space exceeded", "etcd's disk quota is used up: compact, defragment, then disarm its alarm"),
    ("message length too large", "the answer is larger than 64 MiB: read fewer keys at once"),
    ("lease already exists", "the lease's id is taken"),
];
const HINTS: [(&str, &str); 8] = [
    ("Connection refused", "is etcd running there?"),
    ("dns error", "the host name cannot be resolved"),
    ("UnknownIssuer", "does `coordinator.etcd.tls.ca` hold the authority that signed its certificate?"),
    ("NotValidForName", "its certificate is for another host name"),
    ("CertificateRequired", "it wants a client certificate: set `coordinator.etcd.tls.cert` and `key`"),
    ("received fatal alert", "it refuses the client certificate: see `coordinator.etcd.tls.cert` and `key`"),
    ("InvalidContentType", "it does not speak TLS: should the endpoint begin with http:// ?"),
    ("no leader", "it has no leader: its cluster has lost its quorum, or it is cut off from it"),
];

/// What a connection that ends without a word says. On one that has just been made, the scheme tells what to look at.
const ENDED: [&str; 5] =
    ["connection closed", "broken pipe", "connection reset", "h2 protocol error", "connection error"];

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let text = describe(&error);
        if LEASE_GONE.iter().any(|gone| text.contains(gone)) {
            return Failure::LeaseGone;
        }
        if LOGIN.iter().any(|login| text.contains(login)) {
            return Failure::Login(text);
        }
        if let Some((_, hint)) = DENIED.iter().find(|(said, _)| text.contains(said)) {
            return Failure::Denied(format!("{text} ({hint})"));
        }
        let text = with_hint(text);
        if never_sent(&error) { Failure::NotSent(text) } else { Failure::NoAnswer(text) }
    }
}

impl Failure {
    /// The text alone.
    pub(super) fn text(&self) -> &str {
        match self {
            Failure::LeaseGone => "the lease is gone",
            Failure::NotSent(text)
            | Failure::NoAnswer(text)
            | Failure::Login(text)
            | Failure::Denied(text)
            | Failure::Unfit(text)
            | Failure::Unusable(text) => text,
        }
    }

    /// The same failure, met while connecting to `url`: whatever it was, the request itself has not left.
    pub(super) fn while_connecting(self, url: &str) -> Failure {
        match self {
            Failure::NoAnswer(text) if ENDED.iter().any(|ended| text.to_lowercase().contains(ended)) => {
                Failure::NotSent(if url.starts_with("https:") {
                    format!("{text} (does it want a client certificate? see `coordinator.etcd.tls.cert` and `key`)")
                } else {
                    format!("{text} (does it serve TLS? then the endpoint must begin with https://)")
                })
            }
            Failure::NoAnswer(text) => Failure::NotSent(text),
            // The login has just been made afresh: that it is refused all the same is an answer.
            Failure::Login(text) => Failure::Denied(text),
            other => other,
        }
    }
}

/// A text and what to do about it, where we know.
pub(super) fn with_hint(text: String) -> String {
    match HINTS.iter().find(|(said, _)| text.contains(said)) {
        Some((_, hint)) => format!("{text} ({hint})"),
        None => text,
    }
}

/// Whether the request certainly never left: there was no connection that it could have gone through. A failed TLS
/// handshake of a connection that the client made again by itself is left out: it has no text of its own.
fn never_sent(error: &Error) -> bool {
    let mut link = chain_start(error);
    while let Some(cause) = link {
        let text = cause.to_string();
        if text.starts_with("tcp connect error") || text.starts_with("dns error") {
            return true;
        }
        if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        link = cause.source();
    }
    false
}

/// [`Error`] itself names no source, so the walk begins at what it holds.
fn chain_start(error: &Error) -> Option<&(dyn std::error::Error + 'static)> {
    match error {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(transport) => Some(transport),
        Error::IoError(io) => Some(io),
        _ => None,
    }
}

/// The error with its causes, each said once.
fn describe(error: &Error) -> String {
    let mut text = match error {
        Error::GRpcStatus(status) if status.message().is_empty() => format!("{:?}", status.code()),
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    let mut link = chain_start(error);
    while let Some(cause) = link {
        let said = cause.to_string();
        // "transport error" is what every cause in between calls itself.
        if !said.is_empty() && said != "transport error" && !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        link = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_about_leases_is_told_by_its_text() {
        let gone = Error::LeaseKeepAliveError("lease not found".into());
        assert_eq!(Failure::from(gone), Failure::LeaseGone);
        let closed = Error::LeaseKeepAliveError("channel closed".into());
        assert!(matches!(Failure::from(closed), Failure::NoAnswer(_)));
    }

    #[test]
    fn a_refused_connection_is_certain_and_a_broken_one_is_not() {
        let refused = Error::IoError(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(matches!(Failure::from(refused), Failure::NotSent(_)));
        let reset = Error::IoError(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(matches!(Failure::from(reset), Failure::NoAnswer(_)));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let full = Failure::from(Error::WatchError("etcdserver: mvcc: database space exceeded".into()));
        assert!(matches!(&full, Failure::Denied(text) if text.contains("defragment")), "{full:?}");
        let token = Failure::from(Error::WatchError("etcdserver: invalid auth token".into()));
        assert!(matches!(token, Failure::Login(_)));
        assert!(matches!(token.while_connecting("http://a:1"), Failure::Denied(_)));
    }

    #[test]
    fn a_new_connection_that_just_ends_is_explained_by_its_scheme() {
        let ended = Failure::NoAnswer("operation was canceled: connection closed".into());
        assert!(ended.clone().while_connecting("https://a:1").text().contains("client certificate"));
        assert!(ended.while_connecting("http://a:1").text().contains("https://"));
    }
}
