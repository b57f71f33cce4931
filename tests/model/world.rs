//! The whole state: who is there, what is under way, what has happened so far as a rule depends on it.

use epochgate::coordinator::store::{Change, Txn};
use epochgate::fence::floor::Memory;
use epochgate::fence::{Epoch, Nonce, Term};

use crate::candidate::Writer;
use crate::coordinator::Coordinator;
use crate::guard::{Guard, Kind};
use crate::part::Part;
use crate::peers::Sighted;
use crate::rules::Rule;
use crate::setup::{Faults, Setup};
use crate::tale::Tale;
use crate::words::{nonce, writer_id};
use crate::write::{Target, Write};

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub coordinator: Coordinator,
    pub writers: Vec<Part<Writer>>,
    pub doors: Vec<Door>,
    /// In order, so that the same writes are the same state.
    pub writes: Vec<Write>,
    pub target: Target,
    /// Every term that was minted, and by which process.
    pub minted: Vec<(Term, usize)>,
    /// Elections without an answer that may still be carried out: the transaction, the term, its writer, and whether it was
    /// decided on before the coordinator was wiped or restored.
    pub late: Vec<(Txn, Term, usize, bool)>,
    /// The highest epoch under which a request has passed its writer's sidecar: what is older has landed, or never will.
    pub settled: Option<Epoch>,
    /// What may still befall it.
    pub left: Faults,
    /// Whether what armed leaders have read counts, and sidecars hold what comes before.
    pub reads: bool,
    /// The first rule that was broken.
    pub broken: Option<Rule>,
}

/// One door: its state directory, and the process over it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Door {
    pub disk: Part<Memory>,
    /// An older copy of the state directory.
    pub copy: Option<Part<Memory>>,
    pub guard: Option<Part<Guard>>,
    /// Whether it has ever been started.
    pub known: bool,
    /// Whether an operator has said that it is dead.
    pub is_dead: bool,
    /// The highest epoch that its processes before the present one have let a write in for.
    pub admitted: Option<Epoch>,
}

impl World {
    /// Nothing has happened yet: the guards that are there at once are about to join, and nobody leads.
    pub fn new(setup: &Setup) -> World {
        let mut coordinator = Coordinator::new();
        let writers = (0..setup.writers).map(|number| {
            let id = writer_id(if setup.one_id { 0 } else { number });
            let lease = writer_lease(number, 0);
            coordinator.grant(lease);
            Part::new(Writer::new(number, id, lease, setup.mechanisms, setup.views))
        });
        let mut world = World {
            writers: writers.collect(),
            coordinator,
            doors: setup.doors.iter().map(|_| Door::new()).collect(),
            writes: Vec::new(),
            target: Target::default(),
            minted: Vec::new(),
            late: Vec::new(),
            settled: None,
            reads: setup.reads,
            left: setup.faults,
            broken: None,
        };
        for (number, _) in setup.doors.iter().enumerate().filter(|(_, door)| door.at_once) {
            world.start(number, setup, &mut Tale::unread());
        }
        world
    }

    /// The process of a door starts, with what its state directory says.
    pub fn start(&mut self, number: usize, setup: &Setup, tale: &mut Tale) {
        let kind = Kind {
            number,
            closes: setup.doors[number].closes,
            shared: setup.doors[number].shared,
            workers: setup.workers,
            mechanisms: setup.mechanisms,
            keeps_view: setup.views,
            counts_late: setup.counts_late,
            reads_first: setup.reads_first,
            minds_revisions: setup.may_go_back(),
        };
        let door = &mut self.doors[number];
        door.known = true;
        door.guard = Some(Part::new(Guard::start(kind, (*door.disk).clone(), tale)));
    }

    /// Has a running guard do something.
    pub fn with_guard<R>(&mut self, door: usize, change: impl FnOnce(&mut Guard, &mut Coordinator) -> R) -> Option<R> {
        let coordinator = &mut self.coordinator;
        let guard = self.doors[door].guard.as_mut()?;
        Some(guard.edit(|guard| change(guard, coordinator)))
    }

    /// Has a writer do something.
    pub fn with_writer<R>(&mut self, number: usize, change: impl FnOnce(&mut Writer, &mut Coordinator) -> R) -> R {
        let coordinator = &mut self.coordinator;
        self.writers[number].edit(|writer| change(writer, coordinator))
    }

