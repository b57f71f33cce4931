//! The names, helps, labels and buckets, and the series that are there before anything has happened.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::gauges::{Gauges, ResourceGauges};
use super::meters::{KINDS, SharedMeters};
use super::refusals::Refusals;
use super::{Direction, Metrics, NO_RESOURCE, ReloadOutcome};
use crate::config::Config;
use crate::config::resolved::{IncomingStamp, Listener, Role};
use crate::fence::{Outcome, Reason, Resource};
use crate::protocol::CutReason;
use crate::tls::explain::Why;

/// The phases of a handoff, in order.
pub(super) const PHASES: [&str; 5] = ["fence", "drain", "mark", "doors", "open"];

/// Beyond so many resources no gauge is kept for each.
const MANY_RESOURCES: usize = 200;

const REQUEST_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
const HANDOFF_SECONDS: [f64; 12] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
const ELECTION_SECONDS: [f64; 10] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
const GAP_EPOCHS: [f64; 6] = [1.0, 2.0, 3.0, 5.0, 10.0, 50.0];

/// Makes and registers families for one configuration.
pub(super) struct Families<'a> {
    registry: Registry,
    config: &'a Config,
    all: BTreeSet<&'a str>,
    guarded: BTreeSet<&'a str>,
    stamped: BTreeSet<&'a str>,
    later: RefCell<Vec<Later>>,
}

/// What makes series that nobody misses before the first look.
pub(super) type Later = Box<dyn FnOnce() + Send>;

impl<'a> Families<'a> {
    pub fn new(registry: Registry, config: &'a Config) -> Families<'a> {
        let mut families = Families {
            registry,
            config,
            all: config.resources.values().map(|settings| &*settings.label).collect(),
            guarded: BTreeSet::new(),
            stamped: BTreeSet::new(),
            later: RefCell::default(),
        };
        for listener in &config.listeners {
            match &listener.role {
                Role::Guard(_) => families.guarded.extend(labels(config, &listener.serves)),
                Role::Stamp(stamp) => {
                    families.stamped.extend(labels(config, &listener.serves));
                    families.stamped.extend(labels(config, &stamp.campaign));
                }
            }
        }
        families
    }

    fn add<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str, of: &BTreeSet<&str>) -> Result<IntGaugeVec, prometheus::Error> {
        let family = self.add(IntGaugeVec::new(opts(name, help), &["resource"])?)?;
        of.iter().for_each(|resource| family.with_label_values(&[*resource]).set(0));
        Ok(family)
    }

    fn time(&self, name: &str, help: &str, of: &BTreeSet<&str>) -> Result<GaugeVec, prometheus::Error> {
        let family = self.add(GaugeVec::new(opts(name, help), &["resource"])?)?;
        of.iter().for_each(|resource| family.with_label_values(&[*resource]).set(0.0));
        Ok(family)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).namespace("epochgate").buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, labels)?)
    }

    fn resource_counter(
        &self,
        name: &str,
        help: &str,
        of: &BTreeSet<&str>,
    ) -> Result<IntCounterVec, prometheus::Error> {
        let family = self.counter(name, help, &["resource"])?;
        of.iter().for_each(|resource| drop(family.with_label_values(&[*resource])));
        Ok(family)
    }

    fn resource_histogram(
        &self,
        name: &str,
        help: &str,
        of: &BTreeSet<&str>,
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let family = self.histogram(name, help, &["resource"], buckets)?;
        of.iter().for_each(|resource| drop(family.with_label_values(&[*resource])));
        Ok(family)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("epochgate")
}

fn labels<'a>(config: &'a Config, resources: &'a [Resource]) -> impl Iterator<Item = &'a str> {
    resources.iter().filter_map(|resource| config.resources.get(resource)).map(|settings| &*settings.label)
}

