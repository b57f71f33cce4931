//! A listener as written. See [`super::raw`] for how these comments are used.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{
    Advertised, KeyId, ListenAt, Mode8, Name, Path, Resource, Size, Upstream as UpstreamUrl, Wait, Written,
};
use super::raw_session::{Control, ProxyProtocol, Stale};
use super::raw_trust::{Identity, ListenerTls, UpstreamTls};

/// One listener. Keys of the other role are refused.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-not-in-this-version" = ["idempotency"]))]
pub struct Listener {
    /// Its name, unique in the file: the label `listener` of metrics.
    #[schemars(required)]
    pub name: Option<Written<Name>>,
    /// What it is.
    #[schemars(required)]
    pub role: Option<Role>,
    /// What it speaks.
    #[schemars(extend("x-flag" = "--protocol"))]
    pub protocol: Protocol,
    /// Where it listens: `127.0.0.1:8080`, `[::1]:8080`, or `:8080` for all IPv4 addresses of the host. Port 0 lets
    /// the system choose. Or a unix socket, for processes of this host: `unix:/run/epochgate/orders.sock`.
    #[schemars(required, extend("x-flag" = "--listen"))]
    pub listen: Option<Written<ListenAt>>,
    /// TLS. Without it, anybody on the network between can read and change what is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Whose PROXY protocol header is believed: that of a load balancer in front, which says who the client is; and that of
    /// the stamps of `tcp`, `postgres` and `redis`, which carries the stamp. For `http` there is none unless this is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `postgres` and `redis`: what becomes of one that carries a stale stamp, or none. `tcp` always refuses. With `postgres`,
    /// `read_only` takes PostgreSQL 16 or later, at the guard, and at each stamp that is to pass on sessions of a writer that
    /// does not lead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "`read_only` for redis, else `refuse`"))]
    pub stale: Option<Stale>,
    /// Who may open the unix socket that it listens on: its mode, in octal.
    pub socket_mode: Written<Mode8>,
    /// Who may write, as which writer, to which resource; a guard refuses a write whose stamp names another writer
    /// (403). One that matches is enough. A stamp refuses the writes of all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), with = "Option<Vec<Identity>>", extend("x-default" = "at a guard with `tls.client_ca`: `[{ san: \"{writer}\" }]`; else anybody"))]
    pub identities: Option<Vec<Option<Identity>>>,
    /// Where requests go: a guard's target, or the guard of a stamp.
    #[schemars(required)]
    pub upstream: Option<Upstream>,
    /// The resource where no rule names one. It is listed under `resources`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-flag" = "--resource"))]
    pub resource: Option<Written<Resource>>,
    /// How requests are told apart. The first rule that matches and states a kind gives the kind; the first that
    /// states a resource gives the resource. Without one, GET, HEAD, OPTIONS and TRACE read and all else writes (also
    /// gRPC calls, upgrades, and requests with a method-override field), to `resource`.
    #[schemars(with = "Vec<Rule>", length(max = 200))]
    pub rules: Vec<Option<Rule>>,
    /// What one listener, and one peer, may use.
    pub limits: Limits,
    /// A stamp signs its stamps, a guard verifies them: for a link without mTLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<Signatures>,

    /// Guard: refuse (`enforce`), or forward everything and only count what would have been refused (`audit`).
    #[schemars(extend("x-flag" = "--mode"))]
    pub mode: Mode,
    /// Guard: the name of the target that this door stands before. Doors of one target agree with each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "the listener's name less `-guard`"))]
    pub target: Option<Written<Name>>,
    /// Guard: whether it is the target's only door.
    pub doors: DoorKind,
    /// What to do when the coordinator cannot be reached. A guard: `keep` admitting the epoch that it has (nobody can
    /// be elected meanwhile), or `close` when its session has run out. A stamp: `stop` at the deadline, or `keep`
    /// stamping, which is right only where every effect of the writer goes through a guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-flag" = "--on-coordinator-loss", "x-default" = "`keep` for a guard, `stop` for a stamp"))]
    pub on_coordinator_loss: Option<CoordinatorLoss>,
    /// Guard: whether reads need a stamp too.
    pub fence_reads: bool,
    /// Guard: whether a stamp of an epoch alone, without a nonce, is taken: what a client without a sidecar sends.
    pub bare_stamps: Allow,
    /// Guard: whether the target sees the stamp.
    pub forward_stamp: bool,

