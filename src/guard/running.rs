//! Who the writes are that a gate's ledger counts: for `status`, for events, and for the signal to each.
//!
//! The ledger itself only counts. Here each running write has a seat, by number; a seat that is free keeps its
//! buffer, so that a steady stream of writes allocates nothing.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::vouch::Vouched;
use crate::fence::ledger::Under;
use crate::fence::{Epoch, Moment, Stamp};
use crate::mailbox::Holder;
use crate::peer::Peer;
use crate::protocol::signal::Caller;
use crate::protocol::{Facts, Kind};

/// Longer paths are cut to about this where holders are remembered.
const PATH_BYTES: usize = 256;
/// So many lost writes are remembered; the ledger counts all of them.
const LOST_KEPT: usize = 16;
/// So many holders are named in an account.
const HOLDERS_NAMED: usize = 16;

/// The writes that were let in while one term was the gate's: they are called together when it is over.
#[derive(Debug, Default)]
pub(super) struct Era {
    /// The gate's floor at the time; none before the first term.
    pub epoch: Option<Epoch>,
    /// Calls them.
    pub caller: Caller,
    /// How many of them run.
    pub running: Cell<usize>,
}

/// A stamp that came in, as read and as the target is to see it.
#[derive(Debug)]
pub(super) struct Carried {
    /// The field's value as it came, up to its signature.
    pub raw: Box<[u8]>,
    pub stamp: Stamp,
    pub canonical: HeaderValue,
}

/// One write, as far as somebody may want to know.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub under: Under,
    pub peer: Peer,
    /// Its number in the life of the process.
    pub number: u64,
    pub since: Moment,
    /// What it is: reads are here too where they are fenced.
    pub kind: Kind,
    /// Whether its connection became something else: it is cut as soon as its epoch is over.
    pub tunnel: bool,
    pub carried: Option<Vouched>,
    pub era: Rc<Era>,
}

/// The running writes of one gate.
#[derive(Debug, Default)]
pub(super) struct Running {
    seats: Vec<Seat>,
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Seat {
    write: Option<Write>,
    what: String,
}

impl Running {
    /// Takes a write in. Returns its seat.
    pub fn enter(&mut self, write: Write, facts: &Facts<'_>) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.seats.push(Seat::default());
            self.seats.len() - 1
        });
        write.era.running.set(write.era.running.get() + 1);
        let seat = &mut self.seats[at];
        seat.write = Some(write);
        seat.what.clear();
        seat.what.push_str(facts.method);
        seat.what.push(' ');
        seat.what.push_str(shortened(facts.path));
        at
    }

    /// The write at a seat.
    pub fn at(&self, seat: usize) -> Option<&Write> {
        self.seats.get(seat)?.write.as_ref()
    }

    /// Frees a seat.
    pub fn leave(&mut self, seat: usize) -> Option<Write> {
        let write = self.seats.get_mut(seat)?.write.take()?;
        self.free.push(seat);
        write.era.running.set(write.era.running.get().saturating_sub(1));
        Some(write)
    }

    /// Method and path of the write that sits, or sat last, at a seat.
    pub fn what(&self, seat: usize) -> &str {
        self.seats.get(seat).map_or("", |seat| &seat.what)
    }

    fn iter(&self) -> impl Iterator<Item = (&Write, &str)> {
        self.seats.iter().filter_map(|seat| seat.write.as_ref().map(|write| (write, seat.what.as_str())))
    }
}

/// The newest lost writes of one gate.
#[derive(Debug, Default)]
pub(super) struct Lost(VecDeque<LostWrite>);

#[derive(Debug)]
struct LostWrite {
    holder: Holder,
    at: Moment,
}

impl LostWrite {
    fn under(&self) -> Under {
        self.holder.epoch
    }
}

impl Lost {
    /// Remembers one.
    pub fn add(&mut self, write: &Write, what: &str, at: Moment) {
        if self.0.len() == LOST_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(LostWrite { holder: holder(write, what, true), at });
    }

    /// Forgets those below `epoch`: their end is proved.
    pub fn prove_over(&mut self, epoch: Epoch) {
        self.0.retain(|lost| lost.under() >= Some(epoch));
    }

    /// Forgets those whose quarantine has passed. As in the ledger, the last loss of an epoch counts for all of it.
    pub fn expire(&mut self, now: Moment, quarantine: Duration) {
        let counts: Vec<Under> =
            self.0.iter().filter(|lost| now < lost.at.plus(quarantine)).map(LostWrite::under).collect();
        self.0.retain(|lost| counts.contains(&lost.under()));
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The oldest few writes below `floor` that run or are lost.
pub(super) fn holders(running: &Running, lost: &Lost, floor: Option<Epoch>) -> Vec<Holder> {
    let below = |under: Under| floor.is_some() && under < floor;
    let runs = running.iter().filter(|(write, _)| below(write.under)).map(|(write, what)| holder(write, what, false));
    let lost = lost.0.iter().filter(|lost| below(lost.under())).map(|lost| lost.holder.clone());
    let mut holders: Vec<Holder> = runs.chain(lost).collect();
    holders.sort_by_key(|holder| holder.since);
    holders.truncate(HOLDERS_NAMED);
    holders
}

fn holder(write: &Write, what: &str, lost: bool) -> Holder {
    Holder { epoch: write.under, peer: write.peer, what: what.to_owned(), since: write.since, lost }
}

fn shortened(path: &str) -> &str {
    let mut end = path.len().min(PATH_BYTES);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}

/// Method and path apart again.
pub(super) fn apart(what: &str) -> (Arc<str>, Arc<str>) {
    let (method, path) = what.split_once(' ').unwrap_or((what, ""));
    (method.into(), path.into())
}
