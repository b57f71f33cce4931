//! Certificates and keys as files in PEM (RFC 7468): read, checked, and every problem noted with its file.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize as _, Zeroizing};

use super::certificate::{Certificate, Purpose};
use super::{Expiry, Problem, Usage};
use crate::config::resolved::KeyPair;
use crate::peer::Names;

/// No file of certificates is larger: a system's bundle has some 200 KiB.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Reads the files of one listener, or of another owner that is named in what is wrong, and remembers what was wrong
/// and what expires when.
pub struct Reader<'a> {
    owner: &'a str,
    /// What the client's certificate names this side.
    pub own_names: Option<Names>,
    now: Timestamp,
    problems: Vec<Problem>,
    expiries: Vec<Expiry>,
}

impl<'a> Reader<'a> {
    pub fn new(owner: &'a str, now: Timestamp) -> Reader<'a> {
        Reader { owner, own_names: None, now, problems: Vec::new(), expiries: Vec::new() }
    }

    /// What expires when.
    ///
    /// # Errors
    /// Everything that was wrong.
    pub fn finish(self) -> Result<Vec<Expiry>, Vec<Problem>> {
        if self.problems.is_empty() { Ok(self.expiries) } else { Err(self.problems) }
    }

    /// Notes a problem with the file of a key of the configuration.
    pub fn problem(&mut self, key: &str, file: &Path, what: impl std::fmt::Display, help: impl Into<String>) {
        let what = format!("{}: {key} {}: {what}", self.owner, file.display());
        self.problems.push(Problem { what, help: help.into() });
    }

    /// A certificate with its key, fit for `purpose`.
    pub fn pair(&mut self, keys: [&str; 2], pair: &KeyPair, purpose: Purpose) -> Option<Arc<CertifiedKey>> {
        let [cert_key, key_key] = keys;
        let chain = self.certificates(cert_key, &pair.cert);
        let key = self.private_key(key_key, &pair.key);
        let chain = chain?;
        let usage = if purpose == Purpose::Server { Usage::Server } else { Usage::Client };
        self.check_own(cert_key, &pair.cert, &chain, purpose, usage);
        let mut key = key?;
        let signing = rustls::crypto::ring::sign::any_supported_type(&key);
        key.zeroize();
        let signing = match signing {
            Ok(signing) => signing,
            Err(_) => {
                let help =
                    "make one of a kind that is supported: ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits";
                self.problem(key_key, &pair.key, "the key is of a kind that cannot be used", help);
                return None;
            }
        };
        let certified = CertifiedKey::new(chain, signing);
        if matches!(certified.keys_match(), Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)))
        {
            let what = format!("it is not the key of the certificate in {}", pair.cert.display());
            self.problem(
                key_key,
                &pair.key,
                what,
                "give the key that the certificate was made with: both come in pairs",
            );
            return None;
        }
        Some(Arc::new(certified))
    }

    /// Authorities to trust.
    pub fn authorities(&mut self, key: &str, file: &Path, usage: Usage) -> Option<Arc<RootCertStore>> {
        let found = self.certificates(key, file)?;
        let mut roots = RootCertStore::empty();
        let (mut ends, mut last) = (None, None);
        for certificate in found {
            let read = Certificate::read(&certificate);
            if let Some(read) = &read {
                ends = ends.into_iter().chain([read.not_after]).min();
                last = last.max(Some(read.not_after));
            }
            if let Err(error) = roots.add(certificate) {
                self.problem(
                    key,
                    file,
                    format!("a certificate cannot be used ({error})"),
                    "give the authority's certificate",
                );
                return None;
            }
            if let Some(read) = read.filter(|read| !read.is_authority) {
                let what = format!("the certificate of {} is no authority's", read.names);
                self.problem(key, file, what, "give the certificate that those of the others were signed with");
            }
        }
        let until = ends?;
        self.expiries.push(Expiry { usage, until });
        // One that has ended beside others is what a change of authorities leaves behind: it lets nobody in.
        if let Some(last) = last.filter(|last| *last < self.now) {
            let what = format!("its authority expired on {}", day(last));
            self.problem(key, file, what, "put the new one in");
        }
        Some(Arc::new(roots))
    }

    fn check_own(&mut self, key: &str, file: &Path, chain: &[CertificateDer<'_>], purpose: Purpose, usage: Usage) {
        let Some(own) = chain.first().and_then(|own| Certificate::read(own)) else {
            self.problem(key, file, "its first certificate cannot be read", "make it anew");
            return;
        };
        self.expiries.push(Expiry { usage, until: own.not_after });
        if purpose == Purpose::Client {
            self.own_names = Some(own.names.clone());
        }
        let clock = format!("this host's clock says {}", self.now.strftime("%F %T UTC"));
        if own.not_after < self.now {
            let what = format!("the certificate of {} expired on {} ({clock})", own.names, day(own.not_after));
            self.problem(key, file, what, "renew it; where the clock is wrong, set it");
        }
        if own.not_before > self.now {
            let what = format!("the certificate of {} holds only from {} on ({clock})", own.names, day(own.not_before));
            self.problem(key, file, what, "wait, or make one that holds already; where the clock is wrong, set it");
        }
        if own.is_authority && chain.len() > 1 {
            let help = "put the certificate of the key first, those between it and its authority after it";
            self.problem(key, file, "its first certificate is an authority's", help);
        }
        if !own.is_for(purpose) {
            let what = format!("the certificate of {} is not for {}s", own.names, purpose.word());
            self.problem(key, file, what, format!("make one whose extended key usage has {}", purpose.usage()));
        }
    }

    fn read(&mut self, key: &str, file: &Path) -> Option<Zeroizing<Vec<u8>>> {
        match read_bounded(file) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.problem(key, file, format!("it cannot be read ({error})"), "check the path, and who may read it");
                None
            }
        }
    }

    fn certificates(&mut self, key: &str, file: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.read(key, file)?;
        match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
            Ok(found) if !found.is_empty() => Some(found),
            _ => {
                let help = "write it in PEM: it begins with -----BEGIN CERTIFICATE-----";
                self.problem(key, file, "it holds no certificate in PEM", help);
                None
            }
        }
    }

    fn private_key(&mut self, key: &str, file: &Path) -> Option<PrivateKeyDer<'static>> {
        let pem = self.read(key, file)?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(found) => Some(found),
            Err(_) => {
                let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
                let what = if encrypted { "its key is encrypted" } else { "it holds no private key in PEM" };
                let help = "write it in PEM, without a passphrase: it begins with -----BEGIN PRIVATE KEY-----";
                self.problem(key, file, what, help);
                None
            }
        }
    }
}

fn read_bounded(file: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(file)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(std::io::Error::other("it has more than 4 MiB"));
    }
    Ok(bytes)
}

/// A day, as people say it.
pub fn day(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%F")
}
