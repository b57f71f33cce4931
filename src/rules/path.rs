//! Paths that can be told apart: the normal form, and patterns over it.

use std::borrow::Cow;

use super::rule::{BadRule, Bound, Variables};

/// Why a path is not in normal form: two texts may then name the same thing at the target, and only one of them may
/// match a rule. `None` where it is.
///
/// Refused are dot segments (also with parameters, `..;x`), empty segments (a final `/` is none), and an encoded slash,
/// backslash, dot, unreserved or control character. `*`, the target of `OPTIONS *`, is in normal form.
pub fn not_normal(path: &str) -> Option<&'static str> {
    if path == "*" {
        return None;
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Some("it does not begin with '/'");
    };
    if rest.contains('\\') {
        return Some("it has a backslash");
    }
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Some("it has an empty segment");
        }
        // Some servers take parameters off before they resolve dot segments.
        if matches!(segment.split(';').next(), Some("." | "..")) {
            return Some("it has a dot segment");
        }
        if let Some(why) = not_normally_encoded(segment.as_bytes()) {
            return Some(why);
        }
    }
    None
}

fn not_normally_encoded(segment: &[u8]) -> Option<&'static str> {
    let mut rest = segment;
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        rest = &rest[at..];
        match decoded(rest) {
            None => return Some("it has a '%' without two hexadecimal digits"),
            Some(b'/') => return Some("it has an encoded slash"),
            Some(b'\\') => return Some("it has an encoded backslash"),
            Some(b'.') => return Some("it has an encoded dot"),
            Some(byte) if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) => {
                return Some("it has an encoded character that needs no encoding");
            }
            Some(byte) if byte.is_ascii_control() => return Some("it has an encoded control character"),
            Some(_) => rest = &rest[3..],
        }
    }
    None
}

/// The byte that `%XX` at the start of `text` stands for.
fn decoded(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    Some(digit(1)? * 16 + digit(2)?)
}

/// A segment with its encoded characters decoded, so that a rule sees what the target will see.
fn plain(segment: &str) -> Cow<'_, [u8]> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment.as_bytes());
    }
    let (mut rest, mut plain) = (segment.as_bytes(), Vec::with_capacity(segment.len()));
    while let Some(first) = rest.first() {
        let (byte, length) = match decoded(rest) {
            Some(byte) if *first == b'%' => (byte, 3),
            _ => (*first, 1),
        };
        plain.push(byte);
        rest = &rest[length..];
    }
    Cow::Owned(plain)
}

