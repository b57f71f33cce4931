//! Where the tests kill the process, to see what a start after it makes of what it left behind.

use crate::fence::Epoch;

/// Kills the process here if the tests want it: `EPOCHGATE_DANGER_FAILPOINT=fenced@2` does so when epoch 2 has been
/// fenced.
#[cfg(feature = "danger-test-switches")]
pub(super) fn failpoint(name: &str, epoch: Epoch) {
    if std::env::var("EPOCHGATE_DANGER_FAILPOINT").is_ok_and(|wanted| wanted == format!("{name}@{epoch}")) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // Nothing is done after it, whatever thread the signal takes first.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(feature = "danger-test-switches"))]
pub(super) fn failpoint(_name: &str, _epoch: Epoch) {}
