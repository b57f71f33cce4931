//! The decision point of one resource in one worker: it admits, holds or refuses a write.
//!
//! A gate is a plain struct that one worker owns. What it knows of terms comes from control by [`Order`] only, so it
//! never believes a stamp about what is current (R4). It is the only maker of [`Admitted`].

use std::sync::Arc;
use std::time::Duration;

use super::ledger::{Ledger, Under};
use super::mechanism::{Mechanism, Mechanisms};
use super::{Epoch, Moment, Reason, Refusal, Stamp, Term};

/// The right to send one write to the target. Not `Clone`, without public fields: [`Gate::admit`] alone makes it, and
/// [`Gate::settle`] takes it back, once.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    under: Under,
    /// What the ledger has it under: as above, but at an audit door.
    counts: Under,
}

impl Admitted {
    /// The epoch of its stamp; none only at an audit door.
    pub fn epoch(&self) -> Under {
        self.under
    }
}

/// How an admitted write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Refused after all, before a byte left.
    NothingLeft,
    /// The request was sent whole and the final answer came whole.
    Answered,
    /// Anything else; no byte of it can leave after this moment.
    Lost(Moment),
}

/// What a gate says to a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it. At an audit door, with the refusal that an enforcing one would have given.
    Admit(Admitted, Option<Box<Refusal>>),
    /// Hold it until the next order: its epoch is to open.
    Hold,
    /// Hold it until control has asked the coordinator about this epoch.
    Ask(Epoch),
    /// Refuse it.
    Refuse(Box<Refusal>),
}

/// What a gate is told by control.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Refuse everything below this term, and hold its own writes.
    Fence(Term),
    /// Everything lower has drained everywhere in this door: admit this term.
    Open(Term),
    /// Admit nothing for now, for this cause.
    Shut(Cause),
    /// This door is to close when its session runs out, and its session lasts until then.
    Until(Moment),
    /// The coordinator went backwards (`true`): believe nothing but the term at hand.
    Regressed(bool),
    /// The end of every write below this epoch is proved.
    ProvedOver(Epoch),
}

/// Why a gate that knows its term is shut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The record of another door stands.
    Blocked(Arc<str>),
    /// This door is joining: what comes is held.
    Joining,
    /// This door's session with the coordinator ran out, and it is to close without one.
    SessionOver,
    /// The process is stopping.
    Stopping,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    HandingOver,
    Open,
    Shut(Cause),
}

/// What of the configuration a gate goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Only count and say what would be refused.
    pub audit: bool,
    /// Take stamps without a nonce.
    pub bare_stamps: bool,
    /// How long a lost write counts.
    pub quarantine: Duration,
    /// Whether time alone ends that.
    pub by_time: bool,
    /// What is in force.
    pub mechanisms: Mechanisms,
}

/// The gate of one resource in one worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gate {
    policy: Policy,
    term: Option<Term>,
    phase: Phase,
    regressed: bool,
    until: Option<Moment>,
    /// Whether the session had run out when the clock was last read. Apart from the phase: a renewal that control hears
    /// of in time ends it, though control itself never shut the gate.
    over: bool,
    ledger: Ledger,
}

impl Gate {
    /// A gate that knows nothing yet: shut.
    pub fn new(policy: Policy) -> Gate {
        Gate {
            policy,
            term: None,
            phase: Phase::Shut(Cause::Joining),
            regressed: false,
            until: None,
            over: false,
            ledger: Ledger::default(),
        }
    }

    /// Follows an order. Takes effect at once: when this returns, no lower epoch is admitted any more.
    pub fn follow(&mut self, order: Order) {
        match order {
            Order::Fence(term) if self.floor().is_none_or(|floor| term.epoch > floor) => {
                self.term = Some(term);
                self.phase = Phase::HandingOver;
            }
            // The same term again: after a shut, or from a worker that was told twice.
            Order::Fence(term) if self.term.as_ref() == Some(&term) => self.phase = Phase::HandingOver,
            Order::Open(term) if self.term.as_ref() == Some(&term) => self.phase = Phase::Open,
            // An order about a term that is over, or that this gate was never fenced for, changes nothing.
            Order::Fence(_) | Order::Open(_) => {}
            Order::Shut(cause) => self.phase = Phase::Shut(cause),
            Order::Until(until) => {
                self.until = Some(until);
                self.over = false;
            }
            Order::Regressed(regressed) => self.regressed = regressed,
            Order::ProvedOver(epoch) => self.ledger.prove_over(epoch),
        }
    }

