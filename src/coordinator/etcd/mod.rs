//! etcd behind the store trait.
//!
//! The client library is a thin layer over gRPC: it waits for ever, chooses dead endpoints, and neither its streams nor
//! its logins heal. What a careful user adds is here:
//!
//! | file | what it adds |
//! |---|---|
//! | [`settings`] | checked endpoints; certificates and the password, read anew at each connection |
//! | [`endpoints`] | one client an endpoint; which one is used, left, and tried again |
//! | [`call`] | a time limit around everything, and whether a call may be made again elsewhere |
//! | [`failure`] | what an error means, told by its message |
//! | [`wire`] | ranges, conditions and changes in etcd's words |
//! | [`watch`] | a watch that heals itself, or says that changes may be missing |
//! | [`probe`] | how every endpoint is, for `epochgate check` |
//! | [`access`] | what the own user may do, for `epochgate check` |

mod access;
mod backoff;
mod call;
mod endpoints;
mod failure;
mod probe;
mod settings;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use call::Repeat;
use endpoints::{Endpoints, Link};
use failure::Failure;
use settings::Settings;

use super::store::{Committed, Lease, LeaseId, Range, Revision, Snapshot, Store, StoreError, StoreFuture, Txn, Watch};
use crate::clock::{Clock, Entropy};
use crate::config::resolved;

pub use access::Access;
pub use probe::EndpointHealth;
pub use wire::MAX_TXN_OPS;

/// How large an answer may be. Ten thousand resources with their reports are far below; the client's own 4 MiB would
/// end the call, or the watch, that meets a larger one.
const MAX_ANSWER: usize = 64 << 20;

/// An etcd cluster, 3.4 or later.
///
/// Nothing is connected before the first call, and every call heals what it finds broken, so that an etcd that is away
/// when the process starts is no error. Calls must run inside a tokio runtime with time and I/O; connections live on
/// the runtime of the call that made them.
pub struct Etcd {
    endpoints: Arc<Endpoints>,
    clock: Arc<dyn Clock>,
}

