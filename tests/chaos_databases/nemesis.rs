//! Does to a world what a plan says, and undoes it. Nobody is done two things at a time; several may be in trouble at once.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::Shared;
use crate::node::Node;
use crate::plan::{Fault, Plan, Step};
use crate::support::dice::Dice;
use crate::support::process::{LONG, Process};
use crate::world::World;

/// The steps of a handoff at which a guard can be made to kill itself.
const STEPS: [&str; 9] =
    ["verified", "persisted", "fence", "fenced", "drained", "marked", "open", "opened", "reported"];

/// Whom something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Stamp(usize),
    Guard,
    Target,
    Way(usize),
}

type Undo = Box<dyn FnOnce(&mut World)>;

/// At work.
#[derive(Default)]
pub struct Nemesis {
    active: Vec<(Whom, Instant, Undo)>,
    /// How often each fault was done.
    pub done: BTreeMap<Fault, u64>,
    /// What it saw that should not be: a process that ended by itself, or did not end in order.
    pub complaints: Vec<String>,
}

impl Nemesis {
    /// Does all of it, and undoes it.
    pub fn carry_out(&mut self, plan: &Plan, world: &mut World, clients: &Shared) {
        for step in &plan.steps {
            self.wait(step.after, world);
            self.begin(step, world, clients);
        }
        while !self.active.is_empty() {
            self.wait(Duration::from_millis(20), world);
        }
        self.look_after(world);
    }

    /// Lets time pass, and undoes what is due.
    fn wait(&mut self, span: Duration, world: &mut World) {
        let until = Instant::now() + span;
        loop {
            let now = Instant::now();
            let (due, rest) = self.active.drain(..).partition(|(_, until, _)| *until <= now);
            self.active = rest;
            let due: Vec<(Whom, Instant, Undo)> = due;
            due.into_iter().for_each(|(_, _, undo)| undo(world));
            self.look_after(world);
            if now >= until {
                return;
            }
            thread::sleep((until - now).min(Duration::from_millis(20)));
        }
    }

    /// What nobody killed has to run.
    fn look_after(&mut self, world: &mut World) {
        let troubled = |whom| self.active.iter().any(|(active, ..)| *active == whom);
        let guard = (!troubled(Whom::Guard)).then_some(&mut world.guard);
        let stamps = world.stamps.iter_mut().enumerate().filter(|(at, _)| !troubled(Whom::Stamp(*at)));
        for node in guard.into_iter().chain(stamps.map(|(_, stamp)| stamp)) {
            if !node.is_running() {
                let said = node.process.as_ref().map(Process::recent).unwrap_or_default();
                self.complaints.push(format!("{} ended by itself:\n{said}", node.id));
                node.start(&[]);
            }
        }
    }

    fn hold(&mut self, whom: Whom, step: &Step, undo: impl FnOnce(&mut World) + 'static) {
        self.active.push((whom, Instant::now() + step.lasts, Box::new(undo)));
    }

    fn await_free(&mut self, whom: Whom, world: &mut World) {
        while self.active.iter().any(|(active, ..)| *active == whom) {
            self.wait(Duration::from_millis(10), world);
        }
    }

    /// A stamp, the leader's more often than not, which is then free.
    fn stamp(&mut self, world: &mut World, dice: &mut Dice) -> usize {
        let leader = world.stamps.iter().position(Node::leads).filter(|_| dice.per_mille(700));
        let at = leader.unwrap_or_else(|| dice.below(world.stamps.len()));
        self.await_free(Whom::Stamp(at), world);
        at
    }

    fn begin(&mut self, step: &Step, world: &mut World, clients: &Shared) {
        let mut dice = Dice::of(step.pick);
        *self.done.entry(step.fault).or_default() += 1;
        match step.fault {
            Fault::StepDown => step_down(world),
            Fault::KillStamp | Fault::PauseStamp | Fault::StopStamp => self.trouble_a_stamp(step, world, &mut dice),
            Fault::PauseTarget | Fault::PauseTargetLong => {
                self.await_free(Whom::Target, world);
                world.database.pause();
                self.hold(Whom::Target, step, |world| world.database.resume());
            }
            Fault::WayStandsStill => {
                let at = dice.below(world.ways.len());
                self.await_free(Whom::Way(at), world);
                world.ways[at].stand_still(true);
                self.hold(Whom::Way(at), step, move |world| world.ways[at].stand_still(false));
            }
            Fault::WayBreaks => world.ways[dice.below(world.ways.len())].break_all(),
            Fault::PauseGuard => {
                self.await_free(Whom::Guard, world);
                pause(&world.guard);
                self.hold(Whom::Guard, step, |world| resume(&world.guard));
            }
            Fault::StopGuard => {
                self.await_free(Whom::Guard, world);
                self.complaints.extend(world.guard.stop(LONG).err());
                self.hold(Whom::Guard, step, |world| world.guard.start(&[]));
            }
            Fault::KillGuard | Fault::KillGuardMidway | Fault::KillGuardAtStep => {
                self.await_free(Whom::Guard, world);
                self.kill_the_guard(step, world, clients, &mut dice);
            }
        }
    }

    fn trouble_a_stamp(&mut self, step: &Step, world: &mut World, dice: &mut Dice) {
        let at = self.stamp(world, dice);
        let stamp = &mut world.stamps[at];
        match step.fault {
            Fault::PauseStamp => {
                pause(stamp);
                return self.hold(Whom::Stamp(at), step, move |world| resume(&world.stamps[at]));
            }
            Fault::KillStamp => {
                stamp.kill();
                world.record.killed(&stamp.id);
            }
            _ => self.complaints.extend(stamp.stop(LONG).err()),
        }
        self.hold(Whom::Stamp(at), step, move |world| world.stamps[at].start(&[]));
    }

    fn kill_the_guard(&mut self, step: &Step, world: &mut World, clients: &Shared, dice: &mut Dice) {
        match step.fault {
            Fault::KillGuardMidway => {
                // Right after the next operation has left that the database takes long over.
                let (before, began) = (clients.slow_ones.load(Ordering::Relaxed), Instant::now());
                while clients.slow_ones.load(Ordering::Relaxed) == before && began.elapsed() < Duration::from_secs(3) {
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(dice.span(Duration::from_millis(5), Duration::from_millis(40)));
                kill(world);
                step_down(world);
                self.hold(Whom::Guard, step, |world| world.guard.start(&[]));
            }
            Fault::KillGuardAtStep => {
                let (name, next) = (*dice.one(&STEPS), world.epoch() + 1);
                kill(world);
                world.guard.start(&[("EPOCHGATE_DANGER_FAILPOINT", &format!("{name}@{next}+"))]);
                step_down(world);
                self.hold(Whom::Guard, step, |world| {
                    kill(world);
                    world.guard.start(&[]);
                });
            }
            _ => {
                kill(world);
                self.hold(Whom::Guard, step, |world| world.guard.start(&[]));
            }
        }
    }
}

fn kill(world: &mut World) {
    world.guard.kill();
    world.record.killed(&world.guard.id);
}

fn pause(node: &Node) {
    if let Some(process) = &node.process {
        process.pause_if_running();
    }
}

fn resume(node: &Node) {
    if let Some(process) = &node.process {
        process.resume_if_running();
    }
}

/// The present leader hands over, if it is there and somebody else is.
fn step_down(world: &World) {
    if let Some(leader) = world.stamps.iter().find(|stamp| stamp.leads()) {
        let _ = leader.ask("POST", "/api/v1/step-down?resource=orders");
    }
}
