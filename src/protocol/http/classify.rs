//! What a request is: refused where two readers could read it two ways, else the facts that a role decides on.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri, Version};

use super::head::{self, Names};
use crate::protocol::{Facts, Fields, Kind, Party};

/// Not the fields that say where a message ends, but taken for them by servers that hand fields on as environment
/// variables. Nobody means anything else by them.
pub const FRAMING_ALIKE: [&str; 2] = ["content_length", "transfer_encoding"];

/// Why a request is not looked at any further.
#[derive(Debug)]
pub enum Unreadable {
    /// It means two things, or nothing: no business of the fence.
    Ambiguous(StatusCode, &'static str),
    /// It would have the stamp taken off, or put a second one on, further down the road.
    Stamp(&'static str),
}

/// A request's head as it came, and what it says of itself.
#[derive(Debug)]
pub struct Seen {
    /// The head as it came, with Host put where only `:authority` was there.
    pub head: Parts,
    /// The address that it is for; none in an HTTP/1.0 request that names none.
    pub host: Option<HeaderValue>,
    /// Who sent it.
    pub who: Party,
    /// Whether it asks for an upgrade that can be granted.
    pub upgrade: bool,
    /// Whether it is a gRPC call.
    pub grpc: bool,
}

impl Fields for HeaderMap {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for value in self.get_all(name) {
            each(value.as_bytes());
        }
    }

    fn has(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn size(&self) -> usize {
        // Four bytes each for the colon, the space and the line's end.
        self.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
    }
}

impl Seen {
    /// A head with what it says of itself.
    pub fn new(mut head: Parts, said: Said, who: Party) -> Seen {
        if let Some(host) = &said.host {
            head.headers.insert(header::HOST, host.clone());
        }
        begin_with_a_slash(&mut head.uri);
        let grpc = head.headers.get(header::CONTENT_TYPE).is_some_and(|value| is_grpc_type(value.as_bytes()));
        Seen { head, host: said.host, who, upgrade: said.upgrade, grpc }
    }

    /// A head that cannot be read: for the answer to it.
    pub fn unread(head: Parts, who: Party) -> Seen {
        Seen { head, host: None, who, upgrade: false, grpc: false }
    }

    /// What a role sees of it.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            method: self.head.method.as_str(),
            path: self.head.uri.path(),
            target: target_of(&self.head.uri),
            fields: &self.head.headers,
            upgrade: self.upgrade,
            grpc: self.grpc,
            kind: None,
            peer: self.who.peer,
            names: self.who.names.as_deref(),
            binding: self.who.binding,
        }
    }

    /// Whether it came over HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.head.version == Version::HTTP_2
    }

    /// Read or write as the method alone says it: for the counters, where the role never said.
    pub fn kind_by_method(&self) -> Kind {
        if self.upgrade { Kind::Write } else { Kind::of_method(self.head.method.as_str()) }
    }

    /// Path and query, as origin-form has them.
    pub fn target(&self) -> PathAndQuery {
        // One that is empty (`http://host#part`) says that it is `/`, and would be written as nothing.
        let said = self.head.uri.path_and_query().filter(|said| said.as_str() != "/");
        said.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
    }
}

/// Path and query, as origin-form has them: what a stamp is signed over must be what is written.
pub fn target_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// `http://host?query` has no path, and the next hop sees `/?query`: so must whoever asks before.
fn begin_with_a_slash(uri: &mut Uri) {
    let target = target_of(uri);
    if target.starts_with(['/', '*']) {
        return;
    }
    // One that is a byte too long for that stays as it is.
    if let Ok(slashed) = PathAndQuery::try_from(format!("/{target}")) {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(slashed);
        if let Ok(slashed) = Uri::from_parts(parts) {
            *uri = slashed;
        }
    }
}

/// What a readable head says.
#[derive(Debug)]
pub struct Said {
    host: Option<HeaderValue>,
    upgrade: bool,
}

