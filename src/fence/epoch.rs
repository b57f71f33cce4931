//! The fencing token.

use std::fmt;
use std::str::FromStr;

/// The number of one leadership of a resource: 1 to 999 999 999 999 999, growing at each election.
///
/// The upper end is that of an RFC 9651 integer (15 digits), which also fits a JavaScript number. It is never a
/// timestamp and there is no arithmetic on it: only an election makes a new one ([`Epoch::after`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The first epoch that any resource gets.
    pub const FIRST: Epoch = Epoch(1);
    /// The highest epoch that can be written down.
    pub const LAST: Epoch = Epoch(999_999_999_999_999);
    /// How far above the recorded epoch a recorded floor is still believed (DESIGN 3.7): further than any cluster
    /// gets between two backups, and far too near for a forged floor to use the range up.
    pub const BELIEVABLE_STEP: u64 = 1_000_000;

    /// The epoch of that number, where it is in range.
    pub const fn new(number: u64) -> Option<Epoch> {
        if number == 0 || number > Self::LAST.0 { None } else { Some(Epoch(number)) }
    }

    /// The number itself.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The next epoch above this one; `None` above [`Epoch::LAST`]. For elections only.
    pub const fn after(self) -> Option<Epoch> {
        Epoch::new(self.0 + 1)
    }

    /// Whether `self` lies above `base` by more than anyone should believe.
    pub const fn is_beyond_belief(self, base: u64) -> bool {
        self.0 > base.saturating_add(Self::BELIEVABLE_STEP)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// Why a text is no epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is a whole number from 1 to 999999999999999, in decimal digits without a sign or leading zeros")]
pub struct NotAnEpoch;

impl FromStr for Epoch {
    type Err = NotAnEpoch;

    fn from_str(text: &str) -> Result<Epoch, NotAnEpoch> {
        let digits = text.as_bytes();
        if digits.is_empty() || digits.len() > 15 || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
            return Err(NotAnEpoch);
        }
        text.parse().ok().and_then(Epoch::new).ok_or(NotAnEpoch)
    }
}

/// In JSON an epoch is a string: 15 digits survive every reader that way, and nobody calculates with it.
impl serde::Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_exact() {
        assert_eq!("42".parse(), Ok(Epoch(42)));
        assert_eq!("999999999999999".parse(), Ok(Epoch::LAST));
        for bad in ["", "0", "-1", "+7", "07", "7.0", "7e0", "0x7", " 7", "7 ", "1000000000000000", "٧"] {
            assert_eq!(bad.parse::<Epoch>(), Err(NotAnEpoch), "{bad:?}");
        }
        assert_eq!(serde_json::to_string(&Epoch(42)).expect("an epoch is a string"), "\"42\"");
    }

    #[test]
    fn there_is_nothing_above_the_last() {
        assert_eq!(Epoch(7).after(), Some(Epoch(8)));
        assert_eq!(Epoch::LAST.after(), None);
    }
}
