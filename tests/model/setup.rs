//! What a run explores: who is there, what may befall them, and how often.

use epochgate::fence::mechanism::{Mechanism, Mechanisms};

use crate::step::Step;

/// One world to explore.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What it is called in the output.
    pub name: &'static str,
    /// What is in force.
    pub mechanisms: Mechanisms,
    /// The guards; each a door of its own.
    pub doors: Vec<DoorSetup>,
    /// How many workers each has.
    pub workers: usize,
    /// How many writers there are.
    pub writers: usize,
    /// Whether both writers run under one id.
    pub one_id: bool,
    /// So many terms are minted at most.
    pub terms: usize,
    /// So many writes are under way at once, at most.
    pub writes: usize,
    /// Whether writes wait in pools and queues before they are stamped.
    pub pools: bool,
    /// Whether disks and workers do at once what they are told; else some time later.
    pub prompt: bool,
    /// Whether reading and committing are steps of their own, and so are a result and hearing of it.
    pub fine: bool,
    /// Whether a process's view of the coordinator is part of the state.
    pub views: bool,
    /// Whether it begins with the first term open, instead of with nothing.
    pub begun: bool,
    /// What has happened after that, before exploring begins: so that a long way to a small place need not be found.
    pub so_far: &'static [Step],
    /// What may befall them.
    pub faults: Faults,
    /// Whether the target goes on with a write for longer than the quarantine.
    pub slow_target: bool,
    /// Whether a guard that closes without a session may have a write running for longer than its session.
    pub long_patience: bool,
    /// Whether a gate compares a write first, and counts it only when it leaves.
    pub counts_late: bool,
    /// Whether a door reads the epoch before it joins, instead of after.
    pub reads_first: bool,
    /// Whether a guard that an operator has said is dead may be started again.
    pub dead_come_back: bool,
    /// Whether what a leader has read counts too; then its sidecar lets no request pass before it is armed. Else all pass:
    /// R1 does not depend on it.
    pub reads: bool,
    /// Whether this is the way back: no fault, no bound.
    pub is_calm: bool,
    /// In which states the way back is tried: in one of so many; 0: in none.
    pub recovery: u64,
    /// No more steps than this from the beginning; 0: as many as there are.
    pub depth: usize,
    /// It stops when so many steps have been looked at: what is cut off is said.
    pub most: usize,
}

/// One guard.
#[derive(Clone, Copy, Debug)]
pub struct DoorSetup {
    /// Whether it closes without a session.
    pub closes: bool,
    /// Whether others may stand beside it.
    pub shared: bool,
    /// Whether it is started with the world; else later.
    pub at_once: bool,
}

/// How often each may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Faults {
    /// A writer's lease lapses, though it lives.
    pub writer_lapses: u8,
    /// A guard's lease lapses, though it lives.
    pub door_lapses: u8,
    /// A guard is killed.
    pub crashes: u8,
    /// A guard is stopped in order.
    pub stops: u8,
    /// A dead guard's host comes back with the state directory of a day before.
    pub old_copies: u8,
    /// The disk fails.
    pub disk_failures: u8,
    /// An answer of the coordinator does not come.
    pub unclear: u8,
    /// The coordinator is wiped.
    pub wipes: u8,
    /// The coordinator is restored from a backup.
    pub restores: u8,
    /// A write arrives twice.
    pub duplicates: u8,
    /// A stamp of an epoch that nobody has minted.
    pub forged_epochs: u8,
    /// A stamp of a present epoch with another nonce.
    pub forged_nonces: u8,
    /// A report at the end of all epochs.
    pub forged_reports: u8,
}

impl Setup {
    /// One sole door with one worker, two writers, and nothing that befalls them.
    pub fn sole(name: &'static str) -> Setup {
        Setup {
            name,
            mechanisms: Mechanisms::all(),
            doors: vec![DoorSetup { closes: false, shared: false, at_once: true }],
            workers: 1,
            writers: 2,
            one_id: false,
            terms: 2,
            writes: 2,
            pools: false,
            prompt: false,
            fine: false,
            views: false,
            begun: false,
            so_far: &[],
            faults: Faults::default(),
            slow_target: false,
            long_patience: false,
            counts_late: false,
            reads_first: false,
            dead_come_back: false,
            reads: true,
            is_calm: false,
            recovery: 0,
            depth: 0,
            most: 3_000_000,
        }
    }

    /// The same without one mechanism.
    pub fn without(mut self, mechanism: Mechanism) -> Setup {
        self.mechanisms = self.mechanisms.without(mechanism);
        self
    }

    /// The same with this changed.
    pub fn with(mut self, change: impl FnOnce(&mut Setup)) -> Setup {
        change(&mut self);
        self
    }

    /// Whether it matters what writers read while they lead, and what guards report: not where all requests pass, armed
    /// or not, and no floor is above the epoch that the coordinator has.
    pub fn heeds_reports(&self) -> bool {
        let shared = self.doors.iter().any(|door| door.shared);
        self.is_calm || self.reads || self.views || shared || self.may_go_back()
    }

    /// Whether it matters how long the lease of a guard that is gone goes on.
    pub fn heeds_old_leases(&self) -> bool {
        self.reads || self.doors.iter().any(|door| door.closes)
    }

    /// Whether the coordinator may go back.
    pub fn may_go_back(&self) -> bool {
        self.faults.wipes + self.faults.restores > 0
    }
}
