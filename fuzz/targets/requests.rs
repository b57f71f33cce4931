//! Requests as a role sees them, and heads as they go on.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::text;
use crate::fence::Resource;
use crate::protocol::http::head::{Keep, Names};
use crate::protocol::{Binding, Facts, Kind};
use crate::roles::field::tests::Head;
use crate::rules::{Rule, RuleText, Rules, not_normal};

fn resources() -> Vec<Resource> {
    ["orders", "orders/7", "orders/x-1", "stock"].iter().map(|name| name.parse().expect("a resource")).collect()
}

/// Rules that look at everything that a rule can look at.
fn rules(more: Option<Rule>) -> Rules {
    let rule = |text: RuleText<'_>| Rule::read(&text).expect("a rule");
    let blank = || RuleText {
        methods: &[],
        path: None,
        headers: Vec::new(),
        grpc: None,
        kind: None,
        resource: None,
        pass_unarmed: false,
    };
    let mut all: Vec<Rule> = more.into_iter().collect();
    let methods = ["POST".to_owned()];
    all.extend([
        rule(RuleText { path: Some("/search"), methods: &methods, kind: Some(Kind::Read), ..blank() }),
        rule(RuleText { path: Some("/shards/{shard}/**"), resource: Some("orders/{shard}"), ..blank() }),
        rule(RuleText { headers: vec![("x-shard", "{shard}")], resource: Some("orders/{shard}"), ..blank() }),
        rule(RuleText { grpc: Some("shop.Orders/Get*"), kind: Some(Kind::Read), ..blank() }),
    ]);
    Rules::new(all, Some(&resources()[0]), resources().iter())
}

fn facts<'a>(method: &'a str, path: &'a str, head: &'a Head) -> Facts<'a> {
    let grpc = head.0.iter().any(|(name, value)| name == "content-type" && value.starts_with(b"application/grpc"));
    let peer = "127.0.0.1:1".parse().expect("an address");
    Facts {
        method,
        path,
        target: path,
        fields: head,
        upgrade: false,
        grpc,
        kind: None,
        peer,
        names: None,
        binding: Binding::default(),
    }
}

/// The input: method, path, and a field a line.
#[test]
fn judging() {
    let words = [
        "GET",
        "POST",
        "BREW",
        "/shards/7/a",
        "/search",
        "/shop.Orders/GetOne",
        "x-shard: 7\n",
        "content-type: application/grpc\n",
        "x-http-method-override: DELETE\n",
        "/../",
        "%2e%2e",
        ";a=b",
        "\\",
    ];
    let (rules, listed) = (rules(None), resources());
    crate::fuzz::engine::fuzz("judging", &words, |input| {
        let mut lines = text(input)?.lines();
        let (method, path) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
        let head = Head::of(&fields);
        let why = not_normal(path);
        if why.is_none() {
            assert!(is_plain(path), "{path} is not in normal form");
        }
        let judged = match rules.judge(&facts(method, path, &head)) {
            Err(refusal) => return Some(Err((refusal.reason, why))),
            Ok(judged) => judged,
        };
        assert!(why.is_none(), "{path} was judged although {why:?}");
        let resource = judged.resource.map(|at| &rules.resources()[at]);
        assert!(resource.is_none_or(|resource| listed.contains(resource)));
        assert!(judged.kind == Kind::Read || resource.is_some(), "a write without a resource");
        // What is taken for a read is one by its method, or by a rule that says so.
        let by_rule = path.trim_end_matches('/') == "/search" || path.starts_with("/shop.Orders/Get");
        assert!(judged.kind == Kind::Write || ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method) || by_rule);
        Some(Ok((judged.kind, judged.resource, head.0.len().min(4))))
    });
}

/// The normal form said in another way: what a target's reader could make something else of is not there.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2f", "%5c", "%2e", "%00", "%0a", "%0d", "%7f", "%41", "%7e", "%2d", "%5f", "%30"];
    let dots = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    path == "*"
        || (path.starts_with('/')
            && !path.contains("//")
            && !path.contains('\\')
            && !dots.clone().any(|segment| segment == "." || segment == "..")
            && !encoded.iter().any(|code| lower.contains(code))
            && lower
                .split('%')
                .skip(1)
                .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)))
}

