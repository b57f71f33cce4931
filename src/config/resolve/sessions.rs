//! What a listener speaks, and what goes with that alone.

use super::Resolver;
use crate::config::forms::UpstreamAt;
use crate::config::problem::KeyPath;
use crate::config::raw;
use crate::config::resolved::{Control, Network, Protocol, ProxyProtocol, Stale};
use crate::config::units::Origin;

/// Keys that say something of HTTP requests.
const OF_HTTP: &[&[&str]] = &[
    &["rules"],
    &["fence_reads"],
    &["forward_stamp"],
    &["expect"],
    &["upstream", "version"],
    &["upstream", "no_answer"],
    &["upstream", "idle_timeout"],
    &["limits", "streams"],
    &["limits", "headers"],
    &["limits", "header_bytes"],
    &["limits", "body_idle_timeout"],
    &["limits", "answer_idle_timeout"],
    &["limits", "idle_timeout"],
];

/// What a listener speaks; refuses the keys that would have no effect with it.
pub(super) fn protocol(written: &raw::Listener, path: &KeyPath, resolver: &mut Resolver<'_>) -> Protocol {
    let protocol = match written.protocol {
        raw::Protocol::Http => Protocol::Http,
        raw::Protocol::Tcp => Protocol::Tcp,
        raw::Protocol::Postgres => Protocol::Postgres,
        raw::Protocol::Redis => Protocol::Redis,
    };
    if protocol.has_sessions() {
        for key in OF_HTTP {
            refuse_key(key, "protocol: http", path, resolver);
        }
    }
    if protocol == Protocol::Redis {
        let path = path.key("signatures");
        if resolver.written(&path) {
            // A connection's stamp stands for all of its writes, for longer than a signature may be old.
            let what = format!("{path}: signed stamps are not in this version for redis");
            resolver.problem_of_key(&path, what, "take it out, and let the link have TLS with client certificates");
        }
    }
    if !matches!(protocol, Protocol::Postgres | Protocol::Redis) {
        refuse_key(&["stale"], "protocol: postgres or redis", path, resolver);
        refuse_key(&["upstream", "control"], "protocol: postgres or redis", path, resolver);
    }
    scheme_fits(written, protocol, path, resolver);
    protocol
}

fn refuse_key(key: &[&str], of: &str, path: &KeyPath, resolver: &mut Resolver<'_>) {
    let path = key.iter().fold(path.clone(), |path, part| path.key(part));
    if resolver.written(&path) {
        let what = format!("{path}: it is a key for {of}, and has no effect here");
        resolver.problem_of_key(&path, what, "take it out");
    }
}

fn scheme_fits(written: &raw::Listener, protocol: Protocol, path: &KeyPath, resolver: &mut Resolver<'_>) {
    let Some(UpstreamAt::Origin(Origin { url, scheme, .. })) = upstream_of(written) else { return };
    let schemes: &[&str] = match protocol {
        Protocol::Http => &["http", "https"],
        Protocol::Tcp => &["tcp", "tls"],
        Protocol::Postgres => &["postgres"],
        Protocol::Redis => &["redis", "rediss"],
    };
    if !schemes.contains(scheme) {
        let path = path.key("upstream").key("url");
        let what = format!("{path}: the listener speaks {}, and {url} does not", protocol.as_str());
        resolver.problem(&path, what, format!("write {}://, or change protocol", schemes.join(":// or ")));
    }
}

fn upstream_of(written: &raw::Listener) -> Option<&UpstreamAt> {
    Some(&written.upstream.as_ref()?.url.as_ref()?.value)
}

/// Whose PROXY protocol header is read: of the stamps of this host, at a guard of sessions that does not say more.
pub(super) fn proxy_protocol(written: &raw::Listener, protocol: Protocol) -> Option<ProxyProtocol> {
    let by_default = || {
        let reads_stamps = protocol.has_sessions() && written.role == Some(raw::Role::Guard);
        reads_stamps.then(raw::ProxyProtocol::default)
    };
    let resolve = |written: &raw::ProxyProtocol| {
        let from: Vec<Network> = written.from.iter().map(|network| network.value).collect();
        ProxyProtocol { from, required: written.required }
    };
    written.proxy_protocol.as_ref().map(resolve).or_else(|| by_default().as_ref().map(resolve))
}

/// What becomes of what is stale.
pub(super) fn stale(written: &raw::Listener, protocol: Protocol) -> Stale {
    match (written.stale, protocol) {
        (Some(raw::Stale::ReadOnly), _) | (None, Protocol::Redis) => Stale::ReadOnly,
        (Some(raw::Stale::Refuse) | None, _) => Stale::Refuse,
    }
}

/// The guard's own connection to the target.
pub(super) fn control(
    written: &raw::Listener,
    protocol: Protocol,
    path: &KeyPath,
    resolver: &mut Resolver<'_>,
) -> Option<Control> {
    let control = written.upstream.as_ref()?.control.as_ref()?;
    let path = path.key("upstream").key("control");
    if written.role == Some(raw::Role::Stamp) {
        let what = format!("{path}: a stamp has no target of its own");
        resolver.problem_of_key(&path, what, "take it out: it is for the guard");
    }
    if matches!(upstream_of(written), Some(UpstreamAt::Unix(_))) {
        let what = format!("{path}: behind a unix socket sessions have no address to be known by");
        resolver.problem_of_key(&path, what, "connect over TCP: postgres://127.0.0.1:5432, or take control out");
    }
    for (key, is_there) in [("database", control.database.is_some()), ("schema", control.schema.is_some())] {
        if protocol == Protocol::Redis && is_there {
            let path = path.key(key);
            resolver.problem_of_key(&path, format!("{path}: Redis has no such thing"), "take it out");
        }
    }
    let default_user = (protocol == Protocol::Postgres).then(|| "epochgate".to_owned());
    Some(Control {
        user: control.user.as_ref().map(|user| user.value.clone()).or(default_user),
        password_file: control.password_file.as_ref().map(|file| file.value.clone()),
        database: control.database.as_ref().map_or_else(|| "postgres".to_owned(), |database| database.value.clone()),
        schema: control.schema.as_ref().map_or_else(|| "epochgate".to_owned(), |schema| schema.value.clone()),
    })
}
