//! The embedded coordinator: a store for one host, without a server. For `epochgate demo`, for trying things out, for
//! tests; it is not a distributed system and refuses to pose as one (`place`: network file systems are refused).
//!
//! # On disk
//!
//! `<path>/revisions/<20 digits>`: one file per revision, each the whole store as JSON with a checksum, never changed
//! once it has its name. So every commit writes everything: right for some hundred keys and some ten commits a second.
//! The last 64 are kept.
//!
//! # A commit
//!
//! Read the newest revision *n*; decide; write a temporary file; sync it; `link` it to *n + 1*; sync the folder. `link`
//! never replaces a name, so of all who decided on *n* one wins; the others find the number taken, read again and
//! decide afresh. There is no lock, so a process that is stopped anywhere holds nothing that others wait for.
//!
//! # A process that slept
//!
//! By the time that it links, its number may have been taken *and pruned*; then `link` succeeds, and the file is
//! **void**: it continues a past that went on otherwise. What tells it is that names are pruned in ascending order,
//! each only after the one before it (`folder`):
//!
//! > While *n* stands under its name, *n + 1* has not been pruned; so a file named *n + 1* is the only one that ever
//! > had that name, and no name after it has been pruned either.
//!
//! "Stands" means that the name still leads to the file that was read (kept open, so that its inode number is not
//! given to another). Everybody looks in this order: first at *n + 1*, then whether *n* stands.
//!
//! - A **reader** that finds no *n + 1*, and then *n* standing, has the newest revision: the answer is linearizable.
//!   One that finds *n + 1*, then *n* standing, goes on to *n + 1*. One that finds *n* gone lists the folder, takes
//!   the highest name, and believes it only where the file that it names as its parent (by a random id, not by number)
//!   stands under the number before: a void file's parent has been pruned, and never comes back.
//! - A **committer** that has linked and then finds *n* standing has committed. One that finds *n* gone can't know: its
//!   file was void, or it was valid and 64 revisions followed while the process slept *between* link and look. It
//!   takes the name away (in both cases below all that anybody still reads) and answers "unknown". Renewing or ending
//!   a lease is then simply done again.
//!
//! # Crashes
//!
//! - Before the link: a temporary file stays behind; any commit removes it once it is a minute old (an owner that was
//!   only asleep finds it gone, and begins again). It is never read, so it may be torn.
//! - Between link and look: the revision stands if it is valid; nobody was told. A void one lies below the kept ones,
//!   is believed by no reader, and goes with the next prune.
//! - Power loss: a file was synced before it got its name, so a name never leads to half a revision. A name may be lost
//!   until the folder is synced; the committer answers only after that, and a reader that sees a revision for the first
//!   time syncs the folder itself before it tells. Where the newest file is damaged all the same, the store is refused:
//!   falling back to the one before would take back what was answered.
//!
//! # Leases
//!
//! They end on CLOCK_BOOTTIME, and with the boot (the kernel's boot id): all processes must see the same clock, so not
//! across time namespaces. Whether one has ended is decided on a state that was just read, before every answer: who
//! finds one ended first commits its end, so no answer is ahead of the revision that it names. Renewing one is a commit
//! that touches no key's revision.

mod chain;
mod folder;
mod place;
pub mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::chain::{Chain, Limit, Unclear};
use super::store::{Committed, Lease, LeaseId, Range, Revision, Snapshot, Store, StoreError, StoreFuture, Txn, Watch};
use crate::clock::{Clock, Entropy};
use crate::fence::Moment;

/// The time limit of a call, where none is given.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A store in a folder of this host, shared by any number of processes. Calls need a tokio runtime with time; the file
/// work runs on its threads for blocking tasks.
pub struct Embedded {
    chain: Arc<Chain>,
    path: PathBuf,
    limit: Duration,
}

