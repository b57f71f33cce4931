//! The overtaking race: an old leader's write is slow in the target when the epoch moves on, and the new leader's write
//! would be quicker. A proxy that only compares lets the old one land last; here it never does.
//!
//! Real etcd, the real guard, a target that applies a write when the test says so. Each test moves the epoch while the
//! old write is in the target, sees that the new one is held, lets the old one land, and looks at the target's order.
//! What happens without the mechanisms that make it so: `tests/mechanisms.rs`.

mod support;

use std::time::{Duration, Instant};

use support::client::{self, Connection};
use support::process::{LONG, eventually};
use support::world::{QUARANTINE, Sidecar, World, answered};

const HELD: &str = "apply=@old";

/// A world whose target keeps `/old`, written under epoch 1, until the test opens the latch `old`.
fn with_an_old_write(world: &mut World, guard: &Sidecar) -> (String, support::world::Writing) {
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", HELD);
    let old = guard.write("/old", Some(&one));
    world.await_arrival("/old");
    (one, old)
}

fn assert_order(world: &World, paths: &[&str], epochs: &[u64]) {
    assert_eq!(world.applied(), paths);
    assert_eq!(world.upstream.epochs(), epochs);
    world.assert_rules_kept();
}

/// Show 4 of the first issue, as users run it: two writers' sidecars, and a target that takes three seconds.
#[test]
fn the_new_leaders_write_waits_for_a_target_that_takes_three_seconds() {
    let world = World::etcd();
    let guard = world.guard("guard").start();
    let a = world.stamp("orders-a", guard.address).start();
    a.await_leadership();
    let b = world.stamp("orders-b", guard.address).start();

    world.upstream.next("/old", "apply=3s");
    let began = Instant::now();
    let old = a.write("/old", None);
    world.await_arrival("/old");
    eventually("it knows of the other and gives way", LONG, || {
        a.post("/api/v1/step-down?resource=orders").status == 200
    });
    let leader_after = eventually_epoch(&b, "2");
    let new = b.write("/new", None);
    assert_eq!(answered(new), 200);
    assert!(began.elapsed() >= Duration::from_secs(3), "the new write did not wait; B led after {leader_after:?}");
    assert_eq!(answered(old), 200);
    assert_order(&world, &["/old", "/new"], &[1, 2]);
}

/// Waits until this writer is elected, armed or not.
fn eventually_epoch(writer: &Sidecar, epoch: &str) -> Duration {
    let began = Instant::now();
    eventually("it is elected", LONG, || {
        let resource = writer.resource();
        resource["epoch"] == epoch && resource["standing"]["leads"] == true
    });
    began.elapsed()
}

#[test]
fn a_leader_that_stands_still_has_its_write_land_first() {
    let world = World::etcd();
    let guard = world.guard("guard").start();
    let mut a = world.stamp("orders-a", guard.address).start();
    a.await_leadership();
    let b = world.stamp("orders-b", guard.address).start();

    world.upstream.next("/old", HELD);
    let old = a.write("/old", None);
    world.await_arrival("/old");
    a.process().pause();
    eventually_epoch(&b, "2");
    let new = b.write("/new", None);
    guard.await_gate("it drains", |gate| gate["phase"] == "draining" && gate["holders"][0]["what"] == "PUT /old");
    assert!(world.applied().is_empty());
    world.upstream.open("old");
    assert_eq!(answered(new), 200);
    a.process().resume();
    assert_eq!(answered(old), 200, "its answer waited for it");
    assert_order(&world, &["/old", "/new"], &[1, 2]);
}

#[test]
fn the_new_write_is_held_until_the_old_one_is_answered() {
    let mut world = World::etcd();
    let guard = world.guard("guard").start();
    let (one, old) = with_an_old_write(&mut world, &guard);
    let (_, two) = world.elect("orders-b");
    let new = guard.write("/new", Some(&two));
    guard.await_held(1);
    assert_eq!(guard.put("/late", &one).refused(), Some("stale_epoch"), "what comes now is too late");
    assert!(world.applied().is_empty() && !world.has_arrived("/new"));
    world.upstream.open("old");
    assert_eq!((answered(old), answered(new)), (200, 200));
    assert_order(&world, &["/old", "/new"], &[1, 2]);
    assert_eq!(guard.resource()["last_handoff"]["by"], "answers");
}

