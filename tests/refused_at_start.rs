//! What goes wrong at the start, or is already wrong then: refused by name where it can only get worse, said and
//! waited out where it may get better.

mod support;

use std::fs;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::nginx::Nginx;
use support::ports;
use support::process::{LONG, Launch, eventually, eventually_some};
use support::sidecar::{Sidecar, TTL, assert_refused, epoch_of, etcd, guard, stamp, text, wait_for};
use support::upstream::Upstream;

/// Nobody listens there.
fn nowhere() -> String {
    format!("http://{}", ports::free_address())
}

/// A second process that cannot start: how it ended, and what it said.
#[track_caller]
fn cannot_start(second: &Sidecar, code: i32) -> String {
    let mut process = second.launch().run(LONG);
    let said = process.stderr();
    assert_eq!(process.wait(LONG).code(), Some(code), "{said}");
    said
}

mod what_is_taken {
    use super::*;

    #[test]
    fn a_listener_s_port_and_the_admin_side_s() {
        let first = guard("guard-1", &nowhere(), &nowhere()).start();
        let listen = format!("listen: {}", first.address);
        let said = cannot_start(&guard("guard-2", &nowhere(), &nowhere()).listener(&listen).prepare(), 69);
        assert!(said.contains("listener guard") && said.contains(&first.address.to_string()), "{said}");

        let admin = format!("admin: {{ listen: {} }}", first.admin);
        let said = cannot_start(&guard("guard-2", &nowhere(), &nowhere()).top(&admin).prepare(), 69);
        assert!(said.contains("admin") && said.contains(&first.admin.to_string()), "{said}");
    }

    #[test]
    fn a_state_directory() {
        let mut first = guard("guard-1", &nowhere(), &nowhere()).start();
        let state_dir = first.state_dir().display().to_string();
        let second = guard("guard-2", &nowhere(), &nowhere()).top(&format!("state_dir: {state_dir}")).prepare();
        let said = cannot_start(&second, 69);
        let process = format!("process {}", first.process().id());
        assert!(said.contains(&state_dir) && said.contains(&process), "{said}");
    }

    #[test]
    fn a_writer_s_id_once_it_was_seen_renewed_for_two_lease_times() {
        let (etcd, upstream) = (etcd(), Upstream::start());
        let guard = guard("guard", etcd.url(), &upstream.url()).start();
        let first = stamp("orders-a", etcd.url(), guard.address).start();
        let term = first.await_leadership();
        let began = Instant::now();
        let said = cannot_start(&stamp("orders-a", etcd.url(), guard.address).prepare(), 69);
        assert!(began.elapsed() >= TTL * 2, "too soon to know: {:?}", began.elapsed());
        assert!(said.contains("as writer orders-a") && said.contains("--id"), "{said}");
        assert_eq!(first.await_leadership(), term, "the first one goes on");
        assert_eq!(first.put("/orders/1", "x").status, 200);
    }

    #[test]
    fn but_not_the_id_of_a_writer_that_was_killed_and_is_started_again() {
        let (etcd, upstream) = (etcd(), Upstream::start());
        let guard = guard("guard", etcd.url(), &upstream.url()).start();
        let mut writer = stamp("orders-a", etcd.url(), guard.address).start();
        let before = writer.await_leadership();
        writer.kill();
        writer.start();
        let after = writer.await_leadership();
        assert!(epoch_of(&after) > epoch_of(&before), "a new process, a new term: {after}");
        assert_eq!(writer.put("/orders/1", "x").status, 200);
    }
}

