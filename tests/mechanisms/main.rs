//! Every mechanism of the fence, taken out: the scenario in which the violation is seen to happen, and the same scenario
//! with the mechanism in force, in which it is not.
//!
//! The table below is all: mechanism, scenario, what is seen without it. `drain::taken_out` and `drain::in_force` are
//! the two tests of its line. `docs/safety.md` has the same lines with the rules that they keep; a test compares.
//!
//! | file | where the scenarios play |
//! |---|---|
//! | [`at_the_target`] | one guard, real; the overtaking race |
//! | [`at_the_doors`] | guards that come and go |
//! | [`at_the_writers`] | stamping sidecars |
//! | [`on_paper`] | the pure core alone, where a real run could show nothing more |

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod at_the_doors;
mod at_the_target;
mod at_the_writers;
mod on_paper;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use epochgate::fence::mechanism::{Mechanism, Mechanisms};
use epochgate::verify::Invariant;
use support::process::{LONG, Launch};
use support::world::Plan;

proofs! {
    // At the target: what is applied, and in which order.
    Comparison, comparison: at_the_target::a_stamp_of_yesterday, "a stale write is applied after a new one";
    Recheck, recheck: on_paper::a_write_that_waits_for_a_connection, "a write leaves after its door was shut for another";
    Drain, drain: at_the_target::a_slow_old_write, "the new write lands before the old one";
    LostWrites, lost_writes: at_the_target::a_write_that_the_guard_gave_up, "the new write lands before the one given up";
    NoAnswer, no_answer: at_the_target::a_target_that_says_504, "the new write lands before the one that got 504";
    WholeAnswer, whole_answer: at_the_target::an_answer_in_two_parts, "the new write lands before one half answered";
    SentWhole, sent_whole: at_the_target::an_answer_before_the_request, "the rest of an old write follows the new one";
    Reset, reset: at_the_target::a_target_that_does_not_read, "the kernel delivers an old write after the new one";
    Truncation, truncation: at_the_target::an_upload_cut_short, "a truncated upload is applied as complete";
    Confirmation, confirmation: at_the_target::a_forged_epoch, "a forged epoch is applied, and locks the leader out";
    Signature, signature: at_the_target::a_forged_signature, "a stranger's write is applied as the leader's";
    Nonce, nonce: at_the_target::the_same_epoch_from_somebody_else, "two terms of one epoch are admitted";
    // Over a restart.
    DrainedMark, drained_mark: at_the_target::a_guard_that_dies_while_it_drains, "the next start takes it for drained";
    Residue, residue: at_the_target::a_guard_that_dies_with_a_write_in_the_target, "its write lands after a new one";
    CleanMark, clean_mark: at_the_target::a_guard_that_dies_with_a_write_in_the_target, "it starts as if it had stopped";
    Persistence, persistence: on_paper::a_disk_that_does_not_answer, "a lower epoch is admitted after a restart";
    Regression, regression: on_paper::a_coordinator_restored_from_a_backup, "the floor goes down with the coordinator";
    // Doors.
    DoorRecord, door_record: at_the_doors::a_second_guard_beside_the_first, "two doors, and neither waits for the other";
    WaitingOut, waiting_out: at_the_doors::a_dead_guards_place, "the new door's write overtakes the dead one's";
    Closing, closing: at_the_doors::a_guard_that_was_cut_off_and_replaced, "two doors are open with two epochs";
    Agreement, agreement: at_the_doors::two_doors_and_a_slow_write, "one door opens while the other still drains";
    Solitude, solitude: on_paper::a_shared_door_that_finds_nobody, "it opens beside a door that is not on record";
    Leaving, leaving: at_the_doors::a_guard_that_left_and_comes_back_alone, "it opens the epoch that it left with";
    ReadOnJoining, read_on_joining: at_the_doors::a_guard_that_left_and_comes_back, "it admits what is over elsewhere";
    // Writers.
    OwnTerm, own_term: at_the_writers::a_deposed_leader, "its write is applied as the new leader's";
    OwnNonce, own_nonce: at_the_writers::a_second_process_of_the_same_id, "it writes under a term that it never won";
    ConnectionBinding, connection_binding: at_the_writers::a_pooled_connection, "old work goes out under a new term";
    AcceptFirst, accept_first: at_the_writers::a_connection_in_the_queue, "old work goes out under a new term";
    IncomingStamp, incoming_stamp: at_the_writers::a_service_that_stamps_itself, "work of one term is applied as another's";
    Expectation, expectation: at_the_writers::a_service_that_says_its_epoch, "work of one term is applied as another's";
    Deadline, deadline: at_the_writers::a_leader_cut_off_from_the_coordinator, "it stamps after its lease ran out";
    Arming, arming: at_the_writers::a_read_through_the_new_leader, "it reads before the old leader's write has landed";
    GivingUp, giving_up: at_the_writers::a_leader_below_the_floor, "it leads for ever and may never write";
    // Elections.
    MintAboveFloors, mint_above_floors: on_paper::an_election_after_a_restore, "an epoch is minted a second time";
    OneTransaction, one_transaction: on_paper::two_elections_on_one_reading, "two terms share an epoch";
    Belief, belief: on_paper::a_forged_report, "nobody can ever be elected again";
}

