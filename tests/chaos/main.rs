//! Real processes under real faults, judged by the history checker.
//!
//! Guards and stamps as they ship (but for a switch that kills them at a step, and one that lets their disk fail), an
//! etcd of one or three members, a target that remembers, clients that never rest; and somebody who kills, stops and
//! pauses them, cuts and floods the network between them, fills their disks, and takes etcd's memory away. Everything
//! that anybody saw is written down and held against the rules (`epochgate::verify`). Then the faults end, and a write
//! has to be acknowledged within [`episode::WITHIN`].
//!
//! What happens follows from a seed, which is printed: `EPOCHGATE_CHAOS_SEED=7` plays it again. `make soak MINUTES=30`
//! plays one episode after the other. What is violated is kept in a folder, whole.
//!
//! | file | what it is |
//! |---|---|
//! | [`ground`] | network namespaces; cuts in one direction |
//! | [`world`], [`node`] | everything of one episode; one process of it |
//! | [`clients`] | who writes, and how badly |
//! | [`plan`], [`nemesis`] | what is to be done, from a seed; doing it |
//! | [`network`], [`disks`] | the parts of that which have to do with them |
//! | [`record`], [`grants`] | what the outside sees; what etcd granted |
//! | [`judge`], [`episode`] | the verdict; one whole episode |

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod disks;
mod episode;
mod grants;
mod ground;
mod judge;
mod nemesis;
mod network;
mod node;
mod plan;
mod record;
mod world;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use episode::Tally;
use plan::{Door, Fault, Plan, Shape};

/// A number from the environment.
fn number(key: &str) -> Option<u64> {
    let text = std::env::var(key).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{key} is a number, not {text}")))
}

fn seed(default: u64) -> u64 {
    number("EPOCHGATE_CHAOS_SEED").unwrap_or(default)
}

fn in_short(name: &str, shape: Shape, faults: &[Fault], default: u64, command: bool) {
    ground::play(name, |ground| {
        let plan = Plan::with(seed(default), shape, faults);
        println!("{plan}");
        let began = Instant::now();
        let tally = episode::play(ground, &plan, command);
        println!("{name}, {:?}: {tally}", began.elapsed());
        assert_eq!((tally.of("violations"), tally.of("complaints")), (0, 0), "see above");
        assert!(tally.of("terms") > 1, "nothing ever failed over");
    });
}

/// One etcd, one guard, two writers: processes die, stand still, stop and hand over; the disk fails.
#[test]
fn one_door_and_processes_that_die_and_stand_still() {
    use Fault::*;
    let shape = Shape { door: Door::SoleKeeps, guards: 1, stamps: 2, members: 1, stamps_keep: false };
    let faults = &[
        KillStamp,
        KillGuard,
        KillGuardAtStep,
        PauseStamp,
        PauseGuard,
        StopStamp,
        StopGuard,
        StepDown,
        PauseMember,
        DiskWrites,
        DiskSyncs,
        DiskFull,
        Weather,
        TargetCutBack,
    ];
    in_short("one_door_and_processes_that_die_and_stand_still", shape, faults, 1, true);
}

/// Three members of etcd, one guard: partitions, lost quorum, stale members, lost memory.
#[test]
fn one_door_and_a_coordinator_in_trouble() {
    use Fault::*;
    let shape = Shape { door: Door::SoleCloses, guards: 1, stamps: 2, members: 3, stamps_keep: false };
    let faults = &[
        KillMember,
        LoseQuorum,
        LagMember,
        MembersApart,
        GuardUnheard,
        GuardDeaf,
        StampUnheard,
        StampDeaf,
        GuardAtStaleMember,
        Restore,
        Wipe,
        StepDown,
        KillStamp,
    ];
    in_short("one_door_and_a_coordinator_in_trouble", shape, faults, 2, false);
}

/// Three members of etcd, three doors of one target.
#[test]
fn shared_doors_that_fall_apart() {
    use Fault::*;
    let shape = Shape { door: Door::Shared, guards: 3, stamps: 2, members: 3, stamps_keep: false };
    let faults = &[
        KillGuard,
        PauseGuard,
        StopGuard,
        KillGuardAtStep,
        GuardUnheard,
        GuardDeaf,
        StampCutThere,
        StampCutBack,
        TargetCutThere,
        Weather,
        DiskSlow,
        PauseStamp,
        StepDown,
        Wipe,
    ];
    in_short("shared_doors_that_fall_apart", shape, faults, 3, false);
}

/// Without the drain it is found: then what the others do not find is not there for want of looking.
#[test]
fn what_is_taken_out_is_missed() {
    ground::play("what_is_taken_out_is_missed", |ground| {
        let shape = Shape { door: Door::SoleKeeps, guards: 1, stamps: 2, members: 1, stamps_keep: false };
        for attempt in 0..10 {
            let mut plan = Plan::with(seed(4) + attempt, shape, &[Fault::StepDown; 6]);
            plan.without = "drain,lost_writes";
            plan.manners.odd_target = 400;
            let tally = episode::play(ground, &plan, false);
            if tally.of("violations") > 0 {
                return;
            }
        }
        panic!("no violation, ten times, without the drain");
    });
}

/// `make soak MINUTES=30`: one episode after the other, each from the next seed, in `LANES` places at a time.
#[test]
#[ignore = "runs for as long as it is told to: `make soak MINUTES=30`"]
fn soak() {
    let first = seed(std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_secs()));
    if !ground::is_inside() && ground::copy("soak").is_ok() {
        return soak_in_lanes(first);
    }
    ground::play("soak", |ground| {
        let limit = Duration::from_secs(60 * number("MINUTES").unwrap_or(30));
        let steps = usize::try_from(number("EPOCHGATE_CHAOS_STEPS").unwrap_or(30)).expect("small");
        let began = Instant::now();
        for seed in first.. {
            let plan = Plan::of(seed, steps);
            println!("{plan}");
            println!("{}", episode::play(ground, &plan, seed == first).line());
            if began.elapsed() >= limit {
                break;
            }
        }
    });
}

/// Each lane is a copy with namespaces of its own; what they say comes out here, and is added up.
fn soak_in_lanes(first: u64) {
    let (began, lanes) = (Instant::now(), number("LANES").unwrap_or(3));
    println!("soak: {lanes} lanes from seed {first}");
    let sum = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            let sum = &sum;
            scope.spawn(move || {
                let (mut copy, _folder) = ground::copy("soak").expect("it was possible just now");
                let seed = first + lane * 1_000_000;
                let copy = copy.env("EPOCHGATE_CHAOS_SEED", seed.to_string()).stdout(Stdio::piped());
                let mut copy = copy.spawn().expect("it started before");
                for line in BufReader::new(copy.stdout.take().expect("it is piped")).lines().map_while(Result::ok) {
                    let at = began.elapsed().as_secs();
                    match Tally::read(&line) {
                        Some(tally) => {
                            let mut sum = sum.lock().unwrap();
                            sum.add(&tally);
                            println!("[{at:>5} s] so far: {sum}");
                        }
                        None => println!("[{at:>5} s, lane {lane}] {line}"),
                    }
                }
                let status = copy.wait().expect("it is a child");
                if !status.success() {
                    println!("lane {lane} FAILED: {status}");
                    sum.lock().unwrap().count("lanes failed", 1);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    println!("soak from seed {first}, {:?}: {sum}", began.elapsed());
    let failed = ["violations", "complaints", "lanes failed"].map(|what| sum.of(what));
    assert_eq!(failed, [0; 3], "violations, complaints, lanes that failed: see above");
}
