//! Times that must be safe together: the inequalities of the reference, each with its numbers put in, and what the
//! times mean for a failover.

use std::time::Duration;

use super::problem::KeyPath;
use super::raw;
use super::resolve::{Listed, Placed, Resolver};
use super::resolved::{ClockTrust, Config, GuardLoss, OnTimeout, Role};
use super::units::show;

/// The time limit of one call to the coordinator where none is configured.
pub(super) fn derived_request_timeout(lease_ttl: Duration) -> Duration {
    (lease_ttl / 5).min(Duration::from_secs(1))
}

/// The coordinator's times as written, or by default.
struct Times {
    lease_ttl: Duration,
    request_timeout: Duration,
    verify_every: Duration,
    clock: ClockTrust,
}

impl Times {
    fn of(file: &raw::File) -> Times {
        let lease_ttl = file.coordinator.lease_ttl.value;
        let request_timeout = file.coordinator.request_timeout.as_ref();
        Times {
            lease_ttl,
            request_timeout: request_timeout.map_or_else(|| derived_request_timeout(lease_ttl), |wait| wait.value),
            verify_every: file.coordinator.verify_every.value,
            clock: ClockTrust { max_drift: file.clock.max_drift, margin: file.clock.margin.value },
        }
    }

    fn trusted(&self) -> Duration {
        self.clock.trusted(self.lease_ttl)
    }

    /// `5s*(1-0.01) - 100ms = 4.85s`
    fn trusted_in_words(&self) -> String {
        format!(
            "{}*(1-{}) - {} = {}",
            show(self.lease_ttl),
            self.clock.max_drift,
            show(self.clock.margin),
            show(self.trusted())
        )
    }
}

/// Reports every inequality that does not hold.
pub(super) fn check(file: &raw::File, listeners: &[Placed], listed: &Listed, resolver: &mut Resolver<'_>) {
    let coordinator = KeyPath::root().key("coordinator");
    let clock = KeyPath::root().key("clock");
    // What could not be read stands here with its default: nothing can be said of that.
    let readable = ["lease_ttl", "request_timeout", "verify_every"]
        .iter()
        .all(|key| !resolver.problems.mentions(&coordinator.key(key)));
    if readable && !resolver.problems.mentions(&clock) {
        let times = Times::of(file);
        lease_is_whole_seconds(&times, &coordinator, resolver);
        lease_is_kept_alive(&times, &coordinator, resolver);
        closing_guards_keep_up(&times, &coordinator, listeners, resolver);
    }
    if !resolver.problems.mentions(&KeyPath::root().key("drain")) {
        for placed in listeners {
            quarantine_outlasts(placed, listed, resolver);
        }
    }
}

/// (1)
fn lease_is_whole_seconds(times: &Times, coordinator: &KeyPath, resolver: &mut Resolver<'_>) {
    let ttl = times.lease_ttl;
    if ttl.subsec_nanos() != 0 || ttl < Duration::from_secs(2) {
        let path = coordinator.key("lease_ttl");
        let what = format!("{path}: {} is not a whole number of seconds of at least 2s, as leases are", show(ttl));
        let seconds = ttl.as_secs_f64().ceil().max(2.0);
        resolver.problem(&path, what, format!("write {seconds}s"));
    }
}

/// (2)
fn lease_is_kept_alive(times: &Times, coordinator: &KeyPath, resolver: &mut Resolver<'_>) {
    let (third, trusted) = (times.lease_ttl / 3, times.trusted());
    let needed = third + 2 * times.request_timeout;
    if needed < trusted {
        return;
    }
    let written = resolver.written(&coordinator.key("request_timeout"));
    let path = coordinator.key(if written { "request_timeout" } else { "lease_ttl" });
    let what = format!(
        "coordinator: lease_ttl/3 + 2*request_timeout < lease_ttl*(1-max_drift) - margin does not hold: {}/3 + 2*{} = {} is \
         not less than {}: a lease could run out between two attempts to keep it alive",
        show(times.lease_ttl),
        show(times.request_timeout),
        show(needed),
        times.trusted_in_words()
    );
    let room = trusted.saturating_sub(third) / 2;
    let help = if room > Duration::from_millis(1) {
        format!("set request_timeout to less than {}, or lengthen lease_ttl", show(room))
    } else {
        "lengthen lease_ttl, or lower clock.max_drift or clock.margin".to_owned()
    };
    resolver.problem(&path, what, help);
}

