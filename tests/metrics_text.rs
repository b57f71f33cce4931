//! `/metrics` of real processes, after traffic of every kind: nothing to say for promtool, and what the reference says.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use support::client;
use support::process::{LONG, eventually, program};
use support::scene::{Node, Scene};
use support::upstream::Upstream;

/// Traffic, refusals, a failover.
fn make_noise(guard: &Node, a: &Node, b: &Node) {
    let put = |to: &Node, headers: &[(&str, &str)]| {
        client::request(to.address(), "PUT", "/a", headers, b"1").expect("it answers")
    };
    assert_eq!(put(a, &[]).status, 200);
    assert_eq!(client::get(a.address(), "/a").expect("it answers").status, 200);
    assert_eq!(put(a, &[("X-Upstream", "close")]).refused(), Some("upstream_broken"));
    assert_eq!(put(b, &[]).refused(), Some("not_leader"));
    assert_eq!(put(guard, &[]).refused(), Some("stamp_required"));
    assert_eq!(put(guard, &[("Fencing-Epoch", "0")]).refused(), Some("malformed_stamp"));
    assert_eq!(put(guard, &[("Fencing-Epoch", "9")]).refused(), Some("epoch_denied"));
    eventually("the other is a candidate", LONG, || a.post("/api/v1/step-down?resource=orders").status == 200);
    b.await_armed("orders");
    assert_eq!(put(guard, &[("Fencing-Epoch", "1")]).refused(), Some("stale_epoch"));
    assert_eq!(put(b, &[]).status, 200);
}

#[test]
fn promtool_has_nothing_to_say_and_the_reference_names_every_metric() {
    let scene = Scene::embedded();
    let upstream = Upstream::start();
    // The write that breaks is to be over soon.
    let times = format!("upstream: {{ url: \"{}\", response_timeout: 200ms, send_timeout: 200ms }}", upstream.url());
    let guard = scene.node("guard").guard(&upstream.url(), &times).more("drain: { quarantine: 400ms }").start();
    let a = scene.leader("orders-a", &guard, "");
    let b = scene.node("orders-b").stamp(&guard.url(), "").start();
    make_noise(&guard, &a, &b);

    let mut registered: BTreeMap<String, String> = BTreeMap::new();
    for node in [&guard, &a, &b] {
        let text = node.metrics();
        assert_eq!(promtool(&text), "", "{}", node.id);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        registered.extend(types.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
        for line in text.lines().filter(|line| line.starts_with("epochgate_")) {
            assert!(!line.contains("orders-a") && !line.contains("orders-b"), "no writer is a label: {line}");
        }
    }
    let reference = include_str!("../docs/reference/metrics.md");
    let mut documented: BTreeMap<String, String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name.to_owned(), rest.split_once(" |")?.0.to_owned())))
        .collect();
    // It has series only while a shared door waits for another: `tests/shared_doors.rs` sees it.
    documented.remove("epochgate_drain_waits_for_door");
    // Only where there are certificates: `tests/tls` sees them.
    documented.remove("epochgate_certificate_expiry_timestamp_seconds");
    documented.remove("epochgate_tls_handshakes_failed_total");
    assert_eq!(registered, documented);

    // What the story must have left in them.
    assert_eq!(guard.metric("stale_write_rejections_total{listener=\"guard\",resource=\"orders\"}"), 1.0);
    assert_eq!(guard.metric("epoch_gap_count{resource=\"orders\"}"), 1.0);
    assert_eq!(guard.metric("epoch{resource=\"orders\"}"), 2.0);
    assert_eq!(guard.metric("gate_open{resource=\"orders\"}"), 1.0);
    assert_eq!(guard.metric("leadership_changes_total{resource=\"orders\"}"), 2.0);
    for phase in ["fence", "drain", "mark", "doors", "open"] {
        let series = format!("handoff_duration_seconds_count{{resource=\"orders\",phase=\"{phase}\"}}");
        assert_eq!(guard.metric(&series), 2.0, "{phase}");
    }
    assert_eq!((a.metric("is_leader{resource=\"orders\"}"), b.metric("is_leader{resource=\"orders\"}")), (0.0, 1.0));
    assert!(b.metric("session_deadline_timestamp_seconds{resource=\"orders\"}") > 1e9);
    assert_eq!(b.metric("election_duration_seconds_count{resource=\"orders\"}"), 1.0);
    assert_eq!(guard.metric("coordinator_up"), 1.0);
    assert_eq!(guard.metric("build_info"), 1.0);
    assert_eq!(guard.metric("audit_records_dropped_total"), 0.0);
    assert_eq!(guard.metric("requests_total{listener=\"guard\",kind=\"write\",outcome=\"unknown\"}"), 1.0);

    // The refusals of `status` are those of the metrics.
    for node in [&guard, &a, &b] {
        for (reason, count) in node.resource("orders")["refused"].as_object().expect("an object") {
            let series = format!("rejections_total{{resource=\"orders\",reason=\"{reason}\"}}");
            assert_eq!(Some(node.metric(&series)), count.as_f64(), "{}: {reason}", node.id);
        }
    }
}

/// What `promtool check metrics` says; nothing where all is well.
fn promtool(metrics: &str) -> String {
    let mut promtool = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool.stdin.take().expect("it is piped").write_all(metrics.as_bytes()).expect("promtool reads");
    let said = promtool.wait_with_output().expect("it ends");
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() || !text.is_empty(), "promtool: {}", said.status);
    text
}
