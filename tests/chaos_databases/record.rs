//! What the outside sees, as lines of a history.
//!
//! The epoch of an operation that the database has committed is that of the stamp that stood at the beginning of the connection
//! on which it came to the guard, as the network saw it ([`crate::relay`]). Its time is that of the first sight of it, which is
//! before the database can have applied it: so that nothing is called late that is not. What was first seen when a later epoch
//! had long been opened is late for certain (I2); whatever is later is found by the database's own order (I1).

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use epochgate::clock::{Clock as _, HostClock};
use epochgate::fence::{Moment, Outcome, Stamp};
use epochgate::verify::history::Taken;
use epochgate::verify::{Line, Outside, What};

use crate::relay::Sightings;
use crate::support::terms::orders;

/// The target's name in every configuration.
const TARGET: &str = "orders";

/// Lines, in the order in which they were noted.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Line>>);

impl Recorder {
    /// Notes that something happens, now.
    pub fn note(&self, from: &str, what: Outside) {
        self.note_at(HostClock.now(), from, what);
    }

    fn note_at(&self, at: Moment, from: &str, what: Outside) {
        self.lines().push(Line::outside(at, from, what));
    }

    /// Everything so far.
    pub fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().expect("no holder of it panics")
    }

    /// A client is about to say the last word of an operation.
    pub fn sent(&self, from: &str, op: &str) {
        self.note(from, Outside::Sent { op: op.into(), resource: orders(), target: Some(TARGET.into()), body: None });
    }

    /// What it knows of it now. A status as of HTTP, for the checker: 200 for done, 500 for the database's own refusal.
    pub fn ended(&self, from: &str, op: &str, outcome: Outcome, status: Option<u16>) {
        self.note(from, Outside::Ended { op: op.into(), outcome, status, reason: None });
    }

    /// From here on nothing is broken on purpose.
    pub fn faults_over(&self, within: Duration) {
        self.note("nemesis", Outside::FaultsOver { within_ns: within, resource: Some(orders()) });
    }

    /// A process was killed.
    pub fn killed(&self, id: &str) {
        self.note("nemesis", Outside::Killed { process: id.into() });
    }

    /// How many operations were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let is_one = |line: &&Line| {
            matches!(&line.what, What::Outside(Outside::Ended { outcome: Outcome::Answered, status: Some(200), .. }))
        };
        self.lines().iter().filter(is_one).count()
    }

    /// What the database has committed, in its order. Returns what is wrong with that already: an operation that never went to
    /// the guard, or with several stamps.
    pub fn committed(&self, order: &[String], sightings: &Sightings) -> Vec<String> {
        let recorded = Outside::Recorded { target: TARGET.into() };
        self.note_at(Moment::default(), "database", recorded);
        let mut complaints = Vec::new();
        for (seq, op) in (1..).zip(order) {
            let seen = sightings.of(op);
            if seen.len() != 1 {
                complaints.push(format!("{op} is in the database, and went to the guard with {} stamps", seen.len()));
            }
            let (at, stamp) = seen.first().map_or((Moment::default(), None), |seen| (seen.at, seen.stamp.clone()));
            let what = Outside::Applied { taken: taken(op, stamp), seq };
            self.note_at(at, "database", what);
        }
        complaints
    }
}

fn taken(op: &str, stamp: Option<Stamp>) -> Taken {
    Taken {
        target: TARGET.into(),
        resource: orders(),
        op: Some(op.into()),
        epoch: stamp.as_ref().map(|stamp| stamp.epoch),
        nonce: stamp.as_ref().and_then(|stamp| stamp.nonce),
        writer: stamp.and_then(|stamp| stamp.by),
        body: None,
    }
}
