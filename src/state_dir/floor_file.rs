//! The floor file: two slots, written in turn.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Identity};
use crate::fence::floor::Memory;
use crate::fence::{Epoch, Resource};

use super::slot::{self, Found, Slot};

/// Why a write of the floor file did not become durable.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk said no. The next write goes to a new file.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The memory lacks a floor that was written before, or lowers it: never written (R5). A bug.
    #[error("refused to lower the floor of {resource} at {target} from epoch {floor}: this is a bug")]
    Lowered {
        /// At which target.
        target: Arc<str>,
        /// Of which resource.
        resource: Resource,
        /// What it would be lowered from.
        floor: Epoch,
    },
    /// The state directory is not the one that this process has locked: removed, moved, or another put in its place.
    #[error(
        "the state directory of {path} was moved, removed or replaced under the running process: put it back, or restart"
    )]
    Moved {
        /// The floor file.
        path: PathBuf,
    },
    /// More than a slot can hold (64 MiB).
    #[error("the memory of {0} bytes is too large for a floor file")]
    TooLarge(usize),
}

/// What is durable after a write. Numbers grow over all files of the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number of what was just written: one slot at least carries it.
    pub sequence: u64,
    /// The highest number such that both slots carry what was written with it, or later.
    pub in_both: u64,
}

/// The floor file of a state directory, open for writing. Holds the directory's lock.
pub struct FloorFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    door: Arc<str>,
    /// The file to write slots to; none after a failure (final for that file), and at first.
    open: Option<Open>,
    sequence: u64,
    /// What may be on disk: no floor of it is ever lowered.
    written: Arc<Memory>,
    lock: Lock,
}

/// The lock of the state directory, and which file it is on.
pub(super) struct Lock {
    pub path: PathBuf,
    pub identity: Identity,
    pub _held: Arc<dyn Send + Sync>,
}

struct Open {
    file: Box<dyn DiskFile>,
    identity: Identity,
    size: usize,
    /// The slot that was written last.
    last: usize,
}

/// What a floor file was found to hold.
pub(super) enum Read {
    /// There is no file.
    Missing,
    /// Both slots are readable; the later one.
    Whole(Slot),
    /// One slot is: a crash while the other was written, or a damaged disk.
    OneSlot(Slot),
    /// None is: the bytes, and why, for people.
    Unreadable(Vec<u8>, String),
}

/// Reads a floor file.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Read> {
    let bytes = match disk.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Missing),
        other => other?,
    };
    Ok(match slot::decode(&bytes) {
        [Found::Good(first), Found::Good(second)] => {
            Read::Whole(if first.sequence > second.sequence { first } else { second })
        }
        [Found::Good(slot), _] | [_, Found::Good(slot)] => Read::OneSlot(slot),
        [Found::Foreign(format), _] | [_, Found::Foreign(format)] => {
            Read::Unreadable(bytes, format!("it has format {format}; this version reads format 1"))
        }
        [Found::Bad, Found::Bad] => {
            let why = format!("neither slot of its {} bytes has a good checksum", bytes.len());
            Read::Unreadable(bytes, why)
        }
    })
}

impl FloorFile {
    /// A writer that goes on after `sequence`. Its first write makes a new file.
    pub(super) fn new(disk: Arc<dyn Disk>, path: PathBuf, door: Arc<str>, sequence: u64, lock: Lock) -> FloorFile {
        FloorFile { disk, path, door, open: None, sequence, written: Arc::default(), lock }
    }

    /// Makes `memory` durable: one write of the slot whose turn it is, or, after a failure and where the slots are too
    /// small or the file is not in its place any more, a whole new file with it in both slots. Blocks.
    ///
    /// # Errors
    /// Then it may or may not be on disk, and what was durable before still is. To be tried again.
    pub fn write(&mut self, memory: &Arc<Memory>) -> Result<Written, WriteError> {
        if let Some((target, resource, floor)) = self.written.first_lowered_in(memory) {
            return Err(WriteError::Lowered { target: target.clone(), resource: resource.clone(), floor });
        }
        // What is written where nobody looks is not remembered. A new file in another's folder would only hide that.
        if self.disk.identity(&self.lock.path).ok() != Some(self.lock.identity) {
            return Err(WriteError::Moved { path: self.path.clone() });
        }
        let body = slot::body(&self.door, memory);
        let size = slot::size_for(&body).ok_or(WriteError::TooLarge(body.len()))?;
        // Also when the write fails: it may be on disk all the same.
        self.written = memory.clone();
        let in_place = |open: &Open| self.disk.identity(&self.path).ok() == Some(open.identity);
        match self.open.take().filter(|open| size <= open.size && in_place(open)) {
            Some(open) => self.write_slot(open, &body),
            None => self.write_file(size, &body),
        }
    }

    /// The file's place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write_slot(&mut self, mut open: Open, body: &[u8]) -> Result<Written, WriteError> {
        let before = self.sequence;
        self.sequence += 1;
        let index = 1 - open.last;
        let bytes = slot::encode(index, open.size, self.sequence, body);
        let path = &self.path;
        let failed = |what| move |source| WriteError::Disk { what, path: path.clone(), source };
        open.file.write_at(&bytes, (index * open.size) as u64).map_err(failed("write to"))?;
        open.file.sync().map_err(failed("sync"))?;
        self.open = Some(Open { last: index, ..open });
        Ok(Written { sequence: self.sequence, in_both: before })
    }

    fn write_file(&mut self, size: usize, body: &[u8]) -> Result<Written, WriteError> {
        let mut bytes = vec![0; 2 * size];
        for index in 0..2 {
            self.sequence += 1;
            let slot = slot::encode(index, size, self.sequence, body);
            bytes[index * size..][..slot.len()].copy_from_slice(&slot);
        }
        let file = replace(self.disk.as_ref(), &self.path, &bytes)?;
        let failed = |source| WriteError::Disk { what: "look at", path: self.path.clone(), source };
        let identity = self.disk.identity(&self.path).map_err(failed)?;
        self.open = Some(Open { file, identity, size, last: 1 });
        Ok(Written { sequence: self.sequence, in_both: self.sequence })
    }
}

/// Puts a new file with this content in the place of the one at `path`, durably: a crash leaves the one or the other.
pub(super) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<Box<dyn DiskFile>, WriteError> {
    let temporary = path.with_extension("new");
    let failed = |what| move |source| WriteError::Disk { what, path: path.into(), source };
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("make room for")(error)),
        _ => {}
    }
    let mut file = disk.create(&temporary).map_err(failed("create a new file for"))?;
    file.write_at(bytes, 0).map_err(failed("write a new file for"))?;
    file.sync().map_err(failed("sync a new file for"))?;
    disk.rename(&temporary, path).map_err(failed("replace"))?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(failed("sync the folder of"))?;
    Ok(file)
}
