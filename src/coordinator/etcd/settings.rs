//! How to reach etcd: the configuration, checked once, and the files behind it, read at each connection, so that a
//! certificate or a password that was replaced is used from the next connection on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use http::Uri;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::config::resolved::{Coordinator, Etcd, EtcdTls};
use crate::config::secrets;
use crate::coordinator::store::StoreError;

/// HTTP/2 pings: etcd ends connections that are pinged more often than every 5 s, or without a stream. Faster detection
/// is the business of each call's time limit, and of the watch's own questions.
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_ANSWER: Duration = Duration::from_secs(3);

const PASSWORD_FILE: &str = "coordinator.etcd.user.password_file";

/// The kernel's own probes, for connections without a stream.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// Settings that can work, as far as one can tell without connecting.
#[derive(Debug)]
pub(super) struct Settings {
    /// URLs of a scheme, a host and a port, at least one.
    pub(super) endpoints: Vec<String>,
    /// Every key begins with this; it ends with `/`.
    pub(super) prefix: String,
    /// The time limit of a call.
    pub(super) timeout: Duration,
    tls: Option<EtcdTls>,
    user: Option<(String, PathBuf)>,
}

impl Settings {
    /// Checks what can be checked without a file or a connection.
    pub(super) fn new(coordinator: &Coordinator, etcd: &Etcd) -> Result<Settings, StoreError> {
        let unusable = |text: String| StoreError::Unusable(format!("coordinator.etcd: {text}"));
        if etcd.endpoints.is_empty() {
            return Err(unusable("name at least one endpoint, as http://host:2379".into()));
        }
        if let Some(tls) = &etcd.tls
            && tls.cert.is_some() != tls.key.is_some()
        {
            return Err(unusable("tls.cert and tls.key go together".into()));
        }
        if !coordinator.prefix.ends_with('/') {
            return Err(StoreError::Unusable(format!("coordinator.prefix {:?} must end with '/'", coordinator.prefix)));
        }
        let endpoints = etcd.endpoints.iter().map(|url| endpoint(url, etcd.tls.as_ref()).map_err(unusable));
        Ok(Settings {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            prefix: coordinator.prefix.clone(),
            timeout: coordinator.request_timeout,
            tls: etcd.tls.clone(),
            user: etcd.user.clone(),
        })
    }

    /// Whether a user is configured.
    pub(super) fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// The configured user's name.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|(name, _)| name.as_str())
    }

    /// The common name in the client certificate: whom etcd takes a client for that does not log in. Blocks on the disk.
    pub(super) fn certificate_name(&self) -> Option<String> {
        let pem = std::fs::read(self.tls.as_ref()?.cert.as_ref()?).ok()?;
        let certificate = CertificateDer::pem_slice_iter(&pem).next()?.ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        Some(name).filter(|name| !name.is_empty())
    }

    /// What to connect with, read from the files as they are now; with the configured user unless `anonymous`. Blocks
    /// on the disk. The error names the file.
    pub(super) fn options(&self, anonymous: bool) -> Result<ConnectOptions, String> {
        // No `with_timeout`: it would not end a stream, and every await of ours has its own limit.
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            .with_keep_alive(PING_EVERY, PING_ANSWER)
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(TCP_KEEPALIVE)
            .with_require_leader(true);
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls_options(tls)?);
        }
        if let Some((name, file)) = self.user.as_ref().filter(|_| !anonymous) {
            // The client keeps its own copy for as long as it lives: it logs in again by itself.
            options = options.with_user(name, secrets::password(PASSWORD_FILE, file)?.as_str());
        }
        Ok(options)
    }
}

/// Checks one endpoint and brings it into the form that the client takes.
fn endpoint(url: &str, tls: Option<&EtcdTls>) -> Result<String, String> {
    // Before anything is said about it: a password in a URL must not come back in a message.
    if url.contains('@') {
        return Err("an endpoint names no user or password: use `user: { name: , password_file: }`".into());
    }
    let uri: Uri = url.parse().map_err(|e| format!("endpoint {url:?} is no URL: {e}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("endpoint {url:?} needs a scheme: http://{url} or https://{url}"));
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!("endpoint {url:?} must end after the port"));
    }
    match (scheme, tls) {
        ("http", Some(_)) => {
            Err(format!("endpoint {url:?} is plain text, but tls is set: begin it with https://, or take tls away"))
        }
        ("https", None | Some(EtcdTls { ca: None, .. })) => {
            Err(format!("endpoint {url:?} needs tls.ca, the authority to trust: the system's are not used"))
        }
        ("http" | "https", _) => Ok(format!("{scheme}://{authority}")),
        _ => Err(format!("endpoint {url:?}: the scheme is http or https")),
    }
}

