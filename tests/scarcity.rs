//! A guard whose machine has nothing left to give: descriptors, memory. What it has promised holds all the same.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::client::{self, Connection};
use support::memory::{descriptors, most_memory, processor_time};
use support::process::{LONG, eventually};
use support::world::World;

const MEBIBYTE: usize = 1024 * 1024;

/// Lets a process open so many descriptors.
fn allow_descriptors(id: u32, count: usize) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process has an id");
    let limit = Rlimit { current: Some(count as u64), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(pid), Resource::Nofile, limit).expect("the limit of a child can be set");
}

#[test]
fn out_of_descriptors_it_waits_without_a_busy_loop_and_hands_over_all_the_same() {
    let mut world = World::etcd();
    let mut guard = world.guard("guard").start();
    let (one, first) = world.elect("orders-a");
    guard.await_open(&one);
    // A client that is there already; its worker has a connection to the target.
    let mut kept = Connection::open(guard.address).unwrap();
    let put = |kept: &mut Connection, path: &str, stamp: &str| {
        kept.request("PUT", path, &[("Fencing-Epoch", stamp)], path.as_bytes()).unwrap()
    };
    assert_eq!(put(&mut kept, "/first", &first).status, 200);

    let id = guard.process().id();
    let few = descriptors(id) + 10;
    allow_descriptors(id, few);
    let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(guard.address).unwrap()).collect();
    eventually("it has no descriptor left", LONG, || descriptors(id) >= few);
    let (before, began) = (processor_time(id), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let busy = (processor_time(id) - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    assert!(busy < 0.5, "it takes {busy:.2} of a processor for nothing");

    // The session, the floor file and the client's connection are there: so is the fence.
    let (_, second) = world.elect("orders-b");
    assert_eq!(put(&mut kept, "/second", &second).status, 200);
    assert_eq!(put(&mut kept, "/late", &first).refused(), Some("stale_epoch"));

    drop(crowd);
    allow_descriptors(id, 1000);
    eventually("new clients come in again", LONG, || {
        let answer = client::request(guard.address, "PUT", "/third", &[("Fencing-Epoch", &second)], b"x");
        answer.is_ok_and(|answer| answer.status == 200)
    });
    world.upstream.assert_epochs_never_decrease();
    assert!(!world.has_arrived("/late"));
}

#[test]
fn thousands_of_idle_connections_leave_a_good_client_alone() {
    // Both ends of each are open files: here, and in the guard.
    let most = getrlimit(Resource::Nofile).maximum.map_or(10_000, |most| usize::try_from(most).unwrap());
    let count = most.min(6_000) / 2;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut world = World::embedded();
    let mut guard = world.guard("guard").listener("limits: { idle_timeout: 60s }").start();
    let id = guard.process().id();
    allow_descriptors(u32::try_from(own).unwrap(), most);
    allow_descriptors(id, most);
    let (one, stamp) = world.elect("orders-a");
    guard.await_open(&one);
    assert_eq!(guard.put("/first", &stamp).status, 200);
    let before = most_memory(id);
    let mut crowd: Vec<Connection> = (0..count).map(|_| Connection::open(guard.address).unwrap()).collect();
    // Each is served once, so that it is not only in a queue.
    for client in &mut crowd {
        assert_eq!(client.request("GET", "/first", &[], b"").unwrap().status, 200);
    }
    let (mut slowest, began) = (Duration::ZERO, Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        assert_eq!(guard.put("/good", &stamp).status, 200);
        slowest = slowest.max(asked.elapsed());
    }
    let more = most_memory(id).saturating_sub(before);
    println!("{count} idle connections: {} KiB each, a good write at most {slowest:?}", more / count / 1024);
    assert!(more / count < 128 * 1024, "{} KiB for an idle connection", more / count / 1024);
    assert_eq!(crowd[0].request("GET", "/first", &[], b"").unwrap().status, 200);
    assert_eq!(crowd[count - 1].request("GET", "/first", &[], b"").unwrap().status, 200);
}

#[test]
fn uploads_that_the_target_does_not_take_stay_out_of_memory() {
    const UPLOADS: usize = 24;
    let mut world = World::embedded();
    let mut guard = world.guard("guard").start();
    let (one, stamp) = world.elect("orders-a");
    guard.await_open(&one);
    assert_eq!(guard.put("/first", &stamp).status, 200);
    let id = guard.process().id();
    let before = most_memory(id);

    world.upstream.always("read=@read");
    let body = vec![b'x'; 8 * MEBIBYTE];
    thread::scope(|scope| {
        let uploads: Vec<_> = (0..UPLOADS)
            .map(|number| {
                let (to, stamp, body) = (guard.address, &stamp, &body);
                scope
                    .spawn(move || client::request(to, "PUT", &format!("/{number}"), &[("Fencing-Epoch", stamp)], body))
            })
            .collect();
        eventually("the target has every head", LONG, || world.upstream.waiting("read") == UPLOADS);
        // Held heads, too: as large as they may be, and never whole.
        let heads: Vec<Connection> = (0..100)
            .map(|_| {
                let mut client = Connection::open(guard.address).unwrap();
                client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(60_000)).as_bytes()).unwrap();
                client
            })
            .collect();
        assert_eq!(guard.resource()["gate"]["in_flight"], UPLOADS);
        drop(heads);
        world.upstream.open("read");
        for upload in uploads {
            assert_eq!(upload.join().unwrap().unwrap().status, 200);
        }
    });
    let more = most_memory(id).saturating_sub(before) / MEBIBYTE;
    println!("{UPLOADS} uploads of {} MiB: at most {more} MiB more than before", body.len() / MEBIBYTE);
    assert!(more < 64, "{more} MiB more than before, for {} MiB of uploads", UPLOADS * body.len() / MEBIBYTE);
}