    /// Stamp: the address at which other writers' clients reach this listener: what a refusal elsewhere names as the
    /// leader's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-flag" = "--advertise"))]
    pub advertise: Option<Written<Advertised>>,
    /// Stamp: the resources to campaign for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "every resource that this listener can name"))]
    pub campaign: Option<Vec<Written<Resource>>>,
    /// Stamp: what to do with a stamp that the service itself sent.
    pub incoming_stamp: IncomingStamp,
    /// Stamp: whether a write must say, in `Fencing-Expect`, which epoch its work began under.
    pub expect: Expect,
    /// Stamp: what to do with requests while the writer is elected and not every door has drained yet.
    pub until_armed: UntilArmed,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            name: None,
            role: None,
            protocol: Protocol::Http,
            listen: None,
            tls: None,
            proxy_protocol: None,
            stale: None,
            socket_mode: Written::default_of("0660"),
            identities: None,
            upstream: None,
            resource: None,
            rules: Vec::new(),
            limits: Limits::default(),
            signatures: None,
            mode: Mode::Enforce,
            target: None,
            doors: DoorKind::Sole,
            on_coordinator_loss: None,
            fence_reads: false,
            bare_stamps: Allow::Allow,
            forward_stamp: true,
            advertise: None,
            campaign: None,
            incoming_stamp: IncomingStamp::Refuse,
            expect: Expect::Optional,
            until_armed: UntilArmed::Hold,
        }
    }
}

/// The keys that only a guard has.
pub(super) const OF_A_GUARD: &[&str] = &["mode", "target", "doors", "fence_reads", "bare_stamps", "forward_stamp"];
/// The keys that only a stamp has.
pub(super) const OF_A_STAMP: &[&str] = &["advertise", "campaign", "incoming_stamp", "expect", "until_armed"];

/// What a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-not-in-this-version" = ["route"]))]
pub enum Role {
    /// In front of the target: checks the stamp of each write.
    Guard,
    /// Beside a writer: campaigns for it, and stamps its writes.
    Stamp,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-not-in-this-version" = ["messages", "nats", "kafka", "rabbitmq", "https"]))]
pub enum Protocol {
    /// HTTP/1.1, HTTP/2 without TLS (h2c), and gRPC.
    Http,
    /// Any protocol over TCP: a connection belongs to an epoch, and ends with it.
    Tcp,
    /// PostgreSQL, 14 and later: as `tcp`, with refusals in its own words, and drains that the server confirms.
    Postgres,
    /// Redis and Valkey: commands are told apart; a stale writer may read.
    Redis,
}

/// Whether it is the target's only door.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DoorKind {
    /// The only one: another stays shut until this one has left.
    Sole,
    /// One of several: each opens a new epoch only when all of them have drained it.
    Shared,
}

/// Whether a guard refuses.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuse what is stale.
    Enforce,
    /// Forward everything; count and log what would have been refused. Nothing is fenced.
    Audit,
}

/// What to do without the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CoordinatorLoss {
    /// Go on.
    Keep,
    /// A guard: admit nothing after its session has run out.
    Close,
    /// A stamp: stop at the deadline.
    Stop,
}

/// Whether something is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    /// It is.
    Allow,
    /// It is refused.
    Refuse,
}

/// What a stamping sidecar does with a stamp that its service sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncomingStamp {
    /// Refuse the request: two sources of truth are one too many.
    Refuse,
    /// Require one on each write, and that it is the term that is held.
    Require,
    /// Take it off and put the own one on. Unsafe: a write that the service meant for an old term leaves under the
    /// new one.
    Strip,
}

/// Whether `Fencing-Expect` is required.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// It is checked where it is there.
    Optional,
    /// A write without it is refused.
    Require,
}

/// What a stamping sidecar does with requests of a term that is not armed yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UntilArmed {
    /// Hold them, reads too, so that the service reads only what is settled.
    Hold,
    /// Refuse them (503, not applied).
    Refuse,
    /// Let them through: reads may see what is not settled yet.
    Pass,
}

/// Where requests go, and for how long.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// `http://host[:port]` or `https://host[:port]`, without a path: paths are forwarded as they come. For other protocols
    /// `tcp://` or `tls://`, `postgres://`, `redis://` or `rediss://`. Or a unix socket: `unix:/run/epochgate/orders.sock`.
    #[schemars(required, extend("x-flag" = "--upstream"))]
    pub url: Option<Written<UpstreamUrl>>,
    /// TLS, for a URL of `https`, `tls` or `rediss`, and for `postgres` where it is to have TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// Guard, `postgres` and `redis`: the guard's own connection to the target, which ends what still runs of an older epoch
    /// and sees it gone. With it no drain waits for a quarantine, and none ends by time alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Which HTTP version to speak to it.
    pub version: Version,
    /// To make a connection. Past it: 502, not applied.
    pub connect_timeout: Written<Wait>,
    /// From the request's last byte to the answer's head, and between two parts of the answer. Past it: 504, and
    /// whether the write was applied is unknown.
    pub response_timeout: Written<Wait>,
    /// How long the kernel goes on sending what nobody acknowledges, and how long a body may make no progress.
    pub send_timeout: Written<Wait>,
    /// How long an idle connection is kept.
    pub idle_timeout: Written<Wait>,
    /// Answers of the target with these statuses count as no answer: it may be a proxy itself, and the write behind
    /// it may still run. From 500 to 599.
    #[schemars(inner(range(min = 500, max = 599)))]
    pub no_answer: Vec<u16>,
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            url: None,
            tls: None,
            control: None,
            version: Version::Same,
            connect_timeout: Written::default_of("1s"),
            response_timeout: Written::default_of("30s"),
            send_timeout: Written::default_of("5s"),
            idle_timeout: Written::default_of("30s"),
            no_answer: vec![502, 504],
        }
    }
}

