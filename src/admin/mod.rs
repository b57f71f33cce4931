//! What people and machines ask the process itself, on an address or a unix socket of its own.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /livez` | 200 while the process runs; never depends on the coordinator |
//! | `GET /readyz`, `?verbose` | 200 where this process can answer, else 503 |
//! | `GET /leader?resource=R` | 200 where this writer leads and is armed, else 503 and who does |
//! | `GET /api/v1/status`, `/api/v1/doors` | JSON |
//! | `GET /` | a page for people |
//! | `POST /api/v1/` `step-down`, `gate/open`, `doors/forget`, `log-level`, `reload` | from this host only (`nearby.rs`) |
//!
//! The server has a thread and a runtime of its own, so that a busy data path never keeps anybody from looking. It
//! knows the rest of the process only as a [`Control`].

mod guests;
mod nearby;
mod page;
mod problem;
pub mod readiness;
mod routes;
mod scrape;
pub mod server;
pub mod status;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::fence::{Epoch, Resource};
pub use server::{AdminError, AdminServer};
pub use status::Status;

/// The process, as the admin side sees it. The control thread implements it with channels.
///
/// The server waits for an answer for a bounded time and then drops the future; a command that was asked for may
/// still be carried out.
pub trait Control: Send + Sync + 'static {
    /// The state as of now. [`Status::ready`] is to be right: [`Status::with_readiness`].
    fn status(&self) -> BoxFuture<'_, Arc<Status>>;

    /// Resolves once every worker has flushed its [`ListenerMeters`](crate::metrics::ListenerMeters).
    fn flush_meters(&self) -> BoxFuture<'_, ()>;

    /// Carries out what an operator asked for. The answer is shown as it is.
    fn command(&self, command: Command) -> BoxFuture<'_, Result<serde_json::Value, CommandError>>;
}

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give up the leadership of `resource`.
    StepDown {
        /// Of what.
        resource: Resource,
        /// Also where nobody else could lead.
        force: bool,
    },
    /// Open the gate of `resource` without its having drained: R1 is given up for this handoff.
    OpenGate {
        /// Of what.
        resource: Resource,
        /// Before which target, where this process guards several.
        target: Option<Arc<str>>,
    },
    /// Take it that a door is dead.
    ForgetDoor {
        /// Which target it stands before.
        target: Arc<str>,
        /// Its id.
        id: Arc<str>,
    },
    /// Read the files again.
    Reload,
    /// Take a floor for real that lies far above the last epoch.
    Rebase {
        /// Of what.
        resource: Resource,
        /// The floor.
        to: Epoch,
    },
    /// Log at this level from now on.
    LogLevel {
        /// The level.
        level: tracing::Level,
    },
}

/// Why a command was not carried out. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such resource, target or door here (404).
    #[error("{0}")]
    NotFound(String),
    /// Not in the present state (409), such as a step-down where nobody else could lead.
    #[error("{0}")]
    Conflict(String),
    /// Something that it needs does not answer (503).
    #[error("{0}")]
    Unavailable(String),
}

#[cfg(test)]
mod tests;
