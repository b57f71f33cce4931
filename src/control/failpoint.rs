//! Where the tests kill the process, to see what a start after it makes of what it left behind.

use crate::fence::Epoch;

/// Kills the process here if the tests want it: `EPOCHGATE_DANGER_FAILPOINT=fenced@2` does so when epoch 2 has been
/// fenced, `fenced@2+` when the first epoch from 2 on has been.
#[cfg(feature = "danger-test-switches")]
pub(super) fn failpoint(name: &str, epoch: Epoch) {
    if std::env::var("EPOCHGATE_DANGER_FAILPOINT").is_ok_and(|wanted| is_meant(&wanted, name, epoch)) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // Nothing is done after it, whatever thread the signal takes first.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(feature = "danger-test-switches")]
fn is_meant(wanted: &str, name: &str, epoch: Epoch) -> bool {
    let Some((step, number)) = wanted.split_once('@') else { return false };
    let from = number.strip_suffix('+').and_then(|number| number.parse().ok());
    step == name && (number == epoch.to_string() || from.is_some_and(|from: u64| epoch.number() >= from))
}

#[cfg(not(feature = "danger-test-switches"))]
pub(super) fn failpoint(_name: &str, _epoch: Epoch) {}
