//! For each mechanism a world in which its lack is seen, and the rule that is broken there.

use epochgate::fence::mechanism::Mechanism;

use crate::rules::Rule;
use crate::setup::{DoorSetup, Setup};

/// A handoff to a second term, with a world around it.
fn one_door() -> Setup {
    Setup::sole("one door").with(|world| {
        world.begun = true;
        world.reads = false;
        world.faults.writer_lapses = 1;
    })
}

fn crashing() -> Setup {
    one_door().with(|world| world.faults.crashes = 1)
}

fn restored() -> Setup {
    one_door().with(|world| {
        world.faults.restores = 1;
        world.terms = 4;
        world.writes = 1;
    })
}

fn pools() -> Setup {
    one_door().with(|world| {
        world.pools = true;
        world.writes = 1;
        world.terms = 3;
        world.faults.writer_lapses = 2;
    })
}

fn two_doors(closes: bool) -> Setup {
    Setup::sole("two doors").with(|world| {
        world.begun = true;
        world.reads = false;
        world.prompt = true;
        world.doors = vec![
            DoorSetup { closes, shared: false, at_once: true },
            DoorSetup { closes, shared: false, at_once: false },
        ];
        world.faults.writer_lapses = 1;
    })
}

fn shared() -> Setup {
    Setup::sole("shared doors").with(|world| {
        let door = DoorSetup { closes: true, shared: true, at_once: true };
        world.begun = true;
        world.reads = false;
        world.prompt = true;
        world.doors = vec![door; 2];
        world.faults.writer_lapses = 1;
    })
}

/// A mechanism to take out.
pub struct Line {
    pub mechanism: Mechanism,
    /// The rule that is broken without it.
    pub rule: Rule,
    /// Where.
    pub setup: Setup,
    /// Whether it takes long to find.
    pub large: bool,
}

/// One line for each mechanism that the model can do without.
pub fn lines() -> Vec<Line> {
    use Mechanism as M;
    let slow = [M::WaitingOut, M::Leaving, M::ReadOnJoining, M::Closing, M::Recheck, M::Agreement, M::Solitude];
    let lines = vec![
        (M::Comparison, Rule::Order, one_door()),
        (M::Drain, Rule::Order, one_door()),
        (M::LostWrites, Rule::Order, one_door()),
        (M::Arming, Rule::Settled, one_door().with(|world| world.reads = true)),
        (M::Confirmation, Rule::NoPoisoning, one_door().with(|world| world.faults.forged_epochs = 1)),
        (M::Nonce, Rule::OneWriter, one_door().with(|world| world.faults.forged_nonces = 1)),
        (M::DrainedMark, Rule::Order, crashing()),
        (M::Residue, Rule::Order, crashing()),
        (M::CleanMark, Rule::Order, crashing()),
        (M::Persistence, Rule::Memory, crashing()),
        (M::GivingUp, Rule::Recovery, restored().with(|world| world.recovery = 1)),
        (M::MintAboveFloors, Rule::OneWriter, restored()),
        (
            M::OneTransaction,
            Rule::OneWriter,
            one_door().with(|world| {
                world.fine = true;
                world.terms = 3;
            }),
        ),
        (M::Belief, Rule::NoPoisoning, crashing().with(|world| world.faults.forged_reports = 1)),
        (M::OwnTerm, Rule::OwnTerm, one_door()),
        (M::OwnNonce, Rule::OwnTerm, one_door().with(|world| world.one_id = true)),
        (M::ConnectionBinding, Rule::OwnTerm, pools()),
        (M::AcceptFirst, Rule::OwnTerm, pools()),
        (M::Expectation, Rule::OwnTerm, pools()),
        (M::Deadline, Rule::OwnTerm, one_door()),
        (M::DoorRecord, Rule::Order, two_doors(false)),
        (M::WaitingOut, Rule::Order, two_doors(false).with(|world| world.faults.crashes = 1)),
        (M::Leaving, Rule::Order, two_doors(false).with(|world| world.faults.stops = 1)),
        (M::ReadOnJoining, Rule::Order, two_doors(false).with(|world| world.faults.stops = 2)),
        (M::Closing, Rule::Order, two_doors(true).with(|world| world.faults.door_lapses = 1)),
        (M::Agreement, Rule::Order, shared()),
        (M::Solitude, Rule::Order, shared().with(|world| world.faults.wipes = 1)),
        (M::WaitingOut, Rule::Order, shared().with(|world| world.faults.door_lapses = 1)),
        (M::Closing, Rule::Order, shared().with(|world| world.faults.door_lapses = 1)),
        (M::Recheck, Rule::Order, two_doors(true).with(|world| world.faults.door_lapses = 1)),
    ];
    let line = |(mechanism, rule, setup)| Line { mechanism, rule, setup, large: slow.contains(&mechanism) };
    lines.into_iter().map(line).collect()
}
