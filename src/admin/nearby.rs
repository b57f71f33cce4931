//! Who may change something: somebody on this host, with a tool, on purpose.
//!
//! There is no password. What stands in for it: the peer is this host (loopback, or the unix socket, which only its
//! owner can open), and the request is not one that a browser, a proxy or a service was talked into sending.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use super::problem::Problem;

/// Where a connection to the admin side came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// An address.
    Tcp(SocketAddr),
    /// The unix socket, opened by the user of this process, or by root.
    Socket,
    /// The unix socket, opened by somebody else: its mode was changed.
    OtherUser,
}

/// Fields that say that somebody else sent it on.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "via"];

/// Whether this request may change something.
///
/// # Errors
/// The answer to give.
pub(super) fn check(peer: Peer, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |why: &str| {
        let how = "use the epochgate command, or curl, on this host";
        Err(Problem::forbidden(format!("what changes something is accepted from this host only, and {why}; {how}")))
    };
    match peer {
        Peer::Tcp(address) if !is_loopback(address.ip()) => return refuse("this came from another"),
        Peer::OtherUser => return refuse("this came from another user of it"),
        Peer::Tcp(_) if !asks_for_this_host(uri, headers) => {
            // A page whose name was pointed at 127.0.0.1 after it was loaded (DNS rebinding) names its own host.
            return refuse("this names another in `Host`");
        }
        _ => {}
    }
    if headers.contains_key(header::ORIGIN) {
        return refuse("this came from a web page (`Origin`)");
    }
    if headers.get_all("sec-fetch-site").iter().any(|site| site != "none") {
        return refuse("this came from a web page (`Sec-Fetch-Site`)");
    }
    if FORWARDED.iter().any(|field| headers.contains_key(*field)) {
        return refuse("this came through a proxy");
    }
    if has_body(headers) {
        // What sends requests for others (a webhook) can be told where to, and has something to say: no command has.
        return refuse("this has a body, which no command has");
    }
    Ok(())
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn asks_for_this_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| is_this_host(&host)) && uri.authority().is_none_or(is_this_host)
}

fn is_this_host(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(peer: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let of_a_socket = if peer == "other user" { Peer::OtherUser } else { Peer::Socket };
        let peer = peer.parse().map_or(of_a_socket, Peer::Tcp);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        check(peer, &Uri::from_static("/api/v1/reload"), &map).is_ok()
    }

    #[test]
    fn this_host_and_nobody_else() {
        for host in ["localhost", "LOCALHOST:9464", "127.0.0.1:9464", "127.8.8.8", "[::1]:9464"] {
            assert!(allowed("127.0.0.1:5", &[("host", host)]), "{host}");
        }
        assert!(allowed("[::1]:5", &[("host", "localhost")]));
        assert!(allowed("[::ffff:127.0.0.1]:5", &[("host", "localhost")]));
        assert!(allowed("socket", &[]));
        assert!(allowed("socket", &[("host", "whatever")]));
        assert!(!allowed("other user", &[("host", "localhost")]));
        for peer in ["10.0.0.7:5", "[::ffff:10.0.0.7]:5", "[fe80::1]:5"] {
            assert!(!allowed(peer, &[("host", "localhost")]), "{peer}");
        }
    }

    #[test]
    fn no_rebound_name() {
        for host in [
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "10.0.0.7",
            "127.0.0.1.evil.example",
            "",
            "a b",
            "evil@localhost.example",
        ] {
            assert!(!allowed("127.0.0.1:5", &[("host", host)]), "{host}");
        }
        assert!(!allowed("127.0.0.1:5", &[]));
        assert!(!allowed("127.0.0.1:5", &[("host", "localhost"), ("host", "localhost")]));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().expect("a value"));
        let uri = Uri::from_static("http://evil.example/api/v1/reload");
        assert!(check(Peer::Tcp("127.0.0.1:5".parse().expect("an address")), &uri, &headers).is_err());
    }

    #[test]
    fn nothing_that_says_something_of_its_own() {
        for (name, value) in [("content-length", "2"), ("content-length", "00"), ("transfer-encoding", "chunked")] {
            assert!(!allowed("127.0.0.1:5", &[("host", "localhost"), (name, value)]), "{name}: {value}");
            assert!(!allowed("socket", &[(name, value)]), "{name}: {value}");
        }
        // What curl -d '' sends.
        let empty =
            [("host", "localhost"), ("content-length", "0"), ("content-type", "application/x-www-form-urlencoded")];
        assert!(allowed("127.0.0.1:5", &empty));
    }

    #[test]
    fn no_web_page_and_no_proxy() {
        for (name, value) in [
            ("origin", "null"),
            ("origin", "http://localhost"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "cross-site"),
            ("x-forwarded-for", "10.0.0.7"),
            ("forwarded", "for=10.0.0.7"),
            ("via", "1.1 proxy"),
        ] {
            assert!(!allowed("127.0.0.1:5", &[("host", "localhost"), (name, value)]), "{name}: {value}");
            assert!(!allowed("socket", &[(name, value)]), "{name}: {value}");
        }
        assert!(allowed("127.0.0.1:5", &[("host", "localhost"), ("sec-fetch-site", "none")]));
    }
}
