//! One line of a history: when, whose, and what.
//!
//! A line is one JSON object. `at` and `event` stand in every line; `from` names the process that it is about, and is
//! the name of its file where it is absent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Recorded};
use crate::fence::{Epoch, Moment, Nonce, Outcome, Reason, Resource, WriterId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When, in nanoseconds of the boot-time clock of the host that it happened on.
    #[serde(serialize_with = "write_moment")]
    pub at: Moment,
    /// The process that wrote it: one name for one process and its restarts.
    pub from: Arc<str>,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// Where it stands.
    #[serde(skip)]
    pub place: Place,
}

/// Where a line stands. Lines of one file are in the order in which they happened where their times are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file, as it was named; empty in memory.
    pub file: Arc<str>,
    /// The line in it, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.file.is_empty() { "line" } else { &*self.file };
        write!(f, "{file}:{}", self.line)
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum What {
    /// An event of the product.
    Event(Event),
    /// What the outside saw.
    Outside(Outside),
}

/// What somebody outside of the product saw or did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Outside {
    /// A client sends an operation: a write that it knows by a name of its own. A line for each time that it does.
    Sent {
        /// The operation's name, once in the history.
        op: Arc<str>,
        /// What it is meant for.
        resource: Resource,
        /// The target that is meant, where the client knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<Arc<str>>,
        /// A digest of the body, of whatever kind: it is only compared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Arc<str>>,
    },
    /// A send has ended, for its client. A send without such a line counts as unknown.
    Ended {
        /// The operation.
        op: Arc<str>,
        /// What the client knows of it.
        #[serde(serialize_with = "write_outcome", deserialize_with = "read_outcome")]
        outcome: Outcome,
        /// The status of the answer, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Why it was refused: the answer's `Fencing-Refused`.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            serialize_with = "write_reason",
            deserialize_with = "read_reason"
        )]
        reason: Option<Reason>,
    },
    /// A target has a whole request. For one that tells this apart from applying it.
    Received(Taken),
    /// A target has applied a write. Its `at` is of before the target began to answer.
    Applied {
        /// Which one.
        #[serde(flatten)]
        taken: Taken,
        /// Its place in the target's own commit order: grows with each write to the target.
        seq: u64,
    },
    /// Everything that a target applies is in the history. A target that has applied something says as much by that.
    Recorded {
        /// Which one.
        target: Arc<str>,
    },
    /// The coordinator granted a term. Where there is one such line of a resource, all of its terms have one.
    Granted {
        /// What it may write to.
        resource: Resource,
        /// The term.
        epoch: Epoch,
        /// Its nonce.
        nonce: Nonce,
        /// Who leads.
        writer: WriterId,
    },
    /// The coordinator has lost its memory, or some of it: restored from a backup, wiped.
    Rewound,
    /// A process was killed. What it did not write down any more is lost.
    Killed {
        /// Which one: its `from`.
        process: Arc<str>,
    },
    /// A process begins anew, and counts its writes from the start.
    Restarted {
        /// Which one: its `from`.
        process: Arc<str>,
    },
    /// From here on nothing is broken on purpose: within this time, a write has to be acknowledged.
    FaultsOver {
        /// The time, in nanoseconds.
        #[serde(with = "nanos")]
        within_ns: Duration,
        /// Of which resource; of each that is sent to where it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<Resource>,
    },
}

impl Outside {
    /// The values of `event` that these lines have.
    pub const NAMES: [&str; 10] = [
        "sent",
        "ended",
        "received",
        "applied",
        "recorded",
        "granted",
        "rewound",
        "killed",
        "restarted",
        "faults_over",
    ];
}

/// A write as its target sees it. The stamp's parts are those that it carried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Whose it is.
    pub target: Arc<str>,
    /// What was written to.
    pub resource: Resource,
    /// The client's name for it, where it carried one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Arc<str>>,
    /// The epoch of its stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The nonce of its stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// The writer of its stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<WriterId>,
    /// The digest of its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Arc<str>>,
}

impl Line {
    /// What the outside saw.
    pub fn outside(at: Moment, from: impl Into<Arc<str>>, what: Outside) -> Line {
        Line { at, from: from.into(), what: What::Outside(what), place: Place::default() }
    }

    /// What a process of the product recorded.
    pub fn event(from: impl Into<Arc<str>>, recorded: Recorded) -> Line {
        Line { at: recorded.at, from: from.into(), what: What::Event(recorded.event), place: Place::default() }
    }

    /// Reads one line; `from` where the line itself does not say it.
    ///
    /// # Errors
    /// Where it is no JSON, or no line of a history: what, with the column.
    pub fn parse(text: &str, from: &Arc<str>, place: Place) -> Result<Line, serde_json::Error> {
        let head: Head = serde_json::from_str(text)?;
        let what = if Outside::NAMES.contains(&&*head.event) {
            What::Outside(serde_json::from_str(text)?)
        } else {
            What::Event(serde_json::from_str(text).map_err(|error| head.explain(error))?)
        };
        let from = head.from.unwrap_or_else(|| Arc::clone(from));
        Ok(Line { at: Moment::from_nanos(head.at), from, what, place })
    }

    /// The line as it stands in a file, without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("lines have only string keys, and nothing in them fails to serialise")
    }
}

/// What every line has.
#[derive(Deserialize)]
struct Head {
    at: u64,
    event: String,
    #[serde(default)]
    from: Option<Arc<str>>,
}