/// What the history checker has to see without a mechanism, in the histories of the very same scenarios. What is not here
/// breaks no rule that a history shows (work of another term under a valid stamp), or plays on paper alone.
const SEEN_BY_THE_CHECKER: &[(&str, &[Invariant])] = &[
    ("clean_mark", &[Invariant::Order, Invariant::Closed]),
    ("closing", &[Invariant::Order, Invariant::Closed]),
    ("comparison", &[Invariant::Order, Invariant::Closed]),
    ("confirmation", &[Invariant::Persisted]),
    ("deadline", &[Invariant::Granted]),
    ("door_record", &[Invariant::Order, Invariant::Closed]),
    ("drain", &[Invariant::Order, Invariant::Closed]),
    ("drained_mark", &[Invariant::Order, Invariant::Closed]),
    ("leaving", &[Invariant::Order, Invariant::Closed]),
    ("lost_writes", &[Invariant::Order, Invariant::Closed]),
    ("no_answer", &[Invariant::Order, Invariant::Closed]),
    ("nonce", &[Invariant::Granted]),
    ("own_term", &[Invariant::Granted]),
    ("read_on_joining", &[Invariant::Order, Invariant::Closed]),
    ("residue", &[Invariant::Order, Invariant::Closed]),
    ("sent_whole", &[Invariant::Order, Invariant::Closed]),
    ("waiting_out", &[Invariant::Order, Invariant::Closed]),
    ("whole_answer", &[Invariant::Order, Invariant::Closed]),
];

/// The checker, on what the scenario's processes recorded and its target applied.
#[track_caller]
fn assert_the_checker_saw_it(mechanism: &str) {
    let broken = support::history::broken();
    for said in broken.values() {
        println!("by the histories: {}", said.lines().next().unwrap_or_default());
    }
    let expected = SEEN_BY_THE_CHECKER.iter().find(|(name, _)| *name == mechanism).map_or(&[][..], |(_, seen)| seen);
    let missed: Vec<_> = expected.iter().filter(|invariant| !broken.contains_key(invariant)).collect();
    assert!(missed.is_empty(), "the history checker missed {missed:?}");
}

/// What a scenario saw happen that must not: the evidence, or nothing.
pub type Seen = Option<String>;

/// The fence that a scenario plays with: whole, or without one mechanism.
#[derive(Clone, Copy)]
pub struct Fence(Option<Mechanism>);

impl Fence {
    /// Whether every mechanism is in force.
    pub fn is_whole(self) -> bool {
        self.0.is_none()
    }

    /// For what is called directly.
    pub fn mechanisms(self) -> Mechanisms {
        self.0.map_or(Mechanisms::all(), |mechanism| Mechanisms::all().without(mechanism))
    }

    /// A process with this fence.
    pub fn of(self, plan: Plan) -> Plan {
        plan.env("EPOCHGATE_DANGER_WITHOUT", self.0.map_or("", Mechanism::as_str))
    }
}

