//! The places for held requests in one worker: bounded in number and in bytes, over all of its listeners.

use std::cell::Cell;
use std::rc::Rc;

use crate::config::resolved;
use crate::fence::{Reason, Refusal};

/// How much one worker holds now, and may hold. Clones count together.
#[derive(Clone, Debug)]
pub struct Hold(Rc<Counts>);

#[derive(Debug)]
struct Counts {
    limits: resolved::Hold,
    requests: Cell<usize>,
    bytes: Cell<usize>,
}

/// One held request's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    counts: Rc<Counts>,
    bytes: usize,
}

impl Hold {
    /// Nothing is held yet.
    pub fn new(limits: resolved::Hold) -> Hold {
        Hold(Rc::new(Counts { limits, requests: Cell::new(0), bytes: Cell::new(0) }))
    }

    /// A place for a request whose head takes `bytes`; `None` where that would be one request or one byte too many.
    pub fn take(&self, bytes: usize) -> Option<Place> {
        let counts = &self.0;
        let (requests, held) = (counts.requests.get() + 1, counts.bytes.get().saturating_add(bytes));
        if requests > counts.limits.requests || held > counts.limits.bytes {
            return None;
        }
        counts.requests.set(requests);
        counts.bytes.set(held);
        Some(Place { counts: Rc::clone(counts), bytes })
    }

    /// The limits.
    pub fn limits(&self) -> resolved::Hold {
        self.0.limits
    }

    /// How many requests are held, and how many bytes.
    pub fn taken(&self) -> (usize, usize) {
        (self.0.requests.get(), self.0.bytes.get())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.requests.set(self.counts.requests.get().saturating_sub(1));
        self.counts.bytes.set(self.counts.bytes.get().saturating_sub(self.bytes));
    }
}

/// What a request is told for which there is no place.
pub fn full() -> Refusal {
    let detail = "a handoff is under way, and this worker holds as many requests, or as many bytes, as it may \
                  (hold.requests, hold.bytes); nothing was applied: try again in a moment";
    Refusal::new(Reason::HoldFull, detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn places_are_bounded_in_number_and_bytes_and_come_back() {
        let hold = Hold::new(resolved::Hold { requests: 2, bytes: 100, timeout: Duration::ZERO });
        let one = hold.take(60).expect("the first");
        assert!(hold.take(41).is_none(), "a byte too many");
        let two = hold.clone().take(40).expect("the second");
        assert!(hold.take(0).is_none(), "a request too many");
        drop((one, two));
        assert_eq!(hold.taken(), (0, 0));
        assert!(hold.take(usize::MAX).is_none());
    }
}
