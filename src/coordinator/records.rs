//! What stands under the keys, as JSON. Epochs and revisions are strings; unknown members are ignored, so that a
//! later version can add some.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store::Revision;
use crate::fence::{Epoch, Nonce, Resource, Term, WriterId};

/// `epochs/<r>`: the last minted term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The term.
    #[serde(flatten)]
    pub term: Term,
    /// The revision of the doors that it was minted against: every door recorded by then has to drain it.
    #[serde(with = "as_text")]
    pub doors: Revision,
    /// When it was minted, for people.
    pub minted: jiff::Timestamp,
}

/// `leaders/<r>`: who leads, with the writer's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// The term.
    #[serde(flatten)]
    pub term: Term,
    /// Where its sidecar listens, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether there is no writer: the term is held (`epochgate fence`), so that nobody is elected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

/// `candidates/<r>/<writer>`: a process that would lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// The process's own nonce, to tell two of the same id apart.
    pub process: Nonce,
}

/// What kind of door it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorKind {
    /// The only one of its target.
    Sole,
    /// One of several.
    Shared,
}

/// Whether a door refuses or only counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorMode {
    /// It refuses.
    Enforce,
    /// It only counts.
    Audit,
}

/// `doors/<target>/<id>`: a guard listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorRecord {
    /// Sole or shared.
    pub kind: DoorKind,
    /// Enforcing or auditing.
    pub mode: DoorMode,
    /// Where it listens.
    pub address: String,
    /// Its lease's time to live.
    #[serde(rename = "session_ms", with = "as_millis")]
    pub session: Duration,
    /// How long a write that it forwarded may still take effect after it has sent its last byte.
    #[serde(rename = "quarantine_ms", with = "as_millis")]
    pub quarantine: Duration,
    /// Whether it closes when its session runs out, so that it can be waited out.
    #[serde(default)]
    pub closes: bool,
    /// Whether time ends what it forwarded (`drain.by_time`): where it does not, only an operator's word does.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub by_time: bool,
    /// The resources that it serves, as names and ranges.
    pub serves: Vec<String>,
    /// Whether it has left, or was declared dead: it sends nothing more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

impl DoorRecord {
    /// Whether it serves a resource.
    pub fn serves(&self, resource: &Resource) -> bool {
        self.serves.iter().any(|pattern| names(pattern, resource.as_str()))
    }

    /// Whether it serves all that `other` does. Records name each run of numbers whole, so a run that is served is part of
    /// one.
    pub fn serves_all_of(&self, other: &DoorRecord) -> bool {
        other.serves.iter().all(|pattern| self.serves.iter().any(|own| own == pattern || contains(own, pattern)))
    }

    /// Whether a term of `resource` has to wait for it.
    pub fn counts_for(&self, resource: &Resource) -> bool {
        self.mode == DoorMode::Enforce && self.serves(resource)
    }
}

const fn yes() -> bool {
    true
}

const fn is_yes(value: &bool) -> bool {
    *value
}

/// `reports/<r>/<target>/<id>`: how far a door is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The highest epoch that it has learned of.
    pub floor: Epoch,
    /// That term's nonce.
    pub nonce: Nonce,
    /// That term's writer.
    pub writer: WriterId,
    /// The epoch that it has drained for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Epoch>,
    /// The epoch that it has opened without proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Epoch>,
    /// The coordinator is behind what this door knows: whoever was elected before this report was put is not
    /// believed here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regressed: bool,
}

impl Report {
    /// The term of the floor.
    pub fn term(&self) -> Term {
        Term { epoch: self.floor, nonce: self.nonce, writer: self.writer.clone() }
    }

    /// Whether the door of this report, put at `put_at`, will never admit `term`, minted against `minted_against`: it knows
    /// of a later one, or another with that number, or believes nobody who was elected before it said so.
    pub fn rules_out(&self, term: &Term, put_at: Revision, minted_against: Revision) -> bool {
        let above = self.floor > term.epoch || (self.floor == term.epoch && self.nonce != term.nonce);
        above || (self.regressed && self.term() != *term && put_at > minted_against)
    }
}

/// The value of a key.
pub fn to_value<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have only string keys, and nothing in them fails to serialise")
}