macro_rules! proofs {
    ($($mechanism:ident, $name:ident: $file:ident::$scenario:ident, $violation:literal;)*) => {
        /// Every mechanism, the name of its tests, and what is seen without it.
        const PROOFS: &[(Mechanism, &str, &str)] = &[$((Mechanism::$mechanism, stringify!($name), $violation)),*];

        $(mod $name {
            use super::{Fence, Mechanism, $file::$scenario as scenario};

            #[test]
            fn in_force() {
                assert_eq!(scenario(Fence(None)), None);
                let broken = crate::support::history::broken();
                assert!(broken.is_empty(), "by the histories: {broken:#?}");
            }

            #[test]
            fn taken_out() {
                let seen = scenario(Fence(Some(Mechanism::$mechanism)));
                let seen = seen.expect("nothing was seen without it: then it is not needed, or not taken out");
                println!("without {}: {}: {seen}", stringify!($name), $violation);
                crate::assert_the_checker_saw_it(stringify!($name));
            }
        })*
    };
}
use proofs;

#[test]
fn every_mechanism_has_its_line() {
    let proved: Vec<&str> = PROOFS.iter().map(|(mechanism, ..)| mechanism.as_str()).collect();
    let named: Vec<&str> = PROOFS.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(proved, named, "the tests are called like the mechanism");
    let (proved, all): (BTreeSet<_>, BTreeSet<_>) =
        (proved.into_iter().collect(), Mechanism::ALL.iter().map(|mechanism| mechanism.as_str()).collect());
    assert_eq!(proved, all);
    assert_eq!(PROOFS.len(), Mechanism::ALL.len(), "and no more than one");
    assert!(SEEN_BY_THE_CHECKER.iter().all(|(name, _)| named.contains(name)));
}

/// The table of `docs/safety.md`: mechanism, rules, what it prevents, and the tests that fail without it.
#[test]
fn the_table_for_reviewers_is_this_one() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(top.join("docs/safety.md")).expect("docs/safety.md is there");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ");
        Some((cells.next()?.strip_suffix('`')?, cells.next()?, cells.next()?, cells.next()?))
    });
    let mut told = BTreeSet::new();
    for (name, rules, prevents, tests) in rows {
        assert!(told.insert(name.to_owned()), "{name} stands twice");
        let is_rule = |rule: &str| matches!(rule, "R1" | "R2" | "R3" | "R4" | "R5" | "R6" | "R7" | "liveness");
        assert!(rules.split(", ").all(is_rule), "{name}: {rules}");
        assert!(prevents.len() > 20, "{name} says what it prevents");
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(tests.contains(&format!("mechanisms: {name}::taken_out").as_str()), "{name}: {tests:?}");
        for test in tests {
            assert!(is_a_test(top, test), "{name}: there is no test `{test}`");
        }
    }
    let all: BTreeSet<String> = Mechanism::ALL.iter().map(|mechanism| mechanism.as_str().to_owned()).collect();
    assert_eq!(told, all);
}

/// Whether `file: function` is a test: of this table, or a function of that file under `tests/`.
fn is_a_test(top: &Path, test: &str) -> bool {
    let Some((file, function)) = test.split_once(": ") else { return false };
    if file == "mechanisms" {
        let twins = |name: &str| [format!("{name}::in_force"), format!("{name}::taken_out")];
        return PROOFS.iter().any(|(_, name, _)| twins(name).contains(&function.to_owned()));
    }
    let source = fs::read_to_string(top.join(format!("tests/{file}.rs"))).unwrap_or_default();
    source.contains(&format!("#[test]\nfn {function}()"))
}

#[test]
fn the_binary_that_can_be_weakened_says_so() {
    let said = Launch::epochgate("version").arg("--version").run(LONG).stdout();
    assert!(said.contains("DANGER: built with test switches"), "{said}");
    assert!(Mechanism::ALL.iter().all(|mechanism| said.contains(mechanism.as_str())), "{said}");
}
