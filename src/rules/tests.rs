use super::*;
use crate::protocol::{Binding, Fields};

struct Head(Vec<(&'static str, &'static str)>);

impl Fields for Head {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(known, _)| *known == name).for_each(|(_, value)| each(value.as_bytes()));
    }

    fn size(&self) -> usize {
        0
    }
}

struct Request {
    method: &'static str,
    path: &'static str,
    fields: Head,
    upgrade: bool,
    grpc: bool,
}

fn request(method: &'static str, path: &'static str) -> Request {
    Request { method, path, fields: Head(Vec::new()), upgrade: false, grpc: false }
}

impl Request {
    fn with(mut self, name: &'static str, value: &'static str) -> Request {
        self.fields.0.push((name, value));
        self
    }

    fn upgrade(mut self) -> Request {
        self.upgrade = true;
        self
    }

    fn grpc(mut self) -> Request {
        self.grpc = true;
        self
    }

    /// `read orders`, `write orders/7`, `read -`, or the reason of the refusal.
    fn judged(&self, rules: &Rules) -> String {
        let facts = Facts {
            method: self.method,
            path: self.path,
            target: self.path,
            fields: &self.fields,
            upgrade: self.upgrade,
            grpc: self.grpc,
            kind: None,
            peer: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            names: None,
            binding: Binding::default(),
        };
        match rules.judge(&facts) {
            Ok(judged) => {
                let resource = judged.resource.map_or("-", |at| rules.resources()[at].as_str());
                let pass = if judged.pass_unarmed { " pass" } else { "" };
                format!("{} {resource}{pass}", judged.kind.as_str())
            }
            Err(refusal) => refusal.reason.to_string(),
        }
    }
}

fn listed() -> Vec<Resource> {
    ["orders", "orders/0", "orders/1", "orders/7", "other"].iter().map(|name| name.parse().expect("a name")).collect()
}

