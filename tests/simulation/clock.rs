//! The clocks of a machine: its own beginning, and a pace a little off the true one.

use std::sync::Arc;
use std::time::Duration;

use epochgate::clock::Clock;
use epochgate::fence::Moment;
use tokio::time::Instant;

use crate::dice::Dice;

/// How far from the true pace a clock goes, in millionths, either way: two of them differ by less than the configured
/// `max_drift` of a hundredth.
const DRIFT: u64 = 4_500;

/// One machine's clocks. They go on over a restart of its processes.
pub struct DriftingClock {
    origin: Instant,
    boot: Duration,
    parts_per_million: u64,
    wall: jiff::Timestamp,
}

impl DriftingClock {
    pub fn new(origin: Instant, dice: &mut Dice) -> Arc<DriftingClock> {
        let parts_per_million = match dice.below(3) {
            0 => 1_000_000,
            1 => 1_000_000 + DRIFT,
            _ => 1_000_000 - DRIFT,
        };
        // No decision depends on the wall clock: it may say anything.
        let wall = jiff::Timestamp::from_second(i64::try_from(dice.below(4_000_000_000)).unwrap_or(0));
        let wall = wall.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Arc::new(DriftingClock { origin, boot: dice.millis(1_000, 90_000_000), parts_per_million, wall })
    }

    fn since_start(&self) -> Duration {
        let nanos = u128::from(self.parts_per_million) * self.origin.elapsed().as_nanos() / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Clock for DriftingClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(0).plus(self.boot + self.since_start())
    }

    fn wall(&self) -> jiff::Timestamp {
        let since = jiff::SignedDuration::try_from(self.since_start()).unwrap_or_default();
        self.wall.saturating_add(since).unwrap_or(jiff::Timestamp::MAX)
    }
}
