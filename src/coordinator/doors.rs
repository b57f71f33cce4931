//! How a door joins its target, and leaves (DESIGN 3.5). What shared doors agree on is in [`super::agreement`].
//!
//! What is decided from a reading is pure ([`plan`]). The record and the alive key are put in one transaction that
//! compares that no other door has come meanwhile; only after it may the door read the epoch and the floors, and only
//! after that may it admit.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::{self, DoorName, Key};
use super::records::{DoorKind, DoorMode, DoorRecord, from_value, may_serve, to_value};
use super::store::{Change, Committed, Compare, Entry, Keys, LeaseId, Range, Revision, Store, StoreError, Txn};
use crate::clock::Clock;
use crate::fence::mechanism::{Mechanism, Mechanisms};
use crate::fence::{Moment, Resource};

/// One door as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Which.
    pub name: DoorName,
    /// Its record.
    pub record: DoorRecord,
    /// When the record was last put.
    pub modified: Revision,
    /// Whether its alive key stands.
    pub alive: bool,
}

impl Door {
    /// Whether it is there: alive, and it has not said, nor has anybody, that it is gone.
    pub fn is_there(&self) -> bool {
        self.alive && !self.record.left
    }
}

/// The doors among some entries; what cannot be read is left out.
pub fn among<'a>(entries: impl IntoIterator<Item = &'a Entry> + Clone) -> Vec<Door> {
    let living: Vec<DoorName> = entries
        .clone()
        .into_iter()
        .filter_map(|entry| match keys::parse(&entry.key)? {
            Key::Alive(name) => Some(name),
            _ => None,
        })
        .collect();
    let door = |entry: &Entry| match keys::parse(&entry.key)? {
        Key::Door(name) => {
            let record = from_value(&entry.value)?;
            Some(Door { alive: living.contains(&name), name, record, modified: entry.modified })
        }
        _ => None,
    };
    entries.into_iter().filter_map(door).collect()
}

/// A door whose record this version cannot read: a later one's, perhaps, and nobody knows what it is waited out for.
pub fn unreadable<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<String> {
    entries.into_iter().find_map(|entry| match keys::parse(&entry.key)? {
        Key::Door(name) if from_value::<DoorRecord>(&entry.value).is_none() => Some(name.id),
        _ => None,
    })
}

/// The doors that a term of `resource` may have to wait for although this version cannot read their records.
pub fn unreadable_of<'a>(resource: &Resource, entries: impl IntoIterator<Item = &'a Entry>) -> Vec<DoorName> {
    let unknown = entries.into_iter().filter_map(|entry| match keys::parse(&entry.key)? {
        Key::Door(name) => (from_value::<DoorRecord>(&entry.value).is_none()).then_some((name, entry)),
        _ => None,
    });
    unknown.filter(|(_, entry)| may_serve(&entry.value, resource)).map(|(name, _)| name).collect()
}

/// When other doors were first seen as they are: what they are waited out from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sightings(BTreeMap<DoorName, Sighting>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sighting {
    modified: Revision,
    alive: bool,
    /// The record is not there any more, and the coordinator's revision is lower than when it was put.
    lost: bool,
    since: Moment,
}

impl Sightings {
    /// Since when `door` has been seen just so: its record unchanged, and as alive as now.
    pub(super) fn since(&mut self, door: &Door, now: Moment) -> Moment {
        self.seen(&door.name, Sighting { modified: door.modified, alive: door.alive, lost: false, since: now })
    }

