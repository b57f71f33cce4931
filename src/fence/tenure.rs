//! The writer's side: may it stamp, and with which term? (DESIGN 3.4)
//!
//! A [`Standing`] is what one writer may stamp now, over all its resources. It is the only maker of [`Stamped`].
//! Nothing but the comparison here decides: no timer, no flag that somebody would have to set in time, so a process
//! that was paused knows at once when it wakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mechanism::{Mechanism, Mechanisms};
use super::verdict::LeaderHint;
use super::{Epoch, Moment, Reason, Refusal, Resource, Term};

/// The right to put one term on one write. Not `Clone`, without public fields: only [`Standing::stamp`] makes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamped {
    term: Term,
    until: Option<Moment>,
}

impl Stamped {
    /// The term to put on the write: the one that the writer held when the request began, whatever happens later.
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// Until when the writer trusted itself to hold it; none where it goes on without the coordinator.
    pub fn until(&self) -> Option<Moment> {
        self.until
    }
}

/// How far a term has come at the doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Armed {
    /// Elected; some door has not drained yet.
    No,
    /// Every door has drained it.
    Yes,
    /// Every door has opened it, one of them without proof.
    Forced,
}

/// One term that this process won.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// The term.
    pub term: Term,
    /// The version of the standing that it began with.
    pub began: u64,
    /// How far it has come.
    pub armed: Armed,
}

/// What is known of a resource's leader, this process or another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    /// The leader's term.
    pub term: Term,
    /// Where it listens, where it said so.
    pub address: Option<Arc<str>>,
    /// Whether there is no writer, and the term is only held.
    pub held: bool,
}

/// What a listener asks of a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// The standing's version when the request's connection was accepted.
    pub bound_to: u64,
    /// The epoch that the service says its work belongs to (`Fencing-Expect`).
    pub expected: Option<Epoch>,
    /// Whether a term that is not armed yet will do.
    pub unarmed: Unarmed,
}

/// What becomes of a request whose term is not armed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unarmed {
    /// It is held.
    Hold,
    /// It is refused.
    Refuse,
    /// It goes.
    Pass,
}

/// What a standing says to a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it with this term.
    Stamp(Stamped),
    /// Hold it until the term is armed or over.
    Hold,
    /// Refuse it.
    Refuse(Box<Refusal>),
}

/// What one writer may stamp.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Grows with every change of any term.
    pub version: u64,
    /// The terms held.
    pub tenures: BTreeMap<Resource, Tenure>,
    /// Until when they may be stamped; none: until they are taken away (`on_coordinator_loss: keep`).
    pub deadline: Option<Moment>,
    /// Who leads what, as last seen. For hints in refusals only.
    pub leaders: BTreeMap<Resource, Leader>,
    /// What is in force.
    pub mechanisms: Mechanisms,
}

impl Standing {
    /// A writer that holds nothing.
    pub fn new(mechanisms: Mechanisms) -> Standing {
        Standing {
            version: 0,
            tenures: BTreeMap::new(),
            deadline: Some(Moment::default()),
            leaders: BTreeMap::new(),
            mechanisms,
        }
    }

    /// A term was won: a new version begins.
    pub fn begin(&mut self, resource: Resource, term: Term) {
        self.version += 1;
        self.tenures.insert(resource, Tenure { term, began: self.version, armed: Armed::No });
    }

    /// A term is over, for whatever reason: a new version begins. Nothing where it is over already.
    pub fn end(&mut self, resource: &Resource) -> Option<Tenure> {
        let ended = self.tenures.remove(resource);
        self.version += u64::from(ended.is_some());
        ended
    }

