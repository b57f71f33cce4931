//! One listener in one worker: takes connections in, binds them, and has its protocol serve them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::metrics::ListenerMeters;
use crate::net::{Acceptor, Closer, Closing, Limiter, Stream};
use crate::protocol::{Binding, CutReason, Role};

/// A connection being served.
pub type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// What serves a listener's connections: [`crate::protocol::http`], or what a test puts in its place.
pub trait Protocol {
    /// Serves one connection to its end, and tells its role of it ([`Role::connection`]). It was bound when it was
    /// accepted; `closing` says when it is to finish. Dropping the future ends it at once.
    fn serve(&self, stream: Stream, peer: SocketAddr, binding: Binding, closing: Closing) -> Serving;

    /// How many writes run in tasks of their own, which outlive the connection that they came on.
    fn writes_in_flight(&self) -> usize;
}

/// No socket's queue is longer than this: who has taken so many has taken all that waited when it began.
const LONGEST_QUEUE: usize = 4096;

/// A binding does not depend on who is bound.
const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// One listener in one worker.
pub(super) struct Listening {
    pub name: Arc<str>,
    /// Whether its connections are bound to the writer's standing.
    pub stamps: bool,
    pub role: Rc<dyn Role>,
    pub protocol: Rc<dyn Protocol>,
    pub meters: Rc<ListenerMeters>,
    /// How many connections it has, and may have, in this worker.
    pub limiter: Limiter,
    /// None once it listens no more.
    pub acceptor: RefCell<Option<Acceptor>>,
    /// What a connection is bound to as long as it may have waited since before the present standing: there, while the
    /// kernel's queue could not be emptied when that came.
    pub behind: Cell<Option<Binding>>,
    pub closer: Closer,
}

impl Listening {
    /// Takes in connections for as long as it is polled.
    pub async fn accept(&self) {
        loop {
            let (stream, peer) = poll_fn(|context| self.poll_accept(context)).await;
            self.take(stream, peer);
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<(Stream, SocketAddr)> {
        match self.acceptor.borrow_mut().as_mut() {
            Some(acceptor) if self.behind.get().is_some() => match acceptor.accept_waiting() {
                Ok(Some(accepted)) => Poll::Ready(accepted),
                Ok(None) => {
                    self.behind.set(None);
                    pin!(acceptor.accept()).poll(context)
                }
                // That is logged, and waited out, below.
                Err(_) => pin!(acceptor.accept()).poll(context),
            },
            // A new future each time, so that nothing is borrowed while it waits: others accept at this listener too.
            Some(acceptor) => pin!(acceptor.accept()).poll(context),
            None => Poll::Pending,
        }
    }

    /// Takes in what waits in the kernel's queue, bound as of now. Returns how many. Where it cannot be had (no
    /// descriptors left), it is bound as of now whenever it is had: until the queue was seen empty.
    pub fn accept_waiting(&self) -> usize {
        let waiting = || self.acceptor.borrow_mut().as_mut().map_or(Ok(None), Acceptor::accept_waiting);
        let mut taken = 0;
        while taken < LONGEST_QUEUE {
            match waiting() {
                Ok(Some((stream, peer))) => self.take(stream, peer),
                Ok(None) => {
                    self.behind.set(None);
                    break;
                }
                Err(_) => {
                    self.behind.set(self.behind.get().or_else(|| Some(self.role.bind(NOBODY))));
                    break;
                }
            }
            taken += 1;
        }
        taken
    }

    /// Listens no more.
    pub fn stop(&self) {
        let acceptor = self.acceptor.borrow_mut().take();
        drop(acceptor);
    }

    fn take(&self, stream: Stream, peer: SocketAddr) {
        let Some(permit) = self.limiter.take() else {
            self.role.cut(CutReason::Limit);
            return;
        };
        let binding = self.behind.get().unwrap_or_else(|| self.role.bind(peer));
        let serving = self.protocol.serve(stream, peer, binding, self.closer.handle());
        tokio::task::spawn_local(async move {
            let _permit = permit;
            serving.await;
        });
    }
}
