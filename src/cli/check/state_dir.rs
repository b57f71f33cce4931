//! Whether the state directory can be used.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::report::{Category, Finding};
use crate::config::resolved::{Config, Role};
use crate::disk::{Disk as _, HostDisk, Locked};

/// Writes nothing that stays but the lock file, and reads no floors: what is in them, only a start can judge.
pub fn look(config: &Config) -> Category {
    let mut category = Category::new("state directory");
    let guards = config.listeners.iter().any(|listener| matches!(listener.role, Role::Guard(_)));
    category.add(one(&config.state_dir, guards));
    category
}

fn one(path: &Path, guards: bool) -> Finding {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Finding::bad(format!("{} is no directory", path.display()), ELSEWHERE),
        Ok(_) => there(path, guards),
        // A link that leads nowhere is no missing directory: none can be made in its place.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            not_there(path, guards)
        }
        Err(error) => Finding::bad(format!("{} cannot be used: {error}", path.display()), ELSEWHERE),
    }
}

/// What a directory that is missing means depends on whether a guard has to remember something in it.
fn not_there(path: &Path, guards: bool) -> Finding {
    let (shown, above) = (path.display(), nearest(path));
    if rustix::fs::access(above, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err() {
        return Finding::bad(format!("{shown} cannot be made: {} cannot be written", above.display()), ELSEWHERE);
    }
    let made = format!("{shown} is made at the first start");
    if guards {
        Finding::good_with(made, "it has to outlive the process: a guard that finds it empty is a new door")
    } else {
        Finding::good(made)
    }
}

const ELSEWHERE: &str = "name another with --state-dir, or allow this one to be written";

fn there(path: &Path, guards: bool) -> Finding {
    let shown = path.display();
    if let Err(error) = write_in(path) {
        return Finding::bad(format!("{shown} cannot be written: {error}"), ELSEWHERE);
    }
    match HostDisk.lock(&path.join("lock")) {
        Ok(Locked::Ours(_)) => {
            let known = path.join("floors").exists();
            let what = if known { "; it remembers floors of an earlier start" } else { "" };
            Finding::good(format!("{shown} can be written, and no process uses it{}", if guards { what } else { "" }))
        }
        Ok(Locked::Held(pid)) => Finding::warning(
            format!("{shown} is in use by {}", pid.map_or("another process".into(), |pid| format!("process {pid}"))),
            "right where that is the process of this configuration; a second one needs a directory of its own, and \
             would be refused (exit 69)",
        ),
        Err(error) => Finding::bad(format!("{shown} cannot be locked: {error}"), ELSEWHERE),
    }
}

/// Makes a file and takes it away again.
fn write_in(path: &Path) -> io::Result<()> {
    let probe = path.join(format!(".epochgate-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(&probe)
}

/// The nearest folder above a path, or the path itself, that exists.
pub fn nearest(path: &Path) -> &Path {
    let existing = path.ancestors().find(|above| above.exists());
    // A relative path of one part has the empty path above it.
    existing.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn what_is_there_is_locked_and_let_go_again() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(there(folder.path(), true).verdict(), Verdict::Good);
        assert_eq!(there(folder.path(), true).verdict(), Verdict::Good, "the first look let go of it");
        let lock = HostDisk.lock(&folder.path().join("lock")).expect("a lock");
        let held = there(folder.path(), true);
        assert_eq!(held.verdict(), Verdict::Warning, "{}", held.words());
        drop(lock);
    }

    #[test]
    fn what_is_not_there_is_judged_by_what_is_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b");
        assert_eq!(not_there(&path, true).verdict(), Verdict::Good);
        assert!(!path.exists(), "looking made it");
        assert_eq!(nearest(&path), folder.path());
        assert_eq!(nearest(Path::new("not/there")), Path::new("."));
    }

    #[test]
    fn what_no_start_could_make_or_use_is_bad() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, circle, nowhere) =
            (folder.path().join("file"), folder.path().join("circle"), folder.path().join("to"));
        fs::write(&file, "x").expect("a file");
        std::os::unix::fs::symlink(&circle, &circle).expect("a link");
        std::os::unix::fs::symlink("not/there", &nowhere).expect("a link");
        for path in [file.clone(), file.join("below"), circle, nowhere, folder.path().join("x".repeat(300))] {
            let found = one(&path, true);
            assert_eq!(found.verdict(), Verdict::Bad, "{}: {}", path.display(), found.words());
        }
        assert_eq!(one(&folder.path().join("a/b"), true).verdict(), Verdict::Good);
        assert_eq!(one(folder.path(), true).verdict(), Verdict::Good);
    }
}
