//! Programs that refuse to be run by root (PostgreSQL, pgbouncer): where the tests are root, they run as nobody.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::process::{Launch, program};

/// Debian's nobody and nogroup, which need not be in any file.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A launch of a program that refuses root.
pub fn launch(name: &str) -> Launch {
    let launch = Launch::program(name);
    if !is_root() {
        return launch;
    }
    let id = NOBODY.to_string();
    let mut how = vec!["--reuid", id.as_str(), "--regid", id.as_str(), "--clear-groups"];
    // A checkout below /root is closed to nobody: then the program keeps the right to look into it, also where it
    // asks beforehand whether it may (`access`, which else answers as for a user without rights).
    if !all_may_reach(&program(name)) {
        how.extend(["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]);
        how.extend(["--securebits", "+no_setuid_fixup"]);
    }
    launch.under("setpriv", &how)
}

/// Gives a folder and all in it to the user that [`launch`] runs programs as.
pub fn give(folder: &Path) {
    if !is_root() {
        return;
    }
    chown(folder, Some(NOBODY), Some(NOBODY)).expect("root may give everything away");
    for entry in fs::read_dir(folder).expect("it is a folder").filter_map(Result::ok) {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            give(&path);
        } else {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may give everything away");
        }
    }
}

/// Whether every folder on the way to a file lets everybody through.
fn all_may_reach(file: &Path) -> bool {
    let open = |folder: &Path| folder.metadata().is_ok_and(|about| about.permissions().mode() & 0o001 != 0);
    file.ancestors().skip(1).all(open)
}
