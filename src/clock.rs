//! The clock, and randomness: the two things that a test wants to hold in its own hands.

use crate::fence::{Moment, Nonce};

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Now, on the boot-time clock: it goes on while the host is suspended, and never goes back. Every deadline is
    /// counted on it.
    fn now(&self) -> Moment;

    /// Now, on the wall clock: for people, and for how old a signature is. No other decision depends on it.
    fn wall(&self) -> jiff::Timestamp;
}

/// The clocks of this host: CLOCK_BOOTTIME and CLOCK_REALTIME.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Moment::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// Where randomness comes from.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random bits.
    fn fill(&self, bytes: &mut [u8]);

    /// A fresh nonce.
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        Nonce::from_bytes(bytes)
    }

    /// A number from 0.0 up to 1.0, for jitter.
    fn fraction(&self) -> f64 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has randomness once it has booted");
    }
}

/// A moment of the boot-time clock as the wall-clock time it was, for people.
pub fn to_wall(clock: &dyn Clock, moment: Moment) -> jiff::Timestamp {
    let ago = clock.now().since(moment);
    clock.wall().saturating_sub(jiff::SignedDuration::try_from(ago).unwrap_or_default()).unwrap_or(jiff::Timestamp::MIN)
}
