//! What the status tells people of a target that is taken, and of elections that stand still.

use super::older::shared_guard;
use super::*;
use crate::admin::Status;
use crate::admin::status::State;
use crate::coordinator::records::{Report, to_value};
use crate::coordinator::store::{Change, Txn};

/// Asks the first of the processes until it tells what is wanted.
async fn told(processes: &mut [&mut Process], what: &str, wanted: impl Fn(&Status) -> bool) -> Arc<Status> {
    let begun = std::time::Instant::now();
    loop {
        let handle = processes[0].handle.clone();
        let asked = tokio::task::spawn_local(async move { crate::admin::Control::status(&handle).await });
        play_all(processes, "it answers", |_| asked.is_finished()).await;
        let status = asked.await.expect("no panic");
        if wanted(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {status:#?}");
    }
}

#[test]
fn a_sole_door_beside_living_shared_ones_is_told_to_be_shared_and_not_to_forget_them() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut shared = Process::start(config("g1", folder.path(), vec![shared_guard()]));
        let recorded = |status: &Status| status.resources[0].doors.iter().any(|door| door.alive);
        told(&mut [&mut shared], "it has joined", recorded).await;
        let mut sole = Process::start(config("g2", folder.path(), vec![guard()]));
        let waits = |status: &Status| status.resources[0].gate.as_ref().and_then(|gate| gate.waits_for.clone());
        let blocked = |status: &Status| waits(status).is_some_and(|words| words.contains("door g1-"));
        let status = told(&mut [&mut sole, &mut shared], "it is blocked", blocked).await;
        let words = waits(&status).expect("it waits");
        assert!(words.contains("`doors: shared`") && !words.contains("forget"), "{words}");
    });
}

#[test]
fn elections_that_a_floor_beyond_belief_stops_are_told_everywhere_with_the_way_out() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let floor = Epoch::new(9_000_000).expect("in range");
        let report = Report {
            floor,
            nonce: crate::fence::Nonce::from_bytes([7; 8]),
            writer: "a".parse().expect("an id"),
            drained: None,
            forced: None,
            regressed: false,
        };
        let key = crate::coordinator::keys::report(&orders(), "db", "ghost-00000000");
        let changes = vec![Change::Put { key: key.clone(), value: to_value(&report), lease: None }];
        let put = store(folder.path()).commit(Txn { compares: Vec::new(), changes }).await;
        put.expect("the store is there");
        let mut door = Process::start(config("g", folder.path(), vec![guard()]));
        let mut writer = Process::start(config("a", folder.path(), vec![stamp()]));
        let stopped = |status: &Status| status.resources[0].election_stopped.clone();
        for _ in 0..2 {
            let status = told(&mut [&mut door, &mut writer], "it says so", |status| stopped(status).is_some()).await;
            let words = stopped(&status).expect("it says so");
            let way_out = "`epochgate rebase --resource orders --to 9000000`";
            // The door, which has taken that floor for its own, may have reported it by now too.
            let named =
                [&key, "reports/orders/orders/g-"].iter().any(|key| words.contains(&format!("/epochgate/v1/{key}")));
            assert!(words.contains(way_out) && named, "{words}");
            assert_eq!(status.resources[0].state, State::Vacant);
            std::mem::swap(&mut door, &mut writer);
        }
    });
}

#[test]
fn nothing_is_called_proven_at_a_listener_that_only_counts() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut listener = Arc::unwrap_or_clone(guard());
        let Role::Guard(settings) = &mut listener.role else { panic!("it is one") };
        settings.mode = Mode::Audit;
        let mut audit = Process::start(config("g", folder.path(), vec![Arc::new(listener)]));
        let status = told(&mut [&mut audit], "it answers", |_| true).await;
        assert_eq!(status.listeners[0].level.as_deref(), Some("not_proven"));
    });
}
