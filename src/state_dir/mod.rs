//! The state directory: what a door remembers over a restart (DESIGN 3.3), kept by one process.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | the lock of the process that uses it, and its id |
//! | `door` | the door's id, made at first use: `<id>-<8 hex>` |
//! | `floors` | every floor, in two slots ([`FloorFile`]) |
//! | `floors.unreadable-<8 hex>` | a floor file that could not be read, kept aside by `--adopt-floor` |
//!
//! What [`StateDir::open`] returns is durable in both slots of the file: a slot that was read well may lie in the page
//! cache only, where its writer was killed before the sync, so opening writes a new file with what it read. At first
//! use `floors` comes before `door`, so that a `door` without `floors` always means that floors were lost.

mod floor_file;
mod floor_writer;
pub(crate) mod slot;

#[cfg(test)]
mod crash_tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Entropy;
use crate::disk::{Disk, Locked};
use crate::fence::WriterId;
use crate::fence::floor::Memory;

pub use floor_file::{FloorFile, WriteError, Written};
use floor_file::{Lock, Read, replace};
pub use floor_writer::{FloorEvent, FloorWriter};

/// A state directory, locked by this process for as long as this value or its floor file lives.
pub struct StateDir {
    path: PathBuf,
    door: Arc<str>,
    file: FloorFile,
}

/// How a state directory was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Empty: a new door. Nothing is remembered.
    Fresh,
    /// As it was left. Whether a resource has residue, its record says.
    Known,
    /// One slot could not be read, as after a crash: the other one counts, and nothing is clean.
    OneSlot,
    /// Taken over by `--adopt-floor`: another door's floors, or none where they could not be read. Nothing is clean.
    Adopted,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk said no.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "the state directory {path} is in use by {}: give each process its own with --state-dir, or stop the other",
        .pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process's id, where it could be read.
        pid: Option<u32>,
    },
    /// The floors are another door's.
    #[error(
        "{path} holds the floors of door {found}, and this directory belongs to {}: if it was moved here on purpose, \
         start once with --adopt-floor, which takes its floors over and waits for its residue",
        .door.as_deref().unwrap_or("no door yet")
    )]
    OtherDoor {
        /// The floor file.
        path: PathBuf,
        /// Whose it is.
        found: Arc<str>,
        /// Whose the directory is.
        door: Option<Arc<str>>,
    },
    /// The floors, or the door's id, are there and cannot be read, or they are gone.
    #[error(
        "{path} cannot be used: {why}. Start once with --adopt-floor, which keeps it aside, takes the floors from the \
         coordinator and waits for residue; an older copy of it is no help, it would admit what is over"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl StateError {
    /// Whether it stays as it is until somebody acts (exit 78), unlike a disk or another process that may yet give
    /// way (exit 69).
    pub fn needs_an_operator(&self) -> bool {
        matches!(self, StateError::OtherDoor { .. } | StateError::Unreadable { .. })
    }
}

impl From<WriteError> for StateError {
    fn from(error: WriteError) -> StateError {
        match error {
            WriteError::Disk { what, path, source } => StateError::Disk { what, path, source },
            other => StateError::Disk { what: "write", path: "floors".into(), source: io::Error::other(other) },
        }
    }
}

