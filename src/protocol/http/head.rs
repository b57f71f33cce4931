//! Heads, from one hop to the next: which fields travel, and which are between two neighbours only.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The field by which a refusal says its reason.
pub const REFUSED: HeaderName = HeaderName::from_static(REFUSED_NAME);
pub const REFUSED_NAME: &str = "fencing-refused";
/// The field by which a service ties a request to an epoch.
const EXPECT_EPOCH: &str = "fencing-expect";
/// No length has more digits.
const MOST_DIGITS: usize = 18;
/// Trailers of these names are ours alone.
const OURS: &str = "fencing-";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that decide how a message is cut out of the byte stream, or where it goes: never to be changed by a trailer.
const FRAMING: [HeaderName; 9] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::CONNECTION,
    header::UPGRADE,
    header::EXPECT,
    header::CONTENT_ENCODING,
];

/// The stamp's field name, in every spelling that a target may take for it.
#[derive(Clone, Debug)]
pub struct Names {
    stamp: HeaderName,
    normal: String,
}

/// Servers that hand fields on as environment variables make `_` of `-`: to them both spellings are one field. `name`
/// in any case, `normal` in lower case.
fn same_but_for_underscores(name: &str, normal: &str) -> bool {
    let same = |(byte, normal): (u8, u8)| byte.eq_ignore_ascii_case(&normal) || (byte == b'_' && normal == b'-');
    name.len() == normal.len() && name.bytes().zip(normal.bytes()).all(same)
}

impl Names {
    /// For a stamp that travels in this field.
    pub fn new(stamp: HeaderName) -> Names {
        let normal = stamp.as_str().replace('_', "-");
        Names { stamp, normal }
    }

    /// Whether a field of this name is, or may be taken for, a stamp.
    pub fn is_stamp(&self, name: &HeaderName) -> bool {
        *name == self.stamp || same_but_for_underscores(name.as_str(), &self.normal)
    }

    /// The stamp's field name, in lower case.
    pub fn stamp(&self) -> &str {
        self.stamp.as_str()
    }

    /// Whether a field of this name, in any case, goes no further than here.
    pub fn is_ours(&self, name: &str) -> bool {
        same_but_for_underscores(name, &self.normal) || same_but_for_underscores(name, EXPECT_EPOCH)
    }

    /// Whether any of the comma-separated names in the fields `list` is the stamp's.
    pub fn stamp_is_listed(&self, headers: &HeaderMap, list: &HeaderName) -> bool {
        listed(headers, list).any(|name| self.is_stamp(&name))
    }

    fn is_for_us(&self, name: &HeaderName) -> bool {
        self.is_ours(name.as_str())
    }

    /// The fields of a request as the upstream is to see them, with `stamp` put on and no other stamp.
    ///
    /// Its framing is not among them, but for Content-Length; nor is Host, which the caller puts.
    pub fn to_upstream(&self, from: &HeaderMap, peer: &str, stamp: Option<&HeaderValue>, keep: Keep) -> HeaderMap {
        let named: Vec<HeaderName> = listed(from, &header::CONNECTION).collect();
        let mut to = HeaderMap::with_capacity(from.len() + 2);
        for (name, value) in from {
            let dropped = *name == header::HOST
                || *name == header::EXPECT
                || *name == FORWARDED_FOR
                || *name == HTTP2_SETTINGS
                || is_between_neighbours(name, &named)
                || self.is_for_us(name);
            if !dropped {
                to.append(name.clone(), value.clone());
            }
        }
        if let Some(peers) = forwarded_for(from, peer) {
            to.insert(FORWARDED_FOR, peers);
        }
        let mut options = Vec::new();
        if keep.trailers && listed(from, &header::TE).any(|coding| coding == "trailers") {
            to.insert(header::TE, HeaderValue::from_static("trailers"));
            options.push("te");
        }
        if keep.upgrade {
            for value in from.get_all(header::UPGRADE) {
                to.append(header::UPGRADE, value.clone());
            }
            options.push("upgrade");
        }
        if keep.options && !options.is_empty() {
            let options = HeaderValue::from_str(&options.join(", ")).expect("the words above are plain text");
            to.insert(header::CONNECTION, options);
        }
        if let Some(stamp) = stamp {
            to.insert(self.stamp.clone(), stamp.clone());
        }
        to
    }

