//! Values that are written as text in a form of their own: each is checked where it stands, with the same words
//! whether it comes from the file or from a flag.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::problem::suggestion;
use super::resolved::AuditOutput;
use super::units::{self, Origin, Unfit};
use super::{raw, resolved};
use crate::fence;

/// A form of text.
pub trait Form {
    /// What it reads into.
    type Value: Clone;
    /// Its name, the schema's `x-form` (`format` has meanings of its own: its durations are ISO 8601).
    const NAME: &'static str;
    /// What is wanted, for messages: "a duration such as 5s".
    const WANTED: &'static str;
    /// For editors; [`Form::read`] decides.
    const PATTERN: Option<&'static str> = None;
    /// Whether a number without quotes will do.
    const NUMBERS: bool = false;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    fn read(text: &str) -> Result<Self::Value, Unfit>;
}

/// A text of some form, read.
#[derive(Clone)]
pub struct Written<F: Form> {
    text: Cow<'static, str>,
    /// What it says.
    pub value: F::Value,
}

impl<F: Form> Written<F> {
    /// A default. The test of the defaults shows that each fits.
    pub(super) fn default_of(text: &'static str) -> Written<F> {
        let value = F::read(text).unwrap_or_else(|unfit| unreachable!("the default '{text}' {unfit}"));
        Written { text: text.into(), value }
    }
}

impl<F: Form> fmt::Debug for Written<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<F: Form> Serialize for Written<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(u64),
}

impl<'de, F: Form> Deserialize<'de> for Written<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written<F>, D::Error> {
        let text = match TextOrNumber::deserialize(deserializer)? {
            TextOrNumber::Text(text) => text,
            TextOrNumber::Number(number) => number.to_string(),
        };
        let value = F::read(&text)
            .map_err(|unfit| D::Error::custom(format!("'{}' {unfit}", units::without_password(&text))))?;
        Ok(Written { text: text.into(), value })
    }
}

impl<F: Form> JsonSchema for Written<F> {
    fn schema_name() -> Cow<'static, str> {
        F::NAME.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string", "x-form": F::NAME });
        if F::NUMBERS {
            schema.insert("type".into(), serde_json::json!(["string", "integer"]));
        }
        if let Some(pattern) = F::PATTERN {
            schema.insert("pattern".into(), pattern.into());
        }
        schema
    }
}

/// A form as the check of the tree sees it, found by its name.
pub(super) struct Known {
    pub(super) wanted: &'static str,
    pub(super) read: fn(&str) -> Result<(), Unfit>,
}

