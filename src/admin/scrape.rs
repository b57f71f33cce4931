//! From the status to the gauges, when somebody scrapes.

use jiff::{SignedDuration, Timestamp};

use super::status::{Phase, ResourceStatus, State, Status};
use crate::metrics::{GateLevels, LeaderLevels, Metrics, ResourceLevels};

/// The value of the label `door` for doors that may not be on record; no door can have this id.
const UNRECORDED: &str = "-";

/// Sets every gauge to what `status`, of just `now`, says.
pub(super) fn set_gauges(metrics: &Metrics, status: &Status, now: Timestamp) {
    metrics.show_coordinator(status.coordinator.up);
    let waits = status.resources.iter().flat_map(|resource| {
        let doors = resource.gates().flat_map(|gate| gate.waits_for_doors.iter().map(|door| &**door));
        let unrecorded = resource.gates().filter(|gate| gate.unrecorded_ms.is_some()).map(|_| UNRECORDED);
        doors.chain(unrecorded).map(|door| (&resource.name, door))
    });
    metrics.show_waits(waits);
    let confirmed = status.coordinator.confirmed.map_or(0.0, seconds);
    for resource in &status.resources {
        metrics.show_resource(&resource.name, &levels(resource, confirmed, now));
    }
}

fn levels(resource: &ResourceStatus, confirmed: f64, now: Timestamp) -> ResourceLevels {
    ResourceLevels {
        epoch: resource.epoch.map_or(0, |epoch| epoch.number()),
        confirmed,
        // A leadership that `epochgate fence` holds is nobody's: no write of anybody's gets through.
        present: resource.leader.as_ref().is_some_and(|leader| !leader.held),
        leader: resource.standing.as_ref().map(|standing| LeaderLevels {
            leads: standing.leads,
            armed: standing.leads && resource.state == State::Armed,
            deadline: match standing.deadline_ms {
                Some(left) if standing.leads => seconds(after(now, left)),
                _ => 0.0,
            },
        }),
        gate: resource.gate.as_ref().map(|_| GateLevels {
            open: resource.gates().all(|gate| gate.phase == Phase::Open),
            action_failed: resource.gates().any(|gate| gate.fence_action_error.is_some()),
            in_flight: resource.gates().map(|gate| gate.in_flight).sum(),
            lost: resource.gates().map(|gate| gate.lost).sum(),
            held: resource.gates().map(|gate| gate.held).sum(),
        }),
    }
}

fn after(now: Timestamp, milliseconds: u64) -> Timestamp {
    let span = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    now.saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// Seconds since 1970, to the millisecond.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a double for 280 000 years")]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
