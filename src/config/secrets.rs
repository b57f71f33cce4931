//! Which files hold secrets, and reading them. Nothing secret stands in the configuration itself: it names files, which are read where
//! they are used and never shown.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::resolved::{Config, CoordinatorKind};

/// One file with a secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// The key that names it, such as `coordinator.etcd.tls.key`.
    pub key: &'static str,
    /// Which.
    pub path: PathBuf,
}

/// Every file of a configuration that holds a password or a key.
pub fn files(config: &Config) -> Vec<SecretFile> {
    let mut files = Vec::new();
    if let CoordinatorKind::Etcd(etcd) = &config.coordinator.kind {
        let password = etcd.user.as_ref().map(|(_, path)| ("coordinator.etcd.user.password_file", path));
        let key = etcd.tls.as_ref().and_then(|tls| tls.key.as_ref()).map(|path| ("coordinator.etcd.tls.key", path));
        let named = [password, key].into_iter().flatten();
        files.extend(named.map(|(key, path)| SecretFile { key, path: path.clone() }));
    }
    for listener in &config.listeners {
        let own = listener.tls.as_ref().map(|tls| ("tls.key", &tls.pair.key));
        let pair = listener.upstream.tls.as_ref().and_then(|tls| tls.pair.as_ref());
        let password = listener.upstream.control.as_ref().and_then(|control| control.password_file.as_ref());
        let password = password.map(|path| ("upstream.control.password_file", path));
        let named = own.into_iter().chain(pair.map(|pair| ("upstream.tls.key", &pair.key))).chain(password);
        files.extend(named.map(|(key, path)| SecretFile { key, path: path.clone() }));
    }
    files
}

/// The password in the file that `key` names, without its line's end. Read at each login, so that one that was replaced is used
/// from the next on, and overwritten once it has been handed over. Blocks on the disk.
///
/// # Errors
/// Where there is none; the text names the key and the file, and nothing of what is in it.
pub fn password(key: &str, file: &Path) -> Result<Zeroizing<String>, String> {
    let file_of = || format!("{key} {}", file.display());
    let bytes =
        std::fs::read(file).map(Zeroizing::new).map_err(|error| format!("cannot read {}: {error}", file_of()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8", file_of()))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let password = line.strip_suffix('\r').unwrap_or(line);
    if password.is_empty() { Err(format!("{} is empty", file_of())) } else { Ok(Zeroizing::new(password.to_owned())) }
}

/// Whether every user of this host may read a file, as far as the file itself says. (A group may: that is how a secret
/// is given to a process that runs as a user of its own.)
///
/// # Errors
/// Where it cannot be looked at.
pub fn is_open_to_all(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o004 != 0)
}

/// Warns in the log of every file with a secret that all users of this host may read.
pub fn warn_of_open(config: &Config) {
    for file in files(config) {
        // One that is not there is said by whoever needs it.
        if is_open_to_all(&file.path).unwrap_or(false) {
            let (key, path) = (file.key, file.path.display());
            tracing::warn!(key, %path, "every user of this host may read this secret: chmod o= it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_where_others_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "x").expect("written");
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its owner may");
            assert_eq!(is_open_to_all(&path).expect("it is there"), open, "{mode:o}");
        }
        assert!(is_open_to_all(&folder.path().join("none")).is_err());
    }
}
