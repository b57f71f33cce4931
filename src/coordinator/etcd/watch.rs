//! A watch over the whole prefix that heals itself, or says that changes may be missing.
//!
//! etcd's streams fail silently in many ways: a watch from a compacted revision, from a future one, or with a lapsed
//! login is answered as created and then stays quiet for ever; a stopped or cut-off member says nothing at all. So each
//! stream must prove that it began well, and is asked for a sign of life every few seconds; whatever else happens is
//! one case: give the stream up, connect again with backoff, resume after the last revision, and say
//! [`WatchEvent::Gap`], since what lies between two streams cannot be proved to be whole.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{GetOptions, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::backoff::Backoff;
use super::endpoints::{Endpoints, Link};
use super::failure::Failure;
use super::{MAX_ANSWER, wire};
use crate::coordinator::store::{Changed, Revision, Watch, WatchEvent};

/// How often a stream is asked for a sign of life; the answer may take as long as a call.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Waits between two streams.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Changes that wait for a slow reader; beyond, all of them become one [`WatchEvent::Gap`].
const WAITING: usize = 1024;

/// Starts a watch after `after`, on the runtime at hand.
pub(super) fn start(endpoints: Arc<Endpoints>, after: Revision) -> EtcdWatch {
    let queue = Arc::new(Queue::default());
    let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let feed = Feed { endpoints, queue: Arc::clone(&queue), last: after, gap: false, backoff, failed: false };
    EtcdWatch { queue, task: tokio::spawn(feed.run()) }
}

/// The reader's end. Dropping it ends the task.
pub(super) struct EtcdWatch {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Watch for EtcdWatch {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = WatchEvent> + Send + '_>> {
        Box::pin(self.queue.pop())
    }
}

impl Drop for EtcdWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the reader has not fetched yet; bounded.
#[derive(Default)]
struct Queue {
    events: Mutex<VecDeque<WatchEvent>>,
    filled: Notify,
}

impl Queue {
    fn push(&self, event: WatchEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= WAITING {
            // Whoever reads afresh needs none of what waits.
            events.clear();
            events.push_back(WatchEvent::Gap);
        }
        if event != WatchEvent::Gap || events.back() != Some(&WatchEvent::Gap) {
            events.push_back(event);
        }
        drop(events);
        self.filled.notify_one();
    }

    async fn pop(&self) -> WatchEvent {
        loop {
            if let Some(event) = self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return event;
            }
            self.filled.notified().await;
        }
    }
}

/// Why a stream was given up.
enum End {
    /// The endpoint does not answer, or not as it should: leave it.
    Failed(Failure),
    /// The watch was refused, and the login may be why: make a new one.
    Refused(String),
    /// What was asked for has been compacted: this is the first revision that is left.
    Compacted(Revision),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failed(failure)
    }
}

impl From<etcd_client::Error> for End {
    fn from(error: etcd_client::Error) -> End {
        End::Failed(error.into())
    }
}

/// The task's state.
struct Feed {
    endpoints: Arc<Endpoints>,
    queue: Arc<Queue>,
    /// Everything up to here has been passed on, or was there before.
    last: Revision,
    /// Changes may be missing, and the reader has not been told.
    gap: bool,
    backoff: Backoff,
    /// Whether the last attempt failed: so that an outage is logged once.
    failed: bool,
}

impl Feed {
    async fn run(mut self) {
        loop {
            let turn = self.endpoints.pick();
            turn.come().await;
            let limit = self.endpoints.settings.timeout;
            match timeout(limit, self.endpoints.link(turn.endpoint)).await {
                Ok(Ok(link)) => {
                    let Err(end) = self.follow(&link).await;
                    self.ended(&link, end);
                }
                Ok(Err(failure)) => {
                    self.endpoints.failed(turn.endpoint, None, failure.text());
                    self.say(turn.endpoint, failure.text());
                }
                Err(_) => {
                    let text = format!("no connection within {} ms", limit.as_millis());
                    self.endpoints.failed(turn.endpoint, None, &text);
                    self.say(turn.endpoint, &text);
                }
            }
            self.gap = true;
            sleep(self.backoff.next(&*self.endpoints.entropy)).await;
        }
    }

