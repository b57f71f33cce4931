//! A plain request's head, read strictly and written anew.
//!
//! What is not plain is none of this path's business: hyper's path takes it, and says what is wrong with it if
//! anything is. So nothing here repairs, guesses, or refuses.

use http::HeaderValue;
use std::mem::MaybeUninit;

use super::super::classify::{FRAMING_ALIKE, is_grpc_type};
use super::super::head::{Names, digits};
use super::fields::{Lines, line};
use crate::protocol::{Facts, Fields, Party};

/// A head with more fields is not plain.
pub const MOST_FIELDS: usize = 100;

/// What a connection's bytes begin with.
pub enum Read<'a, 'b> {
    /// Not yet a whole head.
    Partial,
    /// Something for hyper.
    Odd,
    /// A plain request's head.
    Plain(Plain<'a, 'b>),
}

/// A plain request's head: an origin-form target, one Host, at most one Content-Length, nothing that says of its
/// connection more than whether it stays.
pub struct Plain<'a, 'b> {
    pub method: &'b str,
    pub target: &'b str,
    fields: Lines<'a, 'b>,
    /// The bytes of its body.
    pub body: u64,
    /// Whether the client wants the connection closed.
    pub close: bool,
    /// The bytes of the head itself.
    pub len: usize,
    has_peers: bool,
}

impl Fields for Lines<'_, '_> {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        Lines::each(self, name).for_each(each);
    }

    fn has(&self, name: &str) -> bool {
        Lines::has(self, name)
    }

    fn size(&self) -> usize {
        self.all().iter().map(|field| field.name.len() + field.value.len() + 4).sum()
    }
}

/// Reads what `bytes` begin with, and has `then` look at it.
pub fn read<T>(bytes: &[u8], most_fields: usize, then: impl FnOnce(Read<'_, '_>) -> T) -> T {
    let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    match head.parse_with_uninit_headers(bytes, &mut space) {
        Ok(httparse::Status::Complete(len)) => {
            let (Some(method), Some(target), Some(1)) = (head.method, head.path, head.version) else {
                return then(Read::Odd);
            };
            let fields = Lines::new(&bytes[..len], head.headers);
            if fields.all().len() > most_fields || method == "CONNECT" || !is_plain_target(target.as_bytes()) {
                return then(Read::Odd);
            }
            match look(&fields) {
                Some(said) => then(Read::Plain(Plain {
                    method,
                    target,
                    fields,
                    body: said.body,
                    close: said.close,
                    len,
                    has_peers: said.has_peers,
                })),
                None => then(Read::Odd),
            }
        }
        Ok(httparse::Status::Partial) => then(Read::Partial),
        Err(_) => then(Read::Odd),
    }
}

#[derive(Default)]
struct Said {
    body: u64,
    close: bool,
    has_peers: bool,
}

/// What the fields say of the message; `None` where they say more than a plain request does.
fn look(fields: &Lines<'_, '_>) -> Option<Said> {
    let mut said = Said::default();
    let (mut hosts, mut lengths) = (0, 0);
    for field in fields.all() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if is("host") => {
                hosts += 1;
                is_plain_host(field.value).then_some(())?;
            }
            14 if is("content-length") => {
                lengths += 1;
                said.body = digits(field.value)?;
            }
            14 | 17 if FRAMING_ALIKE.iter().any(|name| is(name)) => return None,
            10 if is("connection") => match field.value {
                value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                value if value.eq_ignore_ascii_case(b"close") => said.close = true,
                _ => return None,
            },
            15 if is("x-forwarded-for") => said.has_peers = true,
            12 if is("content-type") && is_grpc_type(field.value) => return None,
            2 if is("te") => return None,
            6 if is("expect") => return None,
            7 if is("upgrade") || is("trailer") => return None,
            14 if is("http2-settings") => return None,
            17 if is("transfer-encoding") => return None,
            _ if is_of_a_proxy(field.name) => return None,
            _ => {}
        }
    }
    (hosts == 1 && lengths <= 1).then_some(said)
}

/// Whether a field of this name is between two proxies.
pub fn is_of_a_proxy(name: &str) -> bool {
    name.len() >= 6 && name.as_bytes()[..6].eq_ignore_ascii_case(b"proxy-")
}

/// A name or an address, with or without a port.
pub fn is_plain_host(value: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    !value.is_empty() && value.iter().all(plain) && value.iter().filter(|byte| **byte == b':').count() <= 1
}

/// Path and query, of characters that mean the same to everybody (RFC 3986 3.3, 3.4).
pub fn is_plain_target(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && target.iter().all(|byte| PLAIN[usize::from(*byte)])
}

static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let text = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/?%";
    let mut at = 0;
    while at < text.len() {
        plain[text[at] as usize] = true;
        at += 1;
    }
    plain
};

impl Plain<'_, '_> {
    /// What a role sees of it.
    pub fn facts<'f>(&'f self, who: &'f Party) -> Facts<'f> {
        let path = self.target.split_once('?').map_or(self.target, |(path, _)| path);
        Facts {
            method: self.method,
            path,
            target: self.target,
            fields: &self.fields,
            upgrade: false,
            grpc: false,
            kind: None,
            peer: who.peer,
            names: who.names.as_deref(),
            binding: who.binding,
        }
    }

