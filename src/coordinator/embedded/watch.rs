//! The watch: looks for the next revision's file every few milliseconds.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::chain::{Chain, Held, Limit, Step};
use crate::coordinator::store::{Revision, StoreError, Watch, WatchEvent};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(15);
/// How many looks it leaves out after an error: a second.
const AFTER_ERROR: u32 = 66;
/// How many events one look brings at most: the rest comes with the next.
const AT_ONCE: usize = 64;
/// The limit of one look.
const LOOK: Duration = Duration::from_secs(5);

pub(super) struct EmbeddedWatch {
    chain: Arc<Chain>,
    /// Where the caller has read up to, until the first look.
    after: Revision,
    /// The revision whose changes were told last.
    told: Option<Arc<Held>>,
    ready: VecDeque<WatchEvent>,
    /// Kept over a `next` that was dropped: neither a look nor the time between two is lost.
    looking: Option<JoinHandle<Result<Look, StoreError>>>,
    ticks: Option<Interval>,
    left_out: u32,
}

/// What a look came to.
struct Look {
    told: Arc<Held>,
    events: VecDeque<WatchEvent>,
}

impl EmbeddedWatch {
    pub fn new(chain: Arc<Chain>, after: Revision) -> EmbeddedWatch {
        EmbeddedWatch { chain, after, told: None, ready: VecDeque::new(), looking: None, ticks: None, left_out: 0 }
    }

    async fn next_event(&mut self) -> WatchEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if self.looking.is_none() {
                self.wait_until_due().await;
                let (chain, told, after) = (self.chain.clone(), self.told.clone(), self.after);
                self.looking = Some(tokio::task::spawn_blocking(move || look(&chain, told, after)));
            }
            if let Some(looking) = &mut self.looking {
                let looked = looking.await;
                self.looking = None;
                self.take(looked.unwrap_or_else(|error| Err(StoreError::Unreachable(error.to_string()))));
            }
        }
    }

    async fn wait_until_due(&mut self) {
        let ticks = self.ticks.get_or_insert_with(|| {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        loop {
            ticks.tick().await;
            if self.left_out > 0 {
                self.left_out -= 1;
                continue;
            }
            let Some(told) = &self.told else { return };
            // Where the cheap look fails the real one tells why.
            if self.chain.has_moved_on(told).unwrap_or(true) {
                return;
            }
        }
    }

    fn take(&mut self, looked: Result<Look, StoreError>) {
        match looked {
            Ok(look) => {
                self.told = Some(look.told);
                self.ready = look.events;
            }
            Err(error) => {
                tracing::warn!(path = %self.chain.path.display(), %error, "the watch of the embedded store waits");
                self.left_out = AFTER_ERROR;
            }
        }
    }
}

impl Watch for EmbeddedWatch {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = WatchEvent> + Send + '_>> {
        Box::pin(self.next_event())
    }
}

/// Goes from revision to revision up to the newest, ends leases that are over, and says what changed on the way.
fn look(chain: &Chain, told: Option<Arc<Held>>, after: Revision) -> Result<Look, StoreError> {
    let mut events = VecDeque::new();
    let start = match told {
        Some(told) => Some(told),
        None => chain.at(after.0.max(1))?,
    };
    // Ends what has ended first, so that it is among what is told.
    let (newest, _) = chain.current(Limit::after(LOOK))?;
    let mut told = start.unwrap_or_else(|| {
        events.push_back(WatchEvent::Gap);
        newest.clone()
    });
    while events.len() < AT_ONCE {
        match chain.step(&told)? {
            Step::Newest => break,
            Step::Next(next) => {
                events.extend(next.state.changed_since(&told.state).map(WatchEvent::Changed));
                told = next;
            }
            Step::Lost => {
                events.push_back(WatchEvent::Gap);
                told = chain.newest(Limit::after(LOOK))?;
            }
        }
    }
    Ok(Look { told, events })
}
