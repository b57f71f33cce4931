//! What the outside sees, as lines of a history.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use epochgate::clock::{Clock as _, HostClock};
use epochgate::fence::{Moment, Outcome, Stamp};
use epochgate::verify::history::Taken;
use epochgate::verify::{Line, Outside};

use crate::support::terms::orders;
use crate::support::upstream::{Upstream, Write};

/// The target's name in every configuration.
pub const TARGET: &str = "orders";

/// Lines, in the order in which they were noted.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Line>>);

impl Recorder {
    /// Notes that something happens, now.
    pub fn note(&self, from: &str, what: Outside) {
        self.note_at(HostClock.now(), from, what);
    }

    /// Notes something of an earlier moment.
    pub fn note_at(&self, at: Moment, from: &str, what: Outside) {
        self.lines().push(Line::outside(at, from, what));
    }

    /// Everything so far.
    pub fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().expect("no holder of it panics")
    }

    /// A client is about to send an operation.
    pub fn sent(&self, from: &str, op: &str, body: Option<&[u8]>) {
        let body = body.map(|body| digest(body).into());
        self.note(from, Outside::Sent { op: op.into(), resource: orders(), target: Some(TARGET.into()), body });
    }

    /// From here on nothing is broken on purpose.
    pub fn faults_over(&self, within: Duration) {
        self.note("nemesis", Outside::FaultsOver { within_ns: within, resource: Some(orders()) });
    }

    /// How many operations were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let is_one = |line: &&Line| {
            use epochgate::verify::What::Outside as Seen;
            matches!(&line.what, Seen(Outside::Ended { outcome: Outcome::Answered, status: Some(200..=299), .. }))
        };
        self.lines().iter().filter(is_one).count()
    }

    /// What a target has applied, in its own order.
    pub fn applied(&self, target: &Upstream) {
        for (seq, write) in target.log().iter().enumerate().filter(|(_, write)| write.complete) {
            let what = Outside::Applied { taken: taken(write), seq: seq as u64 };
            self.note_at(write.moment, "target", what);
        }
    }
}

fn taken(write: &Write) -> Taken {
    let stamp = write.stamp.as_deref().and_then(|stamp| Stamp::parse(stamp.as_bytes()).ok());
    Taken {
        target: TARGET.into(),
        resource: orders(),
        op: write.head.header("x-op").map(Into::into),
        epoch: stamp.as_ref().map(|stamp| stamp.epoch),
        nonce: stamp.as_ref().and_then(|stamp| stamp.nonce),
        writer: stamp.and_then(|stamp| stamp.by),
        body: Some(digest(&write.body).into()),
    }
}

/// A body's digest.
pub fn digest(body: &[u8]) -> String {
    format!("{:08x}-{}", crc32fast::hash(body), body.len())
}
