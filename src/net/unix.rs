//! Unix sockets by name.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The name of a socket that this process listens on; dropping it takes the name away, unless another has it by now.
#[derive(Debug)]
pub struct Name {
    path: PathBuf,
    inode: Option<u64>,
}

impl Drop for Name {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// Listens at `path`, which only those can open whom `mode` lets, from the moment that it has its name. What a dead
/// process left under the name is replaced.
///
/// # Errors
/// Where another process listens there, where something else has the name, or it cannot be written.
pub fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Name)> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has this name"));
        }
        _ => {}
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    std::fs::remove_file(&fresh).ok();
    let listener = UnixListener::bind(&fresh)?;
    let named = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&fresh, path))
        .and_then(|()| listener.set_nonblocking(true));
    if let Err(error) = named {
        std::fs::remove_file(&fresh).ok();
        return Err(error);
    }
    Ok((listener, Name { path: path.to_owned(), inode: inode(path) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_given_back_only_by_who_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        let (listener, name) = bind(&path, 0o600).expect("free");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(bind(&path, 0o600).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let (_listener, newer) = bind(&path, 0o660).expect("its owner is gone");
        drop(name);
        assert!(path.exists(), "the name is the newer one's");
        drop(newer);
        assert!(!path.exists());
        std::fs::write(&path, "a file").expect("written");
        assert_eq!(bind(&path, 0o600).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
    }
}
