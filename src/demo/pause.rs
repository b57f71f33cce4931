//! A pause of a writer: its host stops, and goes on later as if nothing had been.
//!
//! In one process nothing can be stopped from outside, so a pause is made of two halves: the writer's shop does nothing,
//! and no word passes between its sidecar and the coordinator.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::coordinator::store::{
    Committed, Lease, LeaseId, Range, Revision, Snapshot, Store, StoreFuture, Txn, Watch, WatchEvent,
};

/// Whether a writer stands still. Clones are the same pause.
#[derive(Clone, Debug)]
pub struct Pause(Arc<watch::Sender<bool>>);

impl Pause {
    /// A writer that runs.
    pub fn new() -> Pause {
        Pause(Arc::new(watch::Sender::new(false)))
    }

    /// Stops the writer, until it is resumed.
    pub fn pause(&self) {
        self.0.send_replace(true);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.0.send_replace(false);
    }

    /// Whether it stands still.
    #[cfg(test)]
    pub fn is_paused(&self) -> bool {
        *self.0.borrow()
    }

    /// Where the writer would do something: returns at once while it runs, else when it goes on. Cancel-safe.
    pub async fn wait(&self) {
        self.0.subscribe().wait_for(|paused| !paused).await.expect("the sender lives as long as self");
    }
}

/// A store that a paused writer neither asks nor hears.
pub struct PausedStore {
    inner: Arc<dyn Store>,
    pause: Pause,
}

impl PausedStore {
    /// The same store, for one writer.
    pub fn over(inner: Arc<dyn Store>, pause: Pause) -> Arc<dyn Store> {
        Arc::new(PausedStore { inner, pause })
    }

    /// A call that is neither sent nor answered during a pause.
    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn Store) -> StoreFuture<'a, T> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            self.pause.wait().await;
            let answer = call(self.inner.as_ref()).await;
            self.pause.wait().await;
            answer
        })
    }
}

impl Store for PausedStore {
    fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot> {
        self.call(|store| store.read(ranges))
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Committed> {
        self.call(|store| store.commit(txn))
    }

    fn watch(&self, after: Revision) -> Box<dyn Watch> {
        Box::new(PausedWatch { inner: self.inner.watch(after), pause: self.pause.clone(), heard: None })
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        self.call(move |store| store.grant(ttl))
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, Lease> {
        self.call(move |store| store.keep_alive(lease))
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.call(move |store| store.revoke(lease))
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn endpoint(&self) -> String {
        self.inner.endpoint()
    }
}

struct PausedWatch {
    inner: Box<dyn Watch>,
    pause: Pause,
    /// What came during a pause, kept for when the call is made again: `next` is cancel-safe.
    heard: Option<WatchEvent>,
}

impl Watch for PausedWatch {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = WatchEvent> + Send + '_>> {
        Box::pin(async move {
            self.pause.wait().await;
            if self.heard.is_none() {
                self.heard = Some(self.inner.next().await);
            }
            self.pause.wait().await;
            self.heard.take().expect("just filled, and nobody else holds self")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{HostClock, HostEntropy};
    use crate::coordinator::embedded::Embedded;
    use crate::coordinator::store::{Change, Keys};

    #[tokio::test]
    async fn a_paused_writer_neither_asks_nor_hears() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Embedded::open(&folder.path().join("epochs"), Arc::new(HostClock), Arc::new(HostEntropy));
        let (other, pause) = (open().expect("a store"), Pause::new());
        let paused = PausedStore::over(open().expect("a store"), pause.clone());
        let put = |key: &str| Txn {
            compares: Vec::new(),
            changes: vec![Change::Put { key: key.into(), value: b"{}".to_vec(), lease: None }],
        };
        let keys = || vec![Range::all(Keys::Under(String::new()))];
        paused.commit(put("a")).await.expect("it runs");
        let mut watch = paused.watch(Revision(0));
        assert_eq!(paused.kind(), "embedded");

        pause.pause();
        let committing = paused.commit(put("b"));
        let hearing = watch.next();
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, hearing).await.is_err(), "it heard of something");
        assert!(tokio::time::timeout(soon, committing).await.is_err(), "it was answered");
        let seen = other.read(keys()).await.expect("the other one runs");
        assert_eq!(seen.ranges[0].len(), 1, "nothing was sent");

        pause.resume();
        watch.next().await;
        assert_eq!(paused.read(keys()).await.expect("it runs again").ranges[0].len(), 1);
    }
}