/// Whether a text can be the value of a variable: `[A-Za-z0-9._-]{1,64}`.
pub(super) fn is_value(text: &str) -> bool {
    matches!(text.len(), 1..=64) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A pattern of paths: literal segments, variables, and a free rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathPattern {
    segments: Vec<Segment>,
    /// Whether more segments may follow.
    rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Variable(usize),
}

impl PathPattern {
    /// Reads `/shards/{shard}/**`.
    pub(super) fn read(text: &str, variables: &mut Variables) -> Result<PathPattern, BadRule> {
        let bad = |what: String, help: &str| Err(BadRule::new("path", what, help));
        let Some(inner) = text.strip_prefix('/') else {
            return bad(format!("'{text}' does not begin with '/'"), "write /search or /shards/{shard}/**");
        };
        if inner.contains(['?', '#']) {
            return bad(format!("'{text}' has a query"), "a rule looks at the path only: take the query out");
        }
        if inner.contains(['%', '\\']) || inner.chars().any(char::is_control) {
            return bad(
                format!("'{text}' has an encoded character"),
                "write the character itself: a rule sees the decoded path",
            );
        }
        let mut segments: Vec<&str> = inner.strip_suffix('/').unwrap_or(inner).split('/').collect();
        let rest = segments.last() == Some(&"**");
        if rest {
            segments.pop();
        }
        if inner.is_empty() {
            segments.clear();
        }
        let mut read = Vec::with_capacity(segments.len());
        for segment in segments {
            read.push(match segment {
                "" => return bad(format!("'{text}' has an empty segment"), "take one '/' out"),
                "." | ".." => return bad(format!("'{text}' has a dot segment"), "write the path in normal form"),
                "*" => return bad(format!("'{text}' has a '*'"), "write {name} for one segment, or /** at the end"),
                "**" => return bad(format!("'{text}' has '**' inside"), "/** stands at the end only"),
                _ => match variables.whole(segment, "path")? {
                    Some(variable) => Segment::Variable(variable),
                    None => Segment::Literal(segment.into()),
                },
            });
        }
        Ok(PathPattern { segments: read, rest })
    }

    /// Whether `path`, in normal form, fits; binds what it found.
    pub(super) fn matches<'a>(&self, path: &'a str, bound: &mut Bound<'a>) -> bool {
        let Some(inner) = path.strip_prefix('/') else { return false };
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let mut segments = inner.split('/').filter(|segment| !segment.is_empty());
        for wanted in &self.segments {
            let Some(segment) = segments.next() else { return false };
            match wanted {
                Segment::Literal(literal) if *plain(segment) == *literal.as_bytes() => {}
                Segment::Variable(variable) if is_value(segment) => bound.bind(*variable, Cow::Borrowed(segment)),
                _ => return false,
            }
        }
        self.rest || segments.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_form() {
        for path in [
            "/",
            "*",
            "/a",
            "/a/",
            "/a/b.c",
            "/a..b",
            "/...",
            "/a;x=1",
            "/caf%C3%A9",
            "/a%20b",
            "/a%25b",
            "/~a",
            "/{a}",
        ] {
            assert_eq!(not_normal(path), None, "{path}");
        }
        for path in [
            "",
            "a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/a/..;x/b",
            "/a/.;/b",
            "/a%2Fb",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/%2e%2e/a",
            "/a%2E",
            "/%61",
            "/a%7Eb",
            "/a%2db",
            "/a%5f",
            "/a%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "**",
        ] {
            assert!(not_normal(path).is_some(), "{path}");
        }
    }

    proptest::proptest! {
        /// What is in normal form means the same to a target that decodes it, takes parameters off, and resolves it.
        #[test]
        fn a_normal_path_stays_what_it_is(path in "/([/.%2eEfF5cC;ax~\\\\]|%2[eEfF]|%5[cC]|\\.\\.|%41){0,12}") {
            let segments: Vec<Vec<u8>> = path[1..].split('/').map(|segment| plain(segment).into_owned()).collect();
            let resolved = segments.iter().enumerate().all(|(at, segment)| {
                let bare = segment.split(|b| *b == b';').next().unwrap_or_default();
                let inner = at + 1 < segments.len();
                bare != b"." && bare != b".." && !(segment.is_empty() && inner) && !segment.iter().any(|b| b"/\\".contains(b))
            });
            proptest::prop_assert!(resolved || not_normal(&path).is_some(), "{}", path);
        }
    }

    fn values(pattern: &str, path: &str) -> Option<Vec<String>> {
        let mut variables = Variables::default();
        let pattern = PathPattern::read(pattern, &mut variables).expect(pattern);
        let mut bound = Bound::default();
        pattern.matches(path, &mut bound).then(|| bound.values().map(str::to_owned).collect())
    }

    #[test]
    fn patterns_match_whole_segments() {
        let found = |values: &[&str]| Some(values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        for (pattern, path, expected) in [
            ("/search", "/search", found(&[])),
            ("/search", "/search/", found(&[])),
            ("/search/", "/search", found(&[])),
            ("/search", "/searches", None),
            ("/search", "/search/x", None),
            ("/search", "/", None),
            ("/search", "*", None),
            ("/", "/", found(&[])),
            ("/", "/a", None),
            ("/**", "/", found(&[])),
            ("/**", "/a/b", found(&[])),
            ("/shards/{shard}/**", "/shards/7", found(&["7"])),
            ("/shards/{shard}/**", "/shards/7/a/b", found(&["7"])),
            ("/shards/{shard}/**", "/shards", None),
            ("/shards/{shard}", "/shards/7/a", None),
            ("/{a}/{b}", "/x/y", found(&["x", "y"])),
            ("/{a}", "/x%20y", None),
            ("/{a}", "/x;y", None),
            ("/items:delete", "/items%3Adelete", found(&[])),
            ("/café", "/caf%C3%A9", found(&[])),
            ("/café", "/caf%c3%a9", found(&[])),
        ] {
            assert_eq!(values(pattern, path), expected, "{pattern} {path}");
        }
        assert_eq!(values("/{a}", &format!("/{}", "x".repeat(65))), None);
        assert!(values("/{a}", &format!("/{}", "x".repeat(64))).is_some());
    }

    #[test]
    fn bad_patterns_say_what_to_write() {
        for pattern in [
            "", "search", "//", "/a//b", "/a/../b", "/*", "/a/*/b", "/**/a", "/a?x=1", "/a%20b", "/a\\b", "/a-{x}",
            "/{x}{y}", "/{}", "/{x", "/x}", "/{x}/{x}", "/{X Y}", "/a\u{1}",
        ] {
            assert!(PathPattern::read(pattern, &mut Variables::default()).is_err(), "{pattern}");
        }
    }
}
