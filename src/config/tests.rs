mod sessions;
mod signatures;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::resolved::*;
use super::*;

fn host() -> Surroundings {
    Surroundings { host_name: "host-1".into(), state_directory: None, root: true, home: None, cores: 8 }
}

fn load_text(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_in(Some((Path::new("f.yaml"), text)), &Overrides::default(), None, &host())
}

fn good(text: &str) -> Loaded {
    match load_text(text) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{}", lines(&problems).join("\n")),
    }
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The problems of `text`, without help.
fn bad(text: &str) -> Vec<String> {
    let problems = load_text(text).expect_err("has problems");
    problems.iter().map(|problem| format!("{}: {}", problem.at, problem.what)).collect()
}

/// The place of the first `needle` of `text`, as a problem names it.
fn at(text: &str, needle: &str) -> String {
    let before = &text[..text.find(needle).unwrap_or_else(|| panic!("no {needle} in {text}"))];
    let line = before.rsplit('\n').next().unwrap_or(before);
    format!("f.yaml:{}:{}", before.matches('\n').count() + 1, line.chars().count() + 1)
}

const EXAMPLE: &str = include_str!("../../examples/epochgate.yaml");

/// Everything that is needed, at defaults.
const SMALL: &str = "\
coordinator: { embedded: ./e.db }
resources: { orders: }
listeners:
  - { name: orders-guard, role: guard, listen: \":8080\", upstream: { url: \"http://127.0.0.1:9000\" }, resource: orders }
  - { name: orders-stamp, role: stamp, listen: \":8081\", upstream: { url: \"http://127.0.0.1:8080\" }, resource: orders }
";

fn guard(config: &Config) -> (&Listener, &GuardSettings) {
    let found = config.listeners.iter().find_map(|listener| match &listener.role {
        Role::Guard(guard) => Some((&**listener, guard)),
        Role::Stamp(_) => None,
    });
    found.expect("a guard")
}

fn stamp(config: &Config) -> (&Listener, &StampSettings) {
    let found = config.listeners.iter().find_map(|listener| match &listener.role {
        Role::Stamp(stamp) => Some((&**listener, stamp)),
        Role::Guard(_) => None,
    });
    found.expect("a stamp")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_example_is_right() {
    let loaded = good(EXAMPLE);
    assert_eq!(lines(&loaded.warnings), Vec::<String>::new());
    let config = loaded.config;
    assert_eq!(config.resources.len(), 65);
    let (listener, _) = guard(&config);
    assert_eq!(listener.serves.len(), 65);
    assert_eq!(stamp(&config).1.campaign.len(), 1);
    let shard = &config.resources[&"orders/7".parse().expect("a name")];
    assert_eq!((shard.drain.timeout, shard.drain.quarantine), (seconds(10), seconds(35)));
    assert_eq!((shard.hold_timeout, &*shard.label), (Some(seconds(40)), "orders/7"));
    assert_eq!(shard.fence_action.as_ref().expect("an action").command[1], "{resource}");
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let config = good(SMALL).config;
    assert_eq!(config.id.as_str(), "host-1");
    assert_eq!(config.state_dir, Path::new("/var/lib/epochgate"));
    assert_eq!(&*config.header, "fencing-epoch");
    assert!(!config.adopt_floor);
    let coordinator = &config.coordinator;
    assert_eq!(coordinator.prefix, "/epochgate/v1/");
    assert_eq!(
        (coordinator.lease_ttl, coordinator.request_timeout, coordinator.verify_every),
        (seconds(5), seconds(1), seconds(1))
    );
    assert!(matches!(&coordinator.kind, CoordinatorKind::Embedded(path) if path == Path::new("./e.db")));
    assert_eq!((config.clock.max_drift, config.clock.margin), (0.01, Duration::from_millis(100)));
    let orders = &config.resources[&"orders".parse().expect("a name")];
    let drain = orders.drain;
    assert_eq!(
        (drain.timeout, drain.quarantine, drain.by_time, drain.on_timeout),
        (seconds(5), seconds(35), true, OnTimeout::Hold)
    );
    assert_eq!((config.hold.requests, config.hold.bytes, config.hold.timeout), (1000, 16 << 20, seconds(10)));
    assert_eq!(
        (config.step_down.timeout, config.step_down.pause, config.shutdown_grace),
        (seconds(5), seconds(5), seconds(30))
    );
    assert_eq!(config.admin.listen, Some("127.0.0.1:9464".parse().expect("an address")));
    assert_eq!((config.admin.socket, config.history), (None, None));
    assert_eq!((config.audit.output, config.audit.queue), (AuditOutput::Stdout, 8192));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Auto, tracing::Level::INFO));
    assert_eq!(config.workers, 4);
}

#[test]
fn the_defaults_of_a_listener_are_those_of_the_reference() {
    let config = good(SMALL).config;
    let (listener, guard) = guard(&config);
    assert_eq!(listener.listen.to_string(), "0.0.0.0:8080");
    let upstream = &listener.upstream;
    assert_eq!((&*upstream.url, &*upstream.authority), ("http://127.0.0.1:9000", "127.0.0.1:9000"));
    assert_eq!((upstream.version, &*upstream.no_answer), (UpstreamVersion::Same, &[502, 504][..]));
    assert_eq!((upstream.connect_timeout, upstream.response_timeout), (seconds(1), seconds(30)));
    assert_eq!((upstream.send_timeout, upstream.idle_timeout), (seconds(5), seconds(30)));
    assert_eq!((guard.mode, &*guard.target, guard.on_coordinator_loss), (Mode::Enforce, "orders", GuardLoss::Keep));
    assert_eq!((guard.fence_reads, guard.bare_stamps, guard.forward_stamp), (false, true, true));
    let limits = listener.limits;
    assert_eq!((limits.connections, limits.streams, limits.headers, limits.header_bytes), (10_000, 100, 100, 65_536));
    assert_eq!(
        (limits.header_timeout, limits.body_idle_timeout, limits.answer_idle_timeout, limits.idle_timeout),
        (seconds(10), seconds(30), seconds(60), seconds(60))
    );
    let (_, stamp) = stamp(&config);
    assert_eq!(
        (stamp.incoming_stamp, stamp.expect_required, stamp.until_armed),
        (IncomingStamp::Refuse, false, UntilArmed::Hold)
    );
    assert_eq!((stamp.keep_on_coordinator_loss, stamp.advertise.is_none(), stamp.campaign.len()), (false, true, 1));
}

#[test]
fn a_file_with_many_mistakes_shows_all_of_them() {
    let text = "\
id: orders a
heade: Fencing-Epoch
coordinator:
  etcd: { endpoints: [\"127.0.0.1:2379\"] }
  lease_ttl: 5
  lease_ttl: 6s
clock: { max_drift: 0.9 }
resources:
  orders: {}
  Bad: {}
  \"wide/{0..200000}\": {}
  jobs: { fence_action: { webhook: \"http://x\", command: [] } }
listeners:
  - name: g
    role: gaurd
    listen: localhost:8080
    upstreem: { url: \"http://a\" }
  - { name: s, role: stamp, protocol: kafka, listen: \":1\", upstream: { url: \"https://a\" }, resource: orders, mode: audit, tls: {} }
  - 7
  - { name: r, role: route, listen: \":2\", upstream: { url: \"http://a/b?c\" }, resource: orders, doors: shared }
drain: { quarantine: 35s, by_time: yes }
hold: { requests: -1, bytes: 16MB }
workers: 0
admin: [x]
";
    let found = bad(text);
    let expected = [
        ("orders a", "id: 'orders a' is no id"),
        ("heade", "unknown key 'heade' at the top (did you mean 'header'?)"),
        ("\"127.0.0.1:2379", "coordinator.etcd.endpoints[0]: '127.0.0.1:2379' has no scheme"),
        ("5\n", "coordinator.lease_ttl: 5 has no unit"),
        ("lease_ttl: 6s", "the key 'lease_ttl' stands here a second time"),
        ("0.9", "clock.max_drift: 0.9 is out of range"),
        ("Bad", "resources: 'Bad' is no resource"),
        ("\"wide", "resources: 'wide/{0..200000}' makes more than 100000 resources in all"),
        ("webhook", "the key 'webhook' in resources.jobs.fence_action is not in this version"),
        ("[] }", "resources.jobs.fence_action.command is empty"),
        ("name: g", "listeners[0] has no 'upstream'"),
        ("gaurd", "listeners[0].role: 'gaurd' is not a word that is known here (did you mean 'guard'?)"),
        ("localhost", "listeners[0].listen: 'localhost:8080' is no IP address"),
        ("upstreem", "unknown key 'upstreem' in listeners[0] (did you mean 'upstream'?)"),
        ("kafka", "listeners[1].protocol: 'kafka' is not in this version"),
        ("{ url: \"https", "listeners[1].upstream.tls: an upstream with TLS needs the authority to trust"),
        ("mode: audit", "listeners[1].mode: 'mode' is a key of a guard, and this listener is none"),
        ("{} }\n  - 7", "listeners[1].tls has no 'cert'"),
        ("{} }\n  - 7", "listeners[1].tls has no 'key'"),
        ("7\n", "listeners[2] is the number 7, not a mapping (key: value)"),
        ("route", "listeners[3].role: 'route' is not in this version"),
        ("\"http://a/b?c", "listeners[3].upstream.url: 'http://a/b?c' has a query or fragment"),
        ("yes", "drain.by_time is the text 'yes', not true or false"),
        ("-1", "hold.requests: -1 is out of range"),
        ("16MB", "hold.bytes: '16MB' is no size"),
        ("0\nadmin", "workers: '0' is no number of workers"),
        ("[x]", "admin is a list, not a mapping (key: value)"),
    ];
    let expected = expected.map(|(needle, what)| format!("{}: {what}", at(text, needle)));
    assert_eq!(found, expected, "\n{}", found.join("\n"));
}

#[test]
fn a_file_that_is_no_mapping_is_told_only_that() {
    assert_eq!(bad("[1, 2]"), ["f.yaml:1:1: the file is a list, not a mapping (key: value)"]);
    assert_eq!(bad("hello"), ["f.yaml:1:1: the file is the text 'hello', not a mapping (key: value)"]);
    assert_eq!(bad("a: [").len(), 1);
    assert_eq!(bad("").len(), 2, "no coordinator and no listener");
}

#[test]
fn a_problem_says_what_to_do() {
    let problems =
        load_text("listeners: []\nresources: {}\ncoordinator: { etcd: { endpoints: [] } }\n").expect_err("problems");
    for problem in &problems {
        assert!(!problem.help.is_empty(), "{problem}");
    }
    let text = lines(&problems).join("\n");
    assert!(text.contains("there is no listener"), "{text}");
}

/// `SMALL` with one piece replaced.
fn with(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replacen(from, to, 1)
}

#[test]
fn what_cannot_make_sense_is_refused() {
    for (from, to, needle, what) in [
        (
            "coordinator: { embedded: ./e.db }\n",
            "",
            "resources",
            "there is no coordinator: nothing says where epochs live",
        ),
        (
            "{ embedded: ./e.db }",
            "{ embedded: e, etcd: { endpoints: [\"http://a:1\"] } }",
            "embedded",
            "coordinator has both etcd and embedded",
        ),
        ("{ embedded: ./e.db }", "{ etcd: }", "{ etcd", "there is no coordinator: nothing says where epochs live"),
        ("{ embedded: ./e.db }", "{ etcd: {} }", "{}", "coordinator.etcd has no 'endpoints'"),
        (
            "{ embedded: ./e.db }",
            "{ etcd: { endpoints: [\"https://a:1\"] } }",
            "{ endpoints",
            "https endpoints need the authority to trust",
        ),
        (
            "{ embedded: ./e.db }",
            "{ etcd: { endpoints: [\"http://a:1\"], tls: { ca: c } } }",
            "{ ca",
            "tls is configured, and no endpoint is https",
        ),
        (
            "{ orders: }",
            "{ orders: , \"orders/{0..3}\": , orders/2: }",
            "\"orders/{0..3}",
            "resources: 'orders/2' is listed twice, by 'orders/2' and by 'orders/{0..3}'",
        ),
        (
            "role: guard,",
            "role: guard, campaign: [orders],",
            "campaign",
            "listeners[0].campaign: 'campaign' is a key of a stamp, and this listener is none",
        ),
        (
            ", resource: orders }\n  - { name: orders-s",
            " }\n  - { name: orders-s",
            "{ name: orders-g",
            "listeners[0] can name no resource",
        ),
        (
            "name: orders-stamp",
            "name: \"orders-guard\"",
            "\"orders-guard",
            "listeners[1].name: 'orders-guard' is the name of another listener too (listeners[0].name)",
        ),
        (
            ":8081",
            "127.0.0.1:8080",
            "\"127.0.0.1:8080",
            "listeners[1].listen: 127.0.0.1:8080 is taken already by listeners[0].listen (0.0.0.0:8080)",
        ),
        (
            ":8081",
            ":9464",
            "coordinator",
            "admin.listen: 127.0.0.1:9464 is taken already by listeners[1].listen (0.0.0.0:9464)",
        ),
        (
            "role: stamp,",
            "role: guard, target: \"orders\",",
            "\"orders\"",
            "listeners[1]: the listeners 'orders-guard' and 'orders-stamp' both guard 'orders' at the target 'orders'",
        ),
        (
            "role: stamp,",
            "role: stamp, campaign: [jobs],",
            "jobs",
            "listeners[1].campaign[0]: 'jobs' is not listed under resources",
        ),
        (
            "role: stamp,",
            "role: stamp, on_coordinator_loss: close,",
            "close",
            "listeners[1].on_coordinator_loss: 'close' is for a guard",
        ),
        (
            "role: guard,",
            "role: guard, on_coordinator_loss: stop,",
            "stop",
            "listeners[0].on_coordinator_loss: 'stop' is for a stamp",
        ),
        (
            "role: guard,",
            "role: guard, rules: [{ path: /x, unarmed: pass }],",
            "pass",
            "listeners[0].rules[0].unarmed: a guard has no terms of its own",
        ),
        (
            "role: guard,",
            "role: guard, rules: [{ path: x, kind: read }],",
            "x, kind",
            "listeners[0].rules[0].path: 'x' does not begin with '/'",
        ),
        (
            "role: guard,",
            "role: guard, rules: [{ path: /x }],",
            "{ path",
            "listeners[0].rules[0]: the rule says nothing",
        ),
        (
            "role: guard,",
            "role: guard, rules: [{ path: \"/{s}\", resource: \"x/{s}\" }],",
            "\"x/{s}",
            "listeners[0].rules[0].resource: no listed resource is of the form 'x/{s}'",
        ),
        (
            "role: guard,",
            "role: guard, rules: [{ resource: \"orders/{s}\" }],",
            "\"orders/{s}",
            "listeners[0].rules[0].resource: nothing binds '{s}'",
        ),
        (
            "role: guard,",
            "role: guard, limits: { header_bytes: 10 },",
            "10 }",
            "listeners[0].limits.header_bytes: 10 bytes are out of range",
        ),
        (
            "{ orders: }",
            "{ orders: { fence_action: { command: [\"\"] } } }",
            "[\"\"]",
            "resources.orders.fence_action.command names no program",
        ),
    ] {
        let text = with(from, to);
        assert_eq!(bad(&text), [format!("{}: {what}", at(&text, needle))], "{text}");
    }
    let unlisted = bad(&with("{ orders: }", "{ order: }"));
    assert!(
        unlisted[0].ends_with("listeners[0].resource: 'orders' is not listed under resources (did you mean 'order'?)")
    );
    assert_eq!(unlisted.len(), 2);
}

#[test]
fn listeners_before_one_target_are_one_door() {
    let two = |doors: &str| {
        format!(
            "coordinator: {{ embedded: ./e.db }}\nresources: {{ orders: , jobs: }}\nlisteners:\n\
             - {{ name: a, role: guard, listen: \":0\", upstream: {{ url: \"http://127.0.0.1:1\" }}, target: db, resource: orders, doors: {doors} }}\n\
             - {{ name: b, role: guard, listen: \":0\", upstream: {{ url: \"http://127.0.0.1:1\" }}, target: db, resource: jobs, doors: sole }}\n"
        )
    };
    good(&two("sole"));
    let what =
        "listeners[1].doors: the listeners 'a' and 'b' are one door of the target 'db', and only one of them is shared";
    assert!(bad(&two("shared"))[0].ends_with(what), "{:?}", bad(&two("shared")));
    let half = bad(&two("sole, mode: audit"));
    let what =
        "listeners[1].mode: the listeners 'a' and 'b' are one door of the target 'db', and only one of them enforces";
    assert!(half[0].ends_with(what), "its record would say that all of it enforces: {half:?}");
}

#[test]
fn listening_at_port_0_twice_is_right() {
    let text = SMALL.replace(":8080\"", ":0\"").replace(":8081", ":0").replace("127.0.0.1:0\"", "127.0.0.1:1\"");
    assert_eq!(good(&text).config.listeners.len(), 2);
}

#[test]
fn a_lease_is_in_whole_seconds_and_kept_alive_in_time() {
    for (to, needle, what) in [
        (
            "./e.db, lease_ttl: 2500ms",
            "2500ms",
            "coordinator.lease_ttl: 2.5s is not a whole number of seconds of at least 2s, as leases are",
        ),
        (
            "./e.db, lease_ttl: 1s",
            "1s",
            "coordinator.lease_ttl: 1s is not a whole number of seconds of at least 2s, as leases are",
        ),
        (
            "./e.db, request_timeout: 1600ms",
            "1600ms",
            "coordinator: lease_ttl/3 + 2*request_timeout < lease_ttl*(1-max_drift) - margin does not hold: \
             5s/3 + 2*1.6s = 4.867s is not less than 5s*(1-0.01) - 100ms = 4.85s: a lease could run out between two \
             attempts to keep it alive",
        ),
    ] {
        let text = with("./e.db", to);
        assert_eq!(bad(&text), [format!("{}: {what}", at(&text, needle))]);
    }
    assert!(load_text(&with("./e.db", "./e.db, request_timeout: 1590ms")).is_ok());
    assert!(load_text(&with("./e.db", "./e.db, lease_ttl: 2s")).is_ok());
    // The clock's part of it.
    let drifting = format!("{SMALL}clock: {{ max_drift: 0.3 }}\n");
    assert!(bad(&drifting)[0].contains("is not less than 5s*(1-0.3) - 100ms = 3.4s"), "{drifting}");
}

#[test]
fn a_quarantine_outlasts_what_may_still_run() {
    let upstream = "url: \"http://127.0.0.1:9000\"";
    let longer = with(upstream, &format!("{upstream}, response_timeout: 60s"));
    assert_eq!(
        bad(&longer),
        [format!(
            "{}: listeners[0]: drain.quarantine >= upstream.response_timeout + upstream.send_timeout does not hold: \
             35s is less than 60s + 5s = 65s: a write could still take effect when the drain ends",
            at(&longer, "60s")
        )]
    );
    assert!(load_text(&format!("{longer}drain: {{ quarantine: 65s }}\n")).is_ok());
    assert_eq!(bad(&format!("{longer}drain: {{ quarantine: 64s }}\n")).len(), 1);
    // A resource's own value counts for it.
    let own = longer.replace("{ orders: }", "{ orders: { drain: { quarantine: 65s } } }");
    assert!(load_text(&own).is_ok());
    let own = with("{ orders: }", "{ \"orders\": , \"a/{0..63}\": { drain: { quarantine: 10s } } }");
    assert!(load_text(&own).is_ok(), "nothing names a/0");
    let own = own.replacen("role: guard,", "role: guard, rules: [{ header: { s: \"{s}\" }, resource: \"a/{s}\" }],", 1);
    assert_eq!(
        bad(&own),
        [format!(
            "{}: listeners[0]: resources[\"a/{{0..63}}\"].drain.quarantine >= upstream.response_timeout + \
             upstream.send_timeout does not hold: 10s is less than 30s + 5s = 35s: a write could still take effect when \
             the drain ends",
            at(&own, "10s")
        )]
    );
    // A stamp drains nothing.
    let upstream = "url: \"http://127.0.0.1:8080\"";
    assert!(load_text(&with(upstream, &format!("{upstream}, response_timeout: 60s"))).is_ok());
}

#[test]
fn a_guard_that_closes_reads_often_enough() {
    let closes = with("role: guard,", "role: guard, on_coordinator_loss: close,");
    assert!(load_text(&closes).is_ok());
    let slow = closes.replacen("./e.db", "./e.db, verify_every: 4s", 1);
    assert_eq!(
        bad(&slow),
        [format!(
            "{}: listeners[0]: verify_every + request_timeout < lease_ttl*(1-max_drift) - margin does not hold: 4s + 1s \
             = 5s is not less than 5s*(1-0.01) - 100ms = 4.85s: with `on_coordinator_loss: close` the guard would shut \
             although the coordinator answers",
            at(&slow, "4s")
        )]
    );
}

#[test]
fn a_shorter_lease_gets_a_shorter_call() {
    let config = good(&with("./e.db", "./e.db, lease_ttl: 2s")).config;
    assert_eq!(config.coordinator.request_timeout, Duration::from_millis(400));
    let config = good(&with("./e.db", "./e.db, lease_ttl: 1m")).config;
    assert_eq!(config.coordinator.request_timeout, seconds(1));
}

#[test]
fn warnings_name_what_is_rarely_meant() {
    let text = with("role: guard,", "role: guard, mode: audit,").replacen(
        "role: stamp,",
        "role: stamp, incoming_stamp: strip, on_coordinator_loss: keep,",
        1,
    ) + "drain: { on_timeout: open }\nshutdown: { grace: 1s }\nhold: { timeout: 20s }\n";
    let warnings = good(&text).warnings;
    let found: Vec<_> = warnings.iter().map(|problem| format!("{}: {}", problem.at, problem.what)).collect();
    let expected = [
        ("audit", "listeners[0].mode: audit forwards everything: nothing is fenced here"),
        (
            "strip",
            "listeners[1].incoming_stamp: strip is unsafe: a write meant for an old term leaves under the new one",
        ),
        ("keep", "listeners[1].on_coordinator_loss: keep goes on stamping after the lease has run out"),
        ("open", "drain.on_timeout: open lets a new epoch in although a write of the old one may still land"),
        ("1s", "shutdown.grace (1s) is shorter than drain.timeout (5s)"),
        (
            "20s",
            "hold.timeout (20s) is shorter than drain.quarantine (35s): held writes are refused while a lost write or \
             residue runs out",
        ),
    ];
    assert_eq!(found, expected.map(|(needle, what)| format!("{}: {what}", at(&text, needle))));
    assert_eq!(good(SMALL).warnings.len(), 0, "the defaults hold for less than the quarantine, and nobody wrote that");
}

#[test]
fn many_resources_share_a_label() {
    let config = good(&with("{ orders: }", "{ orders: , \"a/{0..198}\": }")).config;
    assert_eq!(&*config.resources[&"a/7".parse().expect("a name")].label, "a/7");
    let config = good(&with("{ orders: }", "{ orders: , \"a/{0..199}\": }")).config;
    assert_eq!(&*config.resources[&"a/7".parse().expect("a name")].label, "a/{0..199}");
    assert_eq!(&*config.resources[&"orders".parse().expect("a name")].label, "orders");
    let config = good(&with("{ orders: }", "{ orders: , \"a/{0..99998}\": }")).config;
    assert_eq!(config.resources.len(), 100_000);
}

fn flags() -> Overrides {
    Overrides {
        etcd: vec!["http://127.0.0.1:2379".into()],
        listen: Some(":8080".into()),
        upstream: Some("http://127.0.0.1:9000".into()),
        resource: vec!["orders/7".into()],
        ..Overrides::default()
    }
}

fn load_flags(overrides: &Overrides, single: Option<Single>) -> Result<Loaded, Vec<Problem>> {
    load_in(None, overrides, single, &host())
}

#[test]
fn a_single_listener_is_built_from_flags() {
    let config = load_flags(&flags(), Some(Single::Guard)).expect("a configuration").config;
    let (listener, guard) = guard(&config);
    assert_eq!((&*listener.name, &*guard.target), ("guard", "orders-7"));
    assert_eq!(listener.serves, ["orders/7".parse().expect("a name")]);
    assert!(
        matches!(&config.coordinator.kind, CoordinatorKind::Etcd(etcd) if etcd.endpoints == ["http://127.0.0.1:2379"])
    );

    let more = Overrides {
        id: Some("orders-a".into()),
        advertise: Some("http://10.0.0.7:8081".into()),
        on_coordinator_loss: Some("keep".into()),
        admin: Some("none".into()),
        workers: Some("2".into()),
        adopt_floor: true,
        lease_ttl: Some("10s".into()),
        state_dir: Some("/tmp/x".into()),
        audit: Some("stderr".into()),
        log_format: Some("json".into()),
        log_level: Some("debug".into()),
        prefix: Some("/p".into()),
        ..flags()
    };
    let config = load_flags(&more, Some(Single::Stamp)).expect("a configuration").config;
    let (listener, stamp) = stamp(&config);
    assert_eq!((&*listener.name, config.id.as_str(), config.workers), ("stamp", "orders-a", 2));
    assert_eq!(stamp.advertise.as_deref(), Some("http://10.0.0.7:8081"));
    assert!(stamp.keep_on_coordinator_loss && config.adopt_floor);
    assert_eq!((config.admin.listen, config.coordinator.lease_ttl), (None, seconds(10)));
    assert_eq!((config.state_dir.as_path(), config.coordinator.prefix.as_str()), (Path::new("/tmp/x"), "/p/"));
    assert_eq!(
        (config.audit.output, config.log.format, config.log.level),
        (AuditOutput::Stderr, LogFormat::Json, tracing::Level::DEBUG)
    );
}

#[test]
fn problems_of_flags_name_the_flag() {
    let overrides = Overrides {
        id: Some("a b".into()),
        lease_ttl: Some("5".into()),
        mode: Some("enforced".into()),
        workers: Some("many".into()),
        etcd: vec!["127.0.0.1:2379".into()],
        ..Overrides::default()
    };
    let problems = load_flags(&overrides, Some(Single::Guard)).expect_err("problems");
    let found: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.at, problem.what)).collect();
    assert_eq!(
        found,
        [
            "--etcd (EPOCHGATE_ETCD): coordinator.etcd.endpoints[0]: '127.0.0.1:2379' has no scheme",
            "--id (EPOCHGATE_ID): id: 'a b' is no id",
            "--lease-ttl (EPOCHGATE_LEASE_TTL): coordinator.lease_ttl: '5' has no unit",
            "--listen (EPOCHGATE_LISTEN): is missing",
            "--mode (EPOCHGATE_MODE): listeners[0].mode: 'enforced' is not a word that is known here (did you mean 'enforce'?)",
            "--resource (EPOCHGATE_RESOURCE): is missing",
            "--upstream (EPOCHGATE_UPSTREAM): is missing",
            "--workers (EPOCHGATE_WORKERS): workers: 'many' is no number of workers",
        ]
    );
}

#[test]
fn flags_go_over_the_file() {
    let load = |text: &str, overrides: &Overrides| load_in(Some((Path::new("f.yaml"), text)), overrides, None, &host());
    let global =
        Overrides { lease_ttl: Some("9s".into()), etcd: vec!["http://a:1,http://b:2".into()], ..Overrides::default() };
    let config = load(SMALL, &global).expect("a configuration").config;
    assert_eq!(config.coordinator.lease_ttl, seconds(9));
    assert!(matches!(&config.coordinator.kind, CoordinatorKind::Etcd(etcd) if etcd.endpoints.len() == 2));
    let embedded = Overrides { embedded: Some("other.db".into()), ..Overrides::default() };
    let config = load(EXAMPLE, &embedded).expect("a configuration").config;
    assert!(matches!(&config.coordinator.kind, CoordinatorKind::Embedded(path) if path == Path::new("other.db")));

    let problems =
        load(SMALL, &Overrides { listen: Some(":1".into()), ..Overrides::default() }).expect_err("two listeners");
    assert_eq!(
        problems[0].to_string(),
        "--listen (EPOCHGATE_LISTEN): is about one listener, and the file has 2\n  help: write it into the file, at the listener that is meant"
    );
    let one: String = SMALL.lines().take(4).map(|line| format!("{line}\n")).collect();
    let overrides = Overrides {
        resource: vec!["jobs".into()],
        listen: Some("[::1]:1".into()),
        mode: Some("audit".into()),
        ..Overrides::default()
    };
    let config = load(&one, &overrides).expect("a configuration").config;
    let (listener, guard) = guard(&config);
    assert_eq!((listener.listen.to_string().as_str(), guard.mode), ("[::1]:1", Mode::Audit));
    assert_eq!(listener.serves, ["jobs".parse().expect("a name")]);

    let problems =
        load_in(Some((Path::new("f.yaml"), &one)), &flags(), Some(Single::Guard), &host()).expect_err("two sources");
    assert!(problems[0].what.contains("has a listener of its own"), "{}", problems[0]);
}

#[test]
fn a_flag_may_name_a_part_of_a_range() {
    let text = "coordinator: { embedded: e }\nresources: { \"orders/{0..9}\": { drain: { timeout: 7s } } }\n";
    let overrides = Overrides { etcd: Vec::new(), ..flags() };
    let loaded =
        load_in(Some((Path::new("f.yaml"), text)), &overrides, Some(Single::Guard), &host()).expect("a configuration");
    let settings = &loaded.config.resources[&"orders/7".parse().expect("a name")];
    assert_eq!((loaded.config.resources.len(), settings.drain.timeout), (10, seconds(7)));
}

#[test]
fn commands_without_listener_need_none() {
    let config = load_flags(&Overrides { listen: None, upstream: None, ..flags() }, Some(Single::NoListener))
        .expect("a configuration")
        .config;
    assert_eq!((config.listeners.len(), config.resources.len()), (0, 1));
    let loaded = load_in(Some((Path::new("f.yaml"), SMALL)), &Overrides::default(), Some(Single::NoListener), &host());
    assert_eq!(loaded.expect("a configuration").config.listeners.len(), 0);
    let problems = load_flags(&Overrides::default(), None).expect_err("nothing to do");
    assert_eq!(problems.len(), 2, "{}", lines(&problems).join("\n"));
}

#[test]
fn more_resources_than_a_rule_can_name_are_warned_of() {
    let overrides = Overrides { resource: vec!["orders".into(), "jobs".into()], ..flags() };
    let loaded = load_flags(&overrides, Some(Single::Guard)).expect("a configuration");
    assert_eq!(loaded.config.resources.len(), 2);
    assert!(loaded.warnings.iter().any(|warning| warning.what == "no request can name the resource 'jobs'"));
}

#[test]
fn the_exposure_adds_up() {
    let found = exposure(&good(SMALL).config);
    assert_eq!(found.detected.longest, Some(seconds(6)));
    assert_eq!(found.fenced.longest, Some(seconds(6 + 2 + 2)));
    assert_eq!(found.recovered.longest, Some(seconds(10 + 30)));
    assert_eq!(found.recovered_with_residue.longest, Some(seconds(10 + 30 + 35)));
    assert!(found.detected.formula.ends_with("= 6s"), "{}", found.detected.formula);

    let by_hand = format!("{SMALL}drain: {{ by_time: false }}\n");
    assert_eq!(exposure(&good(&by_hand).config).recovered_with_residue.longest, None);
    let forced = format!("{SMALL}drain: {{ by_time: false, on_timeout: open }}\n");
    assert_eq!(exposure(&good(&forced).config).recovered_with_residue.longest, Some(seconds(10 + 5)));
    let stamp_only: String =
        SMALL.lines().filter(|line| !line.contains("guard,")).map(|line| format!("{line}\n")).collect();
    assert_eq!(exposure(&good(&stamp_only).config).recovered.longest, None);
}

#[test]
fn a_file_is_read_up_to_its_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("e.yaml");
    assert!(read_file(&path).expect_err("no file").what.contains("cannot be read"));
    std::fs::write(&path, SMALL).expect("written");
    assert_eq!(read_file(&path).expect("read"), SMALL);
    std::fs::write(&path, [0xff, 0xfe]).expect("written");
    assert_eq!(read_file(&path).expect_err("not UTF-8").what, "the file is not UTF-8");
    let file = std::fs::File::create(&path).expect("made");
    file.set_len(100 << 20).expect("a hundred MiB");
    assert_eq!(read_file(&path).expect_err("too large").what, "the file has more than 1 MiB");
}

/// Values that a file could have anywhere.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("5s".to_owned()),
        Just("5".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("true".to_owned()),
        Just("\"\"".to_owned()),
        Just("orders".to_owned()),
        Just("\"orders/{0..9}\"".to_owned()),
        Just("guard".to_owned()),
        Just(":8080".to_owned()),
        Just("http://a:1".to_owned()),
        Just("*a".to_owned()),
        Just("&a x".to_owned()),
        "[ -~]{0,12}".prop_map(|text| format!("{text:?}")),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = prop_oneof![
            Just("id"),
            Just("coordinator"),
            Just("etcd"),
            Just("endpoints"),
            Just("resources"),
            Just("listeners"),
            Just("name"),
            Just("role"),
            Just("listen"),
            Just("upstream"),
            Just("url"),
            Just("rules"),
            Just("path"),
            Just("resource"),
            Just("header"),
            Just("drain"),
            Just("quarantine"),
            Just("lease_ttl"),
            Just("admin"),
            Just("orders"),
            Just("\"a/{0..99999}\""),
            Just("x"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec((key, inner), 0..6).prop_map(|entries| {
                let entries: Vec<_> = entries.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", entries.join(", "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}|[-:{}\\[\\], \n&*!|>'\"%#?a-c0-9]{0,200}") {
        let _ = load_text(&text);
    }

    #[test]
    fn no_structure_makes_it_panic(text in any_value()) {
        let _ = load_text(&text);
    }

    /// The example with one stretch cut out, doubled, or overwritten.
    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(at in 0usize..3000, length in 0usize..80, put in "[ -~\n]{0,20}", double: bool) {
        let text: Vec<char> = EXAMPLE.chars().collect();
        let (from, to) = (at.min(text.len()), (at + length).min(text.len()));
        let kept = if double { from } else { to };
        let damaged: String = text[..to].iter().copied().chain(put.chars()).chain(text[kept..].iter().copied()).collect();
        let _ = load_text(&damaged);
    }
}
