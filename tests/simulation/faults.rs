//! What goes wrong, and when: each fault is struck, and healed after a while, or when the trouble is to be over.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use epochgate::admin::{Command, Control as _};
use epochgate::disk::Fault as DiskFault;
use epochgate::verify::Outside;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::network::Host;
use crate::plan::Plan;
use crate::process::Process;
use crate::world::World;

/// So many faults go on at a time at most.
const AT_ONCE: usize = 3;
/// The lease's time to live, which pauses are measured by.
const TTL: u64 = 2_000;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL for a stamping sidecar.
    KillStamp,
    /// SIGKILL for a guard.
    KillGuard,
    /// A guard's machine loses power, and with it what its disk had not synced.
    PowerGuard,
    /// A stamping sidecar's machine loses power.
    PowerStamp,
    /// A guard is killed, starts again at once, and the leader loses its lease meanwhile.
    Collapse,
    /// SIGSTOP, and SIGCONT a while later, for the leader's sidecar.
    StopLeader,
    /// The same for any other.
    StopStamp,
    /// The same for a guard.
    StopGuard,
    /// One thread of a process is not run for a while.
    Lag,
    /// SIGTERM for a stamping sidecar.
    TerminateStamp,
    /// SIGTERM for a guard.
    TerminateGuard,
    /// An operator has the leader step down.
    StepDown,
    /// The leader cannot reach the coordinator, or is not reached by it, or both.
    CutLeader,
    /// The same for any machine.
    CutCoordinator,
    /// A writer and a guard.
    CutWriterGuard,
    /// A guard and its target.
    CutGuardTarget,
    /// One link after another stands still; they come back in another order.
    Clog,
    /// A link is slow.
    Slow,
    /// Every connection of a link breaks.
    Reset,
    /// The coordinator has no quorum.
    NoQuorum,
    /// The coordinator is slow.
    SlowCoordinator,
    /// The coordinator's answers get lost.
    Unclear,
    /// Watches are late, repeat themselves, leave something out.
    Watch,
    /// A lease lapses before its time.
    Lapse,
    /// That of the leader.
    LapseLeader,
    /// The coordinator is backed up.
    BackUp,
    /// It is restored from a backup.
    Restore,
    /// It is wiped.
    Wipe,
    /// A guard's disk is full.
    DiskFull,
    /// One operation of a guard's disk fails, or half of it.
    DiskFails,
    /// The disk dies, and a little later the machine.
    DiskDies,
    /// A middlebox sends what it has seen once more.
    Repeat,
    /// Somebody sends stamps of epochs that he was not given.
    Forge,
    /// A guard is replaced by another.
    Replace,
}

const KINDS: &[(u64, Kind)] = &[
    (8, Kind::KillStamp),
    (6, Kind::KillGuard),
    (3, Kind::PowerGuard),
    (2, Kind::PowerStamp),
    (6, Kind::Collapse),
    (10, Kind::StopLeader),
    (3, Kind::StopStamp),
    (4, Kind::StopGuard),
    (4, Kind::Lag),
    (4, Kind::TerminateStamp),
    (3, Kind::TerminateGuard),
    (6, Kind::StepDown),
    (8, Kind::CutLeader),
    (5, Kind::CutCoordinator),
    (5, Kind::CutWriterGuard),
    (6, Kind::CutGuardTarget),
    (3, Kind::Clog),
    (4, Kind::Slow),
    (4, Kind::Reset),
    (3, Kind::NoQuorum),
    (3, Kind::SlowCoordinator),
    (4, Kind::Unclear),
    (4, Kind::Watch),
    (3, Kind::Lapse),
    (8, Kind::LapseLeader),
    (2, Kind::BackUp),
    (2, Kind::Restore),
    (2, Kind::Wipe),
    (3, Kind::DiskFull),
    (4, Kind::DiskFails),
    (2, Kind::DiskDies),
    (6, Kind::Repeat),
    (4, Kind::Forge),
    (3, Kind::Replace),
];

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Kind> {
        KINDS.iter().map(|(_, kind)| *kind)
    }

    /// Whether it may be struck in worlds of every plan.
    pub fn fits(self, plan: &Plan) -> bool {
        match self {
            // DESIGN 3.7: a wiped coordinator together with a door that is lost is outside the guarantee.
            Kind::Restore | Kind::Wipe => !plan.replaced,
            Kind::Replace => plan.replaced,
            Kind::Repeat => plan.taping > 0,
            _ => true,
        }
    }
}

