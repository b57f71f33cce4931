//! The metrics: what is counted, and from which event.
//!
//! Counters of what happens now and then are kept from the event stream ([`Metrics`] is a
//! [`Sink`]); what happens once a request is counted in each worker's own [`ListenerMeters`]; gauges are set from the
//! status when somebody looks ([`ResourceLevels`]). `docs/reference/metrics.md` lists them all, and a test holds the two
//! together.

mod families;
mod gauges;
mod meters;
mod refusals;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::proto::MetricFamily;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry, TextEncoder};

use crate::config::Config;
use crate::event::{Event, Sink};
use crate::fence::{Moment, Reason, Refusal, Resource};
use crate::tls::Expiry;
use families::{Families, Later};
use gauges::Gauges;
pub use gauges::{GateLevels, LeaderLevels, ResourceLevels};
pub use meters::ListenerMeters;
use meters::SharedMeters;
use refusals::Refusals;

/// The media type of [`Metrics::text`].
pub const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The value of the label `resource` where no resource was found; no resource can have this name.
const NO_RESOURCE: &str = "-";

/// Every metric of one process.
pub struct Metrics {
    registry: Registry,
    labels: HashMap<Resource, Arc<str>>,
    refusals: Refusals,
    rejections: IntCounterVec,
    would_reject: IntCounterVec,
    stale_write_rejections: IntCounterVec,
    epoch_mismatch: IntCounterVec,
    epoch_gap: HistogramVec,
    leadership_changes: IntCounterVec,
    coordinator_regressions: IntCounterVec,
    forced_opens: IntCounterVec,
    floor_write_failures: IntCounterVec,
    election_duration: HistogramVec,
    handoff_duration: HistogramVec,
    audit_records_dropped: IntCounter,
    reloads: IntCounterVec,
    gauges: Gauges,
    listeners: BTreeMap<Arc<str>, Arc<SharedMeters>>,
    /// To be done at the first look.
    later: Mutex<Vec<Later>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("listeners", &self.listeners.keys()).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers every metric. Whoever looks finds every series that this configuration can have, at zero.
    ///
    /// # Errors
    /// Where the registry has one of these names already.
    pub fn new(registry: Registry, config: &Config) -> Result<Metrics, prometheus::Error> {
        families::register(&Families::new(registry, config))
    }

    /// One worker's own counters for a listener; `None` where the configuration has no listener of that name.
    pub fn meters(&self, listener: &str) -> Option<ListenerMeters> {
        self.listeners.get(listener).map(|shared| ListenerMeters::new(Arc::clone(shared)))
    }

    /// Connections open at a listener, as of the workers' last flush.
    pub fn connections_open(&self, listener: &str) -> u64 {
        self.listeners.get(listener).map_or(0, |shared| shared.connections_open())
    }

    /// How many requests to `resource` this process has refused, by reason; reasons that never came up are left out.
    pub fn refused(&self, resource: &Resource) -> BTreeMap<Reason, u64> {
        self.refusals.of(resource)
    }

    /// The counter of audit records that could not be written.
    pub fn audit_records_dropped(&self) -> IntCounter {
        self.audit_records_dropped.clone()
    }

    /// Shows whether the coordinator answers.
    pub fn show_coordinator(&self, up: bool) {
        self.gauges.coordinator_up.set(i64::from(up));
    }

