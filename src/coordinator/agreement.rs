//! What doors of one target, and writers, conclude from what the doors have recorded (DESIGN 3.4 and 3.5): whether every
//! other door has drained an epoch, and whether all of them have.
//!
//! Pure: a reading of the doors and their reports in, a conclusion out. The reading has to be newer than what it is asked
//! about: a door that opens an epoch reads the doors after it learned of it, and a door that joins reads the epoch after
//! it has joined. So whoever is not in the reading will find the epoch, and admits nothing lower.

use super::doors::{Door, Sightings};
use super::keys::{self, DoorName};
use super::records::{DoorKind, DoorMode, Report};
use super::store::{Change, Compare, Txn};
use crate::config::resolved::Lapsed;
use crate::fence::mechanism::{Mechanism, Mechanisms};
use crate::fence::{Moment, Resource, Term};

/// What doors that are gone are waited out by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Patience {
    /// What is done about those that said nothing.
    pub lapsed: Lapsed,
    /// What is in force.
    pub mechanisms: Mechanisms,
}

/// Why a door is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is alive, and has not drained the epoch.
    Draining,
    /// It opened the epoch without having drained: that proves nothing.
    Forced,
    /// It is not alive, or has left with writes on their way; it has been waited out at this moment.
    Gone(Moment),
    /// It is not alive, and an operator has to say that it is dead (`doors.lapsed: hold`).
    Held,
}

/// A door that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WaitsFor {
    /// Which.
    pub door: DoorName,
    /// Why.
    pub why: Why,
}

/// Whether the other doors of a target agree that an epoch may open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Agreement {
    /// Who is still waited for. It may open when there is nobody.
    pub waits_for: Vec<WaitsFor>,
}

impl Agreement {
    /// When somebody who is gone has been waited out next.
    pub fn wakes_at(&self) -> Option<Moment> {
        let ends = self.waits_for.iter().filter_map(|waits| match waits.why {
            Why::Gone(until) => Some(until),
            Why::Draining | Why::Forced | Why::Held => None,
        });
        ends.min()
    }
}

/// Whom a shared door waits for before it opens `term`, by a reading of all doors of its target.
pub fn agree(
    own: &DoorName,
    (resource, term): (&Resource, &Term),
    doors: &[Door],
    report: impl Fn(&DoorName) -> Option<Report>,
    patience: Patience,
    sightings: &mut Sightings,
    now: Moment,
) -> Agreement {
    let others = doors.iter().filter(|door| door.name != *own && door.name.target == own.target);
    let counted = others.filter(|door| door.record.counts_for(resource));
    let waits_for = counted.filter_map(|door| {
        let why = match report(&door.name) {
            _ if !door.is_there() => match patience.ends(door, sightings, now) {
                Some(until) => (now < until).then_some(Why::Gone(until)),
                None => Some(Why::Held),
            },
            Some(report) if report.drained == Some(term.epoch) && report.nonce == term.nonce => None,
            Some(report) if report.forced == Some(term.epoch) => Some(Why::Forced),
            _ => Some(Why::Draining),
        };
        why.map(|why| WaitsFor { door: door.name.clone(), why })
    });
    Agreement { waits_for: waits_for.collect() }
}

impl Patience {
    /// When a door that is gone has been waited out, by one's own clock: a session that it may still believe in, and its
    /// quarantine after that; only the quarantine where it said that it sends nothing more. None where time is not
    /// enough.
    fn ends(self, door: &Door, sightings: &mut Sightings, now: Moment) -> Option<Moment> {
        let since = sightings.since(door, now);
        let until = match (door.record.left, door.record.closes && door.record.by_time, self.lapsed) {
            (true, ..) => since.plus(door.record.quarantine),
            (false, true, Lapsed::Wait) => since.plus(door.record.session + door.record.quarantine),
            (false, ..) => return None,
        };
        Some(if self.mechanisms.keeps(Mechanism::WaitingOut) { until } else { now })
    }
}

