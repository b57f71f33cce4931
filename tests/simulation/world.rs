//! The world of one seed: what there is in it, and how it is set up and taken down.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use epochgate::coordinator::doors as records;
use epochgate::coordinator::keys::DoorName;
use epochgate::disk::Disk as _;
use epochgate::fence::mechanism::Mechanisms;
use epochgate::verify::Outside;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use crate::agenda::Agenda;
use crate::app::{App, Numbers};
use crate::clock::DriftingClock;
use crate::coordinator::Coordinator;
use crate::dice::Dice;
use crate::life::Life;
use crate::network::{Address, Host, Network};
use crate::plan::Plan;
use crate::process::{Around, Process};
use crate::record::Record;
use crate::socket::Socket;
use crate::target::{self, Target};

/// The port of every guard.
const DOOR: u16 = 8080;
/// A process that has ended is started again after so long, at most.
const STARTED_AGAIN: u64 = 2_500;
/// How long an operator waits before he takes a guard that was told to stop for dead.
const PATIENCE: Duration = Duration::from_secs(8);

/// What there is in a world.
pub struct World {
    pub plan: Plan,
    pub network: Network,
    pub record: Record,
    pub coordinator: Coordinator,
    pub targets: Vec<Rc<Target>>,
    pub stamps: Vec<Rc<Process>>,
    pub apps: Vec<Rc<App>>,
    guards: RefCell<Vec<(Rc<Process>, u8)>>,
    agenda: Agenda,
    around: Around,
    name: Arc<str>,
    /// What is sent by nobody's service.
    strangers: Cell<u64>,
}

impl World {
    /// A world that has just begun.
    pub fn begin(plan: Plan, mechanisms: Mechanisms) -> Rc<World> {
        let seed = plan.seed;
        let agenda = Agenda::default();
        let record = Record::new(Instant::now());
        let network = Network::new(Dice::of(seed, "network"), agenda.clone(), plan.taping);
        let coordinator = Coordinator::new(Dice::of(seed, "coordinator"), &network, &agenda, &record);
        tokio::task::spawn_local(agenda.clone().carry_out());
        let around =
            Around { network: network.clone(), coordinator: coordinator.clone(), record: record.clone(), mechanisms };
        let target = |number: u8| {
            Target::new(number, &network, &record, &plan, Dice::of(seed, &Host::Target(number).to_string()))
        };
        let targets = (1..=plan.targets).map(target).collect();
        let numbers = Numbers::default();
        let app = |number| {
            let dice = Dice::of(seed, &format!("app-{number}"));
            App::new(number, (&network, &record), &plan, &numbers, dice)
        };
        let apps = (1..=plan.writers).map(app).collect();
        let stamps = (1..=plan.writers).map(|it| process(&around, seed, Host::Writer(it), plan.stamp(it))).collect();
        let world = Rc::new(World {
            plan,
            network,
            record,
            coordinator,
            targets,
            stamps,
            apps,
            guards: RefCell::default(),
            agenda,
            around,
            name: "world".into(),
            strangers: Cell::new(0),
        });
        world.start();
        world
    }

    fn start(self: &Rc<World>) {
        for target in &self.targets {
            tokio::task::spawn_local(Rc::clone(target).serve());
        }
        for target in 1..=self.plan.targets {
            let doors: Vec<Host> = (0..self.plan.doors).map(|_| self.add_guard(target).host).collect();
            self.point_writers(doors[0], &[], &[]);
        }
        self.processes().iter().for_each(Process::start);
        for app in &self.apps {
            for _ in 0..self.plan.at_once {
                tokio::task::spawn_local(Rc::clone(app).write());
            }
        }
        tokio::task::spawn_local(Rc::clone(self).keep_alive());
    }

    /// Starts what has ended again, as a service manager does.
    async fn keep_alive(self: Rc<World>) {
        let mut dice = Dice::of(self.plan.seed, "service manager");
        loop {
            sleep(dice.millis(50, STARTED_AGAIN)).await;
            self.processes().iter().filter(|process| process.wanted.get()).for_each(Process::start);
        }
    }

