//! The keys under the prefix (DESIGN 5), and how to read one back.

use crate::fence::{Resource, WriterId};

/// Every epoch record.
pub const EPOCHS: &str = "epochs/";
/// What doors publish of their gates.
pub const REPORTS: &str = "reports/";
/// Every leader key.
pub const LEADERS: &str = "leaders/";
/// Every candidacy.
pub const CANDIDATES: &str = "candidates/";
/// Every door record and alive key.
pub const DOORS: &str = "doors/";

/// The last minted term of a resource.
pub fn epoch(resource: &Resource) -> String {
    format!("{EPOCHS}{}", resource.to_key())
}

/// Its leader, while there is one.
pub fn leader(resource: &Resource) -> String {
    format!("{LEADERS}{}", resource.to_key())
}

/// All its candidates.
pub fn candidates(resource: &Resource) -> String {
    format!("{CANDIDATES}{}/", resource.to_key())
}

/// One of its candidates.
pub fn candidate(resource: &Resource, writer: &WriterId) -> String {
    format!("{CANDIDATES}{}/{writer}", resource.to_key())
}

/// All doors of a target.
pub fn doors(target: &str) -> String {
    format!("{DOORS}{target}/")
}

/// One door's record.
pub fn door(target: &str, id: &str) -> String {
    format!("{DOORS}{target}/{id}")
}

/// One door's sign of life.
pub fn alive(target: &str, id: &str) -> String {
    format!("{DOORS}{target}/{id}/alive")
}

/// All reports of a resource.
pub fn reports(resource: &Resource) -> String {
    format!("{REPORTS}{}/", resource.to_key())
}

/// One door's report of a resource.
pub fn report(resource: &Resource, target: &str, id: &str) -> String {
    format!("{REPORTS}{}/{target}/{id}", resource.to_key())
}

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// [`epoch`].
    Epoch(Resource),
    /// [`leader`].
    Leader(Resource),
    /// [`candidate`].
    Candidate(Resource, WriterId),
    /// [`door`].
    Door(DoorName),
    /// [`alive`].
    Alive(DoorName),
    /// [`report`].
    Report(Resource, DoorName),
}

/// A door's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoorName {
    /// The target that it stands before.
    pub target: String,
    /// Its id.
    pub id: String,
}

/// Reads a key; `None` for one that is not ours.
pub fn parse(key: &str) -> Option<Key> {
    let parts: Vec<&str> = key.split('/').collect();
    let door = |target: &str, id: &str| DoorName { target: target.to_owned(), id: id.to_owned() };
    Some(match parts.as_slice() {
        ["epochs", resource] => Key::Epoch(Resource::from_key(resource).ok()?),
        ["leaders", resource] => Key::Leader(Resource::from_key(resource).ok()?),
        ["candidates", resource, writer] => Key::Candidate(Resource::from_key(resource).ok()?, writer.parse().ok()?),
        ["doors", target, id] => Key::Door(door(target, id)),
        ["doors", target, id, "alive"] => Key::Alive(door(target, id)),
        ["reports", resource, target, id] => Key::Report(Resource::from_key(resource).ok()?, door(target, id)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back() {
        let shard: Resource = "orders/7".parse().expect("a resource");
        let writer: WriterId = "orders-a".parse().expect("an id");
        let name = DoorName { target: "db".into(), id: "guard-1-9f3c2a7b".into() };
        assert_eq!(epoch(&shard), "epochs/orders%2F7");
        assert_eq!(parse(&epoch(&shard)), Some(Key::Epoch(shard.clone())));
        assert_eq!(parse(&leader(&shard)), Some(Key::Leader(shard.clone())));
        assert_eq!(parse(&candidate(&shard, &writer)), Some(Key::Candidate(shard.clone(), writer)));
        assert_eq!(parse(&door(&name.target, &name.id)), Some(Key::Door(name.clone())));
        assert_eq!(parse(&alive(&name.target, &name.id)), Some(Key::Alive(name.clone())));
        assert_eq!(parse(&report(&shard, &name.target, &name.id)), Some(Key::Report(shard, name)));
        assert_eq!(parse("epochs/Orders"), None);
        assert_eq!(parse("other/key"), None);
    }
}
