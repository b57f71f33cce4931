//! Waking any number of tasks of one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Waker};

use slab::Slab;

type Listening = Rc<RefCell<Slab<Waker>>>;

/// Wakes every [`Ear`] that listens.
#[derive(Clone, Debug, Default)]
pub struct Bell(Listening);

impl Bell {
    /// Wakes all that listen. They listen on until they are dropped.
    pub fn ring(&self) {
        // Cloned first: a waker is foreign code, and may come back here.
        let wakers: Vec<Waker> = self.0.borrow().iter().map(|(_, waker)| waker.clone()).collect();
        for waker in wakers {
            waker.wake();
        }
    }

    /// A place to listen at.
    pub fn ear(&self) -> Ear {
        Ear { bell: Rc::clone(&self.0), seat: None }
    }
}

/// One task's place at a [`Bell`]: the task that listened last is woken.
#[derive(Debug)]
pub struct Ear {
    bell: Listening,
    seat: Option<usize>,
}

impl Ear {
    /// From now on the bell wakes this task.
    pub fn listen(&mut self, context: &Context<'_>) {
        let mut bell = self.bell.borrow_mut();
        match self.seat {
            Some(seat) => bell[seat].clone_from(context.waker()),
            None => self.seat = Some(bell.insert(context.waker().clone())),
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            // Dropped after the borrow has ended: a waker's drop may run foreign code.
            let waker = self.bell.borrow_mut().remove(seat);
            drop(waker);
        }
    }
}
