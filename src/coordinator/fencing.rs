//! A term without a writer, for any orchestrator (`epochgate fence`), and the operator's way out of epochs that nobody
//! believes (`epochgate rebase`).
//!
//! Whoever fences takes the leadership from whoever has it and puts nobody in its place. Safety never hangs on the
//! leader key: the doors refuse the old term as soon as they know of the new one, and the proof is theirs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::agreement::{Patience, Proof, prove, without_the_gone};
use super::doors::{Door, Sightings, among, unreadable_of};
use super::election::{Campaigned, Candidate, Tools, campaign};
use super::keys::{self, DoorName};
use super::records::{DoorMode, EpochRecord, LeaderRecord, Report, from_value, to_value};
use super::store::{Change, Committed, Compare, Entry, Keys, Lease, Range, Revision, Snapshot, Store, StoreError, Txn};
use crate::clock::Clock;
use crate::fence::{Epoch, Resource, Term, WriterId};

/// A term without a writer.
#[derive(Clone, Debug)]
pub struct Fence {
    /// The term.
    pub term: Term,
    /// Who led before, where somebody did.
    pub deposed: Option<LeaderRecord>,
    /// What keeps the next election waiting.
    pub lease: Lease,
}

/// Why there is no fence, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The coordinator did not answer, or refused.
    #[error("the coordinator: {0}")]
    Store(#[from] StoreError),
    /// A floor lies too far above the last epoch.
    #[error("door {door} has recorded the floor {floor}, which lies more than 1000000 above the epoch {epoch}")]
    Unbelievable {
        /// The floor.
        floor: Epoch,
        /// The door.
        door: String,
        /// The last epoch.
        epoch: u64,
    },
    /// There is no epoch above the last.
    #[error("there is no epoch above the last one")]
    Exhausted,
    /// Another term has begun, or a door will not believe this one, or the lease is gone.
    #[error("the term {0} is over: another has begun, a guard knows of a later one, or its lease ran out")]
    Over(Epoch),
}

/// How long to wait between two attempts at what others keep changing, or what has no answer.
const AGAIN: Duration = Duration::from_millis(100);

/// Elects a term of `resource` without a writer, above every other, under a fresh lease of `ttl`. Tries until it has one
/// or the coordinator fails; dropping it may leave a term behind that ends with its lease.
///
/// # Errors
/// [`FenceError`].
pub async fn fence(tools: &Tools, resource: &Resource, writer: &WriterId, ttl: Duration) -> Result<Fence, FenceError> {
    let lease = tools.store.grant(ttl).await?;
    let candidate = Candidate { writer: writer.clone(), address: None, lease: lease.id, deposes: true };
    loop {
        // An attempt of our own that had no clear answer is nobody that was deposed.
        let deposed = leader(tools.store.as_ref(), resource).await?.filter(|leader| leader.term.writer != *writer);
        match campaign(tools, resource, &candidate).await? {
            Campaigned::Won(won) => return Ok(Fence { term: won.term, deposed, lease }),
            // It may have been won all the same: then the next attempt takes its place.
            Campaigned::Overtaken | Campaigned::Taken(_) | Campaigned::Unclear(..) => tokio::time::sleep(AGAIN).await,
            Campaigned::Unbelievable { floor, door, epoch } => {
                return Err(FenceError::Unbelievable { floor, door, epoch });
            }
            Campaigned::Exhausted => return Err(FenceError::Exhausted),
        }
    }
}

async fn leader(store: &dyn Store, resource: &Resource) -> Result<Option<LeaderRecord>, StoreError> {
    let read = store.read(vec![Range::all(Keys::One(keys::leader(resource)))]).await?;
    Ok(read.ranges.first().and_then(|entries| entries.first()).and_then(|entry| from_value(&entry.value)))
}

/// How far the doors are with a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What they prove.
    pub proof: Proof,
    /// The doors that serve the resource.
    pub doors: Vec<DoorProgress>,
}

/// One door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorProgress {
    /// Which.
    pub name: DoorName,
    /// Whether it enforces; what goes through one that only counts is never proved.
    pub enforces: bool,
    /// Whether it is alive.
    pub alive: bool,
    /// The floor that it reported.
    pub floor: Option<Epoch>,
    /// What it reported as drained.
    pub drained: Option<Epoch>,
    /// Whether it has left, or was declared dead.
    pub left: bool,
    /// Whether its floor has the number of the term, and is of another one.
    pub of_another_term: bool,
}

impl Progress {
    /// The doors that only count: beside one, nothing is proved.
    pub fn audits(&self) -> impl Iterator<Item = &DoorProgress> {
        self.doors.iter().filter(|door| !door.enforces)
    }

