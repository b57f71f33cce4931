//! An answer's head, read strictly and written anew.

use std::mem::MaybeUninit;

use super::super::head::{REFUSED_NAME, digits};
use super::fields::Lines;
use super::request::{MOST_FIELDS, is_of_a_proxy};

/// What an upstream's bytes begin with.
pub enum Read {
    /// Not yet a whole head.
    Partial,
    /// An answer's head.
    Head(Head),
    /// No answer that can be passed on: why.
    Broken(&'static str),
}

/// How the end of an answer is told (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// It has no body.
    None,
    /// By its length.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of its connection.
    UntilClose,
}

/// An answer's head.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub framing: Framing,
    /// Whether the upstream's connection can take another request after it.
    pub stays: bool,
    /// What a sidecar further on said of the request that it refused.
    pub refused: Option<Box<[u8]>>,
    /// The bytes of the head itself.
    pub len: usize,
}

/// What is to be known of the request that is answered, and of this side.
pub struct To<'a> {
    /// Whether the request was a HEAD: then no body follows.
    pub head: bool,
    /// Whether `Fencing-Refused` is taken off.
    pub strip_refused: bool,
    /// Whether the client's connection ends with this answer.
    pub close: bool,
    /// The Date field's value where the answer has none.
    pub date: &'a dyn Fn(&mut Vec<u8>),
}

/// Reads the head of an answer, and writes it to `out` as the client is to see it. An interim answer is written
/// nowhere.
pub fn read(bytes: &[u8], to: &To<'_>, out: &mut Vec<u8>) -> Read {
    parse(bytes, to, |fields, head, reason| {
        if head.status >= 200 {
            fields.write(head, reason, to, out);
        }
    })
}

/// Reads the head of an answer, and has `then` look at its fields, the head, and the reason that stands there.
pub fn parse(bytes: &[u8], to: &To<'_>, then: impl FnOnce(&Fields<'_, '_>, &Head, &str)) -> Read {
    let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut answer, bytes, &mut space) {
        Ok(httparse::Status::Complete(len)) => {
            let (Some(status), Some(version)) = (answer.code, answer.version) else {
                return Read::Broken("its answer is not HTTP/1.1");
            };
            let fields = Fields(Lines::new(&bytes[..len], answer.headers));
            match fields.head(status, version, len, to) {
                Ok(head) => {
                    then(&fields, &head, answer.reason.unwrap_or(""));
                    Read::Head(head)
                }
                Err(why) => Read::Broken(why),
            }
        }
        Ok(httparse::Status::Partial) => Read::Partial,
        Err(httparse::Error::TooManyHeaders) => Read::Broken("its answer has too many fields"),
        // An alert of TLS (RFC 8446 5.1).
        Err(_) if bytes.starts_with(&[0x15, 3]) => {
            Read::Broken("it speaks TLS: write https:// in upstream.url, and give it upstream.tls")
        }
        Err(_) => Read::Broken("its answer is not HTTP"),
    }
}

/// The names in a comma-separated list.
fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn is_about_staying(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive")
}

/// The fields of an answer.
pub struct Fields<'a, 'b>(Lines<'a, 'b>);

impl Fields<'_, '_> {
    fn head(&self, status: u16, version: u8, len: usize, to: &To<'_>) -> Result<Head, &'static str> {
        let (mut length, mut codings, mut says_close, mut refused) = (None, 0, false, None);
        let mut is_chunked = false;
        for field in self.0.all() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            match field.name.len() {
                14 if is("content-length") => {
                    let value = digits(field.value).ok_or("its answer's Content-Length is no number")?;
                    if length.replace(value).is_some_and(|other| other != value) {
                        return Err("its answer has two lengths");
                    }
                }
                17 if is("transfer-encoding") => {
                    codings += 1;
                    is_chunked = field.value.eq_ignore_ascii_case(b"chunked");
                }
                10 if is("connection") => {
                    says_close |= names(field.value).any(|name| name.eq_ignore_ascii_case(b"close"))
                }
                15 if is(REFUSED_NAME) && !to.strip_refused && refused.is_none() => refused = Some(field.value.into()),
                _ => {}
            }
        }
        let chunked = match codings {
            0 => false,
            1 if version == 1 && is_chunked => true,
            _ => return Err("its answer has a Transfer-Encoding other than one `chunked`"),
        };
        let framing = match (status, chunked, length) {
            (100..=199 | 204 | 304, ..) => Framing::None,
            _ if to.head => Framing::None,
            (_, true, _) => Framing::Chunked,
            (_, false, Some(0)) => Framing::None,
            (_, false, Some(length)) => Framing::Length(length),
            (_, false, None) => Framing::UntilClose,
        };
        // Where a length and a coding are both there, somebody on the way may have gone by the other one.
        let stays = version == 1 && !says_close && framing != Framing::UntilClose && !(chunked && length.is_some());
        Ok(Head { status, framing, stays, refused, len })
    }

    /// The names in Connection.
    fn listed(&self) -> impl Iterator<Item = &[u8]> {
        self.0.each("connection").flat_map(names)
    }

