//! The judgement: the product's own checker over the history, and what only a simulation knows.

use std::collections::{BTreeMap, BTreeSet};

use epochgate::event::Event;
use epochgate::fence::{Epoch, Nonce, Outcome, Resource};
use epochgate::verify::{self, Counts, Line, Options, Outside, What};

use crate::record::Entry;
use crate::run::Run;

/// What was found wrong, one text each, and how much there was to judge.
pub struct Judgement {
    pub wrong: Vec<String>,
    pub counts: Counts,
}

/// Judges a run.
pub fn judge(run: &Run) -> Judgement {
    let lines: Vec<Line> = lines(&run.entries).cloned().collect();
    let verdict = verify::check(&lines, Options { clock: true, whole: true });
    let mut wrong: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    wrong.extend(verdict.not_checked.iter().map(|what| format!("not checked: {what}")));
    wrong.extend(run.panics.iter().map(|panic| format!("a panic: {panic}")));
    ended_badly(&run.entries, &mut wrong);
    own_terms(&run.entries, &mut wrong);
    if !run.plan.keeps_writing {
        stamped_after_the_lease(&run.entries, &mut wrong);
    }
    Judgement { wrong, counts: verdict.counts }
}

/// The history in a record.
pub fn lines(entries: &[Entry]) -> impl Iterator<Item = &Line> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Line(line) => Some(line),
        Entry::Note { .. } | Entry::Lapsed { .. } => None,
    })
}

/// The resources with a write that was begun among these entries, and acknowledged.
pub fn acknowledged(entries: &[Entry]) -> BTreeSet<String> {
    let (mut sent, mut well) = (BTreeMap::new(), BTreeSet::new());
    for line in lines(entries) {
        match &line.what {
            What::Outside(Outside::Sent { op, resource, .. }) => drop(sent.insert(op, resource)),
            What::Outside(Outside::Ended { op, outcome: Outcome::Answered, .. }) => {
                well.extend(sent.get(op).map(ToString::to_string));
            }
            _ => {}
        }
    }
    well
}

/// A process may stop in order, or give way to another of its name; nothing else.
fn ended_badly(entries: &[Entry], wrong: &mut Vec<String>) {
    for entry in entries {
        if let Entry::Note { text, .. } = entry
            && text.starts_with("ended: ")
            && !text.contains("Stopped")
            && !text.contains("DuplicateWriter")
        {
            wrong.push(format!("a process ended by itself:\n  {entry}"));
        }
    }
}

/// R2: what was applied under a term was sent by its service after that term had begun.
fn own_terms(entries: &[Entry], wrong: &mut Vec<String>) {
    let mut begun: BTreeMap<(String, Resource, Epoch, Nonce), usize> = BTreeMap::new();
    let mut sent: BTreeMap<&str, Vec<(usize, &Entry)>> = BTreeMap::new();
    for (number, entry) in entries.iter().enumerate() {
        let Entry::Line(line) = entry else { continue };
        match &line.what {
            What::Event(Event::Elected { resource, epoch, nonce, own: true, .. }) => {
                begun.entry((line.from.to_string(), resource.clone(), *epoch, *nonce)).or_insert(number);
            }
            What::Outside(Outside::Sent { op, .. }) if line.from.starts_with("app-") => {
                sent.entry(op).or_default().push((number, entry));
            }
            What::Outside(Outside::Applied { taken, .. }) => {
                let (Some(op), Some(epoch), Some(nonce), Some(writer)) =
                    (&taken.op, taken.epoch, taken.nonce, &taken.writer)
                else {
                    continue;
                };
                let Some(sends) = sent.get(&**op) else { continue };
                let began = begun.get(&(writer.to_string(), taken.resource.clone(), epoch, nonce));
                let own = |(number, send): &&(usize, &Entry)| {
                    let app = match send {
                        Entry::Line(line) => line.from.strip_prefix("app-"),
                        _ => None,
                    };
                    began.is_some_and(|began| began < number) && app == writer.as_str().strip_prefix("stamp-")
                };
                if !sends.iter().any(|send| own(&send)) {
                    let lines: Vec<String> = sends.iter().map(|(_, send)| format!("\n  {send}")).collect();
                    let lines = lines.concat();
                    wrong.push(format!(
                        "R2: {op} was applied under a term that began after it was sent:{lines}\n  {entry}"
                    ));
                }
            }
            _ => {}
        }
    }
}

/// A writer does not stamp when the coordinator has ended its lease for its time. (One that was restored knows leases
/// again that had lapsed.)
fn stamped_after_the_lease(entries: &[Entry], wrong: &mut Vec<String>) {
    let mut lapsed: BTreeMap<(String, Epoch, Nonce), &Entry> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Lapsed { resource, term, .. } => {
                lapsed.insert((resource.clone(), term.epoch, term.nonce), entry);
            }
            Entry::Line(Line { what: What::Outside(Outside::Rewound), .. }) => lapsed.clear(),
            Entry::Line(Line { what: What::Event(Event::Stamped { resource, epoch, nonce, .. }), .. }) => {
                if let Some(before) = lapsed.get(&(resource.to_string(), *epoch, *nonce)) {
                    wrong.push(format!(
                        "a write was stamped after the lease of its term had lapsed:\n  {before}\n  {entry}"
                    ));
                }
            }
            _ => {}
        }
    }
}
