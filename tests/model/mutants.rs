//! For each mechanism, and each condition, a world in which its lack is seen, and the rule that is broken there.

use epochgate::fence::mechanism::Mechanism;

use crate::rules::Rule;
use crate::setup::{DoorSetup, Setup};
use crate::step::Step;

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

/// A write of the first term is on its way, the coordinator was backed up, and then the second term opened.
fn restored_after_a_handoff() -> Setup {
    crashing().with(|world| {
        (world.prompt, world.faults.restores) = (true, 1);
        world.so_far =
            &[Step::Write(0), Step::BackUp, Step::WriterLapses(0), Step::Campaign(1), Step::Read(0), Step::Write(1)];
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

/// A write of the first term is on its way, a second term is minted, and a second door has started.
fn another_has_started(closes: bool) -> Setup {
    two_doors(closes).with(|world| {
        world.so_far =
            &[Step::Write(0), Step::WriterLapses(0), Step::Campaign(1), Step::Start(1), Step::GuardSession(1)];
    })
}

/// A write of the first term is on its way; door 1 has left, door 2 has come, and the second term is open there.
fn one_left_and_the_other_opened() -> Setup {
    two_doors(false).with(|world| {
        world.faults.stops = 2;
        world.so_far = &[
            Step::Write(0),
            Step::Stop(0),
            Step::Depart(0),
            Step::Start(1),
            Step::GuardSession(1),
            Step::Plan(1),
            Step::WriterLapses(0),
            Step::Campaign(1),
            Step::Read(1),
        ];
    })
}

/// Door 1 has sent a write to the target when its lease lapses, and a second term is minted.
fn one_lapses_while_it_writes() -> Setup {
    shared().with(|world| {
        world.faults.door_lapses = 1;
        world.so_far = &[
            Step::Write(0),
            Step::Arrive(0, 0, 0),
            Step::Send(0),
            Step::GuardLapses(0),
            Step::WriterLapses(0),
            Step::Campaign(1),
        ];
    })
}

/// A write of the first term is on its way to door 1, whose lease lapses; door 2 learns of the second term.
fn one_lapses_and_the_other_hands_over() -> Setup {
    shared().with(|world| {
        world.faults.door_lapses = 1;
        world.so_far = &[Step::Write(0), Step::GuardLapses(0), Step::WriterLapses(0), Step::Campaign(1), Step::Read(1)];
    })
}

/// A write of the first term is on its way; the coordinator is wiped, door 2 joins again, and a second term is minted.
fn wiped_and_one_has_joined() -> Setup {
    shared().with(|world| {
        (world.faults.wipes, world.faults.writer_lapses) = (1, 0);
        world.so_far = &[
            Step::Write(0),
            Step::Wipe,
            Step::GuardSession(1),
            Step::Plan(1),
            Step::Read(1),
            Step::Report(1),
            Step::WriterSession(1),
            Step::Campaign(1),
        ];
    })
}

/// Something to take out.
pub struct Line {
    /// What.
    pub missing: &'static str,
    /// The rule that is broken without it.
    pub rule: Rule,
    /// Where; it is out there.
    pub setup: Setup,
    /// Whether it takes long to find.
    pub large: bool,
}

/// One line for each mechanism that the model can do without.
pub fn lines() -> Vec<Line> {
    use Mechanism as M;
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
        (M::Regression, Rule::Memory, restored_after_a_handoff()),
        (M::Belief, Rule::NoPoisoning, crashing().with(|world| world.faults.forged_reports = 1)),
        (M::OwnTerm, Rule::OwnTerm, one_door()),
        (M::OwnNonce, Rule::OwnTerm, one_door().with(|world| world.one_id = true)),
        (M::ConnectionBinding, Rule::OwnTerm, pools()),
        (M::AcceptFirst, Rule::OwnTerm, pools()),
        (M::Expectation, Rule::OwnTerm, pools()),
        (M::Deadline, Rule::OwnTerm, one_door()),
        (M::DoorRecord, Rule::Order, two_doors(false)),
        (M::WaitingOut, Rule::Order, two_doors(false).with(|world| world.faults.crashes = 1)),
        (M::Leaving, Rule::Order, another_has_started(false).with(|world| world.faults.stops = 1)),
        (M::ReadOnJoining, Rule::Order, one_left_and_the_other_opened()),
        (M::Closing, Rule::Order, two_doors(true).with(|world| world.faults.door_lapses = 1)),
        (M::Agreement, Rule::Order, shared()),
        (M::Solitude, Rule::Order, wiped_and_one_has_joined()),
        (M::WaitingOut, Rule::Order, one_lapses_while_it_writes()),
        (M::Closing, Rule::Order, one_lapses_and_the_other_hands_over()),
        (M::Recheck, Rule::Order, another_has_started(true).with(|world| world.faults.door_lapses = 1)),
    ];
    let line = |(mechanism, rule, setup): (Mechanism, Rule, Setup)| Line {
        missing: mechanism.as_str(),
        rule,
        large: [M::Closing, M::WaitingOut].contains(&mechanism) && setup.so_far.is_empty(),
        setup: setup.without(mechanism),
    };
    let mut lines: Vec<Line> = lines.into_iter().map(line).collect();
    // What the product cannot be without, since it is the order of two lines, is taken out in the model's own part.
    lines.push(Line {
        missing: "counting before comparing",
        rule: Rule::Order,
        setup: one_door().with(|world| world.counts_late = true),
        large: false,
    });
    lines.push(Line {
        missing: "cutting at a session's end",
        rule: Rule::Order,
        setup: another_has_started(true).with(|world| (world.faults.door_lapses, world.long_patience) = (1, true)),
        large: false,
    });
    lines.push(Line {
        missing: "joining before reading",
        rule: Rule::Order,
        setup: two_doors(false).with(|world| (world.faults.stops, world.reads_first) = (1, true)),
        large: true,
    });
    lines
}

/// What the rules are promised on condition of, each with a world in which it is not so.
pub fn conditions() -> Vec<Line> {
    let conditions = vec![
        (
            "the target ends every write within the quarantine",
            Rule::Order,
            one_door().with(|world| world.slow_target = true),
        ),
        (
            "a state directory is the present one",
            Rule::Memory,
            crashing().with(|world| (world.faults.old_copies, world.prompt) = (1, true)),
        ),
        (
            "a guard that was declared dead does not start again with its old files",
            Rule::Order,
            another_has_started(false).with(|world| (world.faults.crashes, world.dead_come_back) = (1, true)),
        ),
        (
            "no sole door that keeps open is cut off while the coordinator is wiped",
            Rule::OneWriter,
            wiped_beside_a_door_that_is_cut_off(),
        ),
        (
            "no shared door stands still while it is waited out, and has its old session restored",
            Rule::Order,
            restored_to_the_session_of_one_that_was_waited_out(),
        ),
    ];
    let line = |(missing, rule, setup): (_, _, Setup)| Line { missing, rule, large: setup.faults.restores > 0, setup };
    conditions.into_iter().map(line).collect()
}

/// A write of the first term is on its way to door 1, which reads nothing any more; door 2 finds an empty coordinator.
fn wiped_beside_a_door_that_is_cut_off() -> Setup {
    two_doors(false).with(|world| {
        (world.faults.wipes, world.faults.writer_lapses) = (1, 0);
        world.so_far = &[
            Step::Write(0),
            Step::Wipe,
            Step::Start(1),
            Step::GuardSession(1),
            Step::Plan(1),
            Step::Read(1),
            Step::WriterSession(1),
            Step::Campaign(1),
        ];
    })
}

/// A write of the first term is on its way to door 1, which stands still, and is waited out; door 2 opens the second term.
/// The backup is of before that.
fn restored_to_the_session_of_one_that_was_waited_out() -> Setup {
    shared().with(|world| {
        (world.faults.door_lapses, world.faults.restores) = (1, 1);
        world.so_far = &[
            Step::Write(0),
            Step::BackUp,
            Step::GuardLapses(0),
            Step::WriterLapses(0),
            Step::Campaign(1),
            Step::Read(1),
            Step::Report(1),
            Step::ReadWhenWaitedOut(1),
            Step::Write(1),
        ];
    })
}
