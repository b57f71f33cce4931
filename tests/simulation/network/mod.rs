//! A network in memory, with kernels at its ends: connections whose bytes take their time, stand still, or are lost.
//!
//! It behaves as TCP does where that matters to a fence. A connection is made while the process that listens stands
//! still. Bytes arrive in order or not at all; what a cut link lost is sent again when it has healed, for as long as
//! the sender's kernel does not give up (TCP_USER_TIMEOUT). A process that is killed leaves its kernel sending; a reset
//! throws away what has not left; what was on its way may still arrive. A reset may itself be lost.
//!
//! | file | what it holds |
//! |---|---|
//! | here | machines and links, and what faults do to them |
//! | [`connection`] | one connection, and its two ends |
//! | [`opening`] | listening and dialling |
//! | [`segments`] | bytes on their way |

mod connection;
mod opening;
mod segments;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::agenda::Agenda;
use crate::dice::Dice;
use connection::{Connection, End};
use opening::Queue;

/// The slowest that a link gets.
pub const SLOWEST: Duration = Duration::from_millis(400);

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A service with its stamping sidecar.
    Writer(u8),
    /// A guard.
    Guard(u8),
    /// A target.
    Target(u8),
    /// The coordinator.
    Coordinator,
    /// Something in between that keeps what it has seen.
    Middlebox,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Writer(number) => write!(f, "writer-{number}"),
            Host::Guard(number) => write!(f, "guard-{number}"),
            Host::Target(number) => write!(f, "target-{number}"),
            Host::Coordinator => f.write_str("coordinator"),
            Host::Middlebox => f.write_str("middlebox"),
        }
    }
}

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub Host, pub u16);

/// One direction between two machines.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// How many faults keep it cut.
    cuts: u32,
    /// How many faults make it slow.
    slow: u32,
}

/// One connection's number.
pub type Id = u64;

/// How a process lets go of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetGo {
    /// In order; also what the kernel does for a process that was killed.
    Close,
    /// By reset.
    Reset,
    /// The whole machine went.
    Vanish,
}

struct State {
    dice: Dice,
    agenda: Agenda,
    links: BTreeMap<(Host, Host), Link>,
    connections: BTreeMap<Id, Connection>,
    next: Id,
    listening: BTreeMap<Address, Vec<Queue>>,
    names: BTreeMap<(Host, String), Vec<Address>>,
    /// Machines that are off: they answer nothing.
    off: Vec<Host>,
    /// How many of a hundred connections between writers and guards are kept to be sent again.
    taping: u64,
    tapes: Vec<(Address, Vec<u8>)>,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    /// Rings when a process has let go of a connection.
    let_go: Arc<Notify>,
    /// Rings when a dialling process has read.
    took: Arc<Notify>,
}

