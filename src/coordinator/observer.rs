//! Keeps a view of everything under the prefix: read linearizably, hurried by a watch.
//!
//! The watch only says where to look. What is acted on comes from a linearizable read that was sent after the change,
//! and a reading in which the store's revision went back is a whole one, so that nothing old is left in the view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::keys;
use super::store::{Entry, Keys, Range, Revision, Snapshot, Store, StoreError, Watch, WatchEvent};
use crate::clock::Entropy;
use crate::fence::Moment;

/// What the observer reports.
#[derive(Clone, Debug)]
pub enum Observed {
    /// A linearizable reading.
    Read(Reading),
    /// The coordinator did not answer.
    Failed(StoreError),
}

/// One linearizable reading.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The store's revision.
    pub revision: Revision,
    /// When it was sent.
    pub sent: Moment,
    /// What it covers: of these keys, exactly `entries` exist.
    pub covers: Vec<Keys>,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Entries put since the last reading, of keys that are never deleted; says nothing of others.
    pub updates: Vec<Entry>,
    /// The number of the last [`Look`] that was received before the reading was sent.
    pub looked: u64,
}

/// A request for a reading that is sent after it: answered by a [`Reading`] with `looked` at least this number.
#[derive(Clone, Debug)]
pub struct Look(pub u64, pub Vec<Keys>);

/// How often the observer reads without being told to.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The epochs and the doors.
    pub verify_every: Duration,
    /// Everything.
    pub refresh_every: Duration,
}

/// More keys than this in one reading, and everything is read instead: etcd limits a transaction to 128 operations.
const MOST_KEYS: usize = 60;

/// What the observer is to read next.
#[derive(Default)]
struct Due {
    everything: bool,
    verify: bool,
    keys: BTreeSet<String>,
    ranges: Vec<Keys>,
}

impl Due {
    fn is_something(&self) -> bool {
        self.everything || self.verify || !self.keys.is_empty() || !self.ranges.is_empty()
    }
}

/// Observes until `observed` is closed.
pub async fn observe(
    store: Arc<dyn Store>,
    entropy: Arc<dyn Entropy>,
    pace: Pace,
    mut looks: mpsc::UnboundedReceiver<Look>,
    observed: mpsc::UnboundedSender<Observed>,
) {
    let mut observer = Observer { store, last: Revision(0), watch: None, looked: 0, refresh_at: Instant::now() };
    let mut due = Due { everything: true, ..Due::default() };
    let mut failures = 0_u32;
    let mut verify = tokio::time::interval(pace.verify_every);
    verify.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        observer.collect(&mut looks, &mut due);
        if due.is_something() {
            match observer.read(&due).await {
                Ok(reading) => {
                    failures = 0;
                    if due.everything {
                        observer.refresh_at = Instant::now() + pace.refresh_every;
                    }
                    due = Due::default();
                    if observed.send(Observed::Read(reading)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if observed.send(Observed::Failed(error)).is_err() {
                        return;
                    }
                    failures += 1;
                    tokio::time::sleep(backoff(failures, entropy.as_ref())).await;
                    continue;
                }
            }
        }
        // In this order nothing is starved: a tick comes once in its time; the looks that wait are collected before every
        // reading, whatever led to it; and where `observed` is closed, the next reading finds that out too. A choice at
        // random would be no fairer, and the simulation could not be repeated.
        tokio::select! {
            biased;
            _ = verify.tick() => {
                due.verify = true;
                due.everything |= Instant::now() >= observer.refresh_at;
            }
            event = observer.changed() => match event {
                WatchEvent::Changed(changed) => due.keys.extend(changed.keys),
                WatchEvent::Gap => due.everything = true,
            },
            look = looks.recv() => match look {
                Some(Look(number, ranges)) => {
                    observer.looked = observer.looked.max(number);
                    due.ranges.extend(ranges);
                    due.verify = true;
                }
                None => return,
            },
            () = observed.closed() => return,
        }
    }
}

/// 50 ms after the first failure, doubling to a second, with jitter, so that many processes don't come back at once.
fn backoff(failures: u32, entropy: &dyn Entropy) -> Duration {
    let base = Duration::from_millis(50) * 2_u32.pow(failures.clamp(1, 5) - 1);
    base.min(Duration::from_secs(1)).mul_f64(0.5 + entropy.fraction() / 2.0)
}