impl Embedded {
    /// Opens the store in the folder `path`, and makes it where there is none. A call takes 5 s at most. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] on a network file system, where `path` is a file, or a folder of something else;
    /// [`StoreError::Unreachable`] where the system says no.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Arc<Embedded>, StoreError> {
        Embedded::open_with_limit(path, clock, entropy, CALL_LIMIT)
    }

    /// The same, with the time limit of one call.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with_limit(
        path: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        limit: Duration,
    ) -> Result<Arc<Embedded>, StoreError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| {
            StoreError::Unusable(format!(
                "cannot read the kernel's boot id, without which leases mean nothing: {error}"
            ))
        })?;
        Embedded::open_in_boot(path, clock, entropy, limit, boot.trim())
    }

    fn open_in_boot(
        path: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        limit: Duration,
        boot: &str,
    ) -> Result<Arc<Embedded>, StoreError> {
        let shown = path.display();
        let failed = |error| StoreError::Unreachable(format!("cannot open the embedded store {shown}: {error}"));
        if let Some(name) = place::refused_file_system(path).map_err(failed)? {
            return Err(StoreError::Unusable(format!(
                "the embedded store {shown} would lie on {name}: it serves one host only, from a local file system. Use \
                 etcd where several hosts take part"
            )));
        }
        refuse_foreign(path)?;
        std::fs::create_dir_all(path).map_err(failed)?;
        let revisions = path.join("revisions");
        let chain = Chain::new(revisions.clone(), clock, entropy, boot.into());
        chain::create(path, &revisions, chain.random()).map_err(failed)?;
        chain.newest(Limit::after(limit))?;
        Ok(Arc::new(Embedded { chain: Arc::new(chain), path: path.into(), limit }))
    }

    /// Runs blocking work with the call's time limit. Work whose caller went away, or gave up, still ends by itself.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Chain, Limit, Moment) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let chain = self.chain.clone();
        Box::pin(async move {
            let sent = chain.clock.now();
            let limit = Limit::after(self.limit);
            let working = tokio::task::spawn_blocking(move || work(&chain, limit, sent));
            let shown = self.path.display();
            match tokio::time::timeout(self.limit, working).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => Err(StoreError::Unreachable(format!("the embedded store {shown}: {error}"))),
                Err(_) => Err(StoreError::Unreachable(format!(
                    "the embedded store {shown}: no answer from the disk within {:?}",
                    self.limit
                ))),
            }
        })
    }
}

/// A folder that holds something else is not taken for a store: `--embedded .` is a slip.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let shown = path.display();
    let unusable = |why: &str| Err(StoreError::Unusable(format!("the embedded store {shown} cannot be used: {why}")));
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let is_ours = |name: &str| name == "revisions" || name.starts_with("new-") || name == "lost+found";
            let foreign = entries.flatten().any(|entry| !entry.file_name().to_str().is_some_and(is_ours));
            if foreign { unusable("the folder holds other files; name one that does not exist yet") } else { Ok(()) }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => unusable("it is a file, not a folder"),
        Err(error) => Err(StoreError::Unreachable(format!("cannot open the embedded store {shown}: {error}"))),
    }
}

impl Store for Embedded {
    fn read(&self, ranges: Vec<Range>) -> StoreFuture<'_, Snapshot> {
        self.call(move |chain, limit, sent| {
            let (held, _) = chain.current(limit)?;
            let state = &held.state;
            Ok(Snapshot { revision: Revision(state.revision), ranges: state.read(&ranges), sent })
        })
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Committed> {
        self.call(move |chain, limit, _| chain.commit(limit, Unclear::Tell, |state, _, _| state.transact(&txn)))
    }

    fn watch(&self, after: Revision) -> Box<dyn Watch> {
        Box::new(watch::EmbeddedWatch::new(self.chain.clone(), after))
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        self.call(move |chain, limit, sent| {
            // Random, not counted: a holder from before the store was wiped must not keep another's lease alive.
            let id = i64::try_from(chain.random() >> 1).unwrap_or(i64::MAX).max(1);
            let grant = |state: &state::State, now, boot: &str| Ok(state.grant(id, ttl, now, boot));
            let ttl = chain.commit(limit, Unclear::Again, grant)?;
            Ok(Lease { id: LeaseId(id), ttl, sent })
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, Lease> {
        self.call(move |chain, limit, sent| {
            let renew = |state: &state::State, now, boot: &str| state.keep_alive(lease.0, now, boot);
            let ttl = chain.commit(limit, Unclear::Again, renew)?;
            Ok(Lease { id: lease, ttl, sent })
        })
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.call(move |chain, limit, _| chain.commit(limit, Unclear::Again, |state, _, _| Ok(state.revoke(lease.0))))
    }

    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn endpoint(&self) -> String {
        self.path.display().to_string()
    }
}
