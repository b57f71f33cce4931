//! One connection, and its two ends: what their kernels hold.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Address, Host};

/// One connection: the end that dialled, and the one that accepted.
pub(super) struct Connection {
    pub(super) to: Address,
    pub(super) ends: [End; 2],
    pub(super) established: bool,
    /// The dialling end's bytes, where they are kept to be sent again.
    pub(super) tape: Option<Vec<u8>>,
}

/// One end: its kernel's side of the connection.
pub(super) struct End {
    pub(super) host: Host,
    pub(super) inbox: VecDeque<Bytes>,
    pub(super) unread: usize,
    /// The peer has said all.
    pub(super) ended: bool,
    pub(super) broken: Option<io::ErrorKind>,
    /// The process has closed it, or is gone.
    pub(super) let_go: bool,
    /// Since when the process can do nothing more with it.
    pub(super) over_since: Option<Instant>,
    pub(super) give_up_after: Option<Duration>,
    pub(super) out: VecDeque<Segment>,
    pub(super) out_bytes: usize,
    /// When what has arrived, and whose acknowledgement is lost, was sent.
    pub(super) unacknowledged: Option<Instant>,
    /// Bytes that its kernel has taken of the process, and that the process has taken of its kernel.
    pub(super) handed: u64,
    pub(super) taken: u64,
    /// How many it had handed over when it last took any.
    pub(super) handed_when_it_took: u64,
    /// It has said all.
    pub(super) closed: bool,
    pub(super) last_ready: Option<Instant>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

pub(super) struct Segment {
    pub(super) sent: Instant,
    pub(super) ready: Instant,
    pub(super) what: What,
}

pub(super) enum What {
    Data(Bytes),
    Fin,
    Rst,
}

impl End {
    pub(super) fn new(host: Host) -> End {
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
            handed: 0,
            taken: 0,
            handed_when_it_took: 0,
            closed: false,
            last_ready: None,
            reader: None,
            writer: None,
        }
    }

    pub(super) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    pub(super) fn discard_out(&mut self) {
        self.out.clear();
        self.out_bytes = 0;
        self.unacknowledged = None;
    }

    pub(super) fn breaks(&mut self, why: io::ErrorKind) {
        self.broken.get_or_insert(why);
        self.over_since.get_or_insert_with(Instant::now);
        self.discard_out();
        self.wake();
    }

    /// When the oldest of what the peer has not acknowledged was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.unacknowledged.into_iter().chain(self.out.front().map(|segment| segment.sent)).min()
    }
}