impl Etcd {
    /// The cluster that the configuration names. Connects to nothing and reads no file.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where the settings cannot work: no scheme, TLS and plain text mixed, no authority to
    /// trust.
    pub fn new(
        coordinator: &resolved::Coordinator,
        etcd: &resolved::Etcd,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Etcd>, StoreError> {
        let settings = Settings::new(coordinator, etcd)?;
        Ok(Arc::new(Etcd { endpoints: Arc::new(Endpoints::new(settings, entropy)), clock }))
    }

    /// How every endpoint is, in the order of the configuration. Takes as long as a call may, at most; never fails.
    pub async fn probe(&self) -> Vec<EndpointHealth> {
        probe::probe(&self.endpoints).await
    }

    /// What etcd lets this process do, as it says itself. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Denied`] where etcd does not let it ask, else as any call.
    pub async fn access(&self) -> Result<Access, StoreError> {
        let settings = &self.endpoints.settings;
        let ask = |link| access::ask(settings, link);
        self.endpoints.call("ask for the own rights", Repeat::Harmless, ask).await
    }

    fn prefix(&self) -> &str {
        &self.endpoints.settings.prefix
    }

    async fn read_once(&self, link: Link, ranges: &[Range]) -> Result<Snapshot, Failure> {
        let mut kv = link.client.kv_client().max_decoding_message_size(MAX_ANSWER);
        let sent = self.clock.now();
        let (revision, ranges) = if let [range] = ranges {
            let (key, options) = wire::get(self.prefix(), range);
            let mut answer = kv.get(key, Some(options)).await?;
            let revision = self.endpoints.header(&link, answer.header())?;
            (revision, vec![wire::entries(self.prefix(), answer.take_kvs())])
        } else {
            let answer = kv.txn(wire::gets(self.prefix(), ranges)).await?;
            let revision = self.endpoints.header(&link, answer.header())?;
            (revision, wire::ranges(self.prefix(), ranges.len(), &answer)?)
        };
        Ok(Snapshot { revision, ranges, sent })
    }

    async fn commit_once(&self, link: Link, txn: &Txn) -> Result<Committed, Failure> {
        let mut kv = link.client.kv_client();
        let answer = kv.txn(wire::txn(self.prefix(), txn)).await?;
        let revision = self.endpoints.header(&link, answer.header())?;
        Ok(if answer.succeeded() { Committed::Done(revision) } else { Committed::Refused(revision) })
    }

    async fn grant_once(&self, link: Link, ttl: Duration) -> Result<Lease, Failure> {
        // Whole seconds, up: a lease may live longer than asked, never shorter.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let sent = self.clock.now();
        let answer = link.client.lease_client().grant(seconds, None).await?;
        self.endpoints.header(&link, answer.header())?;
        if !answer.error().is_empty() {
            return Err(Failure::NoAnswer(answer.error().to_owned()));
        }
        Ok(Lease { id: LeaseId(answer.id()), ttl: whole_seconds(answer.ttl()), sent })
    }

    /// One renewal, on a stream of its own: an answer to an earlier renewal, which may still be under way, cannot be
    /// taken for the answer to this one.
    async fn keep_alive_once(&self, link: Link, lease: LeaseId) -> Result<Lease, Failure> {
        // The client keeps the first answer's time to itself, so a second renewal on the stream asks for it.
        let (mut keeper, mut answers) = link.client.lease_client().keep_alive(lease.0).await?;
        let sent = self.clock.now();
        keeper.keep_alive().await?;
        let Some(answer) = answers.message().await? else {
            return Err(Failure::NoAnswer("the stream ended without an answer".into()));
        };
        self.endpoints.header(&link, answer.header())?;
        if answer.id() != lease.0 {
            return Err(Failure::NoAnswer("the answer was for another lease".into()));
        }
        if answer.ttl() <= 0 {
            return Err(Failure::LeaseGone);
        }
        Ok(Lease { id: lease, ttl: whole_seconds(answer.ttl()), sent })
    }

    async fn revoke_once(&self, link: Link, lease: LeaseId) -> Result<(), Failure> {
        let answer = link.client.lease_client().revoke(lease.0).await?;
        self.endpoints.header(&link, answer.header()).map(|_| ())
    }
}

fn whole_seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Nothing was asked: what is asked for cannot be answered.
fn refused<'a, T: Send + 'a>(text: String) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::Denied(text))))
}

impl Store for Etcd {
    fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot> {
        if let Err(text) = wire::check_size("ranges", ranges.len()) {
            return refused(text);
        }
        Box::pin(
            async move { self.endpoints.call("read", Repeat::Harmless, |link| self.read_once(link, &ranges)).await },
        )
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Committed> {
        let size = wire::check_size("conditions", txn.compares.len());
        if let Err(text) = size.and_then(|()| wire::check_size("changes", txn.changes.len())) {
            return refused(text);
        }
        Box::pin(async move {
            self.endpoints.call("commit", Repeat::OnlyIfNotSent, |link| self.commit_once(link, &txn)).await
        })
    }

    fn watch(&self, after: Revision) -> Box<dyn Watch> {
        Box::new(watch::start(Arc::clone(&self.endpoints), after))
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        // Harmless: a lease that nobody knows of holds no keys and ends by itself.
        Box::pin(async move {
            self.endpoints.call("grant a lease", Repeat::Harmless, |link| self.grant_once(link, ttl)).await
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, Lease> {
        Box::pin(async move {
            self.endpoints.call("renew the lease", Repeat::Harmless, |link| self.keep_alive_once(link, lease)).await
        })
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let revoked =
                self.endpoints.call("revoke the lease", Repeat::Harmless, |link| self.revoke_once(link, lease)).await;
            match revoked {
                Err(StoreError::LeaseGone) => Ok(()),
                revoked => revoked,
            }
        })
    }

    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn endpoint(&self) -> String {
        self.endpoints.url(self.endpoints.current()).to_owned()
    }
}
