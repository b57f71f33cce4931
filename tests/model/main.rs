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
//! | [`step`], [`steps`], [`at_writers`], [`at_doors`], [`at_writes`] | what may happen next |
//! | [`claim`], [`peers`], [`wire`] | what it does |
//! | [`plain`], [`memo`] | what saves time while exploring |
//! | [`rules`], [`recovery`] | R1 to R5, and that a leader's write gets in once nothing goes wrong any more |
//! | [`explore`], [`tale`], [`words`] | exploring, and telling what was found |
//! | [`worlds`] | the worlds with everything in force |
//! | [`mutants`] | a world for each mechanism, and each condition, in which its lack is seen |
//!
//! `make test` explores the worlds that are small; `make model` the larger ones too; `EPOCHGATE_WORLD=residue` only those
//! whose name has that in it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod at_doors;
mod at_writers;
mod at_writes;
mod candidate;
mod claim;
mod coordinator;
mod explore;
mod guard;
mod memo;
mod mutants;
mod part;
mod peers;
mod plain;
mod recovery;
mod rules;
mod setup;
mod step;
mod steps;
mod tale;
mod wire;
mod words;
mod worker;
mod world;
mod worlds;
mod write;

use std::thread::available_parallelism;
use std::time::Duration;

use explore::Exploration;
use mutants::Line;

/// Whether the larger worlds are explored too.
fn whole() -> bool {
    std::env::var("EPOCHGATE_MODEL").is_ok_and(|size| size == "whole")
}

/// Whether a world or a line of this name is wanted: all are, but for who names some.
fn wanted(name: &str) -> bool {
    std::env::var("EPOCHGATE_WORLD").map_or(true, |part| name.contains(&part))
}

#[test]
fn no_order_of_events_breaks_a_rule() {
    let threads = available_parallelism().map_or(1, usize::from);
    let (mut states, mut took) = (0, Duration::ZERO);
    println!("| world, with everything in force | states | steps | depth | all | seconds |\n|---|---|---|---|---|---|");
    for (large, setup) in worlds::intact() {
        let name = setup.name;
        if (large && !whole()) || !wanted(name) {
            continue;
        }
        let found = Exploration::of(setup).explore(threads);
        let extent = if found.is_all { "yes" } else { "bounded" };
        let seconds = found.took.as_secs_f64();
        println!("| {name} | {} | {} | {} | {extent} | {seconds:.1} |", found.states, found.steps, found.depth);
        states += found.states;
        took += found.took;
        if let Some((rule, tale, _)) = found.broken {
            panic!("{name}: {} is broken:\n{tale}", rule.as_str());
        }
    }
    println!("{states} states in all in {:.0} s, and no rule broken", took.as_secs_f64());
}

/// Where a condition of R1 does not hold, the model finds the order of events in which it is missed.
#[test]
fn without_a_condition_the_model_finds_what_it_is_for() {
    look_for("unless", mutants::conditions());
}

#[test]
fn without_a_mechanism_the_model_finds_what_it_is_for() {
    look_for("without", mutants::lines());
}

/// Every line breaks its rule in its world.
fn look_for(how: &str, lines: Vec<Line>) {
    println!("| {how} | in | broken | in so many steps | states seen | seconds |\n|---|---|---|---|---|---|");
    let mut wrong = Vec::new();
    for Line { missing, rule, setup, large } in lines {
        if (large && !whole()) || !wanted(missing) {
            continue;
        }
        let place = if setup.so_far.is_empty() { setup.name.to_owned() } else { format!("{}, aimed", setup.name) };
        let found = Exploration::of(setup).explore(1);
        let seconds = found.took.as_secs_f64();
        let Some((broken, tale, steps)) = found.broken else {
            wrong.push(format!("{how} {missing}: nothing found in {} states, {seconds:.1} s", found.states));
            continue;
        };
        let states = found.states;
        println!("| {missing} | {place} | {} | {steps} | {states} | {seconds:.1} |", broken.as_str());
        if whole() {
            println!("{tale}");
        }
        if broken != rule {
            wrong.push(format!("{how} {missing}: {} is broken, not {}:\n{tale}", broken.as_str(), rule.as_str()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
