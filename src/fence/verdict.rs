//! Every refusal, its status and what it says of the write: one closed table.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Epoch, Resource, WriterId};

/// What became of a request (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The target's own answer came.
    Answered,
    /// Refused before a byte left: certainly not applied.
    NotApplied,
    /// A byte had left and no answer came.
    Unknown,
}

impl Outcome {
    /// All of them, for tables and metrics.
    pub const ALL: [Outcome; 3] = [Outcome::Answered, Outcome::NotApplied, Outcome::Unknown];

    /// As in the audit record, the problem body and the metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::NotApplied => "not_applied",
            Outcome::Unknown => "unknown",
        }
    }
}

/// The gRPC status that a refusal carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names and numbers are gRPC's own")]
pub enum GrpcCode {
    Unknown = 2,
    InvalidArgument = 3,
    PermissionDenied = 7,
    FailedPrecondition = 9,
    Aborted = 10,
    Unavailable = 14,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:literal $grpc:ident $outcome:ident $title:literal)*) => {
        /// Why a request was refused: the same word in the body, the header, the metrics and the audit record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// All of them, in the order of the reference.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The word for it, on every surface.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $word),* }
            }

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$name => $status),* }
            }

            /// The gRPC status.
            pub const fn grpc(self) -> GrpcCode {
                match self { $(Reason::$name => GrpcCode::$grpc),* }
            }

            /// What it says of the request.
            pub const fn outcome(self) -> Outcome {
                match self { $(Reason::$name => Outcome::$outcome),* }
            }

            /// A short sentence for people.
            pub const fn title(self) -> &'static str {
                match self { $(Reason::$name => $title),* }
            }
        }
    };
}

reasons! {
    /// The stamp is not what RFC 9651 and DESIGN 4 allow.
    MalformedStamp "malformed_stamp" 400 InvalidArgument NotApplied "The stamp is malformed"
    /// The path decides the resource and is not in normal form.
    PathNotNormal "path_not_normal" 400 InvalidArgument NotApplied "The path is not in normal form"
    /// The service sent a stamp of its own to its stamping sidecar.
    StampPresent "stamp_present" 400 FailedPrecondition NotApplied "The request carries a stamp already"
    /// A write without a stamp.
    StampRequired "stamp_required" 428 FailedPrecondition NotApplied "A write needs a stamp"
    /// The stamp's epoch is over.
    StaleEpoch "stale_epoch" 412 FailedPrecondition NotApplied "The write is of an epoch that is over"
    /// The stamp's epoch belongs to another term.
    EpochConflict "epoch_conflict" 409 Aborted NotApplied "Another term has this epoch"
    /// The coordinator knows no such epoch.
    EpochDenied "epoch_denied" 412 FailedPrecondition NotApplied "The coordinator knows no such epoch"
    /// The service asked for another epoch than its sidecar holds.
    EpochExpected "epoch_expected" 412 FailedPrecondition NotApplied "The expected epoch is not the one held"
    /// The peer's identity may not write as this writer.
    IdentityRefused "identity_refused" 403 PermissionDenied NotApplied "The peer may not write as this writer"
    /// The stamp's signature does not hold.
    SignatureRefused "signature_refused" 403 PermissionDenied NotApplied "The stamp's signature does not hold"
    /// This writer does not lead.
    NotLeader "not_leader" 421 FailedPrecondition NotApplied "This writer does not lead"
    /// The connection is older than the term.
    TermChanged "term_changed" 421 FailedPrecondition NotApplied "The term changed since this connection was opened"
    /// Nothing in the configuration names the resource of this request.
    ResourceUnknown "resource_unknown" 421 FailedPrecondition NotApplied "No configured resource is named"
    /// The stamp is for another resource than the request.
    ResourceMismatch "resource_mismatch" 421 FailedPrecondition NotApplied "The stamp is for another resource"
    /// The coordinator cannot be asked.
    Unverifiable "unverifiable" 503 Unavailable NotApplied "The epoch cannot be verified now"
    /// Too much is held already.
    HoldFull "hold_full" 503 Unavailable NotApplied "Too many requests are held"
    /// Held for as long as the configuration allows.
    HoldTimeout "hold_timeout" 503 Unavailable NotApplied "The request was held too long"
    /// The gate does not open for now.
    GateShut "gate_shut" 503 Unavailable NotApplied "The gate is shut"
    /// Elected, but not every door has drained yet.
    NotArmed "not_armed" 503 Unavailable NotApplied "The new term is not armed yet"
    /// No connection to the target could be made.
    UpstreamUnreachable "upstream_unreachable" 502 Unavailable NotApplied "The upstream cannot be reached"
    /// The connection to the target broke after a byte had left.
    UpstreamBroken "upstream_broken" 502 Unknown Unknown "The upstream connection broke"
    /// The epoch moved on while the request was under way.
    FencedInFlight "fenced_in_flight" 502 Unknown Unknown "The epoch moved on while the request was under way"
    /// The target did not answer in time.
    UpstreamTimeout "upstream_timeout" 504 Unknown Unknown "The upstream did not answer in time"
}

