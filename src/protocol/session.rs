//! What the protocols with sessions share: how one is put before its role, how it reaches its upstream, and who hears of its
//! end.
//!
//! To a role a session (or a batch of commands) is a request: it decides, holds and refuses, and gives the right to write. Its
//! stamp comes with the PROXY header of a stamping sidecar, or is said by the client in the protocol's own words, and stands
//! before the role as the field that it would be in HTTP: so it is read as strictly, verified and remembered alike.

use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use super::tunnel::Ends;
use super::{Decision, Facts, Fields, Finished, Kind, Party, Right, Role};
use crate::clock::Clock;
use crate::config::resolved::{self, Listener};
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Moment, Outcome, Reason, Refusal};
use crate::net::{Closing, Dial, Speaks, Stage, Stream, proxy_header};
use crate::peer::Peer;

/// What all sessions of a listener in one worker go by.
pub struct Sessions {
    /// The listener: its upstream, its limits.
    pub listener: Arc<Listener>,
    /// Who decides.
    pub role: Rc<dyn Role>,
    /// For how long sessions took.
    pub clock: Arc<dyn Clock>,
    /// What the tests took out.
    pub mechanisms: Mechanisms,
    /// The stamp's field, in lower case.
    header: Box<str>,
    dial: Rc<dyn Dial>,
}

/// What is put before the role.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What it is called in the audit log: `TCP`, `POSTGRES`.
    pub method: &'static str,
    /// What it is about, with a slash before: the database, the command. Never anything that is a secret.
    pub path: &'a str,
    /// Whether it may change something.
    pub kind: Kind,
    /// Whether it is a whole session, which ends with its epoch.
    pub lasts: bool,
    /// Whose it is.
    pub who: &'a Party,
    /// The text of its stamp.
    pub stamp: Option<&'a [u8]>,
}

impl Sessions {
    /// Those of `listener`, whose upstream is reached by `dial`. `header` is the name of the stamp's field, in lower case.
    pub fn new(
        listener: Arc<Listener>,
        role: Rc<dyn Role>,
        clock: Arc<dyn Clock>,
        mechanisms: Mechanisms,
        header: &str,
        dial: Rc<dyn Dial>,
    ) -> Sessions {
        Sessions { listener, role, clock, mechanisms, header: header.into(), dial }
    }

    /// Whether it stands beside a writer.
    pub fn is_stamp(&self) -> bool {
        matches!(self.listener.role, resolved::Role::Stamp(_))
    }

    /// Asks the role once.
    pub fn ask(&self, asked: &Asked<'_>) -> Decision {
        let fields = StampAlone { name: &self.header, stamp: asked.stamp };
        self.role.decide(&facts(asked, &fields))
    }

    /// Says that it was refused: to the counters and the audit log. Once for each refusal that its client is told.
    pub fn say_refused(&self, asked: &Asked<'_>, refusal: &Refusal) {
        let fields = StampAlone { name: &self.header, stamp: asked.stamp };
        self.role.refused(&facts(asked, &fields), refusal);
    }

    /// Asks the role until it has decided; waits where it holds. Cancel-safe: nothing has been let in until it returns.
    ///
    /// # Errors
    /// The refusal to tell the client; it has been said to nobody yet ([`Sessions::say_refused`]). Where the listener is to
    /// finish meanwhile, one that says so.
    pub async fn admit(&self, asked: &Asked<'_>, closing: &mut Closing) -> Result<Right, Box<Refusal>> {
        loop {
            let held = match self.ask(asked) {
                Decision::Forward(right) => return Ok(right),
                Decision::Refuse(refusal) => return Err(refusal),
                Decision::Hold(held) => held,
            };
            tokio::select! {
                biased;
                decided = held => decided?,
                () = closing.until(Stage::Finishing) => return Err(Box::new(stopping())),
            }
        }
    }

    /// Connects to the upstream for a session with this right, and confirms the right with the connection in hand. A stamp sends
    /// the session's stamp ahead: nothing else has left when this returns. Cancel-safe.
    ///
    /// # Errors
    /// The refusal to tell the client, as with [`Sessions::admit`]; nothing of the session has left, and the right is to be
    /// settled so.
    pub async fn connect(&self, right: &Right, who: &Party) -> Result<Stream, Box<Refusal>> {
        let unreachable = |error| Box::new(Refusal { resource: right.resource().cloned(), ..unreachable(&error) });
        let mut upstream = self.connect_bare().await.map_err(unreachable)?;
        right.confirm()?;
        if self.is_stamp() {
            let stamp = right.stamp().map(http::HeaderValue::as_bytes);
            upstream.write_all(&announcement(who, &upstream, stamp)).await.map_err(unreachable)?;
            upstream.flush().await.map_err(unreachable)?;
        }
        Ok(upstream)
    }