/// (3)
fn quarantine_outlasts(placed: &Placed, listed: &Listed, resolver: &mut Resolver<'_>) {
    let Placed { path, listener } = placed;
    let upstream_path = path.key("upstream");
    if !matches!(listener.role, Role::Guard(_)) || resolver.problems.mentions(&upstream_path) {
        return;
    }
    let (response, send) = (listener.upstream.response_timeout, listener.upstream.send_timeout);
    let needed = response + send;
    for resource in &listener.serves {
        let Some(settings) = listed.resources.get(resource) else { continue };
        let quarantine = settings.drain.quarantine;
        if quarantine >= needed || resolver.problems.is_full() {
            continue;
        }
        let key = listed.keys.get(resource).map_or(resource.as_str(), |key| &**key);
        let own = KeyPath::root().key("resources").key(key).key("drain").key("quarantine");
        let general = KeyPath::root().key("drain").key("quarantine");
        let candidates = [&own, &general, &upstream_path.key("response_timeout"), &upstream_path.key("send_timeout")];
        let at = candidates.into_iter().find(|path| resolver.written(path)).unwrap_or(&upstream_path).clone();
        let name = if resolver.written(&own) { &own } else { &general };
        let what = format!(
            "{path}: {name} >= upstream.response_timeout + upstream.send_timeout does not hold: {} is less than {} + {} = {}: \
             a write could still take effect when the drain ends",
            show(quarantine),
            show(response),
            show(send),
            show(needed)
        );
        resolver.problem(&at, what, format!("set {name} to {} or more, or shorten the two timeouts", show(needed)));
    }
}

/// (4)
fn closing_guards_keep_up(times: &Times, coordinator: &KeyPath, listeners: &[Placed], resolver: &mut Resolver<'_>) {
    let closes = |placed: &&Placed| matches!(&placed.listener.role, Role::Guard(guard) if guard.on_coordinator_loss == GuardLoss::Close);
    let Some(closing) = listeners.iter().find(closes) else { return };
    let (needed, trusted) = (times.verify_every + times.request_timeout, times.trusted());
    if needed < trusted {
        return;
    }
    let written = resolver.written(&coordinator.key("verify_every"));
    let path = if written { coordinator.key("verify_every") } else { closing.path.key("on_coordinator_loss") };
    let what = format!(
        "{}: verify_every + request_timeout < lease_ttl*(1-max_drift) - margin does not hold: {} + {} = {} is not less than \
         {}: with `on_coordinator_loss: close` the guard would shut although the coordinator answers",
        closing.path,
        show(times.verify_every),
        show(times.request_timeout),
        show(needed),
        times.trusted_in_words()
    );
    let room = trusted.saturating_sub(times.request_timeout);
    resolver.problem(
        &path,
        what,
        format!("set coordinator.verify_every to less than {}, or lengthen lease_ttl", show(room)),
    );
}

/// How long something can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The longest; `None` where nothing ends it by itself.
    pub longest: Option<Duration>,
    /// How it comes about, with the numbers.
    pub formula: String,
}

impl Bound {
    fn of(longest: Duration, formula: String) -> Bound {
        Bound { longest: Some(longest), formula: format!("{formula} = {}", show(longest)) }
    }
}

/// What an unplanned failover takes at most, from the moment the leader dies, as far as the configured times decide
/// it: the coordinator answers within `request_timeout` (a leader change of etcd in between prolongs leases by up to
/// another `lease_ttl`), disks and hosts do not stand still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Until the lease of the dead leader has run out.
    pub detected: Bound,
    /// Until the next leader is elected and every guard refuses the old one.
    pub fenced: Bound,
    /// Until the new epoch is admitted, if every write that was under way gets its answer.
    pub recovered: Bound,
    /// The same if a write lost its answer, or if a guard had restarted uncleanly shortly before (residue): then
    /// `drain.quarantine` has to pass.
    pub recovered_with_residue: Bound,
}