    /// Whether a request for `resource` may go, and with which term.
    pub fn stamp(&self, resource: &Resource, now: Moment, wish: Wish) -> Verdict {
        let Some(tenure) = self.tenures.get(resource) else { return self.without_a_term(resource, wish) };
        if self.is_over(now) {
            let detail = "this writer led, but has not been able to renew its lease in time; another may lead now";
            let refusal = Refusal::new(Reason::NotLeader, detail).with_resource(resource);
            // Without a hint: the leader that it last saw is itself.
            return Verdict::Refuse(Box::new(refusal.with_epochs(Some(tenure.term.epoch), None)));
        }
        if tenure.began > wish.bound_to && self.keeps(Mechanism::ConnectionBinding) {
            return self.refuse(
                resource,
                Reason::TermChanged,
                "this connection was opened before the writer's present term began: what waited in it may belong to \
                 an earlier one; open a new connection",
            );
        }
        let expected = wish.expected.filter(|_| self.keeps(Mechanism::Expectation));
        if expected.is_some_and(|expected| expected != tenure.term.epoch) {
            return self.unexpected(resource, wish.expected, tenure);
        }
        match (tenure.armed, wish.unarmed) {
            (Armed::No, Unarmed::Hold) if self.keeps(Mechanism::Arming) => return Verdict::Hold,
            (Armed::No, Unarmed::Refuse) => {
                return self.refuse(
                    resource,
                    Reason::NotArmed,
                    "this writer was elected, but not every door has drained the writes of the one before",
                );
            }
            _ => {}
        }
        Verdict::Stamp(Stamped { term: tenure.term.clone(), until: self.deadline })
    }

    /// Whether this writer leads `resource` at `now`: it holds a term, and could renew its lease in time.
    pub fn leads(&self, resource: &Resource, now: Moment) -> bool {
        self.tenures.contains_key(resource) && !self.is_over(now)
    }

