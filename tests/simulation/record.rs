//! What happened in a run, in order: lines of a history, which the product's own checker reads, and notes beside them.
//! A replay compares them one by one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use epochgate::event::{Event, Recorded, Sink};
use epochgate::fence::{Moment, Term};
use epochgate::verify::{self, Outside};
use tokio::time::Instant;

use crate::life::Life;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A line of the history.
    Line(verify::Line),
    /// A fault, or what a process did.
    Note { at: Moment, who: Arc<str>, text: String },
    /// The coordinator ended the lease of a term's leader because its time was over.
    Lapsed { at: Moment, resource: String, term: Term },
}

impl Entry {
    /// Its true time, since the start.
    pub fn at(&self) -> Duration {
        let at = match self {
            Entry::Line(line) => line.at,
            Entry::Note { at, .. } | Entry::Lapsed { at, .. } => *at,
        };
        Duration::from_nanos(at.as_nanos())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>11.6} ", self.at().as_secs_f64())?;
        match self {
            Entry::Line(line) => {
                let what = serde_json::to_string(&line.what).map_err(|_| fmt::Error)?;
                write!(f, "{:<12} {what}", line.from)
            }
            Entry::Note { who, text, .. } => write!(f, "{who:<12} {text}"),
            Entry::Lapsed { resource, term, .. } => {
                write!(
                    f,
                    "{:<12} the lease of {resource}'s leader {} lapsed (epoch {})",
                    "coordinator", term.writer, term.epoch
                )
            }
        }
    }
}

/// Everything of a run. Clones share it.
#[derive(Clone)]
pub struct Record {
    origin: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Record {
    pub fn new(origin: Instant) -> Record {
        Record { origin, entries: Arc::default() }
    }

    fn now(&self) -> Moment {
        Moment::from_nanos(0).plus(self.origin.elapsed())
    }

    fn add(&self, entry: Entry) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Somebody outside of the product saw something.
    pub fn saw(&self, who: &Arc<str>, what: Outside) {
        self.add(Entry::Line(verify::Line::outside(self.now(), Arc::clone(who), what)));
    }

    /// A fault, or what a process did.
    pub fn note(&self, who: &Arc<str>, text: impl Into<String>) {
        self.add(Entry::Note { at: self.now(), who: Arc::clone(who), text: text.into() });
    }

    /// A lease lapsed.
    pub fn lapsed(&self, resource: String, term: Term) {
        self.add(Entry::Lapsed { at: self.now(), resource, term });
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Looks at the entries from a place on.
    pub fn look<T>(&self, from: usize, look: impl FnOnce(&[Entry]) -> T) -> T {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        look(&entries[from.min(entries.len())..])
    }

    /// Takes all of it.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a process's events go, as long as it lives.
pub struct Saying {
    pub record: Record,
    pub who: Arc<str>,
    pub life: Life,
}

impl Sink for Saying {
    fn take(&self, at: Moment, event: &Event) {
        // What is said while a killed process is taken apart never happened.
        if self.life.is_over().is_some() {
            return;
        }
        let (now, mut event) = (self.record.now(), event.clone());
        if let Event::Stamped { deadline, .. } = &mut event {
            // The record has the true time throughout; the process counts by its own clock.
            let left = deadline.since(at);
            *deadline = if left.is_zero() { now } else { now.plus(left) };
        }
        self.record.add(Entry::Line(verify::Line::event(Arc::clone(&self.who), Recorded { at: now, event })));
    }

    fn wants_hot(&self) -> bool {
        true
    }
}
