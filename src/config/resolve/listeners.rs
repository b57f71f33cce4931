//! The listeners.

use std::collections::HashMap;
use std::sync::Arc;

use super::Resolver;
use super::resources::Listed;
use super::rules::{self, check_listed};
use super::sessions;
use super::signatures;
use super::trust;
use crate::config::forms::UpstreamAt;
use crate::config::problem::KeyPath;
use crate::config::raw::{self, Allow, CoordinatorLoss, OF_A_GUARD, OF_A_STAMP};
use crate::config::resolved::{
    Control, GuardLoss, GuardSettings, IncomingStamp, Limits, Listener, Mode, Role, StampSettings, UntilArmed,
    Upstream, UpstreamTls, UpstreamVersion,
};
use crate::fence::Resource;
use crate::rules::Rules;

/// A listener, and where it stands in the file.
pub(in crate::config) struct Placed {
    pub(in crate::config) path: KeyPath,
    pub(in crate::config) listener: Listener,
}

/// Resolves every listener that has what it needs.
pub(super) fn resolve(
    file: &raw::File,
    listed: &Listed,
    none_is_right: bool,
    resolver: &mut Resolver<'_>,
) -> Vec<Placed> {
    let path = KeyPath::root().key("listeners");
    if file.listeners.is_empty() && !none_is_right && !resolver.problems.mentions(&path) {
        let help = "add one: `- { name: orders-guard, role: guard, listen: \":8080\", upstream: { url: \"http://127.0.0.1:9000\" }, \
                    resource: orders }`";
        resolver.problem(&path, "there is no listener: nothing to do", help);
    }
    let mut placed = Vec::with_capacity(file.listeners.len());
    for (at, written) in file.listeners.iter().enumerate() {
        let path = path.index(at);
        if let Some(listener) = written.as_ref().and_then(|written| listener(written, &path, listed, resolver)) {
            placed.push(Placed { path, listener });
        }
    }
    names_differ(file, resolver);
    targets_differ(&placed, resolver);
    doors_agree(&placed, resolver);
    placed
}

fn listener(written: &raw::Listener, path: &KeyPath, listed: &Listed, resolver: &mut Resolver<'_>) -> Option<Listener> {
    let protocol = sessions::protocol(written, path, resolver);
    let rules = rules::resolve(written, path, listed, resolver);
    if written.resource.is_none() && written.rules.is_empty() && !resolver.problems.mentions(path) {
        let help = "add resource: orders, or rules that name resources";
        resolver.problem(path, format!("{path} can name no resource"), help);
    }
    let role = written.role.and_then(|role| match role {
        raw::Role::Guard => {
            refuse_keys(OF_A_STAMP, "stamp", path, resolver);
            refuse_unarmed(written, path, resolver);
            guard(written, path, resolver)
        }
        raw::Role::Stamp => {
            refuse_keys(OF_A_GUARD, "guard", path, resolver);
            stamp(written, path, &rules, listed, resolver)
        }
    });
    let limits = limits(&written.limits, path, resolver);
    let tls = trust::of_listener(written, path, resolver);
    let upstream_tls = written.upstream.as_ref().and_then(|upstream| trust::of_upstream(upstream, path, resolver));
    let control = sessions::control(written, protocol, path, resolver);
    let identities = trust::identities(written, path, listed, resolver);
    let signatures =
        written.signatures.as_ref().map(|signatures| signatures::resolve(signatures, written, path, resolver));
    Some(Listener {
        name: written.name.as_ref()?.value.as_str().into(),
        protocol,
        role: role?,
        listen: written.listen.as_ref()?.value.clone(),
        socket_mode: written.socket_mode.value,
        tls,
        proxy_protocol: sessions::proxy_protocol(written, protocol),
        stale: sessions::stale(written, protocol),
        identities,
        upstream: upstream(written.upstream.as_ref()?, upstream_tls, control)?,
        resource: written.resource.as_ref().map(|resource| resource.value.clone()),
        serves: rules.resources().to_vec(),
        rules,
        limits,
        signatures,
    })
}

/// Keys of the other role would have no effect.
fn refuse_keys(keys: &[&str], of: &str, path: &KeyPath, resolver: &mut Resolver<'_>) {
    for key in keys {
        let path = path.key(key);
        if resolver.written(&path) {
            let what = format!("{path}: '{key}' is a key of a {of}, and this listener is none");
            resolver.problem_of_key(&path, what, "take it out, or change role");
        }
    }
}

