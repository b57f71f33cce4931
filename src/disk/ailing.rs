//! The disk of this host, ailing where a test says so while the process runs: what a real process makes of a disk that
//! fails cannot be shown with a real disk.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Disk, DiskFile, HostDisk, Identity, Locked};

/// The host's disk, with the complaint that a file names at the moment of each call:
///
/// | words of the file | what happens |
/// |---|---|
/// | `write` | writes fail, half done |
/// | `sync` | what was written is there, and to sync it fails |
/// | `create` | no new file can be made |
/// | `rename` | no name can be changed |
/// | `slow=250` | each of these takes so many milliseconds longer |
///
/// Where there is no such file, nothing ails it.
#[derive(Clone, Debug)]
pub struct AilingDisk {
    words: PathBuf,
}

impl AilingDisk {
    /// The disk, and the file that says what ails it: `EPOCHGATE_DANGER_DISK`.
    pub fn told_by(words: PathBuf) -> AilingDisk {
        AilingDisk { words }
    }

    fn suffers(&self, complaint: &str) -> io::Result<()> {
        let words = std::fs::read_to_string(&self.words).unwrap_or_default();
        for word in words.split_whitespace() {
            if let Some(millis) = word.strip_prefix("slow=").and_then(|millis| millis.parse().ok()) {
                std::thread::sleep(Duration::from_millis(millis));
            } else if word == complaint {
                return Err(io::Error::other(format!("a test makes every {complaint} fail")));
            }
        }
        Ok(())
    }
}

impl Disk for AilingDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        HostDisk.make_dir(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        HostDisk.read(path)
    }

    fn identity(&self, path: &Path) -> io::Result<Identity> {
        HostDisk.identity(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.suffers("create")?;
        Ok(Box::new(AilingFile { file: HostDisk.create(path)?, disk: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.suffers("rename")?;
        HostDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        HostDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.suffers("sync")?;
        HostDisk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Locked> {
        HostDisk.lock(path)
    }
}

struct AilingFile {
    file: Box<dyn DiskFile>,
    disk: AilingDisk,
}

impl DiskFile for AilingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let suffers = self.disk.suffers("write");
        if suffers.is_err() {
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
        }
        suffers.and_then(|()| self.file.write_at(bytes, offset))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.suffers("sync")?;
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ails_while_the_file_says_so() {
        let root = tempfile::tempdir().expect("a folder");
        let words = root.path().join("words");
        let disk = AilingDisk::told_by(words.clone());
        let mut file = disk.create(&root.path().join("one")).expect("nothing ails it");
        file.write_at(b"abcd", 0).expect("nothing ails it");
        std::fs::write(&words, "write sync").expect("written");
        assert!(file.write_at(b"wxyz", 0).is_err());
        assert!(file.sync().is_err());
        assert_eq!(disk.read(&root.path().join("one")).expect("there"), b"wxcd");
        std::fs::write(&words, "create rename slow=1").expect("written");
        assert!(disk.create(&root.path().join("two")).is_err());
        assert!(disk.rename(&root.path().join("one"), &root.path().join("two")).is_err());
        file.write_at(b"wxyz", 0).expect("only slow");
        std::fs::remove_file(&words).expect("removed");
        file.sync().expect("nothing ails it");
    }
}