type Heal = Box<dyn FnOnce()>;

/// The faults of one world.
pub struct Faults {
    world: Rc<World>,
    dice: RefCell<Dice>,
    active: RefCell<BTreeMap<u64, Heal>>,
    struck: RefCell<BTreeMap<Kind, u64>>,
    number: RefCell<u64>,
    name: Arc<str>,
}

impl Faults {
    pub fn new(world: &Rc<World>) -> Rc<Faults> {
        Rc::new(Faults {
            world: Rc::clone(world),
            dice: RefCell::new(Dice::of(world.plan.seed, "faults")),
            active: RefCell::default(),
            struck: RefCell::default(),
            number: RefCell::new(0),
            name: "fault".into(),
        })
    }

    /// Strikes until `enough` says so.
    pub async fn strike(self: &Rc<Faults>, enough: impl Fn() -> bool) {
        while !enough() {
            sleep(self.millis(100, 1_600)).await;
            if self.active.borrow().len() >= AT_ONCE {
                continue;
            }
            let kind = *self.dice.borrow_mut().weighed(KINDS);
            if kind.fits(&self.world.plan) {
                self.once(kind);
            }
        }
    }

    /// Heals everything.
    pub fn heal(&self) {
        let active = std::mem::take(&mut *self.active.borrow_mut());
        active.into_values().for_each(|heal| heal());
    }