macro_rules! forms {
    ($($(#[$doc:meta])* $form:ident -> $value:ty, $name:literal, $wanted:literal, $pattern:expr, $numbers:literal, $read:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub enum $form {}

            impl Form for $form {
                type Value = $value;
                const NAME: &'static str = $name;
                const WANTED: &'static str = $wanted;
                const PATTERN: Option<&'static str> = $pattern;
                const NUMBERS: bool = $numbers;

                fn read(text: &str) -> Result<$value, Unfit> {
                    let read: fn(&str) -> Result<$value, Unfit> = $read;
                    read(text)
                }
            }
        )*

        /// The form of that name.
        pub(super) fn known(name: &str) -> Option<Known> {
            match name {
                $($name => Some(Known {
                    wanted: $wanted,
                    read: |text| <$form as Form>::read(text).map(drop),
                }),)*
                _ => None,
            }
        }

        #[cfg(test)]
        pub(super) const NAMES: &[&str] = &[$($name),*];
    };
}

const SPAN: Option<&str> = Some("^[0-9]+(ms|s|m|h)$");
const WORD: Option<&str> = Some("^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$");

forms! {
    /// A time that may be none at all.
    Span -> Duration, "duration", "a duration such as 250ms, 5s, 2m or 1h", SPAN, false, units::duration;
    /// A time that is longer than none.
    Wait -> Duration, "duration above 0", "a duration such as 250ms, 5s, 2m or 1h", SPAN, false, wait;
    /// Bytes.
    Size -> usize, "size", "a size such as 1024, 64KiB or 16MiB", Some("^[0-9]+(KiB|MiB|GiB)?$"), true, units::size;
    /// Where to listen.
    Listen -> SocketAddr, "listen address", "an address such as 127.0.0.1:8080 or :8080", Some("^.*:[0-9]{1,5}$"), false, units::listen;
    /// Where requests go.
    Upstream -> UpstreamAt, "upstream URL", "a URL such as http://127.0.0.1:9000", Some("^((https?|tcp|tls|postgres|rediss?)://[^/?#@]+/?|unix:/.+)$"), false, upstream;
    /// Where others reach a listener.
    Advertised -> Origin, "address", "a URL such as http://10.0.0.7:8081", Some("^(https?|tcp|tls|postgres|rediss?)://[^/?#@]+/?$"), false, units::origin_of_any;
    /// Addresses of a network.
    Network -> resolved::Network, "network", "an address or a network such as 10.0.0.0/8", Some("^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"), false, network;
    /// The name of a user of a database.
    User -> String, "user", "a user's name", Some("^[^\\x00]{1,63}$"), false, user;
    /// Where a listener listens.
    ListenAt -> resolved::ListenAt, "listen place", "an address such as 127.0.0.1:8080 or :8080", Some("^(.*:[0-9]{1,5}|unix:/.+)$"), false, listen_at;
    /// The mode of a file.
    Mode8 -> u32, "file mode", "a mode in octal such as 0660", Some("^0?[0-7]{3}$"), true, mode;
    /// A name of a certificate.
    San -> resolved::San, "certificate name", "a DNS name or a URI such as spiffe://prod/orders-a", Some("^[!-~]+$"), false, san;
    /// The name of a server.
    ServerName -> String, "server name", "a DNS name or an IP address", Some("^[A-Za-z0-9._:-]+$"), false, server_name;
    /// An etcd member.
    Endpoint -> Origin, "endpoint URL", "a URL such as http://127.0.0.1:2379", Some("^https?://[^/?#@]+/?$"), false, units::origin;
    /// A writer's id.
    Id -> fence::WriterId, "id", "an id such as orders-a", WORD, false, id;
    /// The name of a key.
    KeyId -> fence::KeyId, "key id", "a key id such as k1", Some("^[A-Za-z0-9._-]{1,32}$"), false, key_id;
    /// The name of a listener or a target.
    Name -> String, "name", "a name such as orders-guard", WORD, false, name;
    /// A resource's name.
    Resource -> fence::Resource, "resource", "a resource such as orders or orders/7",
        Some("^[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62}){0,3}$"), false, resource;
    /// The name of an HTTP field.
    FieldName -> String, "field name", "the name of an HTTP field", Some("^[A-Za-z0-9!#$%&'*+.^`|~-]+$"), false, field_name;
    /// What every key in the coordinator begins with.
    Prefix -> String, "prefix", "a prefix such as /epochgate/v1/", Some("^/"), false, prefix;
    /// A file or a folder.
    Path -> std::path::PathBuf, "path", "a path", Some("^.+$"), false, path;
    /// Where the audit log goes.
    Output -> AuditOutput, "output", "stdout, stderr or a path", Some("^.+$"), false, output;
    /// How many worker threads.
    Workers -> raw::Workers, "workers", "auto, or a number from 1 to 1024", Some("^(auto|[1-9][0-9]{0,3})$"), true, workers;
}

fn wait(text: &str) -> Result<Duration, Unfit> {
    let wait = units::duration(text)?;
    if wait.is_zero() { Err(Unfit::new("is no time at all", "write a longer duration")) } else { Ok(wait) }
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAt {
    /// A host and a port.
    Origin(Origin),
    /// A unix socket.
    Unix(std::path::PathBuf),
}

fn upstream(text: &str) -> Result<UpstreamAt, Unfit> {
    match unix(text) {
        Some(path) => path.map(UpstreamAt::Unix),
        None => units::origin_of_any(text).map(UpstreamAt::Origin),
    }
}

fn network(text: &str) -> Result<resolved::Network, Unfit> {
    let help = "write an address, or a network: 10.0.0.7, 10.0.0.0/8, fd00::/8";
    resolved::Network::parse(text).ok_or_else(|| Unfit::new("is no network", help))
}

fn user(text: &str) -> Result<String, Unfit> {
    if (1..=63).contains(&text.len()) && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err(Unfit::new("is no user's name", "write 1 to 63 bytes"))
    }
}

fn listen_at(text: &str) -> Result<resolved::ListenAt, Unfit> {
    match unix(text) {
        Some(path) => path.map(resolved::ListenAt::Unix),
        None => units::listen(text).map(resolved::ListenAt::Tcp),
    }
}

/// The longest path that a unix socket can have on Linux, less the room for a name in the making.
const LONGEST_SOCKET: usize = 96;

fn unix(text: &str) -> Option<Result<std::path::PathBuf, Unfit>> {
    let path = text.strip_prefix("unix:")?;
    let fits = path.starts_with('/') && path.len() <= LONGEST_SOCKET && !path.ends_with('/') && !path.contains('\0');
    let help =
        format!("write unix: and a whole path of at most {LONGEST_SOCKET} bytes: unix:/run/epochgate/orders.sock");
    Some(if fits { Ok(path.into()) } else { Err(Unfit::new("is no path of a socket", help)) })
}

fn mode(text: &str) -> Result<u32, Unfit> {
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit()) => Ok(mode),
        _ => Err(Unfit::new("is no mode", "write three octal digits: \"0660\"")),
    }
}