/// Reads a request's head; `empty` says that no body follows.
///
/// # Errors
/// Where it is ambiguous (RFC 9112 sections 3.2, 6 and 11), asks for what is never done, or misuses the stamp's name.
pub fn read(head: &Parts, empty: bool, names: &Names, most_fields: usize) -> Result<Said, Unreadable> {
    let bad = |why| Unreadable::Ambiguous(StatusCode::BAD_REQUEST, why);
    if head.method == Method::CONNECT {
        return Err(bad("CONNECT is not served here."));
    }
    if head.headers.len() > most_fields {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Unreadable::Ambiguous(status, "The request has too many fields."));
    }
    if !is_plainly_framed(head) {
        return Err(bad("The only Transfer-Encoding that is served is one `chunked`."));
    }
    if !is_plainly_measured(head) {
        return Err(bad("The Content-Length is no number."));
    }
    if FRAMING_ALIKE.iter().any(|name| head.headers.contains_key(*name)) {
        return Err(bad("A field that says where the body ends is spelt with `_`, which many servers take for `-`."));
    }
    let host = host(head).map_err(bad)?;
    let upgrade = asks_for_upgrade(head);
    if upgrade && !empty {
        return Err(bad("A request that asks for an upgrade must not have a body."));
    }
    if names.stamp_is_listed(&head.headers, &header::CONNECTION) {
        return Err(Unreadable::Stamp("The stamp's field is listed in Connection."));
    }
    if names.stamp_is_listed(&head.headers, &header::TRAILER) {
        return Err(Unreadable::Stamp("The stamp's field is announced as a trailer."));
    }
    Ok(Said { host, upgrade })
}

fn is_plainly_framed(head: &Parts) -> bool {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(one), None) => head.version == Version::HTTP_11 && one.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether what says how long the body is is a number: HTTP/2's library takes nothing at all for one.
fn is_plainly_measured(head: &Parts) -> bool {
    let lengths = || head.headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    lengths().all(is_number) && (is_http1(head.version) || lengths().nth(1).is_none())
}

fn is_http1(version: Version) -> bool {
    version <= Version::HTTP_11
}

/// The one address that the request is for, from its target and its Host field.
fn host(head: &Parts) -> Result<Option<HeaderValue>, &'static str> {
    let mut fields = head.headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err("The request has two Host fields.");
    }
    if field.is_some_and(|field| !is_a_host(field)) {
        return Err("The Host field names no host.");
    }
    let authority = head.uri.authority();
    let path = head.uri.path();
    let origin_form = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
    let bare_authority = is_http1(head.version) && authority.is_some() && head.uri.scheme().is_none();
    if !origin_form || bare_authority {
        return Err("The request's target is neither a path nor a whole URI.");
    }
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("The request's target carries credentials.");
    }
    match (authority, field) {
        (Some(authority), Some(field)) if !is_same_host(authority, field) => {
            Err("The request's target and its Host field name different hosts.")
        }
        (_, Some(field)) => Ok(Some(field.clone())),
        (Some(authority), None) => {
            HeaderValue::from_str(authority.as_str()).map(Some).map_err(|_| "The request's target names no host.")
        }
        (None, None) if head.version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err("The request names no host."),
    }
}

/// A host with or without a port, or nothing, which a client may say where its target has no host (RFC 9112 3.2).
fn is_a_host(field: &HeaderValue) -> bool {
    let bytes = field.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

fn is_same_host(authority: &Authority, field: &HeaderValue) -> bool {
    fn without_port_80(host: &[u8]) -> &[u8] {
        host.strip_suffix(b":80").unwrap_or(host)
    }
    without_port_80(authority.as_str().as_bytes()).eq_ignore_ascii_case(without_port_80(field.as_bytes()))
}

/// Whether the connection is to become something else. An upgrade to HTTP/2 is not: the request is answered over the
/// protocol that it came in, as RFC 9110 7.8 allows; the target must never change the protocol under this hop.
fn asks_for_upgrade(head: &Parts) -> bool {
    let to_http2 = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|protocol| {
            let protocol = protocol.trim_ascii();
            protocol.len() >= 2 && protocol[..2].eq_ignore_ascii_case(b"h2")
        })
    };
    head.version == Version::HTTP_11
        && head.headers.contains_key(header::UPGRADE)
        && head::lists(&head.headers, &header::CONNECTION, "upgrade")
        && !head.headers.get_all(header::UPGRADE).iter().any(to_http2)
}

