//! What each listener promises, and what it does not (DESIGN 3.8).

use super::report::{Category, Finding};
use crate::config::resolved::{Config, Listener, Mode, Role, StampSettings};

/// One finding a listener.
pub fn look(config: &Config) -> Category {
    let mut category = Category::new("level");
    for listener in &config.listeners {
        category.add(match &listener.role {
            Role::Guard(guard) => guarded(listener, guard.mode, guard.shared),
            Role::Stamp(stamp) => stamped(listener, stamp),
        });
    }
    category
}

fn guarded(listener: &Listener, mode: Mode, shared: bool) -> Finding {
    let name = &listener.name;
    match mode {
        Mode::Enforce if shared => Finding::good_with(
            format!("{name}: proxy, as one of several doors"),
            "promised: no write that goes through one of them is applied after one of a later epoch, if every forwarded \
             write is answered, or over within drain.quarantine after its connection ended, and no door stands still for \
             longer than that between comparing a write and sending it. Not promised: what goes around them; let the \
             target be reached through them alone",
        ),
        Mode::Enforce => Finding::good_with(
            format!("{name}: proxy"),
            "promised: no write that goes through it is applied after one of a later epoch, if every forwarded write is \
             answered, or over within drain.quarantine after its connection ended. Not promised: what goes around it; \
             let the target be reached through it alone",
        ),
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
