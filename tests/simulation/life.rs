//! One life of a process, from its start to its end, and whether it is being run at present.
//!
//! A process is some futures that stand for its threads. While it is stopped (SIGSTOP) they are not polled, and time
//! goes on; when it is killed they are dropped where they are, and nothing that happens while they are dropped counts.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::network::LetGo;

/// One life. Clones share it.
#[derive(Clone, Default)]
pub struct Life(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    over: Option<LetGo>,
    stopped: u32,
    /// By thread: how many faults keep it from being run.
    lagging: Vec<u32>,
    wakers: Vec<Waker>,
}

impl Life {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How its kernel lets go of its connections, once it is over.
    pub fn is_over(&self) -> Option<LetGo> {
        self.state().over
    }

    /// Ends it. The threads are dropped by whoever has them.
    pub fn end(&self, how: LetGo) {
        self.state().over.get_or_insert(how);
    }

    /// Stops the whole process, or lets it go on.
    pub fn stop(&self, stop: bool) {
        let mut state = self.state();
        state.stopped = if stop { state.stopped + 1 } else { state.stopped.saturating_sub(1) };
        state.wake();
    }

    /// Keeps one thread from being run, or no longer.
    pub fn lag(&self, thread: usize, lag: bool) {
        let mut state = self.state();
        if state.lagging.len() <= thread {
            state.lagging.resize(thread + 1, 0);
        }
        let count = state.lagging[thread];
        state.lagging[thread] = if lag { count + 1 } else { count.saturating_sub(1) };
        state.wake();
    }

    fn is_run(&self, thread: usize, context: &Context<'_>) -> bool {
        let mut state = self.state();
        let run = state.stopped == 0 && state.lagging.get(thread).is_none_or(|lagging| *lagging == 0);
        if !run {
            state.wakers.push(context.waker().clone());
        }
        run
    }
}

impl State {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

type Slot = Rc<RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>>;

/// The threads of one life.
#[derive(Default)]
pub struct Threads(Vec<Slot>);

impl Threads {
    /// Begins to run a thread.
    pub fn begin(&mut self, life: &Life, thread: impl Future<Output = ()> + 'static) {
        let slot: Slot = Rc::new(RefCell::new(Some(Box::pin(thread))));
        let run = Run { slot: Rc::clone(&slot), life: life.clone(), number: self.0.len() };
        self.0.push(slot);
        tokio::task::spawn_local(run);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops all of them where they are.
    pub fn kill(&mut self) {
        for slot in self.0.drain(..) {
            let thread = slot.borrow_mut().take();
            drop(thread);
        }
    }
}

struct Run {
    slot: Slot,
    life: Life,
    number: usize,
}

impl Future for Run {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.life.is_run(self.number, context) {
            return Poll::Pending;
        }
        // Out of its place meanwhile: a thread may end the process that it belongs to.
        let Some(mut thread) = self.slot.borrow_mut().take() else { return Poll::Ready(()) };
        match thread.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => {
                if self.life.is_over().is_none() {
                    self.slot.replace(Some(thread));
                }
                Poll::Pending
            }
        }
    }
}