/// What is read may be a secret, so it is overwritten once it has been handed over.
fn read(what: &str, file: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot read coordinator.etcd.{what} {}: {e}", file.display()));
    bytes.map(Zeroizing::new)
}

/// Reads and checks the files ourselves: what the client says about a bad one names no file.
fn tls_options(tls: &EtcdTls) -> Result<TlsOptions, String> {
    let mut options = TlsOptions::new();
    if let Some(file) = &tls.ca {
        let pem = read("tls.ca", file)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls.ca", file, &pem)? {
            roots.add(certificate).map_err(|e| format!("coordinator.etcd.tls.ca {}: {e}", file.display()))?;
        }
        options = options.ca_certificate(Certificate::from_pem(pem.as_slice()));
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        let cert_pem = read("tls.cert", cert)?;
        certificates("tls.cert", cert, &cert_pem)?;
        let key_pem = read("tls.key", key)?;
        PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| format!("coordinator.etcd.tls.key {} holds no private key in PEM", key.display()))?;
        options = options.identity(Identity::from_pem(cert_pem.as_slice(), key_pem.as_slice()));
    }
    Ok(options)
}

fn certificates(what: &str, file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("coordinator.etcd.{what} {} holds no certificate in PEM", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::CoordinatorKind;

    fn settings(etcd: &Etcd) -> Result<Settings, StoreError> {
        let coordinator = Coordinator {
            kind: CoordinatorKind::Etcd(etcd.clone()),
            prefix: "/epochgate/v1/".into(),
            lease_ttl: Duration::from_secs(5),
            request_timeout: Duration::from_secs(1),
            verify_every: Duration::from_secs(1),
        };
        Settings::new(&coordinator, etcd)
    }

    fn etcd(endpoint: &str, tls: Option<EtcdTls>) -> Etcd {
        Etcd { endpoints: vec![endpoint.into()], tls, user: None }
    }

    #[test]
    fn an_endpoint_needs_a_scheme_and_nothing_after_the_port() {
        let said = |url: &str| settings(&etcd(url, None)).expect_err("refused").to_string();
        assert!(said("127.0.0.1:2379").contains("needs a scheme"), "{}", said("127.0.0.1:2379"));
        assert!(said("ftp://a:1").contains("http or https"));
        assert!(said("http://a:1/v3").contains("after the port"));
        assert_eq!(settings(&etcd("http://a:2379/", None)).expect("good").endpoints, ["http://a:2379"]);
        assert_eq!(settings(&etcd("http://[::1]:2379", None)).expect("good").endpoints, ["http://[::1]:2379"]);
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let said = settings(&etcd("http://root:hunter2@a:1", None)).expect_err("refused").to_string();
        assert!(said.contains("password_file") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn tls_and_the_scheme_must_fit_together() {
        assert!(settings(&etcd("https://a:1", None)).expect_err("refused").to_string().contains("tls.ca"));
        assert!(
            settings(&etcd("http://a:1", Some(EtcdTls::default())))
                .expect_err("refused")
                .to_string()
                .contains("plain text")
        );
        let half = EtcdTls { ca: Some("ca".into()), cert: Some("c".into()), key: None };
        assert!(settings(&etcd("https://a:1", Some(half))).expect_err("refused").to_string().contains("go together"));
    }

    #[test]
    fn a_file_that_cannot_serve_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        let with_ca = etcd("https://a:1", Some(EtcdTls { ca: Some(ca.clone()), ..EtcdTls::default() }));
        let said = || settings(&with_ca).expect("good").options(false).expect_err("refused");
        assert!(said().contains("ca.pem") && said().contains("cannot read"), "{}", said());
        std::fs::write(&ca, "no certificate").expect("written");
        assert!(said().contains("ca.pem") && said().contains("no certificate in PEM"), "{}", said());

        let file = folder.path().join("password");
        let with_user = Etcd { user: Some(("guard".into(), file.clone())), ..etcd("http://a:1", None) };
        let options = || settings(&with_user).expect("good").options(false);
        assert!(options().expect_err("refused").contains("password_file"));
        std::fs::write(&file, "\n").expect("written");
        assert!(options().expect_err("refused").contains("is empty"));
        std::fs::write(&file, "hunter2\r\n").expect("written");
        assert!(options().is_ok());
        assert_eq!(secrets::password(PASSWORD_FILE, &file).expect("a password").as_str(), "hunter2");
    }
}
