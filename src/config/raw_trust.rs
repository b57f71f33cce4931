//! Whom a listener and its upstream trust, as written. See [`super::raw`] for how these comments are used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{Id, Path, San, ServerName, Written};

/// TLS for the connections that a listener takes: nothing else is taken then. Files are PEM; they are read again when
/// their content changes, and on SIGHUP, and connections that are there stay.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate to show, with those between it and its authority after it.
    #[schemars(required)]
    pub cert: Option<Written<Path>>,
    /// Its private key.
    #[schemars(required)]
    pub key: Option<Written<Path>>,
    /// The authorities of client certificates. With it every client has to show one (mTLS), and at a guard `identities`
    /// says who may write as whom. The system's authorities are not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<Written<Path>>,
    /// The oldest version that is taken.
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and authenticated encryption only.
    #[default]
    #[serde(rename = "tls1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "tls1.3")]
    Tls13,
}

/// TLS towards an `https` upstream. Files are PEM; they are read again as those of a listener are.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// The authorities of its certificate. The system's are not used; a public service's are in the system's bundle:
    /// `/etc/ssl/certs/ca-certificates.crt` on most.
    #[schemars(required)]
    pub ca: Option<Written<Path>>,
    /// The certificate to show where it asks for one; needs `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<Written<Path>>,
    /// The private key of `cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Written<Path>>,
    /// The name that its certificate must have, and that it is asked for (SNI).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "the host of `url`"))]
    pub server_name: Option<Written<ServerName>>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// Somebody who may write: known by a name of the certificate (`san`), or by the user that the process runs as
/// (`uid`, over a unix socket).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// A DNS name or a URI among the certificate's subject alternative names. `{writer}` stands for the writer's id:
    /// `{writer}`, `{writer}.orders.svc`, `spiffe://prod/ns/orders/sa/{writer}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub san: Option<Written<San>>,
    /// The id of a user of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Guard: the writer that it may write as.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "what stands for `{writer}`"))]
    pub writer: Option<Written<Id>>,
    /// The resources that it may write to, as they stand under `resources` at the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("x-default" = "every one of the listener"))]
    pub resources: Option<Vec<String>>,
}