/// The records of shared doors that have been waited out, each with the transaction that clears it: it compares that the
/// door has not come back. `lowest_floor_stands` says whether the caller's own floors are no lower than what that door had.
pub fn clear(
    own: &DoorName,
    doors: &[Door],
    lowest_floor_stands: impl Fn(&DoorName) -> bool,
    patience: Patience,
    sightings: &mut Sightings,
    now: Moment,
) -> Vec<(DoorName, Txn)> {
    let others = doors.iter().filter(|door| door.name != *own && door.name.target == own.target);
    sightings.forget(others.clone().filter(|door| door.is_there()));
    let gone = others.filter(|door| door.record.kind == DoorKind::Shared && !door.is_there());
    let over = gone.filter(|door| {
        let until = patience.ends(door, sightings, now);
        until.is_some_and(|until| now >= until) && lowest_floor_stands(&door.name)
    });
    let cleared = over.map(|door| {
        let key = keys::door(&door.name.target, &door.name.id);
        let alive = keys::alive(&door.name.target, &door.name.id);
        let compares = vec![Compare::ModifiedAt(key.clone(), door.modified), Compare::Absent(alive)];
        (door.name.clone(), Txn { compares, changes: vec![Change::Delete(key)] })
    });
    cleared.collect()
}

/// Whether a shared door that has just joined finds another on record: that one it will wait for, and that one has waited,
/// or waits, for whoever was before it. Where it finds none, a door that is not on record may still write: a wiped
/// coordinator looks like a first start.
pub fn finds_another(own: &DoorName, doors: &[Door]) -> bool {
    doors.iter().any(|door| is_a_peer(own, door))
}

fn is_a_peer(own: &DoorName, door: &Door) -> bool {
    let counts = door.record.kind == DoorKind::Shared && door.record.mode == DoorMode::Enforce;
    door.name != *own && door.name.target == own.target && counts
}

/// Whether a shared door whose own record was gone finds another that vouches for what went before: alive, and with a
/// drain reported, which none publishes before it has waited itself. Then others have waited this door out; else the
/// coordinator may have been wiped.
pub fn finds_a_witness<'a>(
    own: &DoorName,
    doors: &[Door],
    reports: impl IntoIterator<Item = (&'a str, Report)>,
) -> bool {
    let vouching: Vec<&str> =
        reports.into_iter().filter(|(_, report)| report.drained.is_some()).map(|(door, _)| door).collect();
    let vouches = |door: &Door| door.is_there() && vouching.contains(&door.name.id.as_str());
    doors.iter().any(|door| is_a_peer(own, door) && vouches(door))
}

/// The doors that a term has to wait for: without those that are gone and have been waited out, by the same rule as among
/// doors of one target. Where nobody joins their target any more, nobody clears their records away, and no term would arm
/// again. One that comes back later reads the epoch before it admits anything.
pub fn without_the_gone(doors: Vec<Door>, patience: Patience, sightings: &mut Sightings, now: Moment) -> Vec<Door> {
    sightings.forget(doors.iter().filter(|door| door.is_there()));
    let mut stands =
        |door: &Door| door.is_there() || patience.ends(door, sightings, now).is_none_or(|until| now < until);
    doors.into_iter().filter(|door| stands(door)).collect()
}

/// How far the doors of a resource are with an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// At least one is alive, and every one that is recorded and enforces has drained it: nothing lower can land.
    Drained,
    /// As that, but one opened it without having drained.
    Forced,
    /// These have not drained it, or none is alive.
    Missing(Vec<DoorName>),
}

