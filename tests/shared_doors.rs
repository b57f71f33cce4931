//! Several guards before one target: each opens a new epoch only when all of them have drained the one before, and one
//! that is gone is waited out (DESIGN 3.5).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::time::{Duration, Instant};

use support::link::Link;
use support::process::{LONG, eventually, eventually_some};
use support::world::{Plan, QUARANTINE, Sidecar, World, Writing, answered};

/// How long a door's session lasts: `lease_ttl` of these worlds.
const SESSION: Duration = Duration::from_secs(2);

/// A shared door to be, whose times a test can wait for.
fn shared(world: &World, id: &str) -> Plan {
    world.guard(id).hasty().upstream_times("3s", "1s").listener("doors: shared")
}

fn phase(door: &Sidecar) -> String {
    door.resource()["gate"]["phase"].as_str().unwrap_or("none").to_owned()
}

/// The ids of the doors on record.
fn on_record(door: &Sidecar) -> Vec<String> {
    let doors = door.resource()["doors"].clone();
    doors.as_array().into_iter().flatten().map(|door| door["id"].as_str().unwrap().to_owned()).collect()
}

fn id_of(door: &Sidecar) -> String {
    let own = |id: &String| id.starts_with(&format!("{}-", door.id));
    eventually_some("its record is there", LONG, || on_record(door).into_iter().find(own))
}

#[track_caller]
fn in_order(world: &World) {
    world.upstream.assert_epochs_never_decrease();
}

/// Two doors that are open for the first term, of which `east` has a write in the target; with that term's stamp.
fn with_an_old_write(world: &mut World) -> (Sidecar, Sidecar, String, Writing) {
    let (east, west) = (shared(world, "east").start(), shared(world, "west").start());
    let (one, first) = world.elect("orders-a");
    east.await_open(&one);
    west.await_open(&one);
    world.upstream.next("/old", "apply=@old");
    let old = east.write("/old", Some(&first));
    world.await_arrival("/old");
    (east, west, first, old)
}

#[test]
fn a_new_epoch_opens_at_every_door_when_all_have_drained_and_whoever_waits_says_for_whom() {
    let mut world = World::embedded();
    let (east, west, first, old) = with_an_old_write(&mut world);

    let (two, second) = world.elect("orders-b");
    let held_up = id_of(&east);
    west.await_gate("it waits for the other door", |gate| {
        gate["phase"] == "waiting_doors" && gate["waits_for_doors"][0] == *held_up
    });
    let metric = format!("epochgate_drain_waits_for_door{{door=\"{held_up}\",resource=\"orders\"}} 1");
    let metrics = support::client::get(west.admin, "/metrics").unwrap().text();
    assert!(metrics.contains(&metric), "{metrics}");
    let new = west.write("/new", Some(&second));
    assert!(!world.has_arrived("/new"));
    world.upstream.open("old");
    assert_eq!(answered(new), 200);
    east.await_open(&two);
    west.await_open(&two);
    drop(old);
    assert_eq!(world.applied(), ["/old", "/new"]);
    assert_eq!(east.put("/late", &first).refused(), Some("stale_epoch"));
    let metrics = support::client::get(west.admin, "/metrics").unwrap().text();
    assert!(!metrics.contains("epochgate_drain_waits_for_door{"), "{metrics}");
}

#[test]
fn a_door_killed_in_the_middle_of_a_handoff_is_waited_out_and_comes_back_safely() {
    let mut world = World::embedded();
    let mut east = shared(&world, "east").start();
    let west = shared(&world, "west").start();
    let (one, first) = world.elect("orders-a");
    east.await_open(&one);
    west.await_open(&one);
    world.upstream.next("/old", "apply=@old");
    drop(east.write("/old", Some(&first)));
    world.await_arrival("/old");
    let (two, second) = world.elect("orders-b");
    east.await_gate("it drains", |gate| gate["phase"] == "draining");
    west.await_gate("it waits", |gate| gate["phase"] == "waiting_doors");
    let gone = id_of(&east);
    east.process().kill();
    let killed = Instant::now();
    let new = west.write("/new", Some(&second));
    world.upstream.open("old");
    world.await_applied("/old");
    assert_eq!(answered(new), 200);
    assert!(killed.elapsed() >= SESSION + QUARANTINE, "a session and a quarantine: {:?}", killed.elapsed());
    eventually("its record is cleared away", LONG, || !on_record(&west).contains(&gone));

    east.start();
    east.await_open(&two);
    assert_eq!(east.put("/late", &first).refused(), Some("stale_epoch"));
    assert_eq!(east.put("/more", &second).status, 200);
    let (three, third) = world.elect("orders-a");
    east.await_open(&three);
    assert_eq!(west.put("/last", &third).status, 200);
    in_order(&world);
}

