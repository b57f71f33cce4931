//! I3, I4, I5 and I10: what became of what clients sent.
//!
//! A client may send one operation several times, and each send ends for itself. So the target may have it at most as
//! often as sends may have been applied (answered, unknown, not ended), and has it at least as often as one was
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::history::Taken;
use super::story::{Item, Story};
use super::violation::{Invariant, Verdict};
use super::{Line, Outside, What, is_acknowledged};
use crate::fence::Outcome;

/// Everything that the history says of one operation.
#[derive(Default)]
struct Operation<'a> {
    sent: Vec<Item<'a>>,
    ended: Vec<Item<'a>>,
    acknowledged: usize,
    answered: usize,
    unknown: usize,
    applied: Vec<(Item<'a>, &'a Taken)>,
    received: Vec<Item<'a>>,
}

pub fn check(story: &Story<'_>, verdict: &mut Verdict) {
    let (mut operations, mut recorded) = (BTreeMap::<&Arc<str>, Operation<'_>>::new(), BTreeSet::new());
    for item in &story.items {
        let What::Outside(outside) = &item.line.what else { continue };
        match outside {
            Outside::Sent { op, .. } => operations.entry(op).or_default().sent.push(*item),
            Outside::Ended { op, outcome, status, .. } => {
                let operation = operations.entry(op).or_default();
                operation.ended.push(*item);
                operation.acknowledged += usize::from(is_acknowledged(*outcome, *status));
                operation.answered += usize::from(*outcome == Outcome::Answered);
                operation.unknown += usize::from(*outcome == Outcome::Unknown);
            }
            Outside::Applied { taken, .. } => {
                recorded.insert(&taken.target);
                if let Some(op) = &taken.op {
                    operations.entry(op).or_default().applied.push((*item, taken));
                }
            }
            Outside::Recorded { target } => drop(recorded.insert(target)),
            Outside::Received(Taken { op: Some(op), .. }) => {
                operations.entry(op).or_default().received.push(*item);
            }
            _ => {}
        }
    }
    if operations.values().all(|operation| operation.sent.is_empty()) {
        return verdict.not_checked("I3, I4, I5 and I10: no client's lines are there".to_owned());
    }
    for (op, operation) in &operations {
        operation.check(op, story, &recorded, verdict);
    }
}

impl<'a> Operation<'a> {
    fn check(&self, op: &str, story: &Story<'_>, recorded: &BTreeSet<&Arc<str>>, verdict: &mut Verdict) {
        let (sends, ends, applied) = (self.sent.len(), self.ended.len(), self.applied.len());
        if ends > sends {
            let what = format!("operation {op} ended {ends} times, and was sent {sends} times");
            return verdict.add(Invariant::Record, "history", what, &self.lines());
        }
        self.is_what_was_sent(op, verdict);
        let may = self.answered + self.unknown + (sends - ends);
        if self.received.len() > sends || (applied > sends && sends != 1) {
            let (how, times) = if applied > sends { ("applied", applied) } else { ("received", self.received.len()) };
            let what = format!("operation {op} was {how} {times} times, and sent {sends} times");
            verdict.add(Invariant::Once, "R6", what, &self.lines());
        } else if applied > may {
            self.too_often(op, may, verdict);
        }
        let least = self.acknowledged;
        if applied < least && self.is_recorded(story, recorded) {
            let what = match applied {
                0 => format!("operation {op} was acknowledged, and never applied"),
                _ => format!("operation {op} was acknowledged {least} times, and applied {applied} times"),
            };
            verdict.add(Invariant::Acknowledged, "R6", what, &self.lines());
        }
    }

    fn too_often(&self, op: &str, may: usize, verdict: &mut Verdict) {
        let (sends, applied) = (self.sent.len(), self.applied.len());
        let invariant = match (self.acknowledged, may) {
            (_, 0) => Invariant::Refused,
            (0, _) => Invariant::Unknown,
            _ => Invariant::Acknowledged,
        };
        let refused = sends - may;
        let what = match sends {
            1 if may == 0 => {
                format!("operation {op} was refused, certainly not applied; it was applied {applied} times")
            }
            1 => format!("operation {op} was sent once, and applied {applied} times"),
            _ => format!(
                "operation {op} was applied {applied} times; of its {sends} sends, {refused} were certainly not applied"
            ),
        };
        verdict.add(invariant, "R6", what, &self.lines());
    }

    /// The resource and the digest of what was applied are those of a send.
    fn is_what_was_sent(&self, op: &str, verdict: &mut Verdict) {
        let (mut resources, mut bodies) = (BTreeSet::new(), BTreeSet::new());
        for item in &self.sent {
            if let What::Outside(Outside::Sent { resource, body, .. }) = &item.line.what {
                resources.insert(resource);
                bodies.extend(body.as_ref());
            }
        }
        for (_, taken) in &self.applied {
            if !resources.is_empty() && !resources.contains(&taken.resource) {
                let what = format!("operation {op} was applied to {}, and sent for {resources:?}", taken.resource);
                verdict.add(Invariant::Acknowledged, "R6", what, &self.lines());
            }
            if let Some(body) = &taken.body
                && !bodies.is_empty()
                && !bodies.contains(body)
            {
                let what = format!("operation {op} was applied with another body ({body}) than it was sent with");
                verdict.add(Invariant::Acknowledged, "R6", what, &self.lines());
            }
        }
    }

    /// Whether the history has what the target applied.
    fn is_recorded(&self, story: &Story<'_>, recorded: &BTreeSet<&Arc<str>>) -> bool {
        let is_there = |item: &Item<'_>| match &item.line.what {
            What::Outside(Outside::Sent { target: Some(target), .. }) => recorded.contains(target),
            _ => !recorded.is_empty(),
        };
        story.options.whole || self.sent.iter().all(is_there)
    }

    /// All of them, by time.
    fn lines(&self) -> Vec<&'a Line> {
        let applied = self.applied.iter().map(|(item, _)| *item);
        let mut items: Vec<Item<'a>> = self.sent.iter().chain(&self.ended).copied().chain(applied).collect();
        items.extend(&self.received);
        items.sort_by_key(|item| (item.line.at, item.number));
        items.into_iter().map(|item| item.line).collect()
    }
}
