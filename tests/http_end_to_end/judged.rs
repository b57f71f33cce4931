//! Rules: which request is a write, and of which resource.

use super::Way;
use super::http2_client::Http2;
use super::support::client;
use super::support::process::{LONG, eventually};
use super::support::scene::{Node, Scene};
use super::support::upstream::Upstream;

const SHARDS: &str = "\
rules:
  - { path: \"/shards/{shard}/**\", resource: \"orders/{shard}\" }
  - { header: { x-shard: \"{shard}\" }, resource: \"orders/{shard}\" }";
const RESOURCES: &str = "\"orders/{0..3}\": {}";

/// One writer for the shards 0 and 1, another for 2 and 3.
struct Shards {
    low: Node,
    high: Node,
    guard: Node,
    target: Upstream,
    _scene: Scene,
}

impl Shards {
    fn start() -> Shards {
        let scene = Scene::embedded();
        let target = Upstream::start();
        let guard = scene.node("guard").resources(RESOURCES).guard(&target.url(), SHARDS).start();
        let writer = |id: &str, campaign: &str| {
            let more = format!("{SHARDS}\ncampaign: [{campaign}]");
            scene.node(id).resources(RESOURCES).stamp(&guard.url(), &more).start()
        };
        let (low, high) = (writer("low", "orders/0, orders/1"), writer("high", "orders/2, orders/3"));
        for (writer, shard) in [(&low, 0), (&low, 1), (&high, 2), (&high, 3)] {
            writer.await_armed(&format!("orders/{shard}"));
        }
        // Who leads a resource that a process does not campaign for is news to it, which may come later.
        eventually("each knows all leaders", LONG, || {
            [&low, &high]
                .iter()
                .all(|it| (0..4).all(|shard| it.resource(&format!("orders/{shard}"))["state"] == "armed"))
        });
        Shards { low, high, guard, target, _scene: scene }
    }
}

#[test]
fn shards_are_told_apart_by_path_and_by_header() {
    let shards = Shards::start();
    let put = |to: &Node, path: &str, headers: &[(&str, &str)]| {
        client::request(to.address(), "PUT", path, headers, b"1").expect("it answers")
    };
    for (writer, shard) in [(&shards.low, "1"), (&shards.high, "2")] {
        let path = format!("/shards/{shard}/a/b");
        assert_eq!(put(writer, &path, &[]).status, 200);
        assert_eq!(put(writer, "/by/header", &[("X-Shard", shard)]).status, 200);
        let stamp = shards.target.applied().last().and_then(|write| write.stamp.clone()).expect("it was stamped");
        assert!(stamp.ends_with(&format!(";res=\"orders/{shard}\"")), "{stamp}");
    }

    // The other's shard: 421, and who leads.
    let answer = put(&shards.low, "/shards/2/a", &[]);
    let problem = answer.json();
    assert_eq!((answer.status, answer.refused()), (421, Some("not_leader")), "{problem}");
    assert_eq!(problem["leader"]["id"], "high", "{problem}");
    assert_eq!(problem["leader"]["address"], shards.high.url());

    // Nothing that a client sends makes a resource.
    for (path, header) in [("/shards/9/a", None), ("/shards/new/a", None), ("/x", Some("17")), ("/x", None)] {
        let headers: Vec<(&str, &str)> = header.map(|shard| ("x-shard", shard)).into_iter().collect();
        for door in [&shards.low, &shards.guard] {
            let answer = put(door, path, &headers);
            assert_eq!((answer.status, answer.refused()), (421, Some("resource_unknown")), "{path} {}", answer.text());
        }
    }
    assert!(!shards.guard.metrics().contains("orders/9"));

    // Where a path decides, it must be the path that the target will take it for.
    for path in [
        "/shards/1/../2/a",
        "/shards//1/a",
        "/shards/1%2Fa",
        "/shards/1/%2e%2e/2",
        "/shards/1/./a",
        "/shards\\1",
        "/shards/%31/a",
    ] {
        for door in [&shards.low, &shards.guard] {
            let answer = put(door, path, &[]);
            assert_eq!((answer.status, answer.refused()), (400, Some("path_not_normal")), "{path}: {}", answer.text());
        }
    }
    assert_eq!(shards.target.applied().len(), 4);
}

#[test]
fn a_failover_of_one_shard_leaves_the_others_alone() {
    let shards = Shards::start();
    let before = shards.guard.resource("orders/3")["epoch"].clone();
    assert_eq!(shards.high.post("/api/v1/step-down?resource=orders/2&force=true").status, 200);
    eventually("it is elected again, after its pause", LONG, || shards.guard.resource("orders/2")["epoch"] == "2");
    assert_eq!(shards.guard.resource("orders/3")["epoch"], before);
    shards.high.await_armed("orders/2");
    assert_eq!(client::put(shards.high.address(), "/shards/2/a", "1").unwrap().status, 200);
    assert_eq!(client::put(shards.high.address(), "/shards/3/a", "1").unwrap().status, 200);
}

#[test]
fn rules_say_what_reads_and_what_writes() {
    let rules = "\
resource: orders
rules:
  - { method: [POST], path: /search, kind: read }
  - { method: [GET], path: /fire, kind: write }
  - { grpc: \"shop.Orders/Get*\", kind: read }";
    let way = Way::with(rules, rules);
    let stamp_of = |path: &str| {
        way.target
            .arrived()
            .iter()
            .rev()
            .find(|seen| seen.path == path)
            .and_then(|seen| seen.header("fencing-epoch").map(str::to_owned))
    };
    assert_eq!(way.send("POST", "/search", &[], b"q").status, 200);
    assert_eq!(stamp_of("/search"), None);
    assert_eq!(way.at_guard("POST", "/search", &[], b"q").status, 200);

    assert_eq!(way.send("GET", "/fire", &[], b"").status, 404, "the target's own answer");
    assert_eq!(stamp_of("/fire"), Some(way.own_stamp()));
    assert_eq!(way.at_guard("GET", "/fire", &[], b"").refused(), Some("stamp_required"));

    // What is not known to be a read is a write.
    for (method, headers) in [("PURGE", vec![]), ("get", vec![]), ("GET", vec![("X-HTTP-Method-Override", "DELETE")])] {
        let answer = way.at_guard(method, "/x", &headers, b"");
        assert_eq!(answer.refused(), Some("stamp_required"), "{method} {headers:?}");
    }
    let overridden = [("X-HTTP-Method-Override", "DELETE")];
    assert_eq!(way.at_guard("POST", "/search", &overridden, b"").refused(), Some("stamp_required"));

    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut guard = Http2::open(way.guard.address());
    let mut call = |method: &str| guard.request("POST", method, &grpc, b"\0\0\0\0\0", &[]).unwrap();
    assert_eq!(call("/shop.Orders/GetOne").refused(), None);
    assert_eq!(call("/shop.Orders/Delete").refused(), Some("stamp_required"));
    assert_eq!(call("/shop.OrdersX/GetOne").refused(), Some("stamp_required"));
    assert_eq!(way.at_guard("CONNECT", "target.test:80", &[], b"").status, 400);
}