/// `application/grpc`, alone or with a suffix or parameters; gRPC-Web is plain HTTP to its clients.
pub fn is_grpc_type(value: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    value.len() >= GRPC.len()
        && value[..GRPC.len()].eq_ignore_ascii_case(GRPC)
        && matches!(value.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::HeaderName;

    use super::*;

    fn try_classify(request: http::request::Builder, empty: bool) -> Result<Seen, Unreadable> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let peer = "10.0.0.7:1".parse::<crate::peer::Peer>().expect("address");
        let names = Names::new(HeaderName::from_static("fencing-epoch"));
        let said = read(&head, empty, &names, 100)?;
        Ok(Seen::new(head, said, Party::unnamed(peer, Default::default())))
    }

    #[test]
    fn what_means_two_things_is_refused() {
        let get = || Request::builder().uri("/a").header("host", "a");
        let bad: Vec<(&str, http::request::Builder)> = vec![
            ("no host", Request::builder().uri("/a")),
            ("two hosts", get().header("host", "a")),
            ("another host", Request::builder().uri("http://b/a").header("host", "a")),
            ("credentials", Request::builder().uri("http://x@a/a").header("host", "a")),
            ("a Host with a space", Request::builder().uri("/a").header("host", "a b")),
            ("a Host with a path", Request::builder().uri("/a").header("host", "a/b")),
            ("a Host with credentials", Request::builder().uri("/a").header("host", "x@a")),
            ("connect", Request::builder().method("CONNECT").uri("a:80").header("host", "a")),
            ("authority form", Request::builder().uri("a:80").header("host", "a:80")),
            ("asterisk", Request::builder().uri("*").header("host", "a")),
            ("gzip", get().header("transfer-encoding", "gzip, chunked")),
            ("twice", get().header("transfer-encoding", "chunked").header("transfer-encoding", "chunked")),
            ("a length spelt with `_`", get().header("content_length", "9")),
            ("a coding spelt with `_`", get().header("transfer_encoding", "chunked")),
            ("1.0", get().version(Version::HTTP_10).header("transfer-encoding", "chunked")),
            ("h2", get().version(Version::HTTP_2).header("transfer-encoding", "chunked")),
            ("h2 asterisk", Request::builder().version(Version::HTTP_2).uri("*").header("host", "a")),
            ("no authority", Request::builder().version(Version::HTTP_2).uri("/a")),
            ("h2 other host", Request::builder().version(Version::HTTP_2).uri("http://b/a").header("host", "a")),
            ("upgrade with a body", get().header("connection", "upgrade").header("upgrade", "websocket")),
        ];
        for (what, request) in bad {
            assert!(matches!(try_classify(request, false), Err(Unreadable::Ambiguous(..))), "{what}");
        }
        for list in ["connection", "trailer"] {
            assert!(matches!(try_classify(get().header(list, "Fencing-Epoch"), true), Err(Unreadable::Stamp(_))));
        }
        let many = (0..101).fold(Request::builder().uri("/"), |request, n| request.header(format!("x-{n}"), "1"));
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        assert!(matches!(try_classify(many, true), Err(Unreadable::Ambiguous(s, _)) if s == status));
    }

    #[test]
    fn what_means_one_thing_is_read() {
        let good: Vec<(http::request::Builder, Option<&str>)> = vec![
            (Request::builder().uri("http://A:80/a?b").header("host", "a"), Some("a")),
            (Request::builder().uri("/a").version(Version::HTTP_10), None),
            (Request::builder().uri("http://a/a").version(Version::HTTP_2), Some("a")),
            (Request::builder().method("OPTIONS").uri("*").header("host", "a"), Some("a")),
            (Request::builder().uri("/").header("host", "a").header("transfer-encoding", "Chunked"), Some("a")),
        ];
        for (request, host) in good {
            let seen = try_classify(request, false).expect("readable");
            assert_eq!(seen.host.as_ref().map(|host| host.to_str().expect("text")), host);
        }
    }

    #[test]
    fn a_target_is_what_the_next_hop_sees() {
        for (uri, target) in [
            ("/a?b", "/a?b"),
            ("/a?", "/a?"),
            ("/a?b?c", "/a?b?c"),
            ("http://a/b?c", "/b?c"),
            ("http://a", "/"),
            ("http://a?b", "/?b"),
            ("http://a?", "/?"),
        ] {
            let seen = try_classify(Request::builder().uri(uri).header("host", "a"), true).expect("readable");
            assert_eq!((seen.facts().target, seen.target().as_str()), (target, target), "{uri}");
            assert_eq!(seen.facts().path, target.split('?').next().expect("a path"));
        }
    }

    #[test]
    fn an_upgrade_is_one_only_when_it_can_be_granted() {
        let ask = |connection: &'static str, upgrade: &'static str| {
            Request::builder().uri("/").header("host", "a").header("connection", connection).header("upgrade", upgrade)
        };
        assert!(try_classify(ask("keep-alive, Upgrade", "websocket"), true).expect("readable").upgrade);
        assert!(!try_classify(ask("keep-alive", "websocket"), true).expect("readable").upgrade);
        assert!(!try_classify(ask("Upgrade, HTTP2-Settings", "h2c"), true).expect("readable").upgrade);
        assert!(!try_classify(ask("upgrade", "a").version(Version::HTTP_10), true).expect("readable").upgrade);
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let request = Request::builder().uri("/").header("host", "a").header("content-type", kind);
            assert_eq!(try_classify(request, true).expect("readable").grpc, grpc, "{kind}");
        }
    }
}
