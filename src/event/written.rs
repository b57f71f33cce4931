//! How the fields of an event are written in a history line: spans and moments in nanoseconds, words as everywhere.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fence::verdict::LeaderHint;
use crate::fence::{Epoch, Reason, Refusal, Resource, WriterId};

pub(super) mod moment {
    use super::{Deserialize, Deserializer, Serializer};
    use crate::fence::Moment;

    pub fn serialize<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(moment.as_nanos())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        u64::deserialize(deserializer).map(Moment::from_nanos)
    }
}

fn to_nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) mod nanos {
    use super::{Deserialize, Deserializer, Duration, Serializer, to_nanos};

    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(to_nanos(*span))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

pub(super) mod nanos_or_none {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, to_nanos};

    pub fn serialize<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        span.map(to_nanos).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_nanos))
    }
}

/// A word of a closed list, by what `as_str` says of it.
fn one_of<'de, D: Deserializer<'de>, T: Copy>(
    deserializer: D,
    all: &[T],
    word: impl Fn(T) -> &'static str,
) -> Result<T, D::Error> {
    let text = Cow::<'_, str>::deserialize(deserializer)?;
    all.iter().copied().find(|one| word(*one) == text).ok_or_else(|| D::Error::custom(format!("unknown word `{text}`")))
}

pub(super) mod settled {
    use super::{Deserializer, Serializer, one_of};
    use crate::protocol::right::Settled;

    const fn word(how: Settled) -> &'static str {
        match how {
            Settled::NothingLeft => "nothing_left",
            Settled::Answered => "answered",
            Settled::Lost => "lost",
        }
    }

    pub fn serialize<S: Serializer>(how: &Settled, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word(*how))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Settled, D::Error> {
        one_of(deserializer, &[Settled::NothingLeft, Settled::Answered, Settled::Lost], word)
    }
}

pub(super) mod kind {
    use super::{Deserializer, Serializer, one_of};
    use crate::protocol::Kind;

    pub fn serialize<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        one_of(deserializer, &[Kind::Read, Kind::Write], Kind::as_str)
    }
}

/// A refusal as a history line has it.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(serialize_with = "write_reason", deserialize_with = "read_reason")]
    reason: Reason,
    detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    required_epoch: Option<Epoch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<WriterId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leader: Option<WrittenLeader>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blocked_by: Option<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct WrittenLeader {
    id: WriterId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<Arc<str>>,
}

fn write_reason<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

fn read_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
    one_of(deserializer, Reason::ALL, Reason::as_str)
}

pub(super) mod refusal {
    use super::{Deserialize, Deserializer, LeaderHint, Refusal, Serialize, Serializer, Written, WrittenLeader};

    pub fn serialize<S: Serializer>(refusal: &Refusal, serializer: S) -> Result<S::Ok, S::Error> {
        let refusal = refusal.clone();
        let leader = refusal.leader.map(|hint| WrittenLeader { id: hint.id, address: hint.address });
        Written {
            reason: refusal.reason,
            detail: refusal.detail.into_owned(),
            resource: refusal.resource,
            epoch: refusal.epoch,
            required_epoch: refusal.required_epoch,
            writer: refusal.writer,
            leader,
            blocked_by: refusal.blocked_by,
        }
        .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Refusal>, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let mut refusal = Refusal::new(written.reason, written.detail);
        refusal.resource = written.resource;
        refusal.epoch = written.epoch;
        refusal.required_epoch = written.required_epoch;
        refusal.writer = written.writer;
        refusal.leader = written.leader.map(|hint| LeaderHint { id: hint.id, address: hint.address });
        refusal.blocked_by = written.blocked_by;
        Ok(Box::new(refusal))
    }
}
