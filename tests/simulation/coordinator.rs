//! The coordinator: the store as a value ([`State`]), behind a link, with everything that a coordinator may do short of
//! breaking its promise.
//!
//! Reads and commits are decided at one moment, in one order. Around that everything is open: a request is lost or comes
//! late, an answer is lost, leases lapse early or late, a watch is late, repeats itself, or leaves something out.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use epochgate::clock::Clock;
use epochgate::coordinator::embedded::state::{Decision, State};
use epochgate::coordinator::keys::{self, Key};
use epochgate::coordinator::records::{EpochRecord, LeaderRecord, from_value};
use epochgate::coordinator::store::{
    Changed, Committed, Keys, Lease, LeaseId, Range, Revision, Snapshot, Store, StoreError, StoreFuture, Txn, Watch,
    WatchEvent,
};
use epochgate::fence::{Moment, Term};
use epochgate::verify::Outside;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::agenda::Agenda;
use crate::dice::Dice;
use crate::network::{Host, Network};
use crate::record::Record;

/// The one boot of its machine.
const BOOT: &str = "boot";
/// A watch tries again after so long where its link is cut.
const WATCH_AGAIN: Duration = Duration::from_millis(300);

/// What goes wrong at present: how many faults want it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    /// It has no quorum.
    pub no_quorum: u32,
    /// Requests take long: longer than who asks will wait, at times.
    pub slow: u32,
    /// Answers get lost.
    pub unclear: u32,
    /// Watches are late, repeat themselves, leave something out.
    pub watch: u32,
}

/// The coordinator. Clones share it.
#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Mutex<Inner>>,
    network: Network,
    agenda: Agenda,
    record: Record,
    name: Arc<str>,
}

struct Inner {
    state: State,
    dice: Dice,
    origin: Instant,
    watchers: Vec<Watcher>,
    changes: VecDeque<Changed>,
    backups: Vec<State>,
    troubles: Troubles,
    reaping: Option<Instant>,
}

struct Watcher {
    host: Host,
    events: mpsc::UnboundedSender<WatchEvent>,
    last: Instant,
}

/// The store when it is new.
fn empty() -> State {
    State { revision: 1, boot: BOOT.to_owned(), ..State::default() }
}

