//! What a worker is given, and how it is put together.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::listening::{Listening, Protocol};
use super::work::Worker;
use crate::clock::Clock;
use crate::config::resolved::{self, Config, Listener, Mode};
use crate::event::EventSink;
use crate::fence::gate::Policy;
use crate::fence::mechanism::Mechanisms;
use crate::fence::tenure::Standing;
use crate::fence::{Resource, WriterId};
use crate::guard::cell::GateSetup;
use crate::guard::{GateCell, Guard, GuardDesk, GuardListener};
use crate::mailbox::{ControlSender, GateId, GateName, WorkerId};
use crate::metrics::ListenerMeters;
use crate::net::{Acceptor, Closer, Limiter};
use crate::protocol::Role;
use crate::roles::{Hold, StampField};
use crate::rules::Rules;
use crate::stamp::{StampDesk, StampListener, StampRole, StampedResource};

/// Everything that one worker is given. It can be sent to the worker's thread.
pub struct WorkerSetup {
    /// Which worker.
    pub id: WorkerId,
    /// How many there are: each has its share of a listener's connections.
    pub workers: usize,
    /// The id that this process campaigns under.
    pub writer: WriterId,
    /// The stamp's field, in lower case.
    pub header: Arc<str>,
    /// How much it holds.
    pub hold: resolved::Hold,
    /// Every gate of the process, by number: see [`gates_of`].
    pub gates: Vec<GateSetup>,
    /// Every resource that a stamp listener can name: see [`stamped_by`].
    pub stamped: Vec<StampedResource>,
    /// The standing to begin with.
    pub standing: Arc<Standing>,
    /// Its listeners.
    pub listeners: Vec<ListenerSetup>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where events go.
    pub events: EventSink,
    /// The queue to control.
    pub control: ControlSender,
}

/// Makes the protocol of a listener in one worker, around its role; called on the worker's thread.
pub type MakeProtocol = Box<dyn FnOnce(Rc<dyn Role>) -> Rc<dyn Protocol> + Send>;

/// Makes the acceptor of a listener in one worker; called on the worker's runtime.
pub type MakeAcceptor = Box<dyn FnOnce() -> io::Result<Acceptor> + Send>;

/// One listener as one worker is given it.
pub struct ListenerSetup {
    /// What it is.
    pub listener: Arc<Listener>,
    /// Its counters in this worker.
    pub meters: ListenerMeters,
    /// Where its connections come from: its own socket of those that share the port.
    pub accept: MakeAcceptor,
    /// What serves them.
    pub protocol: MakeProtocol,
}

impl ListenerSetup {
    /// Over a socket that [`crate::net::listen::bind`] made.
    pub fn tcp(
        listener: Arc<Listener>,
        meters: ListenerMeters,
        socket: std::net::TcpListener,
        protocol: MakeProtocol,
    ) -> ListenerSetup {
        ListenerSetup { listener, meters, accept: Box::new(move || Acceptor::tcp(socket)), protocol }
    }
}

/// The gates of a configuration, in the order of their numbers ([`GateId`]): by listener, then by resource. Control
/// and every worker take them from here.
pub fn gates_of(config: &Config, mechanisms: Mechanisms) -> Vec<GateSetup> {
    let guards = config.listeners.iter().filter_map(|listener| match &listener.role {
        resolved::Role::Guard(settings) => Some((listener, settings)),
        resolved::Role::Stamp(_) => None,
    });
    let gates = guards.flat_map(|(listener, settings)| {
        listener.serves.iter().filter_map(move |resource| {
            let drain = config.resources.get(resource)?.drain;
            let name = GateName {
                target: Arc::clone(&settings.target),
                resource: resource.clone(),
                listener: Arc::clone(&listener.name),
            };
            let policy = Policy {
                audit: settings.mode == Mode::Audit,
                bare_stamps: settings.bare_stamps,
                quarantine: drain.quarantine,
                by_time: drain.by_time,
                mechanisms,
            };
            Some(GateSetup { name, policy, hold_timeout: hold_timeout(config, resource) })
        })
    });
    gates.collect()
}

/// Every resource that a stamp listener of a configuration can name, once.
pub fn stamped_by(config: &Config) -> Vec<StampedResource> {
    let stamps = config.listeners.iter().filter(|listener| matches!(listener.role, resolved::Role::Stamp(_)));
    let mut resources: Vec<_> = stamps.flat_map(|listener| listener.serves.iter().cloned()).collect();
    resources.sort_unstable();
    resources.dedup();
    let stamped = |resource| StampedResource { hold_timeout: hold_timeout(config, &resource), resource };
    resources.into_iter().map(stamped).collect()
}

