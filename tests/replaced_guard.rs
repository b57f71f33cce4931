//! A sole guard is replaced while it is only cut off from etcd: it still serves the epoch that it has, so its
//! replacement stays shut and names it, until an operator says that it is dead (DESIGN 3.5).

mod support;

use std::time::Instant;

use support::etcd::Etcd;
use support::link::Link;
use support::process::{LONG, eventually};
use support::sidecar::{QUARANTINE, Sidecar, assert_refused, etcd, guard, stamp};
use support::upstream::Upstream;

/// A writer that leads, the guard that it writes through, cut off from etcd, and the guard that is to replace it.
struct World {
    writer: Sidecar,
    old: Sidecar,
    new: Sidecar,
    upstream: Upstream,
    link: Link,
    stamp: String,
    _etcd: Etcd,
}

impl World {
    fn start() -> World {
        let (etcd, upstream) = (etcd(), Upstream::start());
        let server = etcd.url().trim_start_matches("http://").parse().expect("the URL is of an address");
        let link = Link::to(server);
        let old = guard("guard-old", &link.url(), &upstream.url()).start();
        let writer = stamp("orders-a", etcd.url(), old.address).start();
        let stamp = writer.await_leadership();
        assert_eq!(writer.put("/orders/1", "before").status, 200);
        link.cut();
        eventually("it notices", LONG, || old.metric("epochgate_coordinator_up") == 0.0);
        let new = guard("guard-new", etcd.url(), &upstream.url()).start();
        new.await_phase("blocked");
        World { writer, old, new, upstream, link, stamp, _etcd: etcd }
    }

    /// An operator says of a door that it is dead.
    fn forget(&self, door: &str) -> Instant {
        let at = Instant::now();
        let mut forget = self.new.operate(&["doors", "forget", door]);
        assert_eq!(forget.wait(LONG).code(), Some(0), "{}", forget.stderr());
        at
    }

    /// A write with the leader's stamp, past its sidecar.
    fn put_at(&self, guard: &Sidecar, body: &str) -> support::client::Answer {
        guard.put_stamped("/orders/1", body, &self.stamp)
    }
}

#[test]
fn its_replacement_stays_shut_and_names_it_while_it_goes_on() {
    let world = World::start();
    let door = world.old.door();
    // Long after its session has run out.
    let alive = || world.new.resource()["doors"][0]["alive"].clone();
    eventually("the old door's sign of life is gone", LONG, || alive() == false);
    assert_eq!(world.writer.put("/orders/1", "during").status, 200, "the old one serves the epoch that it has");

    let refused = world.put_at(&world.new, "late");
    let body = assert_refused(&refused, 503, &["gate_shut"], "not_applied");
    assert_eq!(body["blocked_by"], door.as_str(), "{body}");
    let ready = world.new.readiness();
    assert!(ready.status == 503 && ready.text().contains(&door), "{}", ready.text());
    let listed = world.new.operate(&["doors", "list"]).stdout();
    assert!(listed.contains(&door), "{listed}");
    assert_eq!(&world.upstream.stored("/orders/1").unwrap()[..], b"during");
}

#[test]
fn once_it_is_forgotten_its_quarantine_is_waited_out_and_the_replacement_opens() {
    let mut world = World::start();
    let door = world.old.door();
    world.old.kill();
    let forgotten = world.forget(&door);
    eventually("the new guard admits the epoch", LONG, || world.put_at(&world.new, "after").status == 200);
    assert!(forgotten.elapsed() >= QUARANTINE, "what the old one forwarded may still land: {:?}", forgotten.elapsed());
    let doors = world.new.resource()["doors"].clone();
    assert_eq!(doors.as_array().map(Vec::len), Some(1), "the old record is gone: {doors}");
    assert_eq!(doors[0]["id"], world.new.door().as_str());
}

#[test]
fn one_that_was_forgotten_alive_shuts_as_soon_as_it_reaches_etcd_again() {
    let world = World::start();
    let door = world.old.door();
    world.forget(&door);
    eventually("the new guard admits the epoch", LONG, || world.put_at(&world.new, "after").status == 200);
    world.link.mend();
    eventually("the old one shuts", LONG, || {
        let answer = world.put_at(&world.old, "late");
        answer.refused() == Some("gate_shut") && answer.json()["blocked_by"] == world.new.door().as_str()
    });
    assert_eq!(world.old.phase(), "blocked");
    assert_eq!(world.put_at(&world.new, "last").status, 200);
    assert_eq!(&world.upstream.stored("/orders/1").unwrap()[..], b"last");
}