#[test]
fn doors_are_updated_one_after_the_other_with_a_failover_in_between() {
    let mut world = World::embedded();
    let mut doors = ["one", "two", "three"].map(|id| shared(&world, id).start());
    let (mut term, mut stamp) = world.elect("orders-a");
    doors.iter().for_each(|door| door.await_open(&term));
    for turn in 0..doors.len() {
        let id = id_of(&doors[turn]);
        doors[turn].stop();
        let other = (turn + 1) % doors.len();
        eventually("it took its record back", LONG, || !on_record(&doors[other]).contains(&id));
        (term, stamp) = world.elect(if turn % 2 == 0 { "orders-b" } else { "orders-a" });
        assert_eq!(doors[other].put(&format!("/during/{turn}"), &stamp).status, 200);
        doors[turn].start();
        // It is vouched for by those that stayed: no session and no quarantine to wait.
        doors[turn].await_open(&term);
        assert_eq!(doors[turn].put(&format!("/after/{turn}"), &stamp).status, 200);
    }
    eventually("all are on record", LONG, || on_record(&doors[0]).len() == 3);
    assert_eq!(doors[0].put("/end", &stamp).status, 200);
    in_order(&world);
}

#[test]
fn scaled_to_zero_and_back_it_waits_for_doors_that_may_not_be_on_record() {
    let mut world = World::embedded();
    let mut door = shared(&world, "east").start();
    let (one, first) = world.elect("orders-a");
    door.await_open(&one);
    assert_eq!(door.put("/before", &first).status, 200);
    door.stop();
    let began = Instant::now();
    door.start();
    door.await_open(&one);
    assert!(began.elapsed() >= SESSION + QUARANTINE, "a wiped coordinator would look the same: {:?}", began.elapsed());
    let (_, second) = world.elect("orders-b");
    assert_eq!(door.put("/after", &second).status, 200);
    in_order(&world);
}

/// A shared door that can be cut off from etcd.
fn by_a_link(world: &World, id: &str) -> (Link, Sidecar) {
    let etcd = world.etcd.as_ref().expect("it has etcd").url();
    let link = Link::to(etcd.trim_start_matches("http://").parse().expect("an address"));
    let coordinator =
        format!("coordinator: {{ etcd: {{ endpoints: [\"{}\"] }}, lease_ttl: 2s, verify_every: 250ms }}", link.url());
    let door = shared(world, id).top(&coordinator).start();
    (link, door)
}

#[test]
fn a_door_that_is_cut_off_closes_and_the_other_goes_on_without_it() {
    let mut world = World::etcd();
    let (link, east) = by_a_link(&world, "east");
    let west = shared(&world, "west").start();
    let (one, first) = world.elect("orders-a");
    east.await_open(&one);
    west.await_open(&one);
    link.cut();
    let (two, second) = world.elect("orders-b");
    let opened = west.write("/new", Some(&second));
    eventually("the one that is cut off closes", LONG, || east.put("/old", &first).refused() == Some("gate_shut"));
    assert_eq!(answered(opened), 200);
    west.await_open(&two);
    assert_eq!(phase(&east), "shut");
    link.mend();
    east.await_open(&two);
    assert_eq!(east.put("/old", &first).refused(), Some("stale_epoch"));
    assert_eq!(east.put("/more", &second).status, 200);
    in_order(&world);
}

#[test]
fn where_lapsed_doors_hold_an_operator_has_to_say_that_one_is_dead() {
    let mut world = World::embedded();
    let mut east = shared(&world, "east").start();
    let west = shared(&world, "west").top("doors: { lapsed: hold }").start();
    let (one, _) = world.elect("orders-a");
    east.await_open(&one);
    west.await_open(&one);
    let gone = id_of(&east);
    east.process().kill();
    let (two, second) = world.elect("orders-b");
    let new = west.write("/new", Some(&second));
    eventually("it says what to do", LONG, || {
        let gate = &west.resource()["gate"];
        gate["waits_for"].as_str().is_some_and(|words| words.contains(&format!("doors forget {gone}")))
    });
    let declared = Instant::now();
    assert_eq!(west.post(&format!("/api/v1/doors/forget?target=orders&id={gone}")).status, 200);
    assert_eq!(answered(new), 200);
    assert!(declared.elapsed() >= QUARANTINE, "{:?}", declared.elapsed());
    west.await_open(&two);
}

#[test]
fn beside_a_door_that_was_forced_the_next_epoch_opens_with_a_proof() {
    let mut world = World::embedded();
    let (east, west, _, old) = with_an_old_write(&mut world);
    let (two, _) = world.elect("orders-b");
    east.await_gate("it drains", |gate| gate["phase"] == "draining");
    assert_eq!(east.post("/api/v1/gate/open?resource=orders&accept-reordering=true").status, 200);
    east.await_open(&two);
    west.await_gate("it says what ends its wait, the proof first", |gate| {
        let words = gate["waits_for"].as_str().unwrap_or_default();
        let proof = words.find("step-down --resource orders");
        proof.is_some() && proof < words.find("gate open --resource orders")
    });
    world.upstream.open("old");
    assert_eq!(answered(old), 200);
    let (three, third) = world.elect("orders-a");
    east.await_open(&three);
    west.await_open(&three);
    assert_eq!(west.resource()["gate"]["drained"], east.resource()["gate"]["drained"]);
    assert_eq!(west.put("/new", &third).status, 200);
    in_order(&world);
}