fn hold_timeout(config: &Config, resource: &Resource) -> Duration {
    config.resources.get(resource).and_then(|settings| settings.hold_timeout).unwrap_or(config.hold.timeout)
}

impl Worker {
    /// Puts a worker together. To be called on its runtime.
    ///
    /// # Errors
    /// Where a listener cannot be watched, or can name a resource that has no gate.
    pub(super) fn build(setup: WorkerSetup) -> io::Result<Worker> {
        let hold = Hold::new(setup.hold);
        let (clock, events) = (setup.clock, setup.events);
        let guards =
            Rc::new(GuardDesk::new(setup.id, Arc::clone(&clock), events.clone(), setup.control.clone(), hold.clone()));
        let gates: Vec<Rc<GateCell>> = setup
            .gates
            .into_iter()
            .enumerate()
            .map(|(number, gate)| Rc::new(GateCell::new(GateId(number), gate, Rc::clone(&guards))))
            .collect();
        let stamps = Rc::new(StampDesk::new(clock, events, hold, &setup.writer, setup.stamped, &setup.standing));
        let (field, closer) = (StampField::new(&setup.header), Closer::default());
        let roles = Roles { field, gates: &gates, guards: &guards, stamps: &stamps };
        let listeners = setup
            .listeners
            .into_iter()
            .map(|listener| roles.listening(listener, setup.workers, &closer))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Worker { id: setup.id, control: setup.control, guards, gates, stamps, listeners, closer })
    }
}

/// What the roles of a worker are made from.
struct Roles<'a> {
    field: StampField,
    gates: &'a [Rc<GateCell>],
    guards: &'a Rc<GuardDesk>,
    stamps: &'a Rc<StampDesk>,
}

impl Roles<'_> {
    fn listening(&self, setup: ListenerSetup, workers: usize, closer: &Closer) -> io::Result<Listening> {
        let ListenerSetup { listener, meters, accept, protocol } = setup;
        let meters = Rc::new(meters);
        let role = self.role(&listener, &meters)?;
        Ok(Listening {
            name: Arc::clone(&listener.name),
            stamps: matches!(listener.role, resolved::Role::Stamp(_)),
            protocol: protocol(Rc::clone(&role)),
            role,
            meters,
            limiter: Limiter::new(listener.limits.connections.div_ceil(workers.max(1))),
            acceptor: RefCell::new(Some(accept()?)),
            behind: Cell::new(None),
            closer: closer.clone(),
        })
    }

    fn role(&self, listener: &Listener, meters: &Rc<ListenerMeters>) -> io::Result<Rc<dyn Role>> {
        let (name, meters, field) = (Arc::clone(&listener.name), Rc::clone(meters), self.field.clone());
        // A copy of its own, as of everything that a request touches.
        let rules = listener.rules.clone();
        match &listener.role {
            resolved::Role::Guard(settings) => {
                let gates = self.gates_of(&name, &rules)?;
                let listener = GuardListener {
                    name,
                    rules,
                    field,
                    fence_reads: settings.fence_reads,
                    forward_stamp: settings.forward_stamp,
                    audit: settings.mode == Mode::Audit,
                    meters,
                };
                Ok(Rc::new(Guard::new(listener, gates, Rc::clone(self.guards))))
            }
            resolved::Role::Stamp(settings) => {
                let places = self.places_of(&rules)?;
                let listener = StampListener {
                    name,
                    rules,
                    field,
                    incoming_stamp: settings.incoming_stamp,
                    expect_required: settings.expect_required,
                    until_armed: settings.until_armed,
                    meters,
                };
                Ok(Rc::new(StampRole::new(listener, places, Rc::clone(self.stamps))))
            }
        }
    }

    fn gates_of(&self, listener: &Arc<str>, rules: &Rules) -> io::Result<Vec<Rc<GateCell>>> {
        let gate = |resource: &Resource| {
            let own = |gate: &&Rc<GateCell>| gate.name().listener == *listener && gate.resource() == resource;
            self.gates.iter().find(own).map(Rc::clone).ok_or_else(|| unprepared("gate", resource))
        };
        rules.resources().iter().map(gate).collect()
    }

    fn places_of(&self, rules: &Rules) -> io::Result<Vec<usize>> {
        let place = |resource| self.stamps.place_of(resource).ok_or_else(|| unprepared("place", resource));
        rules.resources().iter().map(place).collect()
    }
}

fn unprepared(what: &str, resource: &Resource) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("a listener can name {resource}, for which there is no {what}"))
}
