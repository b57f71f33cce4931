//! How a worker tells its connections to finish what is in flight, or to end at once.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::bell::{Bell, Ear};

/// How far closing has come; it never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not at all: serve.
    #[default]
    Open,
    /// Finish what is in flight, take on nothing new, then close.
    Finishing,
    /// End at once, whatever is in flight.
    Now,
}

#[derive(Debug, Default)]
struct Shared {
    stage: Cell<Stage>,
    bell: Bell,
}

/// The worker's end.
#[derive(Clone, Debug, Default)]
pub struct Closer(Rc<Shared>);

impl Closer {
    /// Asks every connection, of now and of later, to finish.
    pub fn finish(&self) {
        self.ask(Stage::Finishing);
    }

    /// Ends every connection, of now and of later.
    pub fn now(&self) {
        self.ask(Stage::Now);
    }

    fn ask(&self, stage: Stage) {
        if stage > self.0.stage.get() {
            self.0.stage.set(stage);
            self.0.bell.ring();
        }
    }

    /// A connection's end.
    pub fn handle(&self) -> Closing {
        Closing { shared: Rc::clone(&self.0), ear: self.0.bell.ear() }
    }
}

/// A connection's end: one task listens, the one that polled last. A clone listens for itself.
#[derive(Debug)]
pub struct Closing {
    shared: Rc<Shared>,
    ear: Ear,
}

impl Clone for Closing {
    fn clone(&self) -> Closing {
        Closing { shared: Rc::clone(&self.shared), ear: self.shared.bell.ear() }
    }
}

impl Closing {
    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.shared.stage.get()
    }

    /// How far it has come; wakes the caller's task when it goes further.
    pub fn watch(&mut self, context: &Context<'_>) -> Stage {
        let stage = self.stage();
        if stage < Stage::Now {
            self.ear.listen(context);
        }
        stage
    }

    /// Ready once it has come as far as `stage`.
    pub fn poll_until(&mut self, stage: Stage, context: &Context<'_>) -> Poll<()> {
        if self.watch(context) >= stage { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Resolves once it has come as far as `stage`. Cancel-safe.
    pub async fn until(&mut self, stage: Stage) {
        poll_fn(|context| self.poll_until(stage, context)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_heard_now_and_later_and_never_goes_back() {
        let closer = Closer::default();
        let mut closing = closer.handle();
        let context = Context::from_waker(std::task::Waker::noop());
        assert!(closing.poll_until(Stage::Finishing, &context).is_pending());
        closer.now();
        closer.finish();
        assert_eq!(closing.stage(), Stage::Now);
        assert!(closer.handle().poll_until(Stage::Finishing, &context).is_ready());
        assert!(closing.clone().poll_until(Stage::Now, &context).is_ready());
    }
}
