//! The configuration as written.
//!
//! The comments here are the descriptions in the JSON Schema and in `docs/reference/configuration.md`: they speak to
//! the one who writes the file. Three extensions of the schema carry what JSON Schema has no word for: `x-flag` (the
//! flag of the same meaning), `x-default` (a default that is worked out), and `x-not-in-this-version` (keys and words
//! that are planned, and refused by name).
//!
//! Everything here fits its schema and no more is known of it; `super::resolve` decides whether it makes sense.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{
    Endpoint, FieldName, Id, Listen, Output, Path, Prefix, Size, Span, Wait, Workers as WorkersForm, Written,
};
pub use super::raw_listener::*;
pub use super::raw_session::*;
pub use super::raw_trust::*;

/// The configuration of one epochgate process: its listeners, and what they share.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Configuration", extend("x-not-in-this-version" = ["bridges", "messages", "idempotency", "tls"]))]
pub struct File {
    /// Who this is: the id of the writer beside a stamping sidecar, and the first part of the id of a guard's door.
    /// 1 to 63 letters, digits, `.`, `_` or `-`, the first a letter or digit. Two writers of a resource need two ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-flag" = "--id", "x-default" = "the host name, with `-` for what an id cannot hold"))]
    pub id: Option<Written<Id>>,
    /// The folder for floor files: what this door remembers over a restart. It must outlive the process, and one
    /// process locks it. Using one folder from two machines is outside of the guarantee.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-flag" = "--state-dir",
        "x-default" = "`$STATE_DIRECTORY`, else `/var/lib/epochgate` as root, else `~/.local/state/epochgate`"))]
    pub state_dir: Option<Written<Path>>,
    /// The name of the HTTP field that carries the stamp. All sidecars of a resource need the same.
    pub header: Written<FieldName>,
    /// Where epochs live: etcd, or the embedded coordinator of a single host.
    pub coordinator: Coordinator,
    /// How far clocks are trusted. A lease that was kept alive by a message sent at `t` serves until
    /// `t + lease_ttl * (1 - max_drift) - margin`.
    pub clock: Clock,
    /// Every resource that is fenced. Nothing that a client sends creates one. A key is a name (`orders`, `orders/7`)
    /// or has ranges (`"orders/{0..63}"`); at most 100000 in all. The value may be left out.
    #[schemars(extend("x-flag" = "--resource"))]
    pub resources: BTreeMap<String, Option<ResourceSettings>>,
    /// The listeners, each with a role: a guard before a target, or a stamp beside a writer.
    #[schemars(with = "Vec<Listener>", length(max = 100))]
    pub listeners: Vec<Option<Listener>>,
    /// How a guard waits for the writes of an old epoch before it opens a new one.
    pub drain: Drain,
    /// How much each worker holds, over all resources, while a handoff runs or a new term is not armed yet. Past a
    /// bound a request is refused (503, not applied).
    pub hold: Hold,
    /// How doors of one target agree.
    pub doors: Doors,
    /// How a writer gives up its leadership in order.
    pub step_down: StepDown,
    /// How the process stops.
    pub shutdown: Shutdown,
    /// The side for people and machines that watch: metrics, health, leader, status.
    pub admin: Admin,
    /// The audit log: one JSON line for each refusal, fence, handoff and election.
    pub audit: Audit,
    /// A file that gets every event as a JSON line, for `epochgate verify`. It grows without bound: for tests and
    /// drills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Written<Path>>,
    /// The log of the process, to standard error.
    pub log: Log,
    /// Worker threads: `auto`, or a number from 1 to 1024. Each has its own connections to the upstream.
    #[schemars(extend("x-flag" = "--workers", "x-default" = "`auto`: one a core, at most 4"))]
    pub workers: Written<WorkersForm>,
}

impl Default for File {
    fn default() -> File {
        File {
            id: None,
            state_dir: None,
            header: Written::default_of("Fencing-Epoch"),
            coordinator: Coordinator::default(),
            clock: Clock::default(),
            resources: BTreeMap::new(),
            listeners: Vec::new(),
            drain: Drain::default(),
            hold: Hold::default(),
            doors: Doors::default(),
            step_down: StepDown::default(),
            shutdown: Shutdown::default(),
            admin: Admin::default(),
            audit: Audit::default(),
            history: None,
            log: Log::default(),
            workers: Written::default_of("auto"),
        }
    }
}

