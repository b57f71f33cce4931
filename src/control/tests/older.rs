//! Lists of doors that are older than the epoch, or than the term, that is decided by them: a door that has been recorded
//! since is seen by nobody in them.

use std::sync::OnceLock;

use super::late::{Between, Point, Through, elect};
use super::*;
use crate::coordinator::doors::{Joined, Joiner, join};
use crate::coordinator::keys::DoorName;
use crate::coordinator::records::{DoorKind, DoorMode, DoorRecord, LeaderRecord, Report, from_value, to_value};
use crate::coordinator::store::{Change, Changed, Range, Revision, Snapshot, StoreFuture, Txn, WatchEvent};
use crate::event::TermEnd;

/// Records a door of the test's own, alive for a minute.
async fn record(store: &Arc<dyn Store>, id: &str, kind: DoorKind) {
    record_one_for(store, id, kind, "orders").await;
}

/// The same, of a door that serves this resource.
async fn record_one_for(store: &Arc<dyn Store>, id: &str, kind: DoorKind, resource: &str) {
    let minute = Duration::from_secs(60);
    let lease = store.grant(minute).await.expect("it can be granted").id;
    let record = DoorRecord {
        kind,
        mode: DoorMode::Enforce,
        address: String::new(),
        session: minute,
        quarantine: minute,
        closes: kind == DoorKind::Shared,
        by_time: true,
        serves: vec![resource.into()],
        left: false,
    };
    let name = DoorName { target: if kind == DoorKind::Shared { "orders" } else { id }.into(), id: id.into() };
    let joiner = Joiner { name, record, lease, mechanisms: Mechanisms::all() };
    let joined = join(store.as_ref(), &joiner, &mut Default::default(), &HostClock).await;
    assert!(matches!(joined, Ok(Joined::At { .. })), "{joined:?}");
}

pub(super) async fn put(store: &Arc<dyn Store>, key: &str, value: Vec<u8>) {
    let changes = vec![Change::Put { key: key.into(), value, lease: None }];
    store.commit(Txn { compares: Vec::new(), changes }).await.expect("it can be put");
}

/// What a door reports that has drained a term.
fn drained(term: &Term) -> Vec<u8> {
    to_value(&Report {
        floor: term.epoch,
        nonce: term.nonce,
        writer: term.writer.clone(),
        drained: Some(term.epoch),
        forced: None,
        regressed: false,
    })
}

fn covers(ranges: &[Range], keys: &Keys) -> bool {
    ranges.iter().any(|range| range.keys == *keys)
}

/// Hears nothing of door `hidden`. Before it hears that it was elected, door `seen` has drained its term, and it has read
/// that.
struct ElectedLate {
    store: Arc<dyn Store>,
    reported: Point,
    read: Point,
}

impl Between for ElectedLate {
    fn hides(&self, key: &str) -> bool {
        key.starts_with("doors/") && key.contains("hidden")
    }

    fn committed<'a>(&'a self, txn: &'a Txn, _: Committed) -> StoreFuture<'a, ()> {
        Box::pin(async {
            let leader = txn.changes.iter().find_map(|change| match change {
                Change::Put { key, value, .. } if key == "leaders/orders" => from_value::<LeaderRecord>(value),
                _ => None,
            });
            if let Some(leader) = leader {
                put(&self.store, "reports/orders/seen/seen", drained(&leader.term)).await;
                self.reported.reach();
                self.read.reached().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        })
    }

    fn read<'a>(&'a self, _: &'a [Range], read: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if read.ranges.iter().flatten().any(|entry| entry.key == "reports/orders/seen/seen") {
                self.read.reach();
            }
            Ok(())
        })
    }
}

/// Readings come only when the watch says so, or something asks for them.
fn reads_seldom(mut config: Config) -> Config {
    config.coordinator.verify_every = Duration::from_secs(3600);
    config
}

#[test]
fn a_term_arms_only_by_a_list_of_doors_from_after_its_election() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        record(&store, "seen", DoorKind::Sole).await;
        let led = elect(&store, "b").await;
        let (reported, read) = (Point::default(), Point::default());
        let late = Arc::new(ElectedLate { store: Arc::clone(&store), reported, read });
        let config = reads_seldom(config("a", folder.path(), vec![stamp()]));
        let mut process = Process::start_over(config, |store| Arc::new(Through(store, late)));
        let knows = |process: &Process| {
            process.standing.as_ref().is_some_and(|standing| standing.leaders.contains_key(&orders()))
        };
        process.play("it knows who leads", knows).await;
        record(&store, "hidden", DoorKind::Sole).await;
        crate::coordinator::election::resign(store.as_ref(), &orders(), &led).await.expect("it can be resigned");
        let tenure = |process: &Process| process.standing.as_ref()?.tenure(&orders()).map(|tenure| tenure.armed);
        process.play("elected", |process| tenure(process).is_some()).await;
        assert_eq!(tenure(&process), Some(Armed::No), "the hidden door has drained nothing");
        process.ended.abort();
    });
}

/// A key that says nothing to a guard.
const ANOTHER: &str = "candidates/orders/c";

