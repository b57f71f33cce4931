//! What is allowed and rarely meant.

use super::problem::KeyPath;
use super::raw;
use super::resolve::{Listed, Placed, Resolver};
use super::resolved::{IncomingStamp, Mode, OnTimeout, Role};
use super::units::show;

/// Warns of everything that is worth it, each once.
pub(super) fn warn(file: &raw::File, listeners: &[Placed], listed: &Listed, resolver: &mut Resolver<'_>) {
    let root = KeyPath::root();
    for placed in listeners {
        match &placed.listener.role {
            Role::Guard(guard) => {
                if guard.mode == Mode::Audit {
                    let path = placed.path.key("mode");
                    let what = format!("{path}: audit forwards everything: nothing is fenced here");
                    resolver.warning(&path, what, "write enforce once the log shows only what should be refused");
                }
                of_drains(file, placed, listed, resolver);
                of_signatures(file, placed, listed, resolver);
            }
            Role::Stamp(stamp) => {
                if stamp.keep_on_coordinator_loss {
                    let path = placed.path.key("on_coordinator_loss");
                    let what = format!("{path}: keep goes on stamping after the lease has run out");
                    resolver.warning(&path, what, "right only where every effect of the writer goes through a guard");
                }
                if stamp.incoming_stamp == IncomingStamp::Strip {
                    let path = placed.path.key("incoming_stamp");
                    let what =
                        format!("{path}: strip is unsafe: a write meant for an old term leaves under the new one");
                    resolver.warning(&path, what, "write refuse, or require and let the service stamp");
                }
            }
        }
    }
    let (grace, timeout) = (file.shutdown.grace.value, file.drain.timeout.value);
    if grace < timeout {
        let path = root.key("shutdown").key("grace");
        let what = format!("shutdown.grace ({}) is shorter than drain.timeout ({})", show(grace), show(timeout));
        resolver.warning(&path, what, "a stop may then leave residue, which the next start has to wait for");
    }
    unused(listeners, listed, resolver);
}

fn of_drains(file: &raw::File, placed: &Placed, listed: &Listed, resolver: &mut Resolver<'_>) {
    let root = KeyPath::root();
    for resource in &placed.listener.serves {
        let Some(settings) = listed.resources.get(resource) else { continue };
        if resolver.warnings.is_full() {
            return;
        }
        let key = listed.keys.get(resource).map_or(resource.as_str(), |key| &**key);
        let own = root.key("resources").key(key);
        let or_general = |resolver: &Resolver<'_>, map: &str, key: &str| {
            let own = own.key(map).key(key);
            if resolver.written(&own) { own } else { root.key(map).key(key) }
        };
        let hold = settings.hold_timeout.unwrap_or(file.hold.timeout.value);
        let (hold_path, quarantine) =
            (or_general(resolver, "hold", "timeout"), or_general(resolver, "drain", "quarantine"));
        // So it is by default: who wrote neither has nothing to mend.
        let is_meant = resolver.written(&hold_path) || resolver.written(&quarantine);
        if is_meant && hold < settings.drain.quarantine {
            let what = format!(
                "{hold_path} ({}) is shorter than {quarantine} ({}): held writes are refused while a lost write or residue runs out",
                show(hold),
                show(settings.drain.quarantine)
            );
            resolver.warning(&hold_path, what, "lengthen it where clients can wait; else they see 503 and try again");
        }
        if settings.drain.on_timeout == OnTimeout::Open {
            let path = or_general(resolver, "drain", "on_timeout");
            let what = format!("{path}: open lets a new epoch in although a write of the old one may still land");
            resolver.warning(&path, what, "write hold, and give the resource a fence_action");
        }
    }
}

fn of_signatures(file: &raw::File, placed: &Placed, listed: &Listed, resolver: &mut Resolver<'_>) {
    let Some(signatures) = &placed.listener.signatures else { return };
    let path = placed.path.key("signatures");
    if !signatures.required {
        let path = path.key("required");
        let what = format!("{path}: false takes stamps without a signature too: who can reach this door can forge one");
        resolver.warning(&path, what, "write true, or leave it out, once every stamp signs");
    }
    let holds = placed.listener.serves.iter().filter_map(|resource| listed.resources.get(resource)?.hold_timeout);
    let longest = holds.max().unwrap_or(file.hold.timeout.value).max(file.hold.timeout.value);
    if signatures.window <= longest {
        let path = path.key("window");
        let what = format!(
            "{path} ({}) is not longer than hold.timeout ({}): a write that was held may be out of it when it goes on",
            show(signatures.window),
            show(longest)
        );
        resolver.warning(&path, what, "lengthen the window, or hold for a shorter time");
    }
}

/// A resource that a flag lists beside the first is named by no rule of the single listener.
fn unused(listeners: &[Placed], listed: &Listed, resolver: &mut Resolver<'_>) {
    if listeners.is_empty() {
        return;
    }
    let root = KeyPath::root().key("resources");
    for resource in listed.resources.keys() {
        let Some(key) = listed.keys.get(resource) else { continue };
        let served = || listeners.iter().any(|placed| placed.listener.serves.binary_search(resource).is_ok());
        let path = root.key(key);
        if matches!(resolver.tree.nearest(&path), super::problem::Place::Flag(_)) && !served() {
            let what = format!("no request can name the resource '{resource}'");
            resolver.warning(
                &path,
                what,
                "a listener without rules has one resource: write a file with rules for more",
            );
        }
    }
}
