//! What a guard can prove at a target: that nothing older than a term can take effect any more.
//!
//! An unmodified database knows nothing of epochs, but it knows its sessions, and a guard that has a connection of its
//! own to it (the *control connection*, `upstream.control`) can ask for them, end them, and see that they are gone. That
//! is the protocol's own proof of DESIGN 3.2 (a) and 3.3: it takes the place of the quarantine.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Prover`]: what control asks, and what it gets |
//! | [`redis`] | the proof at Redis |
//! | [`home`] | from where a door has looked, remembered: a predecessor may have stood elsewhere |
//! | [`orphans`] | which sessions of a server have no socket on this host any more: whatever the protocol |
//! | [`postgres`] | the proof at a PostgreSQL server, and the in-target level |
//!
//! # What a proof rests on
//!
//! - Sessions are known by the address and the port that the server sees. So the guard must stand where the server sees
//!   it: with a proxy or a translation of addresses between, there is no proof, and the error says so.
//! - Nothing of a client leaves for the target before the target lists the session (for PostgreSQL: before the first
//!   `ReadyForQuery`). So what is not listed has done nothing.
//! - A predecessor of the guard had the same address. One that stood elsewhere (a state directory that has moved with
//!   its volume) may have sessions that are not recognised: `docs/databases.md` says what to do then.

pub mod home;
pub mod orphans;
pub mod postgres;
pub mod redis;

use std::future::Future;
use std::pin::Pin;

use crate::fence::{Resource, Term};

/// What was seen when nothing older could take effect any more; for the log and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// How many sessions were ended for it.
    pub ended: usize,
    /// How many prepared transactions stand at the target. They are nobody's session, and the new leader's to decide.
    pub prepared: usize,
    /// Whether the target itself now refuses everything older (the in-target level).
    pub in_target: bool,
    /// The address of this host that sessions were known by.
    pub from: Option<std::net::IpAddr>,
}

/// A proof in the making. An error says why there is none, where, and what to do.
pub type Proving<'a> = Pin<Box<dyn Future<Output = Result<Proof, String>> + 'a>>;

/// A guard's own way to its target, beside its clients' sessions. It belongs to the control thread.
pub trait Prover {
    /// Makes sure that nothing older than `term` can take effect at the target: ends what has no socket here any more,
    /// sees it gone, and raises the epoch in the target where it has one for `resource`.
    ///
    /// To be asked when every worker is fenced and quiet: nothing runs below `term`, and what is lost has no open socket.
    /// Bounded in time. Asked again after an error, it begins anew. Dropped, it may leave sessions ended, and never
    /// anything older admitted.
    ///
    /// # Errors
    /// Where nothing is proved: the gate is to stay shut.
    fn prove<'a>(&'a self, term: &'a Term, resource: &'a Resource) -> Proving<'a>;
}
