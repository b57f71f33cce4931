//! Does to a world what a plan says, and undoes it.
//!
//! A step claims whom it is done to until it is undone, so that no two steps undo each other; several are in force at
//! a time. What docs/safety.md leaves out of the guarantee is not done: etcd loses its memory only while no door is cut
//! off from it and none has just lost its state directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use epochgate::verify::Outside;

use crate::plan::{Fault, Plan, Step};
use crate::support::dice::Dice;
use crate::support::etcd::Etcd;
use crate::support::process::{LONG, eventually};
use crate::support::sidecar::wait_for;
use crate::world::{World, killed, member};

/// The steps of a handoff at which a guard can be made to kill itself.
const STEPS: [&str; 9] =
    ["verified", "persisted", "fence", "fenced", "drained", "marked", "open", "opened", "reported"];

type Undo = Box<dyn for<'w, 'g> FnOnce(&'w mut World<'g>)>;

/// What is in force.
struct Active {
    fault: Fault,
    claims: Vec<String>,
    until: Instant,
    undo: Undo,
}

/// At work.
#[derive(Default)]
pub struct Nemesis {
    active: Vec<Active>,
    /// How often each fault was done.
    pub done: BTreeMap<Fault, usize>,
    /// What it saw that should not be: a process that ended by itself.
    pub complaints: Vec<String>,
    snapshot: Option<PathBuf>,
    snapshots: usize,
}

impl Nemesis {
    /// Does all of it, and undoes it.
    pub fn carry_out(&mut self, plan: &Plan, world: &mut World<'_>) {
        for (number, step) in plan.steps.iter().enumerate() {
            self.wait(step.after, world);
            if number % 5 == 2 {
                self.take_snapshot(world);
            }
            if step.fault.needs_networks() && !world.ground.has_networks() {
                continue;
            }
            self.begin(step, world);
        }
        while !self.active.is_empty() {
            self.await_next(world);
        }
        self.look_after(world);
        eventually("the dead doors are forgotten", LONG, || {
            self.forget_the_dead(world);
            world.dead_doors.is_empty()
        });
    }

    /// Lets time pass, and undoes what is due.
    fn wait(&mut self, span: Duration, world: &mut World<'_>) {
        let until = Instant::now() + span;
        loop {
            self.undo_due(world);
            self.look_after(world);
            self.forget_the_dead(world);
            let now = Instant::now();
            if now >= until {
                return;
            }
            thread::sleep((until - now).min(Duration::from_millis(50)));
        }
    }

    fn undo_due(&mut self, world: &mut World<'_>) {
        let now = Instant::now();
        let (due, rest): (Vec<_>, Vec<_>) = self.active.drain(..).partition(|active| active.until <= now);
        self.active = rest;
        for active in due {
            (active.undo)(world);
        }
    }

    /// Waits until the next of what is in force is over.
    fn await_next(&mut self, world: &mut World<'_>) {
        let next = self.active.iter().map(|active| active.until).min();
        let span = next.map_or(Duration::from_millis(50), |next| next.saturating_duration_since(Instant::now()));
        self.wait(span + Duration::from_millis(1), world);
    }

    pub fn is_free(&self, name: &str) -> bool {
        !self.active.iter().any(|active| active.claims.iter().any(|claim| claim == name))
    }

    pub fn hold(&mut self, claims: &[&str], step: &Step, undo: impl for<'w, 'g> FnOnce(&'w mut World<'g>) + 'static) {
        let claims = claims.iter().map(|claim| (*claim).to_owned()).collect();
        self.active.push(Active {
            fault: step.fault,
            claims,
            until: Instant::now() + step.lasts,
            undo: Box::new(undo),
        });
    }

    /// One of so many whose names are free; waits until one is.
    fn choose(&mut self, world: &mut World<'_>, dice: &mut Dice, prefer: Option<usize>, names: &[String]) -> usize {
        loop {
            let free: Vec<usize> = (0..names.len()).filter(|index| self.is_free(&names[*index])).collect();
            if let Some(preferred) = prefer.filter(|preferred| free.contains(preferred))
                && dice.per_mille(650)
            {
                return preferred;
            }
            if !free.is_empty() {
                return *dice.one(&free);
            }
            self.await_next(world);
        }
    }