struct Observer {
    store: Arc<dyn Store>,
    last: Revision,
    watch: Option<Box<dyn Watch>>,
    looked: u64,
    refresh_at: Instant,
}

impl Observer {
    /// Takes in every look that waits, so that one reading answers them all.
    fn collect(&mut self, looks: &mut mpsc::UnboundedReceiver<Look>, due: &mut Due) {
        while let Ok(Look(number, ranges)) = looks.try_recv() {
            self.looked = self.looked.max(number);
            due.ranges.extend(ranges);
            due.verify = true;
        }
    }

    async fn changed(&mut self) -> WatchEvent {
        match &mut self.watch {
            Some(watch) => watch.next().await,
            None => std::future::pending().await,
        }
    }

    async fn read(&mut self, due: &Due) -> Result<Reading, StoreError> {
        let many = due.keys.len() + due.ranges.len() > MOST_KEYS;
        if due.everything || many {
            return self.read_everything().await;
        }
        let mut covers: Vec<Keys> = due.ranges.clone();
        covers.extend(due.keys.iter().cloned().map(Keys::One));
        let mut ranges: Vec<Range> = covers.iter().cloned().map(Range::all).collect();
        if due.verify {
            covers.push(Keys::Under(keys::DOORS.to_owned()));
            ranges.push(Range::all(Keys::Under(keys::DOORS.to_owned())));
        }
        let epochs = ranges.len();
        ranges.push(Range { keys: Keys::Under(keys::EPOCHS.to_owned()), since: Revision(self.last.0 + 1) });
        let looked = self.looked;
        let mut read = self.store.read(ranges).await?;
        if read.revision < self.last {
            return self.read_everything().await;
        }
        let updates = read.ranges.split_off(epochs).into_iter().flatten().collect();
        Ok(self.reading(read, covers, updates, looked))
    }

    async fn read_everything(&mut self) -> Result<Reading, StoreError> {
        let everything = Keys::Under(String::new());
        let looked = self.looked;
        let read = self.store.read(vec![Range::all(everything.clone())]).await?;
        if self.watch.is_none() || read.revision < self.last {
            self.watch = Some(self.store.watch(read.revision));
        }
        Ok(self.reading(read, vec![everything], Vec::new(), looked))
    }

    fn reading(&mut self, read: Snapshot, covers: Vec<Keys>, updates: Vec<Entry>, looked: u64) -> Reading {
        self.last = read.revision;
        let entries = read.ranges.into_iter().flatten().collect();
        Reading { revision: read.revision, sent: read.sent, covers, entries, updates, looked }
    }
}

/// What is known of the coordinator's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    entries: BTreeMap<String, Entry>,
    /// The revision of the last reading.
    pub revision: Revision,
}

impl View {
    /// Takes a reading in and returns the keys that are different now, gone ones included.
    pub fn take(&mut self, reading: Reading) -> BTreeSet<String> {
        self.revision = reading.revision;
        let mut changed = BTreeSet::new();
        let covered = |key: &str| reading.covers.iter().any(|keys| keys.contain(key));
        let read: BTreeSet<String> = reading.entries.iter().map(|entry| entry.key.clone()).collect();
        let gone: Vec<String> =
            self.entries.keys().filter(|key| !read.contains(*key) && covered(key)).cloned().collect();
        for key in gone {
            self.entries.remove(&key);
            changed.insert(key);
        }
        for entry in reading.entries.into_iter().chain(reading.updates) {
            if self.entries.get(&entry.key) != Some(&entry) {
                changed.insert(entry.key.clone());
                self.entries.insert(entry.key.clone(), entry);
            }
        }
        changed
    }