fn san(text: &str) -> Result<resolved::San, Unfit> {
    const HOW: &str = "write {writer}, orders-a.example, or spiffe://prod/ns/orders/sa/{writer}";
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Unfit::new("is no name of a certificate", HOW));
    }
    if text.starts_with("*.") {
        return Err(Unfit::new("is a wildcard", "a wildcard says nothing of who it is: name the writer's own name"));
    }
    let parts: Vec<&str> = text.split("{writer}").collect();
    if parts.len() > 2 || parts.iter().any(|part| part.contains(['{', '}'])) {
        return Err(Unfit::new("has a brace that is not the one {writer}", HOW));
    }
    Ok(resolved::San::new(text.contains("://"), parts[0], parts.get(1).copied()))
}

fn server_name(text: &str) -> Result<String, Unfit> {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Unfit::new("is neither a DNS name nor an IP address", "write the name that the certificate has")),
    }
}

fn id(text: &str) -> Result<fence::WriterId, Unfit> {
    text.parse().map_err(|error: fence::term::NotAWriterId| Unfit::new("is no id", error.to_string()))
}

fn key_id(text: &str) -> Result<fence::KeyId, Unfit> {
    text.parse().map_err(|error: fence::signature::NotAKeyId| Unfit::new("is no key id", error.to_string()))
}

fn name(text: &str) -> Result<String, Unfit> {
    let help = "a name is 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit";
    id(text).map(|id| id.to_string()).map_err(|_| Unfit::new("is no name", help))
}

fn resource(text: &str) -> Result<fence::Resource, Unfit> {
    text.parse().map_err(|error: fence::resource::NotAResource| Unfit::new("is no resource", error.to_string()))
}

/// Fields that mean something else, to HTTP or to epochgate itself.
const TAKEN: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "fencing-expect",
    "fencing-refused",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

fn field_name(text: &str) -> Result<String, Unfit> {
    if text.contains('_') {
        return Err(Unfit::new("has a '_', which many servers read as '-'", "write '-'"));
    }
    let name = http::HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Unfit::new("is no field name", "write letters, digits and '-': Fencing-Epoch"))?;
    if TAKEN.contains(&name.as_str()) {
        return Err(Unfit::new("has a meaning already", "choose a name of your own, or keep Fencing-Epoch"));
    }
    Ok(name.as_str().to_owned())
}

fn prefix(text: &str) -> Result<String, Unfit> {
    let plain = |b: u8| b.is_ascii_graphic();
    if !text.starts_with('/') {
        return Err(Unfit::new("does not begin with '/'", format!("write /{text}")));
    }
    if text.len() > 256 || !text.bytes().all(plain) || text.contains("//") {
        return Err(Unfit::new(
            "is no prefix",
            "write printable ASCII without blanks or empty parts, at most 256 characters",
        ));
    }
    Ok(if text.ends_with('/') { text.to_owned() } else { format!("{text}/") })
}

