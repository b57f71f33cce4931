//! A listener's role as its protocol has it: the one in force at the moment, on every connection.
//!
//! A connection may outlive the settings that it began with. Whom a listener believes, and what it takes for a write, is asked
//! of the present settings for each request, so that nobody keeps a right by keeping a connection.

use std::cell::RefCell;
use std::rc::Rc;

use crate::fence::{Refusal, Resource};
use crate::protocol::{Binding, CutReason, Decision, Facts, Finished, Role};

/// The role in force.
pub(super) struct InForce(RefCell<Rc<dyn Role>>);

impl InForce {
    /// This one, to begin with.
    pub fn new(role: Rc<dyn Role>) -> Rc<InForce> {
        Rc::new(InForce(RefCell::new(role)))
    }

    /// This one from now on.
    pub fn replace(&self, role: Rc<dyn Role>) {
        let old = self.0.replace(role);
        drop(old);
    }
}

/// Calls are plain and quick, and never come back here: the borrow is over when they return.
impl Role for InForce {
    fn bind(&self) -> Binding {
        self.0.borrow().bind()
    }

    fn decide(&self, facts: &Facts<'_>) -> Decision {
        self.0.borrow().decide(facts)
    }

    fn refused(&self, facts: &Facts<'_>, refusal: &Refusal) {
        self.0.borrow().refused(facts, refusal);
    }

    fn resource(&self, facts: &Facts<'_>) -> Option<Resource> {
        self.0.borrow().resource(facts)
    }

    fn finished(&self, finished: Finished) {
        self.0.borrow().finished(finished);
    }

    fn connection(&self, opened: bool) {
        self.0.borrow().connection(opened);
    }

    fn cut(&self, reason: CutReason) {
        self.0.borrow().cut(reason);
    }
}
