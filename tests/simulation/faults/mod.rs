//! What goes wrong, and when: each fault is struck, and healed after a while, or when the trouble is to be over.
//!
//! | file | what it strikes |
//! |---|---|
//! | [`processes`] | processes and their threads |
//! | [`links`] | the network |
//! | [`stores`] | the coordinator, and disks |
//! | [`strangers`] | who sends what is not to be sent; guards that are replaced |

mod links;
mod processes;
mod stores;
mod strangers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use epochgate::verify::Outside;
use tokio::time::sleep;

use crate::dice::Dice;
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
    /// The leader's workers are not run while it loses its lease, and perhaps wins it again.
    Hesitate,
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
    /// A target is gone for a while, though what it has begun goes on.
    TargetGone,
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
    (5, Kind::Hesitate),
    (4, Kind::TerminateStamp),
    (3, Kind::TerminateGuard),
    (6, Kind::StepDown),
    (8, Kind::CutLeader),
    (5, Kind::CutCoordinator),
    (5, Kind::CutWriterGuard),
    (6, Kind::CutGuardTarget),
    (3, Kind::TargetGone),
    (3, Kind::Clog),
    (4, Kind::Slow),
    (4, Kind::Reset),
    (3, Kind::NoQuorum),
    (3, Kind::SlowCoordinator),
    (4, Kind::Unclear),
    (4, Kind::Watch),
    (3, Kind::Lapse),
    (8, Kind::LapseLeader),
    (4, Kind::BackUp),
    (5, Kind::Restore),
    (3, Kind::Wipe),
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

/// The weights of one world: no two have the same. Some kinds are left out, some come often, so that what only many of
/// one kind together bring about is seen too.
fn weights(plan: &Plan, dice: &mut Dice) -> Vec<(u64, Kind)> {
    let mut weights = Vec::new();
    for (weight, kind) in KINDS.iter().filter(|(_, kind)| kind.fits(plan)) {
        let times = match dice.below(100) {
            0..15 => 0,
            15..30 => 4,
            _ => 1,
        };
        weights.push((weight * times, *kind));
    }
    weights
}

type Heal = Box<dyn FnOnce()>;

/// The faults of one world.
pub struct Faults {
    world: Rc<World>,
    /// How often each kind is to be struck in this world.
    weights: Vec<(u64, Kind)>,
    dice: RefCell<Dice>,
    active: RefCell<BTreeMap<u64, Heal>>,
    struck: RefCell<BTreeMap<Kind, u64>>,
    number: RefCell<u64>,
    name: Arc<str>,
}

impl Faults {
    pub fn new(world: &Rc<World>) -> Rc<Faults> {
        let mut dice = Dice::of(world.plan.seed, "faults");
        Rc::new(Faults {
            world: Rc::clone(world),
            weights: weights(&world.plan, &mut dice),
            dice: RefCell::new(dice),
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
            let kind = *self.dice.borrow_mut().weighed(&self.weights);
            self.once(kind);
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
            Kind::StopLeader | Kind::StepDown | Kind::Hesitate => {
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
            Kind::TargetGone => self.target_gone(),
            Kind::DiskFull | Kind::DiskFails | Kind::DiskDies => self.disk(kind),
            Kind::Repeat => self.repeat(),
            Kind::Forge => self.forge(),
            Kind::Replace => self.replace(),
            _ => self.coordinator(kind),
        }
    }

    fn leader(&self) -> Option<Rc<Process>> {
        let resource = self.pick(&self.world.plan.resources)?;
        let leader = self.world.coordinator.leader(&resource)?.writer;
        self.world.stamps.iter().find(|stamp| *stamp.name == *leader.as_str()).cloned()
    }

    /// Says in the record that everything is well from here on.
    pub fn over(&self, within: Duration) {
        self.world.record.saw(&self.name, Outside::FaultsOver { within_ns: within, resource: None });
    }
}
