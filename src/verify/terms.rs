//! I6: who was granted which epoch, and who used it.

use std::collections::{BTreeMap, BTreeSet};

use super::history::Taken;
use super::story::{Item, Life, Story, in_time};
use super::violation::{Invariant, Verdict};
use super::{Line, Outside, What};
use crate::event::Event;
use crate::fence::{Epoch, Nonce, Resource, WriterId};

/// What a line says of whose an epoch is.
#[derive(Clone, Copy)]
struct Claim<'a> {
    item: Item<'a>,
    nonce: Option<Nonce>,
    writer: Option<&'a WriterId>,
}

type Of<'a> = (&'a Resource, Epoch);

/// Every term that anybody heard of from the coordinator, and every stamp that a target saw.
#[derive(Default)]
struct Terms<'a> {
    heard: BTreeMap<Of<'a>, Vec<Claim<'a>>>,
    used: BTreeMap<Of<'a>, Vec<Claim<'a>>>,
    /// The resources of which every grant is there.
    complete: BTreeSet<&'a Resource>,
    /// Those of which the coordinator lost its memory.
    rewound: BTreeSet<&'a Resource>,
    all_rewound: bool,
}

pub fn check(story: &Story<'_>, verdict: &mut Verdict) {
    let terms = Terms::of(story);
    verdict.counts.terms = terms.heard.len();
    for (of, claims) in &terms.heard {
        if !terms.rewound(of.0) {
            agree(of, claims, "granted", verdict);
        }
    }
    for (of, claims) in &terms.used {
        agree(of, claims, "used", verdict);
        terms.were_granted(of, claims, verdict);
    }
    grants_grow(story, &terms, verdict);
    for life in story.all_lives() {
        own_terms(story, life, verdict);
    }
}

impl<'a> Terms<'a> {
    fn of(story: &Story<'a>) -> Terms<'a> {
        let mut terms = Terms::default();
        for item in &story.items {
            let item = *item;
            match &item.line.what {
                What::Outside(Outside::Granted { resource, epoch, nonce, writer }) => {
                    terms.complete.insert(resource);
                    terms.hear(item, resource, *epoch, *nonce, writer);
                }
                What::Event(
                    Event::Elected { resource, epoch, nonce, writer, .. }
                    | Event::Verified { resource, epoch, nonce, writer, .. },
                ) => terms.hear(item, resource, *epoch, *nonce, writer),
                What::Outside(Outside::Applied { taken, .. }) => terms.use_of(item, taken),
                What::Outside(Outside::Rewound) => terms.all_rewound = true,
                What::Event(Event::Regression { resource, .. }) => drop(terms.rewound.insert(resource)),
                _ => {}
            }
        }
        if story.options.whole {
            terms.complete.extend(terms.heard.keys().map(|(resource, _)| *resource));
        }
        terms
    }

    fn hear(&mut self, item: Item<'a>, resource: &'a Resource, epoch: Epoch, nonce: Nonce, writer: &'a WriterId) {
        let claim = Claim { item, nonce: Some(nonce), writer: Some(writer) };
        self.heard.entry((resource, epoch)).or_default().push(claim);
    }

    fn use_of(&mut self, item: Item<'a>, taken: &'a Taken) {
        let Some(epoch) = taken.epoch else { return };
        let claim = Claim { item, nonce: taken.nonce, writer: taken.writer.as_ref() };
        self.used.entry((&taken.resource, epoch)).or_default().push(claim);
    }

    fn rewound(&self, resource: &Resource) -> bool {
        self.all_rewound || self.rewound.contains(resource)
    }

    /// What was applied under an epoch is of one of those who were granted it.
    fn were_granted(&self, of: &Of<'a>, used: &[Claim<'a>], verdict: &mut Verdict) {
        let (resource, epoch) = of;
        let Some(heard) = self.heard.get(of) else {
            if self.complete.contains(resource) {
                let what =
                    format!("{resource}: a write of epoch {epoch} was applied, and nobody was granted that epoch");
                verdict.add(Invariant::Granted, "R4", what, &[used[0].item.line]);
            }
            return;
        };
        for claim in used {
            if !heard.iter().any(|grant| grant.is_same(claim)) {
                let grant = &heard[0];
                let what = format!(
                    "{resource}: a write of epoch {epoch} was applied under the term of {}, and the epoch was granted to {}",
                    claim.name(),
                    grant.name()
                );
                verdict.add(Invariant::Granted, "R2", what, &[grant.item.line, claim.item.line]);
            }
        }
    }
}

