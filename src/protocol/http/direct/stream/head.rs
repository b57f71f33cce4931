//! A plain stream's head: what it says, and the head that the upstream is to see.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

use super::super::super::classify::{FRAMING_ALIKE, is_grpc_type, target_of};
use super::super::super::head::{Names, digits};
use super::super::fields::line;
use super::super::request::{is_of_a_proxy, is_plain_host, is_plain_target};
use super::Stream;
use crate::protocol::{Facts, Fields};

/// What a plain stream's head says of its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The bytes of its body.
    pub body: u64,
    has_peers: bool,
    cookies: usize,
}

/// Reads a stream's head; `no_body` where none follows. `None` where it says more than a plain one: an authority in
/// `:authority` only, an origin-form target, a length or no body, no word about its connection, its trailers or gRPC.
pub fn look(head: &Parts, no_body: bool, most_fields: usize) -> Option<Said> {
    let target = head.uri.path_and_query()?.as_str();
    let plain = head.version == Version::HTTP_2
        && head.method != Method::CONNECT
        && is_plain_host(head.uri.authority()?.as_str().as_bytes())
        && is_plain_target(target.as_bytes())
        && head.headers.len() <= most_fields;
    if !plain {
        return None;
    }
    let mut said = Said::default();
    let mut length = None;
    for (name, value) in &head.headers {
        match name.as_str() {
            "content-length" => {
                let value = digits(value.as_bytes())?;
                if length.replace(value).is_some() {
                    return None;
                }
            }
            "x-forwarded-for" => said.has_peers = true,
            "cookie" => said.cookies += 1,
            "content-type" if is_grpc_type(value.as_bytes()) => return None,
            "host" | "te" | "expect" | "trailer" | "upgrade" | "connection" | "keep-alive" | "transfer-encoding"
            | "http2-settings" => return None,
            name if is_of_a_proxy(name) || FRAMING_ALIKE.contains(&name) => return None,
            _ => {}
        }
    }
    said.body = match (length, no_body) {
        (Some(length @ 1..), false) => length,
        (None | Some(0), true) => 0,
        // Whether trailers follow no body is seen where there is more than a plain stream.
        (None | Some(0), false) | (Some(_), true) => return None,
    };
    Some(said)
}

impl Fields for Parts {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if name == "host"
            && let Some(authority) = self.uri.authority()
        {
            each(authority.as_str().as_bytes());
        }
        // They are few: to look at each is less work than to hash a name.
        self.headers.iter().filter(|(own, _)| own.as_str() == name).for_each(|(_, value)| each(value.as_bytes()));
    }

    fn size(&self) -> usize {
        let host = self.uri.authority().map_or(0, |authority| "host".len() + authority.as_str().len() + 4);
        host + HeaderMap::size(&self.headers)
    }
}

