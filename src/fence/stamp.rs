//! The stamp: a term as it travels with a write.
//!
//! Over HTTP it is one header field, an RFC 9651 item: an integer with the parameters `nonce` (a byte sequence), `by`
//! and `res` (strings), and after these, where it is signed, what [`super::signature`] reads. The parser takes exactly that
//! grammar and nothing that a lenient reader might take for it: a stamp is never guessed.

use std::fmt;

use super::signature::{self, Signature};
use super::{Epoch, Nonce, Resource, Term, WriterId};

/// The epoch that a write carries, and whose it is. A *bare* stamp has only the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The epoch.
    pub epoch: Epoch,
    /// The term's nonce; none in a bare stamp.
    pub nonce: Option<Nonce>,
    /// Who stamped it.
    pub by: Option<WriterId>,
    /// The resource that it is for.
    pub res: Option<Resource>,
}

impl Stamp {
    /// The whole stamp of a term, as a sidecar sends it.
    pub fn of(term: &Term, resource: &Resource) -> Stamp {
        Stamp { epoch: term.epoch, nonce: Some(term.nonce), by: Some(term.writer.clone()), res: Some(resource.clone()) }
    }

    /// Reads one field value, whose signature nobody here looks at.
    ///
    /// # Errors
    /// As [`Stamp::parse_signed`].
    pub fn parse(value: &[u8]) -> Result<Stamp, Malformed> {
        Stamp::parse_signed(value).map(|(stamp, ..)| stamp)
    }

    /// Reads one field value, with its signature where it has one, and the length of what stands before that.
    ///
    /// # Errors
    /// [`Malformed`] for everything that is not exactly one item of the grammar above: lists, signs, leading zeros,
    /// more than 15 digits, unknown or repeated parameters, trailing bytes.
    pub fn parse_signed(value: &[u8]) -> Result<(Stamp, Option<Signature>, usize), Malformed> {
        let text = std::str::from_utf8(value).map_err(|_| NOT_TEXT)?;
        let (own, rest) = text.split_at(signature::begins_at(text).unwrap_or(text.len()));
        let stamp = Stamp::parse_unsigned(own)?;
        let signature = if rest.is_empty() { None } else { Some(stamp.signature(rest.as_bytes())?) };
        Ok((stamp, signature, own.len()))
    }

    /// Reads what follows a stamp in its field's value: its signature.
    ///
    /// # Errors
    /// [`Malformed`] where it is none, or where the stamp is not whole: a signature covers every part of one.
    pub fn signature(&self, rest: &[u8]) -> Result<Signature, Malformed> {
        if self.nonce.is_none() || self.by.is_none() || self.res.is_none() {
            return Err(Malformed("a signed stamp has nonce, by and res"));
        }
        Signature::parse(std::str::from_utf8(rest).map_err(|_| NOT_TEXT)?)
    }

    fn parse_unsigned(text: &str) -> Result<Stamp, Malformed> {
        let (number, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        let epoch = number.parse().map_err(|_| Malformed(NUMBER))?;
        let mut stamp = Stamp { epoch, nonce: None, by: None, res: None };
        while let Some(parameter) = rest.strip_prefix(';') {
            rest = stamp.take_parameter(parameter.trim_start_matches(' '))?;
        }
        if rest.is_empty() { Ok(stamp) } else { Err(Malformed("bytes follow where the stamp should end")) }
    }

    /// Takes `key=value` off the front of `text` and returns what follows.
    fn take_parameter<'a>(&mut self, text: &'a str) -> Result<&'a str, Malformed> {
        let (key, text) = text.split_once('=').ok_or(Malformed("a parameter has no value"))?;
        match key {
            "nonce" => {
                let (nonce, rest) = quoted(text, ':').ok_or(Malformed("nonce is not a byte sequence"))?;
                set(&mut self.nonce, nonce.parse().map_err(|_| Malformed("nonce is not eight bytes in base64"))?)?;
                Ok(rest)
            }
            "by" => {
                let (by, rest) = quoted(text, '"').ok_or(Malformed("by is not a string"))?;
                set(&mut self.by, by.parse().map_err(|_| Malformed("by is not a writer id"))?)?;
                Ok(rest)
            }
            "res" => {
                let (res, rest) = quoted(text, '"').ok_or(Malformed("res is not a string"))?;
                set(&mut self.res, res.parse().map_err(|_| Malformed("res is not a resource"))?)?;
                Ok(rest)
            }
            _ => Err(Malformed("it has a parameter other than nonce, by, res, kid, ts and sig")),
        }
    }
}