    /// Is shut from now on where this door closes without a session and its session has run out by `now`. To be called
    /// before [`Gate::admit`], [`Gate::confirm`] and [`Gate::may_send`]: no timer decides it, so a process that was
    /// paused knows when it wakes.
    pub fn mind_session(&mut self, now: Moment) {
        self.over = self.until.is_some_and(|until| now >= until) && self.keeps(Mechanism::Closing);
    }

    /// Whether it closes when its session runs out.
    pub fn minds_session(&self) -> bool {
        self.until.is_some()
    }

    /// What becomes of a write with this stamp. It is in the ledger before it is compared, and out again unless it is
    /// admitted.
    pub fn admit(&mut self, stamp: Option<&Stamp>) -> Verdict {
        let under = stamp.map(|stamp| stamp.epoch);
        let counts = if self.policy.audit { self.as_known(under) } else { under };
        self.ledger.enter(counts);
        if !self.keeps(Mechanism::Confirmation) {
            self.believe(stamp);
        }
        let verdict = self.compare(stamp);
        if self.policy.audit {
            let would_refuse = match verdict {
                Verdict::Refuse(refusal) => Some(refusal),
                _ => None,
            };
            return Verdict::Admit(Admitted { under, counts }, would_refuse);
        }
        if !matches!(verdict, Verdict::Admit(..)) {
            self.ledger.leave(under);
        }
        verdict
    }

    /// Compares once more, right before the first byte leaves.
    ///
    /// # Errors
    /// The refusal, where the epoch has moved on or the gate was shut meanwhile; settle it [`End::NothingLeft`].
    pub fn confirm(&self, admitted: &Admitted) -> Result<(), Box<Refusal>> {
        if self.policy.audit || !self.keeps(Mechanism::Recheck) {
            return Ok(());
        }
        let given = admitted.under;
        if given < self.floor() && self.keeps(Mechanism::Comparison) {
            return Err(self.stale(given));
        }
        match self.shut_by() {
            Some(cause) => Err(self.shut(cause, given)),
            None => Ok(()),
        }
    }

    /// Whether what is under way may send another chunk: not from a door that is shut, for another may open then. (An
    /// epoch that moved on shuts nothing: what it finds under way is the drain's business.)
    pub fn may_send(&self) -> bool {
        self.policy.audit || self.shut_by().is_none()
    }

    /// Takes an admitted write back.
    pub fn settle(&mut self, admitted: Admitted, end: End) {
        match end {
            End::NothingLeft | End::Answered => self.ledger.leave(admitted.counts),
            End::Lost(at) if self.keeps(Mechanism::LostWrites) => self.ledger.lose(admitted.counts, at),
            End::Lost(_) => self.ledger.leave(admitted.counts),
        }
    }

    /// Forgets lost writes whose time has passed. To be called before asking whether the gate has drained.
    pub fn tick(&mut self, now: Moment) {
        if self.policy.by_time {
            self.ledger.expire(now, self.policy.quarantine);
        }
    }

    /// Whether nothing below its floor may still take effect.
    pub fn has_drained(&self) -> bool {
        self.floor().is_none_or(|floor| !self.ledger.holds_below(floor))
    }

    /// Whether nothing below its floor is running; something may be lost.
    pub fn is_quiet(&self) -> bool {
        self.floor().is_none_or(|floor| !self.ledger.runs_below(floor))
    }

    /// When time alone will end what is lost below the floor, where it does.
    pub fn wakes_at(&self) -> Option<Moment> {
        let floor = self.floor().filter(|_| self.policy.by_time)?;
        self.ledger.quarantine_ends(floor, self.policy.quarantine)
    }

