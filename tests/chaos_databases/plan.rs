//! What is going to happen in an episode: from a seed, the same each time.

use std::fmt;
use std::time::Duration;

use crate::database::Kind;
use crate::support::dice::Dice;

crate::faults! {
    StepDown "step-down" 12 0 0;
    KillStamp "kill-stamp" 4 50 1500;
    PauseStamp "pause-stamp" 4 1000 4500;
    StopStamp "stop-stamp" 4 50 1000;
    KillGuard "kill-guard" 3 20 1000;
    // Between forwarding and the answer, and the epoch moves on while it is away.
    KillGuardMidway "kill-guard-midway" 5 20 400;
    KillGuardAtStep "kill-guard-at-a-step" 3 1500 2500;
    PauseGuard "pause-guard" 4 500 4000;
    StopGuard "stop-guard" 2 20 1000;
    PauseTarget "pause-database" 4 200 900;
    // Where the guard can ask it what still runs, it may stand still for longer than anybody waits.
    PauseTargetLong "pause-database-for-long" 3 2000 6000;
    WayStandsStill "network-stands-still" 4 300 3500;
    WayBreaks "network-breaks" 3 0 0;
}

impl Fault {
    /// Whether what is promised holds with it: only where time decides what is over, time has to suffice.
    fn fits(self, kind: Kind) -> bool {
        self != Fault::PauseTargetLong || !kind.control().is_empty()
    }
}

/// One thing that is done: `after` the one before it, for so long, to whom `pick` says.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// After the one before it.
    pub after: Duration,
    /// What.
    pub fault: Fault,
    /// For so long.
    pub lasts: Duration,
    /// Whom.
    pub pick: u64,
}

/// An episode.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it follows from.
    pub seed: u64,
    /// Which database.
    pub kind: Kind,
    /// So many of a thousand operations are slow at the database...
    pub slow: u64,
    /// ...and for no longer than this. Where only time says what is over, it is short beside the quarantine.
    pub longest: Duration,
    /// What is done.
    pub steps: Vec<Step>,
    /// Mechanisms that are taken out of the guard, to see that it is found: empty.
    pub without: &'static str,
}

impl Plan {
    /// Some of everything, so many steps.
    pub fn of(seed: u64, kind: Kind, steps: usize) -> Plan {
        let mut dice = Dice::of(seed).apart("plan");
        let fitting: Vec<Fault> = Fault::ALL.iter().copied().filter(|fault| fault.fits(kind)).collect();
        let weighted: Vec<Fault> =
            fitting.iter().flat_map(|fault| std::iter::repeat_n(*fault, fault.weight())).collect();
        let faults: Vec<Fault> = (0..steps).map(|_| *dice.one(&weighted)).collect();
        Plan::made(seed, kind, &faults, &mut dice)
    }

    /// These faults, in an order that the seed says.
    pub fn with(seed: u64, kind: Kind, faults: &[Fault]) -> Plan {
        let mut dice = Dice::of(seed).apart("plan");
        let mut faults: Vec<Fault> = faults.iter().copied().filter(|fault| fault.fits(kind)).collect();
        for last in (1..faults.len()).rev() {
            faults.swap(last, dice.below(last + 1));
        }
        Plan::made(seed, kind, &faults, &mut dice)
    }

    fn made(seed: u64, kind: Kind, faults: &[Fault], dice: &mut Dice) -> Plan {
        let longest = Duration::from_millis(if kind.control().is_empty() { 800 } else { 2500 });
        let slow = *dice.one(&[20, 60, 120]);
        let steps = faults.iter().map(|fault| {
            let (least, most) = fault.lasts();
            Step {
                after: dice.span(Duration::from_millis(200), Duration::from_millis(1600)),
                fault: *fault,
                lasts: dice.span(Duration::from_millis(least), Duration::from_millis(most)),
                pick: dice.number(),
            }
        });
        Plan { seed, kind, slow, longest, steps: steps.collect(), without: "" }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}, {} of 1000 slow", self.seed, self.kind, self.slow)?;
        for Step { after, fault, lasts, .. } in &self.steps {
            writeln!(f, "  +{:>4} ms  {} for {} ms", after.as_millis(), fault.as_str(), lasts.as_millis())?;
        }
        Ok(())
    }
}
