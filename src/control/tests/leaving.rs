//! An orderly stop: what the floor file and the door's record say after it.

use super::*;
use crate::coordinator::store::Range;

/// Runs a door until it is open, and stops it in order.
async fn open_and_stop(config: &Config, unclean: bool) {
    let mut process = Process::start(config.clone());
    process.play("open", |process| process.gate.is_open()).await;
    process.unclean = unclean;
    process.handle.stop();
    process.play("stopped", |process| process.ended.is_finished()).await;
    assert_eq!(process.ended.await.expect("no panic"), Ended::Stopped);
}

/// The records of the doors, as the coordinator has them.
async fn records(folder: &Path) -> Vec<crate::coordinator::doors::Door> {
    let doors = store(folder).read(vec![Range::all(Keys::Under("doors/".into()))]).await.expect("it can be read");
    crate::coordinator::doors::among(doors.ranges.iter().flatten())
}

#[test]
fn a_door_that_has_left_says_so_in_both_slots() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config("g", folder.path(), vec![guard()]);
        late::elect(&store(folder.path()), "a").await;
        open_and_stop(&config, false).await;
        assert!(records(folder.path()).await.is_empty(), "its ledger was empty: its record is gone");
        let file = config.state_dir.join("floors");
        let written = std::fs::read(&file).expect("it is there");
        for slot in 0..2 {
            let half = written.len() / 2;
            let mut damaged = written.clone();
            damaged[slot * half..][..half].fill(0);
            std::fs::write(&file, damaged).expect("it is the test's own");
            let left = remembered(&config).await.left;
            assert!(left.contains("orders"), "without slot {slot} it would start as if its record stood");
        }
    });
}

#[test]
fn a_door_that_stops_with_a_lost_write_is_not_clean_and_its_record_says_left() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config("g", folder.path(), vec![guard()]);
        late::elect(&store(folder.path()), "a").await;
        open_and_stop(&config, true).await;
        assert!(!remembered(&config).await.of("orders", &orders()).clean);
        let doors = records(folder.path()).await;
        assert!(matches!(doors.as_slice(), [door] if door.record.left && !door.alive), "{doors:?}");
    });
}

#[test]
fn a_door_that_stops_while_its_predecessors_writes_may_land_is_not_clean() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config("g", folder.path(), vec![guard()]);
        let settings = config.resources.get_mut(&orders()).map(Arc::make_mut).expect("it is there");
        settings.drain.quarantine = Duration::from_secs(600);
        late::elect(&store(folder.path()), "a").await;
        let mut killed = Process::start(config.clone());
        killed.play("open", |process| process.gate.is_open()).await;
        killed.ended.abort();
        // Its file's thread ends with it; only then can the next start.
        remembered(&config).await;
        open_and_stop(&config, false).await;
        assert!(!remembered(&config).await.of("orders", &orders()).clean);
    });
}
