//! What a session needs, for either side of it.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::{StoresServerSessions, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::certificate::Purpose;
use super::files::Reader;
use super::{Usage, provider};
use crate::config::resolved::{ListenerTls, Protocol, UpstreamTls};

/// HTTP/2 and HTTP/1.1, as ALPN calls them (RFC 7301).
const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";
/// What clients of PostgreSQL 17 ask for that begin with TLS.
const POSTGRESQL: &[u8] = b"postgresql";

/// What is needed to connect to an upstream.
#[derive(Debug)]
pub struct ClientSide {
    /// For HTTP/1.1.
    pub http1: Arc<ClientConfig>,
    /// For HTTP/2.
    pub http2: Arc<ClientConfig>,
    /// For protocols that ALPN is not asked of.
    pub sessions: Arc<ClientConfig>,
    /// The name that the server must have.
    pub name: ServerName<'static>,
}

static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

fn versions(only_tls13: bool) -> &'static [&'static SupportedProtocolVersion] {
    if only_tls13 { &NEW } else { &BOTH }
}

/// For the connections that a listener takes.
pub fn server(tls: &ListenerTls, protocol: Protocol, reader: &mut Reader<'_>) -> Option<Arc<ServerConfig>> {
    let own = reader.pair(["tls.cert", "tls.key"], &tls.pair, Purpose::Server);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(tls.only_tls13))
        .expect("ring has cipher suites for both versions");
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = reader.authorities("tls.client_ca", file, Usage::ClientCa)?;
            match WebPkiClientVerifier::builder_with_provider(roots, provider()).build() {
                Ok(verifier) => builder.with_client_cert_verifier(verifier),
                Err(error) => {
                    reader.problem("tls.client_ca", file, error, "give the authority of the clients' certificates");
                    return None;
                }
            }
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own?)));
    config.alpn_protocols = match protocol {
        Protocol::Http => vec![H2.into(), HTTP_1_1.into()],
        Protocol::Postgres => vec![POSTGRESQL.into()],
        Protocol::Tcp | Protocol::Redis => Vec::new(),
    };
    // A resumed session would spare the client to show its certificate again, expired or not. Tickets are sent all the
    // same: with TLS 1.3 the first is what tells a client that its certificate was taken.
    config.session_storage = Arc::new(Forgets);
    Some(Arc::new(config))
}

/// For those to an upstream.
pub fn client(tls: &UpstreamTls, reader: &mut Reader<'_>) -> Option<Arc<ClientSide>> {
    let own: Option<Option<Arc<CertifiedKey>>> = match &tls.pair {
        None => Some(None),
        Some(pair) => reader.pair(["upstream.tls.cert", "upstream.tls.key"], pair, Purpose::Client).map(Some),
    };
    let roots = reader.authorities("upstream.tls.ca", &tls.ca, Usage::UpstreamCa);
    let (own, roots) = (own?, roots?);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(tls.only_tls13))
        .expect("ring has cipher suites for both versions")
        .with_root_certificates(roots);
    let mut http1 = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    };
    http1.resumption = Resumption::disabled();
    let (mut http2, sessions) = (http1.clone(), Arc::new(http1.clone()));
    http1.alpn_protocols = vec![HTTP_1_1.into()];
    http2.alpn_protocols = vec![H2.into()];
    let name = ServerName::try_from(&*tls.server_name).expect("the configuration takes nothing else").to_owned();
    Some(Arc::new(ClientSide { http1: Arc::new(http1), http2: Arc::new(http2), sessions, name }))
}

/// Gives out tickets, and knows none of them again.
#[derive(Debug)]
struct Forgets;

impl StoresServerSessions for Forgets {
    fn put(&self, _: Vec<u8>, _: Vec<u8>) -> bool {
        true
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn can_cache(&self) -> bool {
        true
    }
}
