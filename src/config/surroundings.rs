//! What defaults depend on: the host and the user.

use std::path::{Path, PathBuf};

use crate::fence::WriterId;

/// What the process finds around itself.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The host's name.
    pub host_name: String,
    /// `$STATE_DIRECTORY`, as systemd sets it: one folder or several with `:` between.
    pub state_directory: Option<PathBuf>,
    /// Whether the process runs as root.
    pub root: bool,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// How many threads can run at the same time.
    pub cores: usize,
}

impl Surroundings {
    /// Those of this process.
    pub fn here() -> Surroundings {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Surroundings {
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            state_directory: folder("STATE_DIRECTORY"),
            root: rustix::process::geteuid().is_root(),
            home: folder("HOME"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }

    /// The host's name as an id, where anything of it can be one.
    pub(super) fn id(&self) -> Option<WriterId> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = self.host_name.chars().map(plain).collect();
        let name = name.trim_start_matches(['.', '_', '-']);
        name[..name.len().min(63)].parse().ok()
    }

    pub(super) fn state_dir(&self) -> Option<PathBuf> {
        if let Some(folders) = self.state_directory.as_ref() {
            let text = folders.to_string_lossy();
            return text.split(':').find(|folder| !folder.is_empty()).map(PathBuf::from);
        }
        if self.root {
            return Some(Path::new("/var/lib/epochgate").into());
        }
        self.home.as_ref().map(|home| home.join(".local/state/epochgate"))
    }

    pub(super) fn workers(&self) -> usize {
        self.cores.clamp(1, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host_name: &str) -> Surroundings {
        Surroundings { host_name: host_name.into(), state_directory: None, root: false, home: None, cores: 8 }
    }

    #[test]
    fn a_host_name_becomes_an_id() {
        for (name, id) in [("db-1.example", "db-1.example"), ("my host", "my-host"), ("_x", "x"), ("é1", "1")] {
            assert_eq!(at(name).id().expect(name).as_str(), id);
        }
        assert_eq!(at(&"h".repeat(80)).id().expect("an id").as_str().len(), 63);
        assert_eq!(at("").id(), None);
        assert_eq!(at("---").id(), None);
    }

    #[test]
    fn the_state_directory_depends_on_who_runs() {
        let home = Surroundings { home: Some("/users/u".into()), ..at("h") };
        assert_eq!(home.state_dir(), Some("/users/u/.local/state/epochgate".into()));
        let root = Surroundings { root: true, ..home.clone() };
        assert_eq!(root.state_dir(), Some("/var/lib/epochgate".into()));
        let systemd = Surroundings { state_directory: Some("/var/lib/a:/var/lib/b".into()), ..root };
        assert_eq!(systemd.state_dir(), Some("/var/lib/a".into()));
        assert_eq!(at("h").state_dir(), None);
        assert_eq!((at("h").workers(), Surroundings { cores: 2, ..at("h") }.workers()), (4, 2));
    }
}
