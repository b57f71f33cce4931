//! Whether the workers still answer: one that does not has its ledger gone with it, and the process ends.

use std::time::Duration;

use super::{Control, Ended};
use crate::fence::Moment;
use crate::mailbox::{ToWorker, WorkerId};

/// A worker that does not answer for so long, while control itself runs, is taken for lost.
pub(super) const WORKER_PATIENCE: Duration = Duration::from_secs(10);
/// How often each is asked.
pub(super) const PING_EVERY: Duration = Duration::from_secs(2);

/// When the workers were asked last, and when each answered.
pub(super) struct Pings {
    pub(super) sent: Moment,
    pub(super) number: u64,
    pub(super) answered: Vec<Moment>,
}

impl Control {
    /// A worker is judged only by pings that control itself was there to wait for: after a pause of the whole
    /// process the count begins anew.
    pub(super) fn ping(&mut self, now: Moment) {
        if now.since(self.pings.sent) > PING_EVERY * 3 {
            self.pings.answered.fill(now);
        }
        let lost = self.pings.answered.iter().position(|answered| now.since(*answered) > WORKER_PATIENCE);
        if let Some(worker) = lost.filter(|_| !self.stop.has_begun()) {
            self.stop.end(Ended::WorkerLost(WorkerId(worker)));
        }
        self.pings.sent = now;
        self.pings.number += 1;
        for worker in 0..self.workers.len() {
            self.tell(WorkerId(worker), ToWorker::Ping(self.pings.number));
        }
    }
}