    /// The highest epoch that it was told of: everything below is refused.
    pub fn floor(&self) -> Option<Epoch> {
        self.term.as_ref().map(|term| term.epoch)
    }

    /// The term it admits, or holds writes for.
    pub fn term(&self) -> Option<&Term> {
        self.term.as_ref()
    }

    /// Whether it admits its term.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The other door that keeps it shut.
    pub fn blocked_by(&self) -> Option<&Arc<str>> {
        match &self.phase {
            Phase::Shut(Cause::Blocked(by)) => Some(by),
            _ => None,
        }
    }

    /// What may still take effect.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What an audit door counts a write under that it lets through whatever its stamp says: nothing that a client makes
    /// up is kept apart, and no epoch that is to come counts as drained before it is over.
    fn as_known(&self, under: Under) -> Under {
        self.floor().filter(|floor| under >= Some(*floor))
    }

    fn keeps(&self, mechanism: Mechanism) -> bool {
        self.policy.mechanisms.keeps(mechanism)
    }

    /// What a gate without confirmation does: the highest epoch that anybody has sent is current.
    fn believe(&mut self, stamp: Option<&Stamp>) {
        let Some((stamp, writer)) = stamp.and_then(|stamp| Some((stamp, stamp.by.clone()?))) else { return };
        if self.floor() < Some(stamp.epoch) {
            let nonce = stamp.nonce.unwrap_or(super::Nonce::from_bytes([0; 8]));
            self.term = Some(Term { epoch: stamp.epoch, nonce, writer });
            self.phase = Phase::Open;
        }
    }

    fn compare(&self, stamp: Option<&Stamp>) -> Verdict {
        let Some(stamp) = stamp else { return refuse(self.required()) };
        if stamp.nonce.is_none() && !self.policy.bare_stamps {
            return refuse(self.required().with_epochs(Some(stamp.epoch), self.floor()).with_writer(stamp.by.as_ref()));
        }
        let Some(term) = &self.term else {
            return match self.shut_by() {
                Some(cause @ (Cause::Blocked(_) | Cause::Stopping)) => {
                    Verdict::Refuse(self.shut(cause, Some(stamp.epoch)))
                }
                _ => Verdict::Ask(stamp.epoch),
            };
        };
        if stamp.epoch < term.epoch {
            if !self.keeps(Mechanism::Comparison) {
                return admit(stamp);
            }
            return refuse(self.stale(Some(stamp.epoch)).with_writer(stamp.by.as_ref()));
        }
        if stamp.epoch > term.epoch {
            return self.above(stamp, term);
        }
        self.same(stamp, term)
    }

    /// An epoch that this gate has not been told of is a claim, to be verified; while the coordinator went
    /// backwards there is nobody to verify it.
    fn above(&self, stamp: &Stamp, term: &Term) -> Verdict {
        match self.shut_by() {
            _ if self.regressed => refuse(self.unverifiable(stamp, term)),
            Some(cause @ (Cause::Blocked(_) | Cause::Stopping)) => Verdict::Refuse(self.shut(cause, Some(stamp.epoch))),
            _ => Verdict::Ask(stamp.epoch),
        }
    }

    fn same(&self, stamp: &Stamp, term: &Term) -> Verdict {
        // Epoch and nonce are no secret: whoever is known to a guard as another writer must not borrow them.
        let is_anothers = stamp.nonce.is_some_and(|nonce| nonce != term.nonce)
            || stamp.by.as_ref().is_some_and(|by| *by != term.writer);
        if is_anothers && self.keeps(Mechanism::Nonce) {
            let detail = "another term has this epoch: the coordinator went backwards, or the stamp is forged; find \
                          out which writer holds the epoch with `epochgate status`";
            let refusal = Refusal::new(Reason::EpochConflict, detail);
            return refuse(refusal.with_epochs(Some(stamp.epoch), Some(term.epoch)).with_writer(stamp.by.as_ref()));
        }
        if stamp.nonce.is_none() && self.regressed {
            return refuse(self.unverifiable(stamp, term));
        }
        match self.shut_by() {
            None if self.phase == Phase::Open => admit(stamp),
            None | Some(Cause::Joining) => Verdict::Hold,
            Some(cause) => Verdict::Refuse(self.shut(cause, Some(stamp.epoch))),
        }
    }

