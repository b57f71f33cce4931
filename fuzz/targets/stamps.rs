//! The stamp's field: what is read is exactly what the grammar of DESIGN 4 allows, and there is one way to write it. A
//! signature holds for what was signed, and for nothing else.

use super::text;
use crate::fence::stamp::Malformed;
use crate::fence::{Epoch, KeyId, Nonce, Resource, Signature, Stamp, WriterId};
use crate::protocol::Fields;
use crate::roles::field::StampField;
use crate::roles::field::tests::Head;
use crate::signing::{Objection, Subject};

const WORDS: &[&str] = &[
    ";nonce=:n58qe3yfEjQ=:",
    ";by=\"orders-a\"",
    ";res=\"orders/7\"",
    ";res=\"a/b/c/d\"",
    "nonce",
    "by",
    "res",
    ";sig=:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:",
    ";kid=\"k1\"",
    ";ts=1790000000",
    "sig=",
    "kid=",
    "ts=",
    "=:",
    ":;",
    "=\"",
    "\";",
    "42",
    "; ",
    " ;",
    "?1",
    "(42)",
    ", 43",
    "42.0",
    "AAAAAAAAAAA=",
];

#[test]
fn stamp() {
    crate::fuzz::engine::fuzz("stamp", WORDS, |input| {
        let read = Stamp::parse_signed(input);
        assert_eq!(read.is_ok(), grammar::is_stamp(input), "the parser and the grammar disagree");
        assert_eq!(Stamp::parse(input).as_ref(), read.as_ref().map(|(stamp, ..)| stamp));
        let (stamp, signature, own) = read.map_err(|Malformed(why)| why)?;
        // What a guard that knows the stamp by its bytes reads of the rest.
        assert_eq!(Stamp::parse_signed(&input[..own]), Ok((stamp.clone(), None, own)));
        assert_eq!(signature, (own < input.len()).then(|| stamp.signature(&input[own..]).expect("it was read before")));
        let length = stamp.to_string().len();
        let written = format!("{stamp}{}", signature.as_ref().map(ToString::to_string).unwrap_or_default());
        let again = Stamp::parse_signed(written.as_bytes());
        assert_eq!(again.as_ref(), Ok(&(stamp.clone(), signature, length)), "{written} is read as something else");
        assert!(grammar::is_stamp(written.as_bytes()));
        let parts = (stamp.nonce.is_some(), stamp.by.is_some(), stamp.res.is_some(), signature.is_some());
        Ok::<_, &str>((parts, written.len()))
    });
}

/// Names have one spelling each: what is read is what is written.
#[test]
fn names() {
    crate::fuzz::engine::fuzz("names", &["orders", "/7", "a/b/c/d", "n58qe3yfEjQ=", "%2F", "%2f"], |input| {
        let text = text(input)?;
        let epoch = text.parse::<Epoch>().map(|epoch| assert_eq!(epoch.to_string(), text));
        let nonce = text.parse::<Nonce>().map(|nonce| assert_eq!(nonce.to_string(), text));
        let key = text.parse::<KeyId>().map(|key| assert_eq!(key.to_string(), text)).is_ok();
        let writer = text.parse::<WriterId>().map(|writer| assert_eq!(writer.to_string(), text));
        let resource = text.parse::<Resource>().map(|resource| {
            assert_eq!(resource.to_string(), text);
            assert_eq!(Resource::from_key(&resource.to_key()), Ok(resource));
        });
        let of_the_store = Resource::from_key(text).is_ok();
        let known = (epoch.is_ok(), nonce.is_ok(), writer.is_ok(), resource.is_ok());
        Some((known, key, of_the_store, text.len()))
    });
}

/// The input: two requests, a line for each text that is signed (resource, writer, method, target), and in the next the
/// digits of epoch and time. The second one's signature is the first one's exactly where they are the same.
#[test]
fn signatures() {
    let keys = crate::signing::tests::keys(&[("k1", 1)], 300, true);
    let words = ["orders\n", "orders-a\n", "PUT\n", "/a?b=c\n", "42 1790000000\n", "6:orders,", "3:PUT,", ":", ","];
    crate::fuzz::engine::fuzz("signatures", &words, |input| {
        let mut lines = text(input)?.split('\n');
        let (one, ts) = request(&mut lines)?;
        let (two, other_ts) = request(&mut lines)?;
        let signature = keys.sign(&one, ts);
        assert_eq!(keys.verify(&one, &signature, ts), Ok(()));
        assert_eq!(keys.verify(&two, &signature, ts).is_ok(), one == two, "{one:?} and {two:?}");
        let at_another_time = keys.verify(&one, &Signature { ts: other_ts, ..signature }, ts);
        let expected = match ts.abs_diff(other_ts) {
            0 => Ok(()),
            1..=300 => Err(Objection::Mismatch),
            off => Err(Objection::OutOfWindow { off, ahead: other_ts > ts, window: 300 }),
        };
        assert_eq!(at_another_time, expected);
        Some((one == two, ts == other_ts, one.target.len().min(100), one.method.len().min(20)))
    });
}

fn request<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<(Subject<'a>, u64)> {
    let [resource, writer, method, target] = [lines.next()?, lines.next()?, lines.next()?, lines.next()?];
    let (epoch, ts) = lines.next()?.split_once(' ')?;
    let (epoch, nonce) = (epoch.parse().ok()?, Nonce::from_bytes([7; 8]));
    Some((Subject { resource, epoch, nonce, writer, method, target }, ts.parse().ok()?))
}