    /// Whether nothing below the term can land any more.
    pub fn is_proved(&self) -> bool {
        self.proof == Proof::Drained && self.audits().next().is_none()
    }
}

/// Looks how far the doors are, once. Those that are gone are waited out from when `sightings` first had them so.
///
/// # Errors
/// [`FenceError::Over`] where the term is not the last one any more.
pub async fn look(
    store: &dyn Store,
    resource: &Resource,
    term: &Term,
    (sightings, patience): (&mut Sightings, Patience),
    clock: &dyn Clock,
) -> Result<(Progress, Revision), FenceError> {
    let read = store.read(ranges(resource)).await?;
    // After the reading: a door that it shows may have left while it was under way.
    let now = clock.now();
    let [epochs, doors, reports] = read.ranges.as_slice() else { return Err(FenceError::Over(term.epoch)) };
    let last = epochs.first().and_then(|entry| from_value::<EpochRecord>(&entry.value));
    let Some(last) = last.filter(|record| record.term == *term) else { return Err(FenceError::Over(term.epoch)) };
    // As a leader gives up then: to hold this term would only keep the next election waiting.
    let ruled_out = |entry: &Entry| {
        from_value::<Report>(&entry.value).is_some_and(|report| report.rules_out(term, entry.modified, last.doors))
    };
    if reports.iter().any(ruled_out) {
        return Err(FenceError::Over(term.epoch));
    }
    let mut unknown = unreadable_of(resource, doors);
    let doors = without_the_gone(among(doors), patience, sightings, now);
    // What one that only counted has forwarded may land as late.
    let counted = doors.iter().filter(|door| door.record.mode == DoorMode::Audit && door.record.left);
    unknown.extend(counted.filter(|door| door.record.serves(resource)).map(|door| door.name.clone()));
    let report = |door: &DoorName| report_of(reports, resource, door);
    let proof = match prove((resource, term), &doors, report) {
        Proof::Missing(missing) => Proof::Missing(missing.into_iter().chain(unknown).collect()),
        _ if !unknown.is_empty() => Proof::Missing(unknown),
        proof => proof,
    };
    let doors = serving(resource, &doors).map(|door| progress_of(door, report(&door.name), Some(term))).collect();
    Ok((Progress { proof, doors }, read.revision))
}

/// The epoch, every door, and what doors have reported of the resource.
fn ranges(resource: &Resource) -> Vec<Range> {
    let all =
        [Keys::One(keys::epoch(resource)), Keys::Under(keys::DOORS.to_owned()), Keys::Under(keys::reports(resource))];
    all.into_iter().map(Range::all).collect()
}

fn serving<'a>(resource: &'a Resource, doors: &'a [Door]) -> impl Iterator<Item = &'a Door> {
    doors.iter().filter(|door| door.record.serves(resource))
}

fn progress_of(door: &Door, said: Option<Report>, term: Option<&Term>) -> DoorProgress {
    let another = |report: &Report| term.is_some_and(|term| report.floor == term.epoch && report.nonce != term.nonce);
    DoorProgress {
        name: door.name.clone(),
        enforces: door.record.mode == DoorMode::Enforce,
        alive: door.alive,
        left: door.record.left,
        of_another_term: said.as_ref().is_some_and(another),
        floor: said.as_ref().map(|report| report.floor),
        drained: said.and_then(|report| report.drained),
    }
}

/// What is on record of a resource, whoever leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnRecord {
    /// The doors that serve it.
    pub doors: Vec<DoorProgress>,
    /// Whether there is anything: a door, a report of one that was there, or an epoch.
    pub is_known: bool,
    /// What the doors of other resources serve, as names and ranges: for whoever has mistyped it.
    pub others: Vec<String>,
}

/// Looks what is on record of a resource, before anything is changed.
///
/// # Errors
/// Those of the store.
pub async fn on_record(store: &dyn Store, resource: &Resource) -> Result<OnRecord, StoreError> {
    let read = store.read(ranges(resource)).await?;
    let [epochs, entries, reports] = read.ranges.as_slice() else {
        return Ok(OnRecord { doors: Vec::new(), is_known: false, others: Vec::new() });
    };
    let all = among(entries);
    let doors: Vec<DoorProgress> =
        serving(resource, &all).map(|door| progress_of(door, report_of(reports, resource, &door.name), None)).collect();
    let others = all.iter().filter(|door| !door.record.serves(resource)).flat_map(|door| door.record.serves.clone());
    let others: BTreeSet<String> = others.collect();
    let is_known = !(epochs.is_empty() && reports.is_empty() && doors.is_empty());
    Ok(OnRecord { doors, is_known, others: others.into_iter().collect() })
}

