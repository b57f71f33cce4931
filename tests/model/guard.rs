//! One guard process: the handoff machine, the workers' gates and the floor file, tied together as `src/control/gates.rs`
//! and `src/control/floors.rs` do it.

use std::collections::VecDeque;

use epochgate::coordinator::observer::View;
use epochgate::coordinator::store::{Revision, Txn};
use epochgate::fence::floor::{Floor, Memory, Remembered};
use epochgate::fence::gate::{Cause, End, Order};
use epochgate::fence::handoff::{Claim, Effect, Event, Handoff, Persist, Policy, Start};
use epochgate::fence::mechanism::{Mechanism, Mechanisms};
use epochgate::fence::{Epoch, Moment};

use crate::part::Part;
use crate::peers::{Peers, Sighted};
use crate::tale::Tale;
use crate::words::{DRAIN_TIMEOUT, LATER, NOW, QUARANTINE, QUARANTINE_OVER, TARGET, door_id, orders, told};
use crate::worker::Worker;

/// What a guard is configured as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Its number.
    pub number: usize,
    /// Whether it closes when its session runs out.
    pub closes: bool,
    /// Whether others may stand beside it.
    pub shared: bool,
    /// How many workers it has.
    pub workers: usize,
    /// What is in force.
    pub mechanisms: Mechanisms,
    /// Whether its view of the coordinator is part of the state; else each reading counts as all new.
    pub keeps_view: bool,
    /// Whether a write is compared first, and counted only when it leaves.
    pub counts_late: bool,
    /// Whether it reads the epoch before it joins, instead of after.
    pub reads_first: bool,
    /// Whether the coordinator's revision can go back at all; else the highest seen is not part of the state.
    pub minds_revisions: bool,
}

/// Where a guard is with its claim to the target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Joining {
    /// It is to join.
    Due,
    /// Its transaction is on its way, with this lease; and whether its own record stood when it was made.
    OnItsWay { txn: Txn, lease: i64, stood: bool },
    /// It joined; the next reading completes it.
    Reading,
    /// It joined.
    Joined,
    /// It stops in order: whether its ledgers were empty, and whether it had joined.
    Leaving { clean: bool, joined: bool },
}

/// A guard process that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    pub kind: Kind,
    pub handoff: Handoff,
    pub workers: Vec<Worker>,
    /// What it remembers; the floor file follows.
    pub memory: Memory,
    /// What is on its way to the floor file, in order, and what each write was asked for.
    pub to_disk: VecDeque<(Memory, Vec<Persist>)>,
    asked: Vec<Persist>,
    dirty: bool,
    pub joining: Joining,
    pub joined_at: Option<Revision>,
    /// Which other doors it has seen as they are: their numbers, their records' revisions, whether they live.
    pub sighted: Vec<Sighted>,
    /// What it knows of them where it is one of several.
    pub peers: Peers,
    pub view: Part<View>,
    pub lease: Option<i64>,
    /// The number of its session.
    pub session: u8,
    /// Whether its session has run out by its own clock.
    pub is_late: bool,
    /// Whether its report has changed, and whether it waits for a reading first.
    pub report_wanted: bool,
    pub report_waits: bool,
    /// The highest epoch that this process has let a write in for.
    pub admitted: Option<Epoch>,
}

