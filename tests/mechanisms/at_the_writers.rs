//! Stamping sidecars: which term a write goes out with, and when none may.

use std::sync::{Arc, Condvar, Mutex};

use epochgate::clock::{Clock, HostClock};
use epochgate::config::{self, Overrides};
use epochgate::fence::Moment;
use epochgate::run::{Instance, World as Surroundings};

use crate::support::client::{self, Answer, Connection};
use crate::support::process::{LONG, eventually};
use crate::support::world::{Sidecar, World};
use crate::{Fence, Seen};

/// A write goes through a leader that has stepped down, once another leads.
pub fn a_deposed_leader(fence: Fence) -> Seen {
    let world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let a = fence.of(world.stamp("orders-a", guard.address)).start();
    a.await_leadership();
    let b = fence.of(world.stamp("orders-b", guard.address)).start();
    hand_over(&a, &b);
    eventually("a knows who leads", LONG, || a.resource()["leader"]["id"] == "orders-b");
    refused_or(&client::put(a.address, "/late", "x").unwrap(), &["not_leader"]);
    stamped(&world, "/late")
}

/// A second process is started under a leader's id.
pub fn a_second_process_of_the_same_id(fence: Fence) -> Seen {
    let world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let first = fence.of(world.stamp("orders-a", guard.address)).start();
    first.await_leadership();
    let second = fence.of(world.stamp("orders-a-again", guard.address).top("id: orders-a")).start();
    eventually("it knows who leads", LONG, || second.resource()["leader"]["id"] == "orders-a");
    if !fence.is_whole() {
        eventually("both lead one term", LONG, || first.await_leadership() == second.await_leadership());
    }
    refused_or(&client::put(second.address, "/second", "x").unwrap(), &["not_leader"]);
    let stamp = stamped(&world, "/second")?;
    (stamp == first.await_leadership()).then(|| format!("two processes lead, and stamp {stamp}"))
}

/// A connection was opened while the writer did not lead, and is used when it does.
pub fn a_pooled_connection(fence: Fence) -> Seen {
    let world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let b = fence.of(world.stamp("orders-b", guard.address)).start();
    b.await_leadership();
    let a = fence.of(world.stamp("orders-a", guard.address)).start();
    let mut pooled = Connection::open(a.address).unwrap();
    assert_eq!(pooled.request("GET", "/x", &[], b"").unwrap().status, 404);
    hand_over(&b, &a);
    refused_or(&pooled.request("PUT", "/pooled", &[], b"x").unwrap(), &["term_changed"]);
    stamped(&world, "/pooled")
}

/// A connection, with a write on it, waits in the kernel's queue of a worker that is busy while its writer is elected.
pub fn a_connection_in_the_queue(fence: Fence) -> Seen {
    let world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let b = fence.of(world.stamp("orders-b", guard.address)).start();
    b.await_leadership();
    let clock = Arc::new(StickyClock::default());
    let (a, running) = in_this_process(&world, &guard, fence, &clock);

    // A worker that stands still in the middle of a request, as one does whose host takes its core away.
    clock.stick(true);
    let mut busy = Connection::open(a.address).unwrap();
    busy.send_head("GET", "/busy", &[]).unwrap();
    clock.await_stuck();
    let mut queued = Connection::open(a.address).unwrap();
    queued.send_head("PUT", "/queued", &[("Content-Length", "1")]).unwrap();
    queued.send(b"x").unwrap();
    step_down(&b);
    eventually("a is elected, and its worker has been told so", LONG, || {
        let resource = a.resource();
        resource["standing"]["leads"] == true && resource["state"] == "armed"
    });
    clock.stick(false);
    refused_or(&queued.answer().unwrap(), &["term_changed"]);
    drop((busy, queued));
    running.stop();
    stamped(&world, "/queued")
}

/// The service puts a stamp of its own on a write: that of a term that is over.
pub fn a_service_that_stamps_itself(fence: Fence) -> Seen {
    let (world, _guard, a, one) = a_leader_after_another(fence);
    let answer = client::request(a.address, "PUT", "/old-work", &[("Fencing-Epoch", &one)], b"x").unwrap();
    refused_or(&answer, &["stamp_present"]);
    stamped(&world, "/old-work").map(|stamp| format!("sent with {one}, applied with {stamp}"))
}

