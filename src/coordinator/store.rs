//! The small store that elections, sessions and doors stand on: read, commit, watch, lease.
//!
//! etcd and the embedded coordinator implement it; both are strictly serializable. Keys are UTF-8 texts *without* the
//! configured prefix (the store adds it), values are JSON.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::fence::Moment;

/// What a store's calls return. Dropping one abandons the call; what it asked for may still happen.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The number of one committed change; it grows with each, and goes back only when the store was restored or wiped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key, or all keys that begin with a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keys {
    /// Exactly this key.
    One(String),
    /// Every key that begins with this.
    Under(String),
}

impl Keys {
    /// Whether `key` is among them.
    pub fn contain(&self, key: &str) -> bool {
        match self {
            Keys::One(one) => one == key,
            Keys::Under(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}

/// One key with its value, as it stood at the answer's revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The key, without the configured prefix.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// When the key came into being (again, after a deletion).
    pub created: Revision,
    /// When it was last put.
    pub modified: Revision,
    /// The lease that it goes with, if any.
    pub lease: Option<LeaseId>,
}

/// A consistent, linearizable view of some keys: all of it stood at `revision`, and `revision` is not older than any
/// commit that was answered before the read was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision when it was read.
    pub revision: Revision,
    /// For each range that was asked for, in order: its entries, sorted by key.
    pub ranges: Vec<Vec<Entry>>,
    /// When the read was sent: how fresh the answer is, on the safe side.
    pub sent: Moment,
}

/// One range of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// What to read.
    pub keys: Keys,
    /// Only entries put at this revision or later; [`Revision`] 0 means all.
    pub since: Revision,
}

impl Range {
    /// Everything among `keys`.
    pub fn all(keys: Keys) -> Range {
        Range { keys, since: Revision(0) }
    }
}

/// A condition of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key exists and was created at this revision.
    CreatedAt(String, Revision),
    /// The key exists and was last put at this revision.
    ModifiedAt(String, Revision),
    /// No existing key under this prefix was put after this revision.
    NoneModifiedAfter(String, Revision),
    /// No existing key under this prefix was created after this revision.
    NoneCreatedAfter(String, Revision),
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Put a value, with the lease that it is to go with.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// The lease, if any.
        lease: Option<LeaseId>,
    },
    /// Delete one key; no error where there is none.
    Delete(String),
}

/// A transaction: if all conditions hold, all changes happen at one revision; else nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Txn {
    /// The conditions.
    pub compares: Vec<Compare>,
    /// The changes. No key stands twice.
    pub changes: Vec<Change>,
}

/// How a commit went. A commit that *failed* may have happened all the same: see [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The conditions held, and the changes stand since this revision.
    Done(Revision),
    /// A condition did not hold at this revision; nothing changed.
    Refused(Revision),
}

/// A lease's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct LeaseId(pub i64);

/// A lease just granted, or just kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives from `sent` on, at least, unless it is kept alive again. The store may have rounded it up.
    pub ttl: Duration,
    /// When the call that granted or renewed it was *sent*.
    pub sent: Moment,
}

/// Something under a watched prefix changed. A hint to read, never a truth to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The revision of the change.
    pub revision: Revision,
    /// The keys that were put or deleted.
    pub keys: Vec<String>,
}

/// A running watch. It heals itself or ends: `next` yields changes after the revision it was started at, in order;
/// [`WatchEvent::Gap`] where some may be missing (reconnected, compacted): then read. Dropping it ends it.
pub trait Watch: Send {
    /// The next change. Cancel-safe.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = WatchEvent> + Send + '_>>;
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// These keys changed.
    Changed(Changed),
    /// Changes may have been missed: read afresh.
    Gap,
}

/// Why a store call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer, or none in time. A commit may or may not have happened: read back before acting on it.
    #[error("{0}")]
    Unreachable(String),
    /// The store answered that this caller may not, or cannot be who it says. Nothing happened.
    #[error("{0}")]
    Denied(String),
    /// The lease is gone (expired or revoked); nothing happened.
    #[error("the lease is gone")]
    LeaseGone,
    /// The store cannot be used at all (not a store of ours, a network file system, a newer format).
    #[error("{0}")]
    Unusable(String),
}

/// A strictly serializable key-value store with leases. Every call has its own time limit and may be made
/// concurrently; none retries a commit whose fate is unknown.
pub trait Store: Send + Sync + 'static {
    /// Reads all `ranges` at one revision, linearizably.
    fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot>;

    /// Commits a transaction.
    fn commit(&self, txn: Txn) -> StoreFuture<'_, Committed>;

    /// Watches every key under the configured prefix, from after `revision` on. Returns at once; the watch connects,
    /// and reconnects with backoff, by itself.
    fn watch(&self, after: Revision) -> Box<dyn Watch>;

    /// Grants a lease of at least `ttl`.
    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease>;

    /// Renews a lease. [`StoreError::LeaseGone`] where it has ended.
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, Lease>;

    /// Ends a lease and deletes its keys. No error where it is gone already.
    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()>;

    /// What it is, for `status`: `etcd` or `embedded`.
    fn kind(&self) -> &'static str;

    /// The endpoint last used, or the path, for `status`, logs and errors.
    fn endpoint(&self) -> String;
}
