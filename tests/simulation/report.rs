//! What many runs come to, and what is said of one that found something.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use epochgate::event::Event;
use epochgate::fence::Outcome;
use epochgate::protocol::right::Settled;
use epochgate::verify::{Line, Outside, What};

use crate::faults::Kind;
use crate::judge::Judgement;
use crate::record::Entry;
use crate::run::Run;

/// What is kept of one run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub seed: u64,
    /// What was found wrong, with everything that is needed to see it again; empty where nothing was.
    pub wrong: String,
    pub faults: BTreeMap<Kind, u64>,
    /// Which kinds fit the world of this seed.
    pub fitting: Vec<Kind>,
    pub failovers: u64,
    pub simulated: Duration,
    pub entries: u64,
    pub writes: Writes,
    /// From the end of the faults until every resource was written to again.
    pub recovered: Duration,
}

/// What became of writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writes {
    pub sent: u64,
    pub answered: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Let in at the very moment at which their epoch opened: they had waited for it.
    pub held: u64,
    pub held_too_long: u64,
    pub cut: u64,
    pub lost: u64,
    pub applied: u64,
}

impl Summary {
    pub fn of(run: &Run, judged: &Judgement) -> Summary {
        Summary {
            seed: run.plan.seed,
            wrong: if judged.wrong.is_empty() { String::new() } else { wrong(run, judged) },
            faults: run.faults.clone(),
            fitting: Kind::all().filter(|kind| kind.fits(&run.plan)).collect(),
            failovers: run.failovers as u64,
            simulated: run.took,
            entries: run.entries.len() as u64,
            writes: Writes::of(&run.entries),
            recovered: run.recovered,
        }
    }
}

impl Writes {
    fn of(entries: &[Entry]) -> Writes {
        let (mut writes, mut opened) = (Writes::default(), BTreeMap::new());
        for entry in entries {
            let Entry::Line(Line { at, from, what, .. }) = entry else { continue };
            let count = match what {
                What::Event(Event::Opened { resource, epoch, .. }) => {
                    opened.insert((from, resource), (at, epoch));
                    continue;
                }
                What::Event(Event::Admitted { resource, epoch: Some(epoch), .. })
                    if opened.get(&(from, resource)) == Some(&(at, epoch)) =>
                {
                    &mut writes.held
                }
                What::Outside(Outside::Sent { .. }) => &mut writes.sent,
                What::Outside(Outside::Ended { outcome: Outcome::Answered, .. }) => &mut writes.answered,
                What::Outside(Outside::Ended { outcome: Outcome::NotApplied, .. }) => &mut writes.refused,
                What::Outside(Outside::Ended { outcome: Outcome::Unknown, .. }) => &mut writes.unknown,
                What::Outside(Outside::Applied { .. }) => &mut writes.applied,
                What::Event(Event::Cut { .. }) => &mut writes.cut,
                What::Event(Event::Settled { how: Settled::Lost, .. }) => &mut writes.lost,
                What::Event(Event::Refused { refusal, .. }) if refusal.reason.as_str().starts_with("hold_") => {
                    &mut writes.held_too_long
                }
                _ => continue,
            };
            *count += 1;
        }
        writes
    }

    fn add(&mut self, other: &Writes) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.held += other.held;
        self.held_too_long += other.held_too_long;
        self.cut += other.cut;
        self.lost += other.lost;
        self.applied += other.applied;
    }
}

/// The seed, its whole plan, what is wrong, and how to see it again.
fn wrong(run: &Run, judged: &Judgement) -> String {
    const SHOWN: usize = 4;
    let mut text = format!("seed {} found {} violations\n{:#?}\n", run.plan.seed, judged.wrong.len(), run.plan);
    for what in judged.wrong.iter().take(SHOWN) {
        text += &format!("{what}\n");
    }
    if judged.wrong.len() > SHOWN {
        text += &format!("and {} more\n", judged.wrong.len() - SHOWN);
    }
    text + &format!("again, with everything that happened: make simulate SEED={}\n", run.plan.seed)
}

/// What many runs come to.
#[derive(Default)]
pub struct Report {
    runs: Vec<Summary>,
}

impl Report {
    pub fn add(&mut self, summary: Summary) {
        self.runs.push(summary);
    }

    /// Those that found something, in the order of their seeds.
    pub fn wrong(&self) -> Vec<&Summary> {
        let mut wrong: Vec<&Summary> = self.runs.iter().filter(|run| !run.wrong.is_empty()).collect();
        wrong.sort_by_key(|run| run.seed);
        wrong
    }

    /// The kinds of fault that were struck in less than one of five of the runs that they fit.
    pub fn rare(&self) -> Vec<Kind> {
        let is_rare = |kind: &Kind| {
            let (runs, struck) = self.runs_with(*kind);
            struck * 5 < runs
        };
        Kind::all().filter(is_rare).collect()
    }

    /// How many runs a kind fits, and in how many it was struck.
    fn runs_with(&self, kind: Kind) -> (usize, usize) {
        let fitting = self.runs.iter().filter(|run| run.fitting.contains(&kind));
        (fitting.count(), self.runs.iter().filter(|run| run.faults.contains_key(&kind)).count())
    }

    /// The fewest failovers that a run had.
    pub fn fewest_failovers(&self) -> u64 {
        self.runs.iter().map(|run| run.failovers).min().unwrap_or(0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writes = Writes::default();
        self.runs.iter().for_each(|run| writes.add(&run.writes));
        let sum = |of: fn(&Summary) -> u64| self.runs.iter().map(of).sum::<u64>();
        let simulated: Duration = self.runs.iter().map(|run| run.simulated).sum();
        let recovered = self.runs.iter().map(|run| run.recovered).max().unwrap_or_default();
        writeln!(f, "fault                   times  in so many runs of those that it fits")?;
        for kind in Kind::all() {
            let times: u64 = self.runs.iter().filter_map(|run| run.faults.get(&kind)).sum();
            let (fitting, struck) = self.runs_with(kind);
            writeln!(f, "{:<20} {times:>8}  {struck} of {fitting}", format!("{kind:?}"))?;
        }
        let Writes { sent, answered, refused, unknown, held, held_too_long, cut, lost, applied } = writes;
        writeln!(
            f,
            "writes: {sent} sent, {answered} answered, {refused} refused, {unknown} unknown, {applied} applied; {held} held \
             until their epoch opened, {held_too_long} longer than a guard holds one, {lost} lost to a guard, {cut} cut"
        )?;
        writeln!(
            f,
            "{} runs, {} failovers (at least {} in each), {:.1} hours simulated, {} lines; after the faults well again \
             within {:.1} s",
            self.runs.len(),
            sum(|run| run.failovers),
            self.fewest_failovers(),
            simulated.as_secs_f64() / 3600.0,
            sum(|run| run.entries),
            recovered.as_secs_f64()
        )?;
        write!(f, "{} runs found a violation", self.wrong().len())
    }
}
