use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;

use super::*;
use crate::config::resolved::*;
use crate::event::{By, EventSink};
use crate::fence::{Epoch, Nonce, Outcome};
use crate::protocol::{CutReason, Finished, Kind};
use crate::tls::Usage;

/// A listener of either role, for every resource of `serves`.
fn listener(name: &str, role: Role, serves: &[Resource]) -> Arc<Listener> {
    let second = Duration::from_secs(1);
    Arc::new(Listener {
        name: name.into(),
        role,
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        protocol: crate::config::resolved::Protocol::Http,
        proxy_protocol: None,
        stale: crate::config::resolved::Stale::Refuse,
        socket_mode: 0o660,
        tls: Some(ListenerTls {
            pair: KeyPair { cert: "a.crt".into(), key: "a.key".into() },
            client_ca: None,
            only_tls13: false,
        }),
        identities: None,
        upstream: Upstream {
            url: "http://127.0.0.1:9000".into(),
            authority: "127.0.0.1:9000".into(),
            socket: None,
            tls: None,
            control: None,
            version: UpstreamVersion::Same,
            connect_timeout: second,
            response_timeout: second,
            send_timeout: second,
            idle_timeout: second,
            no_answer: vec![],
        },
        resource: serves.first().cloned(),
        rules: crate::rules::Rules::new(vec![], serves.first(), serves.iter()),
        serves: serves.to_vec(),
        limits: Limits {
            connections: 1,
            connections_per_peer: None,
            streams: 1,
            headers: 1,
            header_bytes: 1,
            header_timeout: second,
            body_idle_timeout: second,
            answer_idle_timeout: second,
            idle_timeout: second,
        },
        signatures: None,
    })
}

/// A process that guards and stamps `resources`, each labelled with its own name.
pub(crate) fn config(resources: &[&str]) -> Config {
    let second = Duration::from_secs(1);
    let names: Vec<Resource> = resources.iter().map(|name| name.parse().expect("a name")).collect();
    let drain = Drain { timeout: second, quarantine: second, by_time: true, on_timeout: OnTimeout::Hold };
    let settings = |name: &Resource| {
        Arc::new(ResourceSettings { label: name.as_str().into(), drain, hold_timeout: None, fence_action: None })
    };
    let guard = Role::Guard(GuardSettings {
        mode: Mode::Enforce,
        target: "orders".into(),
        shared: false,
        on_coordinator_loss: GuardLoss::Keep,
        fence_reads: false,
        bare_stamps: true,
        forward_stamp: true,
    });
    let stamp = Role::Stamp(StampSettings {
        advertise: None,
        campaign: names.clone(),
        incoming_stamp: IncomingStamp::Refuse,
        expect_required: false,
        until_armed: UntilArmed::Hold,
        keep_on_coordinator_loss: false,
    });
    Config {
        id: "orders-a".parse().expect("an id"),
        state_dir: "/nowhere".into(),
        adopt_floor: false,
        header: "fencing-epoch".into(),
        coordinator: Coordinator {
            kind: CoordinatorKind::Embedded("/nowhere".into()),
            prefix: "/epochgate/v1/".into(),
            lease_ttl: second,
            request_timeout: second,
            verify_every: second,
        },
        clock: ClockTrust { max_drift: 0.01, margin: second },
        resources: names.iter().map(|name| (name.clone(), settings(name))).collect(),
        listeners: vec![listener("orders-guard", guard, &names), listener("orders-stamp", stamp, &names)],
        hold: Hold { requests: 1, bytes: 1, timeout: second },
        lapsed: crate::config::resolved::Lapsed::Wait,
        step_down: StepDown { timeout: second, pause: second },
        shutdown_grace: second,
        admin: Admin { listen: None, socket: None },
        audit: Audit { output: AuditOutput::Stdout, queue: 1 },
        history: None,
        log: Log { format: LogFormat::Auto, level: tracing::Level::INFO },
        workers: 1,
    }
}

pub(crate) fn metrics(resources: &[&str]) -> Metrics {
    Metrics::new(Registry::new(), &config(resources)).expect("every name is there once")
}

/// Every sample of a scrape: `name{labels}` and its value.
fn samples(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.text().expect("it can be written");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect(line);
        (name.to_owned(), value.parse().expect(line))
    };
    lines.map(sample).collect()
}

fn value(metrics: &Metrics, sample: &str) -> Option<f64> {
    samples(metrics).get(sample).copied()
}

/// The rows of the reference: name, type, labels.
fn reference() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../../docs/reference/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned);
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels.collect()))
    };
    rows.map(row).collect()
}

#[test]
fn the_reference_and_the_program_name_the_same_metrics() {
    let metrics = metrics(&["orders"]);
    metrics.show_waits([(&"orders".parse().expect("a name"), "guard-1-9f3c2a7b")]);
    metrics.show_certificates("guard", &[Expiry { usage: Usage::Server, until: jiff::Timestamp::UNIX_EPOCH }]);
    let documented = reference();
    let registered: BTreeMap<String, (String, BTreeSet<String>)> = metrics
        .gather()
        .iter()
        .map(|family| {
            let labels = family.get_metric()[0].get_label().iter().map(|label| label.name().to_owned());
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            (family.name().to_owned(), (kind, labels.collect()))
        })
        .collect();
    assert_eq!(registered, documented);
}

