//! What is done to what remembers: the coordinator, and the disks of guards.

use std::rc::Rc;

use epochgate::disk::Fault as DiskFault;

use super::{Faults, Kind};

impl Faults {
    pub(super) fn coordinator(self: &Rc<Faults>, kind: Kind) {
        let coordinator = self.world.coordinator.clone();
        match kind {
            Kind::Lapse if coordinator.lapse_one() => self.note(kind, ""),
            Kind::LapseLeader if coordinator.lapse_leader() => self.note(kind, ""),
            Kind::BackUp => {
                coordinator.back_up();
                self.note(kind, "");
            }
            Kind::Restore if coordinator.restore() => self.note(kind, ""),
            Kind::Wipe => {
                coordinator.wipe();
                self.note(kind, "");
            }
            Kind::NoQuorum | Kind::SlowCoordinator | Kind::Unclear | Kind::Watch => {
                self.note(kind, "");
                let change = move |by: i32| {
                    coordinator.trouble(|troubles| {
                        let trouble = match kind {
                            Kind::NoQuorum => &mut troubles.no_quorum,
                            Kind::SlowCoordinator => &mut troubles.slow,
                            Kind::Unclear => &mut troubles.unclear,
                            _ => &mut troubles.watch,
                        };
                        *trouble = trouble.saturating_add_signed(by);
                    });
                };
                change(1);
                self.heals(self.millis(300, 6_000), move || change(-1));
            }
            _ => {}
        }
    }

    pub(super) fn disk(self: &Rc<Faults>, kind: Kind) {
        let Some(guard) = self.pick(&self.world.guards()) else { return };
        self.note(kind, &guard.name);
        let disk = guard.disk();
        let next = disk.operations() + self.dice.borrow_mut().below(4);
        match kind {
            Kind::DiskFull => {
                disk.set_broken(true);
                self.heals(self.millis(300, 5_000), move || disk.set_broken(false));
            }
            Kind::DiskFails => {
                let how = if self.percent(50) { DiskFault::Fails } else { DiskFault::FailsPartly };
                disk.plan(next, how);
            }
            _ => {
                disk.plan(next, DiskFault::Crashes);
                self.heals(self.millis(0, 3_000), move || guard.lose_power());
            }
        }
    }
}
