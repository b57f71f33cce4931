//! Those who send what is not to be sent, and guards that come and go.

use std::rc::Rc;

use tokio::time::sleep;

use super::links::{cut, heal};
use super::{Faults, Kind};
use crate::network::Host;

/// How a guard that is replaced goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    InOrder,
    Dead,
    CutOff,
}

impl Faults {
    pub(super) fn repeat(self: &Rc<Faults>) {
        let Some((to, tape)) = self.world.network.take_tape() else { return };
        self.note(Kind::Repeat, format!("{} bytes to {}", tape.len(), to.0));
        let (world, delay) = (Rc::clone(&self.world), self.millis(0, 4_000));
        tokio::task::spawn_local(async move {
            sleep(delay).await;
            world.repeat(to, &tape).await;
        });
    }

    pub(super) fn forge(self: &Rc<Faults>) {
        let (Some(guard), Some(resource)) = (self.pick(&self.world.guards()), self.pick(&self.world.plan.resources))
        else {
            return;
        };
        let present = self.world.coordinator.leader(&resource).map_or(1, |term| term.epoch.number());
        let epoch = match self.below(4) {
            0 => 999_999_999_999_999,
            1 => present,
            2 => present + 1 + self.below(3),
            _ => 1_000 + self.below(1_000_000),
        };
        let stamp = format!("{epoch};nonce=:AAAAAAAAAAA=:;by=\"stamp-1\";res=\"{resource}\"");
        self.note(Kind::Forge, &stamp);
        let world = Rc::clone(&self.world);
        tokio::task::spawn_local(async move { world.forge(guard.host, &resource, &stamp).await });
    }

    pub(super) fn replace(self: &Rc<Faults>) {
        let Some(old) = self.pick(&self.world.guards()) else { return };
        if !old.wanted.get() || !old.is_running() {
            return;
        }
        old.wanted.set(false);
        let new = self.world.add_guard_beside(old.host);
        // Writers learn of the new one at different times, or the old one's name leads to both.
        self.world.point_writers(new.host, &[old.host], &[]);
        let how = match self.below(3) {
            0 => Goes::InOrder,
            1 if self.world.plan.closes && self.world.plan.doors == 1 => Goes::CutOff,
            _ => Goes::Dead,
        };
        self.note(Kind::Replace, format!("{} by {}: {how:?}", old.name, new.name));
        new.start();
        match how {
            Goes::InOrder => old.terminate(),
            Goes::Dead => old.kill(),
            Goes::CutOff => {
                // Nobody says that it is dead: it closes, and is waited out. It may come back whenever it likes.
                old.wanted.set(true);
                let (network, host) = (self.world.network.clone(), old.host);
                cut(&network, host, Host::Coordinator, true, true);
                self.heals(self.millis(4_000, 12_000), move || heal(&network, host, Host::Coordinator, true, true));
            }
        }
        let (world, pause, returns) = (Rc::clone(&self.world), self.millis(0, 2_500), self.percent(50));
        tokio::task::spawn_local(async move {
            sleep(pause).await;
            // Its record is gone, and it knows: it asks before it opens anything. A sole one that comes back stays shut,
            // where its place is taken; before that it would take it again itself, and nobody would look for it there.
            if how != Goes::CutOff && world.retire(&old).await && returns && world.is_put_in_place(&new).await {
                old.wanted.set(true);
            }
            let gone = if world.plan.doors > 1 { vec![] } else { vec![old.host] };
            world.point_writers(new.host, &[], &gone);
        });
    }
}
