//! Who looks at what passes of a session, and whether its client takes it.

use super::tracker::Tracker;
use crate::protocol::Right;
use crate::protocol::way::Watch;

/// The client's side of what passes.
pub struct Up<'a> {
    /// What is outstanding.
    pub tracker: &'a mut Tracker,
    /// What it lives by.
    pub right: Option<&'a Right>,
    /// Without a right: whether its writer still does not lead.
    pub is_led: bool,
}

impl Watch for Up<'_> {
    fn taken(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.tracker.sent(bytes).map_err(|why| why.0)
    }

    fn may_leave(&self) -> bool {
        !self.is_led && self.right.is_none_or(Right::goes_on)
    }

    fn may_read(&self) -> bool {
        !self.tracker.is_full()
    }
}

/// The startup message, which is none of the messages that are followed.
pub struct Startup<'a>(pub Option<&'a Right>);

impl Watch for Startup<'_> {
    fn taken(&mut self, _: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }

    fn may_leave(&self) -> bool {
        self.0.is_none_or(Right::goes_on)
    }
}

/// The server's side; and how much of it the client has taken.
pub struct Down<'a>(pub &'a mut Tracker, pub &'a mut u64);

impl Watch for Down<'_> {
    fn read(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.0.came(bytes).map_err(|why| why.0)
    }

    fn taken(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        *self.1 += bytes.len() as u64;
        Ok(())
    }
}

/// Whether a client takes anything.
#[derive(Default)]
pub struct Slow {
    /// How much it has taken.
    pub taken: u64,
    before: Option<u64>,
}

impl Slow {
    /// Asked at each tick: whether it has taken nothing since the last, and something was there for it.
    pub fn stands_still(&mut self, something_is_left: bool) -> bool {
        let before = self.before.replace(self.taken);
        something_is_left && before == Some(self.taken)
    }
}