fn path(text: &str) -> Result<std::path::PathBuf, Unfit> {
    if text.is_empty() || text.contains('\0') { Err(Unfit::new("is no path", "write a path")) } else { Ok(text.into()) }
}

fn output(text: &str) -> Result<AuditOutput, Unfit> {
    let near = suggestion(text, ["stdout", "stderr"].into_iter());
    match text {
        "stdout" => Ok(AuditOutput::Stdout),
        "stderr" => Ok(AuditOutput::Stderr),
        _ if !near.is_empty() => Err(Unfit::new(format!("is no output{near}"), "write ./ before the name of a file")),
        _ => path(text).map(AuditOutput::File),
    }
}

fn workers(text: &str) -> Result<raw::Workers, Unfit> {
    if text == "auto" {
        return Ok(raw::Workers::Auto);
    }
    match text.parse() {
        Ok(workers @ 1..=1024) => Ok(raw::Workers::Number(workers)),
        _ => Err(Unfit::new("is no number of workers", "write auto, or a number from 1 to 1024")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_known() {
        for (at, name) in NAMES.iter().enumerate() {
            assert!(!NAMES[..at].contains(name), "{name}");
            assert!(known(name).is_some(), "{name}");
        }
    }

    #[test]
    fn each_form_tells_good_from_bad() {
        for (name, good, bad) in [
            ("duration", vec!["0s"], vec!["0"]),
            ("duration above 0", vec!["1ms"], vec!["0s", "0ms"]),
            (
                "upstream URL",
                vec!["http://a", "https://a", "unix:/a", "redis://a"],
                vec!["ftp://a", "tls://a", "a", "unix:a", "unix:/a/"],
            ),
            ("address", vec!["tcp://db:5432", "https://a", "postgres://a"], vec!["tcp://a", "a:1", "unix:/a"]),
            (
                "network",
                vec!["10.0.0.0/8", "10.1.2.3", "::1", "fd00::/8", "0.0.0.0/0"],
                vec!["10.0.0.0/33", "a/8", "10.0.0.1/8", "/8", ""],
            ),
            ("user", vec!["epochgate_guard"], vec!["", "a\0b"]),
            ("listen place", vec![":1", "unix:/run/a.sock"], vec!["1", "unix:", "unix:a"]),
            ("file mode", vec!["0660", "600"], vec!["0", "0888", "rw", "00660", "+60"]),
            (
                "certificate name",
                vec!["{writer}", "a.b", "spiffe://a/{writer}"],
                vec!["", "*.a", "{w}", "{writer}{writer}", "a b"],
            ),
            ("server name", vec!["db", "10.0.0.1", "::1"], vec!["", "a b", "a:80"]),
            ("endpoint URL", vec!["http://a", "https://a"], vec!["a:2379"]),
            ("id", vec!["orders-a"], vec!["", "a/b"]),
            ("key id", vec!["k1", "2026-11.a_b", "-"], vec!["", "k 1", "k/1", "a-name-of-more-than-thirty-two-byt"]),
            ("name", vec!["orders-guard"], vec!["", "a b"]),
            ("resource", vec!["orders/7"], vec!["Orders", "orders/{0..7}"]),
            ("field name", vec!["Fencing-Epoch"], vec!["", "a_b", "a b", "Host", "fencing-refused"]),
            ("prefix", vec!["/a", "/", "/a/b/"], vec!["a", "", "/a//b", "/ä"]),
            ("path", vec!["x"], vec!["", "a\0b"]),
            ("output", vec!["stdout", "stderr", "./out", "/var/log/audit"], vec!["", "stdot"]),
            ("workers", vec!["auto", "1", "1024"], vec!["0", "1025", "many", ""]),
        ] {
            let form = known(name).expect(name);
            for text in good {
                assert_eq!((form.read)(text), Ok(()), "{name}: {text}");
            }
            for text in bad {
                assert!((form.read)(text).is_err(), "{name}: {text}");
            }
        }
        assert_eq!(prefix("/a"), Ok("/a/".into()));
        assert_eq!(field_name("Fencing-Epoch"), Ok("fencing-epoch".into()));
    }
}
