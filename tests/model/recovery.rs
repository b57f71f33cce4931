//! Liveness, as a way back: with the faults over, and everybody doing what it does by itself, a leader's write is admitted
//! again. From a state there is one such way, always the same; it is tried in the state itself.

use epochgate::fence::gate::Verdict;
use epochgate::fence::tenure::{Unarmed, Verdict as Standing, Wish};

use crate::setup::{Faults, Setup};
use crate::step::Step;
use crate::steps::take;
use crate::tale::Tale;
use crate::words::{TARGET, orders};
use crate::world::World;
use crate::write::{By, Sent, Stage, Stamped, Write};

/// A way back that is longer than this goes round in circles.
const LONG: usize = 400;

/// Why there is no way back.
#[derive(Debug)]
pub struct Stuck {
    /// Why, in words.
    pub why: String,
    /// What was done until then.
    pub steps: Vec<Step>,
}

/// Whether there is a way back from this state.
pub fn recovers(world: &World, setup: &Setup) -> Result<World, Stuck> {
    let calm = Setup { terms: usize::MAX, slow_target: false, is_calm: true, ..setup.clone() };
    let mut world = World { left: Faults::default(), ..world.clone() };
    // What is still on its way to a guard never arrives.
    world
        .writes
        .retain(|write| matches!(write.stage, Stage::LetIn { .. } | Stage::Sent { .. } | Stage::Applied { .. }));
    let mut steps = Vec::new();
    while steps.len() < LONG {
        let Some((step, next)) = next_step(&world, &calm) else {
            return match is_served(&world) {
                Ok(()) => Ok(world),
                Err(why) => Err(Stuck { why, steps }),
            };
        };
        steps.push(step);
        world = next;
    }
    Err(Stuck { why: "it goes round in circles".to_owned(), steps })
}

/// The first of the steps that anybody does by itself that changes anything.
fn next_step(world: &World, setup: &Setup) -> Option<(Step, World)> {
    in_order(world).into_iter().find_map(|step| Some((step, take(world, setup, step, &mut Tale::unread())?)))
}

fn in_order(world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, write) in world.writes.iter().enumerate() {
        steps.extend(match write.stage {
            Stage::LetIn { .. } => Some(Step::Send(at)),
            Stage::Sent { as_: Sent::Running(_), .. } | Stage::Applied { .. } => Some(Step::Answer(at)),
            Stage::Sent { .. } => Some(Step::Vanish(at)),
            _ => None,
        });
    }
    for (door, state) in world.doors.iter().enumerate() {
        // One that was never there need not come.
        steps.extend(state.known.then_some(Step::Start(door)));
        steps.extend([Step::Depart(door), Step::Disk(door), Step::GuardRenews(door), Step::GuardSession(door)]);
        let workers = state.guard.as_ref().map_or(0, |guard| guard.workers.len());
        steps.extend((0..workers).map(|worker| Step::Follow(door, worker)));
        steps.extend([Step::Join(door), Step::Read(door), Step::Plan(door), Step::Report(door)]);
    }
    for writer in 0..world.writers.len() {
        steps.extend([
            Step::WriterRenews(writer),
            Step::WriterSession(writer),
            Step::Commit(writer),
            Step::HearOfElection(writer),
        ]);
        steps.extend([Step::Look(writer), Step::Resign(writer)]);
    }
    steps.extend((0..world.writers.len()).map(Step::Campaign));
    steps.extend(world.coordinator.leases().map(Step::OldLeaseEnds));
    for (door, state) in world.doors.iter().enumerate() {
        let workers = state.guard.as_ref().map_or(0, |guard| guard.workers.len());
        steps.extend((0..workers).map(|worker| Step::Quarantine(door, worker)));
        steps.extend([
            Step::Residue(door),
            Step::PlanWhenWaitedOut(door),
            Step::ReadWhenWaitedOut(door),
            Step::Solitude(door),
        ]);
    }
    steps
}

/// Whether a writer leads, is armed, and every guard that stands before the target lets its write in.
fn is_served(world: &World) -> Result<(), String> {
    let leader = world.writers.iter().find_map(|writer| {
        let wish = Wish { bound_to: writer.standing.version, expected: None, unarmed: Unarmed::Hold };
        match writer.standing.stamp(orders(), writer.clock(), wish) {
            Standing::Stamp(stamped) => Some((stamped.term().clone(), writer.number)),
            _ => None,
        }
    });
    let Some((term, writer)) = leader else { return Err("no writer may stamp".to_owned()) };
    let stamp = Some(Stamped::of(&term, By::Writer(writer)));
    let Some(stamp) = (Write { stamp, stage: Stage::OnItsWay { twice: false } }).stamp() else {
        return Err("it has no stamp".to_owned());
    };
    let mut serves = false;
    for guard in world.doors.iter().filter_map(|door| door.guard.as_ref()) {
        if guard.joined_at.is_none() {
            continue;
        }
        for worker in &guard.workers {
            let verdict = worker.clone().admit(&stamp, guard.session_clock());
            if !matches!(verdict, Verdict::Admit(..)) {
                return Err(format!("{} does not let a write of {} in: {verdict:?}", guard.name(), term.epoch));
            }
        }
        serves = true;
    }
    if serves { Ok(()) } else { Err(format!("no guard stands before {TARGET}")) }
}
