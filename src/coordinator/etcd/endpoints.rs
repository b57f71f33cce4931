//! One client per endpoint, and which of them is used.
//!
//! The client library's own balancer goes on choosing a dead endpoint, so none is left to it: a client knows one
//! endpoint, an endpoint that fails is left at once together with its connection, and it is tried again with jittered
//! backoff. What is used stays in use while it works.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ResponseHeader};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::failure::Failure;
use super::settings::Settings;
use crate::clock::Entropy;
use crate::coordinator::store::Revision;

/// The oldest etcd that can serve: transactions that compare whole ranges came with 3.3, and 3.4 is what is tested.
const OLDEST: (u32, u32) = (3, 4);

/// The first wait after a failure; the later ones double.
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// A connection to one endpoint that has answered, logged in where a user is configured. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    /// The client; it knows this endpoint only.
    pub(super) client: Client,
    /// Whose it is.
    pub(super) endpoint: usize,
    /// What the endpoint said it is.
    pub(super) version: Arc<str>,
    /// Whether a login was tried, and etcd said that it has authentication off.
    pub(super) open: bool,
    /// Tells this connection from a later one.
    id: u64,
}

/// An endpoint, and when it may be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Which.
    pub(super) endpoint: usize,
    /// Not before this: it failed a moment ago.
    pub(super) due: Instant,
}

impl Turn {
    /// Waits until it may be used: not at all, as a rule. (A timer that is due already still takes a millisecond, which
    /// is most of what a call takes.)
    pub(super) async fn come(self) {
        if self.due > Instant::now() {
            sleep_until(self.due).await;
        }
    }
}

/// All endpoints.
pub(super) struct Endpoints {
    pub(super) settings: Arc<Settings>,
    pub(super) entropy: Arc<dyn Entropy>,
    list: Vec<Endpoint>,
    /// The one last used successfully.
    current: AtomicUsize,
    /// The cluster that the first connection found; another one is refused.
    cluster: Mutex<Option<u64>>,
    links: AtomicU64,
}

#[derive(Default)]
struct Endpoint {
    /// Held while connecting, so that many calls make one connection.
    connecting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    failing: Option<Failing>,
}

struct Failing {
    backoff: Backoff,
    /// When it failed last.
    since: Instant,
    until: Instant,
    text: String,
}