#[test]
fn every_series_is_there_at_zero_from_the_start() {
    let all = samples(&metrics(&["orders"]));
    let ours = all.iter().filter(|(name, _)| {
        name.starts_with("epochgate_")
            && !["build_info", "listener_info", "config_last_reload_successful"].iter().any(|one| name.contains(one))
    });
    for (name, value) in ours.clone() {
        assert_eq!(*value, 0.0, "{name}");
    }
    for reason in Reason::ALL {
        let of = |listener: &str| {
            let sample = format!(
                "epochgate_rejections_total{{listener=\"{listener}\",reason=\"{reason}\",resource=\"orders\"}}"
            );
            all.contains_key(&sample)
        };
        assert!(of("orders-guard") || of("orders-stamp"), "{reason}");
    }
    for sample in [
        "epochgate_requests_total{kind=\"write\",listener=\"orders-guard\",outcome=\"unknown\"}",
        "epochgate_epoch_mismatch_total{direction=\"conflict\",resource=\"orders\"}",
        "epochgate_handoff_duration_seconds_count{phase=\"open\",resource=\"orders\"}",
        "epochgate_connections_cut_total{listener=\"orders-stamp\",reason=\"header_timeout\"}",
        "epochgate_gate_open{resource=\"orders\"}",
    ] {
        assert!(all.contains_key(sample), "{sample}");
    }
}