fn report_of(reports: &[Entry], resource: &Resource, door: &DoorName) -> Option<Report> {
    let key = keys::report(resource, &door.target, &door.id);
    reports.iter().find(|entry| entry.key == key).and_then(|entry| from_value(&entry.value))
}

/// Ends the hold of an earlier fence of this name: whoever campaigns may be elected at once. `false` where the resource
/// is not led under it.
///
/// # Errors
/// Those of the store.
pub async fn release(store: &dyn Store, resource: &Resource, writer: &WriterId) -> Result<bool, StoreError> {
    let key = keys::leader(resource);
    let read = store.read(vec![Range::all(Keys::One(key.clone()))]).await?;
    let Some(entry) = read.ranges.first().and_then(|entries| entries.first()) else { return Ok(false) };
    if from_value::<LeaderRecord>(&entry.value).is_none_or(|leader| leader.term.writer != *writer) {
        return Ok(false);
    }
    let txn =
        Txn { compares: vec![Compare::ModifiedAt(key.clone(), entry.modified)], changes: vec![Change::Delete(key)] };
    Ok(matches!(store.commit(txn).await?, Committed::Done(_)))
}

/// Why there is nothing to rebase, or it was not done.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// The coordinator did not answer, or refused.
    #[error("the coordinator: {0}")]
    Store(#[from] StoreError),
    /// The highest floor is within reach of an election.
    #[error("the highest floor on record is {highest}, and the epoch is {epoch}: an election goes above it by itself")]
    NotNeeded {
        /// The highest floor, 0 for none.
        highest: u64,
        /// The epoch, 0 for none.
        epoch: u64,
    },
    /// There is neither an epoch nor a floor.
    #[error("nothing is on record of {0}, neither an epoch nor a guard's floor: is that its name?")]
    Unknown(Resource),
    /// The operator named another number.
    #[error("the highest floor on record is {0}, recorded by door {1}: name it if you believe it")]
    NotThis(Epoch, String),
    /// Something changed meanwhile.
    #[error("something changed meanwhile: look again")]
    Overtaken,
}

/// Believes the highest floor that a door has recorded, however far above the last epoch it lies: the epoch record
/// becomes that floor's term, and the next election mints above it. Mints nothing itself (R4).
///
/// # Errors
/// [`RebaseError`]; nothing has changed then, unless the coordinator gave no answer.
pub async fn rebase(
    store: &dyn Store,
    resource: &Resource,
    to: Epoch,
    minted: jiff::Timestamp,
) -> Result<u64, RebaseError> {
    let read = store.read(super::election::ranges(resource)).await?;
    let [_, epochs, reports] = read.ranges.as_slice() else { return Err(RebaseError::Overtaken) };
    if epochs.is_empty() && reports.is_empty() {
        return Err(RebaseError::Unknown(resource.clone()));
    }
    let last = epochs.first().and_then(|entry| from_value::<EpochRecord>(&entry.value));
    let epoch = last.map_or(0, |record| record.term.epoch.number());
    let found = reports.iter().filter_map(|entry| Some((entry, from_value::<Report>(&entry.value)?)));
    let highest = found.max_by_key(|(_, report)| report.floor);
    let Some((entry, report)) = highest.filter(|(_, report)| report.floor.is_beyond_belief(epoch)) else {
        let highest = reports.iter().filter_map(|entry| from_value::<Report>(&entry.value));
        let highest = highest.map(|report| report.floor.number()).max().unwrap_or(0);
        return Err(RebaseError::NotNeeded { highest, epoch });
    };
    if report.floor != to {
        let door = entry.key.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
        return Err(RebaseError::NotThis(report.floor, door));
    }
    match store.commit(raised(resource, &read, epochs, report.term(), minted)).await? {
        Committed::Done(_) => Ok(epoch),
        Committed::Refused(_) => Err(RebaseError::Overtaken),
    }
}