    /// Takes off the fields of an answer that are not for the client. Upgrade stays where the answer is one.
    pub fn strip_answer(&self, headers: &mut HeaderMap, upgraded: bool, strip_refused: bool) {
        let named: Vec<HeaderName> = listed(headers, &header::CONNECTION).collect();
        if headers.contains_key(header::TRANSFER_ENCODING) {
            // Where both are there the length is a lie (RFC 9112 6.3).
            headers.remove(header::CONTENT_LENGTH);
        }
        let upgrade = upgraded.then(|| headers.get(header::UPGRADE).cloned()).flatten();
        let dropped: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_between_neighbours(name, &named) || (strip_refused && **name == REFUSED))
            .cloned()
            .collect();
        for name in dropped {
            headers.remove(name);
        }
        if let Some(upgrade) = upgrade {
            headers.insert(header::UPGRADE, upgrade);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }

    /// Takes off the trailers that must not travel: framing, and what is ours.
    pub fn strip_trailers(&self, trailers: &mut HeaderMap) {
        let dropped: Vec<HeaderName> = trailers
            .keys()
            .filter(|name| {
                FRAMING.contains(name)
                    || is_between_neighbours(name, &[])
                    || self.is_for_us(name)
                    || name.as_str().starts_with(OURS)
            })
            .cloned()
            .collect();
        for name in dropped {
            trailers.remove(name);
        }
    }
}

/// Whether the HTTP/1 connection of an answer with this head may carry another request.
///
/// # Errors
/// Where its end can be told in more ways than one: hyper reads such answers in one of them.
pub fn stays_after(answer: &HeaderMap) -> Result<bool, &'static str> {
    let mut codings = answer.get_all(header::TRANSFER_ENCODING).iter();
    let coded = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        _ => return Err("its answer has a Transfer-Encoding other than one `chunked`"),
    };
    let mut length = None;
    for value in answer.get_all(header::CONTENT_LENGTH) {
        let value = digits(value.as_bytes()).ok_or("its answer's Content-Length is no number")?;
        if length.replace(value).is_some_and(|other| other != value) {
            return Err("its answer has two lengths");
        }
    }
    // Where both are there, somebody on the way may have gone by the other one.
    Ok(!(coded && length.is_some()))
}