/// The input is a path pattern, a resource template, a gRPC pattern and a header pattern, a line each, then a path.
#[test]
fn rule_texts() {
    let words =
        ["/{a}/**", "/a/{b}", "orders/{b}", "{a}", "shop.Orders/*", "x-shard", "**", "*", "{", "}", "{{", "{0..3}"];
    crate::fuzz::engine::fuzz("rule_texts", &words, |input| {
        let mut lines = text(input)?.lines();
        let mut next = || lines.next().filter(|line| !line.is_empty());
        let (path, resource, grpc, header) = (next(), next(), next(), next());
        let asked = next().unwrap_or("/a/b");
        let headers = header.map(|header| ("x-shard", header)).into_iter().collect();
        let rule = Rule::read(&RuleText {
            methods: &[],
            path,
            headers,
            grpc,
            kind: Some(Kind::Read),
            resource,
            pass_unarmed: false,
        });
        let rule = match rule {
            Ok(rule) => rule,
            Err(bad) => {
                assert!(!bad.is_empty());
                return Some(Err(bad
                    .iter()
                    .map(|bad| bad.what.split('\'').step_by(2).collect::<String>())
                    .collect::<Vec<_>>()));
            }
        };
        let rules = rules(Some(rule));
        let head = Head::of(&[("x-shard", "7")]);
        let judged = rules.judge(&facts("PUT", asked, &head));
        Some(Ok((
            judged.map(|judged| (judged.kind, judged.resource)).map_err(|refusal| refusal.reason),
            rules.resources().len(),
        )))
    });
}

/// A head goes on: the stamp is ours alone, nothing that is between two neighbours travels, and one length at most.
#[test]
fn heads() {
    let words = [
        "connection: ",
        "close, ",
        "x-a",
        "transfer-encoding: chunked\n",
        "content-length: 5\n",
        "te: trailers\n",
        "upgrade: websocket\n",
        "fencing-epoch: 1\n",
        "fencing_epoch: 1\n",
        "fencing-expect: 1\n",
        "fencing-refused: x\n",
        "x-forwarded-for: 1.2.3.4\n",
        "proxy-authorization: x\n",
        "keep-alive: 5\n",
        "http2-settings: x\n",
        "host: a\n",
        "expect: 100-continue\n",
        "trailer: x-t\n",
    ];
    let names = Names::new(HeaderName::from_static("fencing-epoch"));
    crate::fuzz::engine::fuzz("heads", &words, |input| {
        let mut headers = HeaderMap::new();
        for line in input.split(|byte| *byte == b'\n') {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
        }
        let peer = "10.0.0.7";
        let mut sizes = Vec::new();
        for keep in [Keep::default(), Keep { trailers: true, upgrade: true, options: true }] {
            for stamp in [None, Some(HeaderValue::from_static("42"))] {
                let to = names.to_upstream(&headers, peer, stamp.as_ref(), keep);
                let stamps: Vec<_> =
                    to.iter().filter(|(name, _)| names.is_stamp(name)).map(|(_, value)| value.clone()).collect();
                assert_eq!(stamps, Vec::from_iter(stamp), "{to:?}");
                let gone = [
                    "fencing-expect",
                    "fencing_expect",
                    "keep-alive",
                    "transfer-encoding",
                    "http2-settings",
                    "host",
                    "expect",
                ];
                assert!(gone.iter().all(|name| !to.contains_key(*name)), "{to:?}");
                assert!(!to.keys().any(|name| name.as_str().starts_with("proxy-")), "{to:?}");
                assert!(keep.upgrade || !to.contains_key(header::UPGRADE));
                assert_eq!(to.get_all("x-forwarded-for").iter().count(), 1);
                sizes.push(to.len());
            }
        }
        let mut answer = headers.clone();
        names.strip_answer(&mut answer, false, true);
        assert!(!answer.contains_key("fencing-refused") && !answer.contains_key(header::TRANSFER_ENCODING));
        assert!(!headers.contains_key(header::TRANSFER_ENCODING) || !answer.contains_key(header::CONTENT_LENGTH));
        let mut trailers = headers.clone();
        names.strip_trailers(&mut trailers);
        assert!(trailers.keys().all(|name| !name.as_str().starts_with("fencing-")
            && *name != header::CONTENT_LENGTH
            && *name != header::HOST));
        Some((sizes, answer.len(), trailers.len()))
    });
}