    /// Which of them travel on.
    fn travels<'s>(&'s self, to: &'s To<'_>) -> impl FnMut(&httparse::Header<'_>) -> bool + 's {
        let chunked = self.0.has("transfer-encoding");
        let lists_more = self.listed().any(|name| !is_about_staying(name));
        let mut has_length = false;
        move |field| {
            let name = field.name;
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let dropped = match name.len() {
                2 => is("te"),
                7 => is("upgrade"),
                10 => is("connection") || is("keep-alive"),
                // One of several is enough; and beside a coding it is a lie (RFC 9112 6.3).
                14 => is("content-length") && (chunked || std::mem::replace(&mut has_length, true)),
                15 => is(REFUSED_NAME) && to.strip_refused,
                17 => is("transfer-encoding"),
                _ => false,
            };
            let dropped = dropped
                || is_of_a_proxy(name)
                || (lists_more
                    && !is("content-length")
                    && self.listed().any(|listed| listed.eq_ignore_ascii_case(name.as_bytes())));
            !dropped
        }
    }

    /// Hands the fields that travel on to `each`.
    pub fn each_for_client(&self, to: &To<'_>, mut each: impl FnMut(&str, &[u8])) {
        let mut travels = self.travels(to);
        self.0.all().iter().filter(|field| travels(field)).for_each(|field| each(field.name, field.value));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.all().len()
    }

    fn write(&self, head: &Head, reason: &str, to: &To<'_>, out: &mut Vec<u8>) {
        let status = [head.status / 100, head.status / 10 % 10, head.status % 10].map(|digit| b'0' + digit as u8);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&status);
        out.extend_from_slice(b" ");
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        let has_date = self.0.has("date");
        self.0.write(out, self.travels(to));
        if !has_date {
            out.extend_from_slice(b"date: ");
            (to.date)(out);
            out.extend_from_slice(b"\r\n");
        }
        if matches!(head.framing, Framing::Chunked | Framing::UntilClose) {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if to.close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(bytes: &str, head: bool, strip_refused: bool) -> (Read, String) {
        let mut out = Vec::new();
        let to = To { head, strip_refused, close: false, date: &|to| to.extend_from_slice(b"today") };
        let read = read(bytes.as_bytes(), &to, &mut out);
        (read, String::from_utf8(out).expect("text"))
    }

    fn said(bytes: &str) -> Head {
        match read_as(bytes, false, true).0 {
            Read::Head(head) => head,
            Read::Partial => panic!("{bytes:?}: more is needed"),
            Read::Broken(why) => panic!("{bytes:?}: {why}"),
        }
    }

    #[test]
    fn the_end_of_an_answer_is_told_in_one_way_only() {
        for (fields, framing, stays) in [
            ("content-length: 3", Framing::Length(3), true),
            ("content-length: 3\r\ncontent-length: 3", Framing::Length(3), true),
            ("content-length: 0", Framing::None, true),
            ("transfer-encoding: Chunked", Framing::Chunked, true),
            ("transfer-encoding: chunked\r\ncontent-length: 3", Framing::Chunked, false),
            ("x: 1", Framing::UntilClose, false),
            ("content-length: 3\r\nconnection: x, Close", Framing::Length(3), false),
        ] {
            let head = said(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
            assert_eq!((head.framing, head.stays), (framing, stays), "{fields}");
        }
        assert!(!said("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n").stays);
        for status in [204, 304] {
            assert_eq!(said(&format!("HTTP/1.1 {status} X\r\ncontent-length: 3\r\n\r\n")).framing, Framing::None);
        }
        let (head, _) = read_as("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", true, true);
        assert!(matches!(head, Read::Head(Head { framing: Framing::None, .. })));
        for bad in [
            "content-length: 3\r\ncontent-length: 4",
            "content-length: 3, 3",
            "content-length: +3",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "x : 1",
        ] {
            let (read, _) = read_as(&format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n"), false, true);
            assert!(matches!(read, Read::Broken(_)), "{bad}");
        }
        assert!(matches!(
            read_as("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", false, true).0,
            Read::Broken(_)
        ));
        assert!(matches!(read_as("HTTP/1.1 200 OK\r\ncontent-le", false, true).0, Read::Partial));
    }

    #[test]
    fn an_answer_is_written_anew_without_what_stays_between_neighbours() {
        let fields = "Server: x\r\nConnection: keep-alive, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: a\r\n\
                      Upgrade: h2c\r\nTE: x\r\nFencing-Refused: stale_epoch\r\nContent-Length: 3\r\ncontent-length: 3";
        let answer = format!("HTTP/1.1 412 Precondition Failed\r\n{fields}\r\n\r\nabc");
        let (_, out) = read_as(&answer, false, true);
        let expected = "HTTP/1.1 412 Precondition Failed\r\nServer: x\r\nContent-Length: 3\r\ndate: today\r\n\r\n";
        assert_eq!(out, expected);
        let (head, out) = read_as(&answer, false, false);
        assert!(out.contains("Fencing-Refused: stale_epoch\r\n"), "{out}");
        assert!(matches!(head, Read::Head(head) if head.refused.as_deref() == Some(&b"stale_epoch"[..])));
        let (_, out) = read_as(
            "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
            true,
        );
        assert_eq!(out, "HTTP/1.1 200 OK\r\nDate: then\r\ntransfer-encoding: chunked\r\n\r\n");
        let (_, out) = read_as("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", false, true);
        assert_eq!(out, "", "an interim answer goes no further");
    }
}