    /// Writes the head as the upstream is to see it: as [`Names::to_upstream`] has it.
    pub fn write(&self, names: &Names, peer: &str, stamp: Option<&HeaderValue>, to: &mut Vec<u8>) {
        for part in [self.method, " ", self.target, " HTTP/1.1\r\n"] {
            to.extend_from_slice(part.as_bytes());
        }
        self.fields.write(to, |field| {
            let name = field.name;
            let dropped = match name.len() {
                10 => name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive"),
                15 => name.eq_ignore_ascii_case("x-forwarded-for"),
                _ => false,
            };
            !dropped && !names.is_ours(name)
        });
        to.extend_from_slice(b"x-forwarded-for: ");
        if self.has_peers {
            for peers in self.fields.each("x-forwarded-for") {
                to.extend_from_slice(peers);
                to.extend_from_slice(b", ");
            }
        }
        to.extend_from_slice(peer.as_bytes());
        to.extend_from_slice(b"\r\n");
        if let Some(stamp) = stamp {
            line(to, names.stamp().as_bytes(), stamp.as_bytes());
        }
        to.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(http::HeaderName::from_static("fencing-epoch"))
    }

    /// What becomes of these bytes: `None` where more is needed, `Some(None)` where hyper gets them, else what is sent.
    fn sent(bytes: &str) -> Option<Option<String>> {
        read(bytes.as_bytes(), 100, |read| match read {
            Read::Partial => None,
            Read::Odd => Some(None),
            Read::Plain(plain) => {
                let mut to = Vec::new();
                plain.write(&names(), "10.0.0.7", Some(&HeaderValue::from_static("42")), &mut to);
                Some(Some(String::from_utf8(to).expect("text")))
            }
        })
    }

    #[test]
    fn a_plain_head_is_written_anew_with_the_stamp_and_without_what_stays_here() {
        let head = "PUT /a?b=c HTTP/1.1\r\nHost: db\r\nConnection: Keep-Alive\r\nkeep-alive: 5\r\nX-Forwarded-For: 1.1.1.1\r\n\
                    Fencing-Epoch: 7\r\nfencing_epoch: 8\r\nFENCING-EXPECT: 7\r\nContent-Length:  3 \r\nX-Mine: a, b\r\n\
                    x-forwarded-for: 2.2.2.2\r\n\r\n";
        let expected = "PUT /a?b=c HTTP/1.1\r\nHost: db\r\nContent-Length: 3\r\nX-Mine: a, b\r\n\
                        x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.7\r\nfencing-epoch: 42\r\n\r\n";
        assert_eq!(sent(head), Some(Some(expected.to_owned())));
        for at in 0..head.len() {
            assert_eq!(sent(&head[..at]), None, "{at}");
        }
    }

    #[test]
    fn what_says_more_than_a_plain_request_is_hypers() {
        let with = |line: &str| format!("PUT /a HTTP/1.1\r\nhost: a\r\n{line}\r\n\r\n");
        assert!(sent(&with("x: 1")).flatten().is_some());
        for line in [
            "transfer-encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "te: trailers",
            "trailer: x",
            "content_length: 1",
            "Transfer_Encoding: chunked",
            "expect: 100-continue",
            "upgrade: websocket",
            "http2-settings: AAMAAABkAAQ",
            "proxy-connection: close",
            "connection: close, x-mine",
            "connection: upgrade",
            "connection: ",
            "content-length: 1\r\ncontent-length: 1",
            "content-length: 1\r\ncontent-length: 2",
            "content-length: 1, 1",
            "content-length: +1",
            "content-length: -1",
            "content-length: 0x1",
            "content-length: ",
            "content-length: 1 1",
            "content-length: 1234567890123456789",
            "host: a",
            "content-type: application/grpc",
            "content-type: application/grpc+proto",
            "x : 1",
            " x: 1",
            "x: 1\r\n y",
            "x: \u{0}",
            "x",
        ] {
            assert_eq!(sent(&with(line)), Some(None), "{line:?}");
        }
        for head in [
            "PUT /a HTTP/1.0\r\nhost: a\r\n\r\n",
            "PUT /a HTTP/1.1\r\nx: a\r\n\r\n",
            "PUT /a HTTP/1.1\r\nhost: \r\n\r\n",
            "PUT /a HTTP/1.1\r\nhost: x@a\r\n\r\n",
            "PUT /a HTTP/1.1\r\nhost: a/b\r\n\r\n",
            "PUT /a HTTP/1.1\r\nhost: a:80:80\r\n\r\n",
            "PUT /a HTTP/1.1\r\nhost: [::1]\r\n\r\n",
            "PUT http://a/b HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT a HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT * HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT /a#b HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT /a\"b HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT /a\\b HTTP/1.1\r\nhost: a\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(sent(head), Some(None), "{head:?}");
        }
        let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
        assert_eq!(sent(&format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n")), Some(None));
    }
}
