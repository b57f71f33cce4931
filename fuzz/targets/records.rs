//! What stands in the coordinator. Whoever may write there may write anything: it is read, or it is not; never guessed,
//! never at length.

use super::text;
use crate::coordinator::keys::{self, Key};
use crate::coordinator::records::{
    CandidateRecord, DoorRecord, EpochRecord, LeaderRecord, Report, from_value, to_patterns, to_value,
};
use crate::fence::Resource;

const WORDS: &[&str] = &[
    "\"epoch\":\"42\"",
    "\"nonce\":\"n58qe3yfEjQ=\"",
    "\"writer\":\"orders-a\"",
    "\"doors\":\"118\"",
    "\"minted\":\"2026-11-22T02:00:00Z\"",
    "\"kind\":\"sole\"",
    "\"mode\":\"audit\"",
    "\"session_ms\":",
    "\"quarantine_ms\":",
    "\"serves\":[\"orders/{0..63}\"]",
    "{0..18446744073709551615}",
    "\"floor\":\"7\"",
    "\"drained\":",
    "\"forced\":",
    "\"regressed\":true",
    "\"left\":true",
    "\"closes\":true",
    "\"process\":",
    "\"address\":null",
];

/// A record is read again as it was written.
fn again<T>(value: &[u8]) -> bool
where
    T: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    let record: Option<T> = from_value(value);
    if let Some(record) = &record {
        assert_eq!(from_value::<T>(&to_value(record)).as_ref(), Some(record));
    }
    record.is_some()
}

#[test]
fn values() {
    let resources: Vec<Resource> =
        ["orders", "orders/0", "orders/63", "orders/x"].iter().map(|name| name.parse().expect("a resource")).collect();
    crate::fuzz::engine::fuzz("values", WORDS, |input| {
        let epoch = again::<EpochRecord>(input);
        let leader = again::<LeaderRecord>(input);
        let candidate = again::<CandidateRecord>(input);
        let report = again::<Report>(input);
        let door = again::<DoorRecord>(input);
        let serves: Vec<bool> = from_value::<DoorRecord>(input)
            .map(|door| resources.iter().map(|resource| door.serves(resource)).collect())
            .unwrap_or_default();
        (epoch, leader, candidate, report, door, serves)
    });
}

/// A key that is read is the one that would be written.
#[test]
fn keys() {
    let words = [
        "epochs/",
        "leaders/",
        "candidates/",
        "doors/",
        "reports/",
        "/alive",
        "orders%2F7",
        "orders-a",
        "guard-1-9f3c2a7b",
        "/",
    ];
    crate::fuzz::engine::fuzz("keys", &words, |input| {
        let key = text(input)?;
        let parsed = keys::parse(key);
        let (shape, written) = match &parsed {
            None => (0, key.to_owned()),
            Some(Key::Epoch(resource)) => (1, keys::epoch(resource)),
            Some(Key::Leader(resource)) => (2, keys::leader(resource)),
            Some(Key::Candidate(resource, writer)) => (3, keys::candidate(resource, writer)),
            Some(Key::Door(name)) => (4, keys::door(&name.target, &name.id)),
            Some(Key::Alive(name)) => (5, keys::alive(&name.target, &name.id)),
            Some(Key::Report(resource, name)) => (6, keys::report(resource, &name.target, &name.id)),
        };
        assert_eq!(written, key, "{parsed:?}");
        Some((shape, key.matches('/').count()))
    });
}

/// The resources of a door as patterns name those and no others. The input names them, one a line.
#[test]
fn patterns() {
    crate::fuzz::engine::fuzz(
        "patterns",
        &["orders/1\n", "orders/2\n", "s/07\n", "a/b/18446744073709551614\n", "\n"],
        |input| {
            let text = text(input)?;
            let resources: Vec<Resource> = text.lines().filter_map(|line| line.parse().ok()).collect();
            let patterns = to_patterns(&resources);
            let door = |resource: &Resource| {
                patterns.iter().any(|pattern| crate::coordinator::records::names(pattern, resource.as_str()))
            };
            assert!(resources.iter().all(door), "{patterns:?} leave one of {resources:?} out");
            for resource in &resources {
                for other in [format!("{resource}0"), format!("0{resource}"), format!("{resource}/1")] {
                    let Ok(other) = other.parse::<Resource>() else { continue };
                    assert_eq!(door(&other), resources.contains(&other), "{other} by {patterns:?}");
                }
            }
            Some((resources.len().min(8), patterns.len().min(8)))
        },
    );
}
