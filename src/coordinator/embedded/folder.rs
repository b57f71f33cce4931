//! The folder of revisions: its names, and nothing about what they mean.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// How many revisions are kept. At least two: the newest is believed for the sake of the one before it.
pub(super) const KEPT: u64 = 64;
/// A temporary file this much older than the newest revision was left behind. Where it was not, its owner finds it
/// gone, and begins again.
const ABANDONED: i64 = 60;

/// An open folder. It stays this one where its path comes to lead to another.
pub(super) struct Folder {
    dir: OwnedFd,
}

/// A revision's file, not yet under its number. Its temporary name goes when this is dropped.
pub(super) struct Temporary<'a> {
    folder: &'a Folder,
    name: String,
    file: File,
}

/// How taking a number went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    /// The file has the number's name.
    Done,
    /// Another has it.
    Taken,
    /// The temporary file or the folder is gone.
    Gone,
}

/// The names in a folder.
#[derive(Default)]
pub(super) struct Listing {
    /// The revisions, in ascending order.
    pub revisions: Vec<u64>,
    temporaries: Vec<String>,
}

fn name_of(revision: u64) -> String {
    format!("{revision:020}")
}

impl Folder {
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder { dir: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Whether `path` leads to this very folder.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let here = rustix::fs::fstat(&self.dir)?;
        match rustix::fs::stat(path) {
            Ok(there) => Ok((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The file of a revision; `None` where its name is not there.
    pub fn revision(&self, revision: u64) -> io::Result<Option<File>> {
        match rustix::fs::openat(&self.dir, name_of(revision), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is a file of that revision.
    pub fn has(&self, revision: u64) -> io::Result<bool> {
        match rustix::fs::statat(&self.dir, name_of(revision), AtFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a revision's name is the name of this very file. While `file` is open no other gets its inode number.
    pub fn names(&self, revision: u64, file: &File) -> io::Result<bool> {
        let held = rustix::fs::fstat(file)?;
        match rustix::fs::statat(&self.dir, name_of(revision), AtFlags::empty()) {
            Ok(named) => Ok((held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// All names: at least those that were there from the beginning of the call to its end.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            match name.parse() {
                Ok(revision) if name == name_of(revision) => listing.revisions.push(revision),
                _ if name.starts_with("tmp-") => listing.temporaries.push(name.into()),
                _ => {}
            }
        }
        listing.revisions.sort_unstable();
        Ok(listing)
    }

    /// Writes a temporary file, durably. `tag` is random.
    pub fn write_temporary(&self, tag: &str, bytes: &[u8]) -> io::Result<Temporary<'_>> {
        let name = format!("tmp-{tag}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH;
        let file = rustix::fs::openat(&self.dir, &name, flags, mode)?;
        let mut temporary = Temporary { folder: self, name, file: file.into() };
        temporary.file.write_all(bytes)?;
        temporary.file.sync_all()?;
        Ok(temporary)
    }

    /// Makes the names durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir)?)
    }

    /// Removes a revision's name, where it is there.
    pub fn remove(&self, revision: u64) -> io::Result<()> {
        self.remove_name(&name_of(revision))
    }

    fn remove_name(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is too old to be kept when `newest` stands, and what crashes left behind. A name goes only after
    /// the one before it: that is what void files are told by (see the module's documentation).
    pub fn prune(&self, newest: u64, kept: u64) -> io::Result<()> {
        let listing = self.list()?;
        for revision in listing.revisions.into_iter().take_while(|revision| revision + kept <= newest) {
            if self.has(revision.saturating_sub(1))? {
                // The listing missed it. The next one will not.
                break;
            }
            self.remove(revision)?;
        }
        if listing.temporaries.is_empty() {
            return Ok(());
        }
        // Both times are the file system's own, so that nobody's clock matters.
        let now = rustix::fs::statat(&self.dir, name_of(newest), AtFlags::empty())?.st_mtime;
        for name in listing.temporaries {
            match rustix::fs::statat(&self.dir, &name, AtFlags::empty()) {
                Ok(found) if found.st_mtime.saturating_add(ABANDONED) < now => self.remove_name(&name)?,
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Temporary<'_> {
    /// Gives the file a revision's name, exclusively.
    pub fn link(&self, revision: u64) -> io::Result<Linked> {
        let dir = self.folder.dir.as_fd();
        match rustix::fs::linkat(dir, &self.name, dir, name_of(revision), AtFlags::empty()) {
            Ok(()) => Ok(Linked::Done),
            Err(Errno::EXIST) => Ok(Linked::Taken),
            Err(Errno::NOENT) => Ok(Linked::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// The file without its temporary name.
    pub fn into_file(self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // What can't be removed now is removed by a later prune.
        let _ = self.folder.remove_name(&self.name);
    }
}

/// The whole content of a revision's file.
pub(super) fn content(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
