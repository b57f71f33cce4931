//! One listener in one worker: takes connections in, binds them, and has its protocol serve them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::Instant;

use super::in_force::InForce;
use super::setup::MakeProtocol;
use crate::config::resolved::{self, ProxyProtocol};
use crate::metrics::ListenerMeters;
use crate::net::dial::ClientSlot;
use crate::net::{Acceptor, Closer, Limiter, Stream};
use crate::peer::Peer;
use crate::protocol::{Accepted, Binding, CutReason, Party, Role};
use crate::signing::KeysInForce;

/// A connection being served.
pub type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// What serves a listener's connections: [`crate::protocol::http`], or what a test puts in its place.
pub trait Protocol {
    /// Serves one connection to its end, and tells its role of it ([`Role::connection`]). It was bound when it was
    /// accepted. Dropping the future ends it at once.
    fn serve(&self, accepted: Accepted) -> Serving;

    /// How many writes run in tasks of their own, which outlive the connection that they came on.
    fn writes_in_flight(&self) -> usize;
}

/// No socket's queue is longer than this: who has taken so many has taken all that waited when it began.
const LONGEST_QUEUE: usize = 4096;

/// How a listener serves, until its settings are others.
pub(super) struct Served {
    pub protocol: Rc<dyn Protocol>,
    /// Ends the connections that are served so.
    pub closer: Closer,
    /// How long a client may take to agree on TLS, and to say who it is.
    pub greeting_timeout: Duration,
    /// What it speaks.
    pub speaks: resolved::Protocol,
    /// Whose PROXY header is read.
    pub proxy: Option<ProxyProtocol>,
}

/// One listener in one worker.
pub(super) struct Listening {
    pub name: Arc<str>,
    /// Whether its connections are bound to the writer's standing.
    pub stamps: bool,
    pub make: MakeProtocol,
    /// What all of its connections ask.
    pub role: Rc<InForce>,
    pub served: RefCell<Rc<Served>>,
    /// How it served before, as long as anything is under way there.
    pub retired: RefCell<Vec<Rc<Served>>>,
    /// What sessions with clients are made with; plain text where there is nothing.
    pub tls: RefCell<Option<Arc<ServerConfig>>>,
    /// The same, for the upstream.
    pub client: ClientSlot,
    /// The keys of signed stamps.
    pub keys: KeysInForce,
    pub meters: Rc<ListenerMeters>,
    /// How many connections it has, and may have, in this worker.
    pub limiter: Limiter,
    /// None once it listens no more.
    pub acceptor: RefCell<Option<Acceptor>>,
    /// What a connection is bound to as long as it may have waited since before the present standing: there, while the
    /// kernel's queue could not be emptied when that came.
    pub behind: Cell<Option<Binding>>,
    /// When a session that could not be had was last logged.
    pub logged: Rc<Cell<Option<Instant>>>,
}

impl Listening {
    /// Takes in connections for as long as it is polled.
    pub async fn accept(&self) {
        loop {
            let (stream, peer) = poll_fn(|context| self.poll_accept(context)).await;
            self.take(stream, peer);
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<(Stream, Peer)> {
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
                    self.behind.set(self.behind.get().or_else(|| Some(self.role.bind())));
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

    fn take(&self, stream: Stream, peer: Peer) {
        let served = Rc::clone(&self.served.borrow());
        let Some(permit) = self.limiter.take(peer) else {
            self.role.cut(CutReason::Limit);
            return;
        };
        let binding = self.behind.get().unwrap_or_else(|| self.role.bind());
        let (party, closing) = (Party::unnamed(peer, binding), served.closer.handle());
        let tls = self.tls.borrow().clone();
        let serving = if tls.is_none() && served.proxy.is_none() {
            served.protocol.serve(Accepted { stream, who: party, stamp: None, tls: None, closing })
        } else {
            self.greeted(served, tls, stream, party, closing)
        };
        tokio::task::spawn_local(async move {
            let _permit = permit;
            serving.await;
        });
    }

    /// From now on so. What has been decided stays; connections that are served as before end when what is in flight has ended.
    pub fn renew(&self, role: Rc<dyn Role>, served: Served, share: (usize, Option<usize>)) {
        self.role.replace(role);
        let before = self.served.replace(Rc::new(served));
        before.closer.finish();
        self.limiter.allow(share.0, share.1);
        let mut retired = self.retired.borrow_mut();
        retired.retain(|served| served.protocol.writes_in_flight() > 0);
        retired.push(before);
    }

    /// Asks every connection to finish.
    pub fn finish(&self) {
        self.served.borrow().closer.finish();
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        let quiet = |served: &Rc<Served>| served.protocol.writes_in_flight() == 0;
        self.limiter.open() == 0 && quiet(&self.served.borrow()) && self.retired.borrow().iter().all(quiet)
    }
}
