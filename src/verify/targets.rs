//! I1 and I2: the order in which a target applied writes, and what it may not apply any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::Taken;
use super::story::{Item, Story, in_time};
use super::violation::{Invariant, Verdict};
use super::{Outside, What};
use crate::event::Event;
use crate::fence::{Epoch, Resource};

/// A write that a target applied, and its place in the order.
#[derive(Clone, Copy)]
struct Applied<'a> {
    item: Item<'a>,
    taken: &'a Taken,
    seq: u64,
}

type Place = (Arc<str>, Resource);

pub fn check(story: &Story<'_>, verdict: &mut Verdict) {
    let mut by_target: BTreeMap<Arc<str>, Vec<Applied<'_>>> = BTreeMap::new();
    for item in &story.items {
        if let What::Outside(Outside::Applied { taken, seq }) = &item.line.what {
            by_target.entry(Arc::clone(&taken.target)).or_default().push(Applied { item: *item, taken, seq: *seq });
        }
    }
    let opens = Opens::of(story);
    for (target, mut applied) in by_target {
        applied.sort_by_key(|applied| (applied.seq, applied.item.number));
        places_are_distinct(&target, &applied, verdict);
        if story.audited.contains(&target) {
            verdict.not_checked(format!("I1 and I2 at {target}: a door before it only counts (mode: audit)"));
            continue;
        }
        let without = applied.iter().filter(|applied| applied.taken.epoch.is_none()).count();
        if without > 0 {
            let of = applied.len();
            verdict
                .not_checked(format!("I1 and I2 at {target}: {without} of {of} writes were applied without an epoch"));
        }
        never_decreasing(story, &target, &applied, verdict);
        for applied in &applied {
            nothing_of_a_closed_epoch(story, &opens, applied, verdict);
        }
    }
}

fn places_are_distinct(target: &str, applied: &[Applied<'_>], verdict: &mut Verdict) {
    for pair in applied.windows(2) {
        if pair[0].seq == pair[1].seq {
            let what = format!("two writes have the place {} in the order of {target}", pair[0].seq);
            verdict.add(Invariant::Record, "history", what, &[pair[0].item.line, pair[1].item.line]);
        }
    }
}

/// I1. What came after an epoch that was opened by force is outside the guarantee, up to the next epoch.
fn never_decreasing(story: &Story<'_>, target: &Arc<str>, applied: &[Applied<'_>], verdict: &mut Verdict) {
    let mut highest: BTreeMap<&Resource, (Epoch, Applied<'_>)> = BTreeMap::new();
    for applied in applied {
        let (resource, Some(epoch)) = (&applied.taken.resource, applied.taken.epoch) else { continue };
        match highest.get(resource) {
            Some((above, before)) if epoch < *above => {
                let what = format!(
                    "{resource} at {target}: a write of epoch {epoch} was applied (place {}) after one of epoch {above} (place {})",
                    applied.seq, before.seq
                );
                verdict.add(Invariant::Order, "R1", what, &[before.item.line, applied.item.line]);
            }
            _ if story.forced.contains(&(Arc::clone(target), resource.clone(), epoch)) => {}
            _ => drop(highest.insert(resource, (epoch, *applied))),
        }
    }
}

/// I2.
fn nothing_of_a_closed_epoch(story: &Story<'_>, opens: &Opens<'_>, applied: &Applied<'_>, verdict: &mut Verdict) {
    let Some(epoch) = applied.taken.epoch else { return };
    let Some((opened, at)) = opens.highest_before(story, applied) else { return };
    if opened <= epoch {
        return;
    }
    let Taken { target, resource, .. } = applied.taken;
    let late = applied.item.line.at.since(at.line.at);
    let what = format!(
        "{resource} at {target}: a write of epoch {epoch} was applied {late:?} after {} had opened epoch {opened}",
        at.line.from
    );
    verdict.add(Invariant::Closed, "R1", what, &[at.line, applied.item.line]);
}

/// When which epoch was opened at a target, by any of its doors, without force.
struct Opens<'a>(BTreeMap<(Place, &'a str), Vec<Open<'a>>>);

struct Open<'a> {
    epoch: Epoch,
    item: Item<'a>,
    /// The highest of this one and all before it.
    highest: (Epoch, Item<'a>),
}

impl<'a> Opens<'a> {
    fn of(story: &Story<'a>) -> Opens<'a> {
        let mut opens: BTreeMap<(Place, &'a str), Vec<Open<'a>>> = BTreeMap::new();
        for item in &story.items {
            if let What::Event(Event::Opened { resource, target, epoch, forced: false }) = &item.line.what {
                let key = ((Arc::clone(target), resource.clone()), story.clock_of(item.line));
                opens.entry(key).or_default().push(Open { epoch: *epoch, item: *item, highest: (*epoch, *item) });
            }
        }
        for opens in opens.values_mut() {
            opens.sort_by(|first, second| in_time(first.item, second.item));
            for next in 1..opens.len() {
                if opens[next - 1].highest.0 > opens[next].highest.0 {
                    opens[next].highest = opens[next - 1].highest;
                }
            }
        }
        Opens(opens)
    }

    /// The highest epoch that was open before a write was applied.
    fn highest_before(&self, story: &Story<'a>, applied: &Applied<'a>) -> Option<(Epoch, Item<'a>)> {
        let place = (Arc::clone(&applied.taken.target), applied.taken.resource.clone());
        let opens = self.0.get(&(place, story.clock_of(applied.item.line)))?;
        let at = applied.item.line.at;
        let earlier = opens.partition_point(|open| open.item.line.at < at);
        let before = earlier.checked_sub(1).map(|last| opens[last].highest);
        // At the same time, only the order in one file tells.
        let same = opens[earlier..].iter().take_while(|open| open.item.line.at == at);
        let same = same.filter(|open| story.is_before(open.item, applied.item)).map(|open| (open.epoch, open.item));
        before.into_iter().chain(same).max_by_key(|(epoch, _)| *epoch)
    }
}