    /// The process of a door, where it runs.
    pub fn guard(&self, door: usize) -> Option<&Guard> {
        self.doors[door].guard.as_deref()
    }

    /// The smallest number that no term has for a nonce.
    pub fn fresh_nonce(&self) -> Nonce {
        let used = |candidate: &Nonce| {
            let is = |term: &Term| term.nonce == *candidate;
            let late = self.late.iter().any(|(_, term, ..)| is(term));
            late || self.minted.iter().any(|(term, _)| is(term)) || self.writers.iter().any(|writer| writer.knows(is))
        };
        (1..=u8::MAX).map(nonce).find(|candidate| !used(candidate)).expect("there are few terms")
    }

    /// A lease for this writer or door that no process has, or had under a transaction that is on its way.
    pub fn fresh_lease(&self, base: i64) -> i64 {
        let used = |lease: i64| {
            self.coordinator.has_lease(lease)
                || self.late.iter().any(|(txn, ..)| goes_with(txn, lease))
                || self.writers.iter().any(|writer| writer.lease == lease)
                || self.doors.iter().filter_map(|door| door.guard.as_ref()).any(|guard| guard.uses_lease(lease))
        };
        (base..).find(|lease| !used(*lease)).expect("there are few leases")
    }

    /// Whether a process has this lease.
    pub fn owns(&self, lease: i64) -> bool {
        let of_a_writer = self.writers.iter().any(|writer| writer.lease == lease);
        of_a_writer || self.doors.iter().filter_map(|door| door.guard.as_ref()).any(|guard| guard.uses_lease(lease))
    }

    /// A rule is broken; the first one counts.
    pub fn breaks(&mut self, rule: Rule) {
        self.broken.get_or_insert(rule);
    }

    /// Makes states alike that nobody can tell apart: sorts what has no order, and numbers revisions anew.
    pub fn tidy(&mut self, setup: &Setup) {
        self.writes.sort_unstable();
        for lease in self.coordinator.leases_without_keys() {
            if !self.owns(lease) {
                self.coordinator.end_lease(lease);
            }
        }
        let is_plain = !setup.fine && !setup.views && !setup.may_go_back();
        if !is_plain {
            return;
        }
        let guards = self.doors.iter().filter_map(|door| door.guard.as_ref());
        let of_guards = guards.flat_map(|guard| {
            let sighted = guard.sighted.iter().chain(&guard.peers.sighted);
            guard.joined_at.into_iter().chain(sighted.map(|(_, at, _)| *at))
        });
        let numbers = self.coordinator.renumber(of_guards);
        if numbers.is_empty() {
            return;
        }
        for guard in self.doors.iter_mut().filter_map(|door| door.guard.as_mut()) {
            let joined_at = guard.joined_at.map(|at| numbers[&at]);
            let renumbered = |sighted: &[Sighted]| -> Vec<Sighted> {
                sighted.iter().map(|(of, at, alive)| (*of, numbers[at], *alive)).collect()
            };
            let (sighted, peers) = (renumbered(&guard.sighted), renumbered(&guard.peers.sighted));
            if joined_at != guard.joined_at || sighted != guard.sighted || peers != guard.peers.sighted {
                guard.edit(|guard| (guard.joined_at, guard.sighted, guard.peers.sighted) = (joined_at, sighted, peers));
            }
        }
        for writer in self.writers.iter_mut().filter(|writer| writer.speaks_of_revisions()) {
            writer.edit(Writer::forget_revisions);
        }
    }
}

impl Door {
    fn new() -> Door {
        Door {
            disk: Part::new(Memory::default()),
            copy: None,
            guard: None,
            known: false,
            is_dead: false,
            admitted: None,
        }
    }
}

/// Whether a transaction puts something that goes with this lease.
fn goes_with(txn: &Txn, lease: i64) -> bool {
    txn.changes.iter().any(|change| matches!(change, Change::Put { lease: Some(with), .. } if with.0 == lease))
}

/// The leases of a writer, from the first on.
pub fn writer_lease(number: usize, count: i64) -> i64 {
    100 * (i64::try_from(number).expect("few writers") + 1) + count
}

/// The leases of a door, from the first on.
pub fn door_lease(number: usize) -> i64 {
    1_000 * (i64::try_from(number).expect("few doors") + 1)
}
