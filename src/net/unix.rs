//! Unix sockets by name.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

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
    if is_listened_on(path)? {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has this name"));
        }
        _ => {}
    }
    // Made in a folder that nobody else can enter: until it has its mode, the system's default would let others in.
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = PathBuf::from(private);
    std::fs::remove_dir_all(&private).ok();
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let fresh = private.join("s");
    let made = UnixListener::bind(&fresh).and_then(|listener| {
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        std::fs::rename(&fresh, path)?;
        Ok(listener)
    });
    std::fs::remove_dir_all(&private).ok();
    Ok((made?, Name { path: path.to_owned(), inode: inode(path) }))
}

/// Whether a process listens there, also one that has no time at the moment.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            // Something else has the name, or it is another user's: the next steps say so.
            _ if !path.exists() => Ok(false),
            io::ErrorKind::PermissionDenied => Err(error),
            _ => Ok(false),
        },
    }
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