    /// Why it admits and sends nothing, where it is shut.
    fn shut_by(&self) -> Option<&Cause> {
        match &self.phase {
            Phase::Shut(cause) => Some(cause),
            Phase::Open | Phase::HandingOver => self.over.then_some(&Cause::SessionOver),
        }
    }

    fn required(&self) -> Refusal {
        let detail = "a write needs the epoch of its writer's leadership: send it through the writer's stamping \
                      sidecar, or stamp it with what the sidecar's /leader says";
        Refusal::new(Reason::StampRequired, detail).with_epochs(None, self.floor())
    }

    fn stale(&self, given: Option<Epoch>) -> Box<Refusal> {
        let detail = "the writer's leadership is over, and a newer one has begun; nothing was applied";
        Box::new(Refusal::new(Reason::StaleEpoch, detail).with_epochs(given, self.floor()))
    }

    fn unverifiable(&self, stamp: &Stamp, term: &Term) -> Refusal {
        let detail = "the coordinator went backwards (restored or wiped); only writes with the whole stamp of the \
                      term at hand are admitted until the next election";
        let refusal = Refusal::new(Reason::Unverifiable, detail);
        refusal.with_epochs(Some(stamp.epoch), Some(term.epoch)).with_writer(stamp.by.as_ref())
    }

    fn shut(&self, cause: &Cause, given: Option<Epoch>) -> Box<Refusal> {
        let (detail, blocked_by) = match cause {
            Cause::Blocked(door) => (
                "the record of another door of this target stands: it may still write; `epochgate status` at this guard \
                 says what ends that",
                Some(Arc::clone(door)),
            ),
            Cause::Joining => ("this door has not joined its target yet", None),
            Cause::SessionOver => (
                "this door's session with the coordinator ran out, and it is configured to close without one \
                 (on_coordinator_loss: close)",
                None,
            ),
            Cause::Stopping => ("this door is stopping", None),
        };
        let mut refusal = Refusal::new(Reason::GateShut, detail).with_epochs(given, self.floor());
        refusal.blocked_by = blocked_by;
        Box::new(refusal)
    }
}

fn refuse(refusal: Refusal) -> Verdict {
    Verdict::Refuse(Box::new(refusal))
}

