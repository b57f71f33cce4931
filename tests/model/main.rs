//! The model: every order of events, in small worlds, over the production core (DESIGN 9).
//!
//! The decisions are the product's own: `Handoff`, `Gate`, `Ledger`, `Standing`, the plans of elections and doors, what
//! doors agree on, and the store as a value. What control does with them between two events is told here again, step by
//! step, in the order in which control does it. stateright explores breadth first, so the run that it prints is a
//! shortest one.
//!
//! | file | what it holds |
//! |---|---|
//! | [`setup`] | a world: who is there, what may befall them |
//! | [`world`], [`guard`], [`worker`], [`candidate`], [`write`], [`coordinator`] | its state, part by part |
//! | [`steps`], [`claim`], [`peers`], [`wire`] | what may happen next, and what it does |
//! | [`rules`], [`recovery`] | R1 to R5, and that a leader's write gets in once nothing goes wrong any more |
//! | [`explore`], [`tale`], [`words`] | exploring, and telling what was found |
//! | [`mutants`] | a world for each mechanism in which its lack is seen |
//!
//! `make test` explores the worlds that are small; `make model` the larger ones too.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod candidate;
mod claim;
mod coordinator;
mod explore;
mod guard;
mod mutants;
mod part;
mod peers;
mod recovery;
mod rules;
mod setup;
mod steps;
mod tale;
mod wire;
mod words;
mod worker;
mod world;
mod write;

use std::thread::available_parallelism;

use explore::Exploration;
use setup::{DoorSetup, Setup};

/// Whether the larger worlds are explored too.
fn whole() -> bool {
    std::env::var("EPOCHGATE_MODEL").is_ok_and(|size| size == "whole")
}

/// So many states of a larger world are looked at, at most: what is cut off is said.
const MOST: usize = 3_000_000;

/// The worlds with every mechanism in force, and whether each is for `make model` only.
fn worlds() -> Vec<(bool, Setup)> {
    let one = |name| {
        Setup::sole(name).with(|world| {
            world.begun = true;
            world.faults.writer_lapses = 1;
        })
    };
    let two = |name| {
        one(name).with(|world| {
            world.reads = false;
            world.prompt = true;
            world.writes = 1;
            world.doors = vec![DoorSetup { closes: true, shared: true, at_once: true }; 2];
        })
    };
    vec![
        (false, one("one door, a second term")),
        (
            true,
            one("one door, three terms").with(|world| {
                world.faults.writer_lapses = 2;
                world.terms = 3;
            }),
        ),
        (true, one("one door, two workers").with(|world| world.workers = 2)),
        (true, one("one door, killed").with(|world| world.faults.crashes = 1)),
        (
            true,
            one("one door, forged stamps").with(|world| {
                world.faults.forged_epochs = 1;
                world.faults.forged_nonces = 1;
                world.writes = 1;
            }),
        ),
        (
            true,
            one("one door, the coordinator restored").with(|world| {
                world.faults.restores = 1;
                world.terms = 3;
                world.writes = 1;
                world.reads = false;
            }),
        ),
        (true, two("two shared doors")),
        (true, two("two shared doors, one lapses").with(|world| world.faults.door_lapses = 1)),
        (true, two("two shared doors, one is killed").with(|world| world.faults.crashes = 1)),
        (true, two("two shared doors, the coordinator wiped").with(|world| world.faults.wipes = 1)),
    ]
}

#[test]
fn no_order_of_events_breaks_a_rule() {
    let threads = available_parallelism().map_or(1, usize::from);
    let mut states = 0;
    for (_, setup) in worlds().into_iter().filter(|(large, _)| whole() || !large) {
        let name = setup.name;
        let found = Exploration::of(setup).explore(threads, MOST);
        let extent = if found.is_all { "all of them" } else { "not all: bounded" };
        println!(
            "{name}: {} states ({extent}), {} steps, depth {}, {:.1} s",
            found.states,
            found.steps,
            found.depth,
            found.took.as_secs_f64()
        );
        states += found.states;
        if let Some((rule, tale, _)) = found.broken {
            panic!("{name}: {} is broken:\n{tale}", rule.as_str());
        }
    }
    println!("{states} states in all, and no rule broken");
}

#[test]
fn without_a_mechanism_the_model_finds_what_it_is_for() {
    println!("| without | broken | in so many steps | states seen |");
    let mut wrong = Vec::new();
    for line in mutants::lines().into_iter().filter(|line| whole() || !line.large) {
        let found = Exploration::of(line.setup.without(line.mechanism)).explore(1, MOST);
        let name = line.mechanism.as_str();
        let Some((rule, tale, steps)) = found.broken else {
            wrong.push(format!("without {name}: nothing found in {} states", found.states));
            continue;
        };
        println!("| `{name}` | {} | {steps} | {} |", rule.as_str(), found.states);
        if whole() {
            println!("{tale}");
        }
        if rule != line.rule {
            wrong.push(format!("without {name}: {} is broken, not {}:\n{tale}", rule.as_str(), line.rule.as_str()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