#[test]
fn a_sole_door_and_shared_ones_keep_each_other_shut() {
    let mut world = World::embedded();
    let sole = world.guard("sole").start();
    let (one, first) = world.elect("orders-a");
    sole.await_open(&one);
    let late = shared(&world, "late").start_alone();
    late.await_gate("the sole door's record keeps it shut", |gate| gate["phase"] == "blocked");
    assert_eq!(late.put("/late", &first).refused(), Some("gate_shut"));
    assert_eq!(sole.put("/first", &first).status, 200);
}

#[test]
fn an_audit_door_holds_nobody_up_and_is_held_up_by_nobody() {
    let mut world = World::embedded();
    let sole = world.guard("sole").start();
    let (one, first) = world.elect("orders-a");
    sole.await_open(&one);
    let audit = world.guard("audit").listener("mode: audit").start();
    assert_eq!(audit.put("/seen", &first).status, 200);
    world.upstream.next("/slow", "apply=@slow");
    let slow = audit.write("/slow", Some(&first));
    world.await_arrival("/slow");
    let (two, second) = world.elect("orders-b");
    sole.await_open(&two);
    assert_eq!(sole.put("/new", &second).status, 200);
    world.upstream.open("slow");
    assert_eq!(answered(slow), 200, "R1 is not promised beside it");
}

#[test]
fn doors_that_were_all_killed_at_once_go_on_where_they_were_without_the_long_wait() {
    let mut world = World::embedded();
    let mut doors = ["east", "west"].map(|id| shared(&world, id).start());
    let (one, first) = world.elect("orders-a");
    for door in &doors {
        door.await_open(&one);
        assert_eq!(door.put("/before", &first).status, 200);
    }
    doors.iter_mut().for_each(|door| door.process().kill());
    doors.iter_mut().for_each(Sidecar::start);
    for door in &mut doors {
        door.await_open(&one);
        assert_eq!(door.put("/after", &first).status, 200);
        assert!(!door.process().has_said("nobody vouches"), "their records stood: nobody can be missing");
    }
    let (_, second) = world.elect("orders-b");
    assert_eq!(doors[0].put("/new", &second).status, 200, "once what they had forwarded is over");
    in_order(&world);
}

#[test]
fn after_the_coordinator_was_wiped_a_door_waits_for_one_that_is_cut_off_and_not_on_record() {
    let mut world = World::etcd();
    let (link, east) = by_a_link(&world, "east");
    let west = shared(&world, "west").start();
    let writer = world.stamp("orders-a", west.address).start();
    let first = writer.await_leadership();
    world.upstream.next("/old", "apply=@old");
    drop(east.write("/old", Some(&first)));
    world.await_arrival("/old");
    link.cut();
    let server = world.etcd.as_mut().unwrap();
    server.kill();
    server.wipe();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(server.restart());
    west.await_gate("it waits for whom it does not know", |gate| {
        gate["waits_for"].as_str().is_some_and(|words| words.contains("not be on record"))
    });
    let metrics = support::client::get(west.admin, "/metrics").unwrap().text();
    let metric = "epochgate_drain_waits_for_door{door=\"-\",resource=\"orders\"} 1";
    assert!(metrics.contains(metric) || west.resource()["gate"]["phase"] != "waiting_doors", "{metrics}");
    let new = std::thread::spawn({
        let to = west.address;
        let stamp_of = writer.admin;
        move || {
            let second = eventually_some("it leads again, above", LONG, || {
                let leader = support::client::get(stamp_of, "/api/v1/status").ok()?.json();
                let epoch = leader["resources"][0]["epoch"].as_str()?.parse::<u64>().ok()?;
                (epoch > 1 && leader["resources"][0]["standing"]["leads"] == true).then_some(epoch)
            });
            let stamp = format!("{second}");
            eventually_some("it is admitted", LONG, || {
                let answer = support::client::request(to, "PUT", "/new", &[("Fencing-Epoch", &stamp)], b"new").ok()?;
                (answer.status == 200).then_some(())
            });
        }
    });
    world.upstream.open("old");
    world.await_applied("/old");
    new.join().unwrap();
    link.mend();
    eventually("the one that was cut off is back", LONG, || phase(&east) == "open" && phase(&west) == "open");
    assert_eq!(east.put("/late", &first).refused(), Some("stale_epoch"));
    assert_eq!(world.applied()[..2], ["/old", "/new"]);
    in_order(&world);
}

#[test]
fn a_door_of_another_target_that_is_gone_for_good_holds_no_leader_up_for_ever() {
    let world = World::embedded();
    let east = shared(&world, "east").start();
    // Its target is spelt another way: no door of that target will ever wait it out.
    let mut lost = shared(&world, "lost").listener("target: Orders").start();
    eventually("its record is there", LONG, || on_record(&east).iter().any(|id| id.starts_with("lost-")));
    lost.process().kill();
    let writer = world.stamp("orders-a", east.address).start();
    let first = writer.await_leadership();
    assert_eq!(east.put("/after", &first).status, 200);
}
