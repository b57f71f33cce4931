//! What each listener promises, and what it does not (DESIGN 3.8).

use super::report::{Category, Finding};
use crate::config::resolved::{Config, GuardLoss, GuardSettings, Listener, Mode, Role, StampSettings};

/// One finding a listener.
pub fn look(config: &Config) -> Category {
    let mut category = Category::new("level");
    for listener in &config.listeners {
        category.add(match &listener.role {
            Role::Guard(guard) => guarded(&listener.name, guard, listener.upstream.control.is_some()),
            Role::Stamp(stamp) => stamped(listener, stamp),
        });
    }
    category
}

/// A door that closes without a session is waited out by others, who go by time: what it sends after a still stand that
/// outlasts that time comes too late. Nobody takes the place of one that keeps.
fn guarded(name: &str, guard: &GuardSettings, is_proved: bool) -> Finding {
    const BY_TIME: &str =
        "if every forwarded write is answered, or over within drain.quarantine after its connection ended";
    const BY_PROOF: &str =
        "and what was not answered is seen to be over by the control connection, whatever time that takes";
    const STILL: &str = "stands still between comparing a write and handing it to the kernel for so long that the write \
                         lands after the door was waited out (lease_ttl + drain.quarantine from when its lease lapsed)";
    // A door that others wait out by time has proved nothing to them.
    let ends = if is_proved && !guard.shared { BY_PROOF } else { BY_TIME };
    match guard.mode {
        Mode::Enforce if guard.shared => Finding::good_with(
            format!("{name}: proxy, as one of several doors"),
            format!(
                "promised: no write that goes through one of them is applied after one of a later epoch, {ends}, and \
                 none of them {STILL}. Not promised: what goes around them; let the target be reached through them alone"
            ),
        ),
        Mode::Enforce => {
            let still = match guard.on_coordinator_loss {
                GuardLoss::Keep => String::new(),
                GuardLoss::Close => format!(", and it never {STILL}"),
            };
            Finding::good_with(
                format!("{name}: proxy"),
                format!(
                    "promised: no write that goes through it is applied after one of a later epoch, {ends}{still}. Not \
                     promised: what goes around it; let the target be reached through it alone"
                ),
            )
        }
        Mode::Audit => Finding::warning(
            format!("{name}: not proven (mode audit)"),
            "it forwards everything, and only counts and logs what it would refuse: nothing is promised until \
             mode: enforce",
        ),
    }
}

fn stamped(listener: &Listener, stamp: &StampSettings) -> Finding {
    let resources = match stamp.campaign.as_slice() {
        [one] => one.to_string(),
        several => format!("{} resources", several.len()),
    };
    Finding::good_with(
        format!("{}: stamps for {resources}", listener.name),
        "promised: a write carries the term that its writer held when the request began. Not promised: anything at a \
         target that has no guard",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_that_can_be_waited_out_may_not_stand_still_and_one_that_keeps_may() {
        let words = |mode, shared, on_coordinator_loss| {
            let guard = GuardSettings {
                mode,
                target: "orders".into(),
                shared,
                on_coordinator_loss,
                fence_reads: false,
                bare_stamps: true,
                forward_stamp: true,
            };
            guarded("orders-guard", &guard, false).words()
        };
        let stands_still =
            |words: &str| words.contains("stands still") && words.contains("lease_ttl + drain.quarantine");
        assert!(stands_still(&words(Mode::Enforce, true, GuardLoss::Close)));
        assert!(stands_still(&words(Mode::Enforce, false, GuardLoss::Close)));
        assert!(!stands_still(&words(Mode::Enforce, false, GuardLoss::Keep)), "nobody takes its place");
        assert!(words(Mode::Audit, false, GuardLoss::Keep).contains("not proven"));
    }
}
