//! What a worker is given, and how it is put together.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::in_force::InForce;
use super::listening::{Listening, Protocol, Served};
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
use crate::mailbox::{ControlSender, GateId, GateName, Renewal, WorkerId};
use crate::metrics::ListenerMeters;
use crate::net::dial::ClientSlot;
use crate::net::listen::Socket;
use crate::net::{Acceptor, Closer, Limiter};
use crate::protocol::Role;
use crate::roles::{Hold, Identities, StampField};
use crate::rules::Rules;
use crate::signing::{Keys, KeysInForce};
use crate::stamp::{StampDesk, StampListener, StampRole, StampedResource};
use crate::tls::Sides;

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
pub type MakeProtocol = Box<dyn Fn(&Arc<Listener>, Rc<dyn Role>, &ClientSlot) -> Rc<dyn Protocol> + Send>;

/// Makes the acceptor of a listener in one worker; called on the worker's runtime.
pub type MakeAcceptor = Box<dyn FnOnce() -> io::Result<Acceptor> + Send>;

/// What a listener's sessions are made with, and the keys of its signed stamps.
pub type Trust = (Sides, Option<Arc<Keys>>);

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
    /// What sessions are made with, on both sides.
    pub sides: Sides,
    /// The keys of its signed stamps.
    pub signatures: Option<Arc<Keys>>,
}

impl ListenerSetup {
    /// Over a socket that [`crate::net::listen::bind_at`] made.
    pub fn on(
        socket: Socket,
        listener: Arc<Listener>,
        meters: ListenerMeters,
        protocol: MakeProtocol,
        (sides, signatures): Trust,
    ) -> ListenerSetup {
        ListenerSetup { listener, meters, accept: Box::new(move || Acceptor::on(socket)), protocol, sides, signatures }
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
                // What the target itself proves is over, time does not end.
                by_time: drain.by_time && (listener.upstream.control.is_none() || settings.mode == Mode::Audit),
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
        let roles = Roles {
            field: StampField::new(&setup.header),
            gates: gates.clone(),
            guards: Rc::clone(&guards),
            stamps: Rc::clone(&stamps),
            workers: setup.workers.max(1),
        };
        let listeners =
            setup.listeners.into_iter().map(|listener| roles.listening(listener)).collect::<io::Result<_>>()?;
        Ok(Worker { id: setup.id, control: setup.control, guards, gates, stamps, listeners, roles })
    }
}

/// What the roles of a worker are made from.
pub(super) struct Roles {
    field: StampField,
    gates: Vec<Rc<GateCell>>,
    guards: Rc<GuardDesk>,
    stamps: Rc<StampDesk>,
    workers: usize,
}

impl Roles {
    fn listening(&self, setup: ListenerSetup) -> io::Result<Listening> {
        let ListenerSetup { listener, meters, accept, protocol, sides, signatures } = setup;
        let meters = Rc::new(meters);
        let client: ClientSlot = Rc::new(RefCell::new(sides.client));
        let keys = KeysInForce::new(signatures);
        let (most, most_of_a_peer) = self.share(&listener);
        let role = InForce::new(self.role(&listener, &meters, keys.clone())?);
        let served = served(&listener, &role, &protocol, &client);
        Ok(Listening {
            name: Arc::clone(&listener.name),
            stamps: matches!(listener.role, resolved::Role::Stamp(_)),
            role,
            served: RefCell::new(Rc::new(served)),
            retired: RefCell::default(),
            make: protocol,
            tls: RefCell::new(sides.server),
            client,
            keys,
            meters,
            limiter: Limiter::new(most, most_of_a_peer),
            acceptor: RefCell::new(Some(accept()?)),
            behind: Cell::new(None),
            logged: Rc::default(),
        })
    }

    /// Has a listener be as it is from now on.
    ///
    /// # Errors
    /// Where it can name a resource that this worker has nothing for: then it stays as it was.
    pub(super) fn renew(&self, listening: &Listening, renewal: &Renewal) -> io::Result<()> {
        if renewal.replaced {
            let role = self.role(&renewal.listener, &listening.meters, listening.keys.clone())?;
            let served = served(&renewal.listener, &listening.role, &listening.make, &listening.client);
            listening.renew(role, served, self.share(&renewal.listener));
        }
        listening.tls.replace(renewal.sides.server.clone());
        listening.client.replace(renewal.sides.client.clone());
        listening.keys.replace(renewal.signatures.clone());
        Ok(())
    }

    /// A worker's share of a listener's connections, and of those of one peer.
    fn share(&self, listener: &Listener) -> (usize, Option<usize>) {
        let share = |connections: usize| connections.div_ceil(self.workers);
        (share(listener.limits.connections), listener.limits.connections_per_peer.map(share))
    }

    fn role(
        &self,
        listener: &Listener,
        meters: &Rc<ListenerMeters>,
        signatures: KeysInForce,
    ) -> io::Result<Rc<dyn Role>> {
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
                    identities: Identities::new(listener.identities.clone()),
                    fence_reads: settings.fence_reads,
                    forward_stamp: settings.forward_stamp,
                    audit: settings.mode == Mode::Audit,
                    signatures,
                    meters,
                };
                Ok(Rc::new(Guard::new(listener, gates, Rc::clone(&self.guards))))
            }
            resolved::Role::Stamp(settings) => {
                let places = self.places_of(&rules)?;
                let listener = StampListener {
                    name,
                    rules,
                    field,
                    identities: Identities::new(listener.identities.clone()),
                    incoming_stamp: settings.incoming_stamp,
                    expect_required: settings.expect_required,
                    until_armed: settings.until_armed,
                    signatures,
                    meters,
                };
                Ok(Rc::new(StampRole::new(listener, places, Rc::clone(&self.stamps))))
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

/// How a listener serves, asking what is in force.
fn served(listener: &Arc<Listener>, role: &Rc<InForce>, make: &MakeProtocol, client: &ClientSlot) -> Served {
    let protocol = make(listener, Rc::clone(role) as Rc<dyn Role>, client);
    Served {
        protocol,
        closer: Closer::default(),
        greeting_timeout: listener.limits.header_timeout,
        speaks: listener.protocol,
        proxy: listener.proxy_protocol.clone(),
    }
}

fn unprepared(what: &str, resource: &Resource) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("a listener can name {resource}, for which there is no {what}"))
}
