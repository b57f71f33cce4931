//! The configuration as the program uses it: every value is there, and every combination is one that can be safe.
//!
//! Plain data, made only by [`super::load`]; the rest of the program reads it and never sees the file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::resolved_session::*;
pub use super::resolved_trust::*;
use crate::fence::{KeyId, Resource, WriterId};
use crate::rules::Rules;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Writer id, and the first part of the door id.
    pub id: WriterId,
    /// Where floor files live.
    pub state_dir: PathBuf,
    /// Take over a floor file of another door, or start from the coordinator where the file cannot be read.
    pub adopt_floor: bool,
    /// The stamp's header name, in lower case.
    pub header: Arc<str>,
    /// Where epochs live.
    pub coordinator: Coordinator,
    /// How far clocks are trusted.
    pub clock: ClockTrust,
    /// Every resource, with its own settings.
    pub resources: BTreeMap<Resource, Arc<ResourceSettings>>,
    /// The listeners, in the order of the file.
    pub listeners: Vec<Arc<Listener>>,
    /// How much each worker holds.
    pub hold: Hold,
    /// What shared doors do about one that is recorded and not alive.
    pub lapsed: Lapsed,
    /// How a leadership is given up.
    pub step_down: StepDown,
    /// How long an orderly stop waits for what is in flight.
    pub shutdown_grace: Duration,
    /// The admin side.
    pub admin: Admin,
    /// Where the audit log goes.
    pub audit: Audit,
    /// Where every event goes, for checkers; nowhere by default.
    pub history: Option<PathBuf>,
    /// The log.
    pub log: Log,
    /// Worker threads, at least one.
    pub workers: usize,
}

/// Where epochs live.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinator {
    /// Which one.
    pub kind: CoordinatorKind,
    /// Every key begins with this; it ends with `/`.
    pub prefix: String,
    /// The leases of writers and doors.
    pub lease_ttl: Duration,
    /// The time limit of one call.
    pub request_timeout: Duration,
    /// How often a guard reads linearizably.
    pub verify_every: Duration,
}

/// One of the two coordinators.
#[derive(Clone, Debug, PartialEq)]
pub enum CoordinatorKind {
    /// An etcd cluster, 3.4 or later.
    Etcd(Etcd),
    /// Files on this host.
    Embedded(PathBuf),
}

/// How to reach etcd.
#[derive(Clone, Debug, PartialEq)]
pub struct Etcd {
    /// URLs with scheme, at least one.
    pub endpoints: Vec<String>,
    /// Trust and client certificate, as files.
    pub tls: Option<EtcdTls>,
    /// User and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// TLS towards etcd, as files in PEM.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EtcdTls {
    /// Whom to trust; the system's roots are not used.
    pub ca: Option<PathBuf>,
    /// The client certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// How far clocks are trusted: a lease kept alive at `sent` serves until `sent + ttl * (1 - max_drift) - margin`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockTrust {
    /// How much slower than the coordinator's this host's clock may run, as a fraction.
    pub max_drift: f64,
    /// What is kept back besides.
    pub margin: Duration,
}

impl ClockTrust {
    /// How long after it was sent a keep-alive of a lease of `ttl` serves.
    pub fn trusted(self, ttl: Duration) -> Duration {
        ttl.mul_f64(1.0 - self.max_drift).saturating_sub(self.margin)
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceSettings {
    /// The name as configured (a range is one label beyond 200 resources): the metric label.
    pub label: Arc<str>,
    /// How its writes are drained.
    pub drain: Drain,
    /// How long one of its requests is held at most; [`Hold::timeout`] where there is none.
    pub hold_timeout: Option<Duration>,
    /// What ends its writes in the target.
    pub fence_action: Option<FenceAction>,
}

/// How writes of an old epoch are waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drain {
    /// After this, half-sent requests are cut and the fence action runs.
    pub timeout: Duration,
    /// A write that ended without an answer counts for so long.
    pub quarantine: Duration,
    /// Whether time alone ends the wait for a lost write.
    pub by_time: bool,
    /// What to do when nothing else ends the drain.
    pub on_timeout: OnTimeout,
}

/// What ends a drain that nothing else ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// Stay shut.
    Hold,
    /// Open, on the record as forced.
    Open,
}

/// A command that ends what still runs in the target.
#[derive(Clone, Debug, PartialEq)]
pub struct FenceAction {
    /// Program and arguments; `{resource}` and `{epoch}` are filled in.
    pub command: Vec<String>,
    /// Killed after this, and counted as failed.
    pub timeout: Duration,
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name, the metric label.
    pub name: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Guard or stamp, with what only that role has.
    pub role: Role,
    /// Where it listens.
    pub listen: ListenAt,
    /// The mode of its unix socket.
    pub socket_mode: u32,
    /// TLS, where it takes nothing else.
    pub tls: Option<ListenerTls>,
    /// Whose PROXY protocol header is read; `None`: nobody's.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What becomes of what is stale.
    pub stale: Stale,
    /// Who may write; `None`: anybody who reaches it.
    pub identities: Option<Vec<Identity>>,
    /// Where requests go.
    pub upstream: Upstream,
    /// The resource where no rule names one.
    pub resource: Option<Resource>,
    /// How requests are told apart. What it judges names a resource by its place in `serves`.
    pub rules: Rules,
    /// Every resource that this listener can name, sorted: [`Rules::resources`].
    pub serves: Vec<Resource>,
    /// What one peer may use.
    pub limits: Limits,
    /// The keys that its stamps are signed with, or verified by.
    pub signatures: Option<Signatures>,
}

