//! What is remembered is lost: the coordinator's data under a running guard, or a guard's state directory (DESIGN 3.7
//! and 3.3). Neither lets an old write in, and neither leaves anybody stuck.

mod support;

use std::fs;
use std::thread;
use std::time::Instant;

use support::etcd::Etcd;
use support::process::{LONG, eventually, eventually_some};
use support::sidecar::{QUARANTINE, Sidecar, TTL, assert_refused, epoch_of, etcd, guard, stamp, text, wait_for};
use support::upstream::Upstream;

const REGRESSIONS: &str = "epochgate_coordinator_regressions_total{resource=\"orders\"}";

/// etcd, a target that remembers, a guard and two writers.
struct World {
    writers: [Sidecar; 2],
    guard: Sidecar,
    upstream: Upstream,
    etcd: Etcd,
}

impl World {
    fn start() -> World {
        let (etcd, upstream) = (etcd(), Upstream::start());
        let guard = guard("guard", etcd.url(), &upstream.url()).start();
        let a = stamp("orders-a", etcd.url(), guard.address).start();
        a.await_leadership();
        let b = stamp("orders-b", etcd.url(), guard.address).start();
        eventually("b is a candidate", LONG, || text(&b.resource()["leader"]["id"]) == "orders-a");
        World { writers: [a, b], guard, upstream, etcd }
    }

    /// Hands the leadership to and fro until the epoch is 3, so that there are lower ones; returns every stamp.
    fn at_epoch_three(&self) -> [String; 3] {
        let [a, b] = &self.writers;
        let first = a.await_leadership();
        assert_eq!(a.put("/orders/1", "first").status, 200);
        let hand_over = |from: &Sidecar, to: &Sidecar| {
            eventually("the leadership can be handed over", LONG, || {
                let done = from.operate(&["step-down", "--resource", "orders"]).wait(LONG);
                done.success()
            });
            to.await_leadership()
        };
        let second = hand_over(a, b);
        assert_eq!(b.put("/orders/1", "second").status, 200);
        let third = hand_over(b, a);
        assert_eq!(a.put("/orders/1", "third").status, 200);
        assert_eq!([&first, &second, &third].map(|stamp| epoch_of(stamp)), [1, 2, 3]);
        [first, second, third]
    }

    /// etcd comes back at the same address and knows nothing: a restore that went wrong.
    fn wipe_etcd(&mut self) {
        self.etcd.kill();
        self.etcd.wipe();
        wait_for(self.etcd.restart());
    }

    /// How many terms were given up because a door or the epoch record was ahead of them.
    fn overtaken(&self) -> usize {
        let ended = self.writers.iter().flat_map(|writer| writer.history("term_ended"));
        ended.filter(|event| event["why"] == "overtaken").count()
    }

    /// Waits until one of the writers leads above the floor, and is armed.
    fn await_leader(&self) -> (&Sidecar, String) {
        eventually_some("somebody leads above the floor", LONG, || {
            self.writers.iter().find_map(|writer| {
                let leader = writer.leader();
                let stamp = (leader.status == 200).then(|| text(&leader.json()["stamp"]))?;
                (epoch_of(&stamp) > 3).then_some((writer, stamp))
            })
        })
    }
}

#[test]
fn under_a_wiped_etcd_the_term_at_hand_goes_on_and_everything_else_is_refused() {
    let mut world = World::start();
    let [_, second, third] = world.at_epoch_three();
    // Nobody is there to elect anybody: what the guard does by itself is to be seen.
    world.writers.iter_mut().for_each(|writer| writer.process().pause());
    world.wipe_etcd();
    eventually("the guard notices", LONG, || world.guard.metric(REGRESSIONS) > 0.0);

    let put = |stamp: &str| world.guard.put_stamped("/orders/1", stamp, stamp);
    assert_eq!(put(&third).status, 200);
    assert_refused(&put("3"), 503, &["unverifiable"], "not_applied");
    let nonce = third.split(';').nth(1).unwrap();
    for higher in [format!("4;{nonce}"), "4".to_owned(), "999999999999999".to_owned()] {
        assert_refused(&put(&higher), 503, &["unverifiable"], "not_applied");
    }
    for lower in [second.as_str(), "2", "1"] {
        let body = assert_refused(&put(lower), 412, &["stale_epoch"], "not_applied");
        assert_eq!(body["required_epoch"], "3", "{body}");
    }
    let other_nonce = third.replace(nonce, "nonce=:AAAAAAAAAAA=:");
    assert_refused(&put(&other_nonce), 409, &["epoch_conflict"], "not_applied");
    assert_eq!(put(&third).status, 200, "it still goes on");
    let ready = world.guard.readiness();
    assert!(ready.status == 200 && ready.text().contains("behind"), "{}", ready.text());

    world.writers.iter_mut().for_each(|writer| writer.process().resume());
    let (leader, _) = world.await_leader();
    assert_eq!(leader.put("/orders/1", "after").status, 200);
    assert_refused(&put(&third), 412, &["stale_epoch"], "not_applied");
    assert_eq!(world.guard.metric(REGRESSIONS), 1.0, "one regression");
    assert_eq!(&world.upstream.stored("/orders/1").unwrap()[..], b"after");
    world.upstream.assert_epochs_never_decrease();
}

