mod signed;

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::config::resolved;
use crate::event::Recorded;
use crate::event::sink::Recorder;
use crate::fence::gate::{Cause, Order, Policy};
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Epoch, Moment};
use crate::mailbox::{Answer, GateId, GateName, ToControl, WorkerId};
use crate::protocol::Held;
use crate::protocol::right::Settled;
use crate::protocol::signal::Ask;
use crate::roles::Hold;
use crate::roles::testing::*;

const GATE: GateId = GateId(0);
const WORKER: WorkerId = WorkerId(3);
const QUARANTINE: u64 = 35;

/// One guard listener for `orders` in one worker, with control and the clock in the test's hands.
struct Door {
    clock: Arc<TestClock>,
    recorder: Arc<Recorder>,
    control: mpsc::UnboundedReceiver<ToControl>,
    desk: Rc<GuardDesk>,
    cell: Rc<GateCell>,
    guard: Guard,
}

#[derive(Clone, Copy)]
struct Options {
    audit: bool,
    fence_reads: bool,
    hold: resolved::Hold,
}

const OPTIONS: Options = Options {
    audit: false,
    fence_reads: false,
    hold: resolved::Hold { requests: 3, bytes: 1000, timeout: Duration::from_secs(10) },
};

impl Door {
    fn new(options: Options) -> Door {
        let (clock, (recorder, events)) = (Arc::new(TestClock::default()), recording());
        let (to_control, control) = mpsc::unbounded_channel();
        let hold = Hold::new(options.hold);
        let desk = Rc::new(GuardDesk::new(WORKER, clock.clone(), events, to_control, hold));
        let policy = Policy {
            audit: options.audit,
            bare_stamps: true,
            quarantine: Duration::from_secs(QUARANTINE),
            by_time: true,
            mechanisms: Mechanisms::all(),
        };
        let name = GateName { target: "orders".into(), resource: orders(), listener: "orders-guard".into() };
        let setup = GateSetup { name, policy, hold_timeout: options.hold.timeout };
        let cell = Rc::new(GateCell::new(GATE, setup, Rc::clone(&desk)));
        let listener = GuardListener {
            identities: crate::roles::Identities::default(),
            name: "orders-guard".into(),
            rules: Rules::new(vec![], Some(&orders()), [&orders()].into_iter()),
            field: StampField::new("fencing-epoch"),
            fence_reads: options.fence_reads,
            forward_stamp: true,
            audit: options.audit,
            signatures: KeysInForce::default(),
            meters: Rc::new(crate::metrics::tests::metrics(&["orders"]).meters("orders-guard").expect("it is there")),
        };
        let guard = Guard::new(listener, vec![Rc::clone(&cell)], Rc::clone(&desk));
        Door { clock, recorder, control, desk, cell, guard }
    }

    /// A door that has `number` open.
    fn open_at(number: u64) -> Door {
        let mut door = Door::new(OPTIONS);
        door.hand_over(number);
        door.said();
        door
    }

    fn hand_over(&mut self, number: u64) {
        self.cell.follow(Order::Fence(term(number)));
        self.cell.follow(Order::Open(term(number)));
    }

    fn decide(&self, fields: &[(&str, &str)]) -> Decision {
        self.guard.decide(&facts("PUT", "/a", &Head::of(fields), 0))
    }

    fn write(&self, number: u64) -> Decision {
        self.decide(&[("fencing-epoch", &stamp(number))])
    }

    /// What in audit mode was forwarded and would have been refused, oldest first.
    fn would_have_refused(&self) -> Vec<Reason> {
        let reason = |recorded: Recorded| match recorded.event {
            Event::WouldRefuse { refusal, .. } => Some(refusal.reason),
            _ => None,
        };
        self.recorder.all().into_iter().filter_map(reason).collect()
    }

    /// What control has been told since the last time.
    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Ok(report) = self.control.try_recv() {
            said.push(match report {
                ToControl::Fenced(WORKER, GATE, epoch) => format!("fenced {epoch}"),
                ToControl::Quiet(WORKER, GATE, epoch) => format!("quiet {epoch}"),
                ToControl::Drained(WORKER, GATE, epoch) => format!("drained {epoch}"),
                ToControl::Ask { worker: WORKER, number, gate: GATE, epoch } => format!("ask {number} of {epoch}"),
                other => panic!("{other:?}"),
            });
        }
        said
    }

    /// As the worker does with control's answer.
    fn answer(&self, number: u64, answer: Answer) {
        if let Some((GATE, epoch)) = self.desk.answered(number, answer) {
            self.cell.is_known(epoch);
        }
    }

    fn counts(&self) -> (u64, u64, u64) {
        self.cell.account().map_or((0, 0, 0), |account| (account.in_flight, account.lost, account.held))
    }
}