#[test]
fn what_each_listener_does_is_a_series_of_its_own() {
    let mut config = config(&["orders"]);
    let Role::Guard(guard) = &mut Arc::get_mut(&mut config.listeners[0]).expect("nobody else has it").role else {
        panic!("the first is a guard");
    };
    guard.mode = Mode::Audit;
    let metrics = Metrics::new(Registry::new(), &config).expect("every name is there once");
    let info = |labels: &str| value(&metrics, &format!("epochgate_listener_info{{{labels}}}"));
    assert_eq!(info(r#"listener="orders-guard",mode="audit",protocol="http",role="guard""#), Some(1.0));
    assert_eq!(info(r#"listener="orders-stamp",mode="",protocol="http",role="stamp""#), Some(1.0));
}

#[test]
fn beyond_two_hundred_resources_ranges_are_one_value_and_gauges_are_left_out() {
    let names: Vec<String> = (0..201).map(|shard| format!("orders/{shard}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut config = config(&names);
    for settings in config.resources.values_mut() {
        Arc::get_mut(settings).expect("nobody else has it").label = "orders/{0..200}".into();
    }
    let metrics = Metrics::new(Registry::new(), &config).expect("every name is there once");
    let resource: Resource = "orders/7".parse().expect("a name");
    let refusal = Refusal::new(Reason::StaleEpoch, "").with_resource(&resource);
    metrics.refused_one("orders-guard", &refusal);
    metrics.show_resource(&resource, &ResourceLevels::default());
    let all = samples(&metrics);
    assert!(!all.keys().any(|name| name.starts_with("epochgate_gate_open") || name.starts_with("epochgate_epoch{")));
    let stale = "epochgate_stale_write_rejections_total{listener=\"orders-guard\",resource=\"orders/{0..200}\"}";
    assert_eq!(all.get(stale), Some(&1.0));
    assert!(!all.keys().any(|name| name.contains("orders/7")));
    assert_eq!(metrics.refused(&resource), BTreeMap::from([(Reason::StaleEpoch, 1)]));
}

#[test]
fn refusals_count_under_their_reason_and_by_how_far_they_were_off() {
    let metrics = Arc::new(metrics(&["orders"]));
    let sink = EventSink::new(vec![Box::new(Arc::clone(&metrics))]);
    let refuse = |reason, given, required, audit: bool| {
        let refusal = Refusal::new(reason, "").with_resource(&"orders".parse().expect("a name"));
        let refusal = Box::new(refusal.with_epochs(Epoch::new(given), Epoch::new(required)));
        let (listener, method, path) = ("orders-guard".into(), "PUT".into(), "/a".into());
        let (peer, kind) = ("127.0.0.1:1".parse().expect("an address"), Kind::Write);
        sink.emit(
            Moment::default(),
            if audit {
                Event::WouldRefuse { listener, refusal, peer, method, path, kind }
            } else {
                Event::Refused { listener, refusal, peer, method, path, kind }
            },
        );
    };
    refuse(Reason::StaleEpoch, 38, 42, false);
    refuse(Reason::EpochConflict, 42, 42, false);
    refuse(Reason::EpochDenied, 43, 42, false);
    refuse(Reason::Unverifiable, 44, 42, false);
    refuse(Reason::StaleEpoch, 41, 42, true);
    let rejected = |reason: Reason| {
        format!("epochgate_rejections_total{{listener=\"orders-guard\",reason=\"{reason}\",resource=\"orders\"}}")
    };
    for (sample, expected) in [
        (rejected(Reason::StaleEpoch).as_str(), 1.0),
        (rejected(Reason::Unverifiable).as_str(), 1.0),
        (&rejected(Reason::StaleEpoch).replace("rejections", "would_reject"), 1.0),
        ("epochgate_stale_write_rejections_total{listener=\"orders-guard\",resource=\"orders\"}", 1.0),
        ("epochgate_epoch_mismatch_total{direction=\"behind\",resource=\"orders\"}", 2.0),
        ("epochgate_epoch_mismatch_total{direction=\"ahead\",resource=\"orders\"}", 2.0),
        ("epochgate_epoch_mismatch_total{direction=\"conflict\",resource=\"orders\"}", 1.0),
        ("epochgate_epoch_gap_sum{resource=\"orders\"}", 5.0),
        ("epochgate_epoch_gap_bucket{resource=\"orders\",le=\"3\"}", 1.0),
    ] {
        assert_eq!(value(&metrics, sample), Some(expected), "{sample}");
    }
}

#[test]
fn what_happens_to_a_resource_is_counted() {
    let metrics = Arc::new(metrics(&["orders"]));
    let sink = EventSink::new(vec![Box::new(Arc::clone(&metrics))]);
    let (resource, target): (Resource, Arc<str>) = ("orders".parse().expect("a name"), "db".into());
    let (r, t) = (|| resource.clone(), || target.clone());
    let epoch = Epoch::FIRST;
    let ms = Duration::from_millis;
    let writer = "orders-a".parse().expect("an id");
    for event in [
        Event::Elected { resource: r(), epoch, nonce: Nonce::from_bytes([7; 8]), writer, own: true, took: Some(ms(7)) },
        Event::Regression { resource: r(), floor: epoch, seen: None },
        Event::Opened { resource: r(), target: t(), epoch, forced: false },
        Event::Opened { resource: r(), target: t(), epoch, forced: true },
        Event::FloorWriteFailed { resources: vec![r()], error: "disk full".into() },
        Event::HandoffDone {
            resource: r(),
            target: t(),
            epoch,
            fence: ms(1),
            drain: ms(250),
            mark: ms(3),
            doors: ms(5000),
            open: ms(4),
            by: By::Answers,
        },
    ] {
        sink.emit(Moment::default(), event);
    }
    for (sample, expected) in [
        ("epochgate_leadership_changes_total{resource=\"orders\"}", 1.0),
        ("epochgate_election_duration_seconds_sum{resource=\"orders\"}", 0.007),
        ("epochgate_coordinator_regressions_total{resource=\"orders\"}", 1.0),
        ("epochgate_forced_opens_total{resource=\"orders\"}", 1.0),
        ("epochgate_floor_write_failures_total{resource=\"orders\"}", 1.0),
        ("epochgate_handoff_duration_seconds_sum{phase=\"drain\",resource=\"orders\"}", 0.25),
        ("epochgate_handoff_duration_seconds_sum{phase=\"mark\",resource=\"orders\"}", 0.003),
        ("epochgate_handoff_duration_seconds_sum{phase=\"doors\",resource=\"orders\"}", 5.0),
        ("epochgate_handoff_duration_seconds_count{phase=\"fence\",resource=\"orders\"}", 1.0),
    ] {
        assert_eq!(value(&metrics, sample), Some(expected), "{sample}");
    }
}

#[test]
fn what_workers_count_shows_after_a_flush_or_when_they_end() {
    let metrics = metrics(&["orders"]);
    assert!(metrics.meters("no-such-listener").is_none());
    let one = metrics.meters("orders-guard").expect("it is configured");
    let two = metrics.meters("orders-guard").expect("it is configured");
    let finished = Finished { kind: Kind::Write, outcome: Outcome::Answered, took: Duration::from_millis(3) };
    one.finished(&finished);
    two.finished(&finished);
    one.connection(true);
    two.connection(true);
    two.connection(true);
    two.connection(false);
    two.cut(CutReason::Fenced);
    let requests = "epochgate_requests_total{kind=\"write\",listener=\"orders-guard\",outcome=\"answered\"}";
    assert_eq!(value(&metrics, requests), Some(0.0));
    one.flush();
    one.flush();
    assert_eq!(value(&metrics, requests), Some(1.0));
    drop(two);
    assert_eq!(value(&metrics, requests), Some(2.0));
    let took = "epochgate_request_duration_seconds_bucket{kind=\"write\",listener=\"orders-guard\",le=\"0.005\"}";
    assert_eq!(value(&metrics, took), Some(2.0));
    let cut = "epochgate_connections_cut_total{listener=\"orders-guard\",reason=\"fenced\"}";
    assert_eq!(value(&metrics, cut), Some(1.0));
    assert_eq!(metrics.connections_open("orders-guard"), 2);
}
