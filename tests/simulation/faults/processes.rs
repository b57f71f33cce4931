//! What is done to processes.

use std::rc::Rc;
use std::sync::Arc;

use epochgate::admin::{Command, Control as _};
use tokio::time::sleep;

use super::{Faults, Kind, TTL};
use crate::process::{FIRST_WORKER, Process};

impl Faults {
    pub(super) fn at_process(self: &Rc<Faults>, kind: Kind, process: &Rc<Process>) {
        if !process.is_running() {
            return;
        }
        self.note(kind, &process.name);
        match kind {
            Kind::KillStamp | Kind::KillGuard => process.kill(),
            Kind::PowerStamp | Kind::PowerGuard => {
                process.lose_power();
                // It is a while before the machine answers at all.
                let (network, host) = (self.world.network.clone(), process.host);
                network.power(host, false);
                self.heals(self.millis(100, 1_500), move || network.power(host, true));
            }
            Kind::Collapse => self.collapse(process),
            Kind::TerminateStamp | Kind::TerminateGuard => process.terminate(),
            Kind::StopLeader | Kind::StopStamp | Kind::StopGuard => self.stop(process),
            Kind::Lag => self.lag(process),
            Kind::Hesitate => self.hesitate(process),
            _ => self.step_down(process),
        }
    }

    fn stop(self: &Rc<Faults>, process: &Rc<Process>) {
        let Some((life, _)) = process.life() else { return };
        life.stop(true);
        let span = if self.percent(50) { self.millis(TTL / 10, TTL) } else { self.millis(TTL, TTL * 5) };
        let (record, name) = (self.world.record.clone(), Arc::clone(&process.name));
        record.note(&name, format!("stopped for {span:?}"));
        self.heals(span, move || {
            life.stop(false);
            record.note(&name, "goes on");
        });
    }

    fn collapse(self: &Rc<Faults>, guard: &Rc<Process>) {
        guard.kill();
        let (guard, coordinator) = (Rc::clone(guard), self.world.coordinator.clone());
        let (lapse, start) = (self.millis(0, 300), self.millis(5, 300));
        tokio::task::spawn_local(async move {
            sleep(lapse).await;
            coordinator.lapse_leader();
        });
        tokio::task::spawn_local(async move {
            sleep(start).await;
            if guard.wanted.get() {
                guard.start();
            }
        });
    }

    fn lag(self: &Rc<Faults>, process: &Rc<Process>) {
        let Some((life, threads)) = process.life() else { return };
        let thread = self.dice.borrow_mut().index(threads);
        life.lag(thread, true);
        let span = self.millis(5, 3_000);
        self.world.record.note(&process.name, format!("thread {thread} lags for {span:?}"));
        self.heals(span, move || life.lag(thread, false));
    }

    fn hesitate(self: &Rc<Faults>, leader: &Rc<Process>) {
        let Some((life, threads)) = leader.life() else { return };
        let workers = FIRST_WORKER..threads;
        workers.clone().for_each(|worker| life.lag(worker, true));
        let (coordinator, pause) = (self.world.coordinator.clone(), self.millis(0, 1_000));
        tokio::task::spawn_local(async move {
            sleep(pause).await;
            coordinator.lapse_leader();
        });
        let span = pause + self.millis(50, 2_500);
        self.heals(span, move || workers.for_each(|worker| life.lag(worker, false)));
    }

    fn step_down(self: &Rc<Faults>, process: &Rc<Process>) {
        let (Some(handle), Some(resource)) = (process.handle(), self.pick(&self.world.plan.resources)) else { return };
        let resource = resource.parse().expect("the plan names resources");
        let (record, name, force) = (self.world.record.clone(), Arc::clone(&process.name), self.percent(50));
        tokio::task::spawn_local(async move {
            let stepped = handle.command(Command::StepDown { resource, force }).await;
            let how = stepped.map_or_else(|error| format!("{error:?}"), |_| "done".to_owned());
            record.note(&name, format!("step-down: {how}"));
        });
    }
}
