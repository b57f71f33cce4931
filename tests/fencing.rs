//! `epochgate fence`, for orchestrators: nobody leads any more, and nothing old can land. `epochgate rebase`, for a floor
//! that nobody believes.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::path::PathBuf;

use epochgate::coordinator::keys;
use epochgate::coordinator::records::{Report, to_value};
use epochgate::coordinator::store::{Change, Keys, Range, Txn};
use epochgate::fence::Epoch;
use serde_json::Value;
use support::process::{LONG, Launch, Process, eventually};
use support::terms::orders;
use support::world::{Sidecar, World, answered};

/// The command, for the coordinator that this process has.
fn fence(of: &Sidecar, more: &[&str]) -> Launch {
    let config: &PathBuf = &of.config;
    Launch::epochgate("fence").args(["fence", "--resource", "orders", "-o", "json", "-c"]).arg(config).args(more)
}

#[track_caller]
fn said(ended: &Process) -> Value {
    serde_json::from_str(&ended.stdout()).unwrap_or_else(|error| panic!("{error}: {}", ended.recent()))
}

#[test]
fn a_promotion_is_safe_when_it_returns_and_not_before() {
    let world = World::embedded();
    let guard = world.guard("guard").start();
    let writer = world.stamp("orders-a", guard.address).start();
    let stamp = writer.await_leadership();
    world.upstream.next("/slow", "apply=@slow");
    let slow = writer.write("/slow", None);
    world.await_arrival("/slow");

    let mut waiting = fence(&guard, &["--wait", "--ttl", "30s"]).start();
    waiting.await_words("waiting for guard-", LONG);
    assert!(waiting.is_running() && waiting.stdout().is_empty(), "the old write may still land");
    // What comes before the guard has heard of the new epoch is waited for as well.
    guard.await_gate("it fences", |gate| gate["phase"] == "draining");
    assert_eq!(guard.put("/late", &stamp).refused(), Some("stale_epoch"));
    eventually("the deposed leader knows", LONG, || {
        writer.write("/more", None).join().unwrap().is_ok_and(|answer| answer.refused() == Some("not_leader"))
    });
    world.upstream.open("slow");
    assert_eq!(waiting.wait(LONG).code(), Some(0), "{}", waiting.recent());
    assert_eq!(answered(slow), 200);
    let proof = said(&waiting);
    assert_eq!((&proof["proved"], &proof["deposed"]["id"]), (&true.into(), &"orders-a".into()));
    assert_eq!(proof["doors"][0]["drained"], proof["epoch"]);
    assert_eq!(guard.resource()["leader"], serde_json::json!({"id": "fence", "held": true}), "nobody else is elected");
    eventually("clients are not sent to it", LONG, || {
        let answer = writer.write("/more", None).join().unwrap().unwrap();
        answer.text().contains("held (epochgate fence)") && !answer.text().contains("\"leader\"")
    });

    let mut released = Launch::epochgate("release")
        .args(["fence", "--resource", "orders", "--release", "-c"])
        .arg(&guard.config)
        .start();
    assert_eq!(released.wait(LONG).code(), Some(0), "{}", released.recent());
    assert_ne!(writer.await_leadership(), stamp, "whoever campaigns may lead again, under a new term");
    assert_eq!(world.applied(), ["/slow"]);
}

#[test]
fn released_it_leaves_the_way_free_at_once() {
    let mut world = World::embedded();
    let guard = world.guard("guard").start();
    let (one, first) = world.elect("orders-a");
    guard.await_open(&one);
    let mut fenced = fence(&guard, &["--wait", "--release"]).start();
    assert_eq!(fenced.wait(LONG).code(), Some(0), "{}", fenced.recent());
    assert_eq!(guard.put("/late", &first).refused(), Some("stale_epoch"));
    eventually("nobody holds it", LONG, || guard.resource()["leader"].is_null());
    world.terms.lost();
    let (_, second) = world.elect("orders-b");
    assert_eq!(guard.put("/new", &second).status, 200);
}

#[test]
fn what_cannot_be_proved_is_said_and_is_no_success() {
    let mut world = World::embedded();
    let guard = world.guard("guard").start();
    let audit = world.guard("audit").listener("mode: audit").start();
    let (one, first) = world.elect("orders-a");
    guard.await_open(&one);
    let mut beside = fence(&audit, &["--wait", "--release"]).start();
    assert_eq!(beside.wait(LONG).code(), Some(1), "{}", beside.recent());
    let proof = said(&beside);
    assert_eq!((&proof["proved"], &proof["reason"]), (&false.into(), &"audit_door".into()), "{proof}");
    assert_eq!(guard.put("/on", &first).status, 200, "nothing was elected: the leader leads on");

    // One that comes while it waits is no proof either.
    drop(audit);
    let world = World::embedded();
    let guard = world.guard("guard").start();
    let writer = world.stamp("orders-a", guard.address).start();
    writer.await_leadership();
    world.upstream.next("/slow", "apply=@slow");
    let slow = writer.write("/slow", None);
    world.await_arrival("/slow");
    let mut waiting = fence(&guard, &["--wait", "--release"]).start();
    waiting.await_words("(alive, not drained", LONG);
    guard.await_gate("it fences", |gate| gate["phase"] == "draining");
    let _audit = world.guard("audit").listener("mode: audit").start();
    world.upstream.open("slow");
    assert_eq!(waiting.wait(LONG).code(), Some(1), "{}", waiting.recent());
    assert_eq!(said(&waiting)["reason"], "audit_door", "one that only counts lets everything through");
    assert_eq!(answered(slow), 200);
}