impl Coordinator {
    pub fn new(dice: Dice, network: &Network, agenda: &Agenda, record: &Record) -> Coordinator {
        let inner = Inner {
            state: empty(),
            dice,
            origin: Instant::now(),
            watchers: Vec::new(),
            changes: VecDeque::new(),
            backups: Vec::new(),
            troubles: Troubles::default(),
            reaping: None,
        };
        Coordinator {
            inner: Arc::new(Mutex::new(inner)),
            network: network.clone(),
            agenda: agenda.clone(),
            record: record.clone(),
            name: Host::Coordinator.to_string().into(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store as a process on `host` has it.
    pub fn store(&self, host: Host, clock: Arc<dyn Clock>, limit: Duration) -> Arc<dyn Store> {
        Arc::new(Access { coordinator: self.clone(), host, clock, limit })
    }

    // ---- what faults do -----------------------------------------------------------------------------------------

    /// Changes what goes wrong.
    pub fn trouble(&self, change: impl FnOnce(&mut Troubles)) {
        let mut inner = self.inner();
        let before = inner.troubles.no_quorum;
        change(&mut inner.troubles);
        if before > 0 && inner.troubles.no_quorum == 0 {
            // A new leader of the cluster gives every lease its whole time again; or does not.
            if inner.dice.percent(70) {
                inner.extend_leases();
            }
            self.reap_in_time(&mut inner);
        }
    }

    /// Ends a lease before its time.
    pub fn lapse_one(&self) -> bool {
        let mut inner = self.inner();
        let leases: Vec<i64> = inner.state.leases.keys().copied().collect();
        if leases.is_empty() {
            return false;
        }
        let lease = *inner.dice.pick(&leases);
        if let Decision::Next(next, ()) = inner.state.revoke(lease) {
            self.becomes(&mut inner, next);
        }
        true
    }

    /// Ends the lease that a resource's leader has, before its time.
    pub fn lapse_leader(&self) -> bool {
        let mut inner = self.inner();
        let holds = |key: &String| matches!(keys::parse(key), Some(Key::Leader(_)));
        let Some(lease) = inner.state.keys.iter().find(|(key, _)| holds(key)).and_then(|(_, key)| key.lease) else {
            return false;
        };
        if let Decision::Next(next, ()) = inner.state.revoke(lease) {
            self.becomes(&mut inner, next);
        }
        true
    }

    /// Keeps what it holds now, to be restored.
    pub fn back_up(&self) {
        let mut inner = self.inner();
        let state = inner.state.clone();
        inner.backups.push(state);
    }

    /// Loses everything.
    pub fn wipe(&self) {
        self.falls_back(&mut self.inner(), empty());
    }

    /// Goes back to what was kept; `false` where nothing was.
    pub fn restore(&self) -> bool {
        let mut inner = self.inner();
        let length = inner.backups.len();
        if length == 0 {
            return false;
        }
        let at = inner.dice.index(length);
        let backup = inner.backups[at].clone();
        self.falls_back(&mut inner, backup);
        true
    }

    fn falls_back(&self, inner: &mut Inner, state: State) {
        self.record.saw(&self.name, Outside::Rewound);
        inner.state = state;
        inner.extend_leases();
        inner.changes.clear();
        for number in 0..inner.watchers.len() {
            if inner.dice.percent(70) {
                self.tell(inner, number, WatchEvent::Gap);
            }
        }
        self.reap_in_time(inner);
    }

    /// Puts on record what it holds.
    pub fn note_all(&self) {
        let inner = self.inner();
        self.record.note(&self.name, format!("holds revision {}", inner.state.revision));
        for entry in inner.state.read(&[Range::all(Keys::Under(String::new()))]).into_iter().flatten() {
            let (key, value) = (entry.key, String::from_utf8_lossy(&entry.value).into_owned());
            let Revision(modified) = entry.modified;
            self.record.note(&self.name, format!("holds {key} at {modified}: {value}"));
        }
    }

    /// The term of a resource's leader at present.
    pub fn leader(&self, resource: &str) -> Option<Term> {
        let resource = resource.parse().ok()?;
        let read = self.inner().state.read(&[Range::all(Keys::One(keys::leader(&resource)))]);
        let leader: LeaderRecord = from_value(&read.first()?.first()?.value)?;
        Some(leader.term)
    }

    /// The ids of the doors before a target that are on record, as `doors list` shows them.
    pub fn doors(&self, target: &str) -> Vec<String> {
        let under = keys::doors(target);
        let read = self.inner().state.read(&[Range::all(Keys::Under(under.clone()))]);
        let ids = read.iter().flatten().filter_map(|entry| entry.key.strip_prefix(under.as_str()));
        ids.filter(|id| !id.contains('/')).map(str::to_owned).collect()
    }

    // ---- requests -----------------------------------------------------------------------------------------------

    fn ask<T: Send + 'static>(
        &self,
        host: Host,
        decide: impl FnOnce(&State, Moment) -> Result<Decision<T>, StoreError> + Send + 'static,
        reply: oneshot::Sender<Result<T, StoreError>>,
    ) {
        if !self.network.is_up(host, Host::Coordinator) {
            return;
        }
        let mut delay = self.network.delay(host, Host::Coordinator);
        let mut inner = self.inner();
        if inner.troubles.slow > 0 && inner.dice.percent(50) {
            delay += inner.dice.millis(50, 1_500);
        }
        drop(inner);
        let this = self.clone();
        self.agenda.after(delay, move || this.decide(host, decide, reply));
    }

    fn decide<T: Send + 'static>(
        &self,
        host: Host,
        decide: impl FnOnce(&State, Moment) -> Result<Decision<T>, StoreError> + Send + 'static,
        reply: oneshot::Sender<Result<T, StoreError>>,
    ) {
        let mut inner = self.inner();
        if inner.troubles.no_quorum > 0 {
            // Some requests wait in the cluster, and are carried out when it is back, whoever still waits for them.
            if inner.dice.percent(30) {
                let again = inner.dice.millis(100, 600);
                let this = self.clone();
                self.agenda.after(again, move || this.decide(host, decide, reply));
            }
            return;
        }
        let now = inner.now();
        let result = match decide(&inner.state, now) {
            Ok(Decision::Keep(answer)) => Ok(answer),
            Ok(Decision::Next(next, answer)) => {
                self.becomes(&mut inner, next);
                Ok(answer)
            }
            Err(error) => Err(error),
        };
        if inner.troubles.unclear > 0 && inner.dice.percent(40) {
            return;
        }
        drop(inner);
        let delay = self.network.delay(Host::Coordinator, host);
        let network = self.network.clone();
        self.agenda.after(delay, move || {
            if network.is_up(Host::Coordinator, host) {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(result);
            }
        });
    }

    /// The next state stands.
    fn becomes(&self, inner: &mut Inner, next: State) {
        for (key, value) in next.keys.iter().filter(|(_, value)| value.modified == next.revision) {
            if let Some(Key::Epoch(resource)) = keys::parse(key)
                && let Some(entry) = next.read(&[Range::all(Keys::One(key.clone()))]).first().and_then(|it| it.first())
                && let Some(record) = from_value::<EpochRecord>(&entry.value)
            {
                debug_assert_eq!(entry.modified.0, value.modified);
                let Term { epoch, nonce, writer } = record.term;
                self.record.saw(&self.name, Outside::Granted { resource, epoch, nonce, writer });
            }
        }
        let changed = next.changed_since(&inner.state);
        inner.state = next;
        self.reap_in_time(inner);
        let Some(changed) = changed else { return };
        inner.changes.push_back(changed.clone());
        if inner.changes.len() > 200 {
            inner.changes.pop_front();
        }
        for number in 0..inner.watchers.len() {
            let troubled = inner.troubles.watch > 0;
            let event = WatchEvent::Changed(changed.clone());
            match inner.dice.below(100) {
                0..8 if troubled => {}
                8..20 if troubled => self.tell(inner, number, WatchEvent::Gap),
                20..40 if troubled => {
                    self.tell(inner, number, event.clone());
                    self.tell(inner, number, event);
                }
                _ => self.tell(inner, number, event),
            }
        }
        inner.watchers.retain(|watcher| !watcher.events.is_closed());
    }

    // ---- leases -------------------------------------------------------------------------------------------------

    /// Says whose time was over.
    fn lapsed(&self, before: &State, after: &State) {
        for key in before.keys.keys().filter(|key| !after.keys.contains_key(*key)) {
            let Some(Key::Leader(resource)) = keys::parse(key) else { continue };
            let read = before.read(&[Range::all(Keys::One(key.clone()))]);
            let leader = read.first().and_then(|it| it.first()).and_then(|it| from_value::<LeaderRecord>(&it.value));
            if let Some(leader) = leader {
                self.record.lapsed(resource.to_string(), leader.term);
            }
        }
    }

    /// Has leases ended when they are over, or somewhat later.
    fn reap_in_time(&self, inner: &mut Inner) {
        let Some(end) = inner.state.first_end(BOOT) else { return };
        let at = inner.origin + end.since(Moment::from_nanos(0));
        if inner.reaping.is_some_and(|reaping| reaping <= at) {
            return;
        }
        inner.reaping = Some(at);
        let this = self.clone();
        self.agenda.at(at, move || this.reap(at));
    }

    fn reap(&self, at: Instant) {
        let mut inner = self.inner();
        if inner.reaping != Some(at) {
            return;
        }
        inner.reaping = None;
        if inner.troubles.no_quorum > 0 {
            return;
        }
        if inner.dice.percent(20) {
            // It is in no hurry.
            let later = Instant::now() + inner.dice.millis(1, 400);
            inner.reaping = Some(later);
            let this = self.clone();
            return self.agenda.at(later, move || this.reap(later));
        }
        let now = inner.now();
        if let Some(next) = inner.state.reaped(now, BOOT) {
            self.lapsed(&inner.state, &next);
            self.becomes(&mut inner, next);
        }
        self.reap_in_time(&mut inner);
    }

    // ---- watches ------------------------------------------------------------------------------------------------

    fn tell(&self, inner: &mut Inner, number: usize, event: WatchEvent) {
        let host = inner.watchers[number].host;
        let mut delay = self.network.delay(Host::Coordinator, host);
        if inner.troubles.watch > 0 && inner.dice.percent(40) {
            delay += inner.dice.millis(100, 5_000);
        }
        let watcher = &mut inner.watchers[number];
        let at = (Instant::now() + delay).max(watcher.last);
        watcher.last = at;
        let (this, events) = (self.clone(), watcher.events.clone());
        self.agenda.at(at, move || this.bring(host, events, event));
    }

    fn bring(&self, host: Host, events: mpsc::UnboundedSender<WatchEvent>, event: WatchEvent) {
        if self.network.is_up(Host::Coordinator, host) {
            // Who watched may be gone.
            let _ = events.send(event);
        } else if !events.is_closed() {
            let this = self.clone();
            self.agenda.after(WATCH_AGAIN, move || this.bring(host, events, event));
        }
    }

    fn watch(&self, host: Host, after: Revision) -> Box<dyn Watch> {
        let (events, receiver) = mpsc::unbounded_channel();
        let mut inner = self.inner();
        let last = Instant::now();
        inner.watchers.push(Watcher { host, events, last });
        let number = inner.watchers.len() - 1;
        let missed: Vec<Changed> = inner.changes.iter().filter(|changed| changed.revision > after).cloned().collect();
        for changed in missed {
            self.tell(&mut inner, number, WatchEvent::Changed(changed));
        }
        Box::new(Watching(receiver))
    }
}

impl Inner {
    fn now(&self) -> Moment {
        Moment::from_nanos(0).plus(self.origin.elapsed())
    }