#[test]
fn a_configuration_with_mistakes_is_refused_with_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("epochgate.yaml");
    let lines = [
        "id: \"not an id\"",
        "state_dir: ./state",
        "coordinator:",
        "  etcd: { endpoints: [\"127.0.0.1:2379\"] }",
        "  lease_ttl: 1s",
        "resources: { orders: {} }",
        "colour: red",
        "drain: { quarantine: 2s }",
        "listeners:",
        "  - name: guard",
        "    role: route",
        "    protocol: http",
        "    listen: nowhere",
        "    upstream: { url: \"http://127.0.0.1:9000\" }",
        "    resource: parcels",
        "    doors: shared",
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    let mut process = Launch::epochgate("mistaken").args(["run", "-c"]).arg(&path).run(LONG);
    let said = process.stderr();
    assert_eq!(process.wait(LONG).code(), Some(78), "{said}");
    for (number, line) in [(1, "id"), (4, "endpoints"), (5, "lease_ttl"), (7, "colour"), (11, "role"), (13, "listen")] {
        let place = format!("epochgate.yaml:{number}:");
        assert!(said.contains(&place), "nothing of line {number} ({line}) in:\n{said}");
    }
}

#[test]
fn a_second_process_of_a_living_writers_id_ends_and_says_so() {
    let (etcd, upstream) = (etcd(), Upstream::start());
    let guard = guard("guard", etcd.url(), &upstream.url()).start();
    let first = stamp("orders-a", etcd.url(), guard.address).start();
    first.await_leadership();
    let mut second = stamp("orders-a", etcd.url(), guard.address).start();
    let ended = second.process().wait(LONG);
    assert_eq!(ended.code(), Some(69), "{}", second.process().recent());
    assert!(second.process().stderr().contains("give each its own id"), "{}", second.process().recent());
    assert_eq!(first.put("/orders/1", "undisturbed").status, 200);
}

#[test]
fn with_etcd_out_of_reach_it_starts_says_so_and_becomes_ready_when_etcd_comes() {
    let (mut etcd, upstream) = (etcd(), Upstream::start());
    etcd.kill();
    let mut guard = guard("guard", etcd.url(), &upstream.url()).start();
    let mut writer = stamp("orders-a", etcd.url(), guard.address).start();
    guard.process().await_words("does not answer", LONG);
    writer.process().await_words("does not answer", LONG);

    let ready = guard.readiness();
    assert!(ready.status == 503 && ready.text().contains("does not answer"), "{}", ready.text());
    assert_eq!(writer.readiness().status, 200, "a standby can answer");
    assert_refused(&writer.put("/orders/1", "early"), 421, &["not_leader"], "not_applied");
    let refused = guard.put_stamped("/orders/1", "early", "1");
    assert_refused(&refused, 503, &["unverifiable", "gate_shut"], "not_applied");
    assert!(refused.header("retry-after").is_some());

    wait_for(etcd.restart());
    writer.await_leadership();
    assert_eq!(guard.readiness().status, 200);
    assert_eq!(writer.put("/orders/1", "in time").status, 200);
    assert_eq!(upstream.applied().len(), 1);
}

#[test]
fn a_killed_guard_serves_the_epoch_of_its_floor_file_while_etcd_is_away() {
    let (mut etcd, upstream) = (etcd(), Upstream::start());
    let mut guard = guard("guard", etcd.url(), &upstream.url()).start();
    let mut writer = stamp("orders-a", etcd.url(), guard.address).start();
    writer.await_leadership();
    writer.kill();
    writer.start();
    let term = writer.await_leadership();
    assert_eq!(writer.put("/orders/1", "before").status, 200);
    let epoch = epoch_of(&term);
    assert!(epoch > 1, "there is a lower one");

    etcd.kill();
    guard.kill();
    guard.start();
    eventually("it admits the epoch", LONG, || guard.put_stamped("/orders/1", "after", &term).status == 200);
    let higher = guard.put_stamped("/orders/1", "x", &(epoch + 1).to_string());
    assert_refused(&higher, 503, &["unverifiable"], "not_applied");
    let lower = guard.put_stamped("/orders/1", "x", &(epoch - 1).to_string());
    assert_refused(&lower, 412, &["stale_epoch"], "not_applied");
    assert_eq!(guard.readiness().status, 200);
    assert_eq!(&upstream.stored("/orders/1").unwrap()[..], b"after");
}