impl Head {
    /// Where there is no such event: those that people write, who mistype, first.
    fn explain(&self, error: serde_json::Error) -> serde_json::Error {
        let said = error.to_string();
        let Some(known) = said.strip_prefix(&format!("unknown variant `{}`, expected one of ", self.event)) else {
            return error;
        };
        let known = known.split(" at line ").next().unwrap_or_default().replace('`', "");
        let yours = Outside::NAMES.join(", ");
        serde::de::Error::custom(format!(
            "unknown event `{}`: what you write is one of {yours}; what epochgate writes, one of {known}",
            self.event
        ))
    }
}

fn write_moment<S: serde::Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(moment.as_nanos())
}

fn write_reason<S: serde::Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::as_str).serialize(serializer)
}

fn read_reason<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Reason>, D::Error> {
    let Some(word) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let found = Reason::ALL.iter().copied().find(|reason| reason.as_str() == word);
    found.map(Some).ok_or_else(|| serde::de::Error::custom(format!("`{word}` is no reason of a refusal")))
}

fn write_outcome<S: serde::Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.as_str())
}

fn read_outcome<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Outcome, D::Error> {
    let word = String::deserialize(deserializer)?;
    let found = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == word);
    found.ok_or_else(|| serde::de::Error::custom(format!("`{word}` is no outcome of a write")))
}

mod nanos {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

#[cfg(test)]
pub(super) use tests::samples;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Line {
        let place = Place { file: "h.jsonl".into(), line: 3 };
        Line::parse(text, &"h".into(), place).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Lines of the outside with every field that there is.
    pub fn samples() -> Vec<Line> {
        LINES.into_iter().map(read).collect()
    }

    const LINES: [&str; 11] = [
        r#"{"at":1,"from":"client","event":"sent","op":"w1","resource":"orders","target":"db","body":"9f"}"#,
        r#"{"at":2,"from":"client","event":"ended","op":"w1","outcome":"answered","status":201}"#,
        r#"{"at":2,"from":"client","event":"ended","op":"w2","outcome":"not_applied","status":412,"reason":"stale_epoch"}"#,
        r#"{"at":3,"from":"db","event":"received","target":"db","resource":"orders","op":"w1","epoch":"42","nonce":"n58qe3yfEjQ=","writer":"orders-a","body":"9f"}"#,
        r#"{"at":4,"from":"db","event":"applied","target":"db","resource":"orders","op":"w1","epoch":"42","nonce":"n58qe3yfEjQ=","writer":"orders-a","body":"9f","seq":7}"#,
        r#"{"at":5,"from":"db","event":"recorded","target":"db"}"#,
        r#"{"at":5,"from":"etcd","event":"granted","resource":"orders","epoch":"42","nonce":"n58qe3yfEjQ=","writer":"orders-a"}"#,
        r#"{"at":6,"from":"etcd","event":"rewound"}"#,
        r#"{"at":7,"from":"test","event":"killed","process":"guard-1"}"#,
        r#"{"at":8,"from":"test","event":"restarted","process":"guard-1"}"#,
        r#"{"at":9,"from":"test","event":"faults_over","within_ns":30000000000,"resource":"orders"}"#,
    ];

    #[test]
    fn every_line_comes_back_as_it_was() {
        for text in LINES {
            assert_eq!(read(text).to_json(), text);
        }
        let named: std::collections::BTreeSet<&str> = Outside::NAMES.into();
        let shown = LINES.map(|text| serde_json::from_str::<Head>(text).expect("a line").event);
        assert_eq!(named, shown.iter().map(String::as_str).collect());
    }

    #[test]
    fn a_line_of_the_product_is_from_its_file() {
        let text = r#"{"at":5,"event":"drained","resource":"orders","target":"db","epoch":"42","by":"answers"}"#;
        let line = read(text);
        assert_eq!((&*line.from, line.place.to_string()), ("h", "h.jsonl:3".to_owned()));
        assert!(matches!(line.what, What::Event(Event::Drained { .. })));
        assert!(line.to_json().starts_with(r#"{"at":5,"from":"h","event":"drained""#), "{}", line.to_json());
    }

    #[test]
    fn a_mistyped_event_is_answered_with_those_that_people_write() {
        let text = r#"{"at":1,"event":"aplied","target":"db","resource":"orders","seq":1}"#;
        let said = Line::parse(text, &"h".into(), Place::default()).expect_err("no such event").to_string();
        assert!(said.starts_with("unknown event `aplied`: what you write is one of sent, ended, received, applied,"));
        assert!(said.contains("one of started, stopped,") && !said.contains("line"), "{said}");
        let inside = r#"{"at":5,"event":"drained","resource":"orders","target":"db","epoch":"42","by":"aplied"}"#;
        let said = Line::parse(inside, &"h".into(), Place::default()).expect_err("no such word").to_string();
        assert!(!said.contains("event"), "that is another word: {said}");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"event":"rewound"}"#,
            r#"{"at":-1,"event":"rewound"}"#,
            r#"{"at":1,"event":"nonsense"}"#,
            r#"{"at":1,"event":"applied","target":"db","resource":"orders"}"#,
            r#"{"at":1,"event":"applied","target":"db","resource":"orders","seq":1,"epoch":42}"#,
            r#"{"at":1,"event":"ended","op":"w1","outcome":"not_applied","reason":"because"}"#,
            r#"{"at":1,"event":"rewound"} and more"#,
        ] {
            assert!(Line::parse(bad, &"h".into(), Place::default()).is_err(), "{bad}");
        }
    }
}