impl Claim<'_> {
    /// Whether both may be of one term, as far as they say.
    fn is_same(&self, other: &Claim<'_>) -> bool {
        let differ = |same: Option<bool>| same == Some(false);
        let nonces = self.nonce.zip(other.nonce).map(|(one, other)| one == other);
        let writers = self.writer.zip(other.writer).map(|(one, other)| one == other);
        !differ(nonces) && !differ(writers)
    }

    fn name(&self) -> String {
        let writer = self.writer.map_or("an unnamed writer", WriterId::as_str);
        self.nonce.map_or_else(|| writer.to_owned(), |nonce| format!("{writer} (nonce {nonce})"))
    }
}

/// R3: everybody means the same term by an epoch. A claim without a nonce or a writer fits several: compared with all
/// that are distinct, of which there are few.
fn agree(of: &Of<'_>, claims: &[Claim<'_>], how: &str, verdict: &mut Verdict) {
    let mut distinct: Vec<&Claim<'_>> = Vec::new();
    for claim in claims {
        let same = |other: &&&Claim<'_>| other.nonce == claim.nonce && other.writer == claim.writer;
        if distinct.iter().any(|other| same(&other)) {
            continue;
        }
        if let Some(other) = distinct.iter().find(|other| !other.is_same(claim)) {
            let (resource, epoch) = of;
            let what = format!("{resource}: epoch {epoch} was {how} by both {} and {}", other.name(), claim.name());
            verdict.add(Invariant::Granted, "R3", what, &[other.item.line, claim.item.line]);
            return;
        }
        distinct.push(claim);
    }
}

/// The epochs that the coordinator grants grow with each election.
fn grants_grow(story: &Story<'_>, terms: &Terms<'_>, verdict: &mut Verdict) {
    let mut by_resource: BTreeMap<(&Resource, &str), Vec<(Item<'_>, Epoch)>> = BTreeMap::new();
    for item in &story.items {
        if let What::Outside(Outside::Granted { resource, epoch, .. }) = &item.line.what
            && !terms.rewound(resource)
        {
            let of = (resource, &*item.line.from);
            by_resource.entry(of).or_default().push((*item, *epoch));
        }
    }
    for ((resource, _), mut grants) in by_resource {
        grants.sort_by(|first, second| in_time(first.0, second.0));
        for pair in grants.windows(2) {
            let ((before, old), (after, new)) = (pair[0], pair[1]);
            if new < old && story.is_before(before, after) {
                let what = format!("{resource}: epoch {new} was granted after epoch {old}");
                verdict.add(Invariant::Granted, "R3", what, &[before.line, after.line]);
            }
        }
    }
}

/// R2: a process stamps only terms that it won itself in this life, and only before the deadline.
fn own_terms(story: &Story<'_>, life: &Life<'_>, verdict: &mut Verdict) {
    let mut own: BTreeMap<(&Resource, Epoch, Nonce), Item<'_>> = BTreeMap::new();
    let elected = elected(life);
    for item in &life.items {
        match &item.line.what {
            What::Event(Event::Elected { resource, epoch, nonce, own: true, .. }) => {
                own.entry((resource, *epoch, *nonce)).or_insert(*item);
            }
            What::Event(Event::Stamped { resource, epoch, nonce, deadline, .. }) => {
                let won = own.get(&(resource, *epoch, *nonce)).is_some_and(|won| story.is_before(*won, *item));
                if !won && life.from_its_start {
                    let what = format!(
                        "{resource}: {} stamped epoch {epoch} (nonce {nonce}), which it had not won since its start",
                        life.of
                    );
                    let known = elected.get(&(resource, *epoch)).copied();
                    let lines: Vec<&Line> = known.into_iter().chain([item.line]).collect();
                    verdict.add(Invariant::Granted, "R2", what, &lines);
                }
                if item.line.at >= *deadline {
                    let late = item.line.at.since(*deadline);
                    let what = format!("{resource}: {} stamped epoch {epoch} {late:?} after its deadline", life.of);
                    verdict.add(Invariant::Granted, "R2", what, &[item.line]);
                }
            }
            _ => {}
        }
    }
}

/// What a process says first of who was elected to each epoch.
fn elected<'a>(life: &Life<'a>) -> BTreeMap<Of<'a>, &'a Line> {
    let mut elected = BTreeMap::new();
    for item in &life.items {
        if let What::Event(Event::Elected { resource, epoch, .. }) = &item.line.what {
            elected.entry((resource, *epoch)).or_insert(item.line);
        }
    }
    elected
}