fn refuse_unarmed(written: &raw::Listener, path: &KeyPath, resolver: &mut Resolver<'_>) {
    for (at, rule) in written.rules.iter().enumerate() {
        if rule.as_ref().is_some_and(|rule| rule.unarmed.is_some()) {
            let path = path.key("rules").index(at).key("unarmed");
            resolver.problem(
                &path,
                format!("{path}: a guard has no terms of its own"),
                "take it out: it is for a stamp",
            );
        }
    }
}

fn guard(written: &raw::Listener, path: &KeyPath, resolver: &mut Resolver<'_>) -> Option<Role> {
    let shared = matches!(written.doors, raw::DoorKind::Shared);
    let on_coordinator_loss = match written.on_coordinator_loss {
        None if shared => GuardLoss::Close,
        Some(CoordinatorLoss::Keep) if shared => {
            let path = path.key("on_coordinator_loss");
            let what = format!("{path}: with 'keep' a shared door would go on while the others open without it");
            resolver.problem(&path, what, "write close, or leave it out");
            GuardLoss::Close
        }
        None | Some(CoordinatorLoss::Keep) => GuardLoss::Keep,
        Some(CoordinatorLoss::Close) => GuardLoss::Close,
        Some(CoordinatorLoss::Stop) => {
            let path = path.key("on_coordinator_loss");
            resolver.problem(&path, format!("{path}: 'stop' is for a stamp"), "write keep or close");
            GuardLoss::Keep
        }
    };
    let target = written.target.as_ref().map(|target| target.value.as_str());
    let from_name = || written.name.as_ref().map(|name| default_target(&name.value));
    Some(Role::Guard(GuardSettings {
        mode: match written.mode {
            raw::Mode::Enforce => Mode::Enforce,
            raw::Mode::Audit => Mode::Audit,
        },
        target: target.or_else(from_name)?.into(),
        shared,
        on_coordinator_loss,
        fence_reads: written.fence_reads,
        bare_stamps: written.bare_stamps == Allow::Allow,
        forward_stamp: written.forward_stamp,
    }))
}

fn default_target(name: &str) -> &str {
    name.strip_suffix("-guard").unwrap_or(name)
}

fn stamp(
    written: &raw::Listener,
    path: &KeyPath,
    rules: &Rules,
    listed: &Listed,
    resolver: &mut Resolver<'_>,
) -> Option<Role> {
    let keep_on_coordinator_loss = match written.on_coordinator_loss {
        None | Some(CoordinatorLoss::Stop) => false,
        Some(CoordinatorLoss::Keep) => true,
        Some(CoordinatorLoss::Close) => {
            let path = path.key("on_coordinator_loss");
            resolver.problem(&path, format!("{path}: 'close' is for a guard"), "write stop or keep");
            false
        }
    };
    Some(Role::Stamp(StampSettings {
        advertise: written.advertise.as_ref().map(|address| address.value.url.as_str().into()),
        campaign: campaign(written, path, rules, listed, resolver),
        incoming_stamp: match written.incoming_stamp {
            raw::IncomingStamp::Refuse => IncomingStamp::Refuse,
            raw::IncomingStamp::Require => IncomingStamp::Require,
            raw::IncomingStamp::Strip => IncomingStamp::Strip,
        },
        expect_required: matches!(written.expect, raw::Expect::Require),
        until_armed: match written.until_armed {
            raw::UntilArmed::Hold => UntilArmed::Hold,
            raw::UntilArmed::Refuse => UntilArmed::Refuse,
            raw::UntilArmed::Pass => UntilArmed::Pass,
        },
        keep_on_coordinator_loss,
    }))
}