impl Guard {
    /// A process that starts with what its floor file says.
    pub fn start(kind: Kind, memory: Memory, tale: &mut Tale) -> Guard {
        let policy = Policy {
            drain_timeout: DRAIN_TIMEOUT,
            quarantine: QUARANTINE,
            by_time: true,
            has_action: false,
            has_proof: false,
            open_on_timeout: false,
            close_on_loss: kind.closes,
            shared: kind.shared,
            workers: kind.workers,
            mechanisms: kind.mechanisms,
        };
        let remembered = memory.of(TARGET, orders());
        let residue = remembered.has_residue(false);
        let left = memory.left.contains(TARGET) && kind.mechanisms.keeps(Mechanism::Leaving);
        let stands = remembered.floor.is_some() && !left && !kind.closes;
        let start = remembered.floor.map(|floor| Start {
            term: floor.term(),
            drained: floor.drained,
            forced: floor.forced,
            clean: !residue,
        });
        let claim = if stands { Claim::Standing } else { Claim::Joining };
        let mut handoff = Handoff::start(policy, claim, start, NOW);
        if residue && handoff.term().is_none() {
            handoff.wait_for_residue(NOW);
        }
        let peers = Peers::of(&memory);
        let mut guard = Guard {
            kind,
            handoff,
            workers: (0..kind.workers).map(|_| Worker::new(kind.mechanisms)).collect(),
            memory,
            to_disk: VecDeque::new(),
            asked: Vec::new(),
            dirty: false,
            joining: Joining::Due,
            joined_at: None,
            sighted: Vec::new(),
            peers,
            view: Part::new(View::default()),
            lease: None,
            session: 0,
            is_late: false,
            report_wanted: false,
            report_waits: false,
            admitted: None,
        };
        guard.drive(Event::Tick, NOW, tale);
        guard.end_round();
        guard
    }

