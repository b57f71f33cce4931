//! I11 and I13: whether it goes on when nothing is broken any more, and what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use super::story::{Item, Story};
use super::violation::{Invariant, Verdict};
use super::{Outside, What, is_acknowledged};
use crate::event::Event;
use crate::fence::{Reason, Resource};

pub fn check(story: &Story<'_>, verdict: &mut Verdict) {
    goes_on(story, verdict);
    refusals_say_why(story, verdict);
    clients_were_told(story, verdict);
}

/// I11.
fn goes_on(story: &Story<'_>, verdict: &mut Verdict) {
    for mark in &story.items {
        let What::Outside(Outside::FaultsOver { within_ns, resource }) = &mark.line.what else { continue };
        if !story.options.clock {
            return verdict.not_checked("I11: the times of several clocks cannot be compared".to_owned());
        }
        let by = mark.line.at.plus(*within_ns);
        let mut sent = BTreeMap::new();
        for item in &story.items {
            if let What::Outside(Outside::Sent { op, resource, .. }) = &item.line.what
                && story.is_before(*mark, *item)
            {
                sent.insert(op, resource);
            }
        }
        let mut wanted: BTreeSet<&Resource> = sent.values().copied().collect();
        if let Some(resource) = resource {
            wanted = [resource].into();
        }
        let acknowledged = story.items.iter().filter_map(|item| match &item.line.what {
            What::Outside(Outside::Ended { op, outcome, status, .. })
                if is_acknowledged(*outcome, *status) && item.line.at <= by && story.is_before(*mark, *item) =>
            {
                sent.get(op).copied()
            }
            _ => None,
        });
        let well: BTreeSet<&Resource> = acknowledged.collect();
        let span = *within_ns;
        for resource in wanted.difference(&well) {
            let what = format!(
                "{resource}: no write that was sent after the faults were over was acknowledged within {span:?}"
            );
            verdict.add(Invariant::Liveness, "liveness", what, &[mark.line]);
        }
        if wanted.is_empty() {
            let what = "nothing was sent after the faults were over".to_owned();
            verdict.add(Invariant::Liveness, "liveness", what, &[mark.line]);
        }
    }
}

/// I13, the product's side: a refusal names both epochs where it compares them.
fn refusals_say_why(story: &Story<'_>, verdict: &mut Verdict) {
    for Item { line, .. } in &story.items {
        let What::Event(Event::Refused { refusal, .. }) = &line.what else { continue };
        let told = match (refusal.reason, refusal.epoch, refusal.required_epoch) {
            // A stamp may be missing where reads are fenced too; then there is no epoch to name.
            (Reason::StaleEpoch, Some(given), Some(required)) => given < required,
            (Reason::StaleEpoch, _, required) => required.is_some(),
            _ => true,
        };
        if !told {
            let what = "a write was refused for its epoch, without a higher one that is required".to_owned();
            verdict.add(Invariant::Told, "R7", what, &[line]);
        }
    }
}

/// I13, the clients' side: whoever was told a reason was refused by a process that recorded it.
fn clients_were_told(story: &Story<'_>, verdict: &mut Verdict) {
    let (mut told, mut recorded) = (BTreeMap::<&str, Vec<Item<'_>>>::new(), BTreeMap::<&str, usize>::new());
    for item in &story.items {
        match &item.line.what {
            What::Outside(Outside::Ended { reason: Some(reason), .. }) => {
                told.entry(reason.as_str()).or_default().push(*item);
            }
            What::Event(Event::Refused { refusal, .. }) => *recorded.entry(refusal.reason.as_str()).or_default() += 1,
            _ => {}
        }
    }
    if told.is_empty() {
        return;
    }
    let missing = match story.lives.is_empty() {
        true => Some("no line of a process that refuses is there".to_owned()),
        false => story.unfinished(story.all_lives()),
    };
    if let Some(missing) = missing {
        return verdict.not_checked(format!("I13, that all that clients were told is on record: {missing}"));
    }
    for (reason, items) in told {
        let recorded = recorded.get(reason).copied().unwrap_or(0);
        if items.len() > recorded {
            let what = format!(
                "{} clients were refused with {reason}, and {recorded} such refusals are on record: they were told \
                 something else than happened, or the file of a process that refused is missing",
                items.len()
            );
            verdict.add(Invariant::Told, "R7", what, &[items[items.len() - 1].line]);
        }
    }
}