/// etcd looks for expired leases twice a second, and its members have to agree on each end: a second is generous.
const NOTICED_LATE: Duration = Duration::from_secs(1);

/// What the configured times imply. Where the process has no guard listener, the guards' own configurations decide
/// when it is recovered.
pub fn exposure(config: &Config) -> Exposure {
    let coordinator = &config.coordinator;
    let (ttl, call) = (coordinator.lease_ttl, coordinator.request_timeout);
    let detected = ttl + NOTICED_LATE;
    let fenced = detected + 2 * call + coordinator.verify_every + call;
    let fenced_words = format!(
        "detected {} + an election of two calls 2*{} + a guard's next read {} + {}",
        show(detected),
        show(call),
        show(coordinator.verify_every),
        show(call)
    );
    Exposure {
        detected: Bound::of(
            detected,
            format!("lease_ttl {} + what the coordinator takes to notice {}", show(ttl), show(NOTICED_LATE)),
        ),
        fenced: Bound::of(fenced, fenced_words),
        recovered: recovered(config, fenced),
        recovered_with_residue: recovered_with_residue(config, fenced),
    }
}

fn guards(config: &Config) -> impl Iterator<Item = &super::resolved::Listener> {
    config.listeners.iter().map(|listener| &**listener).filter(|listener| matches!(listener.role, Role::Guard(_)))
}

const NO_GUARD: &str = "no guard listener here: the guards' configurations decide";

fn recovered(config: &Config, fenced: Duration) -> Bound {
    match guards(config).map(|listener| listener.upstream.response_timeout).max() {
        None => Bound { longest: None, formula: NO_GUARD.into() },
        Some(response) => {
            let words =
                format!("fenced {} + the longest answer upstream.response_timeout {}", show(fenced), show(response));
            Bound::of(fenced + response, words)
        }
    }
}

fn recovered_with_residue(config: &Config, fenced: Duration) -> Bound {
    let mut worst: Option<Bound> = None;
    for listener in guards(config) {
        for resource in &listener.serves {
            let Some(settings) = config.resources.get(resource) else { continue };
            let bound = with_residue(settings, listener.upstream.response_timeout, fenced);
            // Nothing is longer than what nothing ends.
            let is_worse = worst.as_ref().is_none_or(|worst| match (bound.longest, worst.longest) {
                (None, Some(_)) => true,
                (Some(new), Some(old)) => new > old,
                (_, None) => false,
            });
            if is_worse {
                worst = Some(bound);
            }
        }
    }
    worst.unwrap_or_else(|| Bound { longest: None, formula: NO_GUARD.into() })
}

fn with_residue(settings: &super::resolved::ResourceSettings, response: Duration, fenced: Duration) -> Bound {
    let drain = settings.drain;
    if drain.by_time {
        // Half-sent requests are cut at drain.timeout; those sent whole end with their answer or its timeout.
        let ends = drain.timeout.max(response);
        let words = format!(
            "fenced {} + the last connection ends: the longer of drain.timeout {} and upstream.response_timeout {} + \
             drain.quarantine {}",
            show(fenced),
            show(drain.timeout),
            show(response),
            show(drain.quarantine)
        );
        return Bound::of(fenced + ends + drain.quarantine, words);
    }
    let action = settings.fence_action.as_ref().map(|action| action.timeout);
    match (drain.on_timeout, action) {
        (OnTimeout::Open, action) => {
            let action = action.unwrap_or_default();
            let words = format!(
                "fenced {} + drain.timeout {} + fence_action.timeout {}, then opened by force",
                show(fenced),
                show(drain.timeout),
                show(action)
            );
            Bound::of(fenced + drain.timeout + action, words)
        }
        (OnTimeout::Hold, Some(action)) => {
            let formula = format!(
                "fenced {} + drain.timeout {} + fence_action.timeout {} if the fence action succeeds; else a person decides",
                show(fenced),
                show(drain.timeout),
                show(action)
            );
            Bound { longest: None, formula }
        }
        (OnTimeout::Hold, None) => {
            let formula = "drain.by_time is false and there is no fence action: a person decides".into();
            Bound { longest: None, formula }
        }
    }
}
