//! The process's session: one lease, kept alive, and replaced when it is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::store::{Lease, LeaseId, Store, StoreError};

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// A new lease began. Everything that went with the one before is gone.
    Began(Lease),
    /// The lease was renewed.
    Renewed(Lease),
    /// The coordinator says that the lease is gone.
    Ended(LeaseId),
    /// The coordinator did not answer; the lease may live on.
    Failed(StoreError),
}

/// Keeps a session until `events` is dropped. Renews at a third of the lease, and more often while renewing fails.
/// Runs on the runtime that it is spawned on; dropping it leaves the lease to lapse.
pub async fn keep(store: Arc<dyn Store>, ttl: Duration, events: mpsc::UnboundedSender<SessionEvent>) {
    let (pace, hurry) = (ttl / 3, (ttl / 15).max(Duration::from_millis(100)));
    loop {
        let lease = match store.grant(ttl).await {
            Ok(lease) => lease,
            Err(error) => {
                if events.send(SessionEvent::Failed(error)).is_err() {
                    return;
                }
                tokio::time::sleep(hurry).await;
                continue;
            }
        };
        if events.send(SessionEvent::Began(lease)).is_err() {
            return;
        }
        let mut wait = pace;
        loop {
            tokio::time::sleep(wait).await;
            let event = match store.keep_alive(lease.id).await {
                Ok(renewed) => SessionEvent::Renewed(renewed),
                Err(StoreError::LeaseGone) => SessionEvent::Ended(lease.id),
                Err(error) => SessionEvent::Failed(error),
            };
            let ended = matches!(event, SessionEvent::Ended(_));
            wait = if matches!(event, SessionEvent::Renewed(_)) { pace } else { hurry };
            if events.send(event).is_err() {
                return;
            }
            if ended {
                break;
            }
        }
    }
}
