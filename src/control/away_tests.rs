//! Control whose coordinator never answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::tests::{config, guard, orders, stamp};
use super::*;
use crate::clock::HostEntropy;
use crate::coordinator::store::{LeaseId, Range, Revision, Snapshot, StoreFuture, Txn, Watch};
use crate::mailbox::GateName;

struct Away;

fn no_answer<T: Send + 'static>() -> StoreFuture<'static, T> {
    Box::pin(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(StoreError::Unreachable("nobody is there".to_owned()))
    })
}

impl Store for Away {
    fn read(&self, _: Vec<Range>) -> StoreFuture<'_, Snapshot> {
        no_answer()
    }

    fn commit(&self, _: Txn) -> StoreFuture<'_, Committed> {
        no_answer()
    }

    fn watch(&self, _: Revision) -> Box<dyn Watch> {
        unreachable!("nothing was ever read")
    }

    fn grant(&self, _: Duration) -> StoreFuture<'_, Lease> {
        no_answer()
    }

    fn keep_alive(&self, _: LeaseId) -> StoreFuture<'_, Lease> {
        no_answer()
    }

    fn revoke(&self, _: LeaseId) -> StoreFuture<'_, ()> {
        no_answer()
    }

    fn kind(&self) -> &'static str {
        "away"
    }

    fn endpoint(&self) -> String {
        "nowhere".to_owned()
    }
}

/// Counts how often it is looked at. Time stands still while somebody is busy, so a count that never ends would hang.
struct Counting(tokio::time::Instant, AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Moment {
        let looks = self.1.fetch_add(1, Ordering::Relaxed);
        assert!(looks < 100_000, "control keeps itself busy");
        Moment::from_nanos(0).plus(self.0.elapsed())
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_coordinator_without_keeping_busy() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config("a", folder.path(), vec![guard(), stamp()]);
    let clock = Arc::new(Counting(tokio::time::Instant::now(), AtomicU64::new(0)));
    let metrics = crate::metrics::Metrics::new(prometheus::Registry::new(), &config).expect("a new registry");
    let (handle, calls) = Handle::new(Arc::new(Away), Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(|_| {}));
    let (_to_control, from_workers) = mpsc::unbounded_channel();
    let (worker, _from_control) = mpsc::unbounded_channel();
    let setup = Setup {
        provers: Vec::new(),
        gates: vec![GateName { target: "orders".into(), resource: orders(), listener: "orders-guard".into() }],
        config: Arc::new(config),
        store: Arc::new(Away),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        entropy: Arc::new(HostEntropy),
        mechanisms: Mechanisms::all(),
        events: EventSink::nowhere(),
        metrics: Arc::new(metrics),
        memory: crate::fence::floor::Memory::default(),
        door: Some("a-00000000".into()),
        floors: None,
        addresses: Vec::new(),
        workers: vec![worker],
        from_workers,
        calls,
    };
    let minute = Duration::from_secs(60);
    let running = tokio::task::LocalSet::new();
    let ran = running.run_until(tokio::time::timeout(minute, run(setup))).await;
    // The pings are not answered here: it may give the worker up, but it does not spin.
    assert!(matches!(ran, Err(_) | Ok(Ended::WorkerLost(_))), "{ran:?}");
    let looks = clock.1.load(Ordering::Relaxed);
    assert!(looks < 20_000, "{looks} looks at the clock in a minute without a coordinator");
    drop(handle);
}
