//! I9: what a door let in leaves its books exactly once, and nothing comes to its target past it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::history::Taken;
use super::story::{Item, Life, Story};
use super::violation::{Invariant, Verdict};
use super::{Line, Outside, What};
use crate::event::Event;
use crate::fence::{Epoch, Resource};
use crate::protocol::right::Settled;

/// What a life's books say of one write.
#[derive(Default)]
struct Write<'a> {
    admitted: Vec<Item<'a>>,
    forwarded: Vec<Item<'a>>,
    settled: Vec<(Item<'a>, Settled)>,
    epochs: BTreeSet<Option<Epoch>>,
}

pub fn check(story: &Story<'_>, verdict: &mut Verdict) {
    let mut forwarded = BTreeMap::new();
    for life in story.all_lives() {
        let mut writes = BTreeMap::<u64, Write<'_>>::new();
        for item in &life.items {
            let What::Event(event) = &item.line.what else { continue };
            let (number, epoch) = match event {
                Event::Admitted { write, epoch, .. }
                | Event::Forwarded { write, epoch, .. }
                | Event::Settled { write, epoch, .. } => (*write, *epoch),
                _ => continue,
            };
            let write = writes.entry(number).or_default();
            write.epochs.insert(epoch);
            match event {
                Event::Admitted { .. } => write.admitted.push(*item),
                Event::Settled { how, .. } => write.settled.push((*item, *how)),
                Event::Forwarded { listener, resource, .. } => {
                    let target = story.target_of(life, listener, resource);
                    if let Some(target) = target.filter(|_| write.forwarded.is_empty()) {
                        *forwarded.entry((target, resource, epoch)).or_insert(0) += 1;
                    }
                    write.forwarded.push(*item);
                }
                _ => {}
            }
        }
        for (number, write) in &writes {
            write.check(*number, story, life, verdict);
        }
    }
    nothing_past_the_doors(story, &forwarded, verdict);
}

impl<'a> Write<'a> {
    fn check(&self, number: u64, story: &Story<'_>, life: &Life<'_>, verdict: &mut Verdict) {
        let Some(wrong) = self.wrong(story, life) else { return };
        let what = format!("{}: write {number} {wrong}", life.of);
        verdict.add(Invariant::Books, "R6", what, &self.lines());
    }

    fn wrong(&self, story: &Story<'_>, life: &Life<'_>) -> Option<String> {
        let (admitted, settled) = (self.admitted.len(), self.settled.len());
        let counted_in = admitted > 0 || !life.from_its_start;
        if admitted > 1 {
            return Some(format!("was admitted {admitted} times"));
        }
        if settled > 1 {
            return Some(format!("was settled {settled} times"));
        }
        if !counted_in {
            let what = if self.forwarded.is_empty() { "settled" } else { "forwarded" };
            return Some(format!("was {what}, and never admitted"));
        }
        if self.epochs.len() > 1 {
            return Some("does not have one epoch".to_owned());
        }
        if let Some((end, how)) = self.settled.first() {
            let late = |item: &Item<'_>| story.is_before(*end, *item);
            if self.forwarded.iter().chain(&self.admitted).any(late) {
                return Some("went on after it was settled".to_owned());
            }
            if *how == Settled::Answered && self.forwarded.is_empty() && life.from_its_start {
                return Some("was answered, and never forwarded".to_owned());
            }
        } else if life.stopped && life.whole {
            return Some("was never settled, and the process stopped in order".to_owned());
        }
        None
    }

    fn lines(&self) -> Vec<&'a Line> {
        let settled = self.settled.iter().map(|(item, _)| *item);
        let mut items: Vec<Item<'a>> = self.admitted.iter().chain(&self.forwarded).copied().chain(settled).collect();
        items.sort_by_key(|item| (item.line.at, item.number));
        items.into_iter().map(|item| item.line).collect()
    }
}

type Forwards<'a> = BTreeMap<(Arc<str>, &'a Resource, Option<Epoch>), usize>;