impl Reason {
    /// Whether a later attempt may succeed unchanged: the answer then carries Retry-After.
    pub const fn is_worth_retrying(self) -> bool {
        self.status() == 503
    }

    /// The URN of it, the problem's `type`.
    pub fn urn(self) -> String {
        format!("urn:epochgate:{}", self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who leads, as far as the refusing side knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct LeaderHint {
    /// The leader's writer id.
    pub id: WriterId,
    /// Where its sidecar listens, where it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Arc<str>>,
}

/// One refusal with everything that its answer, the metrics and the audit record say of it. Fields that are not
/// known are absent from the answer, never null.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What happened and what to do, in a sentence or two for the one who reads the answer.
    pub detail: Cow<'static, str>,
    /// The resource, where one was found.
    pub resource: Option<Resource>,
    /// The epoch that the request carried.
    pub epoch: Option<Epoch>,
    /// The epoch that it would have needed.
    pub required_epoch: Option<Epoch>,
    /// The writer that stamped it.
    pub writer: Option<WriterId>,
    /// Who leads.
    pub leader: Option<LeaderHint>,
    /// The other door whose record keeps the gate shut.
    pub blocked_by: Option<Arc<str>>,
}

impl Refusal {
    /// A refusal that says why; the rest is added with the `with_` functions where it is known.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            reason,
            detail: detail.into(),
            resource: None,
            epoch: None,
            required_epoch: None,
            writer: None,
            leader: None,
            blocked_by: None,
        }
    }

    /// Says of which resource.
    #[must_use]
    pub fn with_resource(mut self, resource: &Resource) -> Refusal {
        self.resource = Some(resource.clone());
        self
    }

    /// Says what the request carried and what it would have needed.
    #[must_use]
    pub fn with_epochs(mut self, given: Option<Epoch>, required: Option<Epoch>) -> Refusal {
        self.epoch = given;
        self.required_epoch = required;
        self
    }

    /// Says who stamped it.
    #[must_use]
    pub fn with_writer(mut self, writer: Option<&WriterId>) -> Refusal {
        self.writer = writer.cloned();
        self
    }

    /// Says who leads.
    #[must_use]
    pub fn with_leader(mut self, leader: Option<LeaderHint>) -> Refusal {
        self.leader = leader;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_unique_and_outcomes_match_the_statuses() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            // R6: only what broke after a byte had left may be unknown, and nothing refused is ever "answered".
            let after_a_byte = [Reason::UpstreamBroken, Reason::FencedInFlight, Reason::UpstreamTimeout];
            let expected = if after_a_byte.contains(reason) { Outcome::Unknown } else { Outcome::NotApplied };
            assert_eq!(reason.outcome(), expected, "{reason}");
        }
    }
}
