//! A door that only counts: what it says, and what it leaves to the one that enforces after it.

use super::*;
use crate::coordinator::records::{Report, from_value};
use crate::coordinator::store::Range;

fn audit_guard() -> Arc<Listener> {
    let mut listener = Arc::unwrap_or_clone(guard());
    let Role::Guard(settings) = &mut listener.role else { panic!("it is one") };
    settings.mode = Mode::Audit;
    Arc::new(listener)
}

/// What it forwards of older epochs after that is in no proof.
#[test]
fn a_door_that_only_counts_reports_no_drain() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path());
        late::elect(&store, "a").await;
        let mut door = Process::start(config("g", folder.path(), vec![audit_guard()]));
        door.play("open", |process| process.gate.is_open()).await;
        let reports = || async {
            let read = store.read(vec![Range::all(Keys::Under("reports/".into()))]).await.expect("it answers");
            read.ranges[0].iter().filter_map(|entry| from_value::<Report>(&entry.value)).collect::<Vec<_>>()
        };
        let begun = std::time::Instant::now();
        while reports().await.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "it has reported nothing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(reports().await[0].drained, None);
        door.ended.abort();
    });
}

/// It forwards from its start on, also where nobody was ever elected.
#[test]
fn a_door_that_only_counted_leaves_residue_though_it_never_knew_an_epoch() {
    on_a_worker(async {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config("g", folder.path(), vec![audit_guard()]);
        let mut door = Process::start(config.clone());
        let up = |it: &crate::event::Recorded| matches!(it.event, Event::CoordinatorUp { .. });
        door.play("it works", |process| process.events.all().iter().any(up)).await;
        door.ended.abort();
        let left = remembered(&config).await.of("orders", &orders());
        assert!(left.floor.is_none() && left.has_residue(false), "{left:?}");
    });
}