/// The input is a head: a field a line, `name: value`. A stamp is taken from one field of its name, and from no head in
/// which another reader might find another.
#[test]
fn field() {
    let words = [
        "fencing-epoch: 42\n",
        "fencing_epoch: 42\n",
        "connection: fencing-epoch\n",
        "trailer: ",
        "Fencing-Epoch",
        "\n",
    ];
    let field = StampField::new("fencing-epoch");
    crate::fuzz::engine::fuzz("field", &words, |input| {
        let split = |line: &[u8]| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            // As hyper hands names on.
            let name = String::from_utf8_lossy(&line[..colon]).to_lowercase();
            Some((name, line[colon + 1..].trim_ascii().to_vec()))
        };
        let head = Head(input.split(|byte| *byte == b'\n').filter_map(split).collect());
        let read = field.collect(&head, Stamp::parse);
        let values = || head.0.iter().filter(|(name, _)| name == "fencing-epoch").map(|(_, value)| value);
        let spelled = head.0.iter().any(|(name, _)| name == "fencing_epoch");
        let says = |list: &str| {
            head.0.iter().any(|(name, value)| {
                name == list
                    && String::from_utf8_lossy(value)
                        .to_lowercase()
                        .split(',')
                        .any(|one| one.as_bytes().trim_ascii() == b"fencing-epoch")
            })
        };
        let clean = !spelled && !says("connection") && !says("trailer");
        match &read {
            Ok(None) => assert!(values().count() == 0 && clean),
            Ok(Some(stamp)) => {
                assert!(values().count() == 1 && clean);
                assert_eq!(Stamp::parse(values().next().expect("there is one")).as_ref(), Ok(stamp));
            }
            Err(_) => assert!(values().count() > 0 || !clean),
        }
        assert_eq!(field.is_in(&head), values().count() > 0 || spelled);
        assert!(head.size() >= 4 * head.0.len());
        read.map(|stamp| stamp.is_some()).map_err(|Malformed(why)| why)
    });
}

/// The grammar once more, in another way: a table of what may follow, no parser of the crate.
mod grammar {
    /// `1*15DIGIT` without a leading zero, then parameters `; key=value`, each key once. Those of a signature stand last,
    /// all three or none, and only where the stamp's own three are there.
    pub fn is_stamp(input: &[u8]) -> bool {
        let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=15).contains(&digits) || input[0] == b'0' {
            return false;
        }
        let (mut rest, mut keys) = (&input[digits..], Vec::new());
        while let [b';', after @ ..] = rest {
            let spaces = after.iter().take_while(|byte| **byte == b' ').count();
            let Some((key, after)) = parameter(&after[spaces..]) else { return false };
            if keys.contains(&key) {
                return false;
            }
            keys.push(key);
            rest = after;
        }
        let own = keys.iter().take_while(|key| b"nbr".contains(key)).count();
        let (own, signature) = keys.split_at(own);
        let ends_well = signature.is_empty()
            || (own.len() == 3 && signature.len() == 3 && signature.iter().all(|key| b"kts".contains(key)));
        rest.is_empty() && ends_well
    }

    type Fits = fn(&[u8]) -> bool;

    /// One parameter off the front.
    fn parameter(input: &[u8]) -> Option<(u8, &[u8])> {
        let (key, quote, fits): (u8, u8, Fits) = match input {
            [b't', b's', b'=', value @ ..] => {
                let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let fits = (1..=12).contains(&digits) && (digits == 1 || value[0] != b'0');
                return fits.then_some((b't', &value[digits..]));
            }
            [b'k', b'i', b'd', b'=', ..] => (b'k', b'"', is_key_id),
            [b's', b'i', b'g', b'=', ..] => (b's', b':', is_mac),
            [b'n', b'o', b'n', b'c', b'e', b'=', ..] => (b'n', b':', is_nonce),
            [b'b', b'y', b'=', ..] => (b'b', b'"', is_id),
            [b'r', b'e', b's', b'=', ..] => (b'r', b'"', is_resource),
            _ => return None,
        };
        let value = &input[input.iter().position(|byte| *byte == b'=')? + 1..];
        let inside = value.strip_prefix(&[quote])?;
        let end = inside.iter().position(|byte| *byte == quote)?;
        fits(&inside[..end]).then_some((key, &inside[end + 1..]))
    }

    fn letter(byte: u8) -> Option<usize> {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|letter| *letter == byte)
    }

    /// Eight bytes: eleven letters of base64, of which the last has only four bits, and one `=`.
    fn is_nonce(value: &[u8]) -> bool {
        let bits = |byte: &u8| letter(*byte);
        let [letters @ .., b'='] = value else { return false };
        letters.len() == 11
            && letters.iter().all(|byte| bits(byte).is_some())
            && bits(&letters[10]).is_some_and(|bits| bits % 4 == 0)
    }

    /// Thirty-two bytes: 43 letters of base64, of which the last has only four bits, and one `=`.
    fn is_mac(value: &[u8]) -> bool {
        value.len() == 44 && is_nonce(&value[32..]) && value[..32].iter().all(|byte| letter(*byte).is_some())
    }

    fn is_key_id(value: &[u8]) -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        (1..=32).contains(&value.len()) && value.iter().all(plain)
    }

    fn is_id(value: &[u8]) -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        (1..=63).contains(&value.len()) && value[0].is_ascii_alphanumeric() && value.iter().all(plain)
    }

    fn is_resource(value: &[u8]) -> bool {
        let segments: Vec<&[u8]> = value.split(|byte| *byte == b'/').collect();
        let lower = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_segment = |segment: &&[u8]| {
            (1..=63).contains(&segment.len())
                && lower(&segment[0])
                && segment.iter().all(|byte| lower(byte) || b"._-".contains(byte))
        };
        (1..=4).contains(&segments.len()) && segments.iter().all(is_segment)
    }
}