fn ends(mut held: Held) -> Box<Refusal> {
    match poll(&mut held) {
        std::task::Poll::Ready(Err(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn goes_on(mut held: Held) {
    assert_eq!(poll(&mut held), std::task::Poll::Ready(Ok(())));
}

fn waits(held: &mut Held) {
    assert!(poll(held).is_pending());
}

#[test]
fn reads_pass_and_writes_need_the_term_at_hand() {
    let door = Door::open_at(5);
    let read = forwarded(door.guard.decide(&facts("GET", "/a", &Head::default(), 0)));
    assert_eq!((read.kind(), read.resource()), (Kind::Read, None));
    read.settle(Settled::Answered);
    let write = forwarded(door.write(5));
    assert_eq!((write.kind(), write.resource()), (Kind::Write, Some(&orders())));
    assert_eq!(write.stamp().expect("the target sees it").as_bytes(), stamp(5).as_bytes());
    assert!(write.confirm().is_ok());
    write.settle(Settled::Answered);
    assert_eq!(door.counts(), (0, 0, 0));
    assert_eq!(names(&door.recorder), ["admitted", "forwarded", "settled"], "reads leave no trace");
}

#[test]
fn every_refusal_names_the_epochs_the_writer_and_the_leader() {
    let door = Door::open_at(5);
    let of = |fields: &[(&str, &str)]| {
        let refusal = refused(door.decide(fields));
        assert_eq!(refusal.resource, Some(orders()));
        assert_eq!(refusal.leader.as_ref().map(|leader| leader.id.as_str()), Some("orders-a"));
        let writer = refusal.writer.as_ref().map(|writer| writer.as_str().to_owned());
        (refusal.reason, refusal.epoch.map(Epoch::number), refusal.required_epoch.map(Epoch::number), writer)
    };
    let b = Some("orders-b".to_owned());
    assert_eq!(of(&[("fencing-epoch", &stamp(4))]), (Reason::StaleEpoch, Some(4), Some(5), b.clone()));
    assert_eq!(of(&[]), (Reason::StampRequired, None, Some(5), None));
    let forged = "5;nonce=:AAAAAAAAAAA=:;by=\"orders-b\"";
    assert_eq!(of(&[("fencing-epoch", forged)]), (Reason::EpochConflict, Some(5), Some(5), b.clone()));
    let elsewhere = "5;by=\"orders-b\";res=\"others\"";
    assert_eq!(of(&[("fencing-epoch", elsewhere)]), (Reason::ResourceMismatch, Some(5), Some(5), b.clone()));
    assert_eq!(of(&[("fencing-epoch", "05")]), (Reason::MalformedStamp, None, Some(5), None));
    door.cell.follow(Order::Regressed(true));
    assert_eq!(of(&[("fencing-epoch", "5")]), (Reason::Unverifiable, Some(5), Some(5), None));
    assert_eq!(of(&[("fencing-epoch", &stamp(6))]), (Reason::Unverifiable, Some(6), Some(5), b.clone()));
    door.cell.follow(Order::Shut(Cause::Stopping));
    assert_eq!(of(&[("fencing-epoch", &stamp(5))]).0, Reason::GateShut);
    assert_eq!(door.counts(), (0, 0, 0));
    let refusal = refused(door.decide(&[]));
    door.guard.refused(&facts("PUT", "/a", &Head::default(), 0), &refusal);
    let [recorded] = &door.recorder.all()[..] else { panic!("once") };
    let Event::Refused { refusal, kind: Kind::Write, .. } = &recorded.event else { panic!("{recorded:?}") };
    assert_eq!(refusal.reason, Reason::StampRequired);
}

/// FAULTS 27, at the door: malformed, and the floor stays where it was.
#[test]
fn what_is_no_stamp_is_refused_and_moves_nothing() {
    let door = Door::open_at(5);
    let mut bad: Vec<Vec<(&str, &str)>> = [
        "",
        " ",
        "+7",
        "-7",
        "07",
        "0x7",
        "7.0",
        "7e0",
        "7,8",
        "7, 7",
        "7 ",
        "\"7\"",
        "7;x",
        "7;x=1",
        "٧",
        "0",
        "18446744073709551615",
        "18446744073709551616",
        "7;by=\"a\";by=\"a\"",
    ]
    .into_iter()
    .map(|value| vec![("fencing-epoch", value)])
    .collect();
    let long = "7".repeat(4000);
    bad.push(vec![("fencing-epoch", &long)]);
    bad.push(vec![("fencing-epoch", "5"), ("fencing-epoch", "5")]);
    bad.push(vec![("fencing-epoch", "5"), ("fencing-epoch", "6")]);
    bad.push(vec![("fencing-epoch", "5"), ("fencing_epoch", "5")]);
    bad.push(vec![("fencing_epoch", "5")]);
    bad.push(vec![("fencing-epoch", "5"), ("connection", "Fencing-Epoch")]);
    bad.push(vec![("fencing-epoch", "5"), ("trailer", "fencing-epoch")]);
    for fields in bad {
        let refusal = refused(door.decide(&fields));
        assert_eq!(refusal.reason, Reason::MalformedStamp, "{fields:?}");
        assert!(refusal.detail.starts_with("fencing-epoch: "), "{}", refusal.detail);
        assert_eq!((door.cell.floor(), door.counts()), (Some(epoch(5)), (0, 0, 0)));
    }
    let right = forwarded(door.decide(&[("fencing-epoch", "5")]));
    assert_eq!(right.stamp().expect("forwarded").as_bytes(), b"5");
    right.settle(Settled::Answered);
}

#[tokio::test]
async fn a_write_of_the_new_term_is_held_until_it_opens() {
    let mut door = Door::open_at(4);
    let old = forwarded(door.write(4));
    door.cell.follow(Order::Fence(term(5)));
    assert_eq!(door.said(), ["fenced 5"], "an old write runs");
    assert_eq!(refused(door.write(4)).reason, Reason::StaleEpoch);
    let mut held = held(door.write(5));
    waits(&mut held);
    assert_eq!((door.counts(), door.desk.hold.taken().0), ((1, 0, 1), 1));
    old.settle(Settled::Answered);
    assert_eq!(door.said(), ["quiet 5", "drained 5"]);
    waits(&mut held);
    door.cell.follow(Order::Open(term(5)));
    goes_on(held);
    assert_eq!((door.counts(), door.desk.hold.taken()), ((0, 0, 0), (0, 0)), "its place is free again");
    forwarded(door.write(5)).settle(Settled::Answered);
    assert_eq!(door.said(), [""; 0], "each is said once");
}

#[tokio::test]
async fn a_held_write_that_is_overtaken_is_refused_as_stale() {
    let mut door = Door::open_at(4);
    door.cell.follow(Order::Fence(term(5)));
    let mut held = held(door.write(5));
    waits(&mut held);
    door.cell.follow(Order::Fence(term(6)));
    goes_on(held);
    let refusal = refused(door.write(5));
    assert_eq!((refusal.reason, refusal.required_epoch), (Reason::StaleEpoch, Some(epoch(6))));
    assert_eq!(door.said(), ["fenced 5", "quiet 5", "drained 5", "fenced 6", "quiet 6", "drained 6"]);
}

#[tokio::test]
async fn what_is_held_is_bounded_in_number_and_in_bytes() {
    let door = Door::open_at(4);
    door.cell.follow(Order::Fence(term(5)));
    let mut kept: Vec<Held> = (0..3).map(|_| held(door.write(5))).collect();
    let refusal = refused(door.write(5));
    assert_eq!((refusal.reason, refusal.epoch), (Reason::HoldFull, Some(epoch(5))));
    drop(kept.pop());
    let fat = "x".repeat(1000);
    let fields = [("fencing-epoch", &*stamp(5)), ("cookie", &fat)];
    assert_eq!(refused(door.decide(&fields)).reason, Reason::HoldFull);
    kept.push(held(door.write(5)));
    drop(kept);
    assert_eq!(door.desk.hold.taken(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_too_long_is_refused() {
    let door = Door::open_at(4);
    door.cell.follow(Order::Fence(term(5)));
    let refusal = held(door.write(5)).await.expect_err("nothing opens");
    assert_eq!(
        (refusal.reason, refusal.epoch, refusal.required_epoch),
        (Reason::HoldTimeout, Some(epoch(5)), Some(epoch(5)))
    );
    assert_eq!((door.counts(), door.desk.hold.taken()), ((0, 0, 0), (0, 0)));
}

#[tokio::test]
async fn an_unknown_epoch_is_asked_about_once_and_denied() {
    let mut door = Door::open_at(5);
    let (mut one, mut two) = (held(door.write(9)), held(door.write(9)));
    waits(&mut one);
    waits(&mut two);
    assert_eq!(door.said(), ["ask 0 of 9"]);
    door.answer(0, Answer::Denied(Some(epoch(6))));
    for held in [one, two] {
        let refusal = ends(held);
        assert_eq!(refusal.reason, Reason::EpochDenied);
        assert_eq!((refusal.epoch, refusal.required_epoch), (Some(epoch(9)), Some(epoch(6))));
        assert_eq!(refusal.writer.map(|writer| writer.to_string()).as_deref(), Some("orders-a"));
    }
    assert_eq!(door.cell.floor(), Some(epoch(5)), "a claim moves nothing (R4)");
    let mut again = held(door.write(9));
    waits(&mut again);
    assert_eq!(door.said(), ["ask 1 of 9"]);
    door.answer(1, Answer::Unreachable);
    assert_eq!(ends(again).reason, Reason::Unverifiable);
    door.answer(1, Answer::Known);
    door.answer(77, Answer::Known);
}

#[tokio::test]
async fn a_known_epoch_is_not_asked_about_again_before_an_order() {
    let mut door = Door::open_at(5);
    let mut one = held(door.write(9));
    waits(&mut one);
    assert_eq!(door.said(), ["ask 0 of 9"]);
    door.answer(0, Answer::Known);
    waits(&mut one);
    let mut two = held(door.write(9));
    waits(&mut two);
    assert_eq!(door.said(), [""; 0]);
    // An order that says nothing about the epoch ends the knowledge.
    door.cell.follow(Order::Regressed(false));
    waits(&mut one);
    waits(&mut two);
    assert_eq!(door.said(), ["ask 1 of 9"]);
    door.answer(1, Answer::Known);
    door.hand_over(9);
    goes_on(one);
    goes_on(two);
}

#[tokio::test]
async fn the_order_may_come_before_the_answer() {
    let mut door = Door::open_at(5);
    let mut held = held(door.write(9));
    waits(&mut held);
    door.cell.follow(Order::Fence(term(9)));
    waits(&mut held);
    door.answer(0, Answer::Known);
    waits(&mut held);
    door.cell.follow(Order::Open(term(9)));
    goes_on(held);
    assert_eq!(door.said(), ["ask 0 of 9", "fenced 9", "quiet 9", "drained 9"]);
}

#[tokio::test]
async fn no_more_is_asked_at_a_time_than_may_be_held() {
    let door = Door::open_at(5);
    for number in [7, 8, 9] {
        waits(&mut held(door.write(number)));
    }
    assert_eq!(ends(held(door.write(10))).reason, Reason::HoldFull, "the three before left without an answer");
}

#[test]
fn a_dropped_right_is_a_loss_and_counts_until_its_quarantine_is_over() {
    let mut door = Door::open_at(4);
    door.clock.set(10);
    drop(forwarded(door.write(4)));
    assert_eq!(names(&door.recorder).last().map(String::as_str), Some("lost"));
    door.clock.set(12);
    door.cell.follow(Order::Fence(term(5)));
    assert_eq!(door.said(), ["fenced 5", "quiet 5"]);
    assert_eq!(door.desk.alarm.waiting(), [GATE]);
    let account = door.cell.account().expect("something is lost");
    let [holder] = &account.holders[..] else { panic!("{account:?}") };
    assert_eq!((holder.epoch, &*holder.what, holder.lost, holder.peer), (Some(epoch(4)), "PUT /a", true, peer()));
    let over = Moment::from_nanos((10 + QUARANTINE) * 1_000_000_000);
    door.clock.set(10 + QUARANTINE - 1);
    assert_eq!(door.cell.tick(door.desk.clock.now()), Some(over));
    assert_eq!(door.said(), [""; 0]);
    door.clock.set(10 + QUARANTINE);
    assert_eq!(door.cell.tick(door.desk.clock.now()), None);
    assert_eq!(door.cell.tick(door.desk.clock.now()), None);
    assert_eq!(door.said(), ["drained 5"]);
    assert_eq!(door.cell.account(), None);
}

#[test]
fn a_quarantine_counts_from_when_a_write_was_lost_however_long_ago_it_was_let_in() {
    let mut door = Door::open_at(4);
    door.clock.set(10);
    let slow = forwarded(door.write(4));
    door.clock.set(10 + QUARANTINE);
    drop(slow);
    door.cell.follow(Order::Fence(term(5)));
    let over = Moment::from_nanos((10 + 2 * QUARANTINE) * 1_000_000_000);
    assert_eq!(door.cell.tick(door.desk.clock.now()), Some(over));
    assert_eq!(door.said(), ["fenced 5", "quiet 5"]);
}

#[test]
fn a_proof_ends_what_is_lost() {
    let mut door = Door::open_at(4);
    let late = forwarded(door.write(4));
    door.cell.follow(Order::Fence(term(5)));
    drop(late);
    assert_eq!(door.said(), ["fenced 5", "quiet 5"]);
    door.cell.follow(Order::ProvedOver(epoch(5)));
    assert_eq!(door.said(), ["drained 5"]);
    assert_eq!(door.cell.account(), None);
}

#[test]
fn only_the_newest_lost_writes_are_named_and_all_are_counted() {
    let door = Door::open_at(4);
    for second in 1..=20 {
        door.clock.set(second);
        drop(forwarded(door.write(4)));
    }
    door.cell.follow(Order::Fence(term(5)));
    let account = door.cell.account().expect("much is lost");
    assert_eq!((account.lost, account.holders.len()), (20, 16));
    assert_eq!(account.holders[0].since, Moment::from_nanos(5_000_000_000));
}

#[test]
fn a_write_that_was_overtaken_before_its_first_byte_is_not_applied() {
    let mut door = Door::open_at(4);
    let right = forwarded(door.write(4));
    door.cell.follow(Order::Fence(term(5)));
    let refusal = right.confirm().expect_err("its epoch is over");
    assert_eq!(
        (refusal.reason, refusal.epoch, refusal.required_epoch),
        (Reason::StaleEpoch, Some(epoch(4)), Some(epoch(5)))
    );
    assert_eq!(refusal.writer.map(|writer| writer.to_string()).as_deref(), Some("orders-b"));
    assert_eq!(refusal.resource, Some(orders()));
    right.settle(Settled::NothingLeft);
    assert_eq!(door.said(), ["fenced 5", "quiet 5", "drained 5"]);
}

#[test]
fn signals_reach_the_writes_of_old_terms_only() {
    let mut door = Door::open_at(4);
    let old = forwarded(door.write(4));
    let asked = |right: &Right| right.signal().expect("the fence may touch it").asked();
    assert_eq!(asked(&old), Ask::Nothing);
    door.hand_over(5);
    let present = forwarded(door.write(5));
    assert_eq!((asked(&old), asked(&present)), (Ask::Hurry, Ask::Nothing));
    door.cell.cut(epoch(4), true);
    assert_eq!(asked(&old), Ask::Hurry, "only what lies below");
    door.cell.cut(epoch(5), false);
    assert_eq!((asked(&old), asked(&present)), (Ask::CutHalfSent, Ask::Nothing));
    door.cell.cut(epoch(6), true);
    assert_eq!((asked(&old), asked(&present)), (Ask::Cut, Ask::Nothing), "never what is of the term at hand");
    // A door that another may take the place of sends nothing more.
    door.cell.follow(Order::Shut(Cause::SessionOver));
    assert_eq!(asked(&present), Ask::Cut);
    drop(old);
    let cut: Vec<String> = names(&door.recorder).split_off(2);
    assert_eq!(cut, ["settled", "cut", "lost"]);
    door.hand_over(5);
    let later = forwarded(door.write(5));
    assert_eq!(asked(&later), Ask::Nothing);
    later.settle(Settled::Answered);
    present.settle(Settled::Answered);
}

#[test]
fn a_door_that_lost_its_place_sends_no_rest_of_any_term() {
    let mut door = Door::open_at(4);
    let old = forwarded(door.write(4));
    door.hand_over(5);
    let present = forwarded(door.write(5));
    door.cell.follow(Order::Shut(Cause::Blocked("guard-1-9f3c2a7b".into())));
    for right in [&old, &present] {
        assert_eq!(right.signal().expect("it runs").asked(), Ask::CutHalfSent);
    }
    assert_eq!(present.confirm().expect_err("it is shut").blocked_by.as_deref(), Some("guard-1-9f3c2a7b"));
    old.settle(Settled::Answered);
    present.settle(Settled::NothingLeft);
    assert_eq!(door.counts(), (0, 0, 0));
}

/// The process was paused while a write was half sent: it compares the time itself, before the next chunk.
#[test]
fn a_door_whose_session_has_run_out_sends_no_further_chunk() {
    let door = Door::open_at(5);
    door.cell.follow(Order::Until(Moment::from_nanos(10_000_000_000)));
    assert!(Keeper::may_send(&*door.cell));
    door.clock.set(10);
    assert!(!Keeper::may_send(&*door.cell));
}

#[test]
fn a_door_whose_record_is_gone_sends_no_rest() {
    let door = Door::open_at(5);
    let Decision::Forward(right) = door.write(5) else { panic!("it is open") };
    let signal = right.signal().expect("it is a write");
    door.cell.follow(Order::Shut(Cause::Joining));
    assert_eq!(signal.asked(), Ask::CutHalfSent);
}

#[test]
fn a_tunnel_is_cut_when_its_epoch_is_over() {
    let door = Door::open_at(4);
    let head = Head::of(&[("fencing-epoch", &stamp(4))]);
    let tunnel = forwarded(door.guard.decide(&Facts { upgrade: true, ..facts("GET", "/ws", &head, 0) }));
    door.cell.follow(Order::Fence(term(5)));
    drop(tunnel);
    assert_eq!(names(&door.recorder), ["admitted", "settled", "cut", "lost"]);
}

#[test]
fn a_door_in_audit_mode_forwards_all_and_says_what_it_would_have_refused() {
    let mut door = Door::new(Options { audit: true, fence_reads: false, ..OPTIONS });
    door.hand_over(5);
    door.said();
    let good = stamp(5);
    let rights: Vec<Right> = [
        vec![("fencing-epoch", &*good)],
        vec![("fencing-epoch", "4")],
        vec![],
        vec![("fencing-epoch", "0x7")],
        vec![("fencing-epoch", "5;res=\"others\"")],
    ]
    .iter()
    .map(|fields| forwarded(door.decide(fields)))
    .collect();
    assert!(rights.iter().all(|right| right.signal().is_none() && right.kind() == Kind::Write));
    assert_eq!(
        door.would_have_refused(),
        [Reason::StaleEpoch, Reason::StampRequired, Reason::MalformedStamp, Reason::ResourceMismatch]
    );
    door.cell.follow(Order::Fence(term(6)));
    assert_eq!(door.said(), ["fenced 6"]);
    assert!(rights.iter().all(|right| right.confirm().is_ok()));
    rights.into_iter().for_each(|right| right.settle(Settled::Answered));
    assert_eq!(door.said(), ["quiet 6", "drained 6"], "the same ledger");
}

#[test]
fn what_has_no_resource_is_refused_or_in_audit_mode_forwarded() {
    for audit in [false, true] {
        let mut door = Door::new(Options { audit, ..OPTIONS });
        door.guard.listener.rules = Rules::new(vec![], None, [].into_iter());
        let decision = door.guard.decide(&facts("PUT", "/a", &Head::default(), 0));
        if audit {
            let right = forwarded(decision);
            assert_eq!((right.kind(), right.resource()), (Kind::Write, None));
            assert_eq!(names(&door.recorder), ["would_refuse"]);
            drop(right);
            assert_eq!(door.counts(), (0, 0, 0), "no gate waits for it");
        } else {
            assert_eq!(refused(decision).reason, Reason::ResourceUnknown);
        }
    }
}

#[test]
fn fenced_reads_need_a_stamp_and_lose_nothing() {
    let mut door = Door::new(Options { fence_reads: true, ..OPTIONS });
    door.hand_over(5);
    door.said();
    let read = |fields: &[(&str, &str)]| door.guard.decide(&facts("GET", "/a", &Head::of(fields), 0));
    assert_eq!(refused(read(&[])).reason, Reason::StampRequired);
    assert_eq!(refused(read(&[("fencing-epoch", &stamp(4))])).reason, Reason::StaleEpoch);
    let right = forwarded(read(&[("fencing-epoch", &stamp(5))]));
    assert_eq!(right.kind(), Kind::Read, "that is what it is counted as");
    door.cell.follow(Order::Fence(term(6)));
    assert!(right.confirm().is_err());
    drop(right);
    assert_eq!(door.said(), ["fenced 6", "quiet 6", "drained 6"]);
}

#[test]
fn the_history_numbers_writes_once_in_the_process() {
    let door = Door::open_at(5);
    for _ in 0..2 {
        forwarded(door.write(5)).settle(Settled::Answered);
    }
    let numbers: Vec<u64> = door
        .recorder
        .all()
        .into_iter()
        .filter_map(|recorded| match recorded.event {
            Event::Admitted { write, .. } => Some(write),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [3 << 48, (3 << 48) + 1]);
}
