//! What `/api/v1/status` says, and what the other endpoints take from it. `docs/reference/status.md` explains it.
//!
//! Epochs are strings, times are RFC 3339 in milliseconds, and what is not known is absent, never null. Fields that
//! are not serialized are for the other endpoints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::readiness::Readiness;
use crate::event::By;
use crate::fence::verdict::LeaderHint;
use crate::fence::{Epoch, Resource, WriterId};

/// A word out of a short list, such as `etcd` or `guard`.
pub type Word = Cow<'static, str>;

/// The state of a whole process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: Word,
    /// The writer id.
    pub id: WriterId,
    /// When the process started.
    #[serde(with = "time")]
    pub started: Timestamp,
    /// Whether this process can answer, as [`Readiness`] has it.
    pub ready: bool,
    /// Where epochs live.
    pub coordinator: CoordinatorStatus,
    /// The last error of the floor file, while it cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_file_error: Option<Arc<str>>,
    /// Every resource, sorted by name.
    pub resources: Vec<ResourceStatus>,
    /// Every listener, in the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// Whether the process is about to end: then it is not ready.
    #[serde(skip)]
    pub stopping: bool,
}

impl Status {
    /// Sets [`ready`](Self::ready) to what the rest says.
    #[must_use]
    pub fn with_readiness(mut self) -> Status {
        self.ready = Readiness::of(&self).ready;
        self
    }

    /// The state of one resource.
    pub fn resource(&self, name: &Resource) -> Option<&ResourceStatus> {
        self.resources.iter().find(|resource| resource.name == *name)
    }
}

/// The coordinator, as this process sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoordinatorStatus {
    /// `etcd` or `embedded`.
    pub kind: Word,
    /// Whether it answers.
    pub up: bool,
    /// Who answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Arc<str>>,
    /// The highest revision seen in a linearizable answer.
    #[serde(default, with = "text_or_none", skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// When the last linearizable answer that confirmed all epochs was asked for.
    #[serde(default, with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Timestamp>,
    /// How often it has fallen behind a door of this process, since the process started.
    pub regressions: u64,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: Resource,
    /// The newest epoch known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Whether somebody leads.
    pub state: State,
    /// Who leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    /// This process' writer's side; only where it stamps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// This process' door; only where it guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStatus>,
    /// Further doors of this process, where it guards the resource before several targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_gates: Vec<GateStatus>,
    /// Every recorded door of the resource, of all targets and processes.
    pub doors: Vec<DoorStatus>,
    /// Why nobody can be elected, in words; only where a recorded floor stops elections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub election_stopped: Option<Arc<str>>,
    /// The last handoff at this process' door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handoff: Option<HandoffStatus>,
    /// Requests refused since the process started, by reason.
    pub refused: BTreeMap<Word, u64>,
}

impl ResourceStatus {
    /// Every door of this process.
    pub fn gates(&self) -> impl Iterator<Item = &GateStatus> {
        self.gate.iter().chain(&self.other_gates)
    }
}

/// Whether somebody leads a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody.
    Vacant,
    /// Somebody does; not every door has drained yet.
    Elected,
    /// Somebody does, and every door has drained.
    Armed,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its writer id.
    pub id: WriterId,
    /// Where its sidecar listens, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Arc<str>>,
    /// Whether there is no writer: `epochgate fence` holds the leadership, so that nobody is elected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

impl From<LeaderHint> for Leader {
    fn from(hint: LeaderHint) -> Leader {
        Leader { id: hint.id, address: hint.address, held: false }
    }
}

/// This process' writer's side of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether its writer leads.
    pub leads: bool,
    /// For how long it may still stamp; only where it leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The whole value of the stamp's header; only where it leads. For `/leader`.
    #[serde(skip)]
    pub stamp: Option<Arc<str>>,
}

