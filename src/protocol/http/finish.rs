//! What the role is told when a request is over, and what the worker is told while a write runs.

use std::rc::Rc;

use super::Http;
use crate::fence::{Moment, Outcome};
use crate::protocol::tunnel::Ends;
use crate::protocol::{Finished, Kind};

/// Tells the role that a request is over, when dropped: so it is told once, whatever happens.
pub struct Finish {
    http: Rc<Http>,
    began: Moment,
    kind: Kind,
    outcome: Outcome,
}

impl Finish {
    /// From now on; it ends as not applied, until something else is said.
    pub fn new(http: &Rc<Http>, kind: Kind) -> Finish {
        Finish { http: Rc::clone(http), began: http.clock.now(), kind, outcome: Outcome::NotApplied }
    }

    /// Says what it is, once the role has said so.
    pub fn is(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Says how it would end now.
    pub fn ends_as(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Ends for Finish {
    fn ends_as(&mut self, outcome: Outcome) {
        Finish::ends_as(self, outcome);
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let took = self.http.clock.now().since(self.began);
        self.http.role.finished(Finished { kind: self.kind, outcome: self.outcome, took });
    }
}

/// Counts a write's task.
pub struct Running(Rc<Http>);

impl Running {
    /// Until it is dropped.
    pub fn on(http: &Rc<Http>) -> Running {
        http.writes.set(http.writes.get() + 1);
        Running(Rc::clone(http))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.writes.set(self.0.writes.get() - 1);
    }
}