    /// How often each kind was struck.
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        self.struck.borrow().clone()
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        self.dice.borrow_mut().millis(from, to)
    }

    fn percent(&self, chance: u64) -> bool {
        self.dice.borrow_mut().percent(chance)
    }

    fn below(&self, end: u64) -> u64 {
        self.dice.borrow_mut().below(end)
    }

    fn pick<T: Clone>(&self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| self.dice.borrow_mut().pick(of).clone())
    }

    fn note(&self, kind: Kind, text: impl std::fmt::Display) {
        *self.struck.borrow_mut().entry(kind).or_default() += 1;
        self.world.record.note(&self.name, format!("{kind:?} {text}"));
    }

    /// Has something taken back after a while, or at the end of the trouble.
    fn heals(self: &Rc<Faults>, after: Duration, heal: impl FnOnce() + 'static) {
        let number = {
            let mut number = self.number.borrow_mut();
            *number += 1;
            *number
        };
        self.active.borrow_mut().insert(number, Box::new(heal));
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            sleep(after).await;
            let heal = this.active.borrow_mut().remove(&number);
            if let Some(heal) = heal {
                heal();
            }
        });
    }

    fn once(self: &Rc<Faults>, kind: Kind) {
        match kind {
            Kind::KillStamp | Kind::PowerStamp | Kind::StopStamp | Kind::TerminateStamp => {
                if let Some(stamp) = self.pick(&self.world.stamps) {
                    self.at_process(kind, &stamp);
                }
            }
            Kind::KillGuard | Kind::PowerGuard | Kind::StopGuard | Kind::TerminateGuard | Kind::Collapse => {
                if let Some(guard) = self.pick(&self.world.guards()) {
                    self.at_process(kind, &guard);
                }
            }
            Kind::StopLeader | Kind::StepDown => {
                if let Some(leader) = self.leader() {
                    self.at_process(kind, &leader);
                }
            }
            Kind::Lag => {
                if let Some(process) = self.pick(&self.world.processes()) {
                    self.at_process(kind, &process);
                }
            }
            Kind::CutLeader | Kind::CutCoordinator | Kind::CutWriterGuard | Kind::CutGuardTarget => self.cut(kind),
            Kind::Clog => self.clog(),
            Kind::Slow | Kind::Reset => self.link(kind),
            Kind::DiskFull | Kind::DiskFails | Kind::DiskDies => self.disk(kind),
            Kind::Repeat => self.repeat(),
            Kind::Forge => self.forge(),
            Kind::Replace => self.replace(),
            _ => self.coordinator(kind),
        }
    }

    fn leader(&self) -> Option<Rc<Process>> {
        let resource = self.pick(&self.world.plan.resources)?;
        let leader = self.world.coordinator.leader(&resource)?;
        self.world.stamps.iter().find(|stamp| *stamp.name == *leader).cloned()
    }

    // ---- processes ----------------------------------------------------------------------------------------------

    fn at_process(self: &Rc<Faults>, kind: Kind, process: &Rc<Process>) {
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

    // ---- the network --------------------------------------------------------------------------------------------

    fn cut(self: &Rc<Faults>, kind: Kind) {
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
    fn clog(self: &Rc<Faults>) {
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

    fn link(self: &Rc<Faults>, kind: Kind) {
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

    // ---- the coordinator ----------------------------------------------------------------------------------------

    fn coordinator(self: &Rc<Faults>, kind: Kind) {
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

    // ---- disks --------------------------------------------------------------------------------------------------

    fn disk(self: &Rc<Faults>, kind: Kind) {
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

    // ---- who sends what is not to be sent -------------------------------------------------------------------------

    fn repeat(self: &Rc<Faults>) {
        let Some((to, tape)) = self.world.network.take_tape() else { return };
        self.note(Kind::Repeat, format!("{} bytes to {}", tape.len(), to.0));
        let (world, delay) = (Rc::clone(&self.world), self.millis(0, 4_000));
        tokio::task::spawn_local(async move {
            sleep(delay).await;
            world.repeat(to, &tape).await;
        });
    }

    fn forge(self: &Rc<Faults>) {
        let (Some(guard), Some(resource)) = (self.pick(&self.world.guards()), self.pick(&self.world.plan.resources))
        else {
            return;
        };
        let epoch = match self.below(3) {
            0 => 999_999_999_999_999,
            1 => 1 + self.below(30),
            _ => 1_000 + self.below(1_000_000),
        };
        let stamp = format!("{epoch};nonce=:AAAAAAAAAAA=:;by=\"stamp-1\";res=\"{resource}\"");
        self.note(Kind::Forge, &stamp);
        let world = Rc::clone(&self.world);
        tokio::task::spawn_local(async move { world.forge(guard.host, &resource, &stamp).await });
    }

    // ---- guards that come and go ----------------------------------------------------------------------------------

    fn replace(self: &Rc<Faults>) {
        let Some(old) = self.pick(&self.world.guards()) else { return };
        if !old.wanted.get() || !old.is_running() {
            return;
        }
        old.wanted.set(false);
        let new = self.world.add_guard_beside(old.host);
        // Writers learn of the new one at different times, or the old one's name leads to both.
        self.world.point_writers_at(&[old.host, new.host], new.host);
        let in_order = self.percent(50);
        self.note(Kind::Replace, format!("{} by {}, in order: {in_order}", old.name, new.name));
        let (world, pause) = (Rc::clone(&self.world), self.millis(0, 2_500));
        new.start();
        if in_order {
            old.terminate();
        } else {
            old.kill();
        }
        tokio::task::spawn_local(async move {
            sleep(pause).await;
            world.retire(&old).await;
            world.point_writers_at(&[new.host], new.host);
        });
    }

    /// Says in the record that everything is well from here on.
    pub fn over(&self, within: Duration) {
        self.world.record.saw(&self.name, Outside::FaultsOver { within_ns: within, resource: None });
    }
}

fn cut(network: &crate::network::Network, one: Host, other: Host, there: bool, back: bool) {
    if there {
        network.cut(one, other);
    }
    if back {
        network.cut(other, one);
    }
}

fn heal(network: &crate::network::Network, one: Host, other: Host, there: bool, back: bool) {
    if there {
        network.heal(one, other);
    }
    if back {
        network.heal(other, one);
    }
}
