//! Listeners of sessions in the file.

use super::*;

/// One guard of `protocol`, with these more keys of its own and of its upstream.
fn listener(protocol: &str, url: &str, own: &str, upstream: &str) -> String {
    format!(
        "coordinator: {{ embedded: ./e.db }}\nresources: {{ orders: }}\nlisteners:\n  - {{ name: db, role: guard, \
         protocol: {protocol}, listen: \":5433\", resource: orders, {own}\n      upstream: {{ url: \"{url}\", {upstream} }} }}\n"
    )
}

#[test]
fn what_says_nothing_of_this_protocol_is_refused_by_name() {
    const PG: (&str, &str) = ("postgres", "postgres://127.0.0.1:5432");
    const REDIS: (&str, &str) = ("redis", "redis://127.0.0.1:6379");
    const TCP: (&str, &str) = ("tcp", "tcp://127.0.0.1:3306");
    const HTTP: (&str, &str) = ("http", "http://127.0.0.1:9000");
    for ((protocol, url), own, upstream, what) in [
        (PG, "fence_reads: true,", "", "listeners[0].fence_reads: it is a key for protocol: http"),
        (TCP, "limits: { streams: 5 },", "", "limits.streams: it is a key for protocol: http"),
        (REDIS, "", "idle_timeout: 5s,", "upstream.idle_timeout: it is a key for protocol: http"),
        (
            REDIS,
            "signatures: { keys: [ { kid: k1, file: a } ] },",
            "",
            "signatures: signed stamps are not in this version for redis",
        ),
        (TCP, "stale: refuse,", "", "stale: it is a key for protocol: postgres or redis"),
        (HTTP, "", "control: {},", "upstream.control: it is a key for protocol: postgres or redis"),
        (REDIS, "", "control: { database: orders },", "control.database: Redis has no such thing"),
        (REDIS, "", "control: { schema: orders },", "control.schema: Redis has no such thing"),
        (("postgres", "unix:/run/pg"), "", "control: {},", "control: behind a unix socket sessions have no address"),
        (("postgres", "http://127.0.0.1:5432"), "", "", "upstream.url: the listener speaks postgres, and"),
        (("http", "redis://127.0.0.1:6379"), "", "", "upstream.url: the listener speaks http, and"),
        (("redis", "tcp://127.0.0.1:6379"), "", "", "upstream.url: the listener speaks redis, and"),
    ] {
        let found = bad(&listener(protocol, url, own, upstream));
        assert!(found.len() == 1 && found[0].contains(what), "{what}\n{found:?}");
    }
}

#[test]
fn a_stamp_has_no_control_connection() {
    let text =
        listener("postgres", "postgres://127.0.0.1:5433", "", "control: {},").replace("role: guard", "role: stamp");
    let found = bad(&text);
    assert!(found.len() == 1 && found[0].contains("upstream.control: a stamp has no target of its own"), "{found:?}");
}

#[test]
fn each_protocol_has_its_own_way_with_what_is_stale() {
    let of = |protocol, url, own| {
        let loaded = good(&listener(protocol, url, own, ""));
        (loaded.config.listeners[0].stale, loaded.config.listeners[0].proxy_protocol.is_some())
    };
    assert_eq!(of("redis", "redis://127.0.0.1:6379", ""), (Stale::ReadOnly, true));
    assert_eq!(of("redis", "redis://127.0.0.1:6379", "stale: refuse,"), (Stale::Refuse, true));
    assert_eq!(of("postgres", "postgres://127.0.0.1:5432", ""), (Stale::Refuse, true));
    assert_eq!(of("tcp", "tcp://127.0.0.1:3306", ""), (Stale::Refuse, true), "stamps of this host are believed");
    assert_eq!(of("http", "http://127.0.0.1:9000", ""), (Stale::Refuse, false));
}