impl Network {
    pub fn new(dice: Dice, agenda: Agenda, taping: u64) -> Network {
        let state = State {
            dice,
            agenda,
            links: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            listening: BTreeMap::new(),
            names: BTreeMap::new(),
            off: Vec::new(),
            taping,
            tapes: Vec::new(),
        };
        Network { state: Arc::new(Mutex::new(state)), let_go: Arc::default(), took: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts one direction.
    pub fn cut(&self, from: Host, to: Host) {
        self.state().links.entry((from, to)).or_default().cuts += 1;
    }

    /// Takes a cut back. What was lost is sent again.
    pub fn heal(&self, from: Host, to: Host) {
        let mut state = self.state();
        let link = state.links.entry((from, to)).or_default();
        link.cuts = link.cuts.saturating_sub(1);
        if link.cuts > 0 {
            return;
        }
        for id in state.between(from, to) {
            for end in 0..2 {
                let connection = state.connections.get_mut(&id).expect("it was just listed");
                if connection.ends[end].host == from {
                    let delay = state.dice.millis(0, 200);
                    self.deliver_at(&state, id, end, Instant::now() + delay);
                } else {
                    // The acknowledgements of what the other side had sent come through.
                    connection.ends[end].unacknowledged = None;
                }
            }
        }
    }

    /// Makes one direction slow, or no longer.
    pub fn slow(&self, from: Host, to: Host, slow: bool) {
        let mut state = self.state();
        let link = state.links.entry((from, to)).or_default();
        link.slow = if slow { link.slow + 1 } else { link.slow.saturating_sub(1) };
    }

    /// Whether what is sent now from the one to the other arrives.
    pub fn is_up(&self, from: Host, to: Host) -> bool {
        self.state().is_up(from, to)
    }

    /// How long something takes that is sent now.
    pub fn delay(&self, from: Host, to: Host) -> Duration {
        self.state().delay(from, to)
    }

    /// Breaks every connection between the two. Returns how many.
    pub fn reset_between(&self, one: Host, other: Host) -> usize {
        let mut state = self.state();
        let ids: Vec<Id> = state.between(one, other);
        for id in &ids {
            let connection = state.connections.get_mut(id).expect("it was just listed");
            connection.ends.iter_mut().for_each(|end| end.breaks(io::ErrorKind::ConnectionReset));
        }
        drop(state);
        self.let_go.notify_waiters();
        ids.len()
    }

    /// Has the name lead to one of these, as seen from this machine.
    pub fn name(&self, seen_from: Host, name: &str, addresses: &[Address]) {
        self.state().names.insert((seen_from, name.to_owned()), addresses.to_vec());
    }

    /// Turns a machine off or on.
    pub fn power(&self, host: Host, on: bool) {
        let mut state = self.state();
        state.off.retain(|off| *off != host);
        if !on {
            return state.off.push(host);
        }
        // What the others still send is answered, now that somebody is there.
        let ids: Vec<Id> = state.connections.keys().copied().collect();
        for id in ids {
            for end in 0..2 {
                if state.connections[&id].ends[1 - end].host == host {
                    self.deliver_at(&state, id, end, Instant::now());
                }
            }
        }
    }

    /// What was kept of a connection between a writer and a guard: where to, and the bytes.
    pub fn take_tape(&self) -> Option<(Address, Vec<u8>)> {
        let mut state = self.state();
        let length = state.tapes.len();
        let at = state.dice.index(length.max(1));
        (length > 0).then(|| state.tapes.swap_remove(at))
    }

    /// Drops everything: the world is over.
    pub fn clear(&self) {
        let mut state = self.state();
        let dropped = (std::mem::take(&mut state.connections), std::mem::take(&mut state.listening));
        drop(state);
        drop(dropped);
    }
}

impl State {
    fn is_up(&self, from: Host, to: Host) -> bool {
        from == to || self.links.get(&(from, to)).is_none_or(|link| link.cuts == 0)
    }

    fn delay(&mut self, from: Host, to: Host) -> Duration {
        if from == to {
            return Duration::ZERO;
        }
        let slow = self.links.get(&(from, to)).is_some_and(|link| link.slow > 0);
        if slow {
            return self.dice.between(Duration::from_millis(20), SLOWEST);
        }
        match self.dice.below(100) {
            0 => self.dice.millis(5, 60),
            1..30 => Duration::ZERO,
            _ => self.dice.millis(0, 3),
        }
    }

    fn between(&self, one: Host, other: Host) -> Vec<Id> {
        let is_between = |connection: &Connection| {
            let hosts = (connection.ends[0].host, connection.ends[1].host);
            hosts == (one, other) || hosts == (other, one)
        };
        self.connections.iter().filter(|(_, connection)| is_between(connection)).map(|(id, _)| *id).collect()
    }

    fn forget_if_over(&mut self, id: Id) {
        let over = |end: &End| end.let_go && (end.out.is_empty() || end.broken.is_some());
        if self.connections.get(&id).is_some_and(|connection| connection.ends.iter().all(over)) {
            let dropped = self.connections.remove(&id);
            drop(dropped);
        }
    }
}