    fn extend_leases(&mut self) {
        let now = self.now();
        for lease in self.state.leases.values_mut() {
            lease.ends = now.plus(Duration::from_millis(lease.ttl_ms)).as_nanos();
        }
    }
}

struct Watching(mpsc::UnboundedReceiver<WatchEvent>);

impl Watch for Watching {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = WatchEvent> + Send + '_>> {
        Box::pin(async move {
            match self.0.recv().await {
                Some(event) => event,
                None => pending().await,
            }
        })
    }
}

/// The store in the hands of one process.
struct Access {
    coordinator: Coordinator,
    host: Host,
    clock: Arc<dyn Clock>,
    limit: Duration,
}

impl Access {
    fn call<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&State, Moment) -> Result<Decision<T>, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, (T, Moment)> {
        Box::pin(async move {
            let sent = self.clock.now();
            let (reply, answer) = oneshot::channel();
            self.coordinator.ask(self.host, decide, reply);
            let answered = async {
                match answer.await {
                    Ok(result) => result,
                    // It was lost on the way, and nobody says so.
                    Err(_) => pending().await,
                }
            };
            match timeout(self.limit, answered).await {
                Ok(result) => result.map(|answer| (answer, sent)),
                Err(_) => Err(StoreError::Unreachable("the coordinator did not answer in time".to_owned())),
            }
        })
    }
}