/// Hears nothing of door `hidden`. The reading that shows epoch 2 is followed by one that shows no doors, and
/// that is handed over when the gate has drained.
struct LearnsInParts {
    events: OnceLock<Arc<Recorder>>,
    learns: Point,
    told: Point,
    doors: Point,
}

impl LearnsInParts {
    async fn drained(&self) {
        let is = |it: &crate::event::Recorded| matches!(it.event, Event::Drained { epoch, .. } if epoch.number() == 2);
        while !self.events.get().is_some_and(|events| events.all().iter().any(is)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Until that is in the floor file, and reported.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Between for LearnsInParts {
    fn hides(&self, key: &str) -> bool {
        key.starts_with("doors/") && key.contains("hidden")
    }

    fn says(&self) -> StoreFuture<'_, WatchEvent> {
        Box::pin(async {
            self.told.reached().await;
            Ok(WatchEvent::Changed(Changed { revision: Revision(1), keys: vec![ANOTHER.to_owned()] }))
        })
    }

    fn read<'a>(&'a self, ranges: &'a [Range], read: &'a Snapshot) -> StoreFuture<'a, ()> {
        Box::pin(async {
            let doors = covers(ranges, &Keys::Under("doors/".into()));
            let learns = read.ranges.iter().flatten().any(|entry| entry.key == "epochs/orders");
            if self.learns.is_reached() && learns && !doors {
                // The watch says something else at once: its reading is sent before anybody asks for the doors.
                self.told.reach();
            } else if covers(ranges, &Keys::One(ANOTHER.into())) && !doors {
                self.drained().await;
            // (On a busy machine the doors may be asked for before that reading; then it is no older one.)
            } else if self.told.is_reached() && doors {
                self.doors.reach();
            }
            Ok(())
        })
    }
}

pub(super) fn shared_guard() -> Arc<Listener> {
    let mut listener = Arc::unwrap_or_clone(guard());
    let Role::Guard(settings) = &mut listener.role else { panic!("it is one") };
    (settings.shared, settings.on_coordinator_loss) = (true, GuardLoss::Close);
    Arc::new(listener)
}

#[test]
fn a_shared_door_opens_only_by_a_list_of_doors_from_after_it_learned_of_the_epoch() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        elect(&store, "a").await;
        let late = Arc::new(LearnsInParts {
            events: OnceLock::new(),
            learns: Point::default(),
            told: Point::default(),
            doors: Point::default(),
        });
        let (config, seen) = (reads_seldom(config("g", folder.path(), vec![shared_guard()])), Arc::clone(&late));
        let mut door = Process::start_over(config, |store| Arc::new(Through(store, seen)));
        let _ = late.events.set(Arc::clone(&door.events));
        door.play("open", |process| process.gate.is_open()).await;
        record(&store, "hidden", DoorKind::Shared).await;
        late.learns.reach();
        let second = elect(&store, "a").await;
        play_all(&mut [&mut door], "the doors are read", |_| late.doors.is_reached()).await;
        door.play("it has learned of it", |process| process.gate.floor() == Some(second.epoch)).await;
        while let Ok(message) = door.from_control.try_recv() {
            door.play_one(message);
        }
        assert!(!door.gate.is_open(), "the hidden door has drained nothing");
        put(&store, "reports/orders/orders/hidden", drained(&second)).await;
        door.play("open again", |process| process.gate.is_open()).await;
        assert_eq!(door.gate.floor().map(Epoch::number), Some(2));
        door.ended.abort();
    });
}

#[test]
fn a_leader_gives_up_where_its_epoch_was_minted_once_more() {
    for key in ["epochs/orders", "reports/orders/orders/g"] {
        on_a_worker(async {
            let folder = tempfile::tempdir().expect("a folder");
            let mut process = Process::start(config("a", folder.path(), vec![guard(), stamp()]));
            process.play("armed", |process| process.armed().is_some()).await;
            let store = store(folder.path());
            let tenure = process.standing.as_ref().and_then(|standing| standing.tenure(&orders())).expect("it leads");
            let twin = Term { nonce: crate::fence::Nonce::from_bytes([9; 8]), ..tenure.term.clone() };
            let minted = crate::clock::Clock::wall(&HostClock);
            let record = crate::coordinator::records::EpochRecord { term: twin.clone(), doors: Revision(1), minted };
            put(&store, key, if key.starts_with("epochs") { to_value(&record) } else { drained(&twin) }).await;
            let overtaken =
                |it: &crate::event::Recorded| matches!(it.event, Event::TermEnded { why: TermEnd::Overtaken, .. });
            process.play("it gives up", |process| process.events.all().iter().any(overtaken)).await;
            process.ended.abort();
        });
    }
}

/// The first report of the door is lost after it was put, before any reading shows it: a coordinator that was restored.
struct LosesTheReport {
    store: Arc<dyn Store>,
    lost: Point,
}

impl Between for LosesTheReport {
    fn hides(&self, key: &str) -> bool {
        key.starts_with("reports/") && !self.lost.is_reached()
    }

