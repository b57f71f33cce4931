//! Authorities and certificates as a test wants them, good and bad.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

/// An authority, and the folder that it puts everything into.
pub struct Authority {
    name: String,
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// What is special about a certificate.
#[derive(Clone, Debug, Default)]
pub struct Special<'a> {
    /// Its URIs.
    pub uris: &'a [&'a str],
    /// Whether it has no address of this host as a name.
    pub elsewhere: bool,
    /// Whether it has expired.
    pub expired: bool,
    /// Whether it begins to hold only later.
    pub early: bool,
    /// Whether it serves for servers only.
    pub only_server: bool,
}

impl Authority {
    /// One of this name; its certificate is `name.crt`.
    pub fn new(folder: &Path, name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        fs::write(folder.join(format!("{name}.crt")), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { name: name.to_owned(), folder: folder.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// Its certificate.
    pub fn path(&self) -> String {
        self.folder.join(format!("{}.crt", self.name)).display().to_string()
    }

    /// A certificate of this DNS name, and of this host's addresses: `file.crt` and `file.key`, put there as a whole.
    pub fn issue(&self, file: &str, name: &str, special: &Special<'_>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut names = vec![name.to_owned()];
        if !special.elsewhere {
            names.extend(["127.0.0.1".to_owned(), "localhost".to_owned()]);
        }
        let mut params = CertificateParams::new(names).unwrap();
        let uris = special.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if !special.only_server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if special.expired {
            (params.not_before, params.not_after) =
                (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 2, 3));
        }
        if special.early {
            params.not_before = rcgen::date_time_ymd(2999, 1, 1);
        }
        let pair = Pair { cert: self.folder.join(format!("{file}.crt")), key: self.folder.join(format!("{file}.key")) };
        replace(&pair.key, &key.serialize_pem());
        replace(&pair.cert, &params.signed_by(&key, &self.issuer).unwrap().pem());
        pair
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// As keys of a configuration.
    pub fn keys(&self) -> String {
        format!("cert: {}, key: {}", self.cert.display(), self.key.display())
    }
}

/// Puts a file in the place of another at once.
pub fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, path).unwrap();
}
