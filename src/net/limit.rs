//! How many connections a worker holds.

use std::cell::Cell;
use std::rc::Rc;

/// Counts what is open, up to a limit. Clones count together.
#[derive(Clone, Debug)]
pub struct Limiter {
    open: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
}

/// One of the counted; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit(Rc<Cell<usize>>);

impl Limiter {
    /// Allows `most` at a time.
    pub fn new(most: usize) -> Limiter {
        Limiter { open: Rc::default(), most: Rc::new(Cell::new(most)) }
    }

    /// A place, where there is one.
    pub fn take(&self) -> Option<Permit> {
        let open = self.open.get();
        (open < self.most.get()).then(|| {
            self.open.set(open + 1);
            Permit(Rc::clone(&self.open))
        })
    }

    /// Allows `most` at a time from now on; those that are open stay.
    pub fn allow(&self, most: usize) {
        self.most.set(most);
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.get()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_when_its_permit_is_dropped() {
        let limiter = Limiter::new(1);
        let permit = limiter.take().expect("the first place is free");
        assert!(limiter.clone().take().is_none());
        drop(permit);
        assert_eq!(limiter.open(), 0);
        assert!(limiter.take().is_some());
        let (_one, _two) = (limiter.take().expect("free"), limiter.allow(2));
        assert!(limiter.take().is_some());
    }
}