    /// Shows which doors are waited for, by resource; what is not named here is not waited for any more.
    pub fn show_waits<'a>(&self, waits: impl IntoIterator<Item = (&'a Resource, &'a str)>) {
        self.gauges.drain_waits_for_door.reset();
        for (resource, door) in waits {
            if let Some(label) = self.labels.get(resource) {
                self.gauges.drain_waits_for_door.with_label_values(&[&**label, door]).set(1);
            }
        }
    }

    /// Shows the state of `resource`; nothing beyond 200 resources, and nothing for one that is not configured.
    pub fn show_resource(&self, resource: &Resource, levels: &ResourceLevels) {
        if let (Some(gauges), Some(label)) = (&self.gauges.resources, self.labels.get(resource)) {
            gauges.show(label, levels);
        }
    }

    /// Shows until when the certificates of a listener hold.
    pub fn show_certificates(&self, listener: &str, expiries: &[Expiry]) {
        for expiry in expiries {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970: exact in a double")]
            let until = expiry.until.as_second() as f64;
            self.gauges.certificate_expiry.with_label_values(&[listener, expiry.usage.as_str()]).set(until);
        }
    }

    /// Counts that changed files were read again, and shows whether they were taken.
    pub fn reloaded(&self, outcome: ReloadOutcome) {
        self.reloads.with_label_values(&[outcome.as_str()]).inc();
        self.gauges.reload_succeeded.set(i64::from(outcome == ReloadOutcome::Applied));
    }

    /// Everything, in Prometheus' text format.
    ///
    /// # Errors
    /// Where a metric cannot be written; none of ours should be such.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.gather())
    }

    fn gather(&self) -> Vec<MetricFamily> {
        let later = std::mem::take(&mut *self.later.lock().unwrap_or_else(PoisonError::into_inner));
        later.into_iter().for_each(|make| make());
        self.registry.gather()
    }

    /// The value of the label `resource`.
    fn label<'a>(&'a self, resource: Option<&'a Resource>) -> &'a str {
        match resource {
            None => NO_RESOURCE,
            Some(resource) => self.labels.get(resource).map_or(NO_RESOURCE, |label| &**label),
        }
    }

    fn refused_one(&self, listener: &str, refusal: &Refusal) {
        let resource = self.label(refusal.resource.as_ref());
        self.rejections.with_label_values(&[listener, resource, refusal.reason.as_str()]).inc();
        if refusal.reason == Reason::StaleEpoch {
            self.stale_write_rejections.with_label_values(&[listener, resource]).inc();
        }
        if let Some(resource) = &refusal.resource {
            self.refusals.count(resource, refusal.reason);
        }
        self.mismatch(resource, refusal);
    }

    fn would_refuse_one(&self, listener: &str, refusal: &Refusal) {
        let resource = self.label(refusal.resource.as_ref());
        self.would_reject.with_label_values(&[listener, resource, refusal.reason.as_str()]).inc();
        self.mismatch(resource, refusal);
    }

    /// Counts the way in which a stamp's epoch was not the gate's, where it was not.
    fn mismatch(&self, resource: &str, refusal: &Refusal) {
        if let Some(direction) = Direction::of(refusal) {
            self.epoch_mismatch.with_label_values(&[resource, direction.as_str()]).inc();
        }
        if let (Reason::StaleEpoch, Some(given), Some(required)) =
            (refusal.reason, refusal.epoch, refusal.required_epoch)
        {
            #[expect(clippy::cast_precision_loss, reason = "an epoch has 15 digits: exact in a double")]
            let gap = required.number().saturating_sub(given.number()) as f64;
            self.epoch_gap.with_label_values(&[resource]).observe(gap);
        }
    }
}

impl Sink for Metrics {
    fn take(&self, _at: Moment, event: &Event) {
        match event {
            Event::Refused { listener, refusal, .. } => self.refused_one(listener, refusal),
            Event::WouldRefuse { listener, refusal, .. } => self.would_refuse_one(listener, refusal),
            Event::Elected { resource, took, .. } => {
                let resource = self.label(Some(resource));
                self.leadership_changes.with_label_values(&[resource]).inc();
                if let Some(took) = took {
                    self.election_duration.with_label_values(&[resource]).observe(took.as_secs_f64());
                }
            }
            Event::Regression { resource, .. } => {
                self.coordinator_regressions.with_label_values(&[self.label(Some(resource))]).inc();
            }
            Event::Opened { resource, forced: true, .. } => {
                self.forced_opens.with_label_values(&[self.label(Some(resource))]).inc();
            }
            Event::FloorWriteFailed { resources, .. } => {
                for resource in resources {
                    self.floor_write_failures.with_label_values(&[self.label(Some(resource))]).inc();
                }
            }
            Event::HandoffDone { resource, fence, drain, mark, doors, open, .. } => {
                let resource = self.label(Some(resource));
                for (phase, took) in families::PHASES.into_iter().zip([fence, drain, mark, doors, open]) {
                    self.handoff_duration.with_label_values(&[resource, phase]).observe(took.as_secs_f64());
                }
            }
            _ => {}
        }
    }
}

/// What became of files that had changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// They are in force.
    Applied,
    /// Something is wrong with them: what was in force stays.
    Refused,
    /// They are right, and some of it needs a restart: what was in force stays.
    NeedsRestart,
}

impl ReloadOutcome {
    /// All of them.
    pub const ALL: [ReloadOutcome; 3] = [ReloadOutcome::Applied, ReloadOutcome::Refused, ReloadOutcome::NeedsRestart];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReloadOutcome::Applied => "applied",
            ReloadOutcome::Refused => "refused",
            ReloadOutcome::NeedsRestart => "needs_restart",
        }
    }
}

/// How a stamp's epoch differed from the gate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Behind,
    Ahead,
    Conflict,
}

impl Direction {
    const ALL: [Direction; 3] = [Direction::Behind, Direction::Ahead, Direction::Conflict];

    const fn as_str(self) -> &'static str {
        match self {
            Direction::Behind => "behind",
            Direction::Ahead => "ahead",
            Direction::Conflict => "conflict",
        }
    }

    fn of(refusal: &Refusal) -> Option<Direction> {
        match refusal.reason {
            Reason::StaleEpoch => Some(Direction::Behind),
            Reason::EpochConflict => Some(Direction::Conflict),
            Reason::EpochDenied => Some(Direction::Ahead),
            Reason::Unverifiable if refusal.epoch > refusal.required_epoch => Some(Direction::Ahead),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
