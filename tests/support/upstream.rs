//! A target that remembers: every write that it applied, in the order in which it did.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge, on a thread of its own. PUT and POST store their body under the path, GET
//! returns it, DELETE removes it; a gRPC call gets its own message back, with `grpc-status: 0`. Like a real server it
//! goes on with a write whose client has gone away once it has the whole of it.
//!
//! What it does with a request is a [`Script`], from the request's own `X-Upstream` field, else the next one queued for
//! its path, else the one for all. A script can hold a request at a *latch* until the test opens it: no test has to
//! guess how long something takes.

mod answer;
mod script;
mod serve;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use epochgate::clock::{Clock as _, HostClock};
use epochgate::fence::Moment;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

pub use script::Script;
use serve::Received;

/// How many writes a failing test prints.
const PRINTED: usize = 200;

/// A request's head, as it came in.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Since the upstream was started.
    pub at: Duration,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Its fields, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Whether it came over HTTP/2.
    pub http2: bool,
}

impl Arrived {
    /// The first field of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        !["GET", "HEAD", "OPTIONS", "TRACE"].contains(&self.method.as_str())
    }
}

/// A write, once it was applied (`complete`) or given up because its body never came whole.
#[derive(Clone, Debug)]
pub struct Write {
    /// Since the upstream was started.
    pub at: Duration,
    /// The same on the boot-time clock, which histories go by.
    pub moment: Moment,
    /// Its head.
    pub head: Arrived,
    /// The stamp as it came, if any.
    pub stamp: Option<String>,
    /// The body; what came of it, where it was truncated.
    pub body: Bytes,
    /// The fields after the body.
    pub trailers: Vec<(String, String)>,
    /// Whether the body came whole; only then was it applied.
    pub complete: bool,
}

impl Write {
    /// The epoch of its stamp: the digits that it begins with.
    pub fn epoch(&self) -> Option<u64> {
        self.stamp.as_deref()?.split(';').next()?.trim().parse().ok()
    }
}

/// A running upstream. It ends when it is dropped; while a test fails, it prints its log.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts one on a free port.
    pub fn start() -> Upstream {
        Upstream::start_at(IpAddr::from(Ipv4Addr::LOCALHOST))
    }

    /// Starts one on a free port of this address.
    pub fn start_at(host: IpAddr) -> Upstream {
        let shared = Arc::new(Shared { began: Instant::now(), state: Mutex::default(), opened: Notify::new() });
        let listener = std::net::TcpListener::bind((host, 0)).expect("there is a free port");
        listener.set_nonblocking(true).expect("a listener can be set to non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let (end, ended) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is non-blocking");
                tokio::select! {
                    () = serve::accept(listener, of_thread) => {}
                    _ = ended => {}
                }
            });
        });
        Upstream { address, shared, end: Some(end), thread: Some(thread) }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does with every request for which nothing else is said.
    pub fn always(&self, script: &str) {
        self.shared.lock().always = Script::parse(script).unwrap();
    }

    /// What it does with the next request for `path`; called again, with the one after that.
    pub fn next(&self, path: &str, script: &str) {
        let script = Script::parse(script).unwrap();
        self.shared.lock().queued.entry(path.to_owned()).or_default().push_back(script);
    }

    /// Opens a latch: what waits at it goes on, and what comes to it later does not stop.
    pub fn open(&self, latch: &str) {
        self.shared.lock().open.insert(latch.to_owned());
        self.shared.opened.notify_waiters();
    }

    /// How many requests wait at a latch now.
    pub fn waiting(&self, latch: &str) -> usize {
        self.shared.lock().waiting.get(latch).copied().unwrap_or(0)
    }

    /// Every request whose head came, in order.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.lock().arrived.clone()
    }

    /// Every write, in the order in which they were applied or given up.
    pub fn log(&self) -> Vec<Write> {
        self.shared.lock().log.clone()
    }

    /// Every write that was applied, in order.
    pub fn applied(&self) -> Vec<Write> {
        self.log().into_iter().filter(|write| write.complete).collect()
    }

    /// The epochs of the applied writes, in order; an unstamped one has none and is left out.
    pub fn epochs(&self) -> Vec<u64> {
        self.applied().iter().filter_map(Write::epoch).collect()
    }

    /// R1, for a target that holds one resource: panics where an applied write has a lower epoch than one before it.
    #[track_caller]
    pub fn assert_epochs_never_decrease(&self) {
        let epochs = self.epochs();
        assert!(epochs.is_sorted(), "an old write was applied after a new one: {epochs:?}");
    }

    /// Whether every write whose head came was applied or given up.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.log.len() >= state.arrived.iter().filter(|arrived| arrived.is_write()).count()
    }

    /// What is stored under a path.
    pub fn stored(&self, path: &str) -> Option<Bytes> {
        self.shared.lock().stored.get(path).cloned()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Its panic is in the output already.
            let _ = thread.join();
        }
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("---- the upstream's log, its last {PRINTED} of {}:", log.len());
            for write in &log[log.len().saturating_sub(PRINTED)..] {
                let (head, stamp) = (&write.head, write.stamp.as_deref().unwrap_or("no stamp"));
                let fate = if write.complete { "applied" } else { "truncated" };
                let (at, length) = (write.at.as_secs_f64(), write.body.len());
                eprintln!("upstream {at:8.3} | {} {} {fate}, {length} bytes, {stamp}", head.method, head.path);
            }
            eprintln!("---- {} heads came", self.arrived().len());
        }
    }
}

