//! What shared doors agree on, as `src/control/agreeing.rs` does it.

use epochgate::config::resolved::Lapsed;
use epochgate::coordinator::agreement::{Patience, agree, clear, finds_a_witness, finds_another};
use epochgate::coordinator::doors::{self as records, Door, Sightings};
use epochgate::coordinator::keys::{self, DoorName, Key};
use epochgate::coordinator::records::{DoorKind, DoorRecord, Report, from_value};
use epochgate::coordinator::store::Revision;
use epochgate::fence::Moment;
use epochgate::fence::floor::Memory;
use epochgate::fence::handoff::Event;
use epochgate::fence::mechanism::Mechanisms;

use crate::coordinator::Coordinator;
use crate::guard::Guard;
use crate::tale::Tale;
use crate::words::{NOW, QUARANTINE, SESSION, TARGET, door_name, door_number, orders};

/// What a shared door knows of the others before its target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peers {
    /// Which of them it has seen as they are.
    pub sighted: Vec<Sighted>,
    /// Whether its own record ought to stand.
    on_record: bool,
    /// Whether it did not, when it last joined.
    was_gone: bool,
    /// Whether the coordinator was seen to have lost something since it last joined.
    pub lost: bool,
    /// Whether the coordinator is behind what it has seen of it.
    went_back: bool,
}

/// Another door as it was seen: its number, its record's revision, and whether it was alive.
pub type Sighted = (usize, Revision, bool);

impl Peers {
    /// What a door that starts with this memory expects.
    pub fn of(memory: &Memory) -> Peers {
        let on_record = memory.targets.contains_key(TARGET) && !memory.left.contains(TARGET);
        Peers { on_record, ..Peers::default() }
    }

    /// It has joined; `stood`: over a record of its own.
    pub fn joined(&mut self, stood: bool) {
        self.was_gone = self.on_record && !stood;
        self.on_record = true;
    }
}

impl Guard {
    /// Looks at what a reading says of the others. `false` where it is later than anything that it has seen allows.
    pub fn observe_agreement(
        &mut self,
        went_back: bool,
        coordinator: &mut Coordinator,
        now: Moment,
        tale: &mut Tale,
    ) -> bool {
        if !self.kind.shared || self.joined_at.is_none() {
            return now == NOW;
        }
        let newly = went_back && !self.peers.went_back;
        self.peers.went_back = went_back;
        if newly {
            self.peers.lost = true;
            self.wait_for_the_unrecorded(tale);
        }
        let prefix = keys::doors(TARGET);
        let doors = records::among(self.view.under(&prefix));
        let seen = sightings(&doors, &self.peers.sighted);
        let mut sightings = seen.clone();
        self.clear_away(&doors, &mut sightings, coordinator, now, tale);
        if let Some(epoch) = self.handoff.waits_for_doors()
            && self.agrees(&doors, &mut sightings, now)
        {
            tale.add(|| format!("{}: the others agree to {epoch}", self.name()));
            self.drive(Event::Agreed(epoch), NOW, tale);
        }
        // Who is gone was looked at, and is remembered as it was seen.
        if now > NOW {
            return sightings == seen;
        }
        let gone = doors.iter().filter(|door| is_gone(door) && door.name != door_name(self.kind.number));
        let looked_at = sightings != seen;
        if looked_at {
            self.peers.sighted =
                gone.filter_map(|door| Some((door_number(&door.name)?, door.modified, door.alive))).collect();
        }
        true
    }

    fn agrees(&self, doors: &[Door], sightings: &mut Sightings, now: Moment) -> bool {
        let Some(term) = self.handoff.term() else { return true };
        let report = |door: &DoorName| self.view.record::<Report>(&keys::report(orders(), &door.target, &door.id));
        let own = door_name(self.kind.number);
        let agreement = agree(&own, (orders(), term), doors, report, self.patience(), sightings, now);
        let minted = self.view.get(&keys::epoch(orders())).map(|entry| entry.modified);
        agreement.waits_for.is_empty() && minted.is_some_and(|minted| self.view.revision >= minted)
    }

    fn patience(&self) -> Patience {
        Patience { lapsed: Lapsed::Wait, mechanisms: self.kind.mechanisms }
    }

    /// Deletes the records of those that have been waited out.
    fn clear_away(
        &self,
        doors: &[Door],
        sightings: &mut Sightings,
        coordinator: &mut Coordinator,
        now: Moment,
        tale: &mut Tale,
    ) {
        let own = door_name(self.kind.number);
        let floor = self.handoff.term().map(|term| term.epoch);
        let floors_stand = |door: &DoorName| {
            let report = self.view.record::<Report>(&keys::report(orders(), &door.target, &door.id));
            report.is_none_or(|report| floor >= Some(report.floor))
        };
        for (door, txn) in clear(&own, doors, floors_stand, self.patience(), sightings, now) {
            let _ = coordinator.commit(&txn);
            tale.add(|| format!("{} clears the record of {} away", self.name(), door.id));
        }
    }

    /// One that has just joined, or whose coordinator went backwards, waits for doors that may not be on record.
    pub fn wait_for_the_unrecorded(&mut self, tale: &mut Tale) {
        if !self.kind.shared {
            return;
        }
        let own = door_name(self.kind.number);
        let prefix = keys::doors(TARGET);
        let doors = records::among(self.view.under(&prefix));
        let may_lack_some = self.peers.lost
            || !finds_another(&own, &doors)
            || (self.peers.was_gone && !finds_a_witness(&own, &doors, self.reports()));
        self.peers.lost = false;
        if !may_lack_some {
            return;
        }
        tale.add(|| format!("{} waits for doors that may not be on record", self.name()));
        self.drive(Event::Alone(NOW.plus(SESSION + QUARANTINE)), NOW, tale);
    }

    fn reports(&self) -> impl Iterator<Item = (&str, Report)> {
        self.view.under("reports/").filter_map(|entry| match keys::parse(&entry.key)? {
            Key::Report(_, door) if door.target == TARGET => {
                Some((entry.key.rsplit('/').next()?, from_value::<Report>(&entry.value)?))
            }
            _ => None,
        })
    }
}

/// Whether a door is waited out, by a shared one.
fn is_gone(door: &Door) -> bool {
    !door.alive || door.record.left
}

/// Production's sightings of these doors: all of them were made at the same moment. (How they are made there is private;
/// what makes them is a look at a door that is gone.)
pub fn sightings(doors: &[Door], sighted: &[Sighted]) -> Sightings {
    let mut sightings = Sightings::default();
    let patience = Patience { lapsed: Lapsed::Wait, mechanisms: Mechanisms::all() };
    let nobody = DoorName { target: TARGET.to_owned(), id: String::new() };
    for (number, modified, alive) in sighted {
        let name = door_name(*number);
        let Some(door) = doors.iter().find(|door| door.name == name) else { continue };
        let record = DoorRecord { kind: DoorKind::Shared, left: true, ..door.record.clone() };
        let as_it_was = Door { name, record, modified: *modified, alive: *alive };
        let _ = clear(&nobody, &[as_it_was], |_| false, patience, &mut sightings, NOW);
    }
    sightings
}
