//! Elections: how a writer wins a resource, in one transaction (DESIGN 5).
//!
//! What is decided from a reading is pure ([`plan`]); [`campaign`] does it against a store. A campaign mints a fresh
//! nonce for every attempt and claims a term only when it saw its commit succeed, or read it back after an unclear
//! answer: never because an id matches (R2).

use std::sync::Arc;

use super::keys;
use super::records::{EpochRecord, LeaderRecord, Report, from_value, to_value};
use super::store::{Change, Committed, Compare, Keys, LeaseId, Range, Revision, Snapshot, Store, StoreError, Txn};
use crate::clock::{Clock, Entropy};
use crate::fence::mechanism::{Mechanism, Mechanisms};
use crate::fence::{Epoch, Nonce, Resource, Term, WriterId};

/// Who campaigns.
#[derive(Clone)]
pub struct Candidate {
    /// The writer.
    pub writer: WriterId,
    /// Where it listens, for hints in others' refusals.
    pub address: Option<String>,
    /// The lease that the leader key goes with.
    pub lease: LeaseId,
    /// Whether it takes the place of one who leads, and nobody writes under its term (`epochgate fence`); else it waits
    /// until nobody leads.
    pub deposes: bool,
}

/// How a campaign ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Campaigned {
    /// This process leads: it saw its own commit succeed, or read it back.
    Won(Won),
    /// Somebody leads.
    Taken(LeaderRecord),
    /// Something changed under it: read again, try again.
    Overtaken,
    /// A door's floor lies further above the epoch than anyone should believe: an operator has to look
    /// (`epochgate rebase`).
    Unbelievable {
        /// The floor.
        floor: Epoch,
        /// The door, as `target/id`.
        door: String,
        /// The last minted epoch, zero where there is none.
        epoch: u64,
    },
    /// No answer: these terms may have been won; watch for them.
    Unclear(Term, StoreError),
    /// There is no epoch above the last.
    Exhausted,
}

/// A won term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Won {
    /// The term.
    pub term: Term,
    /// The revision of the doors that it was minted against.
    pub doors: Revision,
    /// The revision of the win, or one at which it stood.
    pub at: Revision,
}

/// The ranges that an election of `resource` is decided on, all at one revision.
pub fn ranges(resource: &Resource) -> Vec<Range> {
    vec![
        Range::all(Keys::One(keys::leader(resource))),
        Range::all(Keys::One(keys::epoch(resource))),
        Range::all(Keys::Under(keys::reports(resource))),
    ]
}

/// What to commit after such a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This, which makes this term.
    Commit(Box<(Txn, Term)>),
    /// Nothing: it ended already.
    Ended(Campaigned),
}

