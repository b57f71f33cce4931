//! Where epochs live.

use super::Resolver;
use crate::config::problem::KeyPath;
use crate::config::raw;
use crate::config::resolved::{Coordinator, CoordinatorKind, Etcd, EtcdTls};
use crate::config::times;

pub(super) fn resolve(written: &raw::Coordinator, resolver: &mut Resolver<'_>) -> Option<Coordinator> {
    let path = KeyPath::root().key("coordinator");
    let lease_ttl = written.lease_ttl.value;
    let derived = || times::derived_request_timeout(lease_ttl);
    Some(Coordinator {
        prefix: written.prefix.value.clone(),
        lease_ttl,
        request_timeout: written.request_timeout.as_ref().map_or_else(derived, |timeout| timeout.value),
        verify_every: written.verify_every.value,
        kind: kind(written, &path, resolver)?,
    })
}

fn kind(written: &raw::Coordinator, path: &KeyPath, resolver: &mut Resolver<'_>) -> Option<CoordinatorKind> {
    match (&written.etcd, &written.embedded) {
        (Some(_), Some(_)) => {
            let what = "coordinator has both etcd and embedded";
            resolver.problem_of_key(&path.key("embedded"), what, "epochs live in one place: take one of the two out");
            None
        }
        (Some(written), None) => etcd(written, &path.key("etcd"), resolver),
        (None, Some(file)) => Some(CoordinatorKind::Embedded(file.value.clone())),
        (None, None) => {
            // What was written and is bad has been reported.
            let bad = ["etcd", "embedded"].iter().any(|key| resolver.problems.mentions(&path.key(key)));
            if !bad && !resolver.problems.is_about(path) {
                let help = "write `coordinator: { etcd: { endpoints: [\"http://127.0.0.1:2379\"] } }` (--etcd), or, on one \
                            host, `coordinator: { embedded: ./epochgate.db }` (--embedded)";
                resolver.problem(path, "there is no coordinator: nothing says where epochs live", help);
            }
            None
        }
    }
}

fn etcd(written: &raw::Etcd, path: &KeyPath, resolver: &mut Resolver<'_>) -> Option<CoordinatorKind> {
    let endpoints = written.endpoints.as_deref().unwrap_or_default();
    let secure = endpoints.iter().filter(|endpoint| endpoint.value.secure).count();
    if secure > 0 && secure < endpoints.len() {
        let help = "use https for every member, or for none";
        resolver.problem(&path.key("endpoints"), "some endpoints are https and some are not", help);
    }
    let tls_path = path.key("tls");
    if let Some(tls) = &written.tls {
        if secure == 0 && !endpoints.is_empty() {
            let help = "write https:// in the endpoints, or take tls out";
            resolver.problem(&tls_path, "tls is configured, and no endpoint is https", help);
        }
        if tls.cert.is_some() != tls.key.is_some() {
            let help = "a client certificate needs both cert and key";
            resolver.problem(&tls_path, "tls has one of cert and key only", help);
        }
    }
    if secure > 0 && written.tls.as_ref().is_none_or(|tls| tls.ca.is_none()) && !resolver.written(&tls_path.key("ca")) {
        let help = "add tls: { ca: /etc/epochgate/etcd-ca.pem }: the system's authorities are not used";
        resolver.problem(&tls_path, "https endpoints need the authority to trust", help);
    }
    let user =
        written.user.as_ref().and_then(|user| Some((user.name.clone()?, user.password_file.as_ref()?.value.clone())));
    let file = |path: &Option<crate::config::forms::Written<crate::config::forms::Path>>| {
        path.as_ref().map(|p| p.value.clone())
    };
    Some(CoordinatorKind::Etcd(Etcd {
        endpoints: endpoints.iter().map(|endpoint| endpoint.value.url.clone()).collect(),
        tls: written.tls.as_ref().map(|tls| EtcdTls { ca: file(&tls.ca), cert: file(&tls.cert), key: file(&tls.key) }),
        user,
    }))
}
