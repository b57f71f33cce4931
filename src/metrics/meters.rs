//! What one worker counts once a request, without touching what another worker touches.

use std::cell::Cell;
use std::sync::Arc;

use prometheus::local::LocalHistogram;
use prometheus::{Histogram, IntCounter, IntGauge};

use crate::fence::Outcome;
use crate::protocol::{CutReason, Finished, Kind};
use crate::tls::explain::Why;

/// Both kinds, in the order in which they are stored.
pub(super) const KINDS: [Kind; 2] = [Kind::Read, Kind::Write];

/// A listener's series, over all workers.
#[derive(Debug)]
pub(super) struct SharedMeters {
    pub requests: [[IntCounter; 3]; 2],
    pub durations: [Histogram; 2],
    pub cuts: [IntCounter; CutReason::ALL.len()],
    pub connections: IntGauge,
    /// In the order of [`Why::ALL`].
    pub no_session: [IntCounter; Why::ALL.len()],
}

impl SharedMeters {
    pub fn connections_open(&self) -> u64 {
        u64::try_from(self.connections.get()).unwrap_or(0)
    }
}

/// A counter that is added to here and shows up in `total` at the next flush.
#[derive(Debug)]
struct Tally {
    here: Cell<u64>,
    total: IntCounter,
}

impl Tally {
    fn of(total: &IntCounter) -> Tally {
        Tally { here: Cell::new(0), total: total.clone() }
    }

    fn add(&self) {
        self.here.set(self.here.get() + 1);
    }

    fn flush(&self) {
        let here = self.here.take();
        if here > 0 {
            self.total.inc_by(here);
        }
    }
}

/// One worker's counters for one listener: plain cells. They show up in `/metrics` after a [`flush`](Self::flush),
/// which the worker calls now and then and when a scrape asks; dropping flushes too.
#[derive(Debug)]
pub struct ListenerMeters {
    shared: Arc<SharedMeters>,
    requests: [[Tally; 3]; 2],
    durations: [LocalHistogram; 2],
    cuts: [Tally; CutReason::ALL.len()],
    connections: Cell<i64>,
}

impl ListenerMeters {
    pub(super) fn new(shared: Arc<SharedMeters>) -> ListenerMeters {
        ListenerMeters {
            requests: shared.requests.each_ref().map(|outcomes| outcomes.each_ref().map(Tally::of)),
            durations: shared.durations.each_ref().map(Histogram::local),
            cuts: shared.cuts.each_ref().map(Tally::of),
            connections: Cell::new(0),
            shared,
        }
    }

    /// Counts a request that is over.
    pub fn finished(&self, finished: &Finished) {
        let kind = match finished.kind {
            Kind::Read => 0,
            Kind::Write => 1,
        };
        let outcome = match finished.outcome {
            Outcome::Answered => 0,
            Outcome::NotApplied => 1,
            Outcome::Unknown => 2,
        };
        self.requests[kind][outcome].add();
        self.durations[kind].observe(finished.took.as_secs_f64());
    }

    /// Counts a connection that was opened (`true`) or closed.
    pub fn connection(&self, opened: bool) {
        self.connections.set(self.connections.get() + if opened { 1 } else { -1 });
    }

    /// Counts a connection that this side ended.
    pub fn cut(&self, reason: CutReason) {
        self.cuts[reason as usize].add();
    }

    /// Counts a session that could not be had with a client: seldom enough to be counted at once.
    pub fn no_session(&self, why: Why) {
        self.shared.no_session[why as usize].inc();
    }

    /// Shows what was counted since the last time.
    pub fn flush(&self) {
        self.requests.iter().flatten().chain(&self.cuts).for_each(Tally::flush);
        self.durations.iter().for_each(LocalHistogram::flush);
        let change = self.connections.take();
        if change != 0 {
            self.shared.connections.add(change);
        }
    }
}

impl Drop for ListenerMeters {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod order {
    use super::*;

    #[test]
    fn the_numbers_used_as_places_are_those_of_the_lists() {
        for (place, reason) in CutReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        for (place, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
        assert_eq!(Outcome::ALL, [Outcome::Answered, Outcome::NotApplied, Outcome::Unknown]);
        assert_eq!(KINDS, [Kind::Read, Kind::Write]);
    }
}
