//! How long to wait before the next try.

use std::time::Duration;

use crate::clock::Entropy;

/// Waits that double up to a longest one, each drawn between its half and its whole, so that many who lost the same
/// thing at once do not come back at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// A first wait of up to `first`, and none above `longest`.
    pub(super) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { next: first.min(longest), longest }
    }

    /// The next wait.
    pub(super) fn next(&mut self, entropy: &dyn Entropy) -> Duration {
        let wait = self.next.mul_f64(0.5 + entropy.fraction() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always draws the same bits.
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_drawn_from_their_upper_half() {
        let draws = |bits| {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
            [0; 4].map(|_| backoff.next(&Fixed(bits)).as_millis())
        };
        assert_eq!(draws(0), [50, 100, 150, 150]);
        assert_eq!(draws(0xff), [100, 200, 300, 300]);
    }
}