fn admit(stamp: &Stamp) -> Verdict {
    let under = Some(stamp.epoch);
    Verdict::Admit(Admitted { under, counts: under }, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Nonce;

    const POLICY: Policy = Policy {
        audit: false,
        bare_stamps: true,
        quarantine: Duration::from_secs(35),
        by_time: true,
        mechanisms: Mechanisms::all(),
    };

    fn term(number: u64) -> Term {
        let epoch = Epoch::new(number).expect("in range");
        Term { epoch, nonce: Nonce::from_bytes(number.to_be_bytes()), writer: "a".parse().expect("an id") }
    }

    fn stamp(number: u64) -> Stamp {
        Stamp { epoch: term(number).epoch, nonce: Some(term(number).nonce), by: None, res: None }
    }

    fn bare(number: u64) -> Stamp {
        Stamp { nonce: None, ..stamp(number) }
    }

    fn open_at(number: u64) -> Gate {
        let mut gate = Gate::new(POLICY);
        gate.follow(Order::Fence(term(number)));
        gate.follow(Order::Open(term(number)));
        gate
    }

    fn admitted(gate: &mut Gate, stamp: &Stamp) -> Admitted {
        match gate.admit(Some(stamp)) {
            Verdict::Admit(admitted, None) => admitted,
            other => panic!("{other:?}"),
        }
    }

    fn reason(verdict: Verdict) -> Reason {
        match verdict {
            Verdict::Refuse(refusal) => refusal.reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn an_open_gate_admits_its_own_term_alone() {
        let mut gate = open_at(5);
        assert_eq!(reason(gate.admit(Some(&stamp(4)))), Reason::StaleEpoch);
        assert_eq!(reason(gate.admit(None)), Reason::StampRequired);
        let forged = Stamp { nonce: Some(term(9).nonce), ..stamp(5) };
        assert_eq!(reason(gate.admit(Some(&forged))), Reason::EpochConflict);
        assert_eq!(gate.admit(Some(&stamp(999_999_999_999_999))), Verdict::Ask(Epoch::LAST));
        assert_eq!(gate.floor(), Some(term(5).epoch), "no stamp raises the floor (R4)");
        assert!(gate.ledger().is_empty(), "what is not admitted leaves the ledger");
        for mine in [stamp(5), bare(5)] {
            let right = admitted(&mut gate, &mine);
            gate.settle(right, End::Answered);
        }
        assert!(gate.ledger().is_empty());
    }

    #[test]
    fn a_new_term_is_held_until_the_old_one_has_drained_and_old_writes_stop_at_once() {
        let mut gate = open_at(4);
        let (old, late) = (admitted(&mut gate, &stamp(4)), admitted(&mut gate, &stamp(4)));
        gate.follow(Order::Fence(term(5)));
        assert_eq!(reason(gate.admit(Some(&stamp(4)))), Reason::StaleEpoch);
        assert_eq!(gate.admit(Some(&stamp(5))), Verdict::Hold);
        assert_eq!(gate.confirm(&late).map_err(|refusal| refusal.reason), Err(Reason::StaleEpoch));
        gate.settle(late, End::NothingLeft);
        assert!(!gate.has_drained() && !gate.is_quiet());
        gate.settle(old, End::Lost(Moment::from_nanos(0)));
        assert!(!gate.has_drained() && gate.is_quiet());
        let over = gate.wakes_at().expect("a lost write has an end");
        gate.tick(over);
        assert!(gate.has_drained());
        gate.follow(Order::Open(term(5)));
        admitted(&mut gate, &stamp(5));
    }

    #[test]
    fn an_older_order_changes_nothing() {
        let mut gate = open_at(5);
        gate.follow(Order::Fence(term(4)));
        gate.follow(Order::Open(term(4)));
        assert_eq!(reason(gate.admit(Some(&stamp(4)))), Reason::StaleEpoch);
        admitted(&mut gate, &stamp(5));
    }

    #[test]
    fn a_shut_gate_says_who_blocks_it_and_still_names_stale_writes() {
        let mut gate = open_at(5);
        let right = admitted(&mut gate, &stamp(5));
        gate.follow(Order::Shut(Cause::Blocked("guard-1-9f3c2a7b".into())));
        assert_eq!(reason(gate.admit(Some(&stamp(4)))), Reason::StaleEpoch);
        assert_eq!(reason(gate.admit(Some(&stamp(6)))), Reason::GateShut);
        let refusal = gate.confirm(&right).expect_err("the gate was shut meanwhile");
        assert_eq!(refusal.blocked_by.as_deref(), Some("guard-1-9f3c2a7b"));
        gate.settle(right, End::NothingLeft);
    }

    #[test]
    fn after_a_regression_only_the_whole_term_at_hand_is_believed() {
        let mut gate = open_at(5);
        gate.follow(Order::Regressed(true));
        assert_eq!(reason(gate.admit(Some(&bare(5)))), Reason::Unverifiable);
        assert_eq!(reason(gate.admit(Some(&stamp(6)))), Reason::Unverifiable);
        assert_eq!(reason(gate.admit(Some(&stamp(4)))), Reason::StaleEpoch);
        let right = admitted(&mut gate, &stamp(5));
        gate.settle(right, End::Answered);
    }

    #[test]
    fn a_gate_that_closes_without_a_session_compares_the_time_itself() {
        let mut gate = open_at(5);
        let until = Moment::from_nanos(100);
        gate.follow(Order::Until(until));
        gate.mind_session(Moment::from_nanos(99));
        let right = admitted(&mut gate, &stamp(5));
        gate.mind_session(until);
        assert_eq!(gate.confirm(&right).map_err(|refusal| refusal.reason), Err(Reason::GateShut));
        gate.settle(right, End::NothingLeft);
        assert_eq!(reason(gate.admit(Some(&stamp(5)))), Reason::GateShut);
        gate.follow(Order::Until(Moment::from_nanos(200)));
        gate.follow(Order::Fence(term(5)));
        gate.follow(Order::Open(term(5)));
        admitted(&mut gate, &stamp(5));
    }

    /// Control, whose clock was read a moment before, renewed in time and knows of no shut gate that it should open.
    #[test]
    fn a_gate_that_found_its_session_over_goes_on_when_it_hears_that_it_was_renewed() {
        let mut gate = open_at(5);
        gate.follow(Order::Until(Moment::from_nanos(100)));
        let right = admitted(&mut gate, &stamp(5));
        gate.mind_session(Moment::from_nanos(100));
        assert!(!gate.may_send());
        gate.follow(Order::Until(Moment::from_nanos(200)));
        gate.mind_session(Moment::from_nanos(101));
        assert!(gate.may_send() && gate.confirm(&right).is_ok());
        admitted(&mut gate, &stamp(5));
        gate.follow(Order::Shut(Cause::SessionOver));
        gate.follow(Order::Until(Moment::from_nanos(300)));
        assert!(!gate.may_send(), "what control shut only control opens");
    }

    #[test]
    fn a_write_that_is_overtaken_under_way_is_sent_to_its_end_and_that_of_a_shut_door_is_not() {
        let mut gate = open_at(5);
        gate.follow(Order::Fence(term(6)));
        assert!(gate.may_send());
        gate.follow(Order::Shut(Cause::Joining));
        assert!(!gate.may_send());
        gate.policy.audit = true;
        assert!(gate.may_send());
    }

    #[test]
    fn bare_stamps_can_be_refused() {
        let mut gate = open_at(5);
        gate.policy.bare_stamps = false;
        assert_eq!(reason(gate.admit(Some(&bare(5)))), Reason::StampRequired);
    }

    #[test]
    fn an_audit_gate_lets_all_through_and_says_what_it_would_refuse() {
        let mut gate = open_at(5);
        gate.policy.audit = true;
        let Verdict::Admit(right, Some(refusal)) = gate.admit(Some(&stamp(4))) else { panic!("it holds nothing up") };
        assert_eq!(refusal.reason, Reason::StaleEpoch);
        assert!(gate.confirm(&right).is_ok() && !gate.has_drained());
        gate.settle(right, End::Answered);
        let Verdict::Admit(unstamped, Some(refusal)) = gate.admit(None) else { panic!("it holds nothing up") };
        assert_eq!(refusal.reason, Reason::StampRequired);
        assert!(!gate.has_drained(), "a write without an epoch counts below every epoch");
        gate.settle(unstamped, End::Answered);
    }

    /// Else each stamp that somebody makes up costs memory for as long as a lost write counts, and each write the time
    /// to look at all of them.
    #[test]
    fn an_audit_gate_keeps_no_books_of_made_up_epochs() {
        for floor in [None, Some(500)] {
            let mut gate = floor.map_or_else(|| Gate::new(POLICY), open_at);
            gate.policy.audit = true;
            for number in 1..=1000 {
                let Verdict::Admit(right, _) = gate.admit(Some(&stamp(number))) else { panic!("it holds nothing up") };
                assert_eq!(right.epoch(), Some(term(number).epoch));
                gate.settle(right, End::Lost(Moment::from_nanos(0)));
            }
            assert_eq!(gate.ledger().lost(), 1000);
            let next = floor.unwrap_or(0) + 1;
            assert!(gate.ledger().holds_below(term(next).epoch), "they count below whatever comes");
            assert!(gate.ledger().groups() <= 2, "{}", gate.ledger().groups());
        }
    }

    #[test]
    fn a_gate_without_a_term_asks_and_believes_nothing() {
        let mut gate = Gate::new(POLICY);
        assert_eq!(gate.admit(Some(&stamp(7))), Verdict::Ask(term(7).epoch));
        assert_eq!(gate.floor(), None);
    }
}