#[test]
fn a_wiped_etcd_leaves_no_leader_stuck() {
    let mut world = World::start();
    world.at_epoch_three();
    // Both writers are there all the time, and may be elected before the guard has said what its floor is.
    world.wipe_etcd();
    let (leader, _) = world.await_leader();
    assert_eq!(leader.put("/orders/1", "after").status, 200);
    // Whoever leads now is believed: nobody is overtaken by what the doors say of the time before.
    let overtaken = world.overtaken();
    thread::sleep(TTL * 2);
    assert_eq!(world.overtaken(), overtaken);
    let (leader, _) = world.await_leader();
    assert_eq!(leader.put("/orders/1", "later").status, 200);
    assert_eq!(world.guard.metric(REGRESSIONS), 1.0, "one regression");
    world.upstream.assert_epochs_never_decrease();
}

#[test]
fn an_etcd_restored_to_a_term_that_was_given_up_since_leaves_nobody_stuck() {
    let mut world = World::start();
    let snapshot = tempfile::tempdir().unwrap();
    let snapshot = snapshot.path().join("snapshot");
    // A leads in it, by the lease that it goes on renewing.
    assert!(world.etcd.snapshot(&snapshot));
    let [a, b] = &world.writers;
    eventually("the leadership can be handed over", LONG, || {
        a.operate(&["step-down", "--resource", "orders"]).wait(LONG).success()
    });
    let second = b.await_leadership();
    assert_eq!(b.put("/orders/1", "second").status, 200);
    world.etcd.kill();
    world.etcd.wipe();
    world.etcd.restore(&snapshot);
    wait_for(world.etcd.restart());
    let (leader, stamp) = eventually_some("somebody leads above the floor", LONG, || {
        world.writers.iter().find_map(|writer| {
            let leader = writer.leader();
            let stamp = (leader.status == 200).then(|| text(&leader.json()["stamp"]))?;
            (epoch_of(&stamp) > epoch_of(&second)).then_some((writer, stamp))
        })
    });
    assert_eq!(leader.put("/orders/1", "after").status, 200, "{stamp}");
    assert_refused(&world.guard.put_stamped("/orders/1", "late", &second), 412, &["stale_epoch"], "not_applied");
    world.upstream.assert_epochs_never_decrease();
}

#[test]
fn a_guard_that_lost_its_state_directory_stays_shut_until_the_old_record_is_forgotten() {
    let mut world = World::start();
    let [.., third] = world.at_epoch_three();
    let old = world.guard.door();
    world.guard.kill();
    fs::remove_dir_all(world.guard.state_dir()).unwrap();
    world.guard.start();
    assert_ne!(world.guard.door(), old, "an empty state directory is a new door");

    world.guard.await_phase("blocked");
    let put = || world.guard.put_stamped("/orders/1", "after", &third);
    let body = assert_refused(&put(), 503, &["gate_shut"], "not_applied");
    assert_eq!(body["blocked_by"], old.as_str(), "{body}");
    let through = world.writers[0].put("/orders/1", "after");
    assert_refused(&through, 503, &["gate_shut"], "not_applied");
    let ready = world.guard.readiness();
    assert!(ready.status == 503 && ready.text().contains(&old), "{}", ready.text());
    let status = world.guard.operate(&["status"]);
    assert!(status.stdout().contains(&old), "{}", status.stdout());

    let forgotten = Instant::now();
    let mut forget = world.guard.operate(&["doors", "forget", &old]);
    assert_eq!(forget.wait(LONG).code(), Some(0), "{}", forget.stderr());
    eventually("the guard admits the epoch", LONG, || put().status == 200);
    assert!(forgotten.elapsed() >= QUARANTINE, "what the old one forwarded may still land: {:?}", forgotten.elapsed());
    assert_eq!(world.guard.resource()["gate"]["floor"], "3", "the epoch that etcd has");
    assert_eq!(world.writers[0].put("/orders/1", "last").status, 200);
    world.upstream.assert_epochs_never_decrease();
}
