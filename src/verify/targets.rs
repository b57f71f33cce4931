//! I1 and I2: the order in which a target applied writes, and what it may not apply any more.

use std::collections::{BTreeMap, BTreeSet};
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
        never_decreasing(story, &target, &applied, verdict);
        for applied in &applied {
            nothing_of_a_closed_epoch(story, &opens, applied, verdict);
        }
        if applied.iter().any(|applied| opens.has_others(story, applied)) {
            verdict.not_checked(format!(
                "I2 at {target}: its doors' lines are in other files than its own, and their times are not compared \
                 (--no-clock)"
            ));
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

/// The newest epoch that was applied so far, and what came behind it.
struct Highest<'a> {
    epoch: Epoch,
    write: Applied<'a>,
    behind: Vec<Applied<'a>>,
}

/// I1. What came after an epoch that was opened by force is outside the guarantee, up to the next epoch. One write of a
/// newer epoch puts all that follow behind it: that is one violation.
fn never_decreasing(story: &Story<'_>, target: &Arc<str>, applied: &[Applied<'_>], verdict: &mut Verdict) {
    let mut highest: BTreeMap<&Resource, Highest<'_>> = BTreeMap::new();
    for applied in applied {
        let (resource, Some(epoch)) = (&applied.taken.resource, applied.taken.epoch) else { continue };
        match highest.get_mut(resource) {
            Some(highest) if epoch < highest.epoch => highest.behind.push(*applied),
            _ if story.forced.contains(&(Arc::clone(target), resource.clone(), epoch)) => {}
            _ => {
                let now = Highest { epoch, write: *applied, behind: Vec::new() };
                if let Some(before) = highest.insert(resource, now) {
                    before.nothing_is_behind(target, resource, verdict);
                }
            }
        }
    }
    for (resource, highest) in highest {
        highest.nothing_is_behind(target, resource, verdict);
    }
}

impl Highest<'_> {
    fn nothing_is_behind(&self, target: &str, resource: &Resource, verdict: &mut Verdict) {
        let Highest { epoch: above, write, behind } = self;
        let [first, more @ ..] = behind.as_slice() else { return };
        let Some(epoch) = first.taken.epoch else { return };
        let mut what = format!(
            "{resource} at {target}: a write of epoch {epoch} was applied (place {}) after one of epoch {above} (place {})",
            first.seq, write.seq
        );
        let mut lines = vec![write.item.line, first.item.line];
        if let Some(last) = more.last() {
            what += &format!("; so were {} more of lower epochs, up to place {}", more.len(), last.seq);
            lines.push(last.item.line);
        }
        verdict.add(Invariant::Order, "R1", what, &lines);
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
struct Opens<'a> {
    by_place: BTreeMap<(Place, &'a str), Vec<Open<'a>>>,
    /// On which clocks, where there are several.
    clocks: BTreeMap<Place, BTreeSet<&'a str>>,
}

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
        let mut clocks: BTreeMap<Place, BTreeSet<&'a str>> = BTreeMap::new();
        for (place, clock) in opens.keys() {
            clocks.entry(place.clone()).or_default().insert(clock);
        }
        Opens { by_place: opens, clocks }
    }

    /// Whether there are some whose times cannot be compared with that of a write.
    fn has_others(&self, story: &Story<'a>, applied: &Applied<'a>) -> bool {
        let place = (Arc::clone(&applied.taken.target), applied.taken.resource.clone());
        let own = story.clock_of(applied.item.line);
        self.clocks.get(&place).is_some_and(|clocks| clocks.iter().any(|clock| *clock != own))
    }

    /// The highest epoch that was open before a write was applied.
    fn highest_before(&self, story: &Story<'a>, applied: &Applied<'a>) -> Option<(Epoch, Item<'a>)> {
        let place = (Arc::clone(&applied.taken.target), applied.taken.resource.clone());
        let opens = self.by_place.get(&(place, story.clock_of(applied.item.line)))?;
        let at = applied.item.line.at;
        let earlier = opens.partition_point(|open| open.item.line.at < at);
        let before = earlier.checked_sub(1).map(|last| opens[last].highest);
        // At the same time, only the order in one file tells.
        let same = opens[earlier..].iter().take_while(|open| open.item.line.at == at);
        let same = same.filter(|open| story.is_before(open.item, applied.item)).map(|open| (open.epoch, open.item));
        before.into_iter().chain(same).max_by_key(|(epoch, _)| *epoch)
    }
}
