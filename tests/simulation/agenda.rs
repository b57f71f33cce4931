//! What is to happen in the world, and when: deliveries, expiries, the ends of faults.
//!
//! One task carries it out, outside of every process: the network and the coordinator go on while a process stands
//! still.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

type Act = Box<dyn FnOnce() + Send>;

/// The agenda. Clones share it.
#[derive(Clone, Default)]
pub struct Agenda(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: Mutex<Entries>,
    sooner: Notify,
}

#[derive(Default)]
struct Entries {
    heap: BinaryHeap<Entry>,
    number: u64,
}

struct Entry {
    at: Instant,
    /// What was entered first happens first.
    number: u64,
    act: Act,
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        // The heap gives its greatest: the soonest.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl Agenda {
    /// Has `act` done at that time, or now where that is past.
    pub fn at(&self, at: Instant, act: impl FnOnce() + Send + 'static) {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let sooner = entries.heap.peek().is_none_or(|first| at < first.at);
        entries.number += 1;
        let number = entries.number;
        entries.heap.push(Entry { at, number, act: Box::new(act) });
        drop(entries);
        if sooner {
            self.0.sooner.notify_one();
        }
    }

    /// The same, after a while.
    pub fn after(&self, delay: Duration, act: impl FnOnce() + Send + 'static) {
        self.at(Instant::now() + delay, act);
    }

    /// Carries it out, for ever.
    pub async fn carry_out(self) {
        loop {
            while let Some(act) = self.due() {
                act();
            }
            let next = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner).heap.peek().map(|first| first.at);
            match next {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.0.sooner.notified() => {}
                        () = sleep_until(at) => {}
                    }
                }
                None => self.0.sooner.notified().await,
            }
        }
    }

    fn due(&self) -> Option<Act> {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let due = entries.heap.peek().is_some_and(|first| first.at <= Instant::now());
        due.then(|| entries.heap.pop().map(|entry| entry.act)).flatten()
    }

    /// Drops what has not happened: the world is over, and acts hold parts of it.
    pub fn clear(&self) {
        let heap = std::mem::take(&mut self.0.entries.lock().unwrap_or_else(PoisonError::into_inner).heap);
        drop(heap);
    }
}