    pub fn stamp(&mut self, world: &mut World<'_>, dice: &mut Dice) -> usize {
        let names: Vec<String> = world.stamps.iter().map(|stamp| stamp.id.clone()).collect();
        let leader = world.stamps.iter().position(crate::node::Node::leads);
        self.choose(world, dice, leader, &names)
    }

    pub fn guard(&mut self, world: &mut World<'_>, dice: &mut Dice) -> usize {
        let names: Vec<String> = world.guards.iter().map(|guard| guard.id.clone()).collect();
        self.choose(world, dice, None, &names)
    }

    /// Waits until nobody does anything to any of these.
    pub fn await_free(&mut self, names: &[&str], world: &mut World<'_>) {
        while !names.iter().all(|name| self.is_free(name)) {
            self.await_next(world);
        }
    }

    /// What nobody killed has to run.
    fn look_after(&mut self, world: &mut World<'_>) {
        for node in world.guards.iter_mut().chain(&mut world.stamps) {
            let free = !self.active.iter().any(|active| active.claims.contains(&node.id));
            if free && !node.is_running() {
                let said = node.process.as_ref().map(crate::support::process::Process::recent).unwrap_or_default();
                self.complaints.push(format!("{} ended by itself:\n{said}", node.id));
                node.start(&[]);
            }
        }
    }

    fn take_snapshot(&mut self, world: &World<'_>) {
        let to = world.folder.path().join(format!("snapshot-{}", self.snapshots));
        self.snapshots += 1;
        let free = (0..world.members.len()).find(|number| self.is_free(&member(*number)));
        if free.is_some_and(|number| world.members[number].snapshot(&to)) {
            self.snapshot = Some(to);
        }
    }

    fn begin(&mut self, step: &Step, world: &mut World<'_>) {
        let mut dice = Dice::of(step.pick);
        let dice = &mut dice;
        *self.done.entry(step.fault).or_default() += 1;
        match step.fault {
            Fault::KillStamp => {
                let at = self.stamp(world, dice);
                world.stamps[at].kill();
                killed(&world.record, &world.stamps[at].id);
                let id = world.stamps[at].id.clone();
                self.hold(&[&id], step, move |world| world.stamps[at].start(&[]));
            }
            Fault::KillGuard => {
                let at = self.guard(world, dice);
                world.guards[at].kill();
                killed(&world.record, &world.guards[at].id);
                let id = world.guards[at].id.clone();
                self.hold(&[&id], step, move |world| world.guards[at].start(&[]));
            }
            Fault::KillGuardAtStep => self.kill_at_a_step(step, world, dice),
            Fault::PauseStamp => {
                let at = self.stamp(world, dice);
                let id = world.stamps[at].id.clone();
                pause(&world.stamps[at]);
                self.hold(&[&id], step, move |world| resume(&world.stamps[at]));
            }
            Fault::PauseGuard => {
                let at = self.guard(world, dice);
                let id = world.guards[at].id.clone();
                pause(&world.guards[at]);
                self.hold(&[&id], step, move |world| resume(&world.guards[at]));
            }
            Fault::StopStamp => {
                let at = self.stamp(world, dice);
                let id = world.stamps[at].id.clone();
                let stopped = world.stamps[at].stop(LONG);
                self.complaints.extend(stopped.err());
                self.hold(&[&id], step, move |world| world.stamps[at].start(&[]));
            }
            Fault::StopGuard => {
                let at = self.guard(world, dice);
                let id = world.guards[at].id.clone();
                let stopped = world.guards[at].stop(LONG);
                self.complaints.extend(stopped.err());
                self.hold(&[&id], step, move |world| world.guards[at].start(&[]));
            }
            Fault::StepDown => step_down(world),
            Fault::KillMember | Fault::PauseMember | Fault::LoseQuorum => self.trouble_members(step, world, dice),
            Fault::Wipe | Fault::Restore => self.lose_memory(step.fault, world),
            Fault::Weather
            | Fault::StampCutThere
            | Fault::StampCutBack
            | Fault::TargetCutThere
            | Fault::TargetCutBack => self.change_weather(step, world, dice),
            Fault::DiskWrites | Fault::DiskSyncs | Fault::DiskSlow | Fault::DiskFull => {
                self.trouble_a_disk(step, world, dice);
            }
            Fault::StateLost => self.lose_a_state_directory(step, world, dice),
            Fault::GuardUnheard
            | Fault::GuardDeaf
            | Fault::StampUnheard
            | Fault::StampDeaf
            | Fault::LagMember
            | Fault::MembersApart
            | Fault::GuardAtStaleMember => self.partition(step, world, dice),
        }
    }