/// A number of worker threads.
#[derive(Clone, Copy, Debug)]
pub enum Workers {
    /// As many as the host is good for.
    Auto,
    /// So many.
    Number(usize),
}

/// Where epochs live: either `etcd` or `embedded`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Coordinator {
    /// An etcd cluster, 3.4 or later. Excludes `embedded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
    /// The embedded coordinator: files at this path, for the processes of one host. For trying things out, and for
    /// tests; it is not a distributed system. Excludes `etcd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-flag" = "--embedded"))]
    pub embedded: Option<Written<Path>>,
    /// Every key in the coordinator begins with this. It begins with `/`; a final `/` is added where it is missing.
    #[schemars(extend("x-flag" = "--prefix"))]
    pub prefix: Written<Prefix>,
    /// How long a leader or a door that is gone still counts as alive: whole seconds, at least 2s. Shorter finds a
    /// dead leader sooner, and needs a faster network to the coordinator.
    #[schemars(extend("x-flag" = "--lease-ttl"))]
    pub lease_ttl: Written<Wait>,
    /// The time limit of one call to the coordinator. Two calls must fit into what is left of a lease after a third
    /// of it: `lease_ttl/3 + 2*request_timeout < lease_ttl*(1-max_drift) - margin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "the smaller of 1s and `lease_ttl`/5"))]
    pub request_timeout: Option<Written<Wait>>,
    /// How often a guard reads all epochs linearizably. The watch only makes it learn sooner.
    pub verify_every: Written<Wait>,
}

impl Default for Coordinator {
    fn default() -> Coordinator {
        Coordinator {
            etcd: None,
            embedded: None,
            prefix: Written::default_of("/epochgate/v1/"),
            lease_ttl: Written::default_of("5s"),
            request_timeout: None,
            verify_every: Written::default_of("1s"),
        }
    }
}

/// How to reach etcd.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Etcd {
    /// URLs of the members, with scheme: `http://127.0.0.1:2379`. Name all of them: each is tried.
    #[schemars(required, length(min = 1), extend("x-flag" = "--etcd"))]
    pub endpoints: Option<Vec<Written<Endpoint>>>,
    /// TLS, for `https` endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<EtcdTls>,
    /// The user to authenticate as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<EtcdUser>,
}

/// TLS towards etcd, as files in PEM.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdTls {
    /// The authorities to trust. The system's are not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Written<Path>>,
    /// The client's certificate; needs `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<Written<Path>>,
    /// The key of `cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Written<Path>>,
}

/// A user of etcd.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-not-in-this-version" = ["password"]))]
pub struct EtcdUser {
    /// The name.
    #[schemars(required)]
    pub name: Option<String>,
    /// A file with the password; a final line end is not part of it. It is read again when the token is renewed.
    #[schemars(required)]
    pub password_file: Option<Written<Path>>,
}

/// How far clocks are trusted.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// How much slower than the coordinator's this host's clock may run, as a fraction: from 0 to 0.5.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub max_drift: f64,
    /// What is kept back besides.
    pub margin: Written<Span>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { max_drift: 0.01, margin: Written::default_of("100ms") }
    }
}

/// What one resource, or each of a range, has of its own. All may be left out.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceSettings {
    /// Its own values of the keys of `drain`; what is left out is as in `drain` at the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<OwnDrain>,
    /// Its own hold time. The bounds in number and bytes are those of a worker, over all resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<OwnHold>,
    /// What ends its writes in the target when a drain does not end by itself, once per handoff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence_action: Option<FenceAction>,
}

/// A resource's own drain.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OwnDrain {
    /// As `drain.timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`drain.timeout`"))]
    pub timeout: Option<Written<Span>>,
    /// As `drain.quarantine`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`drain.quarantine`"))]
    pub quarantine: Option<Written<Span>>,
    /// As `drain.by_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`drain.by_time`"))]
    pub by_time: Option<bool>,
    /// As `drain.on_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`drain.on_timeout`"))]
    pub on_timeout: Option<OnTimeout>,
}

/// A resource's own hold time.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OwnHold {
    /// As `hold.timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`hold.timeout`"))]
    pub timeout: Option<Written<Span>>,
}

