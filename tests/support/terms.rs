//! Elections that a test holds itself, by the product's own transaction: when exactly an epoch moves is then the test's
//! to say, and no writer's sidecar has to be brought to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use epochgate::clock::{HostClock, HostEntropy};
use epochgate::config::resolved::{self, Coordinator, CoordinatorKind};
use epochgate::coordinator::election::{Campaigned, Candidate, Tools, campaign, resign};
use epochgate::coordinator::embedded::Embedded;
use epochgate::coordinator::etcd::Etcd;
use epochgate::coordinator::store::{LeaseId, Store, StoreError};
use epochgate::fence::mechanism::Mechanisms;
use epochgate::fence::{Resource, Stamp, Term};
use tokio::runtime::{Handle, Runtime};

use super::process::{LONG, eventually_some};

/// The resource of all these tests.
pub fn orders() -> Resource {
    "orders".parse().expect("it is a resource")
}

/// A term's whole stamp, as a sidecar sends it.
pub fn stamp(term: &Term) -> String {
    Stamp::of(term, &orders()).to_string()
}

/// Elects whom the test names, one after the other.
pub struct Elector {
    tools: Tools,
    lease: LeaseId,
    held: Option<Term>,
    background: Background,
}

impl Elector {
    /// Over the embedded coordinator at `path`.
    pub fn embedded(path: &Path) -> Elector {
        let store = Embedded::open(path, Arc::new(HostClock), Arc::new(HostEntropy)).expect("a folder of the test's");
        Elector::over(|| store)
    }

    /// Over etcd, under a prefix.
    pub fn etcd(url: &str, prefix: &str) -> Elector {
        let etcd = resolved::Etcd { endpoints: vec![url.to_owned()], tls: None, user: None };
        let coordinator = Coordinator {
            kind: CoordinatorKind::Etcd(etcd.clone()),
            prefix: prefix.into(),
            lease_ttl: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            verify_every: Duration::from_secs(1),
        };
        Elector::over(move || {
            Etcd::new(&coordinator, &etcd, Arc::new(HostClock), Arc::new(HostEntropy)).expect("settings that can work")
        })
    }

    fn over<S: Store>(open: impl FnOnce() -> Arc<S>) -> Elector {
        let background = Background::start();
        let _inside = background.handle.enter();
        let store: Arc<dyn Store> = open();
        let granting = Arc::clone(&store);
        // It outlives every test: nobody keeps it alive.
        let lease = background.run(async move { granting.grant(Duration::from_secs(600)).await }).expect("it is up");
        let (clock, entropy) = (Arc::new(HostClock), Arc::new(HostEntropy));
        let tools = Tools { store, clock, entropy, mechanisms: Mechanisms::all() };
        Elector { tools, lease: lease.id, held: None, background }
    }

    /// Ends the term at hand, and elects `writer`: the next epoch begins.
    #[track_caller]
    pub fn elect(&mut self, writer: &str) -> Term {
        self.resign();
        let candidate =
            Candidate { writer: writer.parse().expect("an id"), address: None, lease: self.lease, deposes: false };
        let term = eventually_some(&format!("{writer} is elected"), LONG, || {
            let (tools, candidate) = (self.tools.clone(), candidate.clone());
            match self.background.run(async move { campaign(&tools, &orders(), &candidate).await }) {
                Ok(Campaigned::Won(won)) => Some(won.term),
                Ok(Campaigned::Overtaken) => None,
                other => panic!("{writer} is not elected: {other:?}"),
            }
        });
        self.held = Some(term.clone());
        term
    }

    /// Ends the term at hand, where there is one.
    #[track_caller]
    pub fn resign(&mut self) {
        let Some(held) = self.held.take() else { return };
        let store = Arc::clone(&self.tools.store);
        let resigned = self.background.run(async move { resign(store.as_ref(), &orders(), &held).await });
        assert_eq!(resigned, Ok(true), "the test held that term");
    }

    /// Another has ended the term at hand.
    pub fn lost(&mut self) {
        self.held = None;
    }

    /// Runs something over the store.
    pub fn with_store<T, F>(&self, work: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.background.run(work(Arc::clone(&self.tools.store)))
    }
}

/// A runtime on a thread of its own: connections live on while the test does something else.
struct Background {
    handle: Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    fn start() -> Background {
        let runtime: Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(ended);
        });
        Background { handle, end: Some(end), thread: Some(thread) }
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (send, receive) = mpsc::channel();
        self.handle.spawn(async move {
            let _ = send.send(work.await);
        });
        receive.recv_timeout(LONG).expect("the coordinator answers")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