fn raised(resource: &Resource, read: &Snapshot, epochs: &[Entry], term: Term, minted: jiff::Timestamp) -> Txn {
    let unchanged = match epochs.first() {
        Some(entry) => Compare::ModifiedAt(entry.key.clone(), entry.modified),
        None => Compare::Absent(keys::epoch(resource)),
    };
    let record = EpochRecord { term, doors: read.revision, minted };
    Txn {
        compares: vec![unchanged, Compare::NoneModifiedAfter(keys::reports(resource), read.revision)],
        changes: vec![Change::Put { key: keys::epoch(resource), value: to_value(&record), lease: None }],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::embedded::Embedded;
    use super::super::records::{DoorKind, DoorRecord};
    use super::*;
    use crate::clock::{HostClock, HostEntropy};
    use crate::config::resolved::Lapsed;
    use crate::fence::mechanism::Mechanisms;

    const QUARANTINE: Duration = Duration::from_millis(500);

    fn orders() -> Resource {
        "orders".parse().expect("a resource")
    }

    fn record(mode: DoorMode, left: bool) -> DoorRecord {
        DoorRecord {
            kind: DoorKind::Shared,
            mode,
            address: String::new(),
            session: QUARANTINE,
            quarantine: QUARANTINE,
            closes: true,
            by_time: true,
            serves: vec!["orders".into()],
            left,
        }
    }

    async fn put(store: &dyn Store, key: &str, value: Vec<u8>) {
        let changes = vec![Change::Put { key: key.into(), value, lease: None }];
        store.commit(Txn { compares: Vec::new(), changes }).await.expect("it can be put");
    }

    /// A restored coordinator mints below what doors know until they have said it. They will not go back for this term, and
    /// for as long as it is held nobody else is elected.
    #[tokio::test]
    async fn a_term_that_a_door_will_not_believe_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
        let store = Embedded::open(&folder.path().join("e.db"), clock.clone(), entropy.clone()).expect("a new one");
        let store: Arc<dyn Store> = store;
        let tools = Tools { store: Arc::clone(&store), clock, entropy, mechanisms: Mechanisms::all() };
        for above in [0, 6] {
            let held = fence(&tools, &orders(), &"fence".parse().expect("an id"), Duration::from_secs(60)).await;
            let term = held.expect("it can be had").term;
            let patience = Patience { lapsed: Lapsed::Wait, mechanisms: Mechanisms::all() };
            let mut seen = Sightings::default();
            let mut look = async || look(store.as_ref(), &orders(), &term, (&mut seen, patience), &HostClock).await;
            assert!(look().await.is_ok());
            // Of the same number, or above.
            let floor = Epoch::new(term.epoch.number() + above).expect("in range");
            let report = Report {
                floor,
                nonce: crate::fence::Nonce::from_bytes([9; 8]),
                writer: "a".parse().expect("an id"),
                drained: Some(floor),
                forced: None,
                regressed: true,
            };
            put(store.as_ref(), "reports/orders/db/one", to_value(&report)).await;
            assert!(matches!(look().await, Err(FenceError::Over(epoch)) if epoch == term.epoch));
        }
    }

    /// What stands beside a door that has drained keeps the proof back, until it has left and been waited out.
    #[tokio::test]
    async fn a_proof_waits_for_whom_it_cannot_read_and_for_whoever_has_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
        let store = Embedded::open(&folder.path().join("e.db"), clock.clone(), entropy.clone()).expect("a new one");
        let store: Arc<dyn Store> = store;
        let tools = Tools { store: Arc::clone(&store), clock, entropy, mechanisms: Mechanisms::all() };
        let held = fence(&tools, &orders(), &"fence".parse().expect("an id"), Duration::from_secs(60)).await;
        let term = held.expect("nobody leads").term;
        put(store.as_ref(), "doors/db/one", to_value(&record(DoorMode::Enforce, false))).await;
        put(store.as_ref(), "doors/db/one/alive", b"{}".to_vec()).await;
        let drained = Report {
            floor: term.epoch,
            nonce: term.nonce,
            writer: term.writer.clone(),
            drained: Some(term.epoch),
            forced: None,
            regressed: false,
        };
        put(store.as_ref(), "reports/orders/db/one", to_value(&drained)).await;
        let mut sightings = Sightings::default();
        let patience = Patience { lapsed: Lapsed::Wait, mechanisms: Mechanisms::all() };
        let look = async |sightings: &mut Sightings| {
            look(store.as_ref(), &orders(), &term, (sightings, patience), &HostClock)
                .await
                .expect("it is the last term")
                .0
        };
        assert!(look(&mut sightings).await.is_proved());
        put(store.as_ref(), "doors/db/two", br#"{"kind":"later"}"#.to_vec()).await;
        let two = DoorName { target: "db".into(), id: "two".into() };
        assert_eq!(look(&mut sightings).await.proof, Proof::Missing(vec![two.clone()]));
        for mode in [DoorMode::Enforce, DoorMode::Audit] {
            put(store.as_ref(), "doors/db/two", to_value(&record(mode, false))).await;
            assert!(!look(&mut sightings).await.is_proved(), "{mode:?}");
            put(store.as_ref(), "doors/db/two", to_value(&record(mode, true))).await;
            let begun = std::time::Instant::now();
            loop {
                let progress = look(&mut sightings).await;
                if progress.is_proved() {
                    break;
                }
                assert_eq!(progress.proof, Proof::Missing(vec![two.clone()]), "{mode:?}");
                assert!(begun.elapsed() < Duration::from_secs(20), "{mode:?}: it is never over");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(begun.elapsed() >= QUARANTINE, "{mode:?}: what it has forwarded may still land");
        }
    }
}