fn rules(fallback: Option<&str>, texts: &[RuleText<'_>]) -> Rules {
    let rules = texts.iter().map(|text| Rule::read(text).expect("a rule")).collect();
    let fallback = fallback.map(|name| name.parse().expect("a name"));
    Rules::new(rules, fallback.as_ref(), listed().iter())
}

fn methods(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// FAULTS row 29: whatever is not proved a read is a write.
#[test]
fn the_default_is_write() {
    let rules = rules(Some("orders"), &[]);
    for (request, kind) in [
        (request("GET", "/a"), "read"),
        (request("HEAD", "/a"), "read"),
        (request("OPTIONS", "*"), "read"),
        (request("TRACE", "/a"), "read"),
        (request("POST", "/a"), "write"),
        (request("PUT", "/a"), "write"),
        (request("PATCH", "/a"), "write"),
        (request("DELETE", "/a"), "write"),
        (request("CONNECT", "/a"), "write"),
        (request("PROPFIND", "/a"), "write"),
        (request("get", "/a"), "write"),
        (request("Get", "/a"), "write"),
        (request("GET ", "/a"), "write"),
        (request("", "/a"), "write"),
        (request("GET", "/a").upgrade(), "write"),
        (request("GET", "/a").grpc(), "write"),
        (request("POST", "/s.S/Get").grpc(), "write"),
        (request("GET", "/a").with("x-http-method-override", "DELETE"), "write"),
        (request("GET", "/a").with("x-http-method", "GET"), "write"),
        (request("GET", "/a").with("x-method-override", ""), "write"),
        (request("GET", "/a").with("x_http_method_override", "DELETE"), "write"),
        (request("GET", "/a").with("x-http_method", "DELETE"), "write"),
        // No path decides here, so none is refused.
        (request("GET", "/a/../b"), "read"),
    ] {
        assert_eq!(request.judged(&rules), format!("{kind} orders"), "{} {}", request.method, request.path);
    }
}

#[test]
fn the_first_rule_that_states_a_thing_gives_it() {
    let (post, get) = (methods(&["POST"]), methods(&["GET"]));
    let rules = rules(
        Some("other"),
        &[
            RuleText { methods: &post, path: Some("/search"), kind: Some(Kind::Read), ..RuleText::default() },
            RuleText { methods: &get, path: Some("/fire"), kind: Some(Kind::Write), ..RuleText::default() },
            RuleText { path: Some("/shards/{shard}/**"), resource: Some("orders/{shard}"), ..RuleText::default() },
            RuleText { headers: vec![("X-Shard", "{shard}")], resource: Some("orders/{shard}"), ..RuleText::default() },
            RuleText { headers: vec![("x-op", "peek")], kind: Some(Kind::Read), ..RuleText::default() },
            RuleText { path: Some("/shards/{a}/{b}"), kind: Some(Kind::Read), ..RuleText::default() },
        ],
    );
    for (request, expected) in [
        (request("POST", "/search"), "read other"),
        (request("POST", "/search/"), "read other"),
        (request("POST", "/search/x"), "write other"),
        (request("PUT", "/search"), "write other"),
        (request("GET", "/fire"), "write other"),
        (request("GET", "/fire/"), "write other"),
        (request("GET", "/"), "read other"),
        (request("PUT", "/shards/7"), "write orders/7"),
        (request("PUT", "/shards/7/a/b"), "write orders/7"),
        (request("PUT", "/shards/1/a"), "read orders/1"),
        (request("PUT", "/shards/8"), "resource_unknown"),
        (request("GET", "/shards/8"), "resource_unknown"),
        (request("PUT", "/shards/%37"), "path_not_normal"),
        (request("PUT", "/shards/a%20b"), "write other"),
        (request("PUT", "/a").with("x-shard", "0"), "write orders/0"),
        (request("PUT", "/shards/7").with("x-shard", "0"), "write orders/7"),
        (request("PUT", "/a").with("x-shard", "0").with("x-shard", "0"), "write orders/0"),
        (request("PUT", "/a").with("x-shard", "0").with("x-shard", "1"), "resource_unknown"),
        (request("PUT", "/a").with("x-shard", "0/1"), "write other"),
        (request("PUT", "/a").with("x-op", "peek"), "read other"),
        (request("PUT", "/a").with("x-op", "Peek"), "write other"),
        // The method of such a request is not the one that the target will take.
        (request("POST", "/search").with("x-http-method-override", "DELETE"), "write other"),
        // A rule without a method is about every method.
        (request("PUT", "/a").with("x-op", "peek").with("x-http-method", "PUT"), "read other"),
        // Only a gRPC pattern makes a read of a gRPC call.
        (request("POST", "/search").grpc(), "write other"),
        (request("PUT", "/a//b"), "path_not_normal"),
        (request("GET", "/a/../b"), "path_not_normal"),
        (request("GET", "/fire%2Fx"), "path_not_normal"),
        (request("GET", "/a\\b"), "path_not_normal"),
        (request("GET", "a"), "path_not_normal"),
        (request("GET", ""), "path_not_normal"),
    ] {
        assert_eq!(request.judged(&rules), expected, "{} {}", request.method, request.path);
    }
    let names: Vec<_> = rules.resources().iter().map(Resource::as_str).collect();
    assert_eq!(names, ["orders/0", "orders/1", "orders/7", "other"]);
}

#[test]
fn grpc_calls_read_by_their_methods_name_only() {
    let rules = rules(
        Some("orders"),
        &[
            RuleText { grpc: Some("shop.Orders/Get*"), kind: Some(Kind::Read), ..RuleText::default() },
            RuleText {
                grpc: Some("shop.Stock/*"),
                kind: Some(Kind::Read),
                resource: Some("other"),
                ..RuleText::default()
            },
            RuleText { grpc: Some("shop.Cart/Peek"), kind: Some(Kind::Read), ..RuleText::default() },
        ],
    );
    for (request, expected) in [
        (request("POST", "/shop.Orders/GetOrder").grpc(), "read orders"),
        (request("POST", "/shop.Orders/Get").grpc(), "read orders"),
        (request("POST", "/shop.Orders/get").grpc(), "write orders"),
        (request("POST", "/shop.Orders/SetOrder").grpc(), "write orders"),
        (request("POST", "/shop.OrdersX/GetOrder").grpc(), "write orders"),
        (request("POST", "/shop.Orders/Get/Set").grpc(), "write orders"),
        (request("POST", "/shop.Orders/Get/../Set").grpc(), "path_not_normal"),
        (request("POST", "/shop.Orders/Get%53et").grpc(), "path_not_normal"),
        (request("POST", "/shop.Stock/Anything").grpc(), "read other"),
        (request("POST", "/shop.Stock/").grpc(), "write orders"),
        (request("POST", "/shop.Cart/Peek").grpc(), "read orders"),
        (request("POST", "/shop.Cart/PeekAndTake").grpc(), "write orders"),
        // Not a gRPC call, whatever its path.
        (request("POST", "/shop.Orders/GetOrder"), "write orders"),
        (request("PUT", "/shop.Orders/GetOrder").grpc(), "write orders"),
        // Where no call is gRPC, no gRPC pattern decides.
        (request("GET", "/a/../b"), "read orders"),
    ] {
        assert_eq!(request.judged(&rules), expected, "{} {}", request.method, request.path);
    }
}

#[test]
fn a_write_needs_a_resource_and_a_read_does_not() {
    let text =
        RuleText { headers: vec![("x-shard", "{shard}")], resource: Some("orders/{shard}"), ..RuleText::default() };
    let rules = rules(None, &[text]);
    assert_eq!(request("GET", "/").judged(&rules), "read -");
    assert_eq!(request("PUT", "/").judged(&rules), "resource_unknown");
    assert_eq!(request("PUT", "/").with("x-shard", "7").judged(&rules), "write orders/7");
    assert_eq!(request("PUT", "/").with("x-shard", "UP").judged(&rules), "resource_unknown");
    assert_eq!(request("PUT", "/").with("x-shard", "ünknown").judged(&rules), "resource_unknown");
}

#[test]
fn a_rule_may_let_pass_what_is_not_armed() {
    let rules = rules(Some("orders"), &[RuleText { path: Some("/ready"), pass_unarmed: true, ..RuleText::default() }]);
    assert_eq!(request("GET", "/ready").judged(&rules), "read orders pass");
    assert_eq!(request("GET", "/a").judged(&rules), "read orders");
}

proptest::proptest! {
    #[test]
    fn no_rule_and_no_request_makes_it_panic(
        pattern in "[/{}a-c*%.?-]{0,16}",
        template in "[/{}a-c*%.-]{0,16}",
        path in "\\PC{0,16}|/[/a-c%.0-9]{0,16}",
        value in "\\PC{0,8}|[a-c]{1,3}",
    ) {
        let text = RuleText {
            path: Some(&pattern),
            headers: vec![("x-shard", "{c}")],
            kind: Some(Kind::Read),
            resource: Some(&template),
            ..RuleText::default()
        };
        if let Ok(rule) = Rule::read(&text) {
            let rules = Rules::new(vec![rule], None, listed().iter());
            let fields = Owned(value);
            let facts = Facts {
                method: "PUT",
                path: &path,
                target: &path,
                fields: &fields,
                upgrade: false,
                grpc: false,
                kind: None,
                peer: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            names: None,
                binding: Binding::default(),
            };
            let _ = rules.judge(&facts);
        }
    }
}

struct Owned(String);

impl Fields for Owned {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if name == "x-shard" {
            each(self.0.as_bytes());
        }
    }

    fn size(&self) -> usize {
        0
    }
}

#[test]
fn bad_rules_say_everything_that_is_wrong() {
    let lower = methods(&["post", "a b"]);
    let text = RuleText {
        methods: &lower,
        path: Some("x"),
        headers: vec![("a b", "x"), ("x-shard", "")],
        grpc: Some("shop"),
        resource: Some("orders/{shard}"),
        ..RuleText::default()
    };
    let keys: Vec<_> = Rule::read(&text).expect_err("a bad rule").iter().map(|bad| bad.key).collect();
    assert_eq!(keys, ["grpc", "method", "method", "path", "header", "header", "grpc", "resource"]);
    assert_eq!(Rule::read(&RuleText::default()).expect_err("says nothing")[0].what, "the rule says nothing");
}

/// Every spelling is in the list, and nothing else: 2^3, 2^2 and 2^2 of them.
#[test]
fn a_method_override_is_known_in_every_spelling() {
    let normal = ["x-http-method-override", "x-http-method", "x-method-override"];
    let spelt: Vec<String> = normal.iter().flat_map(|name| spellings(name)).collect();
    assert_eq!(spelt.len(), OVERRIDES.len());
    assert!(spelt.iter().all(|name| OVERRIDES.contains(&name.as_str())), "{spelt:?}");
}

/// A name with each `-` as it is, or as `_`.
fn spellings(name: &str) -> Vec<String> {
    match name.split_once('-') {
        None => vec![name.to_owned()],
        Some((first, rest)) => {
            let both = |rest: String| [format!("{first}-{rest}"), format!("{first}_{rest}")];
            spellings(rest).into_iter().flat_map(both).collect()
        }
    }
}