impl Store for Access {
    fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot> {
        Box::pin(async move {
            let read = move |state: &State, _| Ok(Decision::Keep((Revision(state.revision), state.read(&ranges))));
            let ((revision, ranges), sent) = self.call(read).await?;
            Ok(Snapshot { revision, ranges, sent })
        })
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Committed> {
        Box::pin(async move { Ok(self.call(move |state: &State, _| state.transact(&txn)).await?.0) })
    }

    fn watch(&self, after: Revision) -> Box<dyn Watch> {
        self.coordinator.watch(self.host, after)
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        Box::pin(async move {
            let id = i64::try_from(self.coordinator.inner().dice.next() >> 1).unwrap_or(i64::MAX).max(1);
            let grant = move |state: &State, now| Ok(state.grant(id, ttl, now, BOOT));
            let (ttl, sent) = self.call(grant).await?;
            Ok(Lease { id: LeaseId(id), ttl, sent })
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, Lease> {
        Box::pin(async move {
            let (ttl, sent) = self.call(move |state: &State, now| state.keep_alive(lease.0, now, BOOT)).await?;
            Ok(Lease { id: lease, ttl, sent })
        })
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.call(move |state: &State, _| Ok(state.revoke(lease.0))).await?;
            Ok(())
        })
    }

    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn endpoint(&self) -> String {
        "http://coordinator:2379".to_owned()
    }
}