/// One door of this process for one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateStatus {
    /// Before which target; only where this process guards several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
    /// Where it stands in the handoff.
    pub phase: Phase,
    /// Everything below this is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Epoch>,
    /// The highest epoch below which nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Epoch>,
    /// Writes at the target.
    pub in_flight: u64,
    /// Writes that ended without an answer and still count.
    pub lost: u64,
    /// For how long those of lower epochs count, where time ends that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms: Option<u64>,
    /// Writes held.
    pub held: u64,
    /// For how long what a predecessor forwarded may still take effect.
    pub residue_ms: u64,
    /// The writes that the drain waits for, the oldest first; not necessarily all.
    pub holders: Vec<Holder>,
    /// The other doors of the target that a shared one waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for_doors: Vec<Arc<str>>,
    /// For how long it waits for doors that may not be on record, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded_ms: Option<u64>,
    /// The other door that keeps this one shut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Arc<str>>,
    /// What it waits for, in words, while it is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Arc<str>>,
    /// Why the fence action of the handoff at hand failed, while that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_action_error: Option<Arc<str>>,
    /// Nothing ends what it waits for by itself: that takes an operator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
    /// While the coordinator is behind this door: what ends that, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<Arc<str>>,
}

/// Where a door stands in a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It knows no epoch yet.
    Unknown,
    /// The floor is on its way to the disk.
    Fencing,
    /// It waits for writes of lower epochs.
    Draining,
    /// It waits for time to end what lost writes or a predecessor may still do.
    Quarantine,
    /// It has drained; other doors have not.
    WaitingDoors,
    /// Another door's record keeps it shut.
    Blocked,
    /// It admits the newest epoch.
    Open,
    /// It admits nothing.
    Shut,
}

impl Phase {
    /// As in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Unknown => "unknown",
            Phase::Fencing => "fencing",
            Phase::Draining => "draining",
            Phase::Quarantine => "quarantine",
            Phase::WaitingDoors => "waiting_doors",
            Phase::Blocked => "blocked",
            Phase::Open => "open",
            Phase::Shut => "shut",
        }
    }

    /// Whether a write of the newest epoch is at least held.
    pub const fn admits_or_holds(self) -> bool {
        match self {
            Phase::Open | Phase::Fencing | Phase::Draining | Phase::Quarantine | Phase::WaitingDoors => true,
            Phase::Unknown | Phase::Blocked | Phase::Shut => false,
        }
    }
}

impl State {
    /// As in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Vacant => "vacant",
            State::Elected => "elected",
            State::Armed => "armed",
        }
    }
}

/// A write that a drain waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its epoch; absent for one without a stamp, which only audit mode forwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Who sent it.
    pub peer: Arc<str>,
    /// Method and path.
    pub what: Arc<str>,
    /// For how long it has been under way.
    pub age_ms: u64,
}

/// A recorded door.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoorStatus {
    /// Its id.
    pub id: Arc<str>,
    /// What it stands before.
    pub target: Arc<str>,
    /// `sole` or `shared`.
    pub kind: Word,
    /// `enforce` or `audit`.
    pub mode: Word,
    /// Whether its alive key is there.
    pub alive: bool,
    /// Where it listens, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Arc<str>>,
    /// The floor that it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Epoch>,
    /// What it reported as drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Epoch>,
    /// Whether it has left, or was declared dead.
    pub left: bool,
}

/// How a handoff went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandoffStatus {
    /// To which epoch.
    pub epoch: Epoch,
    /// When the door opened.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// Until the floor was on the disk.
    pub fence_ms: f64,
    /// Until nothing lower was left.
    pub drain_ms: f64,
    /// Until the mark was on the disk.
    pub mark_ms: f64,
    /// Until the other doors had drained too; absent where it did not wait for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub doors_ms: f64,
    /// Until the door was open.
    pub open_ms: f64,
    /// What ended the drain.
    pub by: By,
}

fn is_zero(span: &f64) -> bool {
    *span == 0.0
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: Arc<str>,
    /// `guard` or `stamp`.
    pub role: Word,
    /// `http`.
    pub protocol: Word,
    /// Where it listens.
    pub listen: Arc<str>,
    /// `enforce` or `audit`; only a guard's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Word>,
    /// How strong it is here, `proxy` or `in-target` (DESIGN 3.8), or `not_proven` in audit mode; only a guard's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Word>,
    /// Where requests go.
    pub upstream: Arc<str>,
    /// Client connections.
    pub connections: u64,
}

/// RFC 3339 in milliseconds, UTC.
mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.3}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }
}

mod time_or_none {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::time::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(deserializer)
    }
}

/// A number as a text: not every reader of JSON keeps 64 bits.
mod text_or_none {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => serializer.collect_str(number),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
