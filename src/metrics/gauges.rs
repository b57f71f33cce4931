//! What is set when somebody looks.

use prometheus::{GaugeVec, IntGauge, IntGaugeVec};

/// The gauges. Those of resources are `None` beyond 200 resources.
#[derive(Debug)]
pub(super) struct Gauges {
    pub coordinator_up: IntGauge,
    /// A series stands only while there is something to wait for: doors come and go.
    pub drain_waits_for_door: IntGaugeVec,
    pub certificate_expiry: GaugeVec,
    pub reload_succeeded: IntGauge,
    pub resources: Option<ResourceGauges>,
}

/// The gauges with the label `resource`. A series exists only where this process has that side of the resource: a
/// gate's where it guards, a leader's where it stamps.
#[derive(Debug)]
pub(super) struct ResourceGauges {
    pub epoch: IntGaugeVec,
    pub epoch_confirmed: GaugeVec,
    pub leader_present: IntGaugeVec,
    pub is_leader: IntGaugeVec,
    pub is_armed: IntGaugeVec,
    pub session_deadline: GaugeVec,
    pub in_flight_writes: IntGaugeVec,
    pub lost_writes: IntGaugeVec,
    pub held_writes: IntGaugeVec,
    pub gate_open: IntGaugeVec,
    pub fence_action_failed: IntGaugeVec,
}

/// What the gauges of one resource are to show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResourceLevels {
    /// The newest epoch known, 0 for none.
    pub epoch: u64,
    /// When it was last confirmed, in seconds since 1970; 0 for never.
    pub confirmed: f64,
    /// Whether somebody leads, in this process or elsewhere.
    pub present: bool,
    /// The writer's side, where this process stamps.
    pub leader: Option<LeaderLevels>,
    /// The door's side, where this process guards.
    pub gate: Option<GateLevels>,
}

/// The writer's side of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LeaderLevels {
    /// Whether this process' writer leads.
    pub leads: bool,
    /// Whether its term is armed.
    pub armed: bool,
    /// Until when it may stamp, in seconds since 1970; 0 where it does not lead.
    pub deadline: f64,
}

/// The door's side of a resource: all gates of this process together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GateLevels {
    /// Whether every gate is open.
    pub open: bool,
    /// Whether the fence action of a handoff that goes on has failed.
    pub action_failed: bool,
    /// Writes at the target.
    pub in_flight: u64,
    /// Writes that ended without an answer and still count.
    pub lost: u64,
    /// Writes held.
    pub held: u64,
}

impl ResourceGauges {
    /// Shows `levels` under the label value `resource`.
    pub fn show(&self, resource: &str, levels: &ResourceLevels) {
        let set = |family: &IntGaugeVec, value: u64| {
            family.with_label_values(&[resource]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.epoch, levels.epoch);
        self.epoch_confirmed.with_label_values(&[resource]).set(levels.confirmed);
        set(&self.leader_present, u64::from(levels.present));
        if let Some(leader) = &levels.leader {
            set(&self.is_leader, u64::from(leader.leads));
            set(&self.is_armed, u64::from(leader.armed));
            self.session_deadline.with_label_values(&[resource]).set(leader.deadline);
        }
        if let Some(gate) = &levels.gate {
            set(&self.gate_open, u64::from(gate.open));
            set(&self.fence_action_failed, u64::from(gate.action_failed));
            set(&self.in_flight_writes, gate.in_flight);
            set(&self.lost_writes, gate.lost);
            set(&self.held_writes, gate.held);
        }
    }
}