    /// These are there again: when they go, they are waited out anew. (The revision alone does not tell: a coordinator that
    /// was wiped gives out the same ones again.)
    pub(super) fn forget<'a>(&mut self, living: impl IntoIterator<Item = &'a Door>) {
        for door in living {
            self.0.remove(&door.name);
        }
    }

    fn seen(&mut self, name: &DoorName, now: Sighting) -> Moment {
        let seen = self.0.entry(name.clone()).or_insert(now);
        if (seen.modified, seen.alive, seen.lost) != (now.modified, now.alive, now.lost) {
            *seen = now;
        }
        seen.since
    }

    /// A door other than `own` that was seen, and whose record a coordinator that went back to `read` has lost; and since
    /// when.
    fn lost(&mut self, own: &DoorName, doors: &[Door], read: Revision, now: Moment) -> Option<(DoorName, Moment)> {
        let stands = |name: &DoorName| doors.iter().any(|door| door.name == *name);
        let lost: Vec<(DoorName, Revision)> = self
            .0
            .iter()
            .filter(|(name, seen)| seen.modified > read && *name != own && !stands(name))
            .map(|(name, seen)| (name.clone(), seen.modified))
            .collect();
        let seen = lost.into_iter().map(|(name, modified)| {
            let since = self.seen(&name, Sighting { modified, alive: false, lost: true, since: now });
            (name, since)
        });
        seen.max_by_key(|(_, since)| *since)
    }
}

/// What a door wants to put.
#[derive(Clone, Debug)]
pub struct Joiner {
    /// Its name.
    pub name: DoorName,
    /// Its record.
    pub record: DoorRecord,
    /// The lease of its alive key.
    pub lease: LeaseId,
    /// What is in force.
    pub mechanisms: Mechanisms,
}

/// What to do about joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Commit this; it joins.
    Commit(Txn),
    /// Stay shut: this door's record stands. Worth another look then, where waiting alone may end it.
    Blocked {
        /// The other door's id; the joiner's own where it serves less than its record says.
        by: String,
        /// When it has been waited out, where it can be.
        until: Option<Moment>,
    },
}

/// Decides on a reading of all doors of the target at `read`.
pub fn plan(joiner: &Joiner, doors: &[Door], sightings: &mut Sightings, read: Revision, now: Moment) -> Plan {
    let mut txn = Txn::default();
    let checks_records = joiner.mechanisms.keeps(Mechanism::DoorRecord);
    for other in doors.iter().filter(|door| door.name != joiner.name && checks_records) {
        let key = keys::door(&other.name.target, &other.name.id);
        // It may come back as another kind of door, or another mode: the record that was judged is the one that stands.
        txn.compares.push(Compare::ModifiedAt(key.clone(), other.modified));
        if stand_together(&joiner.record, &other.record) {
            continue;
        }
        let since = sightings.since(other, now);
        let Some(span) = waits_out(other) else {
            return Plan::Blocked { by: other.name.id.clone(), until: None };
        };
        let until = if joiner.mechanisms.keeps(Mechanism::WaitingOut) { since.plus(span) } else { now };
        if now < until {
            return Plan::Blocked { by: other.name.id.clone(), until: Some(until) };
        }
        txn.changes.push(Change::Delete(key));
        if !other.record.left {
            txn.compares.push(Compare::Absent(keys::alive(&other.name.target, &other.name.id)));
        }
    }
    // It may stand before the target all the same, and has so long to put its record again.
    if let Some((lost, since)) = sightings.lost(&joiner.name, doors, read, now).filter(|_| checks_records) {
        let until = since.plus(joiner.record.session + joiner.record.quarantine);
        if now < until {
            return Plan::Blocked { by: lost.id, until: Some(until) };
        }
    }
    let own = doors.iter().find(|door| door.name == joiner.name);
    if let Some(own) = own.filter(|own| checks_records && !joiner.record.serves_all_of(&own.record)) {
        // Nobody would wait any more for what its predecessor has forwarded of the others. That one is over: they share a
        // state directory.
        let waits = (own.record.by_time || own.record.left).then_some(own.record.quarantine);
        let until = waits.map(|span| sightings.since(own, now).plus(span));
        if until.is_none_or(|until| now < until) {
            return Plan::Blocked { by: own.name.id.clone(), until };
        }
    }
    let key = keys::door(&joiner.name.target, &joiner.name.id);
    match own {
        Some(own) => txn.compares.push(Compare::ModifiedAt(key.clone(), own.modified)),
        None => txn.compares.push(Compare::Absent(key.clone())),
    }
    if checks_records {
        txn.compares.push(Compare::NoneCreatedAfter(keys::doors(&joiner.name.target), read));
    }
    txn.changes.push(Change::Put { key, value: to_value(&joiner.record), lease: None });
    txn.changes.push(Change::Put {
        key: keys::alive(&joiner.name.target, &joiner.name.id),
        value: b"{}".to_vec(),
        lease: Some(joiner.lease),
    });
    Plan::Commit(txn)
}

