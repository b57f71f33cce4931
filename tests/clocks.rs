//! Clocks that are wrong: the wall clock of each process by days, and going to and fro; the boot-time clocks of two
//! processes by weeks. No decision depends on the wall clock, and none on how two hosts' clocks compare.
//!
//! The wall clock is set wrong by a small library that is loaded before libc's (`support/wrong_clock.c`, compiled here
//! by the compiler that links Rust programs). Boot-time clocks need a time namespace, and so a permission.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::process::{LONG, Launch, eventually};
use support::sidecar::{Sidecar, TTL, assert_refused, epoch_of, etcd, guard, stamp};
use support::upstream::Upstream;

/// The library; it lives as long as the folder.
fn wrong_clock(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/wrong_clock.c");
    let library = folder.join("wrong_clock.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc, which links Rust programs, compiles");
    library
}

/// etcd, a target, a guard and two writers, each started by what `launch` makes of its usual start; a leader that
/// stands still is replaced, and stamps nothing when it wakes.
fn a_failover_as_ever(launch: impl Fn(&str, Launch) -> Launch, check: impl Fn(&Sidecar)) {
    let (etcd, upstream) = (etcd(), Upstream::start());
    let begin = |mut sidecar: Sidecar| {
        let usual = sidecar.launch();
        let id = sidecar.id.clone();
        sidecar.start_by(launch(&id, usual));
        check(&sidecar);
        sidecar
    };
    let guard = begin(guard("guard", etcd.url(), &upstream.url()).prepare());
    let mut a = begin(stamp("orders-a", etcd.url(), guard.address).prepare());
    let first = a.await_leadership();
    let b = begin(stamp("orders-b", etcd.url(), guard.address).prepare());
    assert_eq!(a.put("/orders/1", "of A").status, 200);
    // It holds its term for longer than a lease: keep-alives count, not the time of day.
    std::thread::sleep(TTL * 2);
    assert_eq!(a.put("/orders/1", "of A, later").status, 200);
    assert_eq!(epoch_of(&a.await_leadership()), epoch_of(&first), "nobody lost the lead");

    a.process().pause();
    let stopped = Instant::now();
    let second = b.await_leadership();
    assert!(epoch_of(&second) > epoch_of(&first));
    assert_eq!(b.put("/orders/1", "of B").status, 200);
    std::thread::sleep((TTL * 2).saturating_sub(stopped.elapsed()));
    a.process().resume();
    assert_refused(&a.put("/orders/1", "late"), 421, &["not_leader", "term_changed"], "not_applied");
    assert_refused(&guard.put_stamped("/orders/1", "late", &first), 412, &["stale_epoch"], "not_applied");
    eventually("A names B", LONG, || a.put("/orders/1", "late").text().contains("orders-b"));
    assert_eq!(&upstream.stored("/orders/1").expect("written")[..], b"of B");
    upstream.assert_epochs_never_decrease();
}

#[test]
fn wall_clocks_that_are_wrong_by_days_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = wrong_clock(folder.path());
    let started = |sidecar: &Sidecar| -> jiff::Timestamp {
        let status = support::client::get(sidecar.admin, "/api/v1/status").expect("it answers").json();
        status["started"].as_str().and_then(|time| time.parse().ok()).expect("it says when it started")
    };
    let wrong = |id: &str| match id {
        "guard" => "2592000",
        "orders-a" => "-2592000",
        _ => "3600",
    };
    let by_days = |id: &str, launch: Launch| launch.env("LD_PRELOAD", &library).env("WRONG_BY", wrong(id));
    a_failover_as_ever(by_days, |sidecar| {
        let off = started(sidecar).duration_since(jiff::Timestamp::now()).as_secs();
        let meant: i64 = wrong(&sidecar.id).parse().expect("a number");
        assert!((off - meant).abs() < 600, "{} believes that it is {off} s from now", sidecar.id);
    });
}

#[test]
fn wall_clocks_that_jump_to_and_fro_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = wrong_clock(folder.path());
    let jumping =
        |_: &str, launch: Launch| launch.env("LD_PRELOAD", &library).env("WRONG_BY", "3600").env("JUMPS", "1");
    a_failover_as_ever(jumping, |_| {});
}

#[test]
fn boot_time_clocks_that_differ_by_weeks_change_nothing() {
    let permitted = Command::new("unshare").args(["--time", "--boottime", "1", "true"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        println!("LEFT OUT: a time namespace cannot be made here");
        return;
    }
    let weeks = |id: &str, launch: Launch| match id {
        "guard" => launch,
        "orders-a" => launch.under("unshare", &["--time", "--boottime", "3000000", "--monotonic", "5000000"]),
        _ => launch.under("unshare", &["--time", "--boottime", "600000", "--monotonic", "700000"]),
    };
    a_failover_as_ever(weeks, |sidecar| {
        eventually("it has written its start", LONG, || !sidecar.history("started").is_empty());
        let at = sidecar.history("started")[0]["at"].as_u64().expect("a time") / 1_000_000_000;
        let here =
            u64::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec).expect("positive");
        let least = match &*sidecar.id {
            "guard" => 0,
            "orders-a" => 3_000_000,
            _ => 600_000,
        };
        assert!((least..=least + here + 10).contains(&at), "{}: {at}", sidecar.id);
    });
}
