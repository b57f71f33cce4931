//! I7 and I8, and the part of I2 that a door's own events show: what a door remembers, and what it does first.
//!
//! A door is a process, a target and a resource. Its floor file outlives the process, so what one life had on disk binds
//! the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::story::{DoorOf, Item, Life, Story};
use super::violation::{Invariant, Verdict};
use super::{Outside, What};
use crate::event::Event;
use crate::fence::{Epoch, Resource};

/// What is known of a door up to a line.
#[derive(Default)]
struct Door<'a> {
    /// The highest epoch on its disk.
    persisted: Option<(Epoch, Item<'a>)>,
    /// What is or was on its disk, and what of it as drained.
    on_disk: BTreeSet<Epoch>,
    drained: BTreeSet<Epoch>,
    /// Everything lower is refused: by what this life has fenced, and by what was on disk when it began.
    fenced: Option<(Epoch, Item<'a>)>,
    remembered: Option<(Epoch, Item<'a>)>,
    /// What this life has opened.
    opened: BTreeSet<Epoch>,
}

pub fn check(story: &Story<'_>, verdict: &mut Verdict) {
    let granted = Granted::of(story);
    for lives in story.lives.values() {
        let mut doors = BTreeMap::new();
        for life in lives {
            check_life(story, life, &mut doors, &granted, verdict);
        }
    }
}

fn check_life<'a>(
    story: &Story<'a>,
    life: &Life<'a>,
    doors: &mut BTreeMap<DoorOf, Door<'a>>,
    granted: &Granted<'_>,
    verdict: &mut Verdict,
) {
    let mut failing = BTreeSet::new();
    for door in doors.values_mut() {
        door.begin_a_life();
    }
    for item in &life.items {
        let What::Event(event) = &item.line.what else { continue };
        let mut door = |resource: &Resource, target: &Arc<str>| -> (DoorOf, bool) {
            let of = (Arc::clone(&life.of), Arc::clone(target), resource.clone());
            doors.entry(of.clone()).or_default();
            (of, story.audited.contains(target))
        };
        match event {
            Event::Persisted { resource, target, epoch, drained } => {
                let (of, _) = door(resource, target);
                let door = doors.entry(of.clone()).or_default();
                door.persist(&of, *epoch, *drained, *item, verdict);
                granted.knows(&of, *epoch, *item, verdict);
            }
            Event::FloorWriteFailed { resources, .. } => failing.extend(resources),
            Event::Fenced { resource, target, epoch } => {
                let (of, _) = door(resource, target);
                let excused = failing.contains(resource) || !life.from_its_start;
                doors.entry(of.clone()).or_default().fence(&of, *epoch, *item, excused, verdict);
            }
            Event::Opened { resource, target, epoch, forced } => {
                let (of, audit) = door(resource, target);
                doors.entry(of.clone()).or_default().open(&of, *epoch, *forced || audit, *item, life, verdict);
            }
            Event::Admitted { listener, resource, epoch: Some(epoch), .. } => {
                let Some(target) = story.target_of(life, listener, resource) else { continue };
                let (of, audit) = door(resource, &target);
                if !audit {
                    doors.entry(of.clone()).or_default().admit(&of, *epoch, *item, life, verdict);
                }
            }
            _ => {}
        }
    }
}

impl<'a> Door<'a> {
    fn begin_a_life(&mut self) {
        self.remembered = self.persisted;
        self.fenced = None;
        self.opened.clear();
    }

    /// I7: the floor never goes down.
    fn persist(&mut self, of: &DoorOf, epoch: Epoch, drained: bool, item: Item<'a>, verdict: &mut Verdict) {
        if let Some((before, at)) = self.persisted.filter(|(before, _)| *before > epoch) {
            let what = format!("{}: its floor went down, from epoch {before} to {epoch}", named(of));
            verdict.add(Invariant::Floor, "R5", what, &[at.line, item.line]);
        } else {
            self.persisted = Some((epoch, item));
        }
        self.on_disk.insert(epoch);
        if drained {
            self.drained.insert(epoch);
        }
    }

    /// I8: from disk first; from memory at once where the disk fails.
    fn fence(&mut self, of: &DoorOf, epoch: Epoch, item: Item<'a>, excused: bool, verdict: &mut Verdict) {
        if !self.on_disk.contains(&epoch) && !excused {
            let what = format!("{}: fenced for epoch {epoch} before that was on disk", named(of));
            verdict.add(Invariant::Persisted, "R5", what, &[item.line]);
        }
        if let Some((before, at)) = self.fenced.filter(|(before, _)| *before > epoch) {
            let what = format!("{}: fenced for epoch {epoch} after epoch {before}", named(of));
            verdict.add(Invariant::Floor, "R5", what, &[at.line, item.line]);
        } else {
            self.fenced = Some((epoch, item));
        }
    }

    /// I8: the floor is on disk, and the mark that it has drained too, unless nobody says that it has.
    fn open(
        &mut self,
        of: &DoorOf,
        epoch: Epoch,
        unproved: bool,
        item: Item<'a>,
        life: &Life<'_>,
        verdict: &mut Verdict,
    ) {
        self.opened.insert(epoch);
        if !life.from_its_start {
            return;
        }
        if !self.on_disk.contains(&epoch) {
            let what = format!("{}: epoch {epoch} was opened before it was on disk", named(of));
            verdict.add(Invariant::Persisted, "R5", what, &[item.line]);
        } else if !unproved && !self.drained.contains(&epoch) {
            let what =
                format!("{}: epoch {epoch} was opened before the mark that it has drained was on disk", named(of));
            let floor = self.persisted.map(|(_, at)| at.line);
            let lines: Vec<_> = floor.into_iter().chain([item.line]).collect();
            verdict.add(Invariant::Persisted, "R1", what, &lines);
        }
    }

    fn admit(&mut self, of: &DoorOf, epoch: Epoch, item: Item<'a>, life: &Life<'_>, verdict: &mut Verdict) {
        if let Some((floor, at)) = self.remembered.filter(|(floor, _)| *floor > epoch) {
            let what =
                format!("{}: epoch {epoch} was admitted after a restart; its floor had been epoch {floor}", named(of));
            verdict.add(Invariant::Floor, "R5", what, &[at.line, item.line]);
        } else if let Some((floor, at)) = self.fenced.filter(|(floor, _)| *floor > epoch) {
            let what = format!("{}: epoch {epoch} was admitted after epoch {floor} was fenced", named(of));
            verdict.add(Invariant::Closed, "R1", what, &[at.line, item.line]);
        } else if !self.opened.contains(&epoch) && life.from_its_start {
            let what = format!("{}: epoch {epoch} was admitted before it was opened", named(of));
            verdict.add(Invariant::Persisted, "R1", what, &[item.line]);
        }
    }
}

fn named((process, target, resource): &DoorOf) -> String {
    format!("{resource} at {target}, {process}")
}

/// The highest epoch of each resource that was ever granted, where every grant is there.
struct Granted<'a>(BTreeMap<&'a Resource, (Epoch, Item<'a>)>);

impl<'a> Granted<'a> {
    fn of(story: &Story<'a>) -> Granted<'a> {
        let mut highest: BTreeMap<&Resource, (Epoch, Item<'_>)> = BTreeMap::new();
        for item in &story.items {
            let granted = match &item.line.what {
                What::Outside(Outside::Granted { resource, epoch, .. }) => Some((resource, epoch)),
                What::Event(Event::Elected { resource, epoch, .. } | Event::Verified { resource, epoch, .. })
                    if story.options.whole =>
                {
                    Some((resource, epoch))
                }
                _ => None,
            };
            let Some((resource, epoch)) = granted else { continue };
            if highest.get(resource).is_none_or(|(before, _)| before < epoch) {
                highest.insert(resource, (*epoch, *item));
            }
        }
        Granted(highest)
    }

    fn knows(&self, of: &DoorOf, epoch: Epoch, item: Item<'_>, verdict: &mut Verdict) {
        let Some((highest, at)) = self.0.get(&of.2).filter(|(highest, _)| *highest < epoch) else { return };
        let what = format!("{}: its floor is epoch {epoch}; the highest that was ever granted is {highest}", named(of));
        verdict.add(Invariant::Floor, "R4", what, &[at.line, item.line]);
    }
}