/// Whether two doors may be before one target at the same time: those that agree with each other, and those that only
/// count, beside any other.
fn stand_together(one: &DoorRecord, other: &DoorRecord) -> bool {
    let shared = one.kind == DoorKind::Shared && other.kind == DoorKind::Shared;
    shared || one.mode == DoorMode::Audit || other.mode == DoorMode::Audit
}

/// For how long a door has to be seen unchanged before another may take its place; `None`: no time is enough.
fn waits_out(door: &Door) -> Option<Duration> {
    match (door.record.left, door.record.closes && door.record.by_time && !door.alive) {
        (true, _) => Some(door.record.quarantine),
        (false, true) => Some(door.record.session + door.record.quarantine),
        (false, false) => None,
    }
}

/// How joining went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It joined.
    At {
        /// At this revision.
        revision: Revision,
        /// Whether its own record stood from before.
        stood: bool,
    },
    /// See [`Plan::Blocked`].
    Blocked {
        /// The other door's id.
        by: String,
        /// When it has been waited out, where it can be.
        until: Option<Moment>,
    },
    /// Something changed meanwhile: try again.
    Overtaken,
}

/// One attempt to join.
///
/// # Errors
/// Those of the store. It may have joined all the same: trying again finds out.
pub async fn join(
    store: &dyn Store,
    joiner: &Joiner,
    sightings: &mut Sightings,
    clock: &dyn Clock,
) -> Result<Joined, StoreError> {
    let read = store.read(vec![Range::all(Keys::Under(keys::doors(&joiner.name.target)))]).await?;
    // After the reading: whom it shows gone may have been there until it was made.
    let now = clock.now();
    if let Some(by) = unreadable(read.ranges.iter().flatten()) {
        return Ok(Joined::Blocked { by, until: None });
    }
    let doors = among(read.ranges.iter().flatten());
    let stood = doors.iter().any(|door| door.name == joiner.name);
    match plan(joiner, &doors, sightings, read.revision, now) {
        Plan::Blocked { by, until } => Ok(Joined::Blocked { by, until }),
        Plan::Commit(txn) => Ok(match store.commit(txn).await? {
            Committed::Done(revision) => Joined::At { revision, stood },
            Committed::Refused(_) => Joined::Overtaken,
        }),
    }
}

/// Deletes a door's keys: it has drained and sends nothing more. Nothing happens where its record is another than the
/// one that it put at `joined_at`: a commit that is carried out late must not take back what the door, started again,
/// has put since.
///
/// # Errors
/// Those of the store.
pub async fn leave(store: &dyn Store, name: &DoorName, joined_at: Revision) -> Result<(), StoreError> {
    let record = keys::door(&name.target, &name.id);
    let compares = vec![Compare::ModifiedAt(record.clone(), joined_at)];
    let changes = vec![Change::Delete(record), Change::Delete(keys::alive(&name.target, &name.id))];
    store.commit(Txn { compares, changes }).await.map(|_| ())
}

/// Marks a door's record *left*: it sends nothing more, though what it sent may still take effect. `false` where
/// there is no such record.
///
/// # Errors
/// Those of the store.
pub async fn mark_left(store: &dyn Store, name: &DoorName) -> Result<bool, StoreError> {
    let key = keys::door(&name.target, &name.id);
    loop {
        let read = store.read(vec![Range::all(Keys::One(key.clone()))]).await?;
        let Some(entry) = read.ranges.first().and_then(|entries| entries.first()) else { return Ok(false) };
        let Some(record) = from_value::<DoorRecord>(&entry.value) else { return Ok(false) };
        let value = to_value(&DoorRecord { left: true, ..record });
        let txn = Txn {
            compares: vec![Compare::ModifiedAt(key.clone(), entry.modified)],
            changes: vec![
                Change::Put { key: key.clone(), value, lease: None },
                Change::Delete(keys::alive(&name.target, &name.id)),
            ],
        };
        if let Committed::Done(_) = store.commit(txn).await? {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests;
