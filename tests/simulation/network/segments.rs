//! Bytes on their way: from a process to its kernel, over the link, to the other kernel and its process.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::connection::{Segment, What};
use super::{Id, LetGo, Network, State};

/// What a kernel takes in each direction before the other end has it.
const BUFFER: usize = 64 * 1024;

impl Network {
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
            near.taken += part.len() as u64;
            near.handed_when_it_took = near.handed;
            if end == 0 {
                self.took.notify_waiters();
            }
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
        near.handed += part as u64;
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

    /// How much the accepting process has written on it so far, and how much it has read.
    pub fn served(&self, id: Id) -> (u64, u64) {
        let state = self.state();
        state.connections.get(&id).map_or((0, 0), |connection| (connection.ends[1].handed, connection.ends[1].taken))
    }

    /// Waits until the dialling process has taken so many bytes, and returns how many it had handed over by then; none
    /// where the connection is over before.
    pub async fn took(&self, id: Id, bytes: u64) -> Option<u64> {
        loop {
            let (took, let_go) = (self.took.notified(), self.let_go.notified());
            {
                let state = self.state();
                let end = &state.connections.get(&id)?.ends[0];
                if end.taken >= bytes {
                    return Some(end.handed_when_it_took);
                }
                if end.over_since.is_some() {
                    return None;
                }
            }
            tokio::select! {
                biased;
                () = took => {}
                () = let_go => {}
            }
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

    pub(super) fn deliver_at(&self, state: &State, id: Id, end: usize, at: Instant) {
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
