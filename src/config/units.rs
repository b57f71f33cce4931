//! How people write durations, sizes, addresses and URLs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Why a text is not what was wanted, as the rest of a sentence that begins with the text: `'5' has no unit`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unfit {
    /// What is wrong with it.
    pub what: String,
    /// What to write instead.
    pub help: String,
}

impl Unfit {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Unfit {
        Unfit { what: what.into(), help: help.into() }
    }
}

/// Nothing that is waited for is longer: a larger number is a slip, and sums of durations never overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads a duration: a whole number and `ms`, `s`, `m` or `h`.
///
/// # Errors
/// Without a unit, with another unit, with a fraction, or above 30 days.
pub fn duration(text: &str) -> Result<Duration, Unfit> {
    const HOW: &str = "write a whole number with its unit: 250ms, 5s, 2m or 1h";
    let (number, unit) = split_number(text);
    if number.is_empty() {
        return Err(Unfit::new("is no duration", HOW));
    }
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => {
            return Err(Unfit::new(
                "has no unit",
                format!("write {number}s for seconds or {number}ms for milliseconds"),
            ));
        }
        _ if unit.starts_with('.') => return Err(Unfit::new("is not a whole number", "write 1500ms instead of 1.5s")),
        _ => return Err(Unfit::new("has no unit that is known", HOW)),
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)).map(Duration::from_millis);
    total.filter(|total| *total <= LONGEST).ok_or_else(|| Unfit::new("is longer than 30 days", "write 720h or less"))
}

/// Writes a duration for people: `250ms`, `5s`, `1.667s`.
pub fn show(duration: Duration) -> String {
    let millis = (duration.as_micros() + 500) / 1000;
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let fraction = format!("{:03}", millis % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}s", millis / 1000)
}

/// Reads a size in bytes: a whole number, alone or with `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// With another unit, with a fraction, or above 1 TiB.
pub fn size(text: &str) -> Result<usize, Unfit> {
    const HOW: &str = "write bytes as a whole number, or with KiB, MiB or GiB: 1024, 64KiB, 16MiB";
    const LARGEST: u64 = 1 << 40;
    let (number, unit) = split_number(text);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(Unfit::new("is no size", HOW)),
    };
    if number.is_empty() {
        return Err(Unfit::new("is no size", HOW));
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes <= LARGEST)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| Unfit::new("is more than 1 TiB", HOW))
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Reads an address to listen at: `127.0.0.1:8080`, `[::1]:8080`, or `:8080` for all IPv4 addresses of the host.
/// Port 0 lets the system choose.
///
/// # Errors
/// For a host name (which of its addresses would it be?), and without a port.
pub fn listen(text: &str) -> Result<SocketAddr, Unfit> {
    const HOW: &str = "write an IP address and a port: 127.0.0.1:8080, [::1]:8080, or :8080 for all interfaces";
    if let Some(port) = text.strip_prefix(':')
        && let Ok(port) = plain_port(port)
    {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let what = match text.rsplit_once(':') {
        None => "has no port",
        Some((_, port)) if plain_port(port).is_err() => "has no port from 0 to 65535",
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => "is an IPv6 address without brackets",
        Some(_) => "is no IP address",
    };
    Err(Unfit::new(what, HOW))
}

fn plain_port(text: &str) -> Result<u16, std::num::ParseIntError> {
    // `parse` alone takes "+80".
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse() } else { "x".parse() }
}

/// What a URL without path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The URL as written, less a final `/`.
    pub url: String,
    /// What it begins with: `http`.
    pub scheme: &'static str,
    /// Whether the scheme alone says that it has TLS: `https`.
    pub secure: bool,
    /// Host and port, the port filled in where it was left out; an IPv6 address stands in brackets.
    pub authority: String,
}

