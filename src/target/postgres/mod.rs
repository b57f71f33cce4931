//! PostgreSQL: sessions are ended with `pg_terminate_backend`, and seen gone in `pg_stat_activity`.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Postgres`]: the proof, over a connection that is kept, and made again when it is gone |
//! | [`connect`] | how that connection is made, and what has to be true of it |
//! | [`sessions`] | what the server lists; orphans are ended and seen gone |
//! | [`in_target`] | the epoch in the database itself: raised, and older transactions waited for, then ended |
//! | [`look`] | what `epochgate check` wants to know of a server |
//!
//! A backend leaves `pg_stat_activity` after its transaction has ended (`ShutdownPostgres` runs before shared memory is
//! given back): who is not listed any more has committed or has rolled back.
//!
//! Prepared transactions are no sessions. They stand, whoever prepared them, until somebody says COMMIT PREPARED or
//! ROLLBACK PREPARED; through the guard only the leader can. They are counted, and never touched.

mod connect;
pub mod in_target;
pub mod look;
mod sessions;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Proof, Prover, Proving};
use crate::config::resolved::{Control, Upstream};
use crate::fence::{Resource, Term};
use crate::net::dial::ClientSlot;
use connect::Connected;

/// The control connection to a PostgreSQL server. Kept open while nothing is asked, so that a handoff does not wait for
/// a login; a broken one shows in the next question, and is made again.
pub struct Postgres {
    /// The listener that it serves, for people.
    owner: Arc<str>,
    upstream: Upstream,
    control: Control,
    /// What TLS sessions are made with, where the upstream has TLS.
    tls: ClientSlot,
    kept: Mutex<Option<Rc<Connected>>>,
}

impl Postgres {
    /// For this listener, with what is in the slot; `None` where it has no control connection. Nothing is dialled yet.
    pub fn new(owner: Arc<str>, upstream: &Upstream, tls: ClientSlot) -> Option<Postgres> {
        let control = upstream.control.clone()?;
        Some(Postgres { owner, upstream: upstream.clone(), control, tls, kept: Mutex::new(None) })
    }

    /// Makes the connection, so that it stands when it is needed.
    ///
    /// # Errors
    /// Why there is none, or none that could prove anything.
    pub async fn warm_up(&self) -> Result<(), String> {
        self.connected().await.map(drop).map_err(|why| self.placed(&why))
    }

    /// The connection that is kept, where it still leads to where the upstream's name leads; else a new one.
    async fn connected(&self) -> Result<Rc<Connected>, String> {
        let mut kept = self.kept.lock().await;
        let servers = connect::servers(&self.upstream).await?;
        if let Some(connected) = kept.as_ref().filter(|connected| connected.leads_to(&servers)) {
            return Ok(Rc::clone(connected));
        }
        *kept = None;
        let connected = Rc::new(connect::connect(&self.upstream, &self.control, &self.tls).await?);
        *kept = Some(Rc::clone(&connected));
        Ok(connected)
    }

    /// What was asked may still be under way where there was an error: the next question begins on a new connection.
    async fn forget(&self, connected: &Rc<Connected>) {
        let mut kept = self.kept.lock().await;
        if kept.as_ref().is_some_and(|kept| Rc::ptr_eq(kept, connected)) {
            *kept = None;
        }
    }

    async fn proved(&self, connected: &Connected, term: &Term, resource: &Resource) -> Result<Proof, String> {
        let limit = self.upstream.response_timeout;
        let ended = sessions::end_orphans(connected, limit).await?;
        let raised = in_target::raise(connected, &self.control.schema, term, resource, limit).await?;
        let prepared = sessions::prepared_names(connected).await?.len();
        let from = Some(connected.vantage.local());
        Ok(Proof { ended: ended + raised.unwrap_or(0), prepared, in_target: raised.is_some(), from })
    }

    /// An error with where it was.
    fn placed(&self, why: &str) -> String {
        format!("listener {}: control connection to {}: {why}", self.owner, self.upstream.url)
    }
}

impl Prover for Postgres {
    fn prove<'a>(&'a self, term: &'a Term, resource: &'a Resource) -> Proving<'a> {
        Box::pin(async move {
            let connected = self.connected().await.map_err(|why| self.placed(&why))?;
            match self.proved(&connected, term, resource).await {
                Ok(proof) => Ok(proof),
                Err(why) => {
                    self.forget(&connected).await;
                    Err(self.placed(&why))
                }
            }
        })
    }
}

/// Asks again, ever more rarely, until a time is over.
struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    const LONGEST_PAUSE: Duration = Duration::from_millis(200);

    fn of(limit: Duration) -> Patience {
        Patience { until: Instant::now() + limit, pause: Duration::from_millis(2) }
    }

    /// Waits a little; `false` where the time is over.
    async fn goes_on(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        true
    }
}
