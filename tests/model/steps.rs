//! Everything that can happen next, one step at a time.

use std::fmt;

use epochgate::coordinator::doors as records;
use epochgate::coordinator::keys;
use epochgate::coordinator::records::{Report, from_value, to_value};
use epochgate::coordinator::store::{Change, Committed, Keys, Range, Txn};
use epochgate::fence::gate::{End, Order};
use epochgate::fence::{Epoch, Term};

use crate::candidate::{Candidacy, Writer};
use crate::claim::mark_left;
use crate::guard::Joining;
use crate::part::Part;
use crate::plain::is_idle;
use crate::setup::Setup;
use crate::tale::Tale;
use crate::words::{LATER, NOW, TARGET, door_id, door_name, mallory, nonce, orders, told};
use crate::world::{World, door_lease, writer_lease};
use crate::write::{By, Sent, Stage, Stamped, Write};

/// One thing that happens. Writers, doors, workers and writes go by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    // A writer.
    Campaign(usize),
    Commit(usize),
    HearOfElection(usize),
    LoseAnswer(usize),
    CommitLate(usize),
    Look(usize),
    Resign(usize),
    WriterLapses(usize),
    WriterRenews(usize),
    WriterSession(usize),
    // A guard.
    Start(usize),
    StartFromCopy(usize),
    Copy(usize),
    Crash(usize),
    Stop(usize),
    Depart(usize),
    GuardLapses(usize),
    GuardRenews(usize),
    GuardSession(usize),
    SessionRunsOut(usize),
    Plan(usize),
    PlanWhenWaitedOut(usize),
    Join(usize),
    JoinUnanswered(usize),
    Read(usize),
    ReadWhenWaitedOut(usize),
    Report(usize),
    Disk(usize),
    DiskFails(usize),
    Follow(usize, usize),
    Quarantine(usize, usize),
    Residue(usize),
    Solitude(usize),
    Forget(usize),
    // A write.
    Write(usize),
    Queue(usize),
    Accept(usize),
    Expect(usize),
    Stamp(usize),
    ForgeEpoch,
    ForgeNonce,
    ForgeReport,
    Duplicate(usize),
    Arrive(usize, usize, usize),
    Send(usize),
    Apply(usize),
    Answer(usize),
    Lose(usize),
    Vanish(usize),
    // The coordinator.
    OldLeaseEnds(i64),
    BackUp,
    Restore,
    Wipe,
}

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

