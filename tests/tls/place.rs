//! A guard and its stamps with certificates.

use std::path::Path;
use std::sync::Arc;

use epochgate::net::{Stream, tls};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::support::certificates::{Authority, Pair, Special};
use super::support::process::LONG;
use super::support::scene::{Node, Plan, Scene};
use super::support::sidecar::wait_for;
use super::support::upstream::Upstream;

/// A target, an authority, and a guard that takes nobody without a certificate. Sidecars go first.
pub struct Place {
    pub guard: Node,
    pub authority: Authority,
    pub scene: Scene,
    pub target: Upstream,
    folder: tempfile::TempDir,
}

impl Place {
    /// With more lines for the guard's listener.
    pub fn new(more: &str) -> Place {
        let (scene, target, folder) = (Scene::embedded(), Upstream::start(), tempfile::tempdir().unwrap());
        let authority = Authority::new(folder.path(), "ca");
        let own = authority.issue("guard", "db-guard", &Special::default());
        let tls = format!("tls: {{ {}, client_ca: {} }}\n{more}", own.keys(), authority.path());
        let guard = scene.guard(&target.url(), &tls);
        Place { guard, authority, scene, target, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A writer's own certificate.
    pub fn pair(&self, id: &str) -> Pair {
        self.authority.issue(id, id, &Special::default())
    }

    /// A stamp to be, which trusts `ca` and shows `pair`; `more` is more of its `upstream.tls`.
    pub fn plan(&self, id: &str, ca: &str, pair: Option<&Pair>, more: &str) -> Plan {
        let shown = pair.map(|pair| format!(", {}", pair.keys())).unwrap_or_default();
        let url = format!("https://{}", self.guard.address());
        let upstream = format!("upstream: {{ url: \"{url}\", tls: {{ ca: {ca}{shown}{more} }} }}");
        self.scene.node(id).stamp(&url, &upstream)
    }

    /// A stamp that leads and has all that it needs.
    pub fn leader(&self, id: &str) -> Node {
        let node = self.plan(id, &self.authority.path(), Some(&self.pair(id)), "").start();
        node.await_armed("orders");
        node
    }
}

impl Place {
    /// A session with the guard, by a client that shows this certificate.
    pub async fn session(&self, pair: &Pair) -> Stream {
        let chain = vec![CertificateDer::from_pem_file(&pair.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
        let config = self.trusting().with_client_auth_cert(chain, key).unwrap();
        let socket = tokio::net::TcpStream::connect(self.guard.address()).await.unwrap();
        let name = ServerName::try_from("db-guard").unwrap();
        tls::connect(Stream::tcp(socket).unwrap(), &config, name, LONG).await.unwrap()
    }

    /// The certificate that the guard shows to somebody who comes now.
    pub fn certificate_shown(&self) -> Vec<u8> {
        let pair = self.authority.issue("looker", "looker", &Special::default());
        let stream = wait_for(self.session(&pair));
        stream.tls().unwrap().peer_certificates().unwrap()[0].to_vec()
    }

    fn trusting(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority.path()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(roots)
    }
}
