//! One leadership period, and who has it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Epoch;

/// 64 random bits, minted with an epoch: tells two terms apart that carry the same epoch (R3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce([u8; 8]);

impl Nonce {
    /// The nonce of these bits; an election draws them at random.
    pub const fn from_bytes(bytes: [u8; 8]) -> Nonce {
        Nonce(bytes)
    }

    /// The bits.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

/// Base64 with padding, as in the stamp and in every key.
impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 12];
        let written = STANDARD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a nonce is eight bytes in base64")]
pub struct NotANonce;

impl FromStr for Nonce {
    type Err = NotANonce;

    fn from_str(text: &str) -> Result<Nonce, NotANonce> {
        let bytes = STANDARD.decode(text).map_err(|_| NotANonce)?;
        bytes.try_into().map(Nonce).map_err(|_| NotANonce)
    }
}

impl serde::Serialize for Nonce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Nonce {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Nonce, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The id of a writer: 1 to 63 of `A-Z a-z 0-9 . _ -`, the first a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(Arc<str>);

impl WriterId {
    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no writer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit")]
pub struct NotAWriterId;

impl FromStr for WriterId {
    type Err = NotAWriterId;

    fn from_str(text: &str) -> Result<WriterId, NotAWriterId> {
        let bytes = text.as_bytes();
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
        if matches!(bytes.len(), 1..=63) && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(plain) {
            Ok(WriterId(text.into()))
        } else {
            Err(NotAWriterId)
        }
    }
}

impl serde::Serialize for WriterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for WriterId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<WriterId, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One leadership period of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Term {
    /// Its number.
    pub epoch: Epoch,
    /// What tells it from any other term of that number.
    pub nonce: Nonce,
    /// Who leads.
    pub writer: WriterId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_and_ids_are_written_one_way() {
        let nonce = Nonce::from_bytes([0x9f, 0x9f, 0x2a, 0x7b, 0x78, 0x9f, 0x11, 0x34]);
        assert_eq!(nonce.to_string().parse(), Ok(nonce));
        for bad in ["", "n58qe3yfEjQ", "n58qe3yfEjQ==", "n58qe3yfEjQ=x", "AAAA"] {
            assert_eq!(bad.parse::<Nonce>(), Err(NotANonce), "{bad:?}");
        }
        assert!("orders-a".parse::<WriterId>().is_ok());
        for bad in ["", "-a", "a b", "a\"b", "a/b", &"a".repeat(64)] {
            assert_eq!(bad.parse::<WriterId>(), Err(NotAWriterId), "{bad:?}");
        }
    }
}