/// A number as RFC 9110 8.6 has it: digits and nothing else.
pub fn digits(value: &[u8]) -> Option<u64> {
    let plain = matches!(value.len(), 1..=MOST_DIGITS) && value.iter().all(u8::is_ascii_digit);
    plain.then(|| value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Makes one Cookie field of those that HTTP/2 may have made of it (RFC 9113 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Which of the fields between neighbours the next hop is to get again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// `TE: trailers`.
    pub trailers: bool,
    /// Upgrade.
    pub upgrade: bool,
    /// Name them in Connection, as HTTP/1.1 wants it.
    pub options: bool,
}

/// The names in the comma-separated lists of all fields `list`. What is no field name is left out: it names no field.
fn listed<'a>(headers: &'a HeaderMap, list: &HeaderName) -> impl Iterator<Item = HeaderName> + 'a {
    headers
        .get_all(list)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

/// Whether the list in the fields `list` has this word.
pub fn lists(headers: &HeaderMap, list: &HeaderName, word: &str) -> bool {
    listed(headers, list).any(|name| name == word)
}

fn is_between_neighbours(name: &HeaderName, named: &[HeaderName]) -> bool {
    let always = *name == header::CONNECTION
        || *name == KEEP_ALIVE
        || *name == header::TRANSFER_ENCODING
        || *name == header::TE
        || *name == header::UPGRADE
        || name.as_str().starts_with("proxy-");
    // A client that lists Content-Length would have this hop frame the body anew, and the next one another way.
    always || (named.contains(name) && *name != header::CONTENT_LENGTH)
}

fn forwarded_for(from: &HeaderMap, peer: &str) -> Option<HeaderValue> {
    let mut peers = Vec::new();
    for value in from.get_all(FORWARDED_FOR) {
        peers.extend_from_slice(value.as_bytes());
        peers.extend_from_slice(b", ");
    }
    peers.extend_from_slice(peer.as_bytes());
    HeaderValue::from_bytes(&peers).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names() -> Names {
        Names::new(HeaderName::from_static("fencing-epoch"))
    }

    const PEER: &str = "10.0.0.7";

    #[test]
    fn what_is_between_neighbours_stays_there_and_the_stamp_survives() {
        let from = headers(&[
            ("host", "a"),
            ("connection", "close, x-mine, fencing-epoch, content-length"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "secret"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAAQ"),
            ("content-length", "3"),
            ("fencing-epoch", "7"),
            ("fencing_epoch", "8"),
            ("fencing-expect", "7"),
            ("fencing_expect", "7"),
            ("accept", "*/*"),
        ]);
        let stamp = HeaderValue::from_static("42");
        let to = names().to_upstream(&from, PEER, Some(&stamp), Keep::default());
        assert_eq!(
            to,
            headers(&[
                ("content-length", "3"),
                ("accept", "*/*"),
                ("x-forwarded-for", "10.0.0.7"),
                ("fencing-epoch", "42"),
            ])
        );
        let keep = Keep { trailers: true, upgrade: true, options: true };
        let to = names().to_upstream(&from, PEER, None, keep);
        assert_eq!(to.get("te").map(HeaderValue::as_bytes), Some(&b"trailers"[..]));
        assert_eq!(to.get("connection").map(HeaderValue::as_bytes), Some(&b"te, upgrade"[..]));
        assert_eq!(to.get("upgrade").map(HeaderValue::as_bytes), Some(&b"websocket"[..]));
        assert!(!to.contains_key("fencing-epoch"));
    }

    #[test]
    fn crumbs_become_a_cookie() {
        let mut crumbs = headers(&[("cookie", "a=1")]);
        crumbs.append("cookie", HeaderValue::from_static("b=2"));
        join_cookies(&mut crumbs);
        assert_eq!(crumbs, headers(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn peers_are_appended() {
        let mut from = headers(&[("x-forwarded-for", "1.1.1.1")]);
        from.append("x-forwarded-for", HeaderValue::from_static("2.2.2.2, 3.3.3.3"));
        let to = names().to_upstream(&from, PEER, None, Keep::default());
        let value = to.get("x-forwarded-for").map(HeaderValue::as_bytes);
        assert_eq!(value, Some(&b"1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.7"[..]));
        assert_eq!(to.get_all("x-forwarded-for").iter().count(), 1);
    }

    #[test]
    fn an_answer_loses_its_refusal_only_at_a_guard() {
        let from =
            [("transfer-encoding", "chunked"), ("content-length", "3"), ("fencing-refused", "x"), ("upgrade", "h2c")];
        let mut answer = headers(&from);
        names().strip_answer(&mut answer, false, true);
        assert!(answer.is_empty(), "{answer:?}");
        let mut answer = headers(&from);
        names().strip_answer(&mut answer, false, false);
        assert_eq!(answer, headers(&[("fencing-refused", "x")]));
        let mut answer = headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")]);
        names().strip_answer(&mut answer, true, true);
        assert_eq!(
            answer,
            headers(&[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")])
        );
    }

    #[test]
    fn an_answer_whose_end_can_be_told_in_two_ways_is_none() {
        for (fields, stays) in [
            (&[][..], Ok(true)),
            (&[("content-length", "3"), ("content-length", "3")], Ok(true)),
            (&[("transfer-encoding", "Chunked")], Ok(true)),
            (&[("transfer-encoding", "chunked"), ("content-length", "3")], Ok(false)),
        ] {
            assert_eq!(stays_after(&many(fields)), stays, "{fields:?}");
        }
        for bad in [
            &[("content-length", "3"), ("content-length", "4")][..],
            &[("content-length", "3, 3")],
            &[("content-length", "+3")],
            &[("content-length", "")],
            &[("content-length", "1234567890123456789")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "identity"), ("content-length", "3")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert!(stays_after(&many(bad)).is_err(), "{bad:?}");
        }
    }

    /// As `headers`, with each name as often as it stands there.
    fn many(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn trailers_carry_neither_framing_nor_anything_of_ours() {
        let mut trailers = headers(&[
            ("content-length", "9"),
            ("host", "b"),
            ("fencing-epoch", "7"),
            ("fencing_epoch", "7"),
            ("fencing-anything", "7"),
            ("grpc-status", "0"),
        ]);
        names().strip_trailers(&mut trailers);
        assert_eq!(trailers, headers(&[("grpc-status", "0")]));
    }

    #[test]
    fn the_stamp_is_known_in_every_spelling() {
        let names = names();
        for name in ["fencing-epoch", "fencing_epoch"] {
            assert!(names.is_stamp(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!names.is_stamp(&HeaderName::from_static("fencing-epochs")));
        let listing = headers(&[("trailer", "a, Fencing_Epoch")]);
        assert!(names.stamp_is_listed(&listing, &header::TRAILER));
        assert!(!names.stamp_is_listed(&listing, &header::CONNECTION));
        let odd = Names::new(HeaderName::from_static("x_epoch"));
        assert!(odd.is_stamp(&HeaderName::from_static("x-epoch")) && odd.is_stamp(&HeaderName::from_static("x_epoch")));
    }
}