    fn ended(&mut self, link: &Link, end: End) {
        match end {
            End::Failed(Failure::Login(text)) | End::Refused(text) => {
                self.endpoints.forget(link);
                self.say(link.endpoint, &text);
            }
            // Refused by the store as a whole: no endpoint is to blame.
            End::Failed(Failure::Denied(text)) => self.say(link.endpoint, &text),
            End::Failed(failure) => {
                self.endpoints.failed(link.endpoint, Some(link), failure.text());
                self.say(link.endpoint, failure.text());
            }
            End::Compacted(oldest) => {
                self.say(link.endpoint, "the changes since then have been compacted");
                // Never below what has been passed on; `follow` starts at `last`, and the oldest one is still there.
                self.last = self.last.max(oldest);
            }
        }
    }

    /// An outage is worth one line; its repetitions are not.
    fn say(&mut self, endpoint: usize, text: &str) {
        let endpoint = self.endpoints.url(endpoint);
        if self.failed {
            tracing::debug!(endpoint, error = text, "the watch is still interrupted");
        } else {
            tracing::info!(endpoint, error = text, "the watch was interrupted; reading goes on without it");
        }
        self.failed = true;
    }

    /// Opens a stream and passes its changes on until it ends, for one reason or another.
    async fn follow(&mut self, link: &Link) -> Result<std::convert::Infallible, End> {
        let limit = self.endpoints.settings.timeout;
        let silent = || Failure::NoAnswer(format!("the watch had no answer within {} ms", limit.as_millis()));
        let deadline = Instant::now() + limit;
        let now = timeout_at(deadline, self.newest(link)).await.map_err(|_| silent())??;
        if now < self.last {
            // The store was restored or wiped: a watch from a revision to come would say nothing until it comes.
            self.gap = true;
            self.last = now;
        }
        let floor = self.last;
        let mut stream = timeout_at(deadline, self.open(link)).await.map_err(|_| silent())??;
        let created = timeout_at(deadline, stream.message()).await.map_err(|_| silent())??;
        let created = created.ok_or_else(|| Failure::NoAnswer("the watch ended before it began".into()))?;
        self.check(link, &created)?;
        if !created.created() {
            return Err(Failure::NoAnswer("the watch did not begin with its creation".into()).into());
        }
        self.established(link);
        self.pass_on(&created, floor)?;

        let mut ask = Instant::now() + HEARTBEAT;
        let mut answer_until = None;
        loop {
            let until = answer_until.unwrap_or(ask);
            match timeout_at(until, stream.message()).await {
                Ok(message) => {
                    let message = message?.ok_or_else(|| Failure::NoAnswer("the watch's stream ended".into()))?;
                    self.check(link, &message)?;
                    self.pass_on(&message, floor)?;
                    // Any message is a sign of life.
                    answer_until = None;
                    ask = Instant::now() + HEARTBEAT;
                }
                Err(_) if answer_until.is_some() => return Err(silent().into()),
                Err(_) => {
                    answer_until = Some(Instant::now() + limit);
                    timeout(limit, stream.request_progress()).await.map_err(|_| silent())??;
                }
            }
        }
    }

    fn established(&mut self, link: &Link) {
        self.endpoints.worked(link.endpoint);
        self.backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        if std::mem::take(&mut self.failed) {
            tracing::info!(endpoint = self.endpoints.url(link.endpoint), "the watch runs again");
        }
        if std::mem::take(&mut self.gap) {
            self.queue.push(WatchEvent::Gap);
        }
    }

    /// The store's revision, by a linearizable read at this member: it is then not behind what was passed on before.
    async fn newest(&self, link: &Link) -> Result<Revision, End> {
        let prefix = self.endpoints.settings.prefix.as_str();
        let nothing = GetOptions::new().with_prefix().with_count_only();
        let answer = link.client.kv_client().get(prefix, Some(nothing)).await?;
        Ok(self.endpoints.header(link, answer.header())?)
    }

    async fn open(&self, link: &Link) -> Result<WatchStream, End> {
        // From the last revision itself, not the one after: newer etcds answer no request for progress on a watch that
        // begins in the future. What was passed on already is left out on arrival.
        let options = WatchOptions::new()
            .with_prefix()
            .with_fragment()
            .with_start_revision(wire::signed(self.last.max(Revision(1))));
        let mut client = link.client.watch_client().max_decoding_message_size(MAX_ANSWER);
        Ok(client.watch(self.endpoints.settings.prefix.as_str(), Some(options)).await?)
    }

