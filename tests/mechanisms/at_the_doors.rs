//! Guards that come and go before one target.

use std::time::Instant;

use crate::at_the_target::out_of_order;
use crate::support::link::Link;
use crate::support::process::{LONG, eventually, eventually_some};
use crate::support::world::{QUARANTINE, World, answered};
use crate::{Fence, Seen};

/// A second guard is started while the first has a write in the target.
pub fn a_second_guard_beside_the_first(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let first = fence.of(world.guard("first")).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "apply=@old");
    let old = first.write("/old", Some(&one));
    world.await_arrival("/old");
    let second = fence.of(world.guard("second")).start_alone();
    let (term, two) = world.elect("orders-b");
    if fence.is_whole() {
        second.await_gate("the first's record keeps it shut", |gate| {
            gate["phase"] == "blocked" && gate["blocked_by"].as_str().is_some_and(|by| by.starts_with("first-"))
        });
        assert_eq!(second.put("/new", &two).refused(), Some("gate_shut"));
    } else {
        second.await_open(&term);
        assert_eq!(second.put("/new", &two).status, 200);
    }
    world.upstream.open("old");
    world.await_applied("/old");
    drop(old);
    out_of_order(&world)
}

/// Two shared doors: one has an old write in the target, the other has nothing to wait for.
pub fn two_doors_and_a_slow_write(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let shared = |world: &World, id: &str| {
        fence.of(world.guard(id).hasty().upstream_times("3s", "1s").listener("doors: shared"))
    };
    let (east, west) = (shared(&world, "east").start(), shared(&world, "west").start());
    let (term, one) = world.elect("orders-a");
    east.await_open(&term);
    west.await_open(&term);
    world.upstream.next("/old", "apply=@old");
    drop(east.write("/old", Some(&one)));
    world.await_arrival("/old");
    let (_, two) = world.elect("orders-b");
    let new = west.write("/new", Some(&two));
    if fence.is_whole() {
        west.await_gate("it waits for the other", |gate| gate["phase"] == "waiting_doors");
        world.upstream.open("old");
        assert_eq!(answered(new), 200);
    } else {
        assert_eq!(answered(new), 200);
        world.upstream.open("old");
        world.await_applied("/old");
    }
    out_of_order(&world)
}

/// A guard dies with a write in the target; the operator says so, and another takes its place.
pub fn a_dead_guards_place(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let mut first = fence.of(world.guard("first").hasty().upstream_times("3s", "1s")).start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", "apply=@old");
    drop(first.write("/old", Some(&one)));
    world.await_arrival("/old");
    let second = fence.of(world.guard("second").hasty()).start_alone();
    let (_, two) = world.elect("orders-b");
    let dead = eventually_some("the first's record is in the way", LONG, || {
        second.resource()["gate"]["blocked_by"].as_str().map(str::to_owned)
    });
    first.process().kill();
    let declared = Instant::now();
    assert_eq!(second.post(&format!("/api/v1/doors/forget?target=orders&id={dead}")).status, 200);
    let lands = || {
        eventually("the second guard lets the new leader write", LONG, || second.put("/new", &two).status == 200);
    };
    if fence.is_whole() {
        assert_eq!(second.put("/new", &two).refused(), Some("gate_shut"));
        world.upstream.open("old");
        lands();
        assert!(declared.elapsed() >= QUARANTINE, "what the first had forwarded was waited for");
    } else {
        lands();
        world.upstream.open("old");
        world.await_applied("/old");
    }
    out_of_order(&world)
}

/// A guard with `on_coordinator_loss: close` is cut off from the coordinator, waited out, and replaced.
pub fn a_guard_that_was_cut_off_and_replaced(fence: Fence) -> Seen {
    let mut world = World::etcd();
    let etcd = world.etcd.as_ref().expect("it has its own").url().to_owned();
    let link = Link::to(etcd.trim_start_matches("http://").parse().expect("an address"));
    let times = "drain: { timeout: 500ms, quarantine: 1s }";
    let first = world.guard("first").upstream_times("500ms", "500ms").top(times).listener("on_coordinator_loss: close");
    let by_link =
        format!("coordinator: {{ etcd: {{ endpoints: [\"{}\"] }}, lease_ttl: 2s, verify_every: 250ms }}", link.url());
    let first = fence.of(first.top(&by_link)).start();
    let (_, one) = world.elect("orders-a");
    eventually("it is open", LONG, || first.put("/old", &one).status == 200);

    link.cut();
    let second = fence.of(world.guard("second").upstream_times("500ms", "500ms").top(times)).start_alone();
    let (_, two) = world.elect("orders-b");
    eventually("the second has waited the first out", LONG, || second.put("/new", &two).status == 200);
    let late = first.put("/late", &one);
    assert!(late.status == 200 || late.refused() == Some("gate_shut"), "{}", late.text());
    out_of_order(&world)
}

/// A guard that stopped in order, and was replaced, is started again while the coordinator is away.
pub fn a_guard_that_left_and_comes_back_alone(fence: Fence) -> Seen {
    let (world, one) = replaced(fence);
    let nowhere = "coordinator: { etcd: { endpoints: [\"http://127.0.0.1:9\"] }, lease_ttl: 2s, verify_every: 250ms }";
    let first = fence.of(world.guard("first").top(nowhere).top("hold: { timeout: 500ms }")).start_alone();
    let late = first.put("/late", &one);
    assert!(late.status == 200 || late.status == 503, "{}", late.text());
    out_of_order(&world)
}

/// The same with the coordinator there.
pub fn a_guard_that_left_and_comes_back(fence: Fence) -> Seen {
    let (world, one) = replaced(fence);
    let first = fence.of(world.guard("first")).start();
    first.await_gate("it is open", |gate| gate["phase"] == "open");
    let late = first.put("/late", &one);
    assert!(late.status == 200 || late.refused() == Some("stale_epoch"), "{}", late.text());
    out_of_order(&world)
}

/// A first guard that has admitted epoch 1 and left in order, after it a second that has admitted epoch 2 and left too.
/// Returns the stamp of epoch 1.
fn replaced(fence: Fence) -> (World, String) {
    let mut world = World::embedded();
    let mut first = fence.of(world.guard("first")).start();
    let (_, one) = world.elect("orders-a");
    assert_eq!(first.put("/old", &one).status, 200);
    first.stop();
    let mut second = fence.of(world.guard("second")).start();
    let (_, two) = world.elect("orders-b");
    assert_eq!(second.put("/new", &two).status, 200);
    second.stop();
    (world, one)
}
