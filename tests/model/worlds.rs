//! The worlds with everything in force: what they have, and what may befall them there.

use crate::setup::{DoorSetup, Setup};

/// One sole door, its first term open, and a lease that may lapse: a handoff.
fn one(name: &'static str) -> Setup {
    Setup::sole(name).with(|world| {
        world.begun = true;
        world.faults.writer_lapses = 1;
    })
}

/// The same without readers: every write passes its sidecar, armed or not, and R1 has to hold all the same.
fn writes_only(name: &'static str) -> Setup {
    one(name).with(|world| world.reads = false)
}

/// Two shared doors.
fn two(name: &'static str) -> Setup {
    writes_only(name).with(|world| {
        world.prompt = true;
        world.doors = vec![DoorSetup { closes: true, shared: true, at_once: true }; 2];
    })
}

/// A world in which it is asked of every state whether a leader's write gets in again.
fn back_to_work(setup: Setup) -> Setup {
    setup.with(|world| {
        (world.terms, world.writes, world.prompt) = (4, 0, true);
        world.recovery = 1;
    })
}

/// All of them, and whether each is for `make model` only.
pub fn intact() -> Vec<(bool, Setup)> {
    let mut worlds = vec![(false, one("one door, a second term"))];
    worlds.extend(at_the_writers());
    worlds.extend(at_one_door());
    worlds.extend(at_the_coordinator());
    worlds.extend(at_two_doors());
    worlds.extend(alive());
    worlds
}

fn at_the_writers() -> Vec<(bool, Setup)> {
    vec![
        (
            false,
            writes_only("pools and kept connections").with(|world| {
                (world.pools, world.prompt) = (true, true);
            }),
        ),
        (false, writes_only("a write arrives twice").with(|world| world.faults.duplicates = 1)),
        (
            false,
            writes_only("answers of elections late or lost").with(|world| {
                (world.fine, world.terms, world.prompt) = (true, 3, true);
                world.faults.unclear = 1;
            }),
        ),
    ]
}

fn at_one_door() -> Vec<(bool, Setup)> {
    vec![
        (
            true,
            one("one door, three terms, a write twice").with(|world| {
                (world.faults.writer_lapses, world.faults.duplicates) = (2, 1);
                (world.terms, world.most) = (3, 20_000_000);
            }),
        ),
        (true, one("one door, two workers").with(|world| world.workers = 2)),
        (true, one("one door, killed").with(|world| (world.faults.crashes, world.prompt) = (1, true))),
        (true, one("one door, killed, disk and workers slow").with(|world| world.faults.crashes = 1)),
        (false, writes_only("one door, its disk fails").with(|world| world.faults.disk_failures = 1)),
        (false, writes_only("one door, stopped and started").with(|world| world.faults.stops = 1)),
        (
            false,
            writes_only("one door, its coordinator out of reach").with(|world| {
                world.faults.door_lapses = 1;
            }),
        ),
        (
            true,
            one("one door, forged stamps").with(|world| {
                world.faults.forged_epochs = 1;
                world.faults.forged_nonces = 1;
                world.writes = 1;
            }),
        ),
    ]
}

fn at_the_coordinator() -> Vec<(bool, Setup)> {
    vec![
        (
            true,
            writes_only("one door, the coordinator restored").with(|world| {
                world.faults.restores = 1;
                (world.terms, world.prompt) = (3, true);
            }),
        ),
        (
            true,
            writes_only("one door, the coordinator wiped").with(|world| {
                world.faults.wipes = 1;
                (world.terms, world.prompt) = (3, true);
            }),
        ),
    ]
}

fn at_two_doors() -> Vec<(bool, Setup)> {
    let one_after_the_other = |name, closes| {
        writes_only(name).with(|world| {
            world.prompt = true;
            world.doors = vec![
                DoorSetup { closes, shared: false, at_once: true },
                DoorSetup { closes, shared: false, at_once: false },
            ];
        })
    };
    vec![
        (true, one_after_the_other("two sole doors, one stops", false).with(|world| world.faults.stops = 1)),
        (true, one_after_the_other("two sole doors, one is killed", false).with(|world| world.faults.crashes = 1)),
        (true, one_after_the_other("two sole doors, one lapses", true).with(|world| world.faults.door_lapses = 1)),
        (true, two("two shared doors").with(|world| world.most = 20_000_000)),
        (true, two("two shared doors, one lapses").with(|world| world.faults.door_lapses = 1)),
        (true, two("two shared doors, one is killed").with(|world| world.faults.crashes = 1)),
        (true, two("two shared doors, one stops").with(|world| world.faults.stops = 1)),
        (true, two("two shared doors, the coordinator wiped").with(|world| world.faults.wipes = 1)),
    ]
}

fn alive() -> Vec<(bool, Setup)> {
    vec![
        (
            false,
            one("one door, a forged stamp, and back to work").with(|world| {
                (world.faults.forged_epochs, world.writes, world.recovery) = (1, 1, 1);
            }),
        ),
        (true, back_to_work(one("one door, killed, and back to work")).with(|world| world.faults.crashes = 1)),
        (true, back_to_work(one("one door, restored, and back to work")).with(|world| world.faults.restores = 1)),
        (true, back_to_work(one("one door, wiped, and back to work")).with(|world| world.faults.wipes = 1)),
        (
            true,
            back_to_work(one("one door, restored, answers late, and back to work")).with(|world| {
                world.faults.restores = 1;
                (world.terms, world.fine, world.views) = (3, true, true);
            }),
        ),
        (
            true,
            back_to_work(two("two shared doors, one lapses, and back to work"))
                .with(|world| world.faults.door_lapses = 1),
        ),
    ]
}
