//! Randomness that comes again: the same seed, the same throws.

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn of(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Others, for a part that throws on its own: the same name gives the same ones.
    pub fn apart(&self, name: &str) -> Dice {
        let mixed = name.bytes().fold(self.0 ^ 0x6a09_e667_f3bc_c908, |mixed, byte| {
            (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut dice = Dice(mixed);
        dice.number();
        dice
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.number() % count.max(1) as u64).expect("it is below a usize")
    }

    /// True in `share` of a thousand.
    pub fn per_mille(&mut self, share: u64) -> bool {
        self.number() % 1000 < share
    }

    /// One of them.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A time from `least` up to `most`, in whole milliseconds.
    pub fn span(&mut self, least: Duration, most: Duration) -> Duration {
        let range = most.saturating_sub(least).as_millis() as u64 + 1;
        least + Duration::from_millis(self.number() % range)
    }
}