fn spend(left: &mut u8) -> bool {
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

    // ---- the coordinator ---------------------------------------------------------------------------------------------

    /// A lease that no process has any more runs out.
    fn old_lease_ends(&mut self, lease: i64) -> bool {
        let is_old = !self.owns(lease);
        if is_old {
            self.coordinator.end_lease(lease);
        }
        is_old
    }

    fn back_up(&mut self) -> bool {
        if self.left.restores == 0 || self.coordinator.is_backed_up() {
            return false;
        }
        self.coordinator.back_up();
        true
    }

    fn coordinator_is_another(&mut self) {
        self.late.iter_mut().for_each(|(.., of_before)| *of_before = true);
        for writer in self.writers.iter_mut().filter(|writer| writer.is_on_its_way()) {
            writer.edit(Writer::outlives_the_coordinator);
        }
    }

    fn forge_a_report(&mut self) {
        let key = keys::report(orders(), TARGET, "ghost");
        let report = Report {
            floor: Epoch::LAST,
            nonce: nonce(255),
            writer: mallory(),
            drained: None,
            forced: None,
            regressed: false,
        };
        let changes = vec![Change::Put { key, value: to_value(&report), lease: None }];
        let _ = self.coordinator.commit(&Txn { compares: Vec::new(), changes });
    }

    // ---- writers -----------------------------------------------------------------------------------------------------

    fn writer_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
        match step {
            Step::Campaign(writer) => self.campaign(setup, writer, tale),
            Step::Commit(writer) => self.commit(setup, writer, tale),
            Step::HearOfElection(writer) => {
                matches!(self.writers[writer].candidacy, Candidacy::Done(..)) && {
                    self.with_writer(writer, |writer, at| writer.hears_of_its_election(at, tale));
                    true
                }
            }
            Step::LoseAnswer(writer) => {
                let waits = matches!(self.writers[writer].candidacy, Candidacy::Done(..) | Candidacy::OnItsWay(..));
                waits && spend(&mut self.left.unclear) && {
                    let of_before = self.writers[writer].is_of_before;
                    let late = self.with_writer(writer, |writer, _| writer.hears_nothing());
                    self.late.extend(late.map(|(txn, term)| (txn, term, writer, of_before)));
                    true
                }
            }
            Step::CommitLate(at) => self.commit_late(at, tale),
            Step::Look(writer) => self.look(setup, step, writer, tale),
            Step::Resign(writer) => {
                matches!(self.writers[writer].candidacy, Candidacy::Resigning(_)) && {
                    self.with_writer(writer, |writer, coordinator| writer.resign(coordinator));
                    true
                }
            }
            Step::WriterLapses(writer) => {
                let lease = self.writers[writer].lease;
                let useful = self.writers[writer].has_something_to_lose() && self.coordinator.has_lease(lease);
                useful && spend(&mut self.left.writer_lapses) && {
                    self.with_writer(writer, |writer, _| writer.is_late = true);
                    self.coordinator.end_lease(lease);
                    true
                }
            }
            // Only where a restored coordinator has a lease again that was gone.
            Step::WriterRenews(writer) => {
                let it = &self.writers[writer];
                it.is_late && self.coordinator.has_lease(it.lease) && {
                    self.with_writer(writer, |writer, _| writer.is_late = false);
                    true
                }
            }
            Step::WriterSession(writer) => {
                // Without a term to win, a new session is no more than the end of the old one.
                let useful = self.minted.len() < setup.terms;
                useful && !self.coordinator.has_lease(self.writers[writer].lease) && {
                    let lease = self.fresh_lease(writer_lease(writer, 0));
                    self.with_writer(writer, |writer, coordinator| writer.begin_session(coordinator, lease));
                    true
                }
            }
            _ => false,
        }
    }

    /// Writers are alike: the first term is sought by the first.
    fn campaign(&mut self, setup: &Setup, writer: usize, tale: &mut Tale) -> bool {
        let out_of_turn = self.minted.is_empty() && (0..writer).any(|before| !self.writers[before].has_begun());
        let full =
            self.minted.len() + self.late.len() + self.writers.iter().filter(|writer| writer.is_on_its_way()).count()
                >= setup.terms;
        if full || out_of_turn || !self.writers[writer].may_campaign() {
            return false;
        }
        let nonce = self.fresh_nonce();
        self.with_writer(writer, |writer, coordinator| writer.campaign(coordinator, nonce, tale));
        if !setup.fine {
            self.commit(setup, writer, tale);
        }
        true
    }

    fn commit(&mut self, setup: &Setup, writer: usize, tale: &mut Tale) -> bool {
        if !self.writers[writer].is_on_its_way() {
            return false;
        }
        let reported = self.reported_floors();
        let of_before = self.writers[writer].is_of_before;
        let minted = self.with_writer(writer, |writer, coordinator| writer.commit(coordinator, tale));
        if let Some(term) = minted {
            self.is_minted(term, writer, &reported, of_before);
            if !setup.fine {
                self.with_writer(writer, |writer, at| writer.hears_of_its_election(at, tale));
            }
        }
        true
    }

    /// A transaction whose writer waits for it no longer reaches the coordinator.
    fn commit_late(&mut self, at: usize, tale: &mut Tale) -> bool {
        let (txn, term, writer, of_before) = self.late.remove(at);
        let reported = self.reported_floors();
        if let Ok(Committed::Done(_)) = self.coordinator.commit(&txn) {
            tale.add(|| format!("the term {} is minted", told(&term)));
            self.is_minted(term, writer, &reported, of_before);
        }
        true
    }

    /// R3: a term's epoch is new, as far as the coordinator has not forgotten; and it is above what doors have recorded,
    /// unless it was decided on `of_before`: what its transaction compares are revisions, and a restored coordinator has
    /// them a second time. (Then the term's nonce tells it from the other, and its leader gives up.)
    fn is_minted(&mut self, term: Term, by: usize, reported: &[Epoch], of_before: bool) {
        let again = self.minted.iter().any(|(minted, _)| minted.epoch == term.epoch);
        if (again && !self.coordinator.has_forgotten)
            || (!of_before && reported.iter().any(|floor| *floor >= term.epoch))
        {
            self.breaks(crate::rules::Rule::OneWriter);
        }
        self.minted.push((term, by));
    }

    /// The floors that doors have on record, but for those that nobody believes.
    fn reported_floors(&self) -> Vec<Epoch> {
        let read = self.coordinator.read(&[Range::all(Keys::Under(keys::reports(orders())))]);
        let reports = read.ranges.iter().flatten().filter_map(|entry| from_value::<Report>(&entry.value));
        reports.map(|report| report.floor).filter(|floor| *floor < Epoch::LAST).collect()
    }

    fn look(&mut self, setup: &Setup, step: Step, writer: usize, tale: &mut Tale) -> bool {
        // Where views are no part of the state, a writer that leads nothing has nothing to learn: a campaign reads.
        let it = &self.writers[writer];
        let blind = it.term().is_none() && it.unclear.is_empty();
        let heeds = setup.heeds_reports() && (!blind || setup.may_go_back());
        let curious = setup.views || heeds || it.has_no_use_for_itself();
        curious && {
            self.with_writer_again(writer, step, tale, |writer, coordinator, tale| writer.read(coordinator, tale));
            true
        }
    }

    // ---- processes of guards -----------------------------------------------------------------------------------------

    fn process_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
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

    fn guard_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
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
    fn catch_up(&mut self, door: usize, setup: &Setup, tale: &mut Tale) {
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

    // ---- writes ------------------------------------------------------------------------------------------------------

    fn write_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
        let room = self.writes.len() < setup.writes;
        match step {
            Step::Write(writer) => !setup.pools && room && self.write_at_once(writer, tale),
            Step::Queue(writer) => {
                room && {
                    let held = self.writers[writer].term().map(|term| term.epoch);
                    self.writes.push(Write { stamp: None, stage: Stage::Queued { writer, held } });
                    true
                }
            }
            Step::Accept(writer) => {
                let version = self.writers[writer].standing.version;
                self.accept(writer, version);
                true
            }
            Step::Expect(writer) => room && self.expects(writer),
            Step::Stamp(at) => self.stamp_waiting(at, tale),
            Step::ForgeEpoch => {
                spend(&mut self.left.forged_epochs) && {
                    self.forge(Epoch::LAST);
                    true
                }
            }
            Step::ForgeNonce => {
                let Some((term, _)) = self.minted.last().cloned() else { return false };
                spend(&mut self.left.forged_nonces) && {
                    self.forge(term.epoch);
                    true
                }
            }
            Step::Duplicate(at) => {
                matches!(self.writes[at].stage, Stage::OnItsWay { twice: false })
                    && spend(&mut self.left.duplicates)
                    && {
                        self.writes[at].stage = Stage::OnItsWay { twice: true };
                        true
                    }
            }
            Step::Arrive(at, door, worker) => self.comes_to(at, door, worker, tale),
            Step::Send(at) => {
                self.send(at, tale);
                true
            }
            Step::Apply(at) => {
                self.apply(at, tale);
                true
            }
            Step::Answer(at) => self.ends(at, End::Answered, tale),
            Step::Lose(at) => self.ends(at, World::given_up(), tale),
            Step::Vanish(at) => {
                self.writes.remove(at);
                true
            }
            _ => false,
        }
    }

    fn ends(&mut self, at: usize, end: End, tale: &mut Tale) -> bool {
        match self.writes[at].stage {
            Stage::Applied { door, worker } | Stage::Sent { door, as_: Sent::Running(worker), .. } => {
                self.settle(at, door, worker, end, tale);
                true
            }
            _ => false,
        }
    }

    /// Workers are alike: a write comes to the first of those that are the same.
    fn comes_to(&mut self, at: usize, door: usize, worker: usize, tale: &mut Tale) -> bool {
        let Some(guard) = self.guard(door) else { return false };
        let leaving = matches!(guard.joining, Joining::Leaving { .. });
        let twin = guard.workers[..worker].contains(&guard.workers[worker]);
        !leaving && !twin && self.arrive(at, door, worker, tale)
    }

    /// A service's work belongs to the term that its sidecar held when it began, and it says so on a new connection.
    fn expects(&mut self, writer: usize) -> bool {
        let mine = self.minted.iter().filter(|(_, by)| *by == writer).map(|(term, _)| term.epoch).min();
        let Some(expected) = mine else { return false };
        let bound_to = self.writers[writer].standing.version;
        let held = self.writers[writer].term().map(|term| term.epoch);
        let stage = Stage::Pooled { writer, bound_to, held, expected: Some(expected) };
        self.writes.push(Write { stamp: None, stage });
        true
    }

    fn forge(&mut self, epoch: Epoch) {
        let stamp = Stamped { epoch, nonce: Some(nonce(255)), by: By::Mallory };
        self.writes.push(Write { stamp: Some(stamp), stage: Stage::OnItsWay { twice: false } });
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writer = |number: usize| ["writer a", "writer b"][number];
        match *self {
            Step::Campaign(it) => write!(f, "{} campaigns", writer(it)),
            Step::Commit(it) => write!(f, "the transaction of {} arrives", writer(it)),
            Step::HearOfElection(it) => write!(f, "{} hears the answer", writer(it)),
            Step::CommitLate(_) => write!(f, "a transaction that nobody waits for any more arrives"),
            Step::LoseAnswer(it) => write!(f, "{} gets no answer", writer(it)),
            Step::Look(it) => write!(f, "{} reads", writer(it)),
            Step::Resign(it) => write!(f, "{} deletes its leader key", writer(it)),
            Step::WriterLapses(it) => write!(f, "the lease of {} lapses", writer(it)),
            Step::WriterRenews(it) => write!(f, "{} renews its lease", writer(it)),
            Step::WriterSession(it) => write!(f, "{} begins a new session", writer(it)),
            Step::Start(it) => write!(f, "{} starts", door_id(it)),
            Step::StartFromCopy(it) => write!(f, "{} starts with an old copy of its state directory", door_id(it)),
            Step::Copy(it) => write!(f, "somebody copies the state directory of {}", door_id(it)),
            Step::Crash(it) => write!(f, "{} is killed", door_id(it)),
            Step::Stop(it) => write!(f, "{} stops in order, and notes that it leaves", door_id(it)),
            Step::Depart(it) => write!(f, "{} takes its record back and ends", door_id(it)),
            Step::GuardLapses(it) => write!(f, "the lease of {} lapses", door_id(it)),
            Step::GuardRenews(it) => write!(f, "{} renews its lease", door_id(it)),
            Step::GuardSession(it) => write!(f, "{} begins a new session", door_id(it)),
            Step::SessionRunsOut(it) => write!(f, "{} notices that its session has run out", door_id(it)),
            Step::Plan(it) => write!(f, "{} would join", door_id(it)),
            Step::PlanWhenWaitedOut(it) => write!(f, "{} has waited, and would join", door_id(it)),
            Step::Join(it) => write!(f, "the joining of {} arrives", door_id(it)),
            Step::JoinUnanswered(it) => write!(f, "the joining of {} arrives, the answer does not", door_id(it)),
            Step::Read(it) => write!(f, "{} reads", door_id(it)),
            Step::ReadWhenWaitedOut(it) => write!(f, "{} has waited, and reads", door_id(it)),
            Step::Report(it) => write!(f, "{} reports", door_id(it)),
            Step::Disk(it) => write!(f, "the disk of {} has what was written", door_id(it)),
            Step::DiskFails(it) => write!(f, "the disk of {} fails", door_id(it)),
            Step::Follow(it, worker) => write!(f, "worker {worker} of {} reads its next order", door_id(it)),
            Step::Quarantine(it, worker) => write!(f, "the quarantine passes for worker {worker} of {}", door_id(it)),
            Step::Residue(it) => write!(f, "the quarantine of what was before {} started passes", door_id(it)),
            Step::Solitude(it) => write!(f, "{} has waited for those that are not on record", door_id(it)),
            Step::Forget(it) => write!(f, "an operator says that {} is dead", door_id(it)),
            Step::Write(it) => write!(f, "a write comes to {}", writer(it)),
            Step::Queue(it) => write!(f, "a request waits in the queue of {}", writer(it)),
            Step::Accept(it) => write!(f, "{} accepts what waits", writer(it)),
            Step::Expect(it) => write!(f, "a request comes to {} that says its epoch", writer(it)),
            Step::Stamp(at) => write!(f, "request {at} goes on"),
            Step::ForgeEpoch => write!(f, "mallory forges epoch {}", Epoch::LAST),
            Step::ForgeNonce => write!(f, "mallory forges the present epoch"),
            Step::ForgeReport => write!(f, "mallory reports a floor of {}", Epoch::LAST),
            Step::Duplicate(at) => write!(f, "write {at} is doubled"),
            Step::Arrive(at, door, worker) => write!(f, "write {at} comes to worker {worker} of {}", door_id(door)),
            Step::Send(at) => write!(f, "write {at} is to leave for the target"),
            Step::Apply(at) => write!(f, "the target takes write {at}"),
            Step::Answer(at) => write!(f, "write {at} is answered"),
            Step::Lose(at) => write!(f, "write {at} is given up without an answer"),
            Step::Vanish(at) => write!(f, "write {at} has come to nothing"),
            Step::OldLeaseEnds(lease) => write!(f, "lease {lease}, which nobody has any more, ends"),
            Step::BackUp => write!(f, "the coordinator is backed up"),
            Step::Restore => write!(f, "the coordinator is restored"),
            Step::Wipe => write!(f, "the coordinator is wiped"),
        }
    }
}
