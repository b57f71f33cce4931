//! The signature of a stamp as it travels: the parameters `kid`, `ts` and `sig`, after all others.
//!
//! ```text
//! 42;nonce=:n58qe3yfEjQ=:;by="orders-a";res="orders";kid="k1";ts=1790000000;sig=:<32 bytes in base64>:
//! ```
//!
//! Read and written here, and nothing else: whether it holds is for who has the keys to say.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::stamp::{Malformed, quoted, set};

/// The longest name of a key.
const KEY_ID_BYTES: usize = 32;
/// More digits than any time in seconds needs: twelve last for thirty thousand years.
const MOST_DIGITS: usize = 12;

/// The name of a key: 1 to 32 of `A-Z a-z 0-9 . _ -`. A copy is a copy of its bytes, so that to read one allocates
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    /// Zeros, which no name has, fill what it leaves free.
    padded: [u8; KEY_ID_BYTES],
}

/// Why a text is no key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 1 to 32 letters, digits, '.', '_' or '-'")]
pub struct NotAKeyId;

impl KeyId {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        let length = self.padded.iter().position(|byte| *byte == 0).unwrap_or(KEY_ID_BYTES);
        std::str::from_utf8(&self.padded[..length]).unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<KeyId, NotAKeyId> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        if !matches!(text.len(), 1..=KEY_ID_BYTES) || !text.as_bytes().iter().all(plain) {
            return Err(NotAKeyId);
        }
        let mut padded = [0; KEY_ID_BYTES];
        padded[..text.len()].copy_from_slice(text.as_bytes());
        Ok(KeyId { padded })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a stamp's signature says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// The key that it was made with.
    pub kid: KeyId,
    /// When it was made: whole seconds of UTC since 1970.
    pub ts: u64,
    /// HMAC-SHA-256.
    pub mac: [u8; 32],
}

