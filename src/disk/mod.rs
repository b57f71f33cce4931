//! The disk as the floor file sees it: a few operations behind a trait, so that tests and the simulation can fail,
//! tear and lose each of them.
//!
//! What is promised of each operation is what a crash (power loss included) leaves: a write stands after the file's
//! `sync`, a name after the folder's `sync_dir`, and before that each may be there, in part, or not at all.

#[cfg(feature = "danger-test-switches")]
mod ailing;
mod faulty;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;

#[cfg(feature = "danger-test-switches")]
pub use ailing::AilingDisk;
pub use faulty::{Fault, FaultyDisk};

/// Where files are kept. Every call blocks.
pub trait Disk: Send + Sync + 'static {
    /// Creates a folder, for this user only, with those above it, durably. No error where it is there already.
    ///
    /// # Errors
    /// As the system says.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is none; else as the system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Creates a file, for this user only, empty and open for writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where there is one of that name; else as the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same folder, in the place of one that has it already.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is none; else as the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable: those created, renamed and removed.
    ///
    /// # Errors
    /// As the system says; the names may be durable or not, then.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// What tells the file at `path` from any other that may come to stand there. Disks on which nothing is moved about
    /// may leave it out.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is none; else as the system says.
    fn identity(&self, _path: &Path) -> io::Result<Identity> {
        Ok(Identity::default())
    }

    /// Locks a file (created where there is none) for this process, until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// As the system says. That another has it is no error: [`Locked::Held`].
    fn lock(&self, path: &Path) -> io::Result<Locked>;
}

/// See [`Disk::identity`]: device and inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity(u64, u64);

/// An open file. Every call blocks.
pub trait DiskFile: Send {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the system says; any part may have been written, then.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable, the file's length included.
    ///
    /// # Errors
    /// As the system says. The kernel may drop what it could not write and say yes the next time: after an error
    /// nothing about this file is known, and it is not to be used any more.
    fn sync(&mut self) -> io::Result<()>;
}

/// How locking went.
pub enum Locked {
    /// This process has it for as long as this value lives.
    Ours(Box<dyn Send + Sync>),
    /// Another process has it: its id, where that could be read.
    Held(Option<u32>),
}

/// The disk of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.make_dir(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(HostFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        let found = fs::metadata(path)?;
        Ok(Identity(found.dev(), found.ino()))
    }

    fn lock(&self, path: &Path) -> io::Result<Locked> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who holds it is for the message only.
                let _ = file.read_to_string(&mut holder);
                return Ok(Locked::Held(holder.trim().parse().ok()));
            }
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Locked::Ours(Box::new(file)))
    }
}

struct HostFile(File);

impl DiskFile for HostFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_disk_does_what_the_trait_says() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("a/b");
        HostDisk.make_dir(&dir).expect("created");
        HostDisk.make_dir(&dir).expect("there already");
        let (one, two) = (dir.join("one"), dir.join("two"));
        let mut file = HostDisk.create(&one).expect("created");
        file.write_at(b"abc", 2).expect("written");
        file.sync().expect("synced");
        assert_eq!(HostDisk.create(&one).err().map(|e| e.kind()), Some(io::ErrorKind::AlreadyExists));
        HostDisk.rename(&one, &two).expect("renamed");
        HostDisk.sync_dir(&dir).expect("synced");
        assert_eq!(HostDisk.read(&two).expect("there"), b"\0\0abc");
        assert_eq!(HostDisk.read(&one).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
        HostDisk.remove(&two).expect("removed");
        assert_eq!(HostDisk.remove(&two).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_lock_names_its_holder_and_goes_with_its_value() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("lock");
        let first = HostDisk.lock(&path).expect("a lock");
        assert!(matches!(first, Locked::Ours(_)));
        match HostDisk.lock(&path).expect("an answer") {
            Locked::Held(pid) => assert_eq!(pid, Some(std::process::id())),
            Locked::Ours(_) => panic!("locked twice"),
        }
        drop(first);
        assert!(matches!(HostDisk.lock(&path).expect("a lock"), Locked::Ours(_)));
    }
}