impl StateDir {
    /// Opens the directory, or makes it, and returns what is remembered, durable in both slots. Blocks.
    ///
    /// `adopt_floor` takes over another door's floors, and starts without floors where they cannot be read; without
    /// it both are errors.
    ///
    /// # Errors
    /// [`StateError`]; the directory is then as it was, but for the lock file.
    pub fn open(
        path: &Path,
        id: &WriterId,
        disk: Arc<dyn Disk>,
        entropy: &dyn Entropy,
        adopt_floor: bool,
    ) -> Result<(StateDir, Memory, Start), StateError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Disk { what, path, source }
        };
        disk.make_dir(path).map_err(failed("create the state directory", path))?;
        let lock_path = path.join("lock");
        let held = match disk.lock(&lock_path).map_err(failed("lock the state directory", path))? {
            Locked::Ours(lock) => Arc::<dyn Send + Sync>::from(lock),
            Locked::Held(pid) => return Err(StateError::InUse { path: path.into(), pid }),
        };
        let identity = disk.identity(&lock_path).map_err(failed("look at", &lock_path))?;
        let lock = Lock { path: lock_path, identity, _held: held };
        let (door_path, floors_path) = (path.join("door"), path.join("floors"));
        let door = match read_door(disk.as_ref(), &door_path).map_err(failed("read", &door_path))? {
            Err(why) if !adopt_floor => return Err(StateError::Unreadable { path: door_path, why }),
            door => door.unwrap_or(None),
        };
        let read = floor_file::read(disk.as_ref(), &floors_path).map_err(failed("read", &floors_path))?;
        let mut found = settle(door, read, &floors_path, adopt_floor)?;
        if found.start != Start::Known {
            found.memory.distrust();
        }
        if found.start == Start::Adopted {
            // Another door's floors: nothing says that a record of this one ever stood beside them.
            found.memory.leave_all();
        }
        if let Some(bytes) = found.unreadable {
            // A copy: while it is made, the file stays in its place, or a crash here would look like a first start.
            replace(disk.as_ref(), &path.join(format!("floors.unreadable-{}", hex(entropy))), &bytes)?;
        }
        let (door, known) = match found.door {
            Some(door) => (door, found.door_known),
            None => (format!("{id}-{}", hex(entropy)).into(), false),
        };
        let mut file = FloorFile::new(disk.clone(), floors_path, door.clone(), found.sequence, lock);
        file.write(&Arc::new(found.memory.clone()))?;
        if !known {
            replace(disk.as_ref(), &door_path, format!("{door}\n").as_bytes())?;
        }
        Ok((StateDir { path: path.into(), door, file }, found.memory, found.start))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The door's id: the same for as long as the directory lives.
    pub fn door(&self) -> &Arc<str> {
        &self.door
    }

    /// The floor file, which keeps the directory locked.
    pub fn into_floor_file(self) -> FloorFile {
        self.file
    }
}

/// What the files of a directory come to.
struct Settled {
    door: Option<Arc<str>>,
    /// Whether the file `door` says so already.
    door_known: bool,
    memory: Memory,
    sequence: u64,
    start: Start,
    /// The content of a floor file that could not be read, to be kept aside.
    unreadable: Option<Vec<u8>>,
}

fn settle(door: Option<Arc<str>>, read: Read, floors: &Path, adopt: bool) -> Result<Settled, StateError> {
    let door_known = door.is_some();
    let without_floors = |start, unreadable| {
        let memory = Memory { forgotten: start == Start::Adopted, ..Memory::default() };
        Settled { door: door.clone(), door_known, memory, sequence: 0, start, unreadable }
    };
    let (slot, start) = match read {
        Read::Missing if !door_known => return Ok(without_floors(Start::Fresh, None)),
        Read::Missing if adopt => return Ok(without_floors(Start::Adopted, None)),
        Read::Missing => {
            return Err(StateError::Unreadable { path: floors.into(), why: "it is gone, and its door is not".into() });
        }
        Read::Unreadable(bytes, _) if adopt => return Ok(without_floors(Start::Adopted, Some(bytes))),
        Read::Unreadable(_, why) => return Err(StateError::Unreadable { path: floors.into(), why }),
        Read::Whole(slot) => (slot, Start::Known),
        Read::OneSlot(slot) => (slot, Start::OneSlot),
    };
    let found = slot.content.door;
    // A first start that was killed before it wrote `door` leaves a file without records.
    let unfinished = !door_known && slot.content.memory == Memory::default();
    let own = door.as_ref() == Some(&found) || unfinished;
    if !own && !adopt {
        return Err(StateError::OtherDoor { path: floors.into(), found, door });
    }
    let start = match start {
        _ if unfinished => Start::Fresh,
        _ if !own => Start::Adopted,
        start => start,
    };
    let door = door.or(Some(found));
    Ok(Settled { door, door_known, memory: slot.content.memory, sequence: slot.sequence, start, unreadable: None })
}

/// The door's id, `None` where there is none yet, or why it is none.
fn read_door(disk: &dyn Disk, path: &Path) -> io::Result<Result<Option<Arc<str>>, String>> {
    let bytes = match disk.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        other => other?,
    };
    let door = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n')).filter(|text| is_door(text));
    Ok(match door {
        Some(door) => Ok(Some(door.into())),
        None => Err("it does not hold a door's id (<id>-<8 hex>)".into()),
    })
}

fn is_door(text: &str) -> bool {
    let Some((id, random)) = text.rsplit_once('-') else { return false };
    let is_hex = random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    id.parse::<WriterId>().is_ok() && random.len() == 8 && is_hex
}

fn hex(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    format!("{:08x}", u32::from_be_bytes(bytes))
}
