//! Everything that can happen next, one step at a time.

use crate::plain::is_idle;
use crate::setup::Setup;
use crate::step::Step;
use crate::tale::Tale;
use crate::world::World;
use crate::write::{Sent, Stage};

/// What could happen in this state; some of it may turn out to change nothing.
pub fn candidates(world: &World, setup: &Setup, steps: &mut Vec<Step>) {
    if world.broken.is_some() {
        return;
    }
    for writer in 0..world.writers.len() {
        steps.extend([
            Step::Campaign(writer),
            Step::Commit(writer),
            Step::HearOfElection(writer),
            Step::LoseAnswer(writer),
            Step::Look(writer),
            Step::Resign(writer),
            Step::WriterLapses(writer),
            Step::WriterRenews(writer),
            Step::WriterSession(writer),
            Step::Write(writer),
        ]);
        if setup.pools {
            steps.extend([Step::Queue(writer), Step::Accept(writer), Step::Expect(writer)]);
        }
    }
    for door in 0..world.doors.len() {
        steps.extend([
            Step::Start(door),
            Step::StartFromCopy(door),
            Step::Copy(door),
            Step::Crash(door),
            Step::Stop(door),
            Step::Depart(door),
            Step::GuardLapses(door),
            Step::GuardRenews(door),
            Step::GuardSession(door),
            Step::SessionRunsOut(door),
            Step::Plan(door),
            Step::PlanWhenWaitedOut(door),
            Step::Join(door),
            Step::JoinUnanswered(door),
            Step::Read(door),
            Step::ReadWhenWaitedOut(door),
            Step::Report(door),
            Step::Disk(door),
            Step::DiskFails(door),
            Step::Residue(door),
            Step::Solitude(door),
            Step::Forget(door),
        ]);
        for worker in 0..setup.workers {
            steps.extend([Step::Follow(door, worker), Step::Quarantine(door, worker)]);
        }
    }
    for at in 0..world.writes.len() {
        // The same write stands there twice: what befalls one befalls the other.
        if at > 0 && world.writes[at] == world.writes[at - 1] {
            continue;
        }
        write_steps(world, setup, at, steps);
    }
    steps.extend((0..world.late.len()).map(Step::CommitLate));
    steps.extend(world.coordinator.leases().map(Step::OldLeaseEnds));
    steps.extend([Step::ForgeEpoch, Step::ForgeNonce, Step::ForgeReport, Step::BackUp, Step::Restore, Step::Wipe]);
}

fn write_steps(world: &World, setup: &Setup, at: usize, steps: &mut Vec<Step>) {
    match world.writes[at].stage {
        Stage::Queued { .. } => {}
        Stage::Pooled { .. } => steps.push(Step::Stamp(at)),
        Stage::OnItsWay { .. } => {
            steps.push(Step::Duplicate(at));
            for door in 0..world.doors.len() {
                steps.extend((0..setup.workers).map(|worker| Step::Arrive(at, door, worker)));
            }
        }
        Stage::LetIn { .. } => steps.push(Step::Send(at)),
        Stage::Sent { as_: Sent::Running(_), .. } => {
            // One that is answered without having been applied is as if it had never been sent.
            steps.extend([Step::Apply(at), Step::Lose(at)]);
        }
        Stage::Sent { .. } => steps.extend([Step::Apply(at), Step::Vanish(at)]),
        Stage::Applied { .. } => steps.push(Step::Answer(at)),
    }
}

/// The state after this step; `None` where it cannot happen, or changes nothing.
pub fn take(world: &World, setup: &Setup, step: Step, tale: &mut Tale) -> Option<World> {
    if is_idle(world, step) {
        return None;
    }
    let mut next = world.clone();
    let versions: Vec<u64> = world.writers.iter().map(|writer| writer.standing.version).collect();
    if !next.happens(setup, step, tale) {
        return None;
    }
    if setup.prompt {
        (0..next.doors.len()).for_each(|door| next.catch_up(door, setup, tale));
    }
    for (writer, before) in versions.into_iter().enumerate() {
        if next.writers[writer].standing.version != before && next.accepts_first(writer) {
            next.accept(writer, before);
        }
    }
    next.tidy(setup);
    (next != *world).then_some(next)
}

/// Whether this may happen still; once less from now on.
pub fn spend(left: &mut u8) -> bool {
    let may = *left > 0;
    *left -= u8::from(may);
    may
}

impl World {
    fn happens(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
        match step {
            Step::Campaign(_)
            | Step::Commit(_)
            | Step::HearOfElection(_)
            | Step::LoseAnswer(_)
            | Step::CommitLate(_)
            | Step::Look(_)
            | Step::Resign(_)
            | Step::WriterLapses(_)
            | Step::WriterRenews(_)
            | Step::WriterSession(_) => self.writer_does(setup, step, tale),
            Step::Start(_)
            | Step::StartFromCopy(_)
            | Step::Copy(_)
            | Step::Crash(_)
            | Step::Stop(_)
            | Step::Depart(_)
            | Step::Forget(_) => self.process_does(setup, step, tale),
            Step::GuardLapses(_)
            | Step::GuardRenews(_)
            | Step::GuardSession(_)
            | Step::SessionRunsOut(_)
            | Step::Plan(_)
            | Step::PlanWhenWaitedOut(_)
            | Step::Join(_)
            | Step::JoinUnanswered(_)
            | Step::Read(_)
            | Step::ReadWhenWaitedOut(_)
            | Step::Report(_)
            | Step::Disk(_)
            | Step::DiskFails(_)
            | Step::Follow(..)
            | Step::Quarantine(..)
            | Step::Residue(_)
            | Step::Solitude(_) => self.guard_does(setup, step, tale),
            Step::Write(_)
            | Step::Queue(_)
            | Step::Accept(_)
            | Step::Expect(_)
            | Step::Stamp(_)
            | Step::ForgeEpoch
            | Step::ForgeNonce
            | Step::Duplicate(_)
            | Step::Arrive(..)
            | Step::Send(_)
            | Step::Apply(_)
            | Step::Answer(_)
            | Step::Lose(_)
            | Step::Vanish(_) => self.write_does(setup, step, tale),
            Step::OldLeaseEnds(lease) => self.old_lease_ends(lease),
            Step::BackUp => self.back_up(),
            Step::Restore => {
                self.coordinator.can_go_back() && spend(&mut self.left.restores) && {
                    self.coordinator.restore();
                    self.coordinator_is_another();
                    true
                }
            }
            Step::Wipe => {
                spend(&mut self.left.wipes) && {
                    self.coordinator.wipe();
                    self.coordinator_is_another();
                    true
                }
            }
            Step::ForgeReport => {
                spend(&mut self.left.forged_reports) && {
                    self.forge_a_report();
                    true
                }
            }
        }
    }
}
