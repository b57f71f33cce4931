//! What is done to the network.

use std::rc::Rc;

use tokio::time::sleep;

use super::{Faults, Kind, TTL};
use crate::network::{Host, Network};

impl Faults {
    pub(super) fn cut(self: &Rc<Faults>, kind: Kind) {
        let pair = match kind {
            Kind::CutLeader => self.leader().map(|leader| (leader.host, Host::Coordinator)),
            Kind::CutCoordinator => self.pick(&self.world.processes()).map(|process| (process.host, Host::Coordinator)),
            Kind::CutWriterGuard => self.writer_and_guard(),
            _ => self.pick(&self.world.guards()).map(|guard| (guard.host, self.world.target_of(guard.host))),
        };
        let Some((one, other)) = pair else { return };
        let ways = [(true, true), (true, false), (false, true)];
        let (there, back) = self.pick(&ways).expect("there are three");
        self.note(kind, format!("{one} and {other}: there {there}, back {back}"));
        let network = self.world.network.clone();
        cut(&network, one, other, there, back);
        let breaks = self.percent(30);
        self.heals(self.millis(100, TTL * 4), move || {
            heal(&network, one, other, there, back);
            if breaks {
                network.reset_between(one, other);
            }
        });
    }

    fn writer_and_guard(&self) -> Option<(Host, Host)> {
        let writer = self.pick(&self.world.stamps)?.host;
        Some((writer, self.pick(&self.world.guards())?.host))
    }

    /// Links stand still one after the other, and come back in another order.
    pub(super) fn clog(self: &Rc<Faults>) {
        let mut links: Vec<(Host, Host)> = Vec::new();
        for guard in self.world.guards() {
            links.push((guard.host, self.world.target_of(guard.host)));
            links.push((guard.host, Host::Coordinator));
            links.extend(self.world.stamps.iter().map(|stamp| (stamp.host, guard.host)));
        }
        let count = self.dice.borrow_mut().index(links.len()) + 1;
        self.note(Kind::Clog, format!("{count} links"));
        for _ in 0..count {
            let at = self.dice.borrow_mut().index(links.len());
            let (one, other) = links.swap_remove(at);
            let (network, from, span) = (self.world.network.clone(), self.millis(0, 1_500), self.millis(50, 3_000));
            let this = Rc::clone(self);
            tokio::task::spawn_local(async move {
                sleep(from).await;
                cut(&network, one, other, true, true);
                this.heals(span, move || heal(&network, one, other, true, true));
            });
        }
    }

    pub(super) fn link(self: &Rc<Faults>, kind: Kind) {
        let guard = self.pick(&self.world.guards());
        let pair = match self.percent(50) {
            true => guard.map(|guard| (guard.host, self.world.target_of(guard.host))),
            false => self.writer_and_guard(),
        };
        let Some((one, other)) = pair else { return };
        let network = self.world.network.clone();
        if kind == Kind::Reset {
            let broken = network.reset_between(one, other);
            return self.note(kind, format!("{broken} connections between {one} and {other}"));
        }
        self.note(kind, format!("{one} and {other}"));
        network.slow(one, other, true);
        network.slow(other, one, true);
        self.heals(self.millis(500, 6_000), move || {
            network.slow(one, other, false);
            network.slow(other, one, false);
        });
    }

    pub(super) fn target_gone(self: &Rc<Faults>) {
        let number = self.dice.borrow_mut().index(self.world.targets.len());
        let target = self.world.targets[number].host;
        self.note(Kind::TargetGone, target);
        let network = self.world.network.clone();
        network.power(target, false);
        for guard in self.world.guards() {
            network.reset_between(guard.host, target);
        }
        self.heals(self.millis(100, 4_000), move || network.power(target, true));
    }
}

/// Cuts a link in the directions that are named.
pub(super) fn cut(network: &Network, one: Host, other: Host, there: bool, back: bool) {
    if there {
        network.cut(one, other);
    }
    if back {
        network.cut(other, one);
    }
}

/// Takes that back.
pub(super) fn heal(network: &Network, one: Host, other: Host, there: bool, back: bool) {
    if there {
        network.heal(one, other);
    }
    if back {
        network.heal(other, one);
    }
}