    /// Connects to the upstream for something that needs no right. A stamp says who the client is, without a stamp.
    ///
    /// # Errors
    /// Where no connection can be made.
    pub async fn connect_without_right(&self, who: &Party) -> std::io::Result<Stream> {
        let mut upstream = self.connect_bare().await?;
        if self.is_stamp() {
            upstream.write_all(&announcement(who, &upstream, None)).await?;
            upstream.flush().await?;
        }
        Ok(upstream)
    }

    async fn connect_bare(&self) -> std::io::Result<Stream> {
        // A guard takes TLS as it comes; a PostgreSQL server is asked for it first.
        let asks_first = self.listener.protocol == resolved::Protocol::Postgres && !self.is_stamp();
        let speaks = if asks_first { Speaks::Postgres } else { Speaks::Sessions };
        self.dial.dial(&self.listener.upstream.authority, speaks).await
    }

    /// Tells the role when a session, or a batch of commands, is over.
    pub fn begin(&self, kind: Kind) -> Finish {
        let (role, clock) = (Rc::clone(&self.role), Arc::clone(&self.clock));
        Finish { began: clock.now(), role, clock, kind, outcome: Outcome::NotApplied }
    }

    /// Tells the role of a connection, until it is dropped.
    pub fn count(&self) -> Counted {
        self.role.connection(true);
        Counted(Rc::clone(&self.role))
    }
}

/// What is told a client that was not let in before the listener had to finish.
pub fn stopping() -> Refusal {
    let detail = "this sidecar is stopping; nothing was applied: connect again in a moment";
    Refusal::new(Reason::GateShut, detail)
}

/// What is told a client whose upstream gave no connection: nothing of the session has left.
pub fn unreachable(error: &std::io::Error) -> Refusal {
    Refusal::new(Reason::UpstreamUnreachable, format!("{error}; nothing was applied"))
}

/// The header that goes before everything else to a guard. An address of the writer's own host says nothing to anybody else.
fn announcement(who: &Party, upstream: &Stream, stamp: Option<&[u8]>) -> Vec<u8> {
    let source = match who.peer {
        Peer::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
        _ => None,
    };
    proxy_header::write(source, source.and_then(|_| upstream.peer_address()), stamp)
}

fn facts<'a>(asked: &Asked<'a>, fields: &'a StampAlone<'a>) -> Facts<'a> {
    Facts {
        method: asked.method,
        path: asked.path,
        // What a signature covers: the same on both sides, whatever either knows of the session.
        target: "/",
        fields,
        upgrade: asked.lasts,
        grpc: false,
        kind: Some(asked.kind),
        peer: asked.who.peer,
        names: asked.who.names.as_deref(),
        binding: asked.who.binding,
    }
}

/// The only field that a session has.
struct StampAlone<'a> {
    name: &'a str,
    stamp: Option<&'a [u8]>,
}

impl Fields for StampAlone<'_> {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if let Some(stamp) = self.stamp.filter(|_| name == self.name) {
            each(stamp);
        }
    }

    fn size(&self) -> usize {
        self.stamp.map_or(0, <[u8]>::len)
    }
}

/// Tells the role, when dropped, how something ended: as not applied, until something else is said. (A request of HTTP has one of
/// its own, which borrows: a session may outlive whoever took it in.)
pub struct Finish {
    role: Rc<dyn Role>,
    clock: Arc<dyn Clock>,
    began: Moment,
    kind: Kind,
    outcome: Outcome,
}

impl Finish {
    /// It turned out to be of this kind.
    pub fn is(&mut self, kind: Kind) {
        self.kind = kind;
    }
}

impl Ends for Finish {
    fn ends_as(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let took = self.clock.now().since(self.began);
        self.role.finished(Finished { kind: self.kind, outcome: self.outcome, took });
    }
}

/// One connection in the role's count.
pub struct Counted(Rc<dyn Role>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connection(false);
    }
}