/// Decides on a reading of [`ranges`]. The term is minted above the epoch and above every recorded floor, and the
/// transaction compares that neither has changed, and that no door was recorded since.
pub fn plan(
    resource: &Resource,
    read: &Snapshot,
    candidate: &Candidate,
    nonce: Nonce,
    minted: jiff::Timestamp,
    mechanisms: Mechanisms,
) -> Plan {
    let [leaders, epochs, reports] = read.ranges.as_slice() else { return Plan::Ended(Campaigned::Overtaken) };
    if let Some(leader) = leaders.first().filter(|_| !candidate.deposes) {
        return Plan::Ended(from_value(&leader.value).map_or(Campaigned::Overtaken, Campaigned::Taken));
    }
    let last = epochs.first().and_then(|entry| from_value::<EpochRecord>(&entry.value));
    let base = last.as_ref().map_or(0, |record| record.term.epoch.number());
    let mut highest = last.map(|record| record.term.epoch);
    for (entry, report) in reports.iter().filter_map(|entry| Some((entry, from_value::<Report>(&entry.value)?))) {
        if report.floor.is_beyond_belief(base) && mechanisms.keeps(Mechanism::Belief) {
            let door = entry.key.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
            return Plan::Ended(Campaigned::Unbelievable { floor: report.floor, door, epoch: base });
        }
        if mechanisms.keeps(Mechanism::MintAboveFloors) {
            highest = highest.max(Some(report.floor));
        }
    }
    let Some(epoch) = highest.map_or(Some(Epoch::FIRST), Epoch::after) else {
        return Plan::Ended(Campaigned::Exhausted);
    };
    let term = Term { epoch, nonce, writer: candidate.writer.clone() };
    let unchanged_epoch = match epochs.first() {
        Some(entry) => Compare::ModifiedAt(entry.key.clone(), entry.modified),
        None => Compare::Absent(keys::epoch(resource)),
    };
    let record = EpochRecord { term: term.clone(), doors: read.revision, minted };
    let leader = LeaderRecord { term: term.clone(), address: candidate.address.clone(), held: candidate.deposes };
    let put = |key, value, lease| Change::Put { key, value, lease };
    let unchanged_leader = match leaders.first() {
        Some(entry) => Compare::ModifiedAt(entry.key.clone(), entry.modified),
        None => Compare::Absent(keys::leader(resource)),
    };
    let compares = vec![
        unchanged_leader,
        unchanged_epoch,
        Compare::NoneModifiedAfter(keys::reports(resource), read.revision),
        Compare::NoneCreatedAfter(keys::DOORS.to_owned(), read.revision),
    ];
    let txn = Txn {
        compares: if mechanisms.keeps(Mechanism::OneTransaction) { compares } else { Vec::new() },
        changes: vec![
            put(keys::epoch(resource), to_value(&record), None),
            put(keys::leader(resource), to_value(&leader), Some(candidate.lease)),
        ],
    };
    Plan::Commit(Box::new((txn, term)))
}

/// What a campaign works with.
#[derive(Clone)]
pub struct Tools {
    /// Where it is decided.
    pub store: Arc<dyn Store>,
    /// For the minted-at time.
    pub clock: Arc<dyn Clock>,
    /// For the nonce.
    pub entropy: Arc<dyn Entropy>,
    /// What is in force.
    pub mechanisms: Mechanisms,
}

/// One attempt to win `resource`. Dropping it abandons the attempt, which may still succeed at the store: the leader
/// key then names a nonce that nobody claims, until its lease ends.
pub async fn campaign(tools: &Tools, resource: &Resource, candidate: &Candidate) -> Result<Campaigned, StoreError> {
    let read = tools.store.read(ranges(resource)).await?;
    let (nonce, minted) = (tools.entropy.nonce(), tools.clock.wall());
    let (txn, term) = match plan(resource, &read, candidate, nonce, minted, tools.mechanisms) {
        Plan::Ended(ended) => return Ok(ended),
        Plan::Commit(commit) => *commit,
    };
    let won = |at| Campaigned::Won(Won { term: term.clone(), doors: read.revision, at });
    match tools.store.commit(txn).await {
        Ok(Committed::Done(at)) => Ok(won(at)),
        Ok(Committed::Refused(_)) => Ok(Campaigned::Overtaken),
        Err(StoreError::Unreachable(why)) => Ok(match read_back(tools, resource, &term).await {
            Ok(Some(at)) => won(at),
            // Even where it does not stand now it may be on its way: the caller remembers the term.
            Ok(None) | Err(_) => Campaigned::Unclear(term, StoreError::Unreachable(why)),
        }),
        Err(error) => Err(error),
    }
}

/// The revision at which the leader key was read to carry exactly this term.
async fn read_back(tools: &Tools, resource: &Resource, term: &Term) -> Result<Option<Revision>, StoreError> {
    let read = tools.store.read(vec![Range::all(Keys::One(keys::leader(resource)))]).await?;
    let leader = read.ranges.first().and_then(|entries| from_value::<LeaderRecord>(&entries.first()?.value));
    Ok(leader.filter(|leader| leader.term == *term).map(|_| read.revision))
}