#[test]
fn with_the_target_down_a_write_is_refused_as_not_applied() {
    let (etcd, mut nginx) = (etcd(), Nginx::start());
    let guard = guard("guard", etcd.url(), &nginx.url()).start();
    let writer = stamp("orders-a", etcd.url(), guard.address).start();
    let term = writer.await_leadership();
    nginx.process.kill();
    assert_refused(&guard.put_stamped("/orders/1", "x", &term), 502, &["upstream_unreachable"], "not_applied");
    assert_refused(&writer.put("/orders/1", "x"), 502, &["upstream_unreachable"], "not_applied");
    assert_eq!(guard.resource()["gate"]["lost"], 0, "nothing has left, nothing is waited for");
}

/// A disk that takes nothing more, as far as one process is concerned: no file may get a byte from it.
struct FullDisk(Pid);

impl FullDisk {
    /// A launch whose process is told of it by an error, and not killed by the signal that the limit comes with.
    fn launch(guard: &Sidecar) -> Launch {
        let shell = Launch::program("sh").named("guard").args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
        shell.args([env!("CARGO_BIN_EXE_epochgate"), "run", "-c"]).arg(guard.config())
    }

    fn under(guard: &mut Sidecar) -> FullDisk {
        let id = i32::try_from(guard.process().id()).ok();
        let disk = FullDisk(id.and_then(Pid::from_raw).expect("a process has an id"));
        disk.limit(Some(0));
        disk
    }

    fn end(self) {
        self.limit(None);
    }

    fn limit(&self, current: Option<u64>) {
        let limited = prlimit(Some(self.0), Resource::Fsize, Rlimit { current, maximum: None });
        limited.expect("the limit of a child can be set");
    }
}

#[test]
fn where_the_floor_file_cannot_be_written_the_new_epoch_is_not_admitted_and_it_says_so() {
    let (etcd, upstream) = (etcd(), Upstream::start());
    let setup = guard("guard", etcd.url(), &upstream.url()).top("hold: { timeout: 500ms }");
    let mut guard = setup.top("audit: { output: stdout }").top("history: null").prepare();
    guard.start_by(FullDisk::launch(&guard));
    let mut a = stamp("orders-a", etcd.url(), guard.address).start();
    let stamp_of_a = a.await_leadership();
    let b = stamp("orders-b", etcd.url(), guard.address).start();
    assert_eq!(a.put("/orders/1", "old").status, 200);

    let disk = FullDisk::under(&mut guard);
    a.kill();
    let epoch_of_b = eventually_some("B is elected", LONG, || {
        let resource = b.resource();
        (resource["leader"]["id"] == "orders-b").then(|| text(&resource["epoch"]))
    });
    let failures = "epochgate_floor_write_failures_total{resource=\"orders\"}";
    eventually("the write fails", LONG, || guard.metric(failures) > 0.0);
    let ready = guard.readiness().text();
    assert!(ready.contains("floor-file") && ready.contains("cannot be written"), "{ready}");
    guard.process().await_words("cannot be written", LONG);

    assert_refused(&guard.put_stamped("/orders/1", "late", &stamp_of_a), 412, &["stale_epoch"], "not_applied");
    let refused = guard.put_stamped("/orders/1", "new", &epoch_of_b);
    assert_refused(&refused, 503, &["gate_shut", "hold_timeout"], "not_applied");
    assert!(!b.leads(), "not armed before the guard has opened");
    assert_eq!(&upstream.stored("/orders/1").unwrap()[..], b"old");

    disk.end();
    b.await_leadership();
    assert_eq!(b.put("/orders/1", "new").status, 200);
    let ready = guard.readiness();
    assert!(ready.status == 200 && !ready.text().contains("cannot be written"), "{}", ready.text());
    upstream.assert_epochs_never_decrease();
}
