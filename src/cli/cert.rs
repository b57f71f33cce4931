//! `epochgate cert`: certificates for a first set-up of mTLS.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::exit::Exit;
use super::{complain, print};
use crate::tls::certificate::Certificate;

/// For how many days an authority made here holds.
const AUTHORITY_DAYS: u32 = 3650;

/// Makes certificates for mTLS between sidecars: an authority, and one certificate for each name
///
/// Each certificate has its name as DNS name, and serves both as a server's and as a client's. A guard takes a write over
/// mTLS from the writer whose id is a DNS name of the client's certificate. The authority (ca.crt, ca.key) is made where
/// the folder has none; keep ca.key away from the hosts. Where you have an authority of your own (cert-manager, SPIRE,
/// Vault), use that: epochgate asks nothing special of a certificate.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, for a guard that is reached as db-guard and two writers:
  epochgate cert --dir pki guard --san db-guard --san 10.0.0.3
  epochgate cert --dir pki orders-a orders-b
  and in the configuration of the guard's listener:
    tls: { cert: pki/guard.crt, key: pki/guard.key, client_ca: pki/ca.crt }
  in that of a stamp's:
    upstream: { url: \"https://db-guard:8080\", tls: { ca: pki/ca.crt, cert: pki/orders-a.crt, key: pki/orders-a.key } }

Next:
  epochgate cert --dir pki --renew orders-a   before it ends, with the names that it has; a running sidecar takes it up
  epochgate check -c epochgate.yaml           does everything fit, and for how long?")]
pub struct CertArgs {
    /// Names: a writer's id, or the name of a guard
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// The folder for all of it
    #[arg(long, default_value = "pki", value_name = "FOLDER")]
    dir: PathBuf,

    /// One more name of each certificate, repeatable: a host name, an address, or a URI such as spiffe://prod/orders-a
    #[arg(long, value_name = "NAME")]
    san: Vec<String>,

    /// For how many days they hold
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=AUTHORITY_DAYS as i64))]
    days: u32,

    /// Replace those that are there; each keeps its names, and gets those of --san besides
    #[arg(long)]
    renew: bool,
}

/// Makes them.
pub fn run(args: &CertArgs) -> Exit {
    match make(args) {
        Ok(text) => print(&text),
        Err(problem) => {
            complain::error(&problem);
            Exit::Failed
        }
    }
}

fn make(args: &CertArgs) -> Result<String, String> {
    fs::create_dir_all(&args.dir).map_err(|error| format!("cannot make {}: {error}", args.dir.display()))?;
    if let Some(name) = args.names.iter().find(|name| !is_file_name(name)) {
        return Err(format!("'{name}' is no name: write letters, digits, '.', '_' or '-', and not ca"));
    }
    let taken =
        |name: &&String| !args.renew && (at(&args.dir, name, "crt").exists() || at(&args.dir, name, "key").exists());
    if let Some(name) = args.names.iter().find(taken) {
        let path = at(&args.dir, name, "crt");
        return Err(format!("{} is there already; --renew replaces it, and its key", path.display()));
    }
    let mut said = String::new();
    let issuer = match authority(&args.dir)? {
        Some(issuer) => issuer,
        None => {
            let issuer = new_authority(&args.dir)?;
            said += &format!(
                "{}\tan authority: trust it, and keep {} safe\n",
                at(&args.dir, "ca", "crt").display(),
                at(&args.dir, "ca", "key").display()
            );
            issuer
        }
    };
    for name in &args.names {
        let names = names(args, name)?;
        let until = issue(&issuer, args, name, &names)?;
        let path = at(&args.dir, name, "crt");
        said += &format!("{}\tholds until {until}, for {}; its key is beside it\n", path.display(), names.join(", "));
    }
    Ok(said)
}

fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name != "ca" && !name.starts_with(['.', '-']) && name.bytes().all(plain)
}

fn at(dir: &Path, name: &str, end: &str) -> PathBuf {
    dir.join(format!("{name}.{end}"))
}

/// The authority that the folder has; `None` where it has none.
fn authority(dir: &Path) -> Result<Option<Issuer<'static, KeyPair>>, String> {
    let (cert, key) = (at(dir, "ca", "crt"), at(dir, "ca", "key"));
    if !cert.exists() && !key.exists() {
        return Ok(None);
    }
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map(Zeroizing::new);
        text.map_err(|error| format!("cannot read {}: {error}; both ca.crt and ca.key are needed", path.display()))
    };
    let (cert_text, key_text) = (read(&cert)?, read(&key)?);
    let bad = |path: &Path, error: rcgen::Error| format!("{} is no authority's: {error}", path.display());
    let pair = KeyPair::from_pem(&key_text).map_err(|error| bad(&key, error))?;
    Issuer::from_ca_cert_pem(&cert_text, pair).map(Some).map_err(|error| bad(&cert, error))
}

fn new_authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, String> {
    let failed = |error: rcgen::Error| format!("cannot make an authority: {error}");
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(vec![]).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Two authorities of one name are taken for each other, and what is wrong is then hard to tell.
    let own: String = params.key_identifier(&key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("epochgate authority {own}"));
    hold(&mut params, AUTHORITY_DAYS);
    let cert = params.self_signed(&key).map_err(failed)?;
    write(&at(dir, "ca", "key"), &Zeroizing::new(key.serialize_pem()), 0o600)?;
    write(&at(dir, "ca", "crt"), &cert.pem(), 0o644)?;
    Ok(Issuer::new(params, key))
}