/// The record in a value; `None` where it is not one.
pub fn from_value<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// Resource names as few patterns: `orders/0` to `orders/63` become `orders/{0..63}`.
pub fn to_patterns<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Vec<String> {
    let mut numbered: std::collections::BTreeMap<&str, Vec<u64>> = std::collections::BTreeMap::new();
    let mut patterns = Vec::new();
    for resource in resources {
        match resource.as_str().rsplit_once('/').and_then(|(stem, last)| Some((stem, canonical(last)?))) {
            Some((stem, number)) => numbered.entry(stem).or_default().push(number),
            None => patterns.push(resource.as_str().to_owned()),
        }
    }
    for (stem, mut numbers) in numbered {
        numbers.sort_unstable();
        numbers.dedup();
        for run in numbers.chunk_by(|a, b| a + 1 == *b) {
            match run {
                [one] => patterns.push(format!("{stem}/{one}")),
                run => patterns.push(format!("{stem}/{{{}..{}}}", run[0], run[run.len() - 1])),
            }
        }
    }
    patterns
}

/// A number as people write it: no leading zeros, so that one number has one name.
fn canonical(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text && *number < u64::MAX)
}

pub(crate) fn names(pattern: &str, resource: &str) -> bool {
    let Some((stem, range)) = pattern.strip_suffix('}').and_then(|pattern| pattern.split_once('{')) else {
        return pattern == resource;
    };
    let within = || {
        let number = canonical(resource.strip_prefix(stem)?)?;
        let (first, last) = range.split_once("..")?;
        Some((canonical(first)?..=canonical(last)?).contains(&number))
    };
    within().unwrap_or(false)
}

/// Whether a door with this record, of whatever version, may serve a resource: unless it says what it serves, in words
/// that are known, and this is not among them.
pub(super) fn may_serve(record: &[u8], resource: &Resource) -> bool {
    #[derive(Deserialize)]
    struct Serving {
        serves: Vec<String>,
    }
    let Some(Serving { serves }) = from_value(record) else { return true };
    let is_known = |pattern: &str| pattern.ends_with('}') || pattern.parse::<Resource>().is_ok();
    serves.iter().any(|pattern| names(pattern, resource.as_str()) || !is_known(pattern))
}

/// Whether a pattern names all that another one does.
fn contains(pattern: &str, other: &str) -> bool {
    let Some((stem, range)) = other.strip_suffix('}').and_then(|other| other.split_once('{')) else {
        return names(pattern, other);
    };
    let ends = range.split_once("..");
    ends.is_some_and(|(first, last)| {
        pattern.ends_with('}') && [first, last].iter().all(|end| names(pattern, &format!("{stem}{end}")))
    })
}

mod as_text {
    use super::Revision;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(revision: &Revision, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(revision)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Revision, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map(Revision).map_err(serde::de::Error::custom)
    }
}

mod as_millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str) -> Resource {
        name.parse().expect("a resource")
    }

    #[test]
    fn ranges_are_folded_and_found_again() {
        let all: Vec<Resource> =
            ["orders", "s/0", "s/1", "s/2", "s/10", "t/07", "a/b/5"].iter().map(|name| resource(name)).collect();
        let patterns = to_patterns(&all);
        assert_eq!(patterns, ["orders", "t/07", "a/b/5", "s/{0..2}", "s/10"]);
        for one in &all {
            assert!(patterns.iter().any(|pattern| names(pattern, one.as_str())), "{one}");
        }
        for other in ["s/3", "s/01", "s", "orders/0", "a/b/6"] {
            assert!(!patterns.iter().any(|pattern| names(pattern, other)), "{other}");
        }
    }

    #[test]
    fn the_written_form_is_what_the_design_says() {
        let term = Term {
            epoch: Epoch::new(42).expect("in range"),
            nonce: "n58qe3yfEjQ=".parse().expect("a nonce"),
            writer: "orders-a".parse().expect("an id"),
        };
        let minted = "2026-11-22T02:00:00Z".parse().expect("a time");
        let record = EpochRecord { term, doors: Revision(118), minted };
        let json = r#"{"epoch":"42","nonce":"n58qe3yfEjQ=","writer":"orders-a","doors":"118","minted":"2026-11-22T02:00:00Z"}"#;
        assert_eq!(String::from_utf8(to_value(&record)).expect("JSON is UTF-8"), json);
        assert_eq!(from_value::<EpochRecord>(json.as_bytes()), Some(record));
        assert_eq!(from_value::<EpochRecord>(b"{}"), None);
    }
}
