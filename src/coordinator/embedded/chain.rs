//! The protocol: finding the newest revision, and appending the next. All calls block.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::folder::{Folder, KEPT, Linked, content};
use super::state::{Decision, State};
use crate::clock::{Clock, Entropy};
use crate::coordinator::store::StoreError;
use crate::fence::Moment;

/// A revision that was read and found to be valid, with its file kept open, so that its name can be told from one
/// that was taken again.
pub(super) struct Held {
    folder: Arc<Folder>,
    file: File,
    pub state: State,
}

/// What comes after a revision.
pub(super) enum Step {
    /// Nothing: it was the newest when this was asked.
    Newest,
    /// This one.
    Next(Arc<Held>),
    /// Nobody knows: it has been pruned, or the folder is another.
    Lost,
}

/// What to do when a commit can't know whether it happened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unclear {
    /// Do it again: twice is the same as once.
    Again,
    /// Say so.
    Tell,
}

#[derive(PartialEq, Eq)]
enum Appended {
    Yes,
    No,
    Unclear,
}

/// When a call gives up.
#[derive(Clone, Copy)]
pub(super) struct Limit(Instant);

impl Limit {
    pub fn after(span: Duration) -> Limit {
        Limit(Instant::now() + span)
    }

    /// # Errors
    /// Where the time is over: `error`.
    fn check(self, error: impl FnOnce() -> StoreError) -> Result<(), StoreError> {
        if Instant::now() < self.0 { Ok(()) } else { Err(error()) }
    }
}

/// One handle on the store's revisions.
pub(super) struct Chain {
    /// The folder that holds the revisions.
    pub path: PathBuf,
    pub clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    boot: String,
    /// The newest revision that this handle has seen, durable: where the next search begins.
    seen: Mutex<Option<Arc<Held>>>,
    /// Commits of one handle take turns: among themselves a race costs a sync each and decides nothing.
    turn: Mutex<()>,
    #[cfg(test)]
    pub hooks: super::tests::Hooks,
}