    /// Its name, for the tale.
    pub fn name(&self) -> &'static str {
        door_id(self.kind.number)
    }

    /// The clock that its session is compared with: each session ends at its own time.
    pub fn session_clock(&self) -> Moment {
        let end = u64::from(self.session) * 100;
        Moment::from_nanos(if self.is_late { end + 50 } else { end.saturating_sub(50) })
    }

    /// When its present session ends.
    pub fn session_end(&self) -> Moment {
        Moment::from_nanos(u64::from(self.session) * 100)
    }

    pub fn keeps(&self, mechanism: Mechanism) -> bool {
        self.kind.mechanisms.keeps(mechanism)
    }

    /// Tells the machine what happened and does what it says.
    pub fn drive(&mut self, event: Event, now: Moment, tale: &mut Tale) {
        for effect in self.handoff.on(event, now) {
            self.perform(effect, tale);
        }
    }

    fn perform(&mut self, effect: Effect, tale: &mut Tale) {
        let name = self.name();
        match effect {
            Effect::Persist(persist) => self.persist(persist),
            Effect::Fence(term) => self.order(&Order::Fence(term)),
            Effect::Open(term) => self.order(&Order::Open(term)),
            Effect::Shut(Claim::Blocked(by)) => self.order(&Order::Shut(Cause::Blocked(by))),
            Effect::Shut(_) => self.order(&Order::Shut(Cause::Joining)),
            Effect::ShutSessionOver => self.order(&Order::Shut(Cause::SessionOver)),
            Effect::ProvedOver(epoch) => self.order(&Order::ProvedOver(epoch)),
            Effect::Regressed(regressed) => {
                if !regressed && self.kind.minds_revisions {
                    self.memory.revision = self.view.revision.0;
                }
                self.order(&Order::Regressed(regressed));
            }
            Effect::Report => self.report_wanted = true,
            Effect::SayFenced(epoch) => tale.add(|| format!("{name} refuses every epoch below {epoch}")),
            Effect::SayDrained(epoch, _) => tale.add(|| format!("{name} has drained for {epoch}")),
            Effect::SayOpened(epoch, _) => tale.add(|| format!("{name} opens {epoch}")),
            Effect::SayRegressed(floor, _) => {
                tale.add(|| format!("{name} finds the coordinator behind its floor {floor}"));
            }
            // What these would cut, the network may cut at any moment; there is no fence action here, and no target that proves anything.
            Effect::CutHalfSent(_) | Effect::CutAll(_) | Effect::RunAction(_) | Effect::Prove(_) => {}
        }
    }

    /// Every worker is told; each reads it when it comes to it.
    pub fn order(&mut self, order: &Order) {
        self.workers.iter_mut().for_each(|worker| worker.orders.push_back(order.clone()));
    }

    fn persist(&mut self, persist: Persist) {
        let floor = Floor { drained: persist.drained, forced: persist.forced, ..Floor::of(&persist.term) };
        let clean = !self.keeps(Mechanism::CleanMark) && self.memory.of(TARGET, orders()).clean;
        self.memory.put(&TARGET.into(), orders(), Remembered { floor: Some(floor), clean, audit: false });
        self.asked.push(persist);
        self.dirty = true;
    }

    /// Remembers whether its record stands.
    pub fn leave(&mut self, left: bool) {
        self.dirty |= match left {
            true => self.memory.left.insert(TARGET.into()),
            false => self.memory.left.remove(TARGET),
        };
    }

    /// After every step: what has gathered goes to the disk.
    pub fn end_round(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.to_disk.push_back((self.memory.clone(), std::mem::take(&mut self.asked)));
        }
    }

    /// The disk has the next of what was handed to it. Returns the file's content.
    pub fn disk_has_it(&mut self, tale: &mut Tale) -> Option<Memory> {
        let (memory, asked) = self.to_disk.pop_front()?;
        for persist in asked {
            tale.add(|| {
                let what = if persist.drained { "drained for" } else { "a floor of" };
                format!("{} has {what} {} on its disk", self.name(), told(&persist.term))
            });
            self.drive(Event::Persisted(persist), NOW, tale);
        }
        self.end_round();
        Some(memory)
    }

    /// The disk failed to take it; it is tried again.
    pub fn disk_fails(&mut self, tale: &mut Tale) {
        let waiting = self.to_disk.iter().map(|(_, asked)| asked.len()).sum();
        for _ in 0..waiting {
            self.drive(Event::DiskFailed, NOW, tale);
        }
        self.end_round();
    }

    /// A worker reads its next order. Returns it.
    pub fn worker_follows(&mut self, worker: usize, tale: &mut Tale) -> Option<Order> {
        let (order, says) = self.workers[worker].follow(worker)?;
        self.hear(says, tale);
        Some(order)
    }

    /// A write's right comes back to its worker.
    pub fn settle(&mut self, worker: usize, epoch: Epoch, end: End, tale: &mut Tale) {
        let says = self.workers[worker].settle(worker, epoch, end);
        self.hear(says, tale);
    }

    /// The quarantine of what a worker has lost is over.
    pub fn quarantine_passes(&mut self, worker: usize, tale: &mut Tale) {
        let says = self.workers[worker].quarantine_passes(worker);
        self.hear(says, tale);
    }

    /// The quarantine of what its predecessor had forwarded is over.
    pub fn residue_passes(&mut self, tale: &mut Tale) {
        self.drive(Event::Tick, QUARANTINE_OVER, tale);
        self.end_round();
    }

    /// Whoever is not on record has been waited for.
    pub fn solitude_passes(&mut self, tale: &mut Tale) {
        self.drive(Event::Tick, LATER, tale);
        self.end_round();
    }

    fn hear(&mut self, says: Vec<Event>, tale: &mut Tale) {
        for event in says {
            self.drive(event, NOW, tale);
        }
        self.end_round();
    }

    /// It stops in order: nothing runs any more, and its file says that it has left. Returns the file's content.
    pub fn note_leaving(&mut self) -> Memory {
        let empty = self.workers.iter().all(|worker| worker.gate.ledger().is_empty());
        let clean = empty && !self.handoff.has_residue(NOW);
        if clean {
            let record = self.memory.of(TARGET, orders());
            self.memory.put(&TARGET.into(), orders(), Remembered { clean: true, ..record });
        }
        // One that waits for doors that are not on record leaves its own: whoever comes is to wait as long.
        let stays = self.handoff.alone_until().is_some();
        self.joining = Joining::Leaving { clean, joined: self.joined_at.is_some() && !stays };
        self.memory.left.insert(TARGET.into());
        (self.dirty, self.asked) = (false, Vec::new());
        self.to_disk.clear();
        self.memory.clone()
    }
}

// What a step asks before it is taken.
impl Guard {
    /// Whether it has this lease, or a transaction with it on its way.
    pub fn uses_lease(&self, lease: i64) -> bool {
        self.lease == Some(lease) || matches!(self.joining, Joining::OnItsWay { lease: with, .. } if with == lease)
    }
}