/// A command that ends what still runs in the target. Powering the old leader off is not enough: it proves nothing
/// about writes that were forwarded already.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-not-in-this-version" = ["webhook"]))]
pub struct FenceAction {
    /// Program and arguments, without a shell. `{resource}` and `{epoch}` are filled in. Exit status 0 means that
    /// nothing of a lower epoch runs any more.
    #[schemars(required, length(min = 1))]
    pub command: Option<Vec<String>>,
    /// After this the command is killed, and has failed.
    pub timeout: Written<Wait>,
}

impl Default for FenceAction {
    fn default() -> FenceAction {
        FenceAction { command: None, timeout: Written::default_of("20s") }
    }
}

/// How a guard waits for the writes of an old epoch.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// After this, requests that are only half sent are cut, and the resource's fence action runs.
    pub timeout: Written<Span>,
    /// How long a write that ended without an answer still counts as one that may take effect. It must be longer
    /// than the target goes on with a request whose connection has ended: at least `upstream.response_timeout` +
    /// `upstream.send_timeout`.
    pub quarantine: Written<Span>,
    /// Whether time alone ends the wait for such a write. `false`: only the target's proof or a fence action does.
    pub by_time: bool,
    /// What to do when nothing else ends the drain.
    pub on_timeout: OnTimeout,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            timeout: Written::default_of("5s"),
            quarantine: Written::default_of("35s"),
            by_time: true,
            on_timeout: OnTimeout::Hold,
        }
    }
}

/// What ends a drain that nothing else ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// Stay shut, and say what it waits for. Safe.
    Hold,
    /// Open, on the record as forced: a write of the old epoch may then land after one of the new.
    Open,
}

/// How much each worker holds.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hold {
    /// Requests; 0 holds none.
    #[schemars(range(max = 1_000_000))]
    pub requests: u32,
    /// Bytes of their heads.
    pub bytes: Written<Size>,
    /// How long each is held at most. A handoff with a lost write takes `drain.quarantine`: held requests wait it
    /// out only if this is longer.
    pub timeout: Written<Span>,
}

impl Default for Hold {
    fn default() -> Hold {
        Hold { requests: 1000, bytes: Written::default_of("16MiB"), timeout: Written::default_of("10s") }
    }
}

/// How doors of one target agree.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Doors {
    /// What the others do about a door that is recorded and not alive.
    pub lapsed: Lapsed,
}

impl Default for Doors {
    fn default() -> Doors {
        Doors { lapsed: Lapsed::Wait }
    }
}

/// What is done about a door that is recorded and not alive.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lapsed {
    /// Wait it out: its session time and its quarantine.
    Wait,
    /// Wait until an operator says that it is dead.
    Hold,
}

/// How a writer gives up its leadership in order.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepDown {
    /// How long its own writes in flight are waited for.
    pub timeout: Written<Span>,
    /// How long it does not campaign again, unless another has led meanwhile.
    pub pause: Written<Span>,
}

impl Default for StepDown {
    fn default() -> StepDown {
        StepDown { timeout: Written::default_of("5s"), pause: Written::default_of("5s") }
    }
}

/// How the process stops.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long what is in flight is waited for after SIGTERM. Shorter than `drain.timeout` leaves residue: the next
    /// start has to wait for it.
    pub grace: Written<Span>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { grace: Written::default_of("30s") }
    }
}

/// The side for people and machines that watch.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-not-in-this-version" = ["tls"]))]
pub struct Admin {
    /// Where it listens; `null` (or `--admin none`): nowhere. What changes something is taken from loopback only.
    #[schemars(extend("x-flag" = "--admin"))]
    pub listen: Option<Written<Listen>>,
    /// A unix socket besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<Written<Path>>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: Some(Written::default_of("127.0.0.1:9464")), socket: None }
    }
}

/// The audit log.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// `stdout`, `stderr`, or the path of a file to append to.
    #[schemars(extend("x-flag" = "--audit"))]
    pub output: Written<Output>,
    /// Records that may wait to be written. It never blocks a request: what does not fit is dropped and counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: u32,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit { output: Written::default_of("stdout"), queue: 8192 }
    }
}

/// The log of the process.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    #[schemars(extend("x-flag" = "--log-format"))]
    pub format: LogFormat,
    /// The least level that is logged.
    #[schemars(extend("x-flag" = "--log-level"))]
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Auto, level: LogLevel::Info }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// A level of the log.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs somebody.
    Error,
    /// What may need somebody.
    Warn,
    /// What happened: elections, handoffs, doors.
    Info,
    /// What led to it.
    Debug,
    /// Everything.
    Trace,
}
