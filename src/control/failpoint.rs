//! Where the tests kill the process, to see what a start after it makes of what it left behind.

/// Kills the process here if the tests want it.
#[cfg(feature = "danger-test-switches")]
pub(super) fn failpoint(name: &str) {
    if std::env::var("EPOCHGATE_DANGER_FAILPOINT").is_ok_and(|wanted| wanted == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(feature = "danger-test-switches"))]
pub(super) fn failpoint(_name: &str) {}
