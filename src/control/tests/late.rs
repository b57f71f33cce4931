//! What comes late, or is shown late: answers and readings from before something else that control has heard of already.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::older::put;
use super::*;
use crate::coordinator::election::{Campaigned, Candidate, Tools, campaign};
use crate::coordinator::records::{Report, to_value};
use crate::coordinator::store::{
    Change, Compare, LeaseId, Range, Revision, Snapshot, StoreFuture, Txn, Watch, WatchEvent,
};

/// Something that happens, and that others wait for.
#[derive(Default)]
pub(super) struct Point(AtomicBool);

impl Point {
    pub(super) fn reach(&self) {
        self.0.store(true, SeqCst);
    }

    pub(super) fn is_reached(&self) -> bool {
        self.0.load(SeqCst)
    }

    pub(super) async fn reached(&self) {
        while !self.is_reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// What a test does between control and its store. An error takes the place of the answer.
pub(super) trait Between: Send + Sync + 'static {
    /// A reading was made, and is about to be handed over.
    fn read<'a>(&'a self, _ranges: &'a [Range], _read: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// The reading, as it is handed over.
    fn shows(&self, read: Snapshot) -> Snapshot {
        read
    }

    /// A transaction is about to be committed.
    fn commit<'a>(&'a self, _txn: &'a Txn) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// What of it the store compares and changes.
    fn carried_out(&self, txn: Txn) -> Txn {
        txn
    }

    /// It was, and the answer is about to be handed over.
    fn committed<'a>(&'a self, _txn: &'a Txn, _how: Committed) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Whether the watch says nothing of this key.
    fn hides(&self, _key: &str) -> bool {
        false
    }

    /// A lease was granted or renewed.
    fn leased(&self, _lease: Lease) {}

    /// What the watch says besides, once.
    fn says(&self) -> StoreFuture<'_, WatchEvent> {
        Box::pin(std::future::pending())
    }
}

pub(super) struct Through<B>(pub(super) Arc<dyn Store>, pub(super) Arc<B>);

impl<B: Between> Store for Through<B> {
    fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot> {
        Box::pin(async move {
            let read = self.0.read(ranges.clone()).await?;
            let read = self.1.shows(read);
            self.1.read(&ranges, &read).await?;
            Ok(read)
        })
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Committed> {
        Box::pin(async move {
            self.1.commit(&txn).await?;
            let committed = self.0.commit(self.1.carried_out(txn.clone())).await?;
            self.1.committed(&txn, committed).await?;
            Ok(committed)
        })
    }

    fn watch(&self, after: Revision) -> Box<dyn Watch> {
        Box::new(Watched(self.0.watch(after), Arc::clone(&self.1), false))
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        Box::pin(async move { self.0.grant(ttl).await.inspect(|lease| self.1.leased(*lease)) })
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, Lease> {
        Box::pin(async move { self.0.keep_alive(lease).await.inspect(|lease| self.1.leased(*lease)) })
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.0.revoke(lease)
    }

    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn endpoint(&self) -> String {
        self.0.endpoint()
    }
}

struct Watched<B>(Box<dyn Watch>, Arc<B>, bool);

impl<B: Between> Watch for Watched<B> {
    fn next(&mut self) -> std::pin::Pin<Box<dyn Future<Output = WatchEvent> + Send + '_>> {
        Box::pin(async {
            loop {
                let event = tokio::select! {
                    event = self.0.next() => event,
                    Ok(event) = self.1.says(), if !self.2 => {
                        self.2 = true;
                        event
                    }
                };
                let WatchEvent::Changed(mut changed) = event else { return event };
                changed.keys.retain(|key| !self.1.hides(key));
                if !changed.keys.is_empty() {
                    return WatchEvent::Changed(changed);
                }
            }
        })
    }
}

pub(super) fn puts(txn: &Txn, begin: &str) -> bool {
    txn.changes.iter().any(|it| matches!(it, Change::Put { key, .. } if key.starts_with(begin)))
}

/// Elects somebody at the store itself, for a minute.
pub(super) async fn elect(store: &Arc<dyn Store>, writer: &str) -> Term {
    let lease = store.grant(Duration::from_secs(60)).await.expect("it can be granted").id;
    let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
    let tools = Tools { store: Arc::clone(store), clock, entropy, mechanisms: Mechanisms::all() };
    let candidate = Candidate { writer: writer.parse().expect("an id"), address: None, lease, deposes: true };
    loop {
        if let Campaigned::Won(won) = campaign(&tools, &orders(), &candidate).await.expect("it answers") {
            return won.term;
        }
    }
}

/// Every lease that was granted or renewed.
#[derive(Default)]
struct Leases(Mutex<Vec<Lease>>);

impl Between for Leases {
    fn leased(&self, lease: Lease) {
        self.0.lock().expect("one thread").push(lease);
    }
}

#[test]
fn a_writer_trusts_its_lease_from_when_its_renewal_was_sent_and_less_than_all_of_it() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config("a", folder.path(), vec![guard(), stamp()]);
        let trust = config.clock;
        let leases = Arc::new(Leases::default());
        let seen = Arc::clone(&leases);
        let mut process = Process::start_over(config, |store| Arc::new(Through(store, seen)));
        process.play("armed", |process| process.armed().is_some()).await;
        let deadline = process.standing.as_ref().and_then(|standing| standing.deadline).expect("it has one");
        let leases = leases.0.lock().expect("one thread").clone();
        let trusted = |lease: &Lease| {
            let drift = lease.ttl.mul_f64(1.0 - trust.max_drift).saturating_sub(trust.margin);
            lease.sent.plus(drift)
        };
        let ends: Vec<Moment> = leases.iter().map(trusted).collect();
        assert!(ends.contains(&deadline), "{deadline:?} is the end of none of {ends:?}");
        process.ended.abort();
    });
}

