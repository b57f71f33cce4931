//! Why a session could not be had: in words for whoever has to mend it, and in one word for a metric.

use std::io;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::files::day;

/// Why, in one word: the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A certificate was wanted, and none was shown.
    Missing,
    /// A certificate has expired, or does not hold yet.
    Expired,
    /// A certificate has another name.
    WrongName,
    /// A certificate is of an authority that is not trusted.
    UnknownAuthority,
    /// A certificate is bad in another way.
    BadCertificate,
    /// What came is no TLS.
    NotTls,
    /// Both sides have no version, suite or protocol in common.
    Incompatible,
    /// It took too long.
    Timeout,
    /// The connection ended.
    Closed,
    /// Anything else.
    Other,
}

impl Why {
    /// All of them, for metrics.
    pub const ALL: [Why; 10] = [
        Why::Missing,
        Why::Expired,
        Why::WrongName,
        Why::UnknownAuthority,
        Why::BadCertificate,
        Why::NotTls,
        Why::Incompatible,
        Why::Timeout,
        Why::Closed,
        Why::Other,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::Missing => "missing",
            Why::Expired => "expired",
            Why::WrongName => "wrong_name",
            Why::UnknownAuthority => "unknown_authority",
            Why::BadCertificate => "bad_certificate",
            Why::NotTls => "not_tls",
            Why::Incompatible => "incompatible",
            Why::Timeout => "timeout",
            Why::Closed => "closed",
            Why::Other => "other",
        }
    }
}

/// What a session of this error says: why, and what to do. `server` says who reads it: the side that took the connection,
/// or the one that made it.
pub fn explain(error: &io::Error, server: bool) -> (Why, String) {
    if error.kind() == io::ErrorKind::TimedOut {
        return (Why::Timeout, "no session was agreed on in time".to_owned());
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error, server),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            (Why::Closed, "the other side closed the connection before a session was agreed on".to_owned())
        }
        None => (Why::Other, error.to_string()),
    }
}

fn of_tls(error: &Error, server: bool) -> (Why, String) {
    let other = if server { "client" } else { "server" };
    match error {
        Error::NoCertificatesPresented => {
            let how = "give the client a certificate and its key (upstream.tls.cert and upstream.tls.key, where it is a sidecar)";
            (Why::Missing, format!("the client shows no certificate, and tls.client_ca wants one: {how}"))
        }
        Error::InvalidCertificate(error) => of_certificate(error, server),
        Error::AlertReceived(alert) => of_alert(*alert, server),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let how = match server {
                true => "it speaks plain HTTP to a TLS listener: write https:// in its URL",
                false => "it answers in plain text: write http:// in upstream.url, or give it TLS",
            };
            (Why::NotTls, format!("the {other} speaks no TLS: {how}"))
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => (Why::Incompatible, format!("the {other} has no version of TLS that is taken here (min_version)")),
        Error::PeerIncompatible(why) => (Why::Incompatible, format!("both sides have nothing in common: {why:?}")),
        Error::NoApplicationProtocol => {
            (Why::Incompatible, format!("the {other} speaks neither of the protocols that this side does (ALPN)"))
        }
        error => (Why::Other, error.to_string()),
    }
}

fn of_certificate(error: &CertificateError, server: bool) -> (Why, String) {
    let (whose, ca) = if server { ("client", "tls.client_ca") } else { ("server", "upstream.tls.ca") };
    let moment = |time: rustls::pki_types::UnixTime| {
        i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_default()
    };
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            let (now, until) = (moment(*time), moment(*not_after));
            let what = format!(
                "the {whose}'s certificate expired on {} (this host's clock says {})",
                until.strftime("%F %T"),
                now.strftime("%F %T")
            );
            (Why::Expired, format!("{what}: renew it, where it is shown"))
        }
        CertificateError::Expired => (Why::Expired, format!("the {whose}'s certificate has expired: renew it")),
        CertificateError::NotValidYetContext { not_before, .. } => {
            let from = day(moment(*not_before));
            (
                Why::Expired,
                format!("the {whose}'s certificate holds only from {from} on: compare the clocks of both hosts"),
            )
        }
        CertificateError::NotValidYet => {
            (Why::Expired, format!("the {whose}'s certificate does not hold yet: compare the clocks of both hosts"))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let plain =
                |name: &String| name.replace("DnsName(\"", "").replace("IpAddress(", "").replace(['"', ')'], "");
            let presented: Vec<String> = presented.iter().map(plain).collect();
            let presented = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") };
            let expected = expected.to_str();
            let how = "write the name that it has in upstream.tls.server_name, or give the server a certificate with this name";
            (Why::WrongName, format!("the server's certificate is not for {expected}, but for {presented}: {how}"))
        }
        CertificateError::NotValidForName => {
            (Why::WrongName, "the server's certificate has another name: see upstream.tls.server_name".to_owned())
        }
        // An authority of the same name and another key signed it; or none did: it is its own.
        CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_) => {
            let how = format!(
                "put the authority that signed it into {ca}; where it has several, add those between to its file"
            );
            (
                Why::UnknownAuthority,
                format!("the {whose}'s certificate is of an authority that {ca} does not name: {how}"),
            )
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            let usage = if server { "clientAuth" } else { "serverAuth" };
            let how = format!("make one whose extended key usage has {usage}");
            (Why::BadCertificate, format!("the {whose}'s certificate is not for {whose}s: {how}"))
        }
        error => (Why::BadCertificate, format!("the {whose}'s certificate is not good: {error}")),
    }
}

/// What the other side says of what it was shown.
fn of_alert(alert: AlertDescription, server: bool) -> (Why, String) {
    let (own, other, keys) =
        if server { ("this listener's", "client", "tls.cert") } else { ("this side's", "server", "upstream.tls.cert") };
    match alert {
        AlertDescription::CertificateRequired => {
            (Why::Missing, "the server wants a certificate: add upstream.tls.cert and upstream.tls.key".to_owned())
        }
        AlertDescription::CertificateExpired => (
            Why::Expired,
            format!("the {other} says that {own} certificate has expired: renew {keys}, or set the clocks"),
        ),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            let how = format!("give the {other} the authority that signed {keys}");
            (Why::UnknownAuthority, format!("the {other} does not know the authority of {own} certificate: {how}"))
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => {
            let what = format!("the {other} does not take {own} certificate ({alert:?})");
            (Why::BadCertificate, format!("{what}: its own log says why"))
        }
        AlertDescription::UnrecognisedName => {
            (Why::WrongName, "the server knows no such name: see upstream.tls.server_name".to_owned())
        }
        AlertDescription::ProtocolVersion
        | AlertDescription::NoApplicationProtocol
        | AlertDescription::HandshakeFailure => (
            Why::Incompatible,
            format!("the {other} found nothing in common with this side ({alert:?}): see min_version"),
        ),
        alert => (Why::Other, format!("the {other} ended it: {alert:?}")),
    }
}
