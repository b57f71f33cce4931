//! How connections are made: listening, dialling, and the kernel's queue between them.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::{Address, Connection, End, Host, Id, LetGo, Network, State};

/// A SYN without an answer is sent again after so long.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// One listening socket's queue.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Id>,
    pub(super) waker: Option<Waker>,
    pub(super) open: bool,
}

impl Network {
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
}