impl Chain {
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, boot: String) -> Chain {
        Chain {
            path,
            clock,
            entropy,
            boot,
            seen: Mutex::default(),
            turn: Mutex::default(),
            #[cfg(test)]
            hooks: super::tests::Hooks::default(),
        }
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// How many revisions are kept; fewer in tests that want to see processes fall behind.
    fn kept(&self) -> u64 {
        #[cfg(test)]
        if let Some(kept) = self.hooks.kept() {
            return kept;
        }
        KEPT
    }

    fn failed(&self, error: io::Error) -> StoreError {
        StoreError::Unreachable(format!("the embedded store {}: {error}", self.path.display()))
    }

    fn damaged(&self, revision: u64, why: &str) -> StoreError {
        let path = self.path.display();
        StoreError::Unusable(format!(
            "revision {revision} of the embedded store {path} is damaged: {why}. Restore the folder from a copy, or \
             remove it and start afresh: guards then refuse older epochs until an operator says otherwise"
        ))
    }

    /// The newest revision, linearizably: no later one was there when this was called. It is durable.
    pub fn newest(&self, limit: Limit) -> Result<Arc<Held>, StoreError> {
        let mut next = self.seen();
        loop {
            let held = match next.take() {
                Some(held) => held,
                None => match self.find()? {
                    Ok(held) => held,
                    Err((revision, why)) => {
                        limit.check(|| self.damaged(revision, why))?;
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                },
            };
            match self.step(&held)? {
                Step::Newest => {
                    self.remember(&held)?;
                    return Ok(held);
                }
                Step::Next(later) => next = Some(later),
                Step::Lost => limit.check(|| self.too_busy())?,
            }
        }
    }

    fn too_busy(&self) -> StoreError {
        let path = self.path.display();
        StoreError::Unreachable(format!("the embedded store {path} changes faster than this process can follow"))
    }

    fn seen(&self) -> Option<Arc<Held>> {
        self.lock_seen().clone()
    }

    fn lock_seen(&self) -> MutexGuard<'_, Option<Arc<Held>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the newest revision for the next search, and makes sure that it is durable: whoever linked it may not
    /// have come to its sync, and what an answer names must not be gone after a power loss.
    fn remember(&self, held: &Arc<Held>) -> Result<(), StoreError> {
        if self.lock_seen().as_ref().is_some_and(|seen| Arc::ptr_eq(seen, held)) {
            return Ok(());
        }
        held.folder.sync().map_err(|error| self.failed(error))?;
        *self.lock_seen() = Some(held.clone());
        Ok(())
    }

    /// A valid revision, as new as the folder's listing knows; else what was wrong with the newest name, which may
    /// be void, and then goes in a moment.
    #[allow(clippy::type_complexity, reason = "used once")]
    fn find(&self) -> Result<Result<Arc<Held>, (u64, &'static str)>, StoreError> {
        let folder = Folder::open(&self.path).map_err(|error| self.failed(error))?;
        let listing = folder.list().map_err(|error| self.failed(error))?;
        let Some(newest) = listing.revisions.last() else {
            return Ok(Err((0, "it holds no revision")));
        };
        self.verified(&Arc::new(folder), *newest).map(|held| held.ok_or((*newest, "the one before it is not there")))
    }

    /// A revision by its number, where it is valid: its true parent still had its name after it was opened, so it had
    /// not been pruned by then, so its name has never been taken twice.
    fn verified(&self, folder: &Arc<Folder>, revision: u64) -> Result<Option<Arc<Held>>, StoreError> {
        let Some(held) = self.load(folder, revision)? else { return Ok(None) };
        // The first revision came with the folder, and nobody takes its number later.
        let valid = revision == 1
            || self.load(folder, revision - 1)?.is_some_and(|parent| parent.state.id == held.state.parent);
        Ok(valid.then_some(held))
    }

    fn load(&self, folder: &Arc<Folder>, revision: u64) -> Result<Option<Arc<Held>>, StoreError> {
        let Some(file) = folder.revision(revision).map_err(|error| self.failed(error))? else { return Ok(None) };
        let bytes = content(&file).map_err(|error| self.failed(error))?;
        let state = State::decode(&bytes).map_err(|why| self.damaged(revision, &why))?;
        if state.revision != revision {
            return Err(self.damaged(revision, "it is another one's file"));
        }
        Ok(Some(Arc::new(Held { folder: folder.clone(), file, state })))
    }

    /// A valid revision by its number, where it is still kept.
    pub fn at(&self, revision: u64) -> Result<Option<Arc<Held>>, StoreError> {
        match self.seen() {
            Some(held) if held.state.revision == revision => Ok(Some(held)),
            _ => {
                let folder = Folder::open(&self.path).map_err(|error| self.failed(error))?;
                self.verified(&Arc::new(folder), revision)
            }
        }
    }

    /// What comes after a valid revision. The order of the two looks is what makes it right: the next name first, the
    /// own name then. While the own name stands nothing later has been pruned.
    pub fn step(&self, held: &Held) -> Result<Step, StoreError> {
        let next = self.load(&held.folder, held.state.revision + 1)?;
        let stands = self.stands(held).map_err(|error| self.failed(error))?;
        Ok(match next {
            _ if !stands => Step::Lost,
            None => Step::Newest,
            Some(next) if next.state.parent == held.state.id => Step::Next(next),
            Some(_) => Step::Lost,
        })
    }

    /// Whether a revision still has its name, in the folder that the path leads to.
    fn stands(&self, held: &Held) -> io::Result<bool> {
        Ok(held.folder.names(held.state.revision, &held.file)? && held.folder.is_at(&self.path)?)
    }

    /// Whether a look at the store would show something new: cheap enough for an async runtime's thread.
    pub fn has_moved_on(&self, held: &Held) -> io::Result<bool> {
        let due = held.state.first_end(&self.boot).is_some_and(|end| end <= self.clock.now());
        Ok(due || held.folder.has(held.state.revision + 1)? || !self.stands(held)?)
    }

    /// The newest revision, with no lease in it that has ended at the moment that is returned with it.
    pub fn current(&self, limit: Limit) -> Result<(Arc<Held>, Moment), StoreError> {
        loop {
            let held = self.newest(limit)?;
            let now = self.clock.now();
            let Some(reaped) = held.state.reaped(now, &self.boot) else { return Ok((held, now)) };
            if self.append(&held, reaped)? != Appended::Yes {
                self.wait_a_little(limit)?;
            }
        }
    }

    /// Decides on the newest revision, and appends what was decided; where somebody was first, decides afresh.
    pub fn commit<T>(
        &self,
        limit: Limit,
        unclear: Unclear,
        decide: impl Fn(&State, Moment, &str) -> Result<Decision<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (held, now) = self.current(limit)?;
            let (next, answer) = match decide(&held.state, now, &self.boot)? {
                Decision::Keep(answer) => return Ok(answer),
                Decision::Next(next, answer) => (next, answer),
            };
            match self.append(&held, next)? {
                Appended::Yes => return Ok(answer),
                Appended::Unclear if unclear == Unclear::Tell => {
                    return Err(StoreError::Unreachable(format!(
                        "this process stood still while {} other commits were made to the embedded store {}: its own \
                         may have happened or not",
                        self.kept(),
                        self.path.display()
                    )));
                }
                Appended::No | Appended::Unclear => self.wait_a_little(limit)?,
            }
        }
    }

    fn wait_a_little(&self, limit: Limit) -> Result<(), StoreError> {
        limit.check(|| self.too_busy())?;
        std::thread::sleep(Duration::from_millis(3).mul_f64(self.entropy.fraction()));
        Ok(())
    }

    /// Makes `next` the revision after `held`, unless there is one.
    fn append(&self, held: &Held, mut next: State) -> Result<Appended, StoreError> {
        let failed = |error| self.failed(error);
        let folder = &held.folder;
        next.id = format!("{:016x}", self.random());
        let temporary = folder.write_temporary(&format!("{:016x}", self.random()), &next.encode()).map_err(failed)?;
        #[cfg(test)]
        self.hooks.before_link(next.revision);
        if temporary.link(next.revision).map_err(failed)? != Linked::Done {
            return Ok(Appended::No);
        }
        let file = temporary.into_file().map_err(failed)?;
        #[cfg(test)]
        self.hooks.after_link(next.revision);
        folder.sync().map_err(failed)?;
        if !folder.names(held.state.revision, &held.file).map_err(failed)? {
            // Void, or valid and overtaken since: in both cases the name is of no use to anybody any more.
            folder.remove(next.revision).map_err(failed)?;
            return Ok(Appended::Unclear);
        }
        let revision = next.revision;
        *self.lock_seen() = Some(Arc::new(Held { folder: folder.clone(), file, state: next }));
        if let Err(error) = folder.prune(revision, self.kept()) {
            tracing::debug!(path = %self.path.display(), %error, "old revisions of the embedded store stay for now");
        }
        Ok(Appended::Yes)
    }
}

/// Makes the folder of revisions, with the first and empty one in it, where there is none. It comes into being as a
/// whole, by a rename: a process that slept while making it can't put a second first revision into a folder in use.
pub(super) fn create(parent: &Path, path: &Path, tag: u64) -> io::Result<()> {
    if !path.is_dir() {
        let new = parent.join(format!("new-{tag:016x}"));
        let made = first_revision(&new, tag).and_then(|()| std::fs::rename(&new, path));
        if made.is_err() && path.is_dir() {
            // Another process was first.
            let _ = std::fs::remove_dir_all(&new);
        } else {
            made?;
        }
    }
    // Whoever made it may not have come to this yet.
    Folder::open(parent)?.sync()
}

fn first_revision(folder: &Path, tag: u64) -> io::Result<()> {
    std::fs::create_dir(folder)?;
    let folder = Folder::open(folder)?;
    let first = State { revision: 1, id: format!("{tag:016x}"), ..State::default() };
    folder.write_temporary("first", &first.encode())?.link(1)?;
    folder.sync()
}
