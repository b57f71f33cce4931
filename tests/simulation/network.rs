//! A network in memory, with kernels at its ends: connections whose bytes take their time, stand still, or are lost.
//!
//! It behaves as TCP does where that matters to a fence. A connection is made while the process that listens stands
//! still. Bytes arrive in order or not at all; what a cut link lost is sent again when it has healed, for as long as
//! the sender's kernel does not give up (TCP_USER_TIMEOUT). A process that is killed leaves its kernel sending; a reset
//! throws away what has not left; what was on its way may still arrive. A reset may itself be lost.
//!
//! This file is long because it is one machine: what a segment does depends on both ends and on the link.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::agenda::Agenda;
use crate::dice::Dice;

/// What a kernel takes in each direction before the other end has it.
const BUFFER: usize = 64 * 1024;
/// A SYN without an answer is sent again after so long.
const SYN_AGAIN: Duration = Duration::from_secs(1);
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

struct Connection {
    to: Address,
    ends: [End; 2],
    established: bool,
    /// The dialling end's bytes, where they are kept to be sent again.
    tape: Option<Vec<u8>>,
}

/// One end: its kernel's side of the connection.
struct End {
    host: Host,
    inbox: VecDeque<Bytes>,
    unread: usize,
    /// The peer has said all.
    ended: bool,
    broken: Option<io::ErrorKind>,
    /// The process has closed it, or is gone.
    let_go: bool,
    /// Since when the process can do nothing more with it.
    over_since: Option<Instant>,
    give_up_after: Option<Duration>,
    out: VecDeque<Segment>,
    out_bytes: usize,
    /// When what has arrived, and whose acknowledgement is lost, was sent.
    unacknowledged: Option<Instant>,
    /// It has said all.
    closed: bool,
    last_ready: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Segment {
    sent: Instant,
    ready: Instant,
    what: What,
}

enum What {
    Data(Bytes),
    Fin,
    Rst,
}

impl End {
    fn new(host: Host) -> End {
        End {
            host,
            inbox: VecDeque::new(),
            unread: 0,
            ended: false,
            broken: None,
            let_go: false,
            over_since: None,
            give_up_after: None,
            out: VecDeque::new(),
            out_bytes: 0,
            unacknowledged: None,
            closed: false,
            last_ready: None,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn discard_out(&mut self) {
        self.out.clear();
        self.out_bytes = 0;
        self.unacknowledged = None;
    }

    fn breaks(&mut self, why: io::ErrorKind) {
        self.broken.get_or_insert(why);
        self.over_since.get_or_insert_with(Instant::now);
        self.discard_out();
        self.wake();
    }

    /// When the oldest of what the peer has not acknowledged was sent.
    fn oldest(&self) -> Option<Instant> {
        self.unacknowledged.into_iter().chain(self.out.front().map(|segment| segment.sent)).min()
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Id>,
    waker: Option<Waker>,
    open: bool,
}

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
        Network { state: Arc::new(Mutex::new(state)), let_go: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- what faults do -----------------------------------------------------------------------------------------

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
            state.off.push(host);
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

    // ---- listening and dialling ---------------------------------------------------------------------------------

    /// Listens with so many sockets; the kernel spreads connections over them.
    pub fn listen(&self, address: Address, sockets: usize) {
        let queues = (0..sockets).map(|_| Queue { open: true, ..Queue::default() }).collect();
        self.state().listening.insert(address, queues);
    }

    /// Closes one socket; what waits in its queue is reset.
    pub fn unlisten(&self, address: Address, socket: usize, how: LetGo) {
        let mut state = self.state();
        let Some(queues) = state.listening.get_mut(&address) else { return };
        let waiting = std::mem::take(&mut queues[socket].waiting);
        queues[socket].open = false;
        if queues.iter().all(|queue| !queue.open) {
            state.listening.remove(&address);
        }
        drop(state);
        let how = if how == LetGo::Vanish { how } else { LetGo::Reset };
        for id in waiting {
            self.let_go(id, 1, how);
        }
    }

    pub fn poll_accept(&self, address: Address, socket: usize, context: Option<&Context<'_>>) -> Poll<Id> {
        let mut state = self.state();
        let Some(queue) = state.listening.get_mut(&address).and_then(|queues| queues.get_mut(socket)) else {
            return Poll::Pending;
        };
        match queue.waiting.pop_front() {
            Some(id) => Poll::Ready(id),
            None => {
                if let Some(context) = context {
                    queue.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// Where nothing has that name.
    pub fn dial(&self, from: Host, authority: &str, give_up_after: Option<Duration>) -> io::Result<Id> {
        let mut state = self.state();
        let name = authority.split(':').next().unwrap_or_default();
        let known = state.names.get(&(from, name.to_owned())).cloned().unwrap_or_default();
        if known.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no host is called {name}")));
        }
        let to = *state.dice.pick(&known);
        Ok(self.dial_in(&mut state, from, to, give_up_after))
    }

    /// The same, to an address.
    pub fn dial_to(&self, from: Host, to: Address) -> Id {
        self.dial_in(&mut self.state(), from, to, None)
    }

    fn dial_in(&self, state: &mut State, from: Host, to: Address, give_up_after: Option<Duration>) -> Id {
        state.next += 1;
        let id = state.next;
        let chance = state.taping;
        let taped = matches!((from, to.0), (Host::Writer(_), Host::Guard(_))) && state.dice.percent(chance);
        let mut ends = [End::new(from), End::new(to.0)];
        ends[0].give_up_after = give_up_after;
        let connection = Connection { to, ends, established: false, tape: taped.then(Vec::new) };
        state.connections.insert(id, connection);
        let (network, at) = (self.clone(), Instant::now() + state.delay(from, to.0));
        state.agenda.at(at, move || network.syn(id));
        id
    }

    fn syn(&self, id: Id) {
        let mut state = self.state();
        let Some(connection) = state.connections.get(&id).filter(|connection| !connection.ends[0].let_go) else {
            return;
        };
        let (from, to) = (connection.ends[0].host, connection.to);
        if !state.is_up(from, to.0) || state.off.contains(&to.0) {
            let network = self.clone();
            return state.agenda.after(SYN_AGAIN, move || network.syn(id));
        }
        let queues = state.listening.get(&to).map_or(0, Vec::len);
        let pick = state.dice.index(queues.max(1));
        let queue = state.listening.get_mut(&to).and_then(|queues| {
            let open = queues.get(pick).is_some_and(|queue| queue.open);
            if open { queues.get_mut(pick) } else { queues.iter_mut().find(|queue| queue.open) }
        });
        let accepted = queue.map(|queue| {
            queue.waiting.push_back(id);
            queue.waker.take()
        });
        let refused = accepted.is_none();
        if let Some(Some(waker)) = accepted {
            waker.wake();
        }
        let (network, at) = (self.clone(), Instant::now() + state.delay(to.0, from));
        state.agenda.at(at, move || network.syn_ack(id, refused));
    }

    fn syn_ack(&self, id: Id, refused: bool) {
        let mut state = self.state();
        let Some(connection) = state.connections.get(&id) else { return };
        let (from, to) = (connection.ends[0].host, connection.to.0);
        if !state.is_up(to, from) {
            let network = self.clone();
            return state.agenda.after(SYN_AGAIN, move || network.syn_ack(id, refused));
        }
        let Some(connection) = state.connections.get_mut(&id) else { return };
        if refused {
            connection.ends[0].breaks(io::ErrorKind::ConnectionRefused);
        } else {
            connection.established = true;
            connection.ends[0].wake();
        }
    }

    /// Ready once the connection is made, or refused.
    pub fn poll_connected(&self, id: Id, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match connection.ends[0].broken {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None if connection.established => Poll::Ready(Ok(())),
            None => {
                connection.ends[0].reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What a listener is told of who connects.
    pub fn peer(id: Id) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), u16::try_from(1024 + id % 60_000).unwrap_or(1024)))
    }

    // ---- bytes --------------------------------------------------------------------------------------------------

    pub fn poll_read(&self, id: Id, end: usize, room: usize, context: &Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let near = &mut connection.ends[end];
        if let Some(mut bytes) = near.inbox.pop_front() {
            let part = bytes.split_to(room.min(bytes.len()));
            if !bytes.is_empty() {
                near.inbox.push_front(bytes);
            }
            near.unread -= part.len();
            if !connection.ends[1 - end].out.is_empty() {
                self.deliver_at(&state, id, 1 - end, Instant::now());
            }
            return Poll::Ready(Ok(part));
        }
        if let Some(kind) = near.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if near.ended {
            return Poll::Ready(Ok(Bytes::new()));
        }
        near.reader = Some(context.waker().clone());
        Poll::Pending
    }

    pub fn poll_write(&self, id: Id, end: usize, bytes: &[u8], context: &Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        // Now and then the kernel takes a part only.
        let part =
            if bytes.len() > 1 && state.dice.percent(3) { state.dice.index(bytes.len()).max(1) } else { bytes.len() };
        let Some(connection) = state.connections.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let near = &mut connection.ends[end];
        if let Some(kind) = near.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if near.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let part = part.min(BUFFER - near.out_bytes.min(BUFFER));
        if part == 0 && !bytes.is_empty() {
            near.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some(tape) = connection.tape.as_mut().filter(|_| end == 0) {
            tape.extend_from_slice(&bytes[..part]);
        }
        near.out_bytes += part;
        self.push(&mut state, id, end, What::Data(Bytes::copy_from_slice(&bytes[..part])));
        Poll::Ready(Ok(part))
    }

    /// Says that nothing more comes.
    pub fn shut(&self, id: Id, end: usize) {
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else { return };
        let near = &mut connection.ends[end];
        if near.broken.is_none() && !std::mem::replace(&mut near.closed, true) {
            self.push(&mut state, id, end, What::Fin);
        }
    }

    /// The process closes its socket, or is gone.
    pub fn let_go(&self, id: Id, end: usize, how: LetGo) {
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else { return };
        let (from, to) = (connection.ends[end].host, connection.ends[1 - end].host);
        let near = &mut connection.ends[end];
        if std::mem::replace(&mut near.let_go, true) {
            return;
        }
        near.over_since.get_or_insert_with(Instant::now);
        (near.reader, near.writer) = (None, None);
        let (was_closed, on_its_way) = (std::mem::replace(&mut near.closed, true), near.out.len());
        if let Some(tape) = connection.tape.take_if(|_| end == 0).filter(|tape| !tape.is_empty()) {
            let to = connection.to;
            state.tapes.push((to, tape));
        }
        if let Some(connection) = state.connections.get_mut(&id) {
            let near = &mut connection.ends[end];
            if near.broken.is_some() {
                // Nothing more goes out on it.
            } else if how == LetGo::Vanish {
                near.discard_out();
            } else if how == LetGo::Reset || near.unread > 0 {
                // What the link has taken already may still come before the reset; what stands still does not.
                let up = state.is_up(from, to);
                let kept = if up { state.dice.index(on_its_way + 1) } else { 0 };
                let near = &mut state.connections.get_mut(&id).expect("it was just there").ends[end];
                near.out.truncate(kept);
                near.unacknowledged = None;
                self.push(&mut state, id, end, What::Rst);
            } else if !was_closed {
                self.push(&mut state, id, end, What::Fin);
            }
        }
        state.forget_if_over(id);
        drop(state);
        self.let_go.notify_waiters();
    }

    /// Since when the dialling process can do nothing more on it; waits until that is so.
    pub async fn over(&self, id: Id) -> Instant {
        loop {
            let changed = self.let_go.notified();
            {
                let state = self.state();
                match state.connections.get(&id).map(|connection| connection.ends[0].over_since) {
                    Some(Some(since)) => return since,
                    None => return Instant::now(),
                    Some(None) => {}
                }
            }
            changed.await;
        }
    }

    fn push(&self, state: &mut State, id: Id, end: usize, what: What) {
        let Some(connection) = state.connections.get(&id) else { return };
        let (from, to) = (connection.ends[end].host, connection.ends[1 - end].host);
        let now = Instant::now();
        let delay = state.delay(from, to);
        let near = &mut state.connections.get_mut(&id).expect("it was just there").ends[end];
        let ready = (now + delay).max(near.last_ready.unwrap_or(now));
        near.last_ready = Some(ready);
        let first = near.oldest().is_none();
        near.out.push_back(Segment { sent: now, ready, what });
        if let Some(limit) = near.give_up_after.filter(|_| first) {
            let network = self.clone();
            state.agenda.at(now + limit, move || network.give_up(id, end));
        }
        if near.out.len() == 1 {
            self.deliver_at(state, id, end, ready);
        }
    }

    fn deliver_at(&self, state: &State, id: Id, end: usize, at: Instant) {
        let network = self.clone();
        state.agenda.at(at, move || network.deliver(id, end));
    }

    /// The kernel gives up what the peer has not acknowledged for too long.
    fn give_up(&self, id: Id, end: usize) {
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else { return };
        let near = &mut connection.ends[end];
        let (Some(oldest), Some(limit)) = (near.oldest(), near.give_up_after) else { return };
        if oldest + limit > Instant::now() {
            let network = self.clone();
            return state.agenda.at(oldest + limit, move || network.give_up(id, end));
        }
        near.breaks(io::ErrorKind::TimedOut);
        near.closed = true;
        self.push(&mut state, id, end, What::Rst);
        drop(state);
        self.let_go.notify_waiters();
    }

    /// What is ready at one end's kernel arrives at the other.
    fn deliver(&self, id: Id, end: usize) {
        let now = Instant::now();
        let mut state = self.state();
        loop {
            let Some(connection) = state.connections.get(&id) else { return };
            let (near, far) = (&connection.ends[end], &connection.ends[1 - end]);
            let (from, to) = (near.host, far.host);
            let Some(first) = near.out.front() else { break };
            if first.ready > now {
                let at = first.ready;
                self.deliver_at(&state, id, end, at);
                break;
            }
            let is_data = matches!(first.what, What::Data(_));
            // It goes on when the link is healed, when the process has read, or when the machine is back.
            if !state.is_up(from, to) || (is_data && !far.let_go && far.unread >= BUFFER) {
                if matches!(first.what, What::Rst) && near.let_go {
                    // A reset is sent once.
                    state.connections.get_mut(&id).expect("it was just there").ends[end].discard_out();
                }
                break;
            }
            if state.off.contains(&to) {
                break;
            }
            self.arrive(&mut state, id, end);
        }
        state.forget_if_over(id);
    }

    fn arrive(&self, state: &mut State, id: Id, end: usize) {
        let Some(connection) = state.connections.get(&id) else { return };
        let acknowledged = state.is_up(connection.ends[1 - end].host, connection.ends[end].host);
        let keeps_unread = state.dice.percent(50);
        let Some(connection) = state.connections.get_mut(&id) else { return };
        let [one, other] = &mut connection.ends;
        let (near, far) = if end == 0 { (one, other) } else { (other, one) };
        let Some(segment) = near.out.pop_front() else { return };
        if !acknowledged {
            near.unacknowledged = near.unacknowledged.or(Some(segment.sent));
        }
        let mut answer_by_reset = false;
        match segment.what {
            What::Data(bytes) => {
                near.out_bytes -= bytes.len();
                if let Some(writer) = near.writer.take() {
                    writer.wake();
                }
                if far.let_go {
                    answer_by_reset = far.broken.is_none();
                } else if far.broken.is_none() {
                    far.unread += bytes.len();
                    far.inbox.push_back(bytes);
                }
            }
            What::Fin => far.ended = true,
            What::Rst => {
                far.breaks(io::ErrorKind::ConnectionReset);
                if !keeps_unread {
                    far.inbox.clear();
                    far.unread = 0;
                }
            }
        }
        if let Some(reader) = far.reader.take() {
            reader.wake();
        }
        if answer_by_reset {
            far.discard_out();
            far.broken = Some(io::ErrorKind::ConnectionReset);
            self.push(state, id, 1 - end, What::Rst);
        }
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