    /// The guard is started so that it kills itself at a step of its next handoff; then there is one.
    fn kill_at_a_step(&mut self, step: &Step, world: &mut World<'_>, dice: &mut Dice) {
        let at = self.guard(world, dice);
        let id = world.guards[at].id.clone();
        let name = *dice.one(&STEPS);
        let next = world.epoch() + 1;
        world.guards[at].kill();
        killed(&world.record, &id);
        world.guards[at].start(&[("EPOCHGATE_DANGER_FAILPOINT", &format!("{name}@{next}+"))]);
        step_down(world);
        self.hold(&[&id], step, move |world| {
            world.guards[at].kill();
            killed(&world.record, &world.guards[at].id);
            world.guards[at].start(&[]);
        });
    }

    fn trouble_members(&mut self, step: &Step, world: &mut World<'_>, dice: &mut Dice) {
        let names: Vec<String> = (0..world.members.len()).map(member).collect();
        // One at a time, or quorum is lost by accident: that has its own name.
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        self.await_free(&all, world);
        let first = dice.below(world.members.len());
        match step.fault {
            Fault::PauseMember => {
                world.members[first].pause();
                self.hold(&[&names[first]], step, move |world| world.members[first].resume());
            }
            Fault::KillMember => {
                world.members[first].kill();
                self.hold(&[&names[first]], step, move |world| world.members[first].begin_again());
            }
            _ => {
                let second = (first + 1) % world.members.len();
                let kills = dice.per_mille(500);
                for at in [first, second] {
                    if kills { world.members[at].kill() } else { world.members[at].pause() }
                }
                self.hold(&all, step, move |world| {
                    for at in [first, second] {
                        if kills { world.members[at].begin_again() } else { world.members[at].resume() }
                    }
                });
            }
        }
    }

    /// etcd is wiped, or restored from an earlier moment, while processes may be dead or stand still. Nobody campaigns
    /// while its grants are read for the last time.
    fn lose_memory(&mut self, fault: Fault, world: &mut World<'_>) {
        while !world.dead_doors.is_empty() || self.active.iter().any(|active| active.fault.forbids_lost_memory()) {
            self.await_next(world);
        }
        let present = |nemesis: &Nemesis, nodes: &[crate::node::Node]| -> Vec<usize> {
            (0..nodes.len()).filter(|number| nemesis.is_free(&nodes[*number].id)).collect()
        };
        let (guards, stamps) = (present(self, &world.guards), present(self, &world.stamps));
        let snapshot = self.snapshot.take().filter(|_| fault == Fault::Restore);
        for member in &mut world.members {
            wait_for(member.await_service());
        }
        eventually("every guard is in touch with its coordinator", LONG, || {
            guards.iter().all(|guard| world.guards[*guard].status()["coordinator"]["up"] == true)
        });
        stamps.iter().for_each(|stamp| pause(&world.stamps[*stamp]));
        thread::sleep(Duration::from_millis(300));
        world.note_grants();
        world.record.note("nemesis", Outside::Rewound);
        world.members.iter_mut().for_each(Etcd::kill);
        world.members.iter().for_each(Etcd::wipe);
        if let Some(snapshot) = &snapshot {
            world.members.iter().for_each(|member| member.restore(snapshot));
        }
        world.members.iter_mut().for_each(Etcd::begin_again);
        stamps.iter().for_each(|stamp| resume(&world.stamps[*stamp]));
        for member in &mut world.members {
            wait_for(member.await_service());
        }
    }
}

fn pause(node: &crate::node::Node) {
    if let Some(process) = &node.process {
        process.pause_if_running();
    }
}

fn resume(node: &crate::node::Node) {
    if let Some(process) = &node.process {
        process.resume_if_running();
    }
}

/// The present leader hands over, if it is there and somebody else is.
pub fn step_down(world: &World<'_>) {
    if let Some(leader) = world.stamps.iter().find(|stamp| stamp.leads()) {
        let _ = leader.ask("POST", "/api/v1/step-down?resource=orders");
    }
}
