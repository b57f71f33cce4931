//! The forwarded writes that may still take effect in the target (DESIGN 3.2).
//!
//! A write is *running* from before its comparison until it is answered or refused; one that ended in any other way
//! is *lost*: nobody knows whether the target still works on it. A lost write counts until its end is proved, or
//! until the quarantine has passed since the last moment that one of its bytes could leave.

use std::time::Duration;

use super::{Epoch, Moment};

/// The epoch that a write counts under; `None` for a write that an audit door let through without one. It sorts
/// below every epoch, so every handoff waits for it.
pub type Under = Option<Epoch>;

/// What may still take effect, by epoch. Lost writes of an epoch are kept as a number and the time of the last loss:
/// a drain waits for the last one anyway, and so a target that loses everything costs no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    tallies: Vec<Tally>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tally {
    under: Under,
    running: u32,
    lost: u32,
    last_loss: Moment,
}

impl Ledger {
    /// A write enters, before it is compared.
    pub fn enter(&mut self, under: Under) {
        self.tally(under).running += 1;
    }

    /// A running write was answered, or refused before a byte left.
    pub fn leave(&mut self, under: Under) {
        let tally = self.tally(under);
        tally.running = tally.running.saturating_sub(1);
        self.tidy();
    }

    /// A running write ended in any other way; `at` is the last moment that one of its bytes could leave.
    pub fn lose(&mut self, under: Under, at: Moment) {
        let tally = self.tally(under);
        tally.running = tally.running.saturating_sub(1);
        tally.lost += 1;
        tally.last_loss = tally.last_loss.max(at);
    }

    /// Takes out the lost writes whose quarantine has passed.
    pub fn expire(&mut self, now: Moment, quarantine: Duration) {
        for tally in &mut self.tallies {
            if now >= tally.last_loss.plus(quarantine) {
                tally.lost = 0;
            }
        }
        self.tidy();
    }

    /// Takes out the lost writes below `epoch`: their end is proved.
    pub fn prove_over(&mut self, epoch: Epoch) {
        for tally in self.tallies.iter_mut().filter(|tally| tally.under < Some(epoch)) {
            tally.lost = 0;
        }
        self.tidy();
    }

    /// Whether a write below `epoch` may still take effect.
    pub fn holds_below(&self, epoch: Epoch) -> bool {
        self.tallies.iter().any(|tally| tally.under < Some(epoch))
    }

    /// Whether a write below `epoch` is running.
    pub fn runs_below(&self, epoch: Epoch) -> bool {
        self.tallies.iter().any(|tally| tally.under < Some(epoch) && tally.running > 0)
    }

    /// When the last quarantine of a lost write below `epoch` ends.
    pub fn quarantine_ends(&self, epoch: Epoch, quarantine: Duration) -> Option<Moment> {
        let lost = self.tallies.iter().filter(|tally| tally.under < Some(epoch) && tally.lost > 0);
        lost.map(|tally| tally.last_loss.plus(quarantine)).max()
    }

    /// How many writes are running.
    pub fn running(&self) -> u64 {
        self.tallies.iter().map(|tally| u64::from(tally.running)).sum()
    }

    /// How many writes are lost and still count.
    pub fn lost(&self) -> u64 {
        self.tallies.iter().map(|tally| u64::from(tally.lost)).sum()
    }

    /// Whether nothing may still take effect.
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    /// How many epochs it keeps apart.
    #[cfg(test)]
    pub(super) fn groups(&self) -> usize {
        self.tallies.len()
    }

    fn tally(&mut self, under: Under) -> &mut Tally {
        let at = match self.tallies.binary_search_by_key(&under, |tally| tally.under) {
            Ok(at) => at,
            Err(at) => {
                self.tallies.insert(at, Tally { under, running: 0, lost: 0, last_loss: Moment::default() });
                at
            }
        };
        &mut self.tallies[at]
    }

    fn tidy(&mut self) {
        self.tallies.retain(|tally| tally.running > 0 || tally.lost > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARANTINE: Duration = Duration::from_secs(35);

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number).expect("in range")
    }

    fn second(number: u64) -> Moment {
        Moment::from_nanos(number * 1_000_000_000)
    }

    #[test]
    fn a_running_write_holds_every_higher_epoch_and_no_lower() {
        let mut ledger = Ledger::default();
        ledger.enter(Some(epoch(4)));
        assert!(ledger.holds_below(epoch(5)) && ledger.runs_below(epoch(5)));
        assert!(!ledger.holds_below(epoch(4)));
        ledger.leave(Some(epoch(4)));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_lost_write_counts_until_its_quarantine_has_passed_or_its_end_is_proved() {
        let mut ledger = Ledger::default();
        for at in [10, 12, 11] {
            ledger.enter(Some(epoch(4)));
            ledger.lose(Some(epoch(4)), second(at));
        }
        assert_eq!((ledger.running(), ledger.lost()), (0, 3));
        assert_eq!(ledger.quarantine_ends(epoch(5), QUARANTINE), Some(second(47)));
        ledger.expire(second(46), QUARANTINE);
        assert!(ledger.holds_below(epoch(5)) && !ledger.runs_below(epoch(5)));
        let mut proved = ledger.clone();
        proved.prove_over(epoch(5));
        ledger.expire(second(47), QUARANTINE);
        assert!(ledger.is_empty() && proved.is_empty());
    }

    #[test]
    fn a_write_without_an_epoch_holds_every_epoch() {
        let mut ledger = Ledger::default();
        ledger.enter(None);
        assert!(ledger.holds_below(Epoch::FIRST));
    }
}
