//! Which recorded doors a term has to wait for before it arms.

use super::older::put;
use super::*;
use crate::coordinator::records::{DoorKind, DoorMode, DoorRecord, to_value};
use crate::coordinator::store::{Change, Txn};

/// When the process armed its first term.
fn armed_at(process: &Process) -> Option<Moment> {
    let armed = |it: &crate::event::Recorded| matches!(it.event, Event::Armed { .. });
    process.events.all().into_iter().find(armed).map(|it| it.at)
}

/// A target that is no more: nobody joins before it, and so nobody clears the record away.
#[test]
fn a_door_that_has_left_for_good_is_waited_out_by_the_term_itself() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        let quarantine = Duration::from_secs(1);
        let record = DoorRecord {
            kind: DoorKind::Sole,
            mode: DoorMode::Enforce,
            address: String::new(),
            session: Duration::from_secs(2),
            quarantine,
            closes: false,
            by_time: true,
            serves: vec!["orders".into()],
            left: true,
        };
        put(&store, "doors/api/gone", to_value(&record)).await;
        let begun = HostClock.now();
        let mut process = Process::start(config("a", folder.path(), vec![guard(), stamp()]));
        process.play("armed", |process| process.armed().is_some()).await;
        let at = armed_at(&process).expect("it says so");
        assert!(at.since(begun) >= quarantine, "what it has forwarded may still land");
        process.ended.abort();
    });
}

/// A later version's record: nobody knows what it has drained.
#[test]
fn a_term_does_not_arm_beside_a_record_that_cannot_be_read() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        put(&store, "doors/api/elsewhere", br#"{"kind":"later","serves":["jobs","users/{0..7}"]}"#.to_vec()).await;
        put(&store, "doors/api/later", br#"{"kind":"later","serves":["orders"]}"#.to_vec()).await;
        let mut process = Process::start(config("a", folder.path(), vec![guard(), stamp()]));
        process.play("open", |process| process.gate.is_open()).await;
        // The term would arm by the reading that shows the door's report, and each one shows the doors.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            assert_eq!(process.armed(), None, "one door was not asked");
            while let Ok(message) = process.from_control.try_recv() {
                process.play_one(message);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let changes = vec![Change::Delete("doors/api/later".into())];
        store.commit(Txn { compares: Vec::new(), changes }).await.expect("it can be deleted");
        process.play("armed", |process| process.armed().is_some()).await;
        process.ended.abort();
    });
}
