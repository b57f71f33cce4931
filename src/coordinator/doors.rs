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
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::super::store::{Lease, Snapshot, StoreFuture};
    use super::*;

    fn name(id: &str) -> DoorName {
        DoorName { target: "db".into(), id: id.into() }
    }

    fn record(closes: bool, left: bool) -> DoorRecord {
        DoorRecord {
            kind: DoorKind::Sole,
            mode: DoorMode::Enforce,
            address: "10.0.0.3:8080".into(),
            session: Duration::from_secs(5),
            quarantine: Duration::from_secs(35),
            closes,
            by_time: true,
            serves: vec!["orders".into()],
            left,
        }
    }

    fn joiner() -> Joiner {
        Joiner { name: name("new"), record: record(false, false), lease: LeaseId(7), mechanisms: Mechanisms::all() }
    }

    fn other(record: DoorRecord, alive: bool) -> Door {
        Door { name: name("old"), record, modified: Revision(10), alive }
    }

    fn second(number: u64) -> Moment {
        Moment::from_nanos(number * 1_000_000_000)
    }

    fn planned(door: &Door, sightings: &mut Sightings, at: u64) -> Plan {
        plan(&joiner(), std::slice::from_ref(door), sightings, Revision(20), second(at))
    }

    #[test]
    fn a_sole_door_stays_shut_while_the_record_of_another_stands_alive_or_not() {
        for alive in [true, false] {
            let door = other(record(false, false), alive);
            let mut sightings = Sightings::default();
            for at in [0, 1_000_000] {
                assert_eq!(planned(&door, &mut sightings, at), Plan::Blocked { by: "old".into(), until: None });
            }
        }
    }

    #[test]
    fn one_that_has_left_is_waited_out_for_its_quarantine_from_the_first_sight() {
        let door = other(record(false, true), false);
        let mut sightings = Sightings::default();
        let until = Some(second(135));
        assert_eq!(planned(&door, &mut sightings, 100), Plan::Blocked { by: "old".into(), until });
        assert_eq!(planned(&door, &mut sightings, 134), Plan::Blocked { by: "old".into(), until });
        let Plan::Commit(txn) = planned(&door, &mut sightings, 135) else { panic!("it was waited out") };
        assert!(txn.compares.contains(&Compare::ModifiedAt("doors/db/old".into(), Revision(10))));
        assert!(txn.changes.contains(&Change::Delete("doors/db/old".into())));
    }

    #[test]
    fn one_that_closes_is_waited_out_for_its_session_too_and_only_while_it_is_not_alive() {
        let mut sightings = Sightings::default();
        let living = other(record(true, false), true);
        assert_eq!(planned(&living, &mut sightings, 0), Plan::Blocked { by: "old".into(), until: None });
        let lapsed = other(record(true, false), false);
        let until = Some(second(150));
        assert_eq!(planned(&lapsed, &mut sightings, 110), Plan::Blocked { by: "old".into(), until });
        let back = other(record(true, false), true);
        planned(&back, &mut sightings, 149);
        assert_eq!(planned(&lapsed, &mut sightings, 150), Plan::Blocked { by: "old".into(), until: Some(second(190)) });
    }

    #[test]
    fn where_time_ends_nothing_only_an_operators_word_does() {
        let mut door = other(DoorRecord { by_time: false, ..record(true, false) }, false);
        let mut sightings = Sightings::default();
        for at in [0, 1_000_000] {
            assert_eq!(planned(&door, &mut sightings, at), Plan::Blocked { by: "old".into(), until: None });
        }
        (door.record.left, door.modified) = (true, Revision(11));
        let until = Some(second(1_000_035));
        assert_eq!(planned(&door, &mut sightings, 1_000_000), Plan::Blocked { by: "old".into(), until });
    }

    #[test]
    fn a_record_that_cannot_be_read_keeps_a_door_shut() {
        let entry = |key: &str, value: &[u8]| Entry {
            key: key.to_owned(),
            value: value.to_vec(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        };
        let good = to_value(&record(false, false));
        let readable = [entry("doors/db/old", &good), entry("doors/db/old/alive", b"{}"), entry("doors/db/old/x", b"")];
        assert_eq!(unreadable(&readable), None);
        let later = [entry("doors/db/old", &good), entry("doors/db/new", br#"{"kind":"other"}"#)];
        assert_eq!(unreadable(&later), Some("new".to_owned()));
    }

    #[test]
    fn a_free_target_is_joined_only_if_it_is_still_free() {
        let mut sightings = Sightings::default();
        let Plan::Commit(txn) = plan(&joiner(), &[], &mut sightings, Revision(20), second(0)) else {
            panic!("it is free")
        };
        let expected =
            [Compare::Absent("doors/db/new".into()), Compare::NoneCreatedAfter("doors/db/".into(), Revision(20))];
        assert_eq!(txn.compares, expected);
        let own = Door { name: name("new"), ..other(record(false, false), false) };
        let Plan::Commit(txn) = plan(&joiner(), &[own], &mut sightings, Revision(20), second(0)) else { panic!("own") };
        assert_eq!(txn.compares[0], Compare::ModifiedAt("doors/db/new".into(), Revision(10)));
    }

    #[test]
    fn a_door_that_serves_less_than_its_predecessor_waits_for_what_that_has_forwarded() {
        let record = |serves: &[&str], left| DoorRecord {
            serves: serves.iter().map(|pattern| (*pattern).to_owned()).collect(),
            ..record(false, left)
        };
        let joins = |own: DoorRecord, serves: &[&str], sightings: &mut Sightings, at| {
            let joiner = Joiner { record: record(serves, false), ..joiner() };
            let own = Door { name: name("new"), ..other(own, false) };
            plan(&joiner, &[own], sightings, Revision(20), second(at))
        };
        let was = || record(&["jobs", "orders/{0..7}"], false);
        for more in [&["jobs", "orders/{0..7}"][..], &["jobs", "orders/{0..63}", "users"]] {
            assert!(matches!(joins(was(), more, &mut Sightings::default(), 0), Plan::Commit(_)), "{more:?}");
        }
        for less in [&["jobs"][..], &["jobs", "orders/{0..6}"], &["orders/{0..7}"]] {
            let mut sightings = Sightings::default();
            let until = Some(second(135));
            assert_eq!(joins(was(), less, &mut sightings, 100), Plan::Blocked { by: "new".into(), until }, "{less:?}");
            assert!(matches!(joins(was(), less, &mut sightings, 135), Plan::Commit(_)));
        }
        // Where time ends nothing, an operator's word begins the wait.
        let timeless = DoorRecord { by_time: false, ..was() };
        let blocked = joins(timeless.clone(), &["jobs"], &mut Sightings::default(), 100);
        assert_eq!(blocked, Plan::Blocked { by: "new".into(), until: None });
        let forgotten = joins(DoorRecord { left: true, ..timeless }, &["jobs"], &mut Sightings::default(), 100);
        assert_eq!(forgotten, Plan::Blocked { by: "new".into(), until: Some(second(135)) });
    }

    /// A store that shows one door, gone, a minute after it was asked: whoever asks stood still meanwhile. And the clock.
    struct Late(AtomicU64);

    impl Clock for Late {
        fn now(&self) -> Moment {
            second(self.0.load(SeqCst))
        }

        fn wall(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
    }

    impl Store for Late {
        fn read(&self, _: Vec<Range>) -> StoreFuture<'_, Snapshot> {
            Box::pin(async {
                self.0.fetch_add(60, SeqCst);
                let (value, at) = (to_value(&record(true, false)), Revision(10));
                let gone = Entry { key: "doors/db/old".into(), value, created: at, modified: at, lease: None };
                Ok(Snapshot { revision: Revision(20), ranges: vec![vec![gone]], sent: Moment::default() })
            })
        }

        fn commit(&self, _: Txn) -> StoreFuture<'_, Committed> {
            Box::pin(async { Ok(Committed::Done(Revision(21))) })
        }

        fn watch(&self, _: Revision) -> Box<dyn crate::coordinator::store::Watch> {
            unreachable!("joining watches nothing")
        }

        fn grant(&self, _: Duration) -> StoreFuture<'_, Lease> {
            unreachable!("the lease is given")
        }

        fn keep_alive(&self, _: LeaseId) -> StoreFuture<'_, Lease> {
            unreachable!("the lease is given")
        }

        fn revoke(&self, _: LeaseId) -> StoreFuture<'_, ()> {
            unreachable!("the lease is given")
        }

        fn kind(&self) -> &'static str {
            "a test's"
        }

        fn endpoint(&self) -> String {
            String::new()
        }
    }

    #[tokio::test]
    async fn a_door_is_waited_out_from_the_answer_that_shows_it_gone_and_not_from_the_question() {
        let (late, mut sightings) = (Late(AtomicU64::new(100)), Sightings::default());
        let joined = join(&late, &joiner(), &mut sightings, &late).await;
        assert_eq!(joined, Ok(Joined::Blocked { by: "old".into(), until: Some(second(160 + 40)) }));
    }

    #[test]
    fn shared_doors_stand_together_and_no_sole_one_beside_them() {
        let shared = |alive| other(DoorRecord { kind: DoorKind::Shared, ..record(true, false) }, alive);
        let joins_beside = |kind, door: &Door| {
            let joiner = Joiner { record: DoorRecord { kind, ..record(true, false) }, ..joiner() };
            let doors = std::slice::from_ref(door);
            matches!(plan(&joiner, doors, &mut Sightings::default(), Revision(20), second(0)), Plan::Commit(_))
        };
        for alive in [true, false] {
            assert!(joins_beside(DoorKind::Shared, &shared(alive)), "lapsed ones are the agreement's business");
            assert!(!joins_beside(DoorKind::Sole, &shared(alive)));
            assert!(!joins_beside(DoorKind::Shared, &other(record(true, false), alive)));
        }
    }

    #[test]
    fn a_door_whose_record_was_lost_with_the_coordinator_has_time_to_put_it_again() {
        let door = other(record(false, false), true);
        let mut sightings = Sightings::default();
        planned(&door, &mut sightings, 0);
        let wiped = |sightings: &mut Sightings, at| plan(&joiner(), &[], sightings, Revision(3), second(at));
        let until = Some(second(140));
        assert_eq!(wiped(&mut sightings, 100), Plan::Blocked { by: "old".into(), until });
        assert_eq!(wiped(&mut sightings, 139), Plan::Blocked { by: "old".into(), until });
        assert!(matches!(wiped(&mut sightings.clone(), 140), Plan::Commit(_)));
        let again = Door { modified: Revision(4), ..door };
        assert_eq!(planned(&again, &mut sightings, 141), Plan::Blocked { by: "old".into(), until: None });
        // It has left in order: nothing is lost.
        let left = plan(&joiner(), &[], &mut sightings, Revision(20), second(141));
        assert!(matches!(left, Plan::Commit(_)));
    }

    #[test]
    fn a_door_joins_beside_others_only_as_they_were_when_it_looked() {
        let audit = DoorRecord { mode: DoorMode::Audit, ..record(false, false) };
        let shared = DoorRecord { kind: DoorKind::Shared, ..record(true, false) };
        for (own, beside) in [(record(false, false), audit), (shared.clone(), shared)] {
            let joiner = Joiner { record: own, ..joiner() };
            let doors = [other(beside, true)];
            let Plan::Commit(txn) = plan(&joiner, &doors, &mut Sightings::default(), Revision(20), second(0)) else {
                panic!("they stand together")
            };
            assert!(txn.compares.contains(&Compare::ModifiedAt("doors/db/old".into(), Revision(10))), "{txn:?}");
        }
    }

    #[test]
    fn doors_that_only_count_block_nobody_and_are_blocked_by_nobody() {
        let audit = DoorRecord { mode: DoorMode::Audit, ..record(false, false) };
        let door = other(audit.clone(), true);
        assert!(matches!(planned(&door, &mut Sightings::default(), 0), Plan::Commit(_)));
        let joiner = Joiner { record: audit, ..joiner() };
        let sole = other(record(false, false), true);
        let doors = std::slice::from_ref(&sole);
        let planned = plan(&joiner, doors, &mut Sightings::default(), Revision(20), second(0));
        assert!(matches!(planned, Plan::Commit(_)));
    }
}