/// The service says that a write belongs to epoch 1; the writer holds epoch 2.
pub fn a_service_that_says_its_epoch(fence: Fence) -> Seen {
    let (world, _guard, a, _) = a_leader_after_another(fence);
    let answer = client::request(a.address, "PUT", "/old-work", &[("Fencing-Expect", "1")], b"x").unwrap();
    refused_or(&answer, &["epoch_expected"]);
    stamped(&world, "/old-work").map(|stamp| format!("expected 1, applied with {stamp}"))
}

/// etcd stands still for longer than the leader's lease. Its target has no guard here: nothing else would stop it.
pub fn a_leader_cut_off_from_the_coordinator(fence: Fence) -> Seen {
    let world = World::etcd();
    let plan = world.stamp("orders-a", world.upstream.address).listener("until_armed: pass");
    let a = fence.of(plan).start();
    eventually("it leads", LONG, || a.resource()["standing"]["leads"] == true);
    assert_eq!(client::put(a.address, "/in-time", "x").unwrap().status, 200);
    world.etcd.as_ref().expect("it has its own").pause();
    // Once it has, the status shows none, or none left.
    eventually("its deadline has passed", LONG, || {
        a.resource()["standing"]["deadline_ms"].as_u64().is_none_or(|left| left == 0)
    });
    refused_or(&client::put(a.address, "/too-late", "x").unwrap(), &["not_leader"]);
    stamped(&world, "/too-late").map(|stamp| format!("after the deadline it stamped {stamp}"))
}

/// The new leader's service reads what the old leader's write, still in the target, is about to change.
pub fn a_read_through_the_new_leader(fence: Fence) -> Seen {
    let world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let a = fence.of(world.stamp("orders-a", guard.address)).start();
    a.await_leadership();
    let b = fence.of(world.stamp("orders-b", guard.address)).start();
    world.upstream.next("/x", "apply=@old");
    let old = a.write("/x", None);
    world.await_arrival("/x");
    step_down(&a);
    eventually("b is elected", LONG, || b.resource()["standing"]["leads"] == true);
    let mut reader = Connection::open(b.address).unwrap();
    reader.send_head("GET", "/x", &[]).unwrap();
    if fence.is_whole() {
        eventually("b has taken the read in", LONG, || connections(&b) == 1);
        world.upstream.open("old");
        assert_eq!(reader.answer().unwrap().text(), "/x", "it reads what the old leader wrote");
        assert!(old.join().unwrap().is_ok());
        return None;
    }
    let read = reader.answer().unwrap().status;
    world.upstream.open("old");
    world.await_applied("/x");
    (read == 404).then(|| "it read that there is no /x; then the old leader's /x landed".to_owned())
}

/// The coordinator is wiped under a guard that knows epoch 2, and a writer is elected with epoch 1.
pub fn a_leader_below_the_floor(fence: Fence) -> Seen {
    let mut world = World::embedded();
    let mut guard = fence.of(world.guard("guard")).start();
    world.elect("orders-x");
    let (term, _) = world.elect("orders-x");
    guard.await_open(&term);
    guard.process().kill();

    let wiped = World::embedded();
    let a = wiped.stamp("orders-a", guard.address).top("hold: { timeout: 500ms }");
    let a = fence.of(a).start();
    eventually("it is elected where nothing is known", LONG, || a.resource()["epoch"] == "1");
    let guard = world.guard("guard").in_place_of(&guard).top(&wiped.coordinator());
    // What it had forwarded is over: the test is not about residue.
    let guard = fence.of(guard.upstream_times("500ms", "500ms").top("drain: { quarantine: 1s }")).start();
    eventually("the leader sees the guard's floor", LONG, || {
        a.resource()["doors"][0]["floor"].as_str().is_some_and(|floor| floor != "1")
    });
    if fence.is_whole() {
        eventually("it is elected above it, and writes", LONG, || {
            client::put(a.address, "/x", "x").is_ok_and(|answer| answer.status == 200)
        });
        assert_eq!(guard.resource()["gate"]["floor"], "3");
        return None;
    }
    let answer = client::put(a.address, "/x", "x").unwrap();
    let (epoch, leads) = (a.resource()["epoch"].clone(), a.resource()["standing"]["leads"] == true);
    (answer.status == 503 && leads)
        .then(|| format!("it leads epoch {epoch} below floor {}: {}", guard.resource()["gate"]["floor"], answer.text()))
}

