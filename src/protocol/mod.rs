//! What every protocol asks of its role, and the right that it needs to send a write.
//!
//! A protocol owns its loop (accept, read, forward, answer) and asks its [`Role`] at three points: *bind* when a
//! connection is accepted, *decide* when a request's head is complete, *settle* when it is over. A role sees
//! [`Facts`], never the protocol's own types. To send a write a protocol needs a [`Right`], which only
//! [`fence::gate`](crate::fence::gate) or [`fence::tenure`](crate::fence::tenure) can back.

pub mod http;
pub mod postgres;
pub mod redis;
pub mod right;
pub mod session;
pub mod signal;
pub mod tcp;
pub mod tunnel;
pub mod way;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;

use crate::fence::{Outcome, Refusal, Resource};
use crate::net::{Closing, Stream};
use crate::peer::{Names, Peer};
pub use right::Right;

/// What a connection is bound to when it is accepted: the version of the writer's standing (DESIGN 3.4). Zero and
/// meaningless for a guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The standing's version when the connection was accepted.
    pub standing: u64,
}

/// The other end of a connection, and what the connection was bound to when it was accepted.
#[derive(Clone, Debug)]
pub struct Party {
    /// Who it is.
    pub peer: Peer,
    /// What its certificate names it, where it has shown one.
    pub names: Option<Rc<Names>>,
    /// What the connection is bound to.
    pub binding: Binding,
}

impl Party {
    /// One that has shown no certificate.
    pub fn unnamed(peer: impl Into<Peer>, binding: Binding) -> Party {
        Party { peer: peer.into(), names: None, binding }
    }
}

/// A connection that a listener has taken: what its protocol serves.
pub struct Accepted {
    /// Its bytes, behind TLS and the PROXY header where it had them.
    pub stream: Stream,
    /// Who it is.
    pub who: Party,
    /// The stamp that its PROXY header carried, as text; only from somebody whose header is believed.
    pub stamp: Option<Bytes>,
    /// What TLS is agreed on with, where the protocol itself decides when (PostgreSQL): it takes nothing without.
    pub tls: Option<Arc<ServerConfig>>,
    /// Says when it is to finish.
    pub closing: Closing,
}

/// The fields of a request's head, however the protocol keeps them.
pub trait Fields {
    /// Calls `each` with every value of the field `name` (in lower case), in order.
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8]));

    /// Whether there is such a field.
    fn has(&self, name: &str) -> bool {
        let mut found = false;
        self.each(name, &mut |_| found = true);
        found
    }

    /// The bytes of the whole head, about: what it costs to hold it.
    fn size(&self) -> usize;
}

/// What a role sees of a request.
pub struct Facts<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path, as sent, without the query.
    pub path: &'a str,
    /// Path and query, as the next hop is to see them.
    pub target: &'a str,
    /// The fields.
    pub fields: &'a dyn Fields,
    /// Whether the connection is to become something else (an upgrade was asked for).
    pub upgrade: bool,
    /// Whether it is a gRPC call.
    pub grpc: bool,
    /// What the protocol itself knows it to be; `None` where method and rules say it.
    pub kind: Option<Kind>,
    /// Who sent it.
    pub peer: Peer,
    /// What its certificate names it, where it has shown one.
    pub names: Option<&'a Names>,
    /// What its connection is bound to.
    pub binding: Binding,
}

/// Whether a request changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It does not.
    Read,
    /// It may.
    Write,
}

impl Kind {
    /// As the method alone says it (RFC 9110 9.2.1): an unknown one may change something.
    pub fn of_method(method: &str) -> Kind {
        if matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE") { Kind::Read } else { Kind::Write }
    }

    /// As in rules and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
        }
    }
}

/// What a role decided.
pub enum Decision {
    /// Forward it, with this right.
    Forward(Right),
    /// Answer with this.
    Refuse(Box<Refusal>),
    /// Hold it: wait for this, then ask again. A held request whose client goes away is simply dropped.
    Hold(Held),
}

/// A held request's place: resolves when it is worth asking again, or with the refusal that ends the wait. Dropping
/// it gives the place back.
pub type Held = Pin<Box<dyn Future<Output = Result<(), Box<Refusal>>>>>;

/// One request that is over, for the counters.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Read or write.
    pub kind: Kind,
    /// What became of it.
    pub outcome: Outcome,
    /// From its head to its end.
    pub took: Duration,
}

/// Why a connection was ended by this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the words say it")]
pub enum CutReason {
    Fenced,
    TermChanged,
    Idle,
    HeaderTimeout,
    Limit,
    Shutdown,
    Tls,
    SlowReader,
    Flood,
    ProxyHeader,
}

impl CutReason {
    /// All of them, for metrics.
    pub const ALL: [CutReason; 10] = [
        CutReason::Fenced,
        CutReason::TermChanged,
        CutReason::Idle,
        CutReason::HeaderTimeout,
        CutReason::Limit,
        CutReason::Shutdown,
        CutReason::Tls,
        CutReason::SlowReader,
        CutReason::Flood,
        CutReason::ProxyHeader,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            CutReason::Fenced => "fenced",
            CutReason::TermChanged => "term_changed",
            CutReason::Idle => "idle",
            CutReason::HeaderTimeout => "header_timeout",
            CutReason::Limit => "limit",
            CutReason::Shutdown => "shutdown",
            CutReason::Tls => "tls",
            CutReason::SlowReader => "slow_reader",
            CutReason::Flood => "flood",
            CutReason::ProxyHeader => "proxy_header",
        }
    }
}

/// One listener's side of the fence, in one worker. All calls are plain and quick: what takes time is a [`Held`].
pub trait Role: 'static {
    /// A connection was accepted.
    fn bind(&self) -> Binding;

    /// A request's head is complete: what is to become of it? Asked again after every [`Held`].
    fn decide(&self, facts: &Facts<'_>) -> Decision;

    /// A request was refused with this answer, by the role or by the protocol (the upstream failed). Called once per
    /// refused request, before the answer is sent: counters and audit.
    fn refused(&self, facts: &Facts<'_>, refusal: &Refusal);

    /// The resource of a request, where its rules name one: what a refusal of the protocol's own names.
    fn resource(&self, _facts: &Facts<'_>) -> Option<Resource> {
        None
    }

    /// A request is over.
    fn finished(&self, finished: Finished);

    /// A connection was opened (`true`) or closed.
    fn connection(&self, opened: bool);

    /// A connection was ended by this side.
    fn cut(&self, reason: CutReason);
}
