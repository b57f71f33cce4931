//! A leader that stands still and wakes too late: whatever it had begun, remembered or queued, nothing of it is
//! applied after the new leader's write.
//!
//! Real processes: etcd, nginx with WebDAV as the target, a guard, two stamps. A's sidecar is stopped (SIGSTOP) for
//! three lease times; B is elected and writes; A wakes.

mod support;

use std::fs;
use std::path::Path;
use std::time::Instant;

use support::client::Connection;
use support::etcd::Etcd;
use support::history;
use support::nginx::Nginx;
use support::process::{LONG, eventually};
use support::sidecar::{Setup, Sidecar, TTL, assert_refused, epoch_of, etcd, guard, stamp};

const PATH: &str = "/orders/latest";

/// etcd, nginx, a guard and two writers, of which A leads and has written.
struct World {
    a: Sidecar,
    b: Sidecar,
    guard: Sidecar,
    nginx: Nginx,
    _etcd: Etcd,
    stamp_of_a: String,
}

impl World {
    fn start() -> World {
        World::with_stamp(|stamp| stamp)
    }

    /// With one thing different about A's sidecar.
    fn with_stamp(change: impl Fn(Setup) -> Setup) -> World {
        let (etcd, nginx) = (etcd(), Nginx::start());
        let guard = guard("guard", etcd.url(), &nginx.url()).start();
        let a = change(stamp("orders-a", etcd.url(), guard.address)).start();
        let stamp_of_a = a.await_leadership();
        let b = stamp("orders-b", etcd.url(), guard.address).start();
        assert_eq!(a.put(PATH, "bytes of A").status, 201);
        World { a, b, guard, nginx, _etcd: etcd, stamp_of_a }
    }

    /// Stops A's sidecar until three lease times have passed, and B was elected and has written.
    fn fail_over(&mut self) {
        self.a.process().pause();
        let stopped = Instant::now();
        let stamp_of_b = self.b.await_leadership();
        assert!(epoch_of(&stamp_of_b) > epoch_of(&self.stamp_of_a), "{stamp_of_b}");
        let took = stopped.elapsed();
        assert_eq!(self.b.put(PATH, "bytes of B").status, 204);
        eprintln!("B led and was armed {took:?} after A stopped");
        std::thread::sleep((TTL * 3).saturating_sub(stopped.elapsed()));
    }

    #[track_caller]
    fn assert_bytes_of_b(&self) {
        assert_eq!(self.nginx.stored(PATH).as_deref(), Some(&b"bytes of B"[..]));
    }

    /// The same by what the processes recorded.
    #[track_caller]
    fn assert_rules_kept(&self) {
        let lines = history::of_files([&self.guard, &self.a, &self.b].map(Sidecar::history_file));
        assert_eq!(history::assert_rules_kept(&lines).counts.opened, 2);
    }
}

#[test]
fn a_write_through_the_old_leader_is_refused_from_the_moment_it_wakes() {
    let mut world = World::start();
    let mut kept = Connection::open(world.a.address).unwrap();
    assert_eq!(kept.request("PUT", PATH, &[], b"kept").unwrap().status, 204);
    world.fail_over();

    // Both wait in A's sockets when it wakes: it has to know before anybody tells it.
    let head = [("Content-Length", "4")];
    kept.send_head("PUT", PATH, &head).unwrap();
    kept.send(b"late").unwrap();
    let mut new = Connection::open(world.a.address).unwrap();
    new.send_head("PUT", PATH, &head).unwrap();
    new.send(b"late").unwrap();
    world.a.process().resume();
    for connection in [&mut kept, &mut new] {
        assert_refused(&connection.answer().unwrap(), 421, &["not_leader", "term_changed"], "not_applied");
        world.assert_bytes_of_b();
    }

    // It learns who leads now, and says so.
    eventually("A names B", LONG, || {
        let refused = world.a.put(PATH, "late");
        let body = assert_refused(&refused, 421, &["not_leader"], "not_applied");
        body["leader"]["id"] == "orders-b"
    });
    if let Ok(answer) = kept.request("PUT", PATH, &[], b"later") {
        assert_refused(&answer, 421, &["not_leader", "term_changed"], "not_applied");
    }
    world.assert_bytes_of_b();
    world.assert_rules_kept();
}

#[test]
fn the_last_stamp_of_the_old_leader_is_refused_at_the_guard_with_both_epochs() {
    let mut world = World::start();
    world.fail_over();
    // Before A wakes, and after: who sends it does not matter.
    for _ in 0..2 {
        let refused = world.guard.put_stamped(PATH, "late", &world.stamp_of_a);
        let body = assert_refused(&refused, 412, &["stale_epoch"], "not_applied");
        assert_eq!(body["epoch"], epoch_of(&world.stamp_of_a).to_string(), "{body}");
        assert_eq!(body["required_epoch"], epoch_of(&world.b.await_leadership()).to_string(), "{body}");
        assert_eq!((&body["writer"], &body["resource"]), (&"orders-a".into(), &"orders".into()), "{body}");
        world.assert_bytes_of_b();
        world.a.process().resume();
    }
    let series = "epochgate_stale_write_rejections_total{listener=\"guard\",resource=\"orders\"}";
    assert!(world.guard.metric(series) >= 2.0);
    world.assert_rules_kept();
}

#[test]
fn an_upload_that_was_under_way_is_cut_and_its_client_is_told_that_nobody_knows() {
    // It stands still for longer than a client may send nothing: that is not the client's doing.
    let mut world = World::with_stamp(|stamp| stamp.listener("limits: { body_idle_timeout: 1s }"));
    let mut slow = Connection::open(world.a.address).unwrap();
    slow.send_head("PUT", PATH, &[("Content-Length", "1000000")]).unwrap();
    slow.send(&[b'A'; 100_000]).unwrap();
    let arriving = world.nginx.file("../body_temp");
    eventually("the upload reaches nginx", LONG, || has_bytes(&arriving));
    world.fail_over();
    world.assert_bytes_of_b();

    world.a.process().resume();
    let refused = slow.answer().unwrap();
    assert_refused(&refused, 502, &["fenced_in_flight"], "unknown");
    // What is left of it reaches nobody.
    let _ = slow.send(&[b'A'; 900_000]);
    eventually("nginx has dropped what it had of it", LONG, || !has_bytes(&arriving));
    world.assert_bytes_of_b();
    world.assert_rules_kept();
}

/// Whether any file in this folder, at any depth, has a byte.
fn has_bytes(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| entry.path())
        .any(|path| if path.is_dir() { has_bytes(&path) } else { path.metadata().is_ok_and(|about| about.len() > 0) })
}
