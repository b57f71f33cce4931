//! What may happen to guards and their processes.

use epochgate::coordinator::doors as records;
use epochgate::coordinator::keys;
use epochgate::coordinator::store::{Keys, Range};
use epochgate::fence::gate::Order;

use crate::claim::mark_left;
use crate::guard::Joining;
use crate::part::Part;
use crate::plain::is_idle;
use crate::setup::Setup;
use crate::step::Step;
use crate::steps::spend;
use crate::tale::Tale;
use crate::words::{LATER, NOW, TARGET, door_name};
use crate::world::{World, door_lease};
use crate::write::{Sent, Stage};

impl World {
    // ---- processes of guards -----------------------------------------------------------------------------------------

    pub fn process_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
        match step {
            Step::Start(door) => {
                let is_off = self.doors[door].guard.is_none() && (!self.doors[door].is_dead || setup.dead_come_back);
                is_off && {
                    self.start(door, setup, tale);
                    true
                }
            }
            Step::Copy(door) => {
                let useful = self.left.old_copies > 0 && self.doors[door].copy.is_none() && self.doors[door].known;
                useful && {
                    self.doors[door].copy = Some(self.doors[door].disk.clone());
                    true
                }
            }
            Step::StartFromCopy(door) => {
                let is_off = self.doors[door].guard.is_none();
                let Some(copy) = self.doors[door].copy.clone().filter(|_| is_off) else { return false };
                spend(&mut self.left.old_copies) && {
                    self.doors[door].disk = copy;
                    self.start(door, setup, tale);
                    true
                }
            }
            Step::Crash(door) => {
                self.doors[door].guard.is_some() && spend(&mut self.left.crashes) && {
                    let lease = self.guard(door).and_then(|guard| guard.lease).filter(|_| !setup.heeds_old_leases());
                    self.guard_is_gone(door);
                    lease.into_iter().for_each(|lease| self.coordinator.end_lease(lease));
                    true
                }
            }
            Step::Stop(door) => self.stop(door),
            Step::Depart(door) => {
                let leaves =
                    matches!(self.guard(door), Some(guard) if matches!(guard.joining, Joining::Leaving { .. }));
                leaves && {
                    self.with_guard(door, |guard, coordinator| guard.depart(coordinator));
                    self.guard_is_gone(door);
                    true
                }
            }
            Step::Forget(door) => self.forget(door),
            _ => false,
        }
    }

    /// In order: nothing runs any more, and the floor file says that the door has left.
    fn stop(&mut self, door: usize) -> bool {
        let busy = self.writes.iter().any(|write| match write.stage {
            Stage::LetIn { door: at, .. } | Stage::Applied { door: at, .. } => at == door,
            Stage::Sent { door: at, as_: Sent::Running(_), .. } => at == door,
            _ => false,
        });
        let stops = matches!(self.guard(door), Some(guard) if !matches!(guard.joining, Joining::Leaving { .. }));
        if busy || !stops || !spend(&mut self.left.stops) {
            return false;
        }
        if let Some(memory) = self.with_guard(door, |guard, _| guard.note_leaving()) {
            self.doors[door].disk = Part::new(memory);
        }
        true
    }

    /// An operator says that a door is dead, and is right: it never comes back from where it was.
    fn forget(&mut self, door: usize) -> bool {
        let is_off = self.doors[door].guard.is_none() && self.doors[door].known && !self.doors[door].is_dead;
        is_off && self.doors.len() > 1 && {
            mark_left(&mut self.coordinator, door);
            self.doors[door].is_dead = true;
            true
        }
    }

    // ---- guards ------------------------------------------------------------------------------------------------------

    pub fn guard_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
        let door = match step {
            Step::Follow(door, _) | Step::Quarantine(door, _) => door,
            Step::GuardLapses(door)
            | Step::GuardRenews(door)
            | Step::GuardSession(door)
            | Step::SessionRunsOut(door)
            | Step::Plan(door)
            | Step::PlanWhenWaitedOut(door)
            | Step::Join(door)
            | Step::JoinUnanswered(door)
            | Step::Read(door)
            | Step::ReadWhenWaitedOut(door)
            | Step::Report(door)
            | Step::Disk(door)
            | Step::DiskFails(door)
            | Step::Residue(door)
            | Step::Solitude(door) => door,
            _ => return false,
        };
        let Some(guard) = self.guard(door) else { return false };
        if matches!(guard.joining, Joining::Leaving { .. }) {
            return false;
        }
        match step {
            Step::Follow(_, worker) => self.follow(door, worker, tale),
            Step::Quarantine(_, worker) => {
                let over = setup.slow_target || !self.may_still_land(door, |as_| as_ == Sent::Lost(worker));
                over && guard.workers[worker].gate.ledger().lost() > 0 && {
                    self.with_guard(door, |guard, _| guard.quarantine_passes(worker, tale));
                    true
                }
            }
            Step::Residue(_) => {
                let over = setup.slow_target || !self.may_still_land(door, |as_| as_ == Sent::Orphan);
                over && guard.handoff.has_residue(NOW) && {
                    self.with_guard(door, |guard, _| guard.residue_passes(tale));
                    true
                }
            }
            Step::Solitude(_) => {
                let over = self.the_unrecorded_are_over(setup, door);
                over && guard.handoff.alone_until().is_some() && {
                    self.with_guard(door, |guard, _| guard.solitude_passes(tale));
                    true
                }
            }
            Step::Disk(_) => {
                let memory = self.with_guard(door, |guard, _| guard.disk_has_it(tale)).flatten();
                memory.is_some_and(|memory| {
                    self.doors[door].disk = Part::new(memory);
                    true
                })
            }
            Step::DiskFails(_) => {
                !guard.to_disk.is_empty() && spend(&mut self.left.disk_failures) && {
                    self.with_guard(door, |guard, _| guard.disk_fails(tale));
                    true
                }
            }
            _ => self.guard_asks(setup, step, door, tale),
        }
    }

    /// The disk and the workers of a guard do what they are told.
    pub fn catch_up(&mut self, door: usize, setup: &Setup, tale: &mut Tale) {
        let mut steps: Vec<Step> = (0..setup.workers).map(|worker| Step::Follow(door, worker)).collect();
        steps.push(Step::Disk(door));
        while steps.iter().any(|step| !is_idle(self, *step) && self.guard_does(setup, *step, tale)) {}
    }

    fn follow(&mut self, door: usize, worker: usize, tale: &mut Tale) -> bool {
        let order = self.with_guard(door, |guard, _| guard.worker_follows(worker, tale)).flatten();
        if let Some(Order::Open(term)) = &order {
            tale.add(|| format!("from now on it lets {} in", term.epoch));
        }
        order.is_some()
    }

    /// What a guard does with the coordinator.
    fn guard_asks(&mut self, setup: &Setup, step: Step, door: usize, tale: &mut Tale) -> bool {
        let Some(guard) = self.guard(door) else { return false };
        let has_session = guard.lease.is_some_and(|lease| self.coordinator.has_lease(lease));
        match step {
            Step::GuardLapses(_) => {
                let lease = guard.lease;
                has_session && spend(&mut self.left.door_lapses) && {
                    self.with_guard(door, |guard, _| guard.is_late = true);
                    lease.into_iter().for_each(|lease| self.coordinator.end_lease(lease));
                    true
                }
            }
            Step::GuardRenews(_) => {
                guard.is_late && has_session && {
                    self.with_guard(door, |guard, _| guard.renew_session(tale));
                    true
                }
            }
            Step::GuardSession(_) => {
                !has_session && {
                    let lease = self.fresh_lease(door_lease(door));
                    self.session_ends(door);
                    self.with_guard(door, |guard, coordinator| guard.begin_session(coordinator, lease, tale));
                    true
                }
            }
            Step::SessionRunsOut(_) => {
                guard.is_late && guard.kind.closes && {
                    self.with_guard(door, |guard, _| guard.session_runs_out(tale));
                    true
                }
            }
            Step::Plan(_) => guard.joining == Joining::Due && self.plan(setup, step, door, false, tale),
            Step::PlanWhenWaitedOut(_) => {
                let over = guard.joining == Joining::Due && self.others_are_over(setup, door);
                over && self.plan(setup, step, door, true, tale)
            }
            Step::Join(_) => {
                matches!(guard.joining, Joining::OnItsWay { .. }) && {
                    self.with_guard(door, |guard, coordinator| guard.join(coordinator, true, tale));
                    true
                }
            }
            Step::JoinUnanswered(_) => {
                matches!(guard.joining, Joining::OnItsWay { .. }) && spend(&mut self.left.unclear) && {
                    self.with_guard(door, |guard, coordinator| guard.join(coordinator, false, tale));
                    true
                }
            }
            Step::Read(_) => {
                guard.lease.is_some() && {
                    self.with_guard_again(door, step, tale, |guard, at, tale| guard.read(at, NOW, tale));
                    true
                }
            }
            Step::ReadWhenWaitedOut(_) => {
                let waits = guard.kind.shared && guard.joined_at.is_some() && !guard.peers.sighted.is_empty();
                waits && self.others_are_over(setup, door) && {
                    self.with_guard_again(door, step, tale, |guard, at, tale| guard.read(at, LATER, tale))
                }
            }
            Step::Report(_) => {
                guard.would_report() && setup.heeds_reports() && {
                    self.with_guard_again(door, step, tale, |guard, at, tale| {
                        guard.report(at, tale);
                        true
                    })
                }
            }
            _ => false,
        }
    }

    fn plan(&mut self, setup: &Setup, step: Step, door: usize, late: bool, tale: &mut Tale) -> bool {
        let now = if late { LATER } else { NOW };
        let planned = self.with_guard_again(door, step, tale, |guard, at, tale| guard.plan_to_join(at, now, tale));
        if planned && !setup.fine {
            self.with_guard(door, |guard, coordinator| guard.join(coordinator, true, tale));
        }
        planned
    }

    /// Whether every other door that is on record and gone may have been waited out: it has left, is dead, or its session
    /// has run out, and what it has sent is over. (A write that still waits for its answer has as long as one that was
    /// given up, unless the guard's patience is longer than its session.)
    fn others_are_over(&self, setup: &Setup, but: usize) -> bool {
        let read = self.coordinator.read(&[Range::all(Keys::Under(keys::doors(TARGET)))]);
        let doors = records::among(read.ranges.iter().flatten());
        (0..self.doors.len()).filter(|other| *other != but).all(|other| {
            let Some(door) = doors.iter().find(|door| door.name == door_name(other)) else { return true };
            if door.alive && !door.record.left {
                return true;
            }
            let bounded = |as_| !matches!(as_, Sent::Running(_)) || !(door.record.left || setup.long_patience);
            (self.is_silent(other) || door.record.left) && (setup.slow_target || !self.may_still_land(other, bounded))
        })
    }

    /// Whether every door that is not on record may have been waited for: whatever session it had from before has run out,
    /// and what it sent in it is over.
    fn the_unrecorded_are_over(&self, setup: &Setup, but: usize) -> bool {
        (0..self.doors.len()).all(|other| {
            let renewed = |lease| self.coordinator.has_lease(lease);
            let is_back = self.guard(other).and_then(|guard| guard.lease).is_some_and(renewed);
            let quiet = other == but || is_back || self.is_silent(other);
            let still = match is_back || other == but {
                true => self.may_land_from_before(other),
                false => self.may_still_land(other, |as_| !(setup.long_patience && matches!(as_, Sent::Running(_)))),
            };
            quiet && (setup.slow_target || !still)
        })
    }

    /// Whether a door sends nothing: it is dead, or closes without a session and has none.
    fn is_silent(&self, door: usize) -> bool {
        self.guard(door).is_none_or(|guard| guard.kind.closes && (guard.is_late || guard.joined_at.is_none()))
    }
}