#[derive(Default)]
struct State {
    arrived: Vec<Arrived>,
    log: Vec<Write>,
    stored: BTreeMap<String, Bytes>,
    always: Script,
    queued: HashMap<String, VecDeque<Script>>,
    open: HashSet<String>,
    waiting: HashMap<String, usize>,
}

struct Shared {
    began: Instant,
    state: Mutex<State>,
    opened: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of it panics")
    }

    /// Notes a request, and finds what is to be done with it.
    fn arrive(&self, head: &Arrived) -> Result<Script, String> {
        let mut state = self.lock();
        state.arrived.push(head.clone());
        match head.header("x-upstream") {
            Some(text) => Script::parse(text),
            None => {
                let queued = state.queued.get_mut(&head.path).and_then(VecDeque::pop_front);
                Ok(queued.unwrap_or_else(|| state.always.clone()))
            }
        }
    }

    /// The moment of truth of a write.
    fn commit(&self, head: Arrived, received: Received, apply: bool) {
        let mut state = self.lock();
        let stamp = head.header("fencing-epoch").map(str::to_owned);
        if apply && received.complete {
            match head.method.as_str() {
                "DELETE" => drop(state.stored.remove(&head.path)),
                _ => drop(state.stored.insert(head.path.clone(), received.body.clone())),
            }
        }
        let Received { body, trailers, complete } = received;
        let (at, moment) = (self.began.elapsed(), HostClock.now());
        state.log.push(Write { at, moment, head, stamp, body, trailers, complete });
    }

    /// Waits as long as a step says.
    async fn wait(&self, step: &script::Step) {
        if let Some(latch) = &step.latch {
            // Given back in Drop: the request may be dropped while it waits.
            let _place = Place::take(self, latch);
            loop {
                let opened = self.opened.notified();
                if self.lock().open.contains(latch) {
                    break;
                }
                opened.await;
            }
        }
        if !step.pause.is_zero() {
            tokio::time::sleep(step.pause).await;
        }
    }
}

/// A request's place at a latch.
struct Place<'a> {
    shared: &'a Shared,
    latch: &'a str,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, latch: &'a str) -> Place<'a> {
        *shared.lock().waiting.entry(latch.to_owned()).or_default() += 1;
        Place { shared, latch }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.shared.lock().waiting.get_mut(self.latch) {
            *count -= 1;
        }
    }
}