const NUMBER: &str =
    "it does not begin with an epoch: 1 to 999999999999999, in decimal digits without a sign or leading zeros";

const NOT_TEXT: Malformed = Malformed("it is not ASCII text");

/// What stands between `quote` and the next one, and what follows.
pub(super) fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    text.strip_prefix(quote)?.split_once(quote)
}

/// Puts a parameter's value where it belongs, once.
pub(super) fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed("a parameter stands twice")),
    }
}

/// The canonical form: nonce, by, res in this order, nothing between.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.epoch)?;
        if let Some(nonce) = self.nonce {
            write!(f, ";nonce=:{nonce}:")?;
        }
        if let Some(by) = &self.by {
            write!(f, ";by=\"{by}\"")?;
        }
        if let Some(res) = &self.res {
            write!(f, ";res=\"{res}\"")?;
        }
        Ok(())
    }
}

/// Why a field value is no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = "42;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"";

    #[test]
    fn a_whole_stamp_is_read_and_written_the_same() {
        let stamp = Stamp::parse(WHOLE.as_bytes()).expect("it is whole");
        assert_eq!(stamp.epoch.number(), 42);
        assert_eq!(stamp.to_string(), WHOLE);
        assert_eq!(Stamp::parse(b"42").expect("it is bare").to_string(), "42");
        let other_order = Stamp::parse(b"42; res=\"orders\"; by=\"orders-a\"; nonce=:n58qe3yfEjQ=:");
        assert_eq!(other_order, Ok(stamp), "RFC 9651 allows spaces before a parameter, and any order");
    }

    /// FAULTS 27: each of these is something that some reader somewhere takes for a number.
    #[test]
    fn what_is_malformed_is_never_guessed() {
        for bad in [
            "",
            " ",
            "7 ",
            " 7",
            "+7",
            "-7",
            "0",
            "00",
            "07",
            "0x7",
            "7.0",
            "7e0",
            "7,7",
            "7, 8",
            "7;",
            "7;;",
            "\"7\"",
            "18446744073709551615",
            "18446744073709551616",
            "1000000000000000",
            "7;x",
            "7;x=1",
            "7;by=a",
            "7;by=\"a",
            "7;by=\"a\"x",
            "7;by=\"a\";by=\"a\"",
            "7;nonce=n58qe3yfEjQ=",
            "7;nonce=:AAAA:",
            "7;res=\"Orders\"",
            "7;res=\"a\"b",
            "7;BY=\"a\"",
            "7 ;by=\"a\"",
            "7;by =\"a\"",
            "7;by=\"a\\\"\"",
            "٧",
            "７",
            "7\u{0}",
            "7\t",
            "7;sig=:AAAA:",
            "?1",
            ":7:",
            "(7)",
            "7;nonce",
            "7\n",
        ] {
            assert!(Stamp::parse(bad.as_bytes()).is_err(), "{bad:?} was taken for a stamp");
        }
        assert!(Stamp::parse(&[b'7', 0xff]).is_err());
        assert!(Stamp::parse("7".repeat(4000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(stamp) = Stamp::parse(&bytes) {
                prop_assert_eq!(Stamp::parse(stamp.to_string().as_bytes()), Ok(stamp));
            }
        }
    }
}