/// What all recorded doors of `resource`, of every target, prove about `term` (DESIGN 3.4).
pub fn prove(
    (resource, term): (&Resource, &Term),
    doors: &[Door],
    report: impl Fn(&DoorName) -> Option<Report>,
) -> Proof {
    let alive = doors.iter().any(|door| door.alive && door.record.serves(resource));
    let (mut missing, mut forced) = (Vec::new(), false);
    for door in doors.iter().filter(|door| door.record.counts_for(resource)) {
        match report(&door.name) {
            Some(report) if report.floor == term.epoch && report.nonce != term.nonce => {
                missing.push(door.name.clone());
            }
            Some(report) if report.drained == Some(term.epoch) => {}
            Some(report) if report.forced == Some(term.epoch) => forced = true,
            _ => missing.push(door.name.clone()),
        }
    }
    match (alive && missing.is_empty(), forced) {
        (false, _) => Proof::Missing(missing),
        (true, true) => Proof::Forced,
        (true, false) => Proof::Drained,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::records::DoorRecord;
    use super::super::store::Revision;
    use super::*;
    use crate::fence::{Epoch, Nonce};

    const PATIENCE: Patience = Patience { lapsed: Lapsed::Wait, mechanisms: Mechanisms::all() };

    fn name(id: &str) -> DoorName {
        DoorName { target: "db".into(), id: id.into() }
    }

    fn orders() -> Resource {
        "orders".parse().expect("a name")
    }

    fn term(number: u64) -> Term {
        Term {
            epoch: Epoch::new(number).expect("in range"),
            nonce: Nonce::from_bytes([7; 8]),
            writer: "a".parse().expect("an id"),
        }
    }

    fn door(id: &str) -> Door {
        let record = DoorRecord {
            kind: DoorKind::Shared,
            mode: DoorMode::Enforce,
            address: String::new(),
            session: Duration::from_secs(5),
            quarantine: Duration::from_secs(35),
            closes: true,
            by_time: true,
            serves: vec!["orders".into()],
            left: false,
        };
        Door { name: name(id), record, modified: Revision(3), alive: true }
    }

    fn report(term: &Term) -> Report {
        Report {
            floor: term.epoch,
            nonce: term.nonce,
            writer: term.writer.clone(),
            drained: Some(term.epoch),
            forced: None,
            regressed: false,
        }
    }

    fn second(number: u64) -> Moment {
        Moment::from_nanos(number * 1_000_000_000)
    }

    fn waits(door: Door, said: Option<&Report>, patience: Patience, seen: &mut Sightings, at: u64) -> Option<Why> {
        let resource = orders();
        let said = |_: &DoorName| said.cloned();
        let agreement = agree(&name("own"), (&resource, &term(5)), &[door], said, patience, seen, second(at));
        agreement.waits_for.first().map(|waits| waits.why)
    }

    fn waits_now(door: Door, said: Option<&Report>) -> Option<Why> {
        waits(door, said, PATIENCE, &mut Sightings::default(), 0)
    }

    #[test]
    fn a_living_door_is_waited_for_until_it_has_drained_this_very_term() {
        assert_eq!(waits_now(door("other"), None), Some(Why::Draining));
        assert_eq!(waits_now(door("other"), Some(&report(&term(4)))), Some(Why::Draining));
        let fenced = Report { drained: None, ..report(&term(5)) };
        assert_eq!(waits_now(door("other"), Some(&fenced)), Some(Why::Draining));
        let other_term = Report { nonce: Nonce::from_bytes([8; 8]), ..report(&term(5)) };
        assert_eq!(
            waits_now(door("other"), Some(&other_term)),
            Some(Why::Draining),
            "the same epoch is not the same term"
        );
        let forced = Report { drained: None, forced: Some(term(5).epoch), ..report(&term(5)) };
        assert_eq!(waits_now(door("other"), Some(&forced)), Some(Why::Forced));
        assert_eq!(waits_now(door("other"), Some(&report(&term(5)))), None);
    }

    #[test]
    fn only_enforcing_doors_of_the_same_target_that_serve_the_resource_count() {
        let mut audit = door("other");
        audit.record.mode = DoorMode::Audit;
        let mut elsewhere = door("other");
        elsewhere.name.target = "api".into();
        let mut of_others = door("other");
        of_others.record.serves = vec!["users".into()];
        for uncounted in [audit, elsewhere, of_others, door("own")] {
            assert_eq!(waits_now(uncounted, None), None);
        }
    }

    #[test]
    fn one_that_is_gone_is_waited_out_from_the_first_sight_of_it_as_it_is() {
        let gone = || Door { alive: false, ..door("other") };
        let mut seen = Sightings::default();
        let drained = report(&term(5));
        for at in [100, 139] {
            let why = waits(gone(), Some(&drained), PATIENCE, &mut seen, at);
            assert_eq!(why, Some(Why::Gone(second(140))), "what it reported before it lapsed says nothing");
        }
        assert_eq!(waits(gone(), None, PATIENCE, &mut seen, 140), None);
        // It was back in between: what it forwarded then counts from anew.
        let again = Door { modified: Revision(9), ..gone() };
        assert_eq!(waits(again, None, PATIENCE, &mut seen, 141), Some(Why::Gone(second(181))));
    }

    #[test]
    fn one_that_was_back_in_between_is_waited_out_anew_though_its_revision_is_the_same() {
        let gone = || Door { alive: false, ..door("other") };
        let mut seen = Sightings::default();
        assert_eq!(waits(gone(), None, PATIENCE, &mut seen, 100), Some(Why::Gone(second(140))));
        // The coordinator was wiped, and counts its revisions from the start: this one comes once more.
        let living = clear(&name("own"), &[door("other")], |_| true, PATIENCE, &mut seen, second(1000));
        assert_eq!(living, []);
        assert_eq!(waits(gone(), None, PATIENCE, &mut seen, 2000), Some(Why::Gone(second(2040))));
    }

    #[test]
    fn one_that_left_is_waited_out_for_its_quarantine_alone() {
        let mut left = door("other");
        left.record.left = true;
        let mut seen = Sightings::default();
        assert_eq!(waits(left.clone(), None, PATIENCE, &mut seen, 100), Some(Why::Gone(second(135))));
        assert_eq!(waits(left, None, PATIENCE, &mut seen, 135), None);
    }

    #[test]
    fn where_lapsed_doors_hold_only_an_operators_word_begins_the_wait() {
        let patience = Patience { lapsed: Lapsed::Hold, ..PATIENCE };
        let mut gone = Door { alive: false, ..door("other") };
        let mut seen = Sightings::default();
        assert_eq!(waits(gone.clone(), None, patience, &mut seen, 0), Some(Why::Held));
        assert_eq!(waits(gone.clone(), None, patience, &mut seen, 1_000_000), Some(Why::Held));
        let timeless = Door { record: DoorRecord { by_time: false, ..gone.record.clone() }, ..gone.clone() };
        assert_eq!(waits(timeless, None, PATIENCE, &mut seen, 1_000_000), Some(Why::Held), "drain.by_time: false");
        gone.record.left = true;
        gone.modified = Revision(4);
        assert_eq!(waits(gone, None, patience, &mut seen, 1_000_000), Some(Why::Gone(second(1_000_035))));
    }

    #[test]
    fn a_record_is_cleared_once_its_door_was_waited_out_and_only_if_it_has_not_come_back() {
        let gone = Door { alive: false, ..door("other") };
        let mut seen = Sightings::default();
        let mut cleared = |stands: bool, at| {
            clear(&name("own"), std::slice::from_ref(&gone), |_| stands, PATIENCE, &mut seen, second(at))
        };
        assert_eq!(cleared(true, 100), []);
        assert_eq!(cleared(true, 139), []);
        assert_eq!(cleared(false, 140), [], "its floor is higher than the own one");
        let [(_, txn)] = cleared(true, 140).try_into().expect("one");
        assert_eq!(txn.changes, [Change::Delete("doors/db/other".into())]);
        assert_eq!(
            txn.compares,
            [Compare::ModifiedAt("doors/db/other".into(), Revision(3)), Compare::Absent("doors/db/other/alive".into())]
        );
        let living = clear(&name("own"), &[door("other")], |_| true, PATIENCE, &mut Sightings::default(), second(0));
        assert_eq!(living, []);
    }

    #[test]
    fn a_witness_is_alive_and_has_waited_itself() {
        let drained = report(&term(5));
        let finds = |door: &Door, said: Option<&Report>| {
            let reports = said.map(|report| ("other", report.clone()));
            finds_a_witness(&name("own"), std::slice::from_ref(door), reports)
        };
        assert!(finds(&door("other"), Some(&drained)));
        assert!(!finds(&door("other"), None), "it may be waiting itself");
        let waiting = Report { drained: None, ..drained.clone() };
        assert!(!finds(&door("other"), Some(&waiting)), "it publishes its floor while it waits");
        assert!(!finds(&Door { alive: false, ..door("other") }, Some(&drained)));
        assert!(!finds(&door("own"), Some(&drained)));
    }

    #[test]
    fn another_on_record_is_one_that_enforces_alive_or_not() {
        let finds = |door: Door| finds_another(&name("own"), &[door]);
        assert!(finds(door("other")));
        assert!(finds(Door { alive: false, ..door("other") }), "it will be waited out");
        let mut audit = door("other");
        audit.record.mode = DoorMode::Audit;
        assert!(!finds(audit) && !finds(door("own")));
    }

    #[test]
    fn a_door_that_is_gone_keeps_a_term_unproved_until_it_has_been_waited_out() {
        let gone = || Door { alive: false, name: DoorName { target: "api".into(), id: "gone".into() }, ..door("gone") };
        let mut seen = Sightings::default();
        let mut proof = |gone: Door, patience, at| {
            let doors = without_the_gone(vec![door("one"), gone], patience, &mut seen, second(at));
            prove((&orders(), &term(5)), &doors, |door| (door.id == "one").then(|| report(&term(5))))
        };
        let missing = Proof::Missing(vec![gone().name]);
        assert_eq!(proof(gone(), PATIENCE, 100), missing);
        assert_eq!(proof(gone(), PATIENCE, 139), missing);
        assert_eq!(proof(gone(), PATIENCE, 140), Proof::Drained);
        assert_eq!(proof(Door { alive: true, ..gone() }, PATIENCE, 141), missing, "it is back");
        let hold = Patience { lapsed: Lapsed::Hold, ..PATIENCE };
        assert_eq!(proof(gone(), hold, 1_000_000), missing);
        let mut keeps = gone();
        (keeps.record.closes, keeps.modified) = (false, Revision(4));
        assert_eq!(proof(keeps.clone(), PATIENCE, 1_000_000), missing, "it goes on without its session");
        (keeps.record.left, keeps.modified) = (true, Revision(5));
        assert_eq!(proof(keeps.clone(), PATIENCE, 2_000_000), missing, "an operator has said that it is dead");
        assert_eq!(proof(keeps, PATIENCE, 2_000_035), Proof::Drained);
    }

    #[test]
    fn a_term_is_proved_when_every_enforcing_door_has_drained_it_and_one_lives() {
        let resource = orders();
        let five = term(5);
        let proof = |doors: &[Door], said: &dyn Fn(&DoorName) -> Option<Report>| prove((&resource, &five), doors, said);
        let all = |_: &DoorName| Some(report(&term(5)));
        assert_eq!(proof(&[door("one"), door("two")], &all), Proof::Drained);
        let one = |door: &DoorName| (door.id == "one").then(|| report(&term(5)));
        assert_eq!(proof(&[door("one"), door("two")], &one), Proof::Missing(vec![name("two")]));
        let dead = Door { alive: false, ..door("one") };
        assert_eq!(proof(std::slice::from_ref(&dead), &all), Proof::Missing(vec![]), "nobody is there");
        assert_eq!(proof(&[], &all), Proof::Missing(vec![]));
        let forced = |_: &DoorName| Some(Report { drained: None, forced: Some(term(5).epoch), ..report(&term(5)) });
        assert_eq!(proof(&[door("one")], &forced), Proof::Forced);
    }
}