/// Registers everything.
pub(super) fn register(families: &Families<'_>) -> Result<Metrics, prometheus::Error> {
    let (guarded, stamped) = (&families.guarded, &families.stamped);
    build_info(families)?;
    listener_info(families)?;
    #[cfg(target_os = "linux")]
    families.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let (rejections, would_reject, stale_write_rejections) = refusal_counters(families)?;
    Ok(Metrics {
        labels: families
            .config
            .resources
            .iter()
            .map(|(name, settings)| (name.clone(), Arc::clone(&settings.label)))
            .collect(),
        refusals: Refusals::new(families.config.resources.keys()),
        rejections,
        would_reject,
        stale_write_rejections,
        epoch_mismatch: mismatch_counter(families)?,
        epoch_gap: families.resource_histogram(
            "epoch_gap",
            "By how many epochs refused stale writes were behind.",
            guarded,
            &GAP_EPOCHS,
        )?,
        leadership_changes: families.resource_counter("leadership_changes_total", "New terms seen.", &families.all)?,
        coordinator_regressions: families.resource_counter(
            "coordinator_regressions_total",
            "Times that the coordinator fell behind what this guard had seen.",
            guarded,
        )?,
        forced_opens: families.resource_counter(
            "forced_opens_total",
            "Gates opened without having drained.",
            guarded,
        )?,
        floor_write_failures: families.resource_counter(
            "floor_write_failures_total",
            "Failed attempts to write a floor to the disk.",
            guarded,
        )?,
        election_duration: families.resource_histogram(
            "election_duration_seconds",
            "How long elections took, where this process saw the start.",
            &families.all,
            &ELECTION_SECONDS,
        )?,
        handoff_duration: handoff_histogram(families)?,
        audit_records_dropped: families.add(IntCounter::with_opts(opts(
            "audit_records_dropped_total",
            "Audit records that could not be written.",
        ))?)?,
        gauges: Gauges {
            coordinator_up: families
                .add(IntGauge::with_opts(opts("coordinator_up", "1 while the coordinator answers."))?)?,
            drain_waits_for_door: families.add(IntGaugeVec::new(
                opts(
                    "drain_waits_for_door",
                    "1 while a shared door has drained and waits for this other one; - is one not on record.",
                ),
                &["resource", "door"],
            )?)?,
            certificate_expiry: families.add(GaugeVec::new(
                opts(
                    "certificate_expiry_timestamp_seconds",
                    "Until when a certificate holds, the first to end of each.",
                ),
                &["listener", "usage"],
            )?)?,
            reload_succeeded: reload_gauge(families)?,
            resources: resource_gauges(families, guarded, stamped)?,
        },
        reloads: reload_counter(families)?,
        listeners: listener_meters(families)?,
        later: Mutex::new(families.later.take()),
        registry: families.registry.clone(),
    })
}

fn build_info(families: &Families<'_>) -> Result<(), prometheus::Error> {
    let family =
        IntGaugeVec::new(opts("build_info", "Always 1; the labels say what is running."), &["version", "revision"])?;
    let revision = option_env!("EPOCHGATE_REVISION").unwrap_or("unknown");
    families.add(family)?.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
    Ok(())
}

fn listener_info(families: &Families<'_>) -> Result<(), prometheus::Error> {
    let help = "Always 1; the labels say what a listener does.";
    let family =
        families.add(IntGaugeVec::new(opts("listener_info", help), &["listener", "role", "protocol", "mode"])?)?;
    for listener in &families.config.listeners {
        let (role, mode) = match &listener.role {
            Role::Guard(guard) => ("guard", guard.mode.as_str()),
            Role::Stamp(_) => ("stamp", ""),
        };
        family.with_label_values(&[&*listener.name, role, listener.protocol.as_str(), mode]).set(1);
    }
    Ok(())
}

fn refusal_counters(
    families: &Families<'_>,
) -> Result<(IntCounterVec, IntCounterVec, IntCounterVec), prometheus::Error> {
    let by_reason = ["listener", "resource", "reason"];
    let rejections = families.counter("rejections_total", "Requests refused.", &by_reason)?;
    let would_reject = families.counter(
        "would_reject_total",
        "Requests forwarded in audit mode that would be refused.",
        &by_reason,
    )?;
    let stale = families.counter(
        "stale_write_rejections_total",
        "Writes refused because their epoch is over.",
        &["listener", "resource"],
    )?;
    for listener in &families.config.listeners {
        let guards = matches!(listener.role, Role::Guard(_));
        let name = Arc::clone(&listener.name);
        let reasons: Vec<Reason> = Reason::ALL.iter().copied().filter(|reason| can_refuse(listener, *reason)).collect();
        let named: BTreeSet<Arc<str>> = labels(families.config, &listener.serves).map(Arc::from).collect();
        let (rejections, would_reject, stale) = (rejections.clone(), would_reject.clone(), stale.clone());
        // Dozens for each resource: a process that starts has more urgent things to do.
        families.later.borrow_mut().push(Box::new(move || {
            for resource in named.iter().map(|label| &**label).chain([NO_RESOURCE]) {
                for reason in &reasons {
                    rejections.with_label_values(&[&*name, resource, reason.as_str()]);
                    if guards {
                        would_reject.with_label_values(&[&*name, resource, reason.as_str()]);
                    }
                }
                if guards && resource != NO_RESOURCE {
                    stale.with_label_values(&[&*name, resource]);
                }
            }
        }));
    }
    Ok((rejections, would_reject, stale))
}

/// Whether a listener may ever refuse for this reason; the series of any other appears when it is first used.
fn can_refuse(listener: &Listener, reason: Reason) -> bool {
    use Reason::*;
    match &listener.role {
        Role::Guard(_) => !matches!(reason, StampPresent | EpochExpected | NotLeader | TermChanged | NotArmed),
        Role::Stamp(stamp) => match reason {
            MalformedStamp | StampRequired => stamp.incoming_stamp == IncomingStamp::Require,
            PathNotNormal | StampPresent | EpochExpected | NotLeader | TermChanged | NotArmed => true,
            ResourceUnknown | ResourceMismatch | Unverifiable | HoldFull | HoldTimeout => true,
            UpstreamUnreachable | UpstreamBroken | FencedInFlight | UpstreamTimeout => true,
            IdentityRefused => listener.identities.is_some(),
            StaleEpoch | EpochConflict | EpochDenied | SignatureRefused | GateShut => false,
        },
    }
}

