//! What plainly cannot happen, told before a state is copied to try it. It only saves time: [`take`](crate::steps::take)
//! finds the same.

use crate::candidate::Candidacy;
use crate::guard::{Guard, Joining};
use crate::step::Step;
use crate::world::World;

/// Whether this step would change nothing.
pub fn is_idle(world: &World, step: Step) -> bool {
    let left = &world.left;
    match step {
        Step::Commit(writer) => !world.writers[writer].is_on_its_way(),
        Step::HearOfElection(writer) => !matches!(world.writers[writer].candidacy, Candidacy::Done(..)),
        Step::Resign(writer) => !matches!(world.writers[writer].candidacy, Candidacy::Resigning(_)),
        Step::Campaign(writer) => !world.writers[writer].may_campaign(),
        Step::WriterRenews(writer) => !world.writers[writer].is_late,
        Step::WriterLapses(_) => left.writer_lapses == 0,
        Step::LoseAnswer(_) => left.unclear == 0,
        Step::Start(door) => world.guard(door).is_some(),
        Step::StartFromCopy(_) | Step::Copy(_) => left.old_copies == 0,
        Step::Crash(_) => left.crashes == 0,
        Step::Stop(_) => left.stops == 0,
        Step::GuardLapses(_) => left.door_lapses == 0,
        Step::DiskFails(_) => left.disk_failures == 0,
        Step::JoinUnanswered(_) => left.unclear == 0,
        Step::Depart(door) => !has(world, door, |guard| matches!(guard.joining, Joining::Leaving { .. })),
        Step::GuardRenews(door) | Step::SessionRunsOut(door) => !has(world, door, |guard| guard.is_late),
        Step::Plan(door) | Step::PlanWhenWaitedOut(door) => !has(world, door, |guard| guard.joining == Joining::Due),
        Step::Join(door) => !has(world, door, |guard| matches!(guard.joining, Joining::OnItsWay { .. })),
        Step::Report(door) => !has(world, door, Guard::would_report),
        Step::Read(door) => !has(world, door, |guard| guard.lease.is_some()),
        Step::ReadWhenWaitedOut(door) => !has(world, door, |guard| !guard.peers.sighted.is_empty()),
        Step::Solitude(door) => !has(world, door, |guard| guard.handoff.alone_until().is_some()),
        Step::Disk(door) => !has(world, door, |guard| !guard.to_disk.is_empty()),
        Step::Follow(door, worker) => !has(world, door, |guard| !guard.workers[worker].orders.is_empty()),
        Step::Quarantine(door, worker) => !has(world, door, |guard| guard.workers[worker].gate.ledger().lost() > 0),
        Step::Duplicate(_) => left.duplicates == 0,
        Step::ForgeEpoch => left.forged_epochs == 0,
        Step::ForgeNonce => left.forged_nonces == 0,
        Step::ForgeReport => left.forged_reports == 0,
        Step::BackUp | Step::Restore => left.restores == 0,
        Step::Wipe => left.wipes == 0,
        _ => false,
    }
}

fn has(world: &World, door: usize, what: impl Fn(&Guard) -> bool) -> bool {
    world.guard(door).is_some_and(what)
}