/// Which HTTP version an upstream is spoken to in.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// As the request came.
    Same,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2 with prior knowledge always.
    Http2,
}

/// What one listener, and one peer, may use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of the listener, over all workers.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections: u32,
    /// How many of them one address may have; as many as there are where it is left out. Behind a proxy, or beside one
    /// service, all clients may have one address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_per_peer: Option<u32>,
    /// Streams of an HTTP/2 connection.
    #[schemars(range(min = 1, max = 100_000))]
    pub streams: u32,
    /// Fields of a request's head.
    #[schemars(range(min = 1, max = 10_000))]
    pub headers: u32,
    /// Bytes of a request's head, at least 1KiB and at most 16MiB.
    pub header_bytes: Written<Size>,
    /// From a head's first byte to its last.
    pub header_timeout: Written<Wait>,
    /// Between two parts of a request's body.
    pub body_idle_timeout: Written<Wait>,
    /// For how long a client may take nothing of an answer that waits for it. An HTTP/2 connection is cut where all of its
    /// answers wait so.
    pub answer_idle_timeout: Written<Wait>,
    /// Between two requests.
    pub idle_timeout: Written<Wait>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            connections_per_peer: None,
            streams: 100,
            headers: 100,
            header_bytes: Written::default_of("64KiB"),
            header_timeout: Written::default_of("10s"),
            body_idle_timeout: Written::default_of("30s"),
            answer_idle_timeout: Written::default_of("60s"),
            idle_timeout: Written::default_of("60s"),
        }
    }
}

/// The keys of signed stamps: HMAC-SHA-256 over resource, epoch, nonce, writer, method, path with query, and time.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Signatures {
    /// The keys. A stamp signs with the first; a guard takes what any of them signed, so that a key is replaced without
    /// a gap: first add the new one at the guards, then put it first at the stamps, then take the old one out.
    #[schemars(required, with = "Vec<SignatureKey>", length(min = 1, max = 16))]
    pub keys: Option<Vec<Option<SignatureKey>>>,
    /// Guard: how far a signature's time may be from this host's clock, before or after it: whole seconds from 1s to 5m.
    /// Within it, who can read the link can send the same stamp again.
    pub window: Written<Wait>,
    /// Guard: whether a stamp without a signature is refused. `false` is for the time until every stamp signs.
    pub required: bool,
}

impl Default for Signatures {
    fn default() -> Signatures {
        Signatures { keys: None, window: Written::default_of("30s"), required: true }
    }
}

/// The keys of `signatures` that only a guard has.
pub(super) const OF_A_VERIFIER: &[&str] = &["window", "required"];

/// One key of signed stamps.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignatureKey {
    /// Its name, which travels with each signature. 1 to 32 letters, digits, `.`, `_` or `-`.
    #[schemars(required)]
    pub kid: Option<Written<KeyId>>,
    /// The file that holds it: at least 32 random bytes in base64, on one line (`openssl rand -base64 32`).
    #[schemars(required)]
    pub file: Option<Written<Path>>,
}

/// One rule: what a request must have (all that is written), and what is said of it (at least one of `kind`,
/// `resource`, `unarmed`).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// One of these methods, in capitals.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub method: Option<Vec<String>>,
    /// This path: plain segments, `{var}` for one segment of `A-Z a-z 0-9 . _ -` (64 at most), and at the end `/**`
    /// for any rest, also none. Where a listener has such a rule, a path that is not in normal form is refused (400).
    /// A final `/` makes no difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// These fields, each with a value or `"{var}"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<BTreeMap<String, String>>,
    /// A gRPC call of this method: `pkg.Service/Method`, a final `*` for any rest of the method's name. Only such a
    /// rule makes a read of a gRPC call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// Then it is a read or a write. A rule with `method` does not make a read of a request that has a
    /// method-override field: its method is not what the target will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<KindWord>,
    /// Then it is for this resource; `{var}` stands for what `path` or `header` found. It must be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Stamp: then it passes although the term is not armed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unarmed: Option<Unarmed>,
}

/// Read or write.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KindWord {
    /// It changes nothing.
    Read,
    /// It may change something.
    Write,
}

/// What to do while the term is not armed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unarmed {
    /// Let it through.
    Pass,
}
