//! How a door joins beside others, and whom it waits for first.

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
    let Plan::Commit(txn) = plan(&joiner(), &[], &mut sightings, Revision(20), second(0)) else { panic!("it is free") };
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
