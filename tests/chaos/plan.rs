//! What is going to happen in an episode: from a seed, the same each time.

use std::fmt;
use std::time::Duration;

use crate::clients::Manners;
use crate::support::dice::Dice;

/// How the doors of an episode stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// One, which goes on without the coordinator.
    SoleKeeps,
    /// One, which closes without it.
    SoleCloses,
    /// Several.
    Shared,
}

impl Door {
    /// As lines of a guard's listener.
    pub fn lines(self) -> &'static [&'static str] {
        match self {
            Door::SoleKeeps => &["doors: sole"],
            Door::SoleCloses => &["doors: sole", "on_coordinator_loss: close"],
            Door::Shared => &["doors: shared"],
        }
    }
}

/// What an episode's world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub door: Door,
    pub guards: usize,
    pub stamps: usize,
    pub members: usize,
    /// Whether the stamps go on without the coordinator, past their deadlines.
    pub stamps_keep: bool,
}

crate::faults! {
    // Processes.
    KillStamp "kill-stamp" 12 100 4000;
    KillGuard "kill-guard" 6 50 3000;
    KillGuardAtStep "kill-guard-at-a-step" 6 4000 7000;
    PauseStamp "pause-stamp" 8 1000 10000;
    PauseGuard "pause-guard" 5 1000 8000;
    StopStamp "stop-stamp" 14 50 2000;
    StopGuard "stop-guard" 4 50 2000;
    StepDown "step-down" 28 0 0;
    // The coordinator.
    KillMember "kill-member" 4 200 5000;
    PauseMember "pause-member" 4 1000 6000;
    LoseQuorum "lose-quorum" 3 1000 6000;
    LagMember "lagging-member" 3 2000 7000;
    Wipe "wipe-etcd" 2 0 0;
    Restore "restore-etcd" 2 0 0;
    // Networks.
    GuardUnheard "guard-unheard-by-etcd" 3 1500 7000;
    GuardDeaf "guard-deaf-to-etcd" 3 1500 7000;
    StampUnheard "stamp-unheard-by-etcd" 4 1500 7000;
    StampDeaf "stamp-deaf-to-etcd" 4 1500 7000;
    MembersApart "two-members-apart" 3 1500 7000;
    GuardAtStaleMember "guard-at-a-stale-member" 3 2000 7000;
    StampCutThere "stamp-to-guard-cut-there" 3 500 4000;
    StampCutBack "stamp-to-guard-cut-back" 3 500 4000;
    TargetCutThere "guard-to-target-cut-there" 2 500 3000;
    TargetCutBack "guard-to-target-cut-back" 2 500 3000;
    Weather "weather" 8 2000 8000;
    // Disks.
    DiskWrites "disk-writes-fail" 3 1500 5000;
    DiskSyncs "disk-syncs-fail" 3 1500 5000;
    DiskSlow "disk-slow" 2 1500 5000;
    DiskFull "disk-full" 3 1500 5000;
    StateLost "state-directory-lost" 2 3000 5000;
}

impl Fault {
    /// Whether the network between hosts has to be cut for it.
    pub fn needs_networks(self) -> bool {
        use Fault::*;
        matches!(
            self,
            LagMember
                | GuardUnheard
                | GuardDeaf
                | StampUnheard
                | StampDeaf
                | MembersApart
                | GuardAtStaleMember
                | DiskFull
        )
    }

    /// Whether etcd cannot lose its memory at the same time: a door is cut off or without its floors, or there is no
    /// whole etcd to lose it.
    pub fn forbids_lost_memory(self) -> bool {
        use Fault::*;
        matches!(
            self,
            KillMember
                | PauseMember
                | LoseQuorum
                | LagMember
                | MembersApart
                | GuardAtStaleMember
                | GuardUnheard
                | GuardDeaf
                | StampUnheard
                | StampDeaf
                | StateLost
                | DiskWrites
                | DiskSyncs
                | DiskFull
                | DiskSlow
        )
    }