    fn is_over(&self, now: Moment) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline) && self.keeps(Mechanism::Deadline)
    }

    /// The version and the term under which a request for `resource` would be stamped now, armed or not.
    pub fn tenure(&self, resource: &Resource) -> Option<&Tenure> {
        self.tenures.get(resource)
    }

    /// Who leads `resource`, as far as is known: never this process itself, unless it does, and nobody where there is no
    /// writer to send anything to.
    pub fn leader_hint(&self, resource: &Resource) -> Option<LeaderHint> {
        let leader = self.leaders.get(resource).filter(|leader| !leader.held)?;
        Some(LeaderHint { id: leader.term.writer.clone(), address: leader.address.clone() })
    }

    fn without_a_term(&self, resource: &Resource, wish: Wish) -> Verdict {
        // What DESIGN R2 calls the mistake that makes a fence worthless: stamping whatever epoch is current.
        if !self.keeps(Mechanism::OwnTerm)
            && let Some(leader) = self.leaders.get(resource)
        {
            return Verdict::Stamp(Stamped { term: leader.term.clone(), until: None });
        }
        let _ = wish;
        let detail = match self.leaders.get(resource) {
            Some(leader) if leader.held => "nobody leads: the leadership is held (epochgate fence); try again later",
            _ => "this writer does not lead; send it to the leader's sidecar",
        };
        self.refuse(resource, Reason::NotLeader, detail)
    }

    fn unexpected(&self, resource: &Resource, expected: Option<Epoch>, tenure: &Tenure) -> Verdict {
        let detail = "the work belongs to another epoch than the one that this writer holds";
        let refusal = Refusal::new(Reason::EpochExpected, detail).with_resource(resource);
        Verdict::Refuse(Box::new(refusal.with_epochs(expected, Some(tenure.term.epoch))))
    }

    fn refuse(&self, resource: &Resource, reason: Reason, detail: &'static str) -> Verdict {
        let epoch = self.tenures.get(resource).map(|tenure| tenure.term.epoch);
        let refusal = Refusal::new(reason, detail).with_resource(resource).with_epochs(epoch, None);
        Verdict::Refuse(Box::new(refusal.with_leader(self.leader_hint(resource))))
    }

    fn keeps(&self, mechanism: Mechanism) -> bool {
        self.mechanisms.keeps(mechanism)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Nonce;

    fn orders() -> Resource {
        "orders".parse().expect("a resource")
    }

    fn term(number: u64) -> Term {
        let epoch = Epoch::new(number).expect("in range");
        Term { epoch, nonce: Nonce::from_bytes(number.to_be_bytes()), writer: "a".parse().expect("an id") }
    }

    fn leading(number: u64) -> Standing {
        let mut standing = Standing::new(Mechanisms::all());
        standing.begin(orders(), term(number));
        standing.deadline = Some(Moment::from_nanos(100));
        standing.tenures.get_mut(&orders()).expect("it leads").armed = Armed::Yes;
        standing.leaders.insert(orders(), Leader { term: term(number), address: None, held: false });
        standing
    }

    fn wish(standing: &Standing) -> Wish {
        Wish { bound_to: standing.version, expected: None, unarmed: Unarmed::Hold }
    }

    fn reason(verdict: Verdict) -> Reason {
        match verdict {
            Verdict::Refuse(refusal) => refusal.reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_leader_stamps_its_own_term_until_its_deadline() {
        let standing = leading(3);
        let Verdict::Stamp(stamped) = standing.stamp(&orders(), Moment::from_nanos(99), wish(&standing)) else {
            panic!("it leads")
        };
        assert_eq!(stamped.term(), &term(3));
        assert!(standing.leads(&orders(), Moment::from_nanos(99)));
        assert!(!standing.leads(&orders(), Moment::from_nanos(100)));
        let Verdict::Refuse(late) = standing.stamp(&orders(), Moment::from_nanos(100), wish(&standing)) else {
            panic!("its deadline has passed")
        };
        assert_eq!((late.reason, late.leader), (Reason::NotLeader, None), "it would name itself");
    }

    #[test]
    fn a_connection_never_carries_a_later_term_than_it_was_opened_under() {
        let mut standing = leading(3);
        let before = wish(&standing);
        standing.end(&orders());
        assert_eq!(reason(standing.stamp(&orders(), Moment::default(), before)), Reason::NotLeader);
        standing.begin(orders(), term(5));
        assert_eq!(reason(standing.stamp(&orders(), Moment::default(), before)), Reason::TermChanged);
        assert_eq!(standing.stamp(&orders(), Moment::default(), wish(&standing)), Verdict::Hold);
    }

    #[test]
    fn who_does_not_lead_refuses_and_says_who_does() {
        let mut standing = Standing::new(Mechanisms::all());
        let leader = Leader { term: term(7), address: Some("http://b".into()), held: false };
        standing.leaders.insert(orders(), leader.clone());
        let Verdict::Refuse(refusal) = standing.stamp(&orders(), Moment::default(), wish(&standing)) else {
            panic!("it stamped a term that it does not hold (R2)")
        };
        assert_eq!(refusal.reason, Reason::NotLeader);
        assert_eq!(refusal.leader.and_then(|leader| leader.address).as_deref(), Some("http://b"));

        standing.leaders.insert(orders(), Leader { held: true, ..leader });
        let Verdict::Refuse(refusal) = standing.stamp(&orders(), Moment::default(), wish(&standing)) else {
            panic!("nobody leads")
        };
        assert_eq!((refusal.reason, refusal.leader), (Reason::NotLeader, None), "there is nobody to send it to");
        assert!(refusal.detail.contains("held (epochgate fence)"), "{}", refusal.detail);
    }

    #[test]
    fn until_armed_the_listener_decides() {
        let mut standing = leading(3);
        standing.tenures.get_mut(&orders()).expect("it leads").armed = Armed::No;
        let ask = |unarmed| standing.stamp(&orders(), Moment::default(), Wish { unarmed, ..wish(&standing) });
        assert_eq!(ask(Unarmed::Hold), Verdict::Hold);
        assert_eq!(reason(ask(Unarmed::Refuse)), Reason::NotArmed);
        assert!(matches!(ask(Unarmed::Pass), Verdict::Stamp(_)));
    }

    #[test]
    fn expected_work_of_another_epoch_is_refused() {
        let standing = leading(3);
        let expected = Some(term(2).epoch);
        let verdict = standing.stamp(&orders(), Moment::default(), Wish { expected, ..wish(&standing) });
        assert_eq!(reason(verdict), Reason::EpochExpected);
    }
}