/// Deletes the leader key if it still carries exactly this term; `true` where it did.
///
/// # Errors
/// Those of the store; the key may or may not be gone then.
pub async fn resign(store: &dyn Store, resource: &Resource, term: &Term) -> Result<bool, StoreError> {
    let key = keys::leader(resource);
    let read = store.read(vec![Range::all(Keys::One(key.clone()))]).await?;
    let Some(entry) = read.ranges.first().and_then(|entries| entries.first()) else { return Ok(false) };
    if from_value::<LeaderRecord>(&entry.value).is_none_or(|leader| leader.term != *term) {
        return Ok(false);
    }
    let txn =
        Txn { compares: vec![Compare::ModifiedAt(key.clone(), entry.modified)], changes: vec![Change::Delete(key)] };
    Ok(matches!(store.commit(txn).await?, Committed::Done(_)))
}

#[cfg(test)]
mod tests {
    use super::super::store::{Entry, Lease, StoreFuture};
    use super::*;
    use crate::clock::{HostClock, HostEntropy};
    use crate::fence::Moment;

    fn orders() -> Resource {
        "orders".parse().expect("a resource")
    }

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number).expect("in range")
    }

    fn entry(key: String, value: Vec<u8>, revision: u64) -> Entry {
        Entry { key, value, created: Revision(revision), modified: Revision(revision), lease: None }
    }

    fn record(number: u64) -> Entry {
        let term = Term { epoch: epoch(number), nonce: Nonce::from_bytes([1; 8]), writer: "b".parse().expect("an id") };
        let record = EpochRecord { term, doors: Revision(1), minted: jiff::Timestamp::UNIX_EPOCH };
        entry(keys::epoch(&orders()), to_value(&record), 10)
    }

    fn report(floor: u64) -> Entry {
        let report = Report {
            floor: epoch(floor),
            nonce: Nonce::from_bytes([2; 8]),
            writer: "b".parse().expect("an id"),
            drained: None,
            forced: None,
            regressed: false,
        };
        entry(keys::report(&orders(), "db", "g-1"), to_value(&report), 11)
    }

    fn planned(ranges: Vec<Vec<Entry>>) -> Plan {
        let candidate =
            Candidate { writer: "a".parse().expect("an id"), address: None, lease: LeaseId(5), deposes: false };
        let read = Snapshot { revision: Revision(20), ranges, sent: Moment::default() };
        let nonce = Nonce::from_bytes([3; 8]);
        plan(&orders(), &read, &candidate, nonce, jiff::Timestamp::UNIX_EPOCH, Mechanisms::all())
    }

    fn minted(ranges: Vec<Vec<Entry>>) -> u64 {
        match planned(ranges) {
            Plan::Commit(commit) => commit.1.epoch.number(),
            Plan::Ended(ended) => panic!("{ended:?}"),
        }
    }

    #[test]
    fn an_epoch_is_minted_above_the_last_and_above_every_floor() {
        assert_eq!(minted(vec![vec![], vec![], vec![]]), 1);
        assert_eq!(minted(vec![vec![], vec![record(7)], vec![report(7)]]), 8);
        assert_eq!(minted(vec![vec![], vec![record(7)], vec![report(41)]]), 42, "a restored coordinator");
        assert_eq!(minted(vec![vec![], vec![], vec![report(41)]]), 42, "a wiped one");
    }

    #[test]
    fn nobody_mints_beside_a_leader_or_against_an_unbelievable_floor() {
        let leader = LeaderRecord {
            term: Term { epoch: epoch(7), nonce: Nonce::from_bytes([1; 8]), writer: "b".parse().expect("an id") },
            address: None,
            held: false,
        };
        let key = entry(keys::leader(&orders()), to_value(&leader), 12);
        assert_eq!(planned(vec![vec![key], vec![], vec![]]), Plan::Ended(Campaigned::Taken(leader)));
        let wild = planned(vec![vec![], vec![record(7)], vec![report(9_000_000)]]);
        let door = "db/g-1".to_owned();
        assert_eq!(wild, Plan::Ended(Campaigned::Unbelievable { floor: epoch(9_000_000), door, epoch: 7 }));
    }

    #[test]
    fn the_commit_holds_only_while_nothing_it_was_decided_on_has_changed() {
        let Plan::Commit(commit) = planned(vec![vec![], vec![record(7)], vec![report(7)]]) else {
            panic!("it is free")
        };
        let expected = [
            Compare::Absent(keys::leader(&orders())),
            Compare::ModifiedAt(keys::epoch(&orders()), Revision(10)),
            Compare::NoneModifiedAfter(keys::reports(&orders()), Revision(20)),
            Compare::NoneCreatedAfter("doors/".into(), Revision(20)),
        ];
        assert_eq!(commit.0.compares, expected);
    }

    type WhatStands = Box<dyn FnMut(&Term) -> Option<Term> + Send>;

    /// A store that loses the answer to every commit, and on which then stands what the test says.
    struct Loses(std::sync::Mutex<WhatStands>, std::sync::Mutex<Option<Term>>);

    impl Store for Loses {
        fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot> {
            Box::pin(async move {
                let stands = self.1.lock().expect("one thread").clone();
                let leader = stands.map(|term| to_value(&LeaderRecord { term, address: None, held: false }));
                let leader = leader.map(|value| entry(keys::leader(&orders()), value, 21));
                let mut read: Vec<Vec<Entry>> = ranges.iter().map(|_| Vec::new()).collect();
                read[0].extend(leader);
                Ok(Snapshot { revision: Revision(21), ranges: read, sent: Moment::default() })
            })
        }

        fn commit(&self, txn: Txn) -> StoreFuture<'_, Committed> {
            let Some(Change::Put { value, .. }) = txn.changes.last() else { panic!("an election puts the leader key") };
            let asked = from_value::<LeaderRecord>(value).expect("it is one");
            *self.1.lock().expect("one thread") = self.0.lock().expect("one thread")(&asked.term);
            Box::pin(async { Err(StoreError::Unreachable("lost".into())) })
        }

        fn watch(&self, _: Revision) -> Box<dyn crate::coordinator::store::Watch> {
            unreachable!("an election watches nothing")
        }

        fn grant(&self, _: std::time::Duration) -> StoreFuture<'_, Lease> {
            unreachable!("the lease is given")
        }

        fn keep_alive(&self, _: LeaseId) -> StoreFuture<'_, Lease> {
            unreachable!("the lease is given")
        }

        fn revoke(&self, _: LeaseId) -> StoreFuture<'_, ()> {
            unreachable!("the lease is given")
        }

        fn kind(&self) -> &'static str {
            "a test's"
        }

        fn endpoint(&self) -> String {
            String::new()
        }
    }

    /// How an election ends whose answer is lost, where this stands afterwards in place of what was asked for.
    async fn campaigned(stands: impl FnMut(&Term) -> Option<Term> + Send + 'static) -> Campaigned {
        let store = Arc::new(Loses(std::sync::Mutex::new(Box::new(stands)), std::sync::Mutex::default()));
        let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
        let tools = Tools { store, clock, entropy, mechanisms: Mechanisms::all() };
        let candidate =
            Candidate { writer: "a".parse().expect("an id"), address: None, lease: LeaseId(5), deposes: false };
        campaign(&tools, &orders(), &candidate).await.expect("its end is known, or known to be unclear")
    }

    #[tokio::test]
    async fn after_a_lost_answer_a_process_leads_the_very_term_that_it_minted_and_no_other_of_its_name() {
        assert!(matches!(campaigned(|asked| Some(asked.clone())).await, Campaigned::Won(_)));
        assert!(matches!(campaigned(|_| None).await, Campaigned::Unclear(..)), "it may be on its way");
        let of_another_process = |asked: &Term| Some(Term { nonce: Nonce::from_bytes([9; 8]), ..asked.clone() });
        assert!(matches!(campaigned(of_another_process).await, Campaigned::Unclear(..)), "its name is no proof");
    }

    #[tokio::test]
    async fn every_attempt_mints_another_nonce() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let Campaigned::Unclear(term, _) = campaigned(|_| None).await else { panic!("the answer was lost") };
            assert!(seen.insert(term.nonce), "{term:?} has the nonce of an earlier attempt");
        }
    }
}