/// A scheme, whether it has TLS, and its port where a URL names none.
type Scheme = (&'static str, bool, Option<u16>);

/// The schemes of HTTP.
const WEB: &[Scheme] = &[("http", false, Some(80)), ("https", true, Some(443))];

/// The schemes of everything that a listener can speak to.
const ALL: &[Scheme] = &[
    ("http", false, Some(80)),
    ("https", true, Some(443)),
    ("tcp", false, None),
    ("tls", true, None),
    ("postgres", false, Some(5432)),
    ("redis", false, Some(6379)),
    ("rediss", true, Some(6379)),
];

/// Reads `http://host[:port]` or `https://host[:port]`.
///
/// # Errors
/// For any other scheme, and for a path, a query, or a user.
pub fn origin(text: &str) -> Result<Origin, Unfit> {
    origin_of(text, WEB)
}

/// Reads the same, and `tcp://`, `tls://`, `postgres://`, `redis://` and `rediss://`.
///
/// # Errors
/// As [`origin`]; and for `tcp` and `tls` without a port.
pub fn origin_of_any(text: &str) -> Result<Origin, Unfit> {
    origin_of(text, ALL)
}

fn origin_of(text: &str, schemes: &[Scheme]) -> Result<Origin, Unfit> {
    const HOW: &str = "write scheme, host and port: http://127.0.0.1:9000";
    // Before anything is said about the rest of it, which may be a password.
    if text.contains('@') {
        return Err(Unfit::new("has a user or password in it", HOW));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Unfit::new("has no scheme", format!("write http://{}", text.trim_start_matches('/'))));
    };
    let Some((scheme, secure, usual_port)) = schemes.iter().find(|(known, ..)| *known == scheme).copied() else {
        let known: Vec<String> = schemes.iter().map(|(known, ..)| format!("{known}://")).collect();
        return Err(Unfit::new(format!("has the scheme '{scheme}'"), format!("write {}", known.join(" or "))));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['?', '#']) {
        return Err(Unfit::new("has a query or fragment", HOW));
    }
    if rest.contains('/') {
        return Err(Unfit::new("has a path", "paths are forwarded as they come: write scheme, host and port only"));
    }
    let (host, port) = split_port(rest);
    let port = match port {
        None => usual_port.ok_or_else(|| Unfit::new("has no port", format!("write {scheme}://{rest}:3306")))?,
        Some(port) => match plain_port(port) {
            Ok(port) if port > 0 => port,
            _ => return Err(Unfit::new(format!("has the port '{port}'"), "write a port from 1 to 65535")),
        },
    };
    if !is_host(host) {
        let what = if host.is_empty() { "has no host".into() } else { format!("has the host '{host}'") };
        return Err(Unfit::new(what, HOW));
    }
    Ok(Origin { url: format!("{scheme}://{rest}"), scheme, secure, authority: format!("{host}:{port}") })
}

/// A text for a message: without what stands before an `@`, which in a URL is a user and a password.
pub fn without_password(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
    let plain = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { format!("{scheme}://…@{after}") } else { format!("…@{after}") }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    // A name of digits and dots is an IPv4 address or a slip, never a name.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    matches!(host.len(), 1..=253) && host.bytes().all(plain) && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_url_repeats_no_password() {
        for (text, said) in [
            ("http://root:hunter2@a:1", "http://…@a:1"),
            ("root:hunter2@a:1", "…@a:1"),
            ("http//root:hunter2@a", "…@a"),
            ("http://root:hun@ter2@a", "http://…@a"),
            ("hunter2://x@a", "hunter2://…@a"),
            ("hun/ter2://x@a", "…@a"),
            ("http://a:1", "http://a:1"),
        ] {
            assert_eq!(without_password(text), said);
            let refused = origin(text).err().map(|unfit| unfit.to_string()).unwrap_or_default();
            assert!(!refused.contains("hun"), "{refused}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in
            [("250ms", 250), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0), ("720h", 2_592_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "1.5s", "-1s", "+1s", "5 s", "5sec", "1d", "721h", "99999999999999999999s", "٥s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("5").expect_err("no unit").help, "write 5s for seconds or 5ms for milliseconds");
    }

    #[test]
    fn durations_are_shown_short() {
        for (millis, text) in
            [(250, "250ms"), (0, "0ms"), (5000, "5s"), (4850, "4.85s"), (90_000, "90s"), (1667, "1.667s")]
        {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in
            [("1024", 1024), ("64KiB", 65_536), ("16MiB", 16_777_216), ("1GiB", 1 << 30), ("1024GiB", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "64KB", "64k", "1.5MiB", "-1", "1025GiB", "99999999999999999999"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_numbers() {
        for (text, address) in [
            (":8080", "0.0.0.0:8080"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
        ] {
            assert_eq!(listen(text), Ok(address.parse().expect("an address")), "{text}");
        }
        for text in
            ["", ":", "8080", "127.0.0.1", "localhost:80", ":65536", ":+80", "::1:80", "[::1]", "1.2.3:80", "a:b"]
        {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_are_origins() {
        for (text, authority) in [
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://db-guard", "db-guard:80"),
            ("https://etcd.example:2379/", "etcd.example:2379"),
            ("http://[::1]:90", "[::1]:90"),
            ("http://[::1]", "[::1]:80"),
            ("http://my_service.ns:1", "my_service.ns:1"),
        ] {
            assert_eq!(origin(text).expect(text).authority, authority);
        }
        for text in [
            "",
            "db:9000",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:65536",
            "http://a:",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://u:p@a",
            "http://a b",
            "http://1.2.3",
            "http://[::1",
            "http://::1",
            "http://a\n",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