    /// Whether a message says that the watch has ended, or belongs to something else.
    fn check(&self, link: &Link, message: &WatchResponse) -> Result<(), End> {
        if message.compact_revision() > 0 {
            let oldest = u64::try_from(message.compact_revision()).unwrap_or(0);
            return Err(End::Compacted(Revision(oldest)));
        }
        if message.canceled() {
            let reason = if message.cancel_reason().is_empty() { "no reason given" } else { message.cancel_reason() };
            return Err(End::Refused(format!("etcd canceled the watch: {reason}")));
        }
        // The header of a canceled watch may be empty; of any other it tells the cluster.
        self.endpoints.header(link, message.header())?;
        Ok(())
    }

    /// Puts the changes of one message into the queue.
    fn pass_on(&mut self, message: &WatchResponse, floor: Revision) -> Result<(), End> {
        let prefix = &self.endpoints.settings.prefix;
        let events = message.events().iter().filter_map(|event| event.kv()).map(|kv| {
            let revision = Revision(u64::try_from(kv.mod_revision()).unwrap_or(0));
            (revision, wire::strip(prefix, kv.key()))
        });
        let changes = group(events, floor, &mut self.last).map_err(Failure::NoAnswer)?;
        for changed in changes {
            self.queue.push(WatchEvent::Changed(changed));
        }
        Ok(())
    }
}

/// The changes of one message, those of one revision together, without what is not above `floor` (known before the
/// stream began) and without foreign keys. Moves `last` on; a stream that goes behind it cannot be trusted.
fn group(
    events: impl Iterator<Item = (Revision, Option<String>)>,
    floor: Revision,
    last: &mut Revision,
) -> Result<Vec<Changed>, String> {
    let mut changes: Vec<Changed> = Vec::new();
    for (revision, key) in events.filter(|(revision, _)| *revision > floor) {
        if revision < *last {
            return Err(format!("the watch went back from revision {last} to {revision}"));
        }
        *last = revision;
        let Some(key) = key else { continue };
        match changes.last_mut() {
            Some(changed) if changed.revision == revision => changed.keys.push(key),
            _ => changes.push(Changed { revision, keys: vec![key] }),
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(revision: u64) -> WatchEvent {
        WatchEvent::Changed(Changed { revision: Revision(revision), keys: vec!["k".into()] })
    }

    #[test]
    fn changes_of_one_revision_come_together_and_known_ones_not_at_all() {
        let event = |revision, key: &str| (Revision(revision), Some(key.to_owned()));
        let events = [event(4, "old"), event(5, "a"), event(5, "b"), (Revision(6), None), event(7, "a")];
        let mut last = Revision(4);
        let changes = group(events.into_iter(), Revision(4), &mut last).expect("in order");
        let changed = |revision, keys: &[&str]| Changed {
            revision: Revision(revision),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
        };
        assert_eq!(changes, [changed(5, &["a", "b"]), changed(7, &["a"])]);
        assert_eq!(last, Revision(7));
        // A second part of the same revision is no step back; an earlier revision is one.
        assert_eq!(group([event(7, "c")].into_iter(), Revision(4), &mut last), Ok(vec![changed(7, &["c"])]));
        assert!(group([event(6, "c")].into_iter(), Revision(4), &mut last).is_err());
    }

    #[tokio::test]
    async fn an_overflow_becomes_one_gap_and_what_comes_after_it_stays() {
        let queue = Queue::default();
        for revision in 0..=WAITING as u64 {
            queue.push(changed(revision));
        }
        assert_eq!(queue.pop().await, WatchEvent::Gap);
        assert_eq!(queue.pop().await, changed(WAITING as u64));
    }

    #[tokio::test]
    async fn gaps_in_a_row_are_one() {
        let queue = Queue::default();
        queue.push(WatchEvent::Gap);
        queue.push(WatchEvent::Gap);
        queue.push(changed(1));
        assert_eq!(queue.pop().await, WatchEvent::Gap);
        assert_eq!(queue.pop().await, changed(1));
    }

    #[tokio::test]
    async fn a_dropped_next_loses_nothing() {
        let queue = Queue::default();
        assert!(timeout(Duration::from_millis(1), queue.pop()).await.is_err());
        queue.push(changed(1));
        assert_eq!(queue.pop().await, changed(1));
    }
}