    /// Ends everything, so that nothing of it is left.
    pub fn end(&self) {
        self.processes().iter().for_each(|process| process.kill());
        self.agenda.clear();
        self.network.clear();
    }

    /// Nothing behaves badly any more, and the names lead to the guards that are there to be used.
    pub fn calm(self: &Rc<World>) {
        for guard in self.guards() {
            self.point_writers(guard.host, &[], &[]);
        }
        if self.plan.doors == 1 && self.plan.replaced {
            tokio::task::spawn_local(Rc::clone(self).keep_off_the_blocked());
        }
        self.targets.iter().for_each(|target| target.calm.set(true));
        self.apps.iter().for_each(|app| app.calm.set(true));
    }

    /// As whatever asks guards whether they are ready does: writers are led away from a sole one whose place another has.
    async fn keep_off_the_blocked(self: Rc<World>) {
        loop {
            for target in 1..=self.plan.targets {
                let of_it: Vec<_> =
                    self.guards().into_iter().filter(|guard| self.target_number(guard.host) == target).collect();
                let (used, blocked): (Vec<_>, Vec<_>) = of_it.into_iter().partition(|guard| self.is_in_place(guard));
                let Some(one) = used.iter().find(|guard| guard.wanted.get()) else { continue };
                let blocked: Vec<Host> = blocked.iter().map(|guard| guard.host).collect();
                self.point_writers(one.host, &[], &blocked);
                for (stamp, guard) in self.stamps.iter().flat_map(|stamp| blocked.iter().map(move |it| (stamp, *it))) {
                    self.network.reset_between(stamp.host, guard);
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    // ---- guards ---------------------------------------------------------------------------------------------------

    /// Every guard that there ever was.
    pub fn guards(&self) -> Vec<Rc<Process>> {
        self.guards.borrow().iter().map(|(guard, _)| Rc::clone(guard)).collect()
    }

    /// Every process of the product.
    pub fn processes(&self) -> Vec<Rc<Process>> {
        let mut all = self.guards();
        all.extend(self.stamps.iter().cloned());
        all
    }

    fn target_number(&self, guard: Host) -> u8 {
        let guards = self.guards.borrow();
        guards.iter().find(|(process, _)| process.host == guard).map_or(1, |(_, target)| *target)
    }

    /// The target that a guard stands before.
    pub fn target_of(&self, guard: Host) -> Host {
        Host::Target(self.target_number(guard))
    }

    fn add_guard(&self, target: u8) -> Rc<Process> {
        let number = u8::try_from(self.guards.borrow().len() + 1).expect("there are few guards");
        let host = Host::Guard(number);
        let guard = process(&self.around, self.plan.seed, host, self.plan.guard(number, target));
        let address = Address(Host::Target(target), target::PORT);
        self.network.name(host, &format!("target-{target}"), &[address]);
        self.guards.borrow_mut().push((Rc::clone(&guard), target));
        guard
    }

    /// A new guard before the same target, not started yet.
    pub fn add_guard_beside(&self, other: Host) -> Rc<Process> {
        self.add_guard(self.target_number(other))
    }

    /// Has the name of a guard's target lead writers to its guards: those that are wanted, and these besides; not to
    /// `without`.
    pub fn point_writers(&self, of: Host, besides: &[Host], without: &[Host]) {
        let target = self.target_number(of);
        let name = self.plan.door(target);
        let mut hosts: Vec<Host> = {
            let guards = self.guards.borrow();
            let wanted = guards.iter().filter(|(guard, before)| *before == target && guard.wanted.get());
            wanted.map(|(guard, _)| guard.host).chain(besides.iter().copied()).collect()
        };
        hosts.retain(|host| !without.contains(host));
        let addresses: Vec<Address> = hosts.into_iter().map(|guard| Address(guard, DOOR)).collect();
        for stamp in &self.stamps {
            self.network.name(stamp.host, &name, &addresses);
        }
    }

    /// Waits for a guard's end, and has an operator say that it is dead. Whether it had left by itself before.
    pub async fn retire(&self, guard: &Rc<Process>) -> bool {
        let until = Instant::now() + PATIENCE;
        while guard.is_running() && Instant::now() < until {
            sleep(Duration::from_millis(100)).await;
        }
        let late = guard.is_running();
        guard.kill();
        let Some((target, id)) = self.door_of(guard) else { return false };
        let clock = DriftingClock::new(Instant::now(), &mut Dice::of(self.plan.seed, "operator"));
        let store = self.coordinator.store(Host::Coordinator, clock, Duration::from_secs(1));
        loop {
            match records::mark_left(store.as_ref(), &DoorName { target: target.clone(), id: id.clone() }).await {
                Ok(stood) => {
                    self.record.note(&self.name, format!("operator: door {id} is dead; its record stood: {stood}"));
                    return !stood && !late;
                }
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Waits until a guard's door is on record; not for ever, since it may be replaced in its turn.
    pub async fn is_put_in_place(&self, guard: &Rc<Process>) -> bool {
        let until = Instant::now() + PATIENCE;
        while !self.is_in_place(guard) && Instant::now() < until {
            sleep(Duration::from_millis(100)).await;
        }
        self.is_in_place(guard)
    }

    fn is_in_place(&self, guard: &Process) -> bool {
        self.door_of(guard).is_some_and(|(target, id)| self.coordinator.doors(&target).contains(&id))
    }

    /// A guard's target and its door's id, once it has one: from its disk, or from the coordinator where that has died.
    fn door_of(&self, guard: &Process) -> Option<(String, String)> {
        let target = format!("db-{}", self.target_number(guard.host));
        let id = match guard.disk().read(Path::new("/state/door")) {
            Ok(door) => String::from_utf8_lossy(&door).trim().to_owned(),
            Err(_) => {
                let of_it = format!("{}-", guard.name);
                self.coordinator.doors(&target).into_iter().find(|id| id.starts_with(&of_it))?
            }
        };
        Some((target, id))
    }

    // ---- strangers ------------------------------------------------------------------------------------------------

    /// Sends what a middlebox has kept once more.
    pub async fn repeat(&self, to: Address, tape: &[u8]) {
        // What is in a copy of HTTP/2 cannot be told here, so nobody could say what was sent how often.
        if tape.starts_with(b"PRI ") {
            return;
        }
        let text = String::from_utf8_lossy(tape);
        // A request follows the body of the one before without a line's end.
        for request in text.split("PUT /").skip(1) {
            let Some((path, _)) = request.split_once(' ') else { continue };
            let Some((resource, op)) = path.split_once("/ops/") else { continue };
            let (op, resource) = (op.into(), resource.parse().expect("services write to resources"));
            self.record.saw(&"middlebox".into(), Outside::Sent { op, resource, target: None, body: None });
        }
        self.talk(to, tape).await;
    }

    /// Sends a write that nobody stamped.
    pub async fn forge(&self, guard: Host, resource: &str, stamp: &str) {
        let number = self.strangers.get() + 1;
        self.strangers.set(number);
        let op = format!("forged{number}");
        let request = format!(
            "PUT /{resource}/ops/{op} HTTP/1.1\r\nhost: shop\r\nx-op: {op}\r\nfencing-epoch: {stamp}\r\ncontent-length: \
             6\r\n\r\nforged"
        );
        let resource = resource.parse().expect("the plan names resources");
        let sent = Outside::Sent { op: op.into(), resource, target: None, body: Some("6".into()) };
        self.record.saw(&"stranger".into(), sent);
        self.talk(Address(guard, DOOR), request.as_bytes()).await;
    }

    async fn talk(&self, to: Address, bytes: &[u8]) {
        let life = Life::default();
        let talk = async {
            let mut socket = Socket::connect(&self.network, Host::Middlebox, to, &life).await?;
            socket.write_all(bytes).await?;
            let mut answers = Vec::new();
            socket.read_to_end(&mut answers).await
        };
        // Whatever comes of it: nobody waits for the answer.
        let _ = timeout(Duration::from_secs(5), talk).await;
    }
}

fn process(around: &Around, seed: u64, host: Host, config: epochgate::config::Config) -> Rc<Process> {
    let mut dice = Dice::of(seed, &host.to_string());
    let clock = DriftingClock::new(Instant::now(), &mut dice);
    Process::new(host, config, around, clock, dice)
}