#[test]
fn the_old_writes_client_is_gone() {
    let mut world = World::etcd();
    let guard = world.guard("guard").start();
    let (_, one) = world.elect("orders-a");
    world.upstream.next("/old", HELD);
    let mut client = Connection::open(guard.address).unwrap();
    client.send_head("PUT", "/old", &[("Fencing-Epoch", &one), ("Content-Length", "4")]).unwrap();
    client.send(b"body").unwrap();
    eventually("the target has all of it", LONG, || world.upstream.waiting("old") == 1);
    client.reset().unwrap();

    let (_, two) = world.elect("orders-b");
    let new = guard.write("/new", Some(&two));
    guard.await_held(1);
    guard.await_gate("the old write goes on without its client", |gate| gate["in_flight"] == 1 && gate["lost"] == 0);
    world.upstream.open("old");
    assert_eq!(answered(new), 200);
    assert_order(&world, &["/old", "/new"], &[1, 2]);
}

#[test]
fn the_old_writes_client_is_gone_with_half_of_it_sent() {
    let mut world = World::etcd();
    let guard = world.guard("guard").hasty().start();
    let (_, one) = world.elect("orders-a");
    let mut client = Connection::open(guard.address).unwrap();
    client.begin_chunked("PUT", "/old", &[("Fencing-Epoch", &one)]).unwrap();
    client.send_chunk(b"half").unwrap();
    world.await_arrival("/old");
    let gone = Instant::now();
    client.reset().unwrap();
    guard.await_gate("the write is lost", |gate| gate["lost"] == 1);

    let (_, two) = world.elect("orders-b");
    assert_eq!(guard.put("/new", &two).status, 200);
    assert!(gone.elapsed() >= QUARANTINE, "a lost write counts for as long as the target may take for it");
    assert_order(&world, &["/new"], &[2]);
    assert!(world.upstream.log().iter().any(|write| write.head.path == "/old" && !write.complete));
}

#[test]
fn a_half_sent_old_write_is_cut_and_never_applied() {
    let mut world = World::etcd();
    let guard = world.guard("guard").hasty().start();
    let (_, one) = world.elect("orders-a");
    let mut client = Connection::open(guard.address).unwrap();
    client.begin_chunked("PUT", "/old", &[("Fencing-Epoch", &one)]).unwrap();
    client.send_chunk(b"half").unwrap();
    world.await_arrival("/old");

    let (_, two) = world.elect("orders-b");
    let new = guard.write("/new", Some(&two));
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.refused()), (502, Some("fenced_in_flight")));
    assert_eq!(answer.json()["outcome"], "unknown");
    assert_eq!(answered(new), 200);
    assert_order(&world, &["/new"], &[2]);
}

/// The guard gave the old write up, so it does not know: the write counts until the quarantine has passed.
#[test]
fn the_guard_has_answered_504_for_the_old_write() {
    let mut world = World::etcd();
    let guard = world.guard("guard").hasty().start();
    let (_, old) = with_an_old_write(&mut world, &guard);
    let answer = old.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.refused()), (504, Some("upstream_timeout")));
    assert_eq!(answer.json()["outcome"], "unknown");
    lands_within_the_quarantine(&mut world, &guard);
}

/// The target may be a proxy itself: behind it somebody may still be at the write that it gave up.
#[test]
fn the_target_itself_has_answered_that_it_does_not_know() {
    for status in [502, 504] {
        let mut world = World::etcd();
        let guard = world.guard("guard").hasty().start();
        let (_, one) = world.elect("orders-a");
        world.upstream.next("/old", &format!("late=@old, status={status}"));
        let answer = guard.put("/old", &one);
        assert_eq!((answer.status, answer.refused()), (status, None), "it is the target's own answer");
        lands_within_the_quarantine(&mut world, &guard);
    }
}