/// The names of a certificate to be: its own, those of the one that is replaced, those that were said.
fn names(args: &CertArgs, name: &str) -> Result<Vec<String>, String> {
    let mut names = vec![name.to_owned()];
    let path = at(&args.dir, name, "crt");
    if args.renew && path.exists() {
        let der = CertificateDer::from_pem_file(&path).map_err(|_| format!("{} is no certificate", path.display()))?;
        let old = Certificate::read(&der).ok_or_else(|| format!("{} cannot be read", path.display()))?;
        names.extend(old.names.dns.iter().chain(&old.names.uris).map(ToString::to_string));
        names.extend(old.addresses.iter().map(ToString::to_string));
    }
    names.extend(args.san.iter().cloned());
    let mut seen = Vec::new();
    names.retain(|name| {
        let is_new = !seen.contains(&name.to_ascii_lowercase());
        seen.push(name.to_ascii_lowercase());
        is_new
    });
    Ok(names)
}

fn issue(issuer: &Issuer<'static, KeyPair>, args: &CertArgs, name: &str, all: &[String]) -> Result<Date, String> {
    let failed = |error: rcgen::Error| format!("cannot make the certificate of {name}: {error}");
    let key = KeyPair::generate().map_err(failed)?;
    let (uris, hosts): (Vec<&String>, Vec<&String>) = all.iter().partition(|san| san.contains("://"));
    let mut params = CertificateParams::new(hosts.into_iter().cloned().collect::<Vec<_>>()).map_err(failed)?;
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(failed)?));
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let until = hold(&mut params, args.days);
    let cert = params.signed_by(&key, issuer).map_err(failed)?;
    // The key first: a sidecar that looks in between finds that the two are no pair, and keeps what it has.
    write(&at(&args.dir, name, "key"), &Zeroizing::new(key.serialize_pem()), 0o600)?;
    write(&at(&args.dir, name, "crt"), &cert.pem(), 0o644)?;
    Ok(until)
}

/// From yesterday on, for clocks that are behind; to the end of the last day.
fn hold(params: &mut CertificateParams, days: u32) -> Date {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |date: Date| {
        let part = |part: i8| u8::try_from(part).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    let (from, until) = (today.saturating_sub(1.days()), today.saturating_add(i64::from(days).days()));
    (params.not_before, params.not_after) = (day(from), day(until.saturating_add(1.days())));
    until
}

/// Writes a whole file beside the old one, then gives it its name: who reads finds one or the other.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let written = || -> io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tls::certificate::Purpose;

    fn args(dir: &Path, names: &[&str], renew: bool) -> CertArgs {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let san = vec!["db-guard".into(), "127.0.0.1".into(), "spiffe://prod/x".into()];
        CertArgs { names, dir: dir.to_owned(), san, days: 30, renew }
    }

    #[test]
    fn an_authority_is_made_once_and_certificates_as_often_as_they_are_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        make(&args(folder.path(), &["orders-a"], false)).expect("made");
        let ca = fs::read(at(folder.path(), "ca", "crt")).expect("it is there");
        let first = fs::read(at(folder.path(), "orders-a", "crt")).expect("it is there");
        for name in ["ca", "orders-a"] {
            let mode = fs::metadata(at(folder.path(), name, "key")).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let said = make(&args(folder.path(), &["orders-b", "orders-a"], false)).expect_err("it is there");
        assert!(said.contains("--renew"), "{said}");
        assert!(!at(folder.path(), "orders-b", "crt").exists(), "all or nothing");
        let plain = CertArgs { san: vec!["more".into()], ..args(folder.path(), &["orders-a"], true) };
        let said = make(&plain).expect("made");
        assert!(
            said.contains("for orders-a, db-guard, spiffe://prod/x, 127.0.0.1, more;"),
            "it keeps its names: {said}"
        );
        assert_ne!(fs::read(at(folder.path(), "orders-a", "crt")).expect("it is there"), first);
        assert_eq!(fs::read(at(folder.path(), "ca", "crt")).expect("it is there"), ca);

        let der = CertificateDer::from_pem_slice(&first).expect("PEM");
        let read = Certificate::read(&der).expect("a certificate");
        assert_eq!(read.names.dns, ["orders-a".into(), "db-guard".into()]);
        assert_eq!(read.names.uris, ["spiffe://prod/x".into()]);
        assert!(read.is_for(Purpose::Server) && read.is_for(Purpose::Client) && !read.is_authority);
        let now = Timestamp::now();
        assert!(read.not_before < now && read.not_after > now);

        for bad in ["", "ca", "../x", "a b", "-x"] {
            assert!(make(&args(folder.path(), &[bad], false)).is_err(), "{bad:?}");
        }
        fs::remove_file(at(folder.path(), "ca", "key")).expect("removed");
        assert!(make(&args(folder.path(), &["orders-c"], false)).expect_err("half of it is gone").contains("ca.key"));
    }
}