    /// One entry.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All entries under a prefix.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> + Clone + 'a {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry)
    }

    /// The record under a key.
    pub fn record<T: for<'a> serde::Deserialize<'a>>(&self, key: &str) -> Option<T> {
        super::records::from_value(&self.entries.get(key)?.value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::store::{Changed, Committed, Lease, LeaseId, StoreFuture, Txn};
    use super::*;
    use crate::clock::HostEntropy;

    /// A store that holds what the test says, and a watch that says what the test says.
    struct Told {
        holds: Mutex<(Revision, Vec<Entry>)>,
        watch: Mutex<Option<mpsc::UnboundedReceiver<WatchEvent>>>,
    }

    struct ToldWatch(mpsc::UnboundedReceiver<WatchEvent>);

    impl Watch for ToldWatch {
        fn next(&mut self) -> std::pin::Pin<Box<dyn Future<Output = WatchEvent> + Send + '_>> {
            Box::pin(async { self.0.recv().await.expect("the test ends first") })
        }
    }

    impl Store for Told {
        fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot> {
            Box::pin(async move {
                let (revision, entries) = self.holds.lock().expect("no test panics here").clone();
                let one = |range: &Range| {
                    let is = |entry: &&Entry| range.keys.contain(&entry.key) && entry.modified >= range.since;
                    entries.iter().filter(is).cloned().collect()
                };
                Ok(Snapshot { revision, ranges: ranges.iter().map(one).collect(), sent: Moment::default() })
            })
        }

        fn watch(&self, _: Revision) -> Box<dyn Watch> {
            let kept = self.watch.lock().expect("no test panics here").take();
            Box::new(ToldWatch(kept.unwrap_or_else(|| mpsc::unbounded_channel().1)))
        }

        fn commit(&self, _: Txn) -> StoreFuture<'_, Committed> {
            unreachable!("an observer only reads")
        }

        fn grant(&self, _: Duration) -> StoreFuture<'_, Lease> {
            unreachable!("an observer only reads")
        }

        fn keep_alive(&self, _: LeaseId) -> StoreFuture<'_, Lease> {
            unreachable!("an observer only reads")
        }

        fn revoke(&self, _: LeaseId) -> StoreFuture<'_, ()> {
            unreachable!("an observer only reads")
        }

        fn kind(&self) -> &'static str {
            "a test's"
        }

        fn endpoint(&self) -> String {
            String::new()
        }
    }

    fn entry(key: &str, at: u64) -> Entry {
        Entry { key: key.into(), value: Vec::new(), created: Revision(at), modified: Revision(at), lease: None }
    }

    /// An observer that reads only when it is told to, and has read what there is at revision 10: one leader.
    struct World {
        store: Arc<Told>,
        watch: mpsc::UnboundedSender<WatchEvent>,
        looks: mpsc::UnboundedSender<Look>,
        observed: mpsc::UnboundedReceiver<Observed>,
        view: View,
    }

    impl World {
        async fn start() -> World {
            let ((watch, watched), (looks, look)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
            let (observe_to, observed) = mpsc::unbounded_channel();
            let holds = Mutex::new((Revision(10), vec![entry("leaders/orders", 10)]));
            let store = Arc::new(Told { holds, watch: Mutex::new(Some(watched)) });
            let hour = Duration::from_secs(3600);
            let pace = Pace { verify_every: hour, refresh_every: hour };
            let seen = Arc::clone(&store) as Arc<dyn Store>;
            tokio::spawn(observe(seen, Arc::new(HostEntropy), pace, look, observe_to));
            let mut world = World { store, watch, looks, observed, view: View::default() };
            world.until(|view| view.get("leaders/orders").is_some()).await;
            world
        }

        fn holds(&self, revision: u64, entries: Vec<Entry>) {
            *self.store.holds.lock().expect("no test panics here") = (Revision(revision), entries);
        }

        /// Takes readings in until the view is so.
        async fn until(&mut self, is_so: impl Fn(&View) -> bool) {
            let taken = async {
                while !is_so(&self.view) {
                    match self.observed.recv().await {
                        Some(Observed::Read(reading)) => drop(self.view.take(reading)),
                        other => panic!("{other:?}"),
                    }
                }
            };
            let limit = Duration::from_secs(20);
            assert!(tokio::time::timeout(limit, taken).await.is_ok(), "no reading showed it: {:?}", self.view);
        }
    }

    #[tokio::test]
    async fn what_the_watch_announces_is_read() {
        let mut world = World::start().await;
        world.holds(11, vec![entry("leaders/orders", 10), entry("epochs/orders", 11)]);
        let changed = Changed { revision: Revision(11), keys: vec!["epochs/orders".into()] };
        world.watch.send(WatchEvent::Changed(changed)).expect("it observes");
        world.until(|view| view.get("epochs/orders").is_some()).await;
    }

    #[tokio::test]
    async fn of_a_store_that_went_back_nothing_old_is_left_in_the_view() {
        let mut world = World::start().await;
        world.holds(4, Vec::new());
        world.looks.send(Look(1, vec![Keys::One("epochs/orders".into())])).expect("it observes");
        world.until(|view| view.revision == Revision(4)).await;
        assert_eq!(world.view.get("leaders/orders"), None);
    }
}