fn lands_within_the_quarantine(world: &mut World, guard: &Sidecar) {
    guard.await_gate("the old write is lost", |gate| gate["lost"] == 1 && gate["in_flight"] == 0);
    let (_, two) = world.elect("orders-b");
    let new = guard.write("/new", Some(&two));
    guard.await_held(1);
    assert!(world.applied().is_empty());
    world.upstream.open("old");
    world.await_applied("/old");
    assert_eq!(answered(new), 200);
    assert_order(world, &["/old", "/new"], &[1, 2]);
    assert_eq!(guard.resource()["last_handoff"]["by"], "time");
}

#[test]
fn a_held_write_whose_client_goes_away_is_dropped() {
    let mut world = World::etcd();
    let guard = world.guard("guard").start();
    let (_, old) = with_an_old_write(&mut world, &guard);
    let (term, two) = world.elect("orders-b");
    let mut client = Connection::open(guard.address).unwrap();
    client.send_head("PUT", "/dropped", &[("Fencing-Epoch", &two), ("Content-Length", "4")]).unwrap();
    client.send(b"body").unwrap();
    guard.await_held(1);
    client.reset().unwrap();
    guard.await_held(0);
    world.upstream.open("old");
    assert_eq!(answered(old), 200);
    guard.await_open(&term);
    assert_eq!(guard.put("/new", &two).status, 200);
    assert_order(&world, &["/old", "/new"], &[1, 2]);
    assert!(!world.has_arrived("/dropped"));
}

#[test]
fn a_held_write_that_is_overtaken_itself_is_refused_as_stale() {
    let mut world = World::etcd();
    let guard = world.guard("guard").start();
    let (_, old) = with_an_old_write(&mut world, &guard);
    let (_, two) = world.elect("orders-b");
    let overtaken = guard.write("/overtaken", Some(&two));
    guard.await_held(1);
    let (_, three) = world.elect("orders-c");
    let answer = overtaken.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.refused()), (412, Some("stale_epoch")));
    let body = answer.json();
    assert_eq!(
        (&body["epoch"], &body["required_epoch"], &body["outcome"]),
        (&"2".into(), &"3".into(), &"not_applied".into())
    );

    let new = guard.write("/new", Some(&three));
    guard.await_held(1);
    world.upstream.open("old");
    assert_eq!((answered(old), answered(new)), (200, 200));
    assert_order(&world, &["/old", "/new"], &[1, 3]);
    assert!(!world.has_arrived("/overtaken"));
}

/// Many writers at once, each on its own connections, over several handoffs: the target's order is the epochs' order.
#[test]
fn under_load_over_several_handoffs_nothing_lands_out_of_order() {
    let mut world = World::etcd();
    let guard = world.guard("guard").start();
    world.upstream.always("apply=20ms");
    let mut writers = Vec::new();
    for epoch in 1..=5 {
        let (_, stamp) = world.elect("orders-a");
        for client in 0..4 {
            let (to, stamp) = (guard.address, stamp.clone());
            writers.push(std::thread::spawn(move || {
                let mut connection = Connection::open(to).unwrap();
                // Until it is told that its epoch is over; the last epoch's writers end by themselves.
                for number in 0..60 {
                    let path = format!("/{epoch}/{client}/{number}");
                    let answer = connection.request("PUT", &path, &[("Fencing-Epoch", &stamp)], b"x").unwrap();
                    match answer.status {
                        200 => {}
                        412 => return,
                        _ => panic!("{}: {}", answer.status, answer.text()),
                    }
                }
            }));
        }
        let prefix = format!("/{epoch}/");
        eventually("its writes are applied", LONG, || world.applied().iter().any(|path| path.starts_with(&prefix)));
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    world.upstream.assert_epochs_never_decrease();
    let epochs = world.upstream.epochs();
    assert_eq!((epochs.first(), epochs.last()), (Some(&1), Some(&5)));
    let checked = world.assert_rules_kept().counts;
    assert_eq!((checked.applied, checked.opened), (epochs.len(), 5));
    assert!(client::get(guard.admin, "/metrics").unwrap().text().contains("epochgate_lost_writes"));
}
