//! The status as a reader takes it: what another version leaves out is absent, what it adds is passed over.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: Option<String>,
    pub id: Option<String>,
    pub started: Option<jiff::Timestamp>,
    pub ready: Option<bool>,
    pub coordinator: Coordinator,
    pub floor_file_error: Option<String>,
    pub resources: Vec<Resource>,
    pub listeners: Vec<Listener>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Coordinator {
    pub kind: Option<String>,
    pub up: Option<bool>,
    pub endpoint: Option<String>,
    pub revision: Option<String>,
    pub confirmed: Option<jiff::Timestamp>,
    pub regressions: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resource {
    pub name: String,
    pub epoch: Option<String>,
    pub state: Option<String>,
    pub leader: Option<Leader>,
    pub standing: Option<Standing>,
    pub gate: Option<Gate>,
    pub other_gates: Vec<Gate>,
    pub doors: Vec<Door>,
    pub election_stopped: Option<String>,
    pub last_handoff: Option<Handoff>,
    pub refused: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Leader {
    pub id: Option<String>,
    pub address: Option<String>,
    pub held: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Standing {
    pub leads: bool,
    pub deadline_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gate {
    pub target: Option<String>,
    pub phase: Option<String>,
    pub floor: Option<String>,
    pub in_flight: Option<u64>,
    pub lost: Option<u64>,
    pub held: Option<u64>,
    pub residue_ms: u64,
    pub holders: Vec<Holder>,
    pub blocked_by: Option<String>,
    pub waits_for: Option<String>,
    pub stuck: bool,
    pub regression: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Holder {
    pub epoch: Option<String>,
    pub peer: Option<String>,
    pub what: Option<String>,
    pub age_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Door {
    pub id: String,
    pub target: Option<String>,
    pub kind: Option<String>,
    pub mode: Option<String>,
    pub alive: Option<bool>,
    pub address: Option<String>,
    pub floor: Option<String>,
    pub drained: Option<String>,
    pub left: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Handoff {
    pub epoch: Option<String>,
    pub at: Option<jiff::Timestamp>,
    pub fence_ms: f64,
    pub drain_ms: f64,
    pub mark_ms: f64,
    pub doors_ms: f64,
    pub open_ms: f64,
    pub by: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Listener {
    pub name: String,
    pub role: Option<String>,
    pub listen: Option<String>,
    pub mode: Option<String>,
    pub level: Option<String>,
    pub upstream: Option<String>,
    pub connections: Option<u64>,
}

impl Resource {
    /// Every gate of the process for it.
    pub fn gates(&self) -> impl Iterator<Item = &Gate> {
        self.gate.iter().chain(&self.other_gates)
    }

    /// Requests refused, over all reasons.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}
