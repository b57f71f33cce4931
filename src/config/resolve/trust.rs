//! Whom listeners and upstreams trust.

use super::Resolver;
use super::resources::Listed;
use crate::config::forms::{Path, UpstreamAt, Written};
use crate::config::problem::KeyPath;
use crate::config::raw::{self, TlsVersion};
use crate::config::resolved::{Identity, KeyPair, ListenAt, ListenerTls, San, UpstreamTls, Who};
use crate::fence::Resource;

fn file(path: &Option<Written<Path>>) -> Option<std::path::PathBuf> {
    path.as_ref().map(|path| path.value.clone())
}

/// TLS of a listener.
pub(super) fn of_listener(written: &raw::Listener, path: &KeyPath, resolver: &mut Resolver<'_>) -> Option<ListenerTls> {
    let tls = written.tls.as_ref()?;
    if let Some(ListenAt::Unix(_)) = written.listen.as_ref().map(|listen| &listen.value) {
        let path = path.key("tls");
        let what = format!("{path}: a unix socket needs no TLS: the kernel says who is there");
        resolver.problem_of_key(&path, what, "take tls out, and say with identities which users may write");
    }
    Some(ListenerTls {
        pair: KeyPair { cert: file(&tls.cert)?, key: file(&tls.key)? },
        client_ca: file(&tls.client_ca),
        only_tls13: tls.min_version == TlsVersion::Tls13,
    })
}

/// TLS of an upstream.
pub(super) fn of_upstream(written: &raw::Upstream, path: &KeyPath, resolver: &mut Resolver<'_>) -> Option<UpstreamTls> {
    let path = path.key("upstream").key("tls");
    let at = &written.url.as_ref()?.value;
    // PostgreSQL agrees on TLS within its own protocol: that it is wanted is said by `tls`.
    let by_choice = matches!(at, UpstreamAt::Origin(origin) if origin.scheme == "postgres");
    let secure = matches!(at, UpstreamAt::Origin(origin) if origin.secure) || (by_choice && written.tls.is_some());
    let tls = match (&written.tls, secure) {
        (None, false) => return None,
        (Some(tls), true) => tls,
        (Some(_), false) => {
            let help = "write https:// in url (tls:// for tcp, rediss:// for redis), or take tls out";
            resolver.problem_of_key(&path, format!("{path}: the upstream's URL is one without TLS"), help);
            return None;
        }
        (None, true) => {
            if !resolver.written(&path) {
                let help = "add tls: { ca: /etc/epochgate/ca.crt } to upstream: the system's authorities are not used";
                resolver.problem(&path, format!("{path}: an upstream with TLS needs the authority to trust"), help);
            }
            return None;
        }
    };
    if tls.cert.is_some() != tls.key.is_some() {
        let help = "a client certificate needs both cert and key";
        resolver.problem(&path, format!("{path} has one of cert and key only"), help);
    }
    let UpstreamAt::Origin(origin) = at else { return None };
    let host = origin.authority.rsplit_once(':').map_or(&*origin.authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let pair = file(&tls.cert).zip(file(&tls.key)).map(|(cert, key)| KeyPair { cert, key });
    Some(UpstreamTls {
        ca: file(&tls.ca)?,
        pair,
        server_name: tls.server_name.as_ref().map_or(host, |name| &name.value).into(),
        only_tls13: tls.min_version == TlsVersion::Tls13,
    })
}

/// Who may write; `None`: anybody who reaches the listener.
pub(super) fn identities(
    written: &raw::Listener,
    path: &KeyPath,
    listed: &Listed,
    resolver: &mut Resolver<'_>,
) -> Option<Vec<Identity>> {
    let asks_for_certificates = written.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let is_guard = written.role == Some(raw::Role::Guard);
    let Some(all) = &written.identities else {
        let own_name = Identity { who: Who::Named(San::new(false, "", Some(""))), writer: None, resources: None };
        return (is_guard && asks_for_certificates).then(|| vec![own_name]);
    };
    let on_socket = matches!(written.listen.as_ref().map(|listen| &listen.value), Some(ListenAt::Unix(_)));
    let path = path.key("identities");
    let mut identities = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let path = path.index(at);
        let Some(one) = one else { continue };
        let who = match (&one.san, one.uid) {
            (Some(san), None) => Who::Named(san.value.clone()),
            (None, Some(uid)) => Who::User(uid),
            _ => {
                if !resolver.problems.mentions(&path) {
                    let help = "write san: for a name of a certificate, or uid: for a user of this host";
                    resolver.problem(&path, format!("{path} needs one of san and uid"), help);
                }
                continue;
            }
        };
        let fits = match &who {
            Who::Named(_) if !asks_for_certificates => {
                Some(("san", "no client shows a certificate here", "add tls.client_ca"))
            }
            Who::User(_) if !on_socket => {
                Some(("uid", "only a unix socket says whose process it is", "write listen: unix:/…, or san:"))
            }
            _ => None,
        };
        if let Some((key, what, help)) = fits {
            let path = path.key(key);
            resolver.problem_of_key(&path, format!("{path}: {what}"), help);
        }
        let says_writer = matches!(&who, Who::Named(San { after: Some(_), .. }));
        if is_guard && one.writer.is_none() && !says_writer && !resolver.written(&path.key("writer")) {
            let help = "add writer: orders-a, or {writer} to san";
            resolver.problem(&path, format!("{path} does not say as which writer"), help);
        }
        identities.push(Identity {
            who,
            writer: one.writer.as_ref().map(|writer| writer.value.clone()),
            resources: one.resources.as_ref().map(|names| resources(names, &path, listed, resolver)),
        });
    }
    Some(identities)
}

/// The resources that these keys of `resources` stand for.
fn resources(names: &[String], path: &KeyPath, listed: &Listed, resolver: &mut Resolver<'_>) -> Vec<Resource> {
    let mut found = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let before = found.len();
        let is_meant = |resource: &&Resource| {
            resource.as_str() == name || listed.keys.get(*resource).is_some_and(|key| **key == **name)
        };
        found.extend(listed.resources.keys().filter(is_meant).cloned());
        if found.len() == before {
            let path = path.key("resources").index(at);
            let help = "write it as it stands under resources at the top, a range whole";
            resolver.problem(&path, format!("{path}: '{name}' is not listed under resources"), help);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