/// Where the signature begins in a field's value: everything before is the stamp alone.
pub(super) fn begins_at(text: &str) -> Option<usize> {
    let of_ours = |at: &usize| {
        let parameter = text[at + 1..].trim_start_matches(' ');
        ["kid", "ts", "sig"].iter().any(|key| parameter.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')))
    };
    text.match_indices(';').map(|(at, _)| at).find(of_ours)
}

impl Signature {
    /// Reads the rest of a field's value, from the first of the three parameters on; they may stand in any order.
    ///
    /// # Errors
    /// [`Malformed`] where it is not each of the three once, and nothing else.
    pub(super) fn parse(mut rest: &str) -> Result<Signature, Malformed> {
        let (mut kid, mut ts, mut mac) = (None, None, None);
        while let Some(parameter) = rest.strip_prefix(';') {
            let (key, value) =
                parameter.trim_start_matches(' ').split_once('=').ok_or(Malformed("a parameter has no value"))?;
            rest = match key {
                "kid" => {
                    let (id, rest) = quoted(value, '"').ok_or(Malformed("kid is not a string"))?;
                    set(&mut kid, id.parse().map_err(|_| Malformed("kid is not a key id"))?)?;
                    rest
                }
                "ts" => {
                    let (digits, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
                    set(&mut ts, seconds(digits).ok_or(Malformed("ts is not a time in whole seconds"))?)?;
                    rest
                }
                "sig" => {
                    let (text, rest) = quoted(value, ':').ok_or(Malformed("sig is not a byte sequence"))?;
                    set(&mut mac, mac_of(text).ok_or(Malformed("sig is not 32 bytes in base64"))?)?;
                    rest
                }
                _ => return Err(Malformed("kid, ts and sig stand last, and nothing but they")),
            };
        }
        match (rest, kid, ts, mac) {
            ("", Some(kid), Some(ts), Some(mac)) => Ok(Signature { kid, ts, mac }),
            ("", ..) => Err(Malformed("of kid, ts and sig there are all or none")),
            _ => Err(Malformed("bytes follow where the stamp should end")),
        }
    }
}

/// 1 to 12 digits without a leading zero, or zero itself.
fn seconds(digits: &str) -> Option<u64> {
    let plain = matches!(digits.len(), 1..=MOST_DIGITS) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let leads_with_zero = digits.len() > 1 && digits.starts_with('0');
    if plain && !leads_with_zero { digits.parse().ok() } else { None }
}

fn mac_of(text: &str) -> Option<[u8; 32]> {
    // What the decoder wants room for: three bytes for each four letters.
    let mut bytes = [0; 33];
    let decoded = if text.len() == 44 { STANDARD.decode_slice(text, &mut bytes).ok() } else { None };
    if decoded? == 32 { bytes[..32].try_into().ok() } else { None }
}

/// As it follows a stamp: `kid`, `ts` and `sig` in this order.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 44];
        let written = STANDARD.encode_slice(self.mac, &mut text).map_err(|_| fmt::Error)?;
        let mac = std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?;
        write!(f, ";kid=\"{}\";ts={};sig=:{mac}:", self.kid, self.ts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Stamp;

    const STAMP: &str = "42;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"";
    const MAC: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn signed(parameters: &str) -> Result<(Stamp, Option<Signature>), Malformed> {
        let (stamp, signature, length) = Stamp::parse_signed(format!("{STAMP}{parameters}").as_bytes())?;
        assert_eq!(length, STAMP.len());
        Ok((stamp, signature))
    }

    #[test]
    fn a_signature_is_read_and_written_the_same() {
        let parameters = format!(";kid=\"k1\";ts=1790000000;sig=:{MAC}:");
        let (stamp, signature) = signed(&parameters).expect("it is whole");
        let signature = signature.expect("it is signed");
        assert_eq!((signature.kid.as_str(), signature.ts), ("k1", 1_790_000_000));
        assert_eq!(signature.mac.to_vec(), (0..32).collect::<Vec<u8>>());
        assert_eq!(signature.to_string(), parameters);
        assert_eq!(stamp.to_string(), STAMP, "what a target sees has no signature");
        let other_order = format!("; sig=:{MAC}:;  ts=1790000000;kid=\"k1\"");
        assert_eq!(signed(&other_order), Ok((stamp.clone(), Some(signature))), "as RFC 9651 has it");
        assert_eq!(signed(""), Ok((stamp.clone(), None)));
        assert_eq!(stamp.signature(parameters.as_bytes()), Ok(signature));
        assert_eq!(
            Stamp::parse(format!("{STAMP}{parameters}").as_bytes()),
            Ok(stamp),
            "who has no keys passes over it"
        );
    }

    #[test]
    fn what_is_not_exactly_a_signature_is_malformed() {
        let (kid, ts, sig) = (";kid=\"k1\"", ";ts=1790000000", format!(";sig=:{MAC}:"));
        let with = |kid: &str, ts: &str, sig: &str| signed(&format!("{kid}{ts}{sig}"));
        assert!(with(kid, ts, &sig).is_ok());
        for (of_three, parts) in [(1, [kid, "", ""]), (1, ["", ts, ""]), (1, ["", "", &sig])] {
            assert!(with(parts[0], parts[1], parts[2]).is_err(), "{of_three} of three: {parts:?}");
        }
        for parts in [[kid, ts, ""], [kid, "", &sig], ["", ts, &sig]] {
            assert!(with(parts[0], parts[1], parts[2]).is_err(), "two of three: {parts:?}");
        }
        let too_long = format!(";kid=\"{}\"", "k".repeat(33));
        for bad in [";kid=k1", ";kid=\"\"", ";kid=\"k 1\"", ";kid=\"k/1\"", ";kid=\"k\u{e9}\"", ";kid=:k1:", &too_long]
        {
            assert!(with(bad, ts, &sig).is_err(), "{bad}");
        }
        for bad in [
            ";ts=",
            ";ts=+1",
            ";ts=-1",
            ";ts=01",
            ";ts=00",
            ";ts=1.0",
            ";ts=1e9",
            ";ts=0x1",
            ";ts=\"1\"",
            ";ts= 1",
            ";ts=1 ",
            ";ts=1234567890123",
            ";ts=@1790000000",
            ";ts=١",
        ] {
            assert!(with(kid, bad, &sig).is_err(), "{bad}");
        }
        assert!(with(kid, ";ts=0", &sig).is_ok() && with(kid, ";ts=999999999999", &sig).is_ok());
        for bad in [
            ";sig=::",
            ";sig=:AAAA:",
            &format!(";sig={MAC}"),
            &format!(";sig=:{MAC}"),
            &format!(";sig=\"{MAC}\""),
            // The same bytes with bits set that nothing reads.
            &format!(";sig=:{}9=:", &MAC[..42]),
            // Without padding, and of 31 and 33 bytes.
            &format!(";sig=:{}:", &MAC[..43]),
            &format!(";sig=:{}==:", &MAC[..42]),
            &format!(";sig=:{}8A:", &MAC[..42]),
            &format!(";sig=:{}-8=:", &MAC[..41]),
            &format!(";sig=: {MAC}:"),
        ] {
            assert!(with(kid, ts, bad).is_err(), "{bad}");
        }
        for bad in
            [";sig=:AAAA:", ";by=\"orders-a\"", ";x=1", ";", " ", ";kid", ",", ";kid=\"k1\"", ";ts=1", ";ts=1790000000"]
        {
            assert!(with(kid, ts, &format!("{sig}{bad}")).is_err(), "{bad} after a signature");
        }
    }

    #[test]
    fn only_a_whole_stamp_is_signed() {
        let signature = format!(";kid=\"k1\";ts=1790000000;sig=:{MAC}:");
        for stamp in
            ["42", "42;nonce=:n58qe3yfEjQ=:;by=\"a\"", "42;by=\"a\";res=\"r\"", "42;nonce=:n58qe3yfEjQ=:;res=\"r\""]
        {
            assert!(Stamp::parse_signed(stamp.as_bytes()).is_ok());
            assert!(Stamp::parse_signed(format!("{stamp}{signature}").as_bytes()).is_err(), "{stamp}");
        }
        // A parameter of the stamp that looks as if the signature began in it.
        let inside = format!("42;nonce=:n58qe3yfEjQ=:;by=\"a;kid=\";res=\"r\"{signature}");
        assert!(Stamp::parse_signed(inside.as_bytes()).is_err());
        let between = format!("42;nonce=:n58qe3yfEjQ=:;by=\"a\"{signature};res=\"r\"");
        assert!(Stamp::parse_signed(between.as_bytes()).is_err());
    }
}