/// A reading of everything is made before the election, and handed over after it was won.
#[derive(Default)]
struct ReadBeforeTheWin {
    elects: Point,
    read: Point,
    won: Point,
    handed_over: Point,
}

impl Between for ReadBeforeTheWin {
    fn says(&self) -> StoreFuture<'_, WatchEvent> {
        Box::pin(async {
            self.elects.reached().await;
            Ok(WatchEvent::Gap)
        })
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if puts(txn, "leaders/") && !self.won.is_reached() {
                self.elects.reach();
                self.read.reached().await;
            }
            Ok(())
        })
    }

    fn committed<'a>(&'a self, txn: &'a Txn, _: Committed) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if puts(txn, "leaders/") {
                self.won.reach();
            }
            Ok(())
        })
    }

    fn read<'a>(&'a self, ranges: &'a [Range], _: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async {
            let everything = matches!(ranges, [range] if range.keys == Keys::Under(String::new()));
            if everything && self.elects.is_reached() && !self.read.is_reached() {
                self.read.reach();
                self.won.reached().await;
                // The answer to the election is taken in before.
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.handed_over.reach();
            }
            Ok(())
        })
    }
}

#[test]
fn a_reading_from_before_the_win_ends_no_term() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let late = Arc::new(ReadBeforeTheWin::default());
        let seen = Arc::clone(&late);
        let config = config("a", folder.path(), vec![guard(), stamp()]);
        let mut process = Process::start_over(config, |store| Arc::new(Through(store, seen)));
        // It arms by readings that come after the late one.
        process.play("armed", |process| late.handed_over.is_reached() && process.armed().is_some()).await;
        let over = process.events.all().into_iter().any(|it| matches!(it.event, Event::TermEnded { .. }));
        assert!(!over, "the term that was won is over: {:#?}", process.events.all());
        process.ended.abort();
    });
}

/// Another door reports this floor; returns once that was read, and has reached control.
async fn another_reports(store: &Arc<dyn Store>, floor: Epoch, regressed: bool, read: &Point) {
    let (nonce, writer) = (crate::fence::Nonce::from_bytes([5; 8]), "b".parse().expect("an id"));
    let report = Report { floor, nonce, writer, drained: None, forced: None, regressed };
    put(store, "reports/orders/orders/another", to_value(&report)).await;
    read.reached().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A door's report that says it will not have the term is read before the answer to the election comes.
struct FloorBeforeTheAnswer {
    store: Arc<dyn Store>,
    won: Point,
    read: Point,
}

impl Between for FloorBeforeTheAnswer {
    fn committed<'a>(&'a self, txn: &'a Txn, how: Committed) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            if puts(txn, "leaders/") && matches!(how, Committed::Done(_)) && !self.won.is_reached() {
                self.won.reach();
                another_reports(&self.store, Epoch::new(5).expect("in range"), true, &self.read).await;
            }
            Ok(())
        })
    }

    fn read<'a>(&'a self, _: &'a [Range], read: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if read.ranges.iter().flatten().any(|entry| entry.key.starts_with("reports/")) {
                self.read.reach();
            }
            Ok(())
        })
    }
}