/// A leads epoch 2; epoch 1 was somebody else's. Returns its stamp too.
fn a_leader_after_another(fence: Fence) -> (World, Sidecar, Sidecar, String) {
    let mut world = World::embedded();
    let guard = fence.of(world.guard("guard")).start();
    let (_, one) = world.elect("orders-x");
    world.terms.resign();
    let a = fence.of(world.stamp("orders-a", guard.address)).start();
    a.await_leadership();
    (world, guard, a, one)
}

fn hand_over(from: &Sidecar, to: &Sidecar) {
    step_down(from);
    to.await_leadership();
}

/// Has a leader step down, as soon as it knows of another candidate.
fn step_down(leader: &Sidecar) {
    eventually("the leader steps down", LONG, || leader.post("/api/v1/step-down?resource=orders").status == 200);
}

/// In force it is refused for one of these reasons; else it was applied.
#[track_caller]
fn refused_or(answer: &Answer, reasons: &[&str]) {
    let refused = answer.refused().is_some_and(|reason| reasons.contains(&reason));
    assert!(refused || answer.status == 200, "{}: {}", answer.status, answer.text());
}

/// The stamp under which the write to `path` was applied, if it was.
fn stamped(world: &World, path: &str) -> Seen {
    world.upstream.applied().into_iter().find(|write| write.head.path == path).and_then(|write| write.stamp)
}

fn connections(sidecar: &Sidecar) -> u64 {
    let status = client::get(sidecar.admin, "/api/v1/status").unwrap().json();
    status["listeners"][0]["connections"].as_u64().unwrap_or(0)
}

/// The writer `orders-a` in this process, with one worker and a clock of the test's.
fn in_this_process(world: &World, guard: &Sidecar, fence: Fence, clock: &Arc<StickyClock>) -> (Sidecar, Instance) {
    let a = world.stamp("orders-a", guard.address).top("workers: 1").prepare();
    let text = std::fs::read_to_string(&a.config).unwrap();
    let loaded = config::load(Some((&a.config, &text)), &Overrides::default(), None).expect("it is well formed");
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let surroundings = Surroundings { clock, mechanisms: fence.mechanisms(), ..Surroundings::host() };
    let running = Instance::start(loaded.config, surroundings, None, None).expect("it starts");
    eventually("it knows who leads", LONG, || a.resource()["leader"]["id"] == "orders-b");
    (a, running)
}

/// The host's clock; a worker that looks at it may be made to stand still.
#[derive(Default)]
struct StickyClock {
    state: Mutex<Sticky>,
    changed: Condvar,
}

#[derive(Default)]
struct Sticky {
    sticks: bool,
    stuck: usize,
}

impl StickyClock {
    fn stick(&self, sticks: bool) {
        self.state.lock().unwrap().sticks = sticks;
        self.changed.notify_all();
    }

    fn await_stuck(&self) {
        eventually("the worker stands still", LONG, || self.state.lock().unwrap().stuck > 0);
    }
}

impl Clock for StickyClock {
    fn now(&self) -> Moment {
        if std::thread::current().name().is_some_and(|name| name.starts_with("worker")) {
            let mut state = self.state.lock().unwrap();
            state.stuck += 1;
            while state.sticks {
                state = self.changed.wait(state).unwrap();
            }
            state.stuck -= 1;
        }
        HostClock.now()
    }

    fn wall(&self) -> jiff::Timestamp {
        HostClock.wall()
    }
}
