//! etcd, a Redis, a guard before it, two writers beside it, of which A leads.

use std::net::SocketAddr;

use super::support::etcd::Etcd;
use super::support::redis::Redis;
use super::support::sidecar::{self, QUARANTINE, Setup, Sidecar, etcd};

pub struct World {
    pub a: Sidecar,
    pub b: Sidecar,
    pub guard: Sidecar,
    pub redis: Redis,
    pub stamp_of_a: String,
    _etcd: Etcd,
}

/// A guard before a Redis at this address, with this of its own connection to it (`{}`, or who it is).
pub fn guard(etcd: &str, redis: SocketAddr, control: Option<&str>) -> Setup {
    let control = control.map(|control| format!(", control: {control}")).unwrap_or_default();
    let times = "response_timeout: 1s, send_timeout: 1s";
    let setup = sidecar::guard("guard", etcd, &format!("redis://{redis}")).listener("protocol: redis");
    let drain = format!("drain: {{ timeout: 1s, quarantine: {}ms }}", QUARANTINE.as_millis());
    setup.listener(&format!("upstream: {{ url: \"redis://{redis}\", {times}{control} }}")).top(&drain)
}

pub fn stamp(id: &str, etcd: &str, guard: SocketAddr) -> Setup {
    let setup = sidecar::stamp(id, etcd, guard).listener("protocol: redis");
    setup.listener(&format!("upstream: {{ url: \"redis://{guard}\" }}"))
}

impl World {
    pub fn start() -> World {
        World::with(Redis::start(), Some("{}"))
    }

    pub fn with(redis: Redis, control: Option<&str>) -> World {
        let etcd = etcd();
        let guard = guard(etcd.url(), redis.address, control).start();
        let a = stamp("orders-a", etcd.url(), guard.address).start();
        let stamp_of_a = a.await_leadership();
        let b = stamp("orders-b", etcd.url(), guard.address).start();
        World { a, b, guard, redis, stamp_of_a, _etcd: etcd }
    }

    /// Stops A's sidecar, and waits until B leads.
    pub fn fail_over(&mut self) {
        self.a.process().pause();
        self.b.await_leadership();
    }
}