#[test]
fn a_floor_that_was_read_before_the_answer_to_the_election_ends_the_term_all_the_same() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (won, read) = (Point::default(), Point::default());
        let late = Arc::new(FloorBeforeTheAnswer { store: store(folder.path()), won, read });
        let config = config("a", folder.path(), vec![stamp()]);
        let mut process = Process::start_over(config, |store| Arc::new(Through(store, late)));
        let epoch = |process: &Process| Some(process.standing.as_ref()?.tenure(&orders())?.term.epoch.number());
        process.play("it leads above that floor", |process| epoch(process) == Some(6)).await;
        process.ended.abort();
    });
}

/// An election is on its way while the coordinator is restored: what it compares, revisions, the coordinator has a second
/// time. So it mints an epoch that a door has recorded by then, which is read before the answer comes.
struct ElectionOverARestore {
    store: Arc<dyn Store>,
    elects: Point,
    read: Point,
}

impl Between for ElectionOverARestore {
    fn commit<'a>(&'a self, txn: &'a Txn) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            if puts(txn, "leaders/") && !self.elects.is_reached() {
                self.elects.reach();
                another_reports(&self.store, Epoch::FIRST, false, &self.read).await;
            }
            Ok(())
        })
    }

    // The answer is there before any reading that it would bring about.
    fn hides(&self, key: &str) -> bool {
        key.starts_with("leaders/") || key.starts_with("epochs/")
    }

    fn carried_out(&self, mut txn: Txn) -> Txn {
        if puts(&txn, "leaders/") {
            txn.compares.retain(|it| !matches!(it, Compare::NoneModifiedAfter(..)));
        }
        txn
    }

    fn read<'a>(&'a self, _: &'a [Range], read: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if read.ranges.iter().flatten().any(|entry| entry.key.starts_with("reports/")) {
                self.read.reach();
            }
            Ok(())
        })
    }
}

#[test]
fn a_floor_that_was_read_before_the_election_came_through_ends_the_term_all_the_same() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (elects, read) = (Point::default(), Point::default());
        let late = Arc::new(ElectionOverARestore { store: store(folder.path()), elects, read });
        let config = config("a", folder.path(), vec![stamp()]);
        let mut process = Process::start_over(config, |store| Arc::new(Through(store, late)));
        let epoch = |process: &Process| Some(process.standing.as_ref()?.tenure(&orders())?.term.epoch.number());
        process.play("it leads above that floor", |process| epoch(process) == Some(2)).await;
        process.ended.abort();
    });
}

/// A reading is made before the door joins, and handed over once it has; in between an epoch begins.
struct ReadBeforeJoining {
    store: Arc<dyn Store>,
    read: Point,
    joined: Point,
}

impl Between for ReadBeforeJoining {
    fn read<'a>(&'a self, ranges: &'a [Range], _: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async {
            let everything = matches!(ranges, [range] if range.keys == Keys::Under(String::new()));
            if everything && !self.read.is_reached() {
                self.read.reach();
                self.joined.reached().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        })
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if puts(txn, "doors/") && !self.joined.is_reached() {
                self.read.reached().await;
                elect(&self.store, "b").await;
            }
            Ok(())
        })
    }

    fn committed<'a>(&'a self, txn: &'a Txn, _: Committed) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if puts(txn, "doors/") {
                self.joined.reach();
            }
            Ok(())
        })
    }
}

#[test]
fn a_reading_from_before_a_door_has_joined_lets_it_open_nothing() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config("g", folder.path(), vec![guard()]);
        let store = store(folder.path());
        elect(&store, "a").await;
        let mut first = Process::start(config.clone());
        first.play("open", |process| process.gate.is_open()).await;
        first.handle.stop();
        first.play("stopped", |process| process.ended.is_finished()).await;

        let (read, joined) = (Point::default(), Point::default());
        let late = Arc::new(ReadBeforeJoining { store, read, joined });
        let mut second = Process::start_over(config, |store| Arc::new(Through(store, late)));
        second.play("open", |process| process.gate.is_open()).await;
        assert_eq!(second.gate.floor().map(Epoch::number), Some(2), "it had opened what was over");
        second.ended.abort();
    });
}