impl Stream {
    /// What a role sees of it.
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            method: self.head.method.as_str(),
            path: self.head.uri.path(),
            target: target_of(&self.head.uri),
            fields: &self.head,
            upgrade: false,
            grpc: false,
            kind: None,
            peer: self.who.peer,
            names: self.who.names.as_deref(),
            binding: self.who.binding,
        }
    }

    /// Writes the head as the upstream is to see it: as [`Names::to_upstream`] has it.
    pub(super) fn write(&self, names: &Names, stamp: Option<&HeaderValue>, to: &mut Vec<u8>) {
        let uri = &self.head.uri;
        for part in [self.head.method.as_str(), " ", target_of(uri), " HTTP/1.1\r\n"] {
            to.extend_from_slice(part.as_bytes());
        }
        line(to, b"host", uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
        for (name, value) in &self.head.headers {
            let name = name.as_str();
            let dropped = match name.len() {
                15 => name == "x-forwarded-for",
                6 => name == "cookie",
                _ => false,
            };
            if !dropped && !names.is_ours(name) {
                line(to, name.as_bytes(), value.as_bytes());
            }
        }
        if self.said.cookies > 0 {
            // HTTP/2 may have made several of one (RFC 9113 8.2.3).
            self.joined(to, &header::COOKIE, b"; ");
            to.extend_from_slice(b"\r\n");
        }
        if self.said.has_peers {
            self.joined(to, &header::HeaderName::from_static("x-forwarded-for"), b", ");
            to.extend_from_slice(b", ");
        } else {
            to.extend_from_slice(b"x-forwarded-for: ");
        }
        to.extend_from_slice(self.client.peer_text(self.who.peer).as_bytes());
        to.extend_from_slice(b"\r\n");
        if let Some(stamp) = stamp {
            line(to, names.stamp().as_bytes(), stamp.as_bytes());
        }
        to.extend_from_slice(b"\r\n");
    }

    /// One field of all that have this name, without its line's end.
    fn joined(&self, to: &mut Vec<u8>, name: &header::HeaderName, between: &[u8]) {
        to.extend_from_slice(name.as_str().as_bytes());
        for (at, value) in self.head.headers.get_all(name).iter().enumerate() {
            to.extend_from_slice(if at == 0 { b": " } else { between });
            to.extend_from_slice(value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::Request;
    use http::header::HeaderName;

    use super::*;
    use crate::protocol::Party;
    use crate::protocol::http::client::Client;

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn head(method: &str, uri: &str, fields: Lines<'_>) -> Parts {
        let request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    /// What the upstream sees of it, if it is plain.
    async fn sent(head: Parts, no_body: bool) -> Option<String> {
        let said = look(&head, no_body, 100)?;
        let (stream, _) = tokio::io::duplex(1);
        let client = Client::new(crate::net::Stream::other(stream), bytes::Bytes::new(), tokio::time::Instant::now());
        let peer = "[::ffff:10.0.0.7]:1".parse::<crate::peer::Peer>().expect("address");
        let stream = Stream { head, said, client: Rc::clone(&client), who: Party::unnamed(peer, Default::default()) };
        let mut to = Vec::new();
        let names = Names::new(HeaderName::from_static("fencing-epoch"));
        stream.write(&names, Some(&HeaderValue::from_static("42")), &mut to);
        Some(String::from_utf8(to).expect("text"))
    }

    #[tokio::test]
    async fn a_plain_head_is_written_for_http1_with_the_stamp_and_without_what_stays_here() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("fencing-epoch", "7"),
            ("fencing_epoch", "8"),
            ("fencing-expect", "7"),
            ("cookie", "a=1"),
            ("content-length", "3"),
            ("x-mine", "a, b"),
            ("x-forwarded-for", "2.2.2.2"),
            ("cookie", "b=2"),
        ];
        let expected = "PUT /a?b=c HTTP/1.1\r\nhost: db:80\r\ncontent-length: 3\r\nx-mine: a, b\r\n\
                        cookie: a=1; b=2\r\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.7\r\nfencing-epoch: 42\r\n\r\n";
        assert_eq!(sent(head("PUT", "http://db:80/a?b=c", &fields), false).await.as_deref(), Some(expected));
        let expected = "GET / HTTP/1.1\r\nhost: db\r\nx-forwarded-for: 10.0.0.7\r\nfencing-epoch: 42\r\n\r\n";
        assert_eq!(sent(head("GET", "http://db", &[]), true).await.as_deref(), Some(expected));
    }

    #[test]
    fn what_says_more_than_a_plain_stream_goes_another_way() {
        let put = |field| look(&head("PUT", "http://db/a", &[("content-length", "1"), field]), false, 100);
        assert_eq!(put(("x", "1")), Some(Said { body: 1, has_peers: false, cookies: 0 }));
        for field in [
            ("host", "db"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("trailer", "x"),
            ("upgrade", "websocket"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("http2-settings", "AAMAAABkAAQ"),
            ("proxy-authorization", "x"),
            ("content_length", "1"),
            ("transfer_encoding", "chunked"),
            ("content-type", "application/grpc"),
            ("content-length", "1"),
            ("content-length", "2"),
        ] {
            assert_eq!(put(field), None, "{field:?}");
        }
        for (method, uri) in [
            ("CONNECT", "db:80"),
            ("OPTIONS", "*"),
            ("PUT", "/a"),
            ("PUT", "http://x@db/a"),
            ("PUT", "http://[::1]/a"),
            ("PUT", "http://db/a\"b"),
        ] {
            assert_eq!(look(&head(method, uri, &[]), true, 100), None, "{method} {uri}");
        }
        for length in ["", "+1", "0x1", "1, 1", "1234567890123456789"] {
            assert_eq!(look(&head("PUT", "http://db/a", &[("content-length", length)]), false, 100), None);
        }
        assert_eq!(look(&head("PUT", "http://db/a", &[]), false, 100), None, "without a length");
        assert_eq!(look(&head("PUT", "http://db/a", &[("content-length", "1")]), true, 100), None, "without a body");
        assert_eq!(look(&head("GET", "http://db/a", &[("x", "1"), ("y", "1")]), true, 1), None, "too many");
        let mut http1 = head("GET", "http://db/a", &[]);
        http1.version = Version::HTTP_11;
        assert_eq!(look(&http1, true, 100), None);
    }

    #[test]
    fn a_role_finds_the_host_and_every_value_of_a_field() {
        let head = head("GET", "http://db/a", &[("x", "1"), ("y", "2"), ("x", "3")]);
        let values = |name: &str| {
            let mut values = Vec::new();
            head.each(name, &mut |value| values.push(String::from_utf8_lossy(value).into_owned()));
            values
        };
        assert_eq!((values("host"), values("x")), (vec!["db".to_owned()], vec!["1".to_owned(), "3".to_owned()]));
        assert!(Fields::has(&head, "y") && !Fields::has(&head, "z"));
        assert_eq!(head.size(), "host: db\r\nx: 1\r\ny: 2\r\nx: 3\r\n".len());
    }
}
