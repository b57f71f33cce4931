//! A failover, seen by a real Prometheus: A leads, B takes over while a write of A is still at the target, A writes stale.
//! Then every query of the dashboard has something to show, and the alerts are what they should be.

use std::collections::BTreeSet;
use std::thread;

use super::prometheus::Prometheus;
use super::support::certificates::{Authority, Special};
use super::support::client::{self, Connection};
use super::support::process::{LONG, eventually};
use super::support::scene::{Node, Scene};
use super::support::upstream::Upstream;
use super::{alerts, dashboard, promql};

/// Panels whose data is 0 all the way through a failover that goes as it should.
const QUIET: [&str; 8] = [
    "Forced opens",
    "Away from etcd",
    "Epochs behind the newest",
    "Proofs that failed, and were given up",
    "Requests that could not be held",
    "What should not happen",
    "Reloads",
    // Counted in whole seconds: a short test may use none.
    "CPU",
];

/// A guard of `orders`, and two writers. For the panels that a plain failover leaves empty, the guard has two more
/// listeners: one that only counts, and one with TLS that is shared, and waits for others that may not be on record.
struct World {
    prometheus: Prometheus,
    a: Node,
    b: Node,
    guard: Node,
    upstream: Upstream,
    _folder: tempfile::TempDir,
    _scene: Scene,
}

impl World {
    fn start() -> World {
        let (scene, upstream) = (Scene::etcd().lease("2s"), Upstream::start());
        let folder = tempfile::tempdir().unwrap();
        let pair = Authority::new(folder.path(), "ca").issue("guard", "db-guard", &Special::default());
        let times = "drain: { timeout: 500ms, quarantine: 90s }\nhold: { timeout: 60s }\n\
                     step_down: { timeout: 100ms, pause: 60s }";
        let resources = "orders: {}\nstock: {}\nbills: {}";
        let guard = scene
            .node("guard")
            .resources(resources)
            .more(times)
            .guard(
                &upstream.url(),
                "upstream: { url: \"@\", response_timeout: 80s, send_timeout: 10s }"
                    .replace('@', &upstream.url())
                    .as_str(),
            )
            .guard(&upstream.url(), "resource: stock\nmode: audit")
            .guard(&upstream.url(), &format!("resource: bills\ndoors: shared\ntls: {{ {} }}", pair.keys()))
            .start();
        let writer = |id: &str| scene.node(id).resources(resources).more(times).stamp(&guard.url(), "");
        let a = writer("orders-a").start();
        a.await_armed("orders");
        let b = writer("orders-b").stamp(&guard.url(), "resource: bills").start();
        let prometheus = Prometheus::start(&[("guards", &[guard.admin]), ("stamps", &[a.admin, b.admin])]);
        World { prometheus, a, b, guard, upstream, _folder: folder, _scene: scene }
    }

    /// Traffic of every kind under the first leader.
    fn work(&self) {
        for _ in 0..20 {
            assert_eq!(client::put(self.a.address(), "/orders", "a").unwrap().status, 200);
            assert_eq!(client::get(self.a.address(), "/orders").unwrap().status, 200);
        }
        assert_eq!(client::put(self.b.address(), "/orders", "b").unwrap().refused(), Some("not_leader"));
        assert_eq!(client::put(self.guard.address(), "/orders", "?").unwrap().refused(), Some("stamp_required"));
        // The door that only counts forwards it; the one with TLS has no session with somebody who has none.
        assert_eq!(client::put(self.guard.addresses[1], "/stock", "?").unwrap().status, 200);
        assert!(client::get(self.guard.addresses[2], "/bills").is_err());
        self.prometheus.await_some("there is traffic", "sum(rate(epochgate_requests_total{outcome=\"answered\"}[5s]))");
    }

    /// A gives its leadership up while a write of its is at the target: the guard waits for that, and holds what comes
    /// with the new epoch meanwhile.
    fn fail_over(&self) {
        let mut kept = Connection::open(self.a.address()).unwrap();
        assert_eq!(kept.request("PUT", "/orders", &[], b"kept").unwrap().status, 200);
        let stale = self.a.get("/leader?resource=orders").json()["stamp"].as_str().unwrap().to_owned();
        self.upstream.next("/old", "apply=@old");
        let through = self.a.address();
        let old = thread::spawn(move || client::put(through, "/old", "old"));
        eventually("the write is at the target", LONG, || self.upstream.waiting("old") == 1);
        self.prometheus.await_some("it is in flight", "epochgate_in_flight_writes");

        eventually("B is a candidate", LONG, || self.a.post("/api/v1/step-down?resource=orders").status == 200);
        // What it has seen of etcd comes a moment after what it was told there itself.
        eventually("B leads, and has seen it", LONG, || {
            let orders = self.b.resource("orders");
            orders["standing"]["leads"] == true && orders["epoch"] == "2"
        });
        // B's own sidecar holds what its writer sends; a client that knows its epoch comes to the guard.
        let (guard, epoch) = (self.guard.address(), "2");
        let new = thread::spawn(move || client::request(guard, "PUT", "/new", &[("Fencing-Epoch", epoch)], b"new"));
        eventually("the guard holds it", LONG, || {
            assert!(!new.is_finished(), "it is not held: {}", self.guard.get("/metrics").text());
            self.guard.resource("orders")["gate"]["held"] != 0
        });
        self.prometheus.await_some("it holds", "epochgate_held_writes");
        self.prometheus.await_some("it is shut", "epochgate_gate_open{resource=\"orders\"} == bool 0");
        self.upstream.open("old");
        assert_eq!(new.join().unwrap().unwrap().status, 200);
        // Whatever A's client was told, the write came before the new one.
        let _ = old.join().unwrap();
        self.b.await_armed("orders");

        let late =
            client::request(self.guard.address(), "PUT", "/late", &[("Fencing-Epoch", &stale)], b"late").unwrap();
        assert_eq!((late.status, late.refused()), (412, Some("stale_epoch")));
        assert!(kept.request("PUT", "/orders", &[], b"kept").unwrap().refused().is_some());
        self.upstream.assert_epochs_never_decrease();
    }