/// A name that nobody knows is a typo: nothing is waited for, and nothing written.
#[test]
fn a_resource_that_nobody_knows_is_refused_before_anything_is_elected() {
    let world = World::embedded();
    let guard = world.guard("guard").start();
    for more in [&["--wait"][..], &[]] {
        let mut typo = Launch::epochgate("typo")
            .args(["fence", "--resource", "order", "-c"])
            .arg(&guard.config)
            .args(more)
            .start();
        assert_eq!(typo.wait(LONG).code(), Some(1), "{}", typo.recent());
        let words = typo.stdout();
        assert!(words.contains("nothing is on record of order") && words.contains("are of orders"), "{words}");
    }
    let key = keys::epoch(&"order".parse().unwrap());
    let ranges = vec![Range::all(Keys::One(key))];
    let read = world.terms.with_store(|store| async move { store.read(ranges).await }).unwrap();
    assert!(read.ranges[0].is_empty(), "no epoch of it is left behind");

    let admin = guard.admin.to_string();
    let args = ["rebase", "--resource", "order", "--to", "5", "--admin", &admin];
    let mut rebase = Launch::epochgate("rebase").args(args).start();
    assert_eq!(rebase.wait(LONG).code(), Some(1));
    let words = rebase.recent();
    assert!(words.contains("nothing is on record of order") && !words.contains("by itself"), "{words}");
}

/// A guard that is only started anew is waited for; the limit, the reason and what ends the hold are said.
#[test]
fn whoever_gives_up_is_told_of_the_hold() {
    let mut world = World::embedded();
    world.elect("orders-a");
    let nobody = world.guard("nobody").prepare();
    let mut alone = fence(&nobody, &["--wait", "--timeout", "300ms", "--ttl", "30s"]).start();
    assert_eq!(alone.wait(LONG).code(), Some(1), "{}", alone.recent());
    assert!(alone.stderr().contains("a guard of the resource that is alive"), "{}", alone.stderr());
    let proof = said(&alone);
    assert_eq!((&proof["reason"], &proof["held_s"]), (&"timeout".into(), &30.into()), "{proof}");

    let words = |more: &[&str]| {
        let args = ["fence", "--resource", "orders", "-c"];
        Launch::epochgate("fence").args(args).arg(&nobody.config).args(more).start()
    };
    let mut stopped = words(&["--wait"]);
    stopped.await_words("waiting for", LONG);
    stopped.terminate();
    assert_eq!(stopped.wait(LONG).code(), Some(1), "{}", stopped.recent());
    let said = stopped.stdout();
    assert!(said.starts_with("not proved: interrupted; no proof yet from a guard of the resource"), "{said}");
    assert!(said.contains("for 60 s; to end that now: epochgate fence --resource orders --release -c"), "{said}");

    let mut elected = words(&[]);
    assert_eq!(elected.wait(LONG).code(), Some(0), "{}", elected.recent());
    assert!(elected.stdout().contains("promote only after --wait"), "{}", elected.stdout());
    assert!(!elected.recent().contains("admitted"), "nobody knows what guards admit: {}", elected.recent());
    let mut released = words(&["--release"]);
    assert_eq!(released.wait(LONG).code(), Some(0), "{}", released.recent());
    assert!(released.stdout().contains("the hold is over"), "{}", released.stdout());
}

#[test]
fn times_that_no_lease_can_have_are_usage() {
    let world = World::embedded();
    let guard = world.guard("guard").prepare();
    for ttl in ["1s", "2500ms", "soon"] {
        let mut refused = fence(&guard, &["--ttl", ttl]).start();
        assert_eq!(refused.wait(LONG).code(), Some(2), "{ttl}: {}", refused.recent());
    }
}

#[test]
fn a_floor_beyond_belief_stops_elections_until_an_operator_names_it() {
    let world = World::embedded();
    let guard = world.guard("guard").start();
    let report = Report {
        floor: Epoch::new(4_000_042).unwrap(),
        nonce: epochgate::fence::Nonce::from_bytes([9; 8]),
        writer: "orders-z".parse().unwrap(),
        drained: None,
        forced: None,
        regressed: false,
    };
    let put = Change::Put { key: keys::report(&orders(), "orders", "old-1"), value: to_value(&report), lease: None };
    let txn = Txn { compares: vec![], changes: vec![put] };
    world.terms.with_store(|store| async move { store.commit(txn).await }).unwrap();
    let mut writer = world.stamp("orders-a", guard.address).start();
    writer.process().await_words("no election: a floor on record", LONG);
    let mut stuck = fence(&guard, &["--wait"]).start();
    assert_eq!(stuck.wait(LONG).code(), Some(1));
    assert!(stuck.stderr().contains("epochgate rebase --resource orders --to 4000042"), "{}", stuck.stderr());

    let rebase = |to: &str| {
        let admin = guard.admin.to_string();
        let mut asked =
            Launch::epochgate("rebase").args(["rebase", "--resource", "orders", "--to", to, "--admin", &admin]).start();
        (asked.wait(LONG).code(), asked.recent())
    };
    let (code, words) = rebase("5");
    assert!(code == Some(1) && words.contains("4000042"), "{words}");
    assert_eq!(rebase("4000042").0, Some(0));
    let stamp = writer.await_leadership();
    assert!(stamp.starts_with("4000043;"), "{stamp}");
    let (code, words) = rebase("4000042");
    assert!(code == Some(1) && words.contains("goes above it by itself"), "{words}");
}