/// Signed stamps, as one listener has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Signatures {
    /// At least one; a stamp signs with the first. Each has its own id.
    pub keys: Vec<SignatureKey>,
    /// Guard: how far a signature's time may be from the wall clock, in whole seconds.
    pub window: Duration,
    /// Guard: whether a stamp must be signed.
    pub required: bool,
}

/// A key, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct SignatureKey {
    /// Its id.
    pub kid: KeyId,
    /// The file that holds it.
    pub file: PathBuf,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAt {
    /// An address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for ListenAt {
    fn from(address: SocketAddr) -> ListenAt {
        ListenAt::Tcp(address)
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAt::Tcp(address) => address.fmt(f),
            ListenAt::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a listener is.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Beside the target.
    Guard(GuardSettings),
    /// Beside a writer.
    Stamp(StampSettings),
}

/// What only a guard has.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardSettings {
    /// Enforce, or only count.
    pub mode: Mode,
    /// The target that this door stands before.
    pub target: Arc<str>,
    /// Whether other doors stand before the same target.
    pub shared: bool,
    /// What to do without the coordinator.
    pub on_coordinator_loss: GuardLoss,
    /// Whether reads need a stamp too.
    pub fence_reads: bool,
    /// Whether a stamp without a nonce is taken.
    pub bare_stamps: bool,
    /// Whether the target sees the stamp.
    pub forward_stamp: bool,
}

/// Whether a guard refuses or only says what it would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refuse.
    Enforce,
    /// Forward all, count and log.
    Audit,
}

impl Mode {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        }
    }
}

/// What a guard does whose coordinator is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardLoss {
    /// Go on admitting the epoch that it has.
    Keep,
    /// Close when its session has run out.
    Close,
}

/// What shared doors do about one of theirs that is recorded and not alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lapsed {
    /// It is waited out: its session, and its quarantine after that.
    Wait,
    /// It is waited for until an operator says that it is dead.
    Hold,
}

/// What only a stamp has.
#[derive(Clone, Debug, PartialEq)]
pub struct StampSettings {
    /// What a 421 elsewhere names as the leader's address.
    pub advertise: Option<Arc<str>>,
    /// The resources to campaign for, sorted.
    pub campaign: Vec<Resource>,
    /// What happens to a stamp that comes in.
    pub incoming_stamp: IncomingStamp,
    /// Whether `Fencing-Expect` is required.
    pub expect_required: bool,
    /// What happens to requests of a term that is not armed yet.
    pub until_armed: UntilArmed,
    /// Whether the writer goes on past its deadline while the coordinator is away.
    pub keep_on_coordinator_loss: bool,
}

/// What a stamping sidecar does with a stamp that its service sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncomingStamp {
    /// Refuse the request.
    Refuse,
    /// Require one, and that it is the term held.
    Require,
    /// Take it off (unsafe).
    Strip,
}

/// What a stamping sidecar does with requests of a term that is not armed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UntilArmed {
    /// Hold them.
    Hold,
    /// Refuse them.
    Refuse,
    /// Let them through.
    Pass,
}

/// Where requests go, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The URL as configured, for people.
    pub url: Arc<str>,
    /// Host and port to connect to; what Host says where a request names none.
    pub authority: Arc<str>,
    /// The unix socket to connect to instead.
    pub socket: Option<PathBuf>,
    /// TLS, where there is to be any.
    pub tls: Option<UpstreamTls>,
    /// The guard's own connection to the target: what it has ended is over, and nothing else is by time alone.
    pub control: Option<Control>,
    /// Which HTTP version to speak.
    pub version: UpstreamVersion,
    /// To make a connection.
    pub connect_timeout: Duration,
    /// From the request's last byte to the answer's head, and between two parts of the answer.
    pub response_timeout: Duration,
    /// How long the kernel goes on sending what nobody acknowledges (TCP_USER_TIMEOUT), and how long a body may make
    /// no progress towards the upstream.
    pub send_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Statuses of the target that count as no answer.
    pub no_answer: Vec<u16>,
}

/// Which HTTP version an upstream is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamVersion {
    /// As the request came.
    Same,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2 with prior knowledge always.
    Http2,
}

/// What one listener, and one peer, may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Connections of the listener, over all workers.
    pub connections: usize,
    /// How many of them one address may have, where that is bounded.
    pub connections_per_peer: Option<usize>,
    /// Streams of an HTTP/2 connection.
    pub streams: u32,
    /// Header fields of a request.
    pub headers: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// From a head's first byte to its last.
    pub header_timeout: Duration,
    /// Between two parts of a request's body.
    pub body_idle_timeout: Duration,
    /// For how long a client may take nothing of an answer that waits for it.
    pub answer_idle_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
}

/// How much each worker holds, over all resources.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    /// Requests.
    pub requests: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Each for so long at most.
    pub timeout: Duration,
}

/// How a leadership is given up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepDown {
    /// How long own writes in flight are waited for.
    pub timeout: Duration,
    /// How long not to campaign again, unless another has led.
    pub pause: Duration,
}

/// The admin side.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Where it listens; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// A unix socket besides.
    pub socket: Option<PathBuf>,
}

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// Where to.
    pub output: AuditOutput,
    /// Records that may wait to be written; more are dropped and counted.
    pub queue: usize,
}

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditOutput {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// error, warn, info, debug or trace.
    pub level: tracing::Level,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}
