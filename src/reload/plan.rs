//! Which changes of a configuration need a restart.

use crate::config::Config;
use crate::config::resolved::{GuardSettings, Listener, Role, StampSettings};

/// The keys whose change needs a restart; none where all that changed can be had without one.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let of_all = [
        ("id", old.id != new.id),
        ("state_dir", old.state_dir != new.state_dir),
        ("header", old.header != new.header),
        ("coordinator", old.coordinator != new.coordinator),
        ("clock", old.clock != new.clock),
        // Also what `drain` and `hold` say of each.
        ("resources, drain or hold", old.resources != new.resources || old.hold != new.hold),
        ("doors", old.lapsed != new.lapsed),
        ("step_down", old.step_down != new.step_down),
        ("shutdown", old.shutdown_grace != new.shutdown_grace),
        ("admin", old.admin != new.admin),
        ("audit", old.audit != new.audit),
        ("history", old.history != new.history),
        ("log.format", old.log.format != new.log.format),
        ("workers", old.workers != new.workers),
    ];
    let mut keys: Vec<String> = changed(of_all).map(str::to_owned).collect();
    let names = |config: &Config| config.listeners.iter().map(|listener| listener.name.clone()).collect::<Vec<_>>();
    if names(old) != names(new) {
        keys.push("listeners (added, taken out, renamed or in another order)".to_owned());
        return keys;
    }
    for (at, (old, new)) in old.listeners.iter().zip(&new.listeners).enumerate() {
        keys.extend(of_listener(old, new).into_iter().map(|key| format!("listeners[{at}].{key}")));
    }
    keys
}

fn of_listener(old: &Listener, new: &Listener) -> Vec<&'static str> {
    let mut keys = match (&old.role, &new.role) {
        (Role::Guard(old), Role::Guard(new)) => of_guard(old, new),
        (Role::Stamp(old), Role::Stamp(new)) => of_stamp(old, new),
        _ => vec!["role"],
    };
    let rest = [
        ("protocol", old.protocol != new.protocol),
        // The gates, and the proof of their drains, go by it.
        (
            "upstream (what a control connection reaches)",
            old.upstream.control != new.upstream.control
                || (old.upstream.control.is_some() && old.upstream.authority != new.upstream.authority),
        ),
        ("listen", old.listen != new.listen),
        ("socket_mode", old.socket_mode != new.socket_mode),
        // Its counters are made at the start.
        ("tls (added or taken out)", old.tls.is_some() != new.tls.is_some()),
        ("resource or rules (another set of resources)", old.serves != new.serves),
    ];
    keys.extend(changed(rest));
    keys
}

fn of_guard(old: &GuardSettings, new: &GuardSettings) -> Vec<&'static str> {
    let all = [
        ("mode", old.mode != new.mode),
        ("target", old.target != new.target),
        ("doors", old.shared != new.shared),
        ("on_coordinator_loss", old.on_coordinator_loss != new.on_coordinator_loss),
        // The gates go by it.
        ("bare_stamps", old.bare_stamps != new.bare_stamps),
    ];
    changed(all).collect()
}

fn of_stamp(old: &StampSettings, new: &StampSettings) -> Vec<&'static str> {
    let all = [
        ("advertise", old.advertise != new.advertise),
        ("campaign", old.campaign != new.campaign),
        ("on_coordinator_loss", old.keep_on_coordinator_loss != new.keep_on_coordinator_loss),
    ];
    changed(all).collect()
}

fn changed<const N: usize>(keys: [(&'static str, bool); N]) -> impl Iterator<Item = &'static str> {
    keys.into_iter().filter_map(|(key, changed)| changed.then_some(key))
}
