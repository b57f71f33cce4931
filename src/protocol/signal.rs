//! What the fence wants of the requests that it let through: one word for all of a gate's term, without a lock.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// What is asked of a request in flight. Each includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Nothing: go on.
    Nothing,
    /// The epoch has moved on: read the upstream's answer to its end without waiting for a slow client; end tunnels.
    Hurry,
    /// Cut what has not been sent whole: reset the upstream connection, settle as lost.
    CutHalfSent,
    /// Cut it, sent whole or not.
    Cut,
}

#[derive(Debug)]
struct Shared {
    ask: Cell<Ask>,
    listening: RefCell<Slab<Waker>>,
}

/// The fence's end: one for each term of a gate in a worker.
#[derive(Clone, Debug)]
pub struct Caller(Rc<Shared>);

impl Default for Caller {
    fn default() -> Caller {
        Caller(Rc::new(Shared { ask: Cell::new(Ask::Nothing), listening: RefCell::new(Slab::new()) }))
    }
}

impl Caller {
    /// Asks this, or what was asked already where that is more, of every request that listens, now or later.
    pub fn ask(&self, ask: Ask) {
        if ask > self.0.ask.get() {
            self.0.ask.set(ask);
            for (_, waker) in self.0.listening.borrow().iter() {
                waker.wake_by_ref();
            }
        }
    }

    /// A request's end.
    pub fn signal(&self) -> Signal {
        Signal { shared: Rc::clone(&self.0), slot: None }
    }
}

/// A request's end: says when more is asked. One task listens at a time, the one that polled last.
#[derive(Debug)]
pub struct Signal {
    shared: Rc<Shared>,
    slot: Option<usize>,
}

impl Signal {
    /// What is asked now.
    pub fn asked(&self) -> Ask {
        self.shared.ask.get()
    }

    /// Ready once at least `ask` is asked; else wakes the caller's task when more is. For use inside another poll.
    pub fn poll_for(&mut self, ask: Ask, context: &Context<'_>) -> Poll<Ask> {
        let now = self.shared.ask.get();
        if now >= ask {
            return Poll::Ready(now);
        }
        let mut listening = self.shared.listening.borrow_mut();
        match self.slot {
            Some(slot) => listening[slot].clone_from(context.waker()),
            None => self.slot = Some(listening.insert(context.waker().clone())),
        }
        Poll::Pending
    }

    /// Resolves once at least `ask` is asked. Cancel-safe.
    pub fn until(&mut self, ask: Ask) -> impl Future<Output = Ask> + '_ {
        Until { signal: self, ask }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.listening.borrow_mut().remove(slot);
        }
    }
}

struct Until<'a> {
    signal: &'a mut Signal,
    ask: Ask,
}

impl Future for Until<'_> {
    type Output = Ask;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ask> {
        let ask = self.ask;
        self.signal.poll_for(ask, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_heard_now_and_later_and_by_all() {
        let caller = Caller::default();
        let (mut one, mut two) = (caller.signal(), caller.signal());
        let mut context = Context::from_waker(Waker::noop());
        assert!(one.poll_for(Ask::Hurry, &context).is_pending());
        assert!(two.poll_for(Ask::Cut, &context).is_pending());
        caller.ask(Ask::CutHalfSent);
        caller.ask(Ask::Hurry);
        assert_eq!(one.poll_for(Ask::Hurry, &context), Poll::Ready(Ask::CutHalfSent));
        assert!(Pin::new(&mut two.until(Ask::Cut)).poll(&mut context).is_pending());
        assert_eq!(caller.signal().asked(), Ask::CutHalfSent);
        drop((one, two));
        assert!(caller.0.listening.borrow().is_empty());
    }
}