/// Plain data, left whole by whoever panicked.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoints {
    /// All endpoints of `settings`, the first to be used drawn at random, so that many sidecars spread over the members.
    pub(super) fn new(settings: Settings, entropy: Arc<dyn Entropy>) -> Endpoints {
        let list: Vec<Endpoint> = settings.endpoints.iter().map(|_| Endpoint::default()).collect();
        let mut drawn = [0; 8];
        entropy.fill(&mut drawn);
        let first = usize::from_le_bytes(drawn) % list.len().max(1);
        Endpoints {
            settings: Arc::new(settings),
            entropy,
            list,
            current: AtomicUsize::new(first),
            cluster: Mutex::new(None),
            links: AtomicU64::new(0),
        }
    }

    /// The URL of an endpoint.
    pub(super) fn url(&self, endpoint: usize) -> &str {
        &self.settings.endpoints[endpoint]
    }

    /// The endpoint last used successfully.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Which one to use next: the current one while it works, else the next that is not failing, else the one whose
    /// backoff ends first.
    pub(super) fn pick(&self) -> Turn {
        let now = Instant::now();
        let from = self.current();
        let turns = (0..self.list.len()).map(|step| {
            let endpoint = (from + step) % self.list.len();
            let until = locked(&self.list[endpoint].state).failing.as_ref().map_or(now, |failing| failing.until);
            Turn { endpoint, due: until.max(now) }
        });
        turns.min_by_key(|turn| turn.due).expect("there is at least one endpoint")
    }

    /// Whether another endpoint than `this` could be used right now.
    pub(super) fn another(&self, this: usize) -> bool {
        let now = Instant::now();
        self.list.iter().enumerate().any(|(endpoint, other)| {
            endpoint != this && locked(&other.state).failing.as_ref().is_none_or(|failing| failing.until <= now)
        })
    }

    /// A connection to an endpoint, made now where there is none. The caller sets the time limit.
    pub(super) async fn link(&self, endpoint: usize) -> Result<Link, Failure> {
        let here = &self.list[endpoint];
        if let Some(link) = locked(&here.state).link.clone() {
            return Ok(link);
        }
        let came = Instant::now();
        let _alone = here.connecting.lock().await;
        {
            let state = locked(&here.state);
            if let Some(link) = &state.link {
                return Ok(link.clone());
            }
            // Whoever tried while this call waited was refused: that is the answer to this call too.
            if let Some(failing) = state.failing.as_ref().filter(|failing| failing.since > came) {
                return Err(Failure::NotSent(failing.text.clone()));
            }
        }
        let link = self.connect(endpoint).await?;
        locked(&here.state).link = Some(link.clone());
        Ok(link)
    }

    /// A new connection, logged in, whose endpoint has answered that it has a leader. So whatever fails before this
    /// returns, the request that it is for has not left.
    pub(super) async fn connect(&self, endpoint: usize) -> Result<Link, Failure> {
        self.greet(endpoint).await.map_err(|failure| failure.while_connecting(self.url(endpoint)))
    }

    async fn greet(&self, endpoint: usize) -> Result<Link, Failure> {
        let (mut client, open) = match self.dial(endpoint, false).await {
            // Authentication is off, so nobody needs a user: the configuration is ahead of the cluster.
            Err(failure) if failure.text().contains("authentication is not enabled") => {
                tracing::warn!(endpoint = self.url(endpoint), "etcd has authentication off: connecting without a user");
                (self.dial(endpoint, true).await?, true)
            }
            dialed => (dialed?, false),
        };
        let status = client.status().await?;
        let version: Arc<str> = status.version().into();
        if parse_version(&version).is_some_and(|version| version < OLDEST) {
            return Err(Failure::Unfit(format!("it is etcd {version}; 3.4 or later is needed")));
        }
        let link = Link { client, endpoint, version, open, id: self.links.fetch_add(1, Ordering::Relaxed) };
        self.header(&link, status.header())?;
        Ok(link)
    }

    async fn dial(&self, endpoint: usize, anonymous: bool) -> Result<Client, Failure> {
        // Small files, but a disk may hang; and a hung disk must not stop the thread that keeps leases alive.
        let settings = Arc::clone(&self.settings);
        let options = tokio::task::spawn_blocking(move || settings.options(anonymous)).await;
        let options = options.map_err(|e| Failure::NotSent(e.to_string()))?.map_err(Failure::Unusable)?;
        Client::connect([self.url(endpoint)], Some(options)).await.map_err(Failure::from)
    }

    /// The revision of an answer, once it is seen to come from the cluster that all other answers came from.
    ///
    /// A restored or wiped cluster keeps its id; another id means that the endpoints name two clusters, and two
    /// clusters would mint the same epoch twice.
    pub(super) fn header(&self, link: &Link, header: Option<&ResponseHeader>) -> Result<Revision, Failure> {
        let Some(header) = header else {
            return Err(Failure::NoAnswer("its answer has no header: is it etcd?".into()));
        };
        let known = *locked(&self.cluster).get_or_insert(header.cluster_id());
        if known != header.cluster_id() {
            self.forget(link);
            return Err(Failure::Unfit(format!(
                "it belongs to the cluster {:x}, and until now all answers came from {known:x}: the endpoints must be \
                 members of one cluster; where it was made anew, restart this process",
                header.cluster_id()
            )));
        }
        Ok(Revision(u64::try_from(header.revision()).unwrap_or(0)))
    }

    /// An endpoint has answered.
    pub(super) fn worked(&self, endpoint: usize) {
        if locked(&self.list[endpoint].state).failing.take().is_some() {
            tracing::info!(endpoint = self.url(endpoint), "etcd answers again");
        }
        self.current.store(endpoint, Ordering::Relaxed);
    }

    /// An endpoint has failed, over `link` or while making one: it is left for a while, and its connection for good.
    pub(super) fn failed(&self, endpoint: usize, link: Option<&Link>, text: &str) {
        let mut state = locked(&self.list[endpoint].state);
        match link {
            // A connection that was given up already: its other calls fail too, and that is one failure.
            Some(link) if state.link.as_ref().is_none_or(|now| now.id != link.id) => return,
            _ => state.link = None,
        }
        let now = Instant::now();
        let failing = state.failing.get_or_insert_with(|| {
            tracing::warn!(endpoint = self.url(endpoint), error = text, "etcd does not answer");
            // Below the calls' time limit, so that a call that finds all endpoints failing can wait for one.
            let longest = (self.settings.timeout / 2).min(Duration::from_secs(1));
            Failing { backoff: Backoff::new(FIRST_WAIT, longest), since: now, until: now, text: String::new() }
        });
        text.clone_into(&mut failing.text);
        // Calls that fail together are one failure.
        if failing.until <= now {
            failing.since = now;
            failing.until = now + failing.backoff.next(&*self.entropy);
        }
    }

    /// Gives a connection up without holding it against its endpoint: its login has lapsed.
    pub(super) fn forget(&self, link: &Link) {
        let mut state = locked(&self.list[link.endpoint].state);
        if state.link.as_ref().is_some_and(|now| now.id == link.id) {
            state.link = None;
        }
    }

    /// What every failing endpoint said last, for an error's text.
    pub(super) fn complaints(&self) -> String {
        let complaints = self.list.iter().enumerate().filter_map(|(endpoint, at)| {
            let state = locked(&at.state);
            state.failing.as_ref().map(|failing| format!("{}: {}", self.url(endpoint), failing.text))
        });
        complaints.collect::<Vec<_>>().join("; ")
    }
}

/// Major and minor.
fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