fn reload_counter(families: &Families<'_>) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Times that changed files were read again, by what became of them.";
    let family = families.counter("config_reloads_total", help, &["outcome"])?;
    for outcome in ReloadOutcome::ALL {
        family.with_label_values(&[outcome.as_str()]);
    }
    Ok(family)
}

fn reload_gauge(families: &Families<'_>) -> Result<IntGauge, prometheus::Error> {
    let help = "1 where what is in force is what the files say, 0 where the files are refused or need a restart.";
    let gauge = families.add(IntGauge::with_opts(opts("config_last_reload_successful", help))?)?;
    gauge.set(1);
    Ok(gauge)
}

fn mismatch_counter(families: &Families<'_>) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Writes whose epoch was not the gate's, by where it was.";
    let family = families.counter("epoch_mismatch_total", help, &["resource", "direction"])?;
    for resource in &families.guarded {
        for direction in Direction::ALL {
            family.with_label_values(&[*resource, direction.as_str()]);
        }
    }
    Ok(family)
}

fn handoff_histogram(families: &Families<'_>) -> Result<HistogramVec, prometheus::Error> {
    let help = "How long each phase of a handoff took at this door.";
    let family = families.histogram("handoff_duration_seconds", help, &["resource", "phase"], &HANDOFF_SECONDS)?;
    for resource in &families.guarded {
        for phase in PHASES {
            family.with_label_values(&[*resource, phase]);
        }
    }
    Ok(family)
}

fn resource_gauges(
    families: &Families<'_>,
    guarded: &BTreeSet<&str>,
    stamped: &BTreeSet<&str>,
) -> Result<Option<ResourceGauges>, prometheus::Error> {
    if families.config.resources.len() > MANY_RESOURCES {
        return Ok(None);
    }
    Ok(Some(ResourceGauges {
        epoch: families.gauge("epoch", "The newest epoch known, 0 for none.", &families.all)?,
        epoch_confirmed: families.time(
            "epoch_confirmed_timestamp_seconds",
            "When the coordinator last confirmed the epoch, 0 for never.",
            &families.all,
        )?,
        leader_present: families.gauge(
            "leader_present",
            "1 while somebody leads, in this process or elsewhere.",
            &families.all,
        )?,
        is_leader: families.gauge("is_leader", "1 while the writer of this process leads.", stamped)?,
        is_armed: families.gauge(
            "is_armed",
            "1 while the writer of this process leads and every door has drained its epoch.",
            stamped,
        )?,
        session_deadline: families.time(
            "session_deadline_timestamp_seconds",
            "Until when the writer of this process may stamp, 0 where it does not lead.",
            stamped,
        )?,
        in_flight_writes: families.gauge(
            "in_flight_writes",
            "Writes that the target has not answered yet.",
            guarded,
        )?,
        lost_writes: families.gauge(
            "lost_writes",
            "Writes that ended without an answer and may still take effect.",
            guarded,
        )?,
        held_writes: families.gauge("held_writes", "Writes held until the gate opens.", guarded)?,
        gate_open: families.gauge("gate_open", "1 while the gate admits writes of the newest epoch.", guarded)?,
        fence_action_failed: families.gauge(
            "fence_action_failed",
            "1 while a handoff goes on whose fence action failed.",
            guarded,
        )?,
    }))
}

fn listener_meters(families: &Families<'_>) -> Result<BTreeMap<Arc<str>, Arc<SharedMeters>>, prometheus::Error> {
    let requests = families.counter(
        "requests_total",
        "Requests that are over, by what became of them.",
        &["listener", "kind", "outcome"],
    )?;
    let durations = families.histogram(
        "request_duration_seconds",
        "From a request's head to its end.",
        &["listener", "kind"],
        &REQUEST_SECONDS,
    )?;
    let connections =
        families.add(IntGaugeVec::new(opts("connections_open", "Client connections open."), &["listener"])?)?;
    let cuts = families.counter(
        "connections_cut_total",
        "Client connections that this side ended.",
        &["listener", "reason"],
    )?;
    let no_session = families.counter(
        "tls_handshakes_failed_total",
        "Connections of clients with which no TLS session could be had.",
        &["listener", "reason"],
    )?;
    let meters = families.config.listeners.iter().map(|listener| {
        let name = &*listener.name;
        let with_tls = listener.tls.is_some();
        let shared = SharedMeters {
            requests: KINDS.map(|kind| {
                Outcome::ALL.map(|outcome| requests.with_label_values(&[name, kind.as_str(), outcome.as_str()]))
            }),
            durations: KINDS.map(|kind| -> Histogram { durations.with_label_values(&[name, kind.as_str()]) }),
            cuts: CutReason::ALL.map(|reason| cuts.with_label_values(&[name, reason.as_str()])),
            connections: connections.with_label_values(&[name]),
            no_session: Why::ALL.map(|why| match with_tls {
                true => no_session.with_label_values(&[name, why.as_str()]),
                // Nobody sees it, and it counts nothing.
                false => IntCounter::new("none", "none").expect("a plain name"),
            }),
        };
        (Arc::clone(&listener.name), Arc::new(shared))
    });
    Ok(meters.collect())
}
