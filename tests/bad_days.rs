//! What goes wrong around a process, and what it makes of it.

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use support::ports;
use support::process::{LONG, Launch, eventually};

const SIGTERM: u32 = 15;

/// A guard with everything of its own in `folder`.
fn guard(folder: &Path) -> Launch {
    let listen = ports::free_address().to_string();
    Launch::epochgate("guard")
        .args(["guard", "--listen", &listen, "--upstream", "http://127.0.0.1:9", "--resource", "orders", "--id", "g"])
        .args(["--embedded", "store", "--state-dir", "state"])
        .dir(folder)
}

fn catches(id: u32, signal: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[test]
fn told_to_stop_while_it_starts_it_ends_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("audit");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    // It waits there until somebody reads: as a slow disk under its files would have it wait.
    let mut process = guard(folder.path()).args(["--admin", "127.0.0.1:0", "--audit", "audit"]).start();
    eventually("SIGTERM is caught", LONG, || !process.is_running() || catches(process.id(), SIGTERM));
    process.terminate();
    let _reader = OpenOptions::new().read(true).custom_flags(0o4000).open(&pipe).expect("the pipe, without waiting");
    let exit = process.wait(LONG);
    assert_eq!(exit.code(), Some(0), "{}", process.recent());
}

#[test]
fn a_watch_ends_with_its_reader() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = ports::free_address().to_string();
    let mut process = guard(folder.path()).args(["--admin", &admin]).start();
    process.await_words("admin side listening", LONG);
    let script = format!("{} status --watch --admin {admin} | head -n 1", env!("CARGO_BIN_EXE_epochgate"));
    let watch = Launch::program("sh").args(["-c", &script]).run(LONG);
    assert!(watch.stdout().starts_with("Process: g "), "{}", watch.recent());
}