    fn committed<'a>(&'a self, txn: &'a Txn, _: Committed) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let put = txn.changes.iter().find_map(|change| match change {
                Change::Put { key, .. } if key.starts_with("reports/") => Some(key.clone()),
                _ => None,
            });
            if let Some(key) = put.filter(|_| !self.lost.is_reached()) {
                self.store.commit(Txn { compares: Vec::new(), changes: vec![Change::Delete(key)] }).await?;
                self.lost.reach();
            }
            Ok(())
        })
    }

    /// Everything is to be read again, as after the restart of a coordinator.
    fn says(&self) -> StoreFuture<'_, WatchEvent> {
        Box::pin(async {
            self.lost.reached().await;
            Ok(WatchEvent::Gap)
        })
    }
}

#[test]
fn a_report_that_was_lost_before_it_was_seen_is_put_again() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let loses = Arc::new(LosesTheReport { store: store(folder.path()), lost: Point::default() });
        let config = config("a", folder.path(), vec![guard(), stamp()]);
        let between = Arc::clone(&loses);
        let mut process = Process::start_over(config, |store| Arc::new(Through(store, between)));
        process.play("its term is armed by the report", |process| process.armed().is_some()).await;
        assert!(loses.lost.is_reached());
        process.ended.abort();
    });
}

/// When a door's gate was opened for this epoch.
fn opened(process: &Process, number: u64) -> Option<Moment> {
    let is = |it: &crate::event::Recorded| matches!(it.event, Event::Opened { epoch, .. } if epoch.number() == number);
    process.events.all().into_iter().find(is).map(|it| it.at)
}

/// A session and a quarantine, in these tests.
const UNRECORDED: Duration = Duration::from_secs(4);

/// Shows a coordinator that has gone back for as long as the door has no record, and until then only.
#[derive(Default)]
struct BehindWhileAway {
    away: Point,
    behind: Point,
    shown: Point,
    back: OnceLock<Moment>,
}

impl Between for BehindWhileAway {
    fn shows(&self, read: Snapshot) -> Snapshot {
        let behind = self.behind.is_reached() && self.back.get().is_none();
        Snapshot { revision: if behind { Revision(1) } else { read.revision }, ..read }
    }

    fn read<'a>(&'a self, ranges: &'a [Range], read: &'a Snapshot) -> StoreFuture<'a, ()> {
        if read.revision == Revision(1) && covers(ranges, &Keys::Under(String::new())) {
            self.shown.reach();
        }
        Box::pin(async { Ok(()) })
    }

    fn commit<'a>(&'a self, txn: &'a Txn) -> StoreFuture<'a, ()> {
        Box::pin(async {
            if self.away.is_reached() && super::late::puts(txn, "doors/") {
                self.shown.reached().await;
                // Until it is handed over.
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.back.get_or_init(|| HostClock.now());
            }
            Ok(())
        })
    }
}

/// When it joins again, the revision is as high as it had ever seen: what was recorded since the backup is missing all
/// the same.
#[test]
fn a_shared_door_that_was_away_while_the_coordinator_went_back_waits_for_those_that_are_not_on_record() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        let first = elect(&store, "a").await;
        record(&store, "peer", DoorKind::Shared).await;
        put(&store, "reports/orders/orders/peer", drained(&first)).await;
        let (behind, config) = (Arc::new(BehindWhileAway::default()), config("g", folder.path(), vec![shared_guard()]));
        let between = Arc::clone(&behind);
        let mut door = Process::start_over(config, |store| Arc::new(Through(store, between)));
        door.play("open", |process| process.gate.is_open()).await;
        let doors = store.read(vec![Range::all(Keys::Under("doors/orders/g-".into()))]).await.expect("it answers");
        let lease = doors.ranges[0].iter().find_map(|entry| entry.lease).expect("the alive key goes with a lease");
        behind.away.reach();
        store.revoke(lease).await.expect("it can be revoked");
        door.play("shut", |process| !process.gate.is_open()).await;
        behind.behind.reach();
        play_all(&mut [&mut door], "it joins again", |_| behind.back.get().is_some()).await;
        let second = elect(&store, "a").await;
        put(&store, "reports/orders/orders/peer", drained(&second)).await;
        door.play("open again", |process| process.gate.is_open() && process.gate.floor() == Some(second.epoch)).await;
        let (back, at) = (*behind.back.get().expect("it is back"), opened(&door, 2).expect("it is open"));
        assert!(at.since(back) >= UNRECORDED, "it opened {:?} after it was back", at.since(back));
        door.ended.abort();
    });
}

/// One that serves something else is not waited for, and has waited for nobody while it is not heard of.
#[test]
fn a_door_of_another_resource_vouches_for_nothing_until_it_has_waited_itself() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        elect(&store, "a").await;
        record_one_for(&store, "peer", DoorKind::Shared, "jobs").await;
        let begun = HostClock.now();
        let mut door = Process::start(config("g", folder.path(), vec![shared_guard()]));
        door.play("open", |process| process.gate.is_open()).await;
        let at = opened(&door, 1).expect("it is open");
        assert!(at.since(begun) >= UNRECORDED, "it opened {:?} after its start", at.since(begun));
        door.ended.abort();
    });
}