/// The commit by which the door joins under its second lease waits.
#[derive(Default)]
struct JoinsSlowly {
    first: Mutex<Option<LeaseId>>,
    second: Point,
    goes_on: Point,
}

impl Between for JoinsSlowly {
    fn commit<'a>(&'a self, txn: &'a Txn) -> StoreFuture<'a, ()> {
        Box::pin(async {
            let lease = txn.changes.iter().find_map(|change| match change {
                Change::Put { key, lease, .. } if key.ends_with("/alive") => *lease,
                _ => None,
            });
            let first = *self.first.lock().expect("one thread").get_or_insert(lease.unwrap_or(LeaseId(0)));
            if lease.is_some_and(|lease| lease != first) {
                self.second.reach();
                self.goes_on.reached().await;
            }
            Ok(())
        })
    }
}

#[test]
fn a_door_that_has_a_new_session_opens_nothing_before_it_has_joined_again() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        elect(&store, "a").await;
        let slow = Arc::new(JoinsSlowly::default());
        let seen = Arc::clone(&slow);
        let config = config("g", folder.path(), vec![closing_guard()]);
        let mut door = Process::start_over(config, |store| Arc::new(Through(store, seen)));
        door.play("open", |process| process.gate.is_open()).await;
        let doors = store.read(vec![Range::all(Keys::Under("doors/".into()))]).await.expect("it can be read");
        let lease = doors.ranges[0].iter().find_map(|entry| entry.lease).expect("the alive key goes with a lease");
        store.revoke(lease).await.expect("it can be revoked");
        // What a new session means for the gates has been ordered before its door asks to join.
        play_all(&mut [&mut door], "it joins again", |_| slow.second.is_reached()).await;
        while let Ok(message) = door.from_control.try_recv() {
            door.play_one(message);
        }
        assert!(!door.gate.is_open(), "another may have waited it out, and opened a later epoch");
        slow.goes_on.reach();
        door.play("open again", |process| process.gate.is_open()).await;
        door.ended.abort();
    });
}

/// The answer to the first election is lost, and with it the answer to the question what became of it; meanwhile the
/// observer sees what was committed. The number says how far that has come.
struct LosesTheAnswer(AtomicUsize);

impl Between for LosesTheAnswer {
    fn read<'a>(&'a self, ranges: &'a [Range], read: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async {
            let alone = matches!(ranges, [range] if range.keys == Keys::One("leaders/orders".into()));
            if alone && self.0.compare_exchange(2, 3, SeqCst, SeqCst).is_ok() {
                return Err(StoreError::Unreachable("lost".into()));
            }
            if read.ranges.iter().flatten().any(|entry| entry.key == "leaders/orders") {
                let _ = self.0.compare_exchange(1, 2, SeqCst, SeqCst);
            }
            Ok(())
        })
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if puts(txn, "leaders/") {
                let _ = self.0.compare_exchange(0, 1, SeqCst, SeqCst);
            }
            Ok(())
        })
    }

    fn committed<'a>(&'a self, txn: &'a Txn, how: Committed) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            if !puts(txn, "leaders/") || self.0.load(SeqCst) > 2 {
                return Ok(());
            }
            if matches!(how, Committed::Refused(_)) {
                self.0.store(0, SeqCst);
                return Ok(());
            }
            while self.0.load(SeqCst) < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // What was read reaches control before the loss of the answer does.
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(StoreError::Unreachable("lost".into()))
        })
    }
}

/// The leader key was seen before it was known to be of a term whose commit had no answer; it does not change any more.
#[test]
fn a_term_that_was_seen_before_its_lost_answer_was_missed_is_led_all_the_same() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config("a", folder.path(), vec![guard(), stamp()]);
        let loses = Arc::new(LosesTheAnswer(AtomicUsize::new(0)));
        let mut process = Process::start_over(config, |store| Arc::new(Through(store, loses)));
        process.play("armed", |process| process.armed() == Some(Epoch::FIRST)).await;
        process.ended.abort();
    });
}