    /// Whether it makes sense with this many members of etcd.
    fn fits(self, shape: &Shape) -> bool {
        use Fault::*;
        match self {
            LagMember | MembersApart | GuardAtStaleMember | KillMember | LoseQuorum => shape.members >= 3,
            _ => true,
        }
    }
}

/// One thing that is done: `after` the one before it, for so long, to whom `pick` says.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub after: Duration,
    pub fault: Fault,
    pub lasts: Duration,
    pub pick: u64,
}

/// An episode.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shape: Shape,
    pub manners: Manners,
    pub steps: Vec<Step>,
    /// Mechanisms that are taken out, to see that it is found: empty.
    pub without: &'static str,
}

impl Plan {
    /// Some of everything, so many steps.
    pub fn of(seed: u64, steps: usize) -> Plan {
        let mut dice = Dice::of(seed).apart("plan");
        let stamps_keep = dice.per_mille(250);
        let shape = match dice.below(6) {
            0 => Shape { door: Door::SoleKeeps, guards: 1, stamps: 2, members: 1, stamps_keep },
            1 | 2 => Shape { door: Door::SoleKeeps, guards: 1, stamps: 2, members: 3, stamps_keep },
            3 => Shape { door: Door::SoleCloses, guards: 1, stamps: 3, members: 3, stamps_keep },
            4 => Shape { door: Door::Shared, guards: 2, stamps: 2, members: 3, stamps_keep },
            _ => Shape { door: Door::Shared, guards: 3, stamps: 2, members: 3, stamps_keep },
        };
        let weights: Vec<(Fault, usize)> =
            Fault::ALL.iter().filter(|fault| fault.fits(&shape)).map(|fault| (*fault, fault.weight())).collect();
        let faults = (0..steps).map(|_| draw(&weights, &mut dice)).collect::<Vec<_>>();
        Plan::made(seed, shape, &faults, &mut dice)
    }

    /// These faults, in an order that the seed says.
    pub fn with(seed: u64, shape: Shape, faults: &[Fault]) -> Plan {
        let mut dice = Dice::of(seed).apart("plan");
        let mut faults: Vec<Fault> = faults.iter().copied().filter(|fault| fault.fits(&shape)).collect();
        for last in (1..faults.len()).rev() {
            faults.swap(last, dice.below(last + 1));
        }
        Plan::made(seed, shape, &faults, &mut dice)
    }

    fn made(seed: u64, shape: Shape, faults: &[Fault], dice: &mut Dice) -> Plan {
        // A target that is often odd makes every handoff wait for its quarantine: not in each episode.
        let odd_target = *dice.one(&[5, 20, 80]);
        let manners = Manners { odd_target, odd_client: 15 };
        let steps = faults.iter().map(|fault| {
            let (least, most) = fault.lasts();
            Step {
                after: dice.span(Duration::from_millis(100), Duration::from_millis(2200)),
                fault: *fault,
                lasts: dice.span(Duration::from_millis(least), Duration::from_millis(most)),
                pick: dice.number(),
            }
        });
        let steps = steps.collect();
        Plan { seed, shape, manners, steps, without: "" }
    }
}

fn draw(weights: &[(Fault, usize)], dice: &mut Dice) -> Fault {
    let total = weights.iter().map(|(_, weight)| weight).sum();
    let mut at = dice.below(total);
    for (fault, weight) in weights {
        if at < *weight {
            return *fault;
        }
        at -= weight;
    }
    unreachable!("the weights were summed")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { door, guards, stamps, members, stamps_keep } = self.shape;
        let keep = if stamps_keep { " that keep" } else { "" };
        writeln!(
            f,
            "seed {}: {door:?}, {guards} guards, {stamps} stamps{keep}, {members} etcd, {:?}",
            self.seed, self.manners
        )?;
        for step in &self.steps {
            writeln!(
                f,
                "  +{:>4} ms  {} for {} ms",
                step.after.as_millis(),
                step.fault.as_str(),
                step.lasts.as_millis()
            )?;
        }
        Ok(())
    }
}
