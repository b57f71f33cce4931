//! Databases under faults, judged by the history checker: PostgreSQL, Redis, and MariaDB over plain TCP.
//!
//! Real processes: etcd, a database, a guard before it, two stamps, clients that never rest, a ghost that comes with stamps of the
//! past; and somebody who has leaders step down, kills, stops and pauses them and the guard, pauses the database, and lets the
//! network stand still or break. Each operation is one transaction. What the database has committed, and in which order, is read
//! from its own log afterwards; of which term each operation was, the network between has seen ([`relay`]). All of it is held
//! against the rules (`epochgate::verify`).
//!
//! What is done follows from a seed, which is printed: `EPOCHGATE_CHAOS_SEED=7` does it again. `make soak-databases MINUTES=30`
//! plays one episode after the other. What is violated is kept in a folder, whole.
//!
//! | file | what it is |
//! |---|---|
//! | [`database`] | what a database is here, and a client of it |
//! | [`mariadb`], [`redis`], [`postgres`] | the three |
//! | [`world`], [`relay`] | everything of one episode; the network that looks |
//! | [`clients`] | who writes, and how badly |
//! | [`plan`], [`nemesis`] | what is to be done, from a seed; doing it |
//! | [`record`], [`episode`] | what the outside sees; one whole episode, and its verdict |
//! | [`takeover`] | how long it takes until a new leader of PostgreSQL writes |

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../chaos/grants.rs"]
mod grants;
#[path = "../chaos/node.rs"]
#[allow(dead_code, reason = "its disks are not troubled here")]
mod node;

mod clients;
mod database;
mod episode;
mod mariadb;
mod nemesis;
mod plan;
mod postgres;
mod record;
mod redis;
mod relay;
mod takeover;
mod world;

use std::time::{Duration, Instant};

use database::Kind;
use episode::Tally;
use plan::{Fault, Plan};

/// A number from the environment.
fn number(key: &str) -> Option<u64> {
    let text = std::env::var(key).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{key} is a number, not {text}")))
}

fn seed(default: u64) -> u64 {
    number("EPOCHGATE_CHAOS_SEED").unwrap_or(default)
}

fn in_short(kind: Kind, default: u64, faults: &[Fault]) {
    let plan = Plan::with(seed(default), kind, faults);
    println!("{plan}");
    let began = Instant::now();
    let tally = episode::play(&plan);
    println!("{kind:?}, {:?}: {tally}", began.elapsed());
    assert_eq!((tally.of("violations"), tally.of("complaints")), (0, 0), "see above");
    assert!(tally.of("failovers") > 1, "the database saw no failover");
}

#[test]
fn mariadb_over_tcp() {
    use Fault::*;
    let faults = [StepDown, StepDown, PauseStamp, KillStamp, KillGuardMidway, PauseTarget, WayStandsStill, WayBreaks];
    in_short(Kind::Mariadb, 1, &faults);
}

#[test]
fn redis_with_a_control_connection() {
    use Fault::*;
    let faults = [
        StepDown,
        StepDown,
        StepDown,
        PauseStamp,
        KillStamp,
        KillGuardMidway,
        KillGuardAtStep,
        PauseGuard,
        PauseTargetLong,
        WayStandsStill,
        WayBreaks,
        StopGuard,
    ];
    in_short(Kind::Redis, 2, &faults);
}

#[test]
fn postgres_with_a_control_connection() {
    use Fault::*;
    let faults = [
        StepDown,
        StepDown,
        StepDown,
        PauseStamp,
        StopStamp,
        KillGuardMidway,
        KillGuardAtStep,
        PauseGuard,
        PauseTargetLong,
        WayStandsStill,
        WayBreaks,
        KillGuard,
    ];
    in_short(Kind::Postgres, 3, &faults);
}

/// Without a mechanism, and without a control connection, it is found: then what the others do not find is not there for want of
/// looking. (Redis hardly shows it: it does one thing after the other, and lets go of what waits as soon as its connection ends.)
fn is_missed(without: &'static str, kind: Kind, faults: &[Fault], default: u64) {
    for attempt in 0..10 {
        let mut plan = Plan::with(seed(default) + attempt, kind, faults);
        (plan.without, plan.slow, plan.longest) = (without, 300, Duration::from_millis(2500));
        let tally = episode::play(&plan);
        println!("{kind:?} without {without}: {tally}");
        if tally.of("out of order") > 0 {
            return;
        }
    }
    panic!("nothing out of order, ten times, without {without}");
}

#[test]
fn the_drain_is_missed_by_mariadb() {
    is_missed("drain,lost_writes", Kind::Mariadb, &[Fault::StepDown, Fault::PauseStamp, Fault::StepDown], 4);
}

#[test]
fn the_drain_is_missed_by_postgres() {
    is_missed("drain,lost_writes", Kind::Postgres, &[Fault::StepDown, Fault::PauseStamp, Fault::StepDown], 5);
}

/// What a guard had forwarded that was killed goes on at the database.
#[test]
fn residue_is_missed_by_postgres() {
    is_missed("residue", Kind::Postgres, &[Fault::KillGuardMidway; 3], 6);
}

/// `make soak-databases MINUTES=30`: one episode after the other, each from the next seed, of each database in turn.
#[test]
#[ignore = "runs for as long as it is told to: `make soak-databases MINUTES=30`"]
fn soak() {
    let first = seed(std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_secs()));
    let limit = Duration::from_secs(60 * number("MINUTES").unwrap_or(30));
    let steps = usize::try_from(number("EPOCHGATE_CHAOS_STEPS").unwrap_or(25)).expect("small");
    let began = Instant::now();
    let mut sum = Tally::default();
    for seed in first.. {
        let kind = [Kind::Postgres, Kind::Redis, Kind::Mariadb][usize::try_from(seed % 3).expect("small")];
        let plan = Plan::of(seed, kind, steps);
        println!("{plan}");
        sum.add(&episode::play(&plan));
        println!("[{:>5} s] so far: {sum}", began.elapsed().as_secs());
        if began.elapsed() >= limit {
            break;
        }
    }
    let failed = ["violations", "complaints"].map(|what| sum.of(what));
    assert_eq!(failed, [0; 2], "violations, complaints: see above");
}
