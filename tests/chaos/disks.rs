//! What is done to the disks under floor files: they fail, fill up, are slow, or are lost.

use std::thread;
use std::time::Duration;

use crate::nemesis::{Nemesis, step_down};
use crate::plan::{Fault, Step};
use crate::support::dice::Dice;
use crate::world::{World, killed};

impl Nemesis {
    /// The disk under a guard's floor file fails, is full or slow, while there is something to write.
    pub fn trouble_a_disk(&mut self, step: &Step, world: &mut World<'_>, dice: &mut Dice) {
        let at = self.guard(world, dice);
        let id = world.guards[at].id.clone();
        let words = world.guards[at].ailment();
        let ballast = world.guards[at].state.join("ballast");
        let words_now = match step.fault {
            Fault::DiskWrites => "write".to_owned(),
            Fault::DiskSyncs => (*dice.one(&["sync", "sync create", "sync rename"])).to_owned(),
            Fault::DiskSlow => format!("slow={}", 50 + dice.below(700)),
            // The file at hand fails once, and there is no room for another.
            _ => {
                fill(&ballast);
                "sync".to_owned()
            }
        };
        std::fs::write(&words, words_now).expect("it is in a temporary folder");
        // Something has to be written, so that it is noticed.
        step_down(world);
        if step.fault == Fault::DiskFull {
            thread::sleep(Duration::from_millis(300));
            let _ = std::fs::remove_file(&words);
        }
        self.hold(&[&id], step, move |world| {
            let _ = std::fs::remove_file(&words);
            let _ = std::fs::remove_file(&ballast);
            // One that was just starting cannot, with such a disk, and says so.
            if !world.guards[at].is_running() {
                world.guards[at].start(&[]);
            }
        });
    }

    /// A guard loses its state directory, and comes back as another door; the operator, who knows that the old one is
    /// dead, says so.
    pub fn lose_a_state_directory(&mut self, step: &Step, world: &mut World<'_>, dice: &mut Dice) {
        let at = self.guard(world, dice);
        let id = world.guards[at].id.clone();
        world.guards[at].kill();
        killed(&world.record, &id);
        let door = std::fs::read_to_string(world.guards[at].state.join("door")).unwrap_or_default();
        // Another door is another process to the checker: what the lost one had on disk binds nobody any more.
        world.guards[at].bury_history();
        for file in std::fs::read_dir(&world.guards[at].state).expect("its state directory").flatten() {
            std::fs::remove_file(file.path()).expect("it can be removed");
        }
        world.guards[at].start(&[]);
        world.dead_doors.push((at, door.trim().to_owned()));
        self.hold(&[&id], step, |_| {});
    }

    /// The operator says of the doors whose state directories are lost that they are dead, as soon as etcd hears it.
    pub fn forget_the_dead(&self, world: &mut World<'_>) {
        let due = |at: &usize, world: &World<'_>| self.is_free(&world.guards[*at].id);
        let doors = std::mem::take(&mut world.dead_doors);
        for (at, door) in doors {
            let forget = format!("/api/v1/doors/forget?target=orders&id={door}");
            let told = due(&at, world).then(|| world.guards[at].ask("POST", &forget)).flatten();
            // 404: it was never on record, or is not any more.
            if !told.is_some_and(|(status, _)| status == 200 || status == 404) {
                world.dead_doors.push((at, door));
            }
        }
    }
}

/// Writes until nothing more fits.
fn fill(path: &std::path::Path) {
    use std::io::Write as _;
    let Ok(mut file) = std::fs::File::create(path) else { return };
    while file.write_all(&[0; 4096]).is_ok() {
        // Where the disk turns out to be a large one, this is no disk to fill.
        if file.metadata().is_ok_and(|about| about.len() > 1 << 20) {
            return;
        }
    }
}