fn campaign(
    written: &raw::Listener,
    path: &KeyPath,
    rules: &Rules,
    listed: &Listed,
    resolver: &mut Resolver<'_>,
) -> Vec<Resource> {
    let Some(names) = &written.campaign else { return rules.resources().to_vec() };
    let path = path.key("campaign");
    for (at, name) in names.iter().map(|name| &name.value).enumerate() {
        let path = path.index(at);
        if !listed.resources.contains_key(name) {
            check_listed(name.as_str(), &path, listed, resolver);
        } else if rules.resources().binary_search(name).is_err() {
            let what = format!("{path}: no request of this listener can name '{name}'");
            resolver.problem(&path, what, "take it out, or make it the listener's resource, or name it in a rule");
        }
    }
    let mut names: Vec<Resource> = names.iter().map(|name| name.value.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn upstream(written: &raw::Upstream, tls: Option<UpstreamTls>, control: Option<Control>) -> Option<Upstream> {
    let (url, authority, socket) = match &written.url.as_ref()?.value {
        UpstreamAt::Origin(origin) => (origin.url.clone(), origin.authority.as_str(), None),
        UpstreamAt::Unix(path) => (format!("unix:{}", path.display()), "localhost", Some(path.clone())),
    };
    Some(Upstream {
        url: url.into(),
        authority: authority.into(),
        socket,
        tls,
        control,
        version: match written.version {
            raw::Version::Same => UpstreamVersion::Same,
            raw::Version::Http1 => UpstreamVersion::Http1,
            raw::Version::Http2 => UpstreamVersion::Http2,
        },
        connect_timeout: written.connect_timeout.value,
        response_timeout: written.response_timeout.value,
        send_timeout: written.send_timeout.value,
        idle_timeout: written.idle_timeout.value,
        no_answer: written.no_answer.clone(),
    })
}

fn limits(written: &raw::Limits, path: &KeyPath, resolver: &mut Resolver<'_>) -> Limits {
    let header_bytes = written.header_bytes.value;
    if !(1 << 10..=16 << 20).contains(&header_bytes) {
        let path = path.key("limits").key("header_bytes");
        resolver.problem(&path, format!("{path}: {header_bytes} bytes are out of range"), "write 1KiB to 16MiB");
    }
    Limits {
        connections: written.connections as usize,
        connections_per_peer: written.connections_per_peer.map(|most| most as usize),
        streams: written.streams,
        headers: written.headers as usize,
        header_bytes,
        header_timeout: written.header_timeout.value,
        body_idle_timeout: written.body_idle_timeout.value,
        answer_idle_timeout: written.answer_idle_timeout.value,
        idle_timeout: written.idle_timeout.value,
    }
}

fn names_differ(file: &raw::File, resolver: &mut Resolver<'_>) {
    let mut seen: HashMap<&str, KeyPath> = HashMap::new();
    for (at, written) in file.listeners.iter().enumerate() {
        let Some(name) = written.as_ref().and_then(|written| written.name.as_ref()) else { continue };
        let path = KeyPath::root().key("listeners").index(at).key("name");
        if let Some(other) = seen.get(name.value.as_str()) {
            let what = format!("{path}: '{}' is the name of another listener too ({other})", name.value);
            resolver.problem(&path, what, "give each listener its own name");
        } else {
            seen.insert(&name.value, path);
        }
    }
}

/// Two doors of one target cannot be in one process: they would share a floor file and contradict each other.
fn targets_differ(placed: &[Placed], resolver: &mut Resolver<'_>) {
    let mut seen: HashMap<(Arc<str>, &Resource), &str> = HashMap::new();
    for Placed { path, listener } in placed {
        let Role::Guard(guard) = &listener.role else { continue };
        let mut told = false;
        for resource in &listener.serves {
            let other = *seen.entry((Arc::clone(&guard.target), resource)).or_insert(&listener.name);
            if other != &*listener.name && !told {
                told = true;
                let what = format!(
                    "{path}: the listeners '{other}' and '{}' both guard '{resource}' at the target '{}'",
                    listener.name, guard.target
                );
                let help = "a target has one door for a resource: give another target its own name with target:, or use one listener";
                resolver.problem(&path.key("target"), what, help);
            }
        }
    }
}

/// Listeners before one target are one door, with one record: it cannot agree with others for some resources, and be
/// the only one for the rest, nor enforce for some, and only count for the rest: a proof that goes by the record would
/// count what the other lets through as fenced.
fn doors_agree(placed: &[Placed], resolver: &mut Resolver<'_>) {
    let mut seen: HashMap<&str, (&str, bool, Mode)> = HashMap::new();
    for Placed { path, listener } in placed {
        let Role::Guard(guard) = &listener.role else { continue };
        let first = (&*listener.name, guard.shared, guard.mode);
        let (other, shared, mode) = *seen.entry(&guard.target).or_insert(first);
        let differs = [
            (shared != guard.shared, "doors", "only one of them is shared"),
            (mode != guard.mode, "mode", "only one of them enforces"),
        ];
        for (_, key, how) in differs.into_iter().filter(|(differs, ..)| *differs) {
            let path = path.key(key);
            let what = format!(
                "{path}: the listeners '{other}' and '{}' are one door of the target '{}', and {how}",
                listener.name, guard.target
            );
            resolver.problem(&path, what, format!("write the same {key}: for both"));
        }
    }
}