    /// A write under the second leader whose end nobody knows.
    fn lose_a_write(&self) {
        for _ in 0..5 {
            assert_eq!(client::put(self.b.address(), "/orders", "b").unwrap().status, 200);
        }
        self.upstream.next("/lost", "close");
        assert_eq!(client::put(self.b.address(), "/lost", "b").unwrap().refused(), Some("upstream_broken"));
        self.prometheus.await_some("it is lost", "epochgate_lost_writes");
    }
}

#[test]
fn every_query_has_data_through_a_failover_and_the_alerts_say_what_happened() {
    let world = World::start();
    world.work();
    world.fail_over();
    world.lose_a_write();
    let stale = "ALERTS{alertname=\"EpochgateStaleWritesRefused\", alertstate=\"firing\", severity=\"info\", \
                 namespace=\"shop\", job=\"guards\", resource=\"orders\"}";
    world.prometheus.await_some("an old leader was caught", stale);
    every_panel_has_data(&world.prometheus);
    every_series_that_is_looked_at_is_there(&world.prometheus);
    the_alerts_are_what_they_should_be(&world.prometheus);
}

fn every_panel_has_data(prometheus: &Prometheus) {
    let all = [("$namespace", ".*"), ("$job", ".*"), ("$resource", ".*"), ("$listener", ".*")];
    let some = [
        ("$namespace", "shop"),
        ("$job", "(guards|stamps)"),
        ("$resource", "(orders|stock|bills)"),
        ("$listener", "(guard|guard-1|guard-2|stamp)"),
    ];
    let dashboard = dashboard::load();
    let mut empty = Vec::new();
    for (panel, chosen) in dashboard.panels.iter().flat_map(|panel| [(panel, all), (panel, some)]) {
        let mut values = Vec::new();
        for query in &panel.queries {
            let answer = prometheus.ask_over_all(&dashboard::substituted(query, &chosen));
            let here: Vec<f64> =
                answer.into_iter().flat_map(|series| series.values).filter(|value| value.is_finite()).collect();
            if here.is_empty() {
                empty.push(format!("{}: {query}", panel.title));
            }
            values.extend(here);
        }
        if QUIET.contains(&&*panel.title) {
            continue;
        }
        if values.iter().all(|value| *value == 0.0) {
            empty.push(format!("{}: nothing but 0", panel.title));
        }
    }
    assert!(empty.is_empty(), "these show nothing:\n{}", empty.join("\n"));
    for title in QUIET {
        assert!(dashboard.panels.iter().any(|panel| panel.title == title), "{title} is no panel");
    }
    for (name, metric, label) in dashboard.variables() {
        let query = dashboard::substituted(&format!("count by ({label}) ({metric})"), &all);
        let values = prometheus.ask(&query);
        assert!(values.iter().any(|series| series.labels.contains_key(&label)), "{name} has no values: {query}");
    }
    let annotations = dashboard.annotations();
    let moments: Vec<usize> = annotations
        .iter()
        .map(|(_, query)| prometheus.ask_over_all(&dashboard::substituted(query, &all)).len())
        .collect();
    assert_eq!(moments, [1, 0], "a new term, and nothing forced");
}

/// An alert whose metric or label is misspelt is silent for ever: every selector finds series, and they have the labels
/// that the alert is told apart by.
fn every_series_that_is_looked_at_is_there(prometheus: &Prometheus) {
    for alert in alerts::all() {
        let mut labels = BTreeSet::from(["cluster".to_owned()]);
        for selector in promql::selectors(&alert.expr) {
            let found = prometheus.ask_over_all(&selector);
            assert!(!found.is_empty(), "{}: no process has {selector}", alert.name);
            labels.extend(found.into_iter().flat_map(|series| series.labels.into_keys()));
        }
        let missing: Vec<String> = promql::grouped_by(&alert.expr).difference(&labels).cloned().collect();
        assert!(missing.is_empty(), "{}: no series has {missing:?}", alert.name);
    }
}

fn the_alerts_are_what_they_should_be(prometheus: &Prometheus) {
    let rules = prometheus.rules();
    assert_eq!(rules.len(), alerts::all().len());
    let mut firing = BTreeSet::new();
    for rule in &rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
        for alert in rule["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing") {
            firing.insert(name.to_owned());
            let runbook = alert["annotations"]["runbook_url"].as_str().unwrap();
            assert_eq!(runbook, format!("docs/runbooks/{name}.md"));
        }
    }
    assert!(firing.contains("EpochgateStaleWritesRefused"), "{firing:?}");
    // Others may fire where the test takes minutes: a guard that waits does so for longer than it may. These must not.
    for name in ["ForcedOpen", "CoordinatorRegressed", "EpochConflict", "FloorWriteFailing", "UpstreamUnreachable"] {
        assert!(!firing.contains(&format!("Epochgate{name}")), "{firing:?}");
    }
}