/// What a target had of a resource, by epoch, and the last line of each.
type Came<'a> = BTreeMap<(&'a Arc<str>, &'a Resource, Option<Epoch>), (usize, Item<'a>)>;

/// Compares numbers only: a line of a target does not say which write of which door it was.
fn nothing_past_the_doors(story: &Story<'_>, forwarded: &Forwards<'_>, verdict: &mut Verdict) {
    let (received, applied) = came(story);
    let targets: BTreeSet<&Arc<str>> = received.keys().chain(applied.keys()).map(|(target, ..)| *target).collect();
    let known: BTreeSet<&Arc<str>> =
        targets.into_iter().filter(|target| all_forwards_are_there(story, target, verdict)).collect();
    for came in [received, applied] {
        let mut totals: Came<'_> = BTreeMap::new();
        for ((target, resource, epoch), (count, last)) in &came {
            if !known.contains(target) {
                continue;
            }
            let total = totals.entry((target, resource, None)).or_insert((0, *last));
            *total = (total.0 + count, *last);
            if epoch.is_some() {
                let let_in = forwarded.get(&(Arc::clone(target), *resource, *epoch)).copied().unwrap_or(0);
                compare(target, resource, *epoch, (*count, *last), may_have_been(story, target, let_in), verdict);
            }
        }
        for ((target, resource, _), came) in totals {
            let of_it = forwarded.iter().filter(|((to, of, _), _)| to == target && *of == resource);
            let let_in = of_it.map(|(_, count)| count).sum();
            compare(target, resource, None, came, may_have_been(story, target, let_in), verdict);
        }
    }
}

/// How many writes that may have been at a target: a session may have carried any number.
fn may_have_been(story: &Story<'_>, target: &str, let_in: usize) -> usize {
    let any_number = let_in > 0 && story.all_lives().any(|life| life.carries_sessions(target));
    if any_number { usize::MAX } else { let_in }
}

fn compare(
    target: &str,
    resource: &Resource,
    epoch: Option<Epoch>,
    (count, last): (usize, Item<'_>),
    let_in: usize,
    verdict: &mut Verdict,
) {
    if count > let_in {
        let of = epoch.map_or_else(String::new, |epoch| format!(" of epoch {epoch}"));
        let what = format!(
            "{resource} at {target}: {count} writes{of} came, and its doors forwarded {let_in}: one went around them, or was sent twice, or a door's file is missing"
        );
        verdict.add(Invariant::Books, "R6", what, &[last.line]);
    }
}

/// What came whole, where the target says so, and what was applied.
fn came<'a>(story: &Story<'a>) -> (Came<'a>, Came<'a>) {
    let (mut received, mut applied): (Came<'a>, Came<'a>) = Default::default();
    for item in &story.items {
        let (came, taken) = match &item.line.what {
            What::Outside(Outside::Received(taken)) => (&mut received, taken),
            What::Outside(Outside::Applied { taken, .. }) => (&mut applied, taken),
            _ => continue,
        };
        let Taken { target, resource, epoch, .. } = taken;
        let count = came.entry((target, resource, *epoch)).or_insert((0, *item));
        *count = (count.0 + 1, *item);
    }
    (received, applied)
}

/// Whether the history has everything that the doors of a target did: they are there, none of them only counts (one that
/// does forwards what has no resource, too), and none was killed before it had written its last events.
fn all_forwards_are_there(story: &Story<'_>, target: &Arc<str>, verdict: &mut Verdict) -> bool {
    let doors = || story.all_lives().filter(|life| life.guards(target));
    let missing = match (doors().next().is_some(), story.audited.contains(target)) {
        // That is said with what else is not looked at without a door.
        (false, _) if !story.options.whole => return false,
        (false, _) => Some("no door's lines are of that target".to_owned()),
        (true, true) => Some("a door before it only counts (mode: audit)".to_owned()),
        (true, false) => story.unfinished(doors()),
    };
    if let Some(missing) = &missing {
        verdict.not_checked(format!("I9 at {target}, whether anything went past its doors: {missing}"));
    }
    missing.is_none()
}
