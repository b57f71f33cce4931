//! The inequalities with their numbers, and what the times mean for a failover.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::table::{Cell, Table};
use super::report::{Category, Finding};
use crate::config::resolved::{Config, GuardLoss, Listener, Role};
use crate::config::times::Bound;
use crate::config::units::show;
use crate::config::{Exposure, exposure};

/// A configuration that could be resolved holds them all; here are their numbers.
pub fn look(config: &Config) -> Category {
    let mut category = Category::new("times");
    let coordinator = &config.coordinator;
    let (ttl, call) = (coordinator.lease_ttl, coordinator.request_timeout);
    let trusted = config.clock.trusted(ttl);
    category.add(Finding::good(format!("lease_ttl is whole seconds, at least 2s: {}", show(ttl))));
    category.add(Finding::good(format!(
        "a lease is kept alive in time: lease_ttl/3 + 2*request_timeout < lease_ttl*(1-max_drift) - margin: {} + 2*{} = {} < {}",
        show(ttl / 3),
        show(call),
        show(ttl / 3 + 2 * call),
        show(trusted)
    )));
    for listener in &config.listeners {
        if let Role::Guard(guard) = &listener.role {
            category.add(outlasts(config, listener));
            if guard.on_coordinator_loss == GuardLoss::Close {
                category.add(Finding::good(format!(
                    "{} does not close while the coordinator answers: verify_every + request_timeout < lease_ttl*(1-max_drift) - margin: {} + {} = {} < {}",
                    listener.name,
                    show(coordinator.verify_every),
                    show(call),
                    show(coordinator.verify_every + call),
                    show(trusted)
                )));
            }
        }
    }
    let exposure = exposure(config);
    category.set_table(table(&exposure), details(&exposure));
    category
}

/// The shortest quarantine of what a guard serves, beside what it has to outlast.
fn outlasts(config: &Config, listener: &Listener) -> Finding {
    let (response, send) = (listener.upstream.response_timeout, listener.upstream.send_timeout);
    let quarantines = listener.serves.iter().filter_map(|resource| config.resources.get(resource));
    let shortest = quarantines.map(|settings| settings.drain.quarantine).min().unwrap_or(Duration::MAX);
    Finding::good(format!(
        "{}: no write outlasts the drain: drain.quarantine >= upstream.response_timeout + upstream.send_timeout: {} >= {} + {} = {}",
        listener.name,
        show(shortest),
        show(response),
        show(send),
        show(response + send)
    ))
}

fn rows(exposure: &Exposure) -> [(&'static str, &'static str, &Bound); 4] {
    [
        ("detected", "detected", &exposure.detected),
        ("fenced", "fenced", &exposure.fenced),
        ("recovered, every old write answered", "recovered", &exposure.recovered),
        ("recovered, a write lost or residue", "recovered_with_residue", &exposure.recovered_with_residue),
    ]
}

fn table(exposure: &Exposure) -> Table {
    let mut table = Table::new(&["AN UNPLANNED FAILOVER IS", "AT THE LATEST AFTER", "WHICH IS"]);
    for (name, _, bound) in rows(exposure) {
        table.row(vec![Cell::new(name), Cell::maybe(bound.longest.map(show)), Cell::new(&bound.formula)]);
    }
    table
}

/// `longest_ms` is absent where nothing ends it by itself.
fn details(exposure: &Exposure) -> Value {
    let mut details = serde_json::Map::new();
    for (_, key, bound) in rows(exposure) {
        let mut row = json!({ "formula": bound.formula });
        if let Some(longest) = bound.longest {
            row["longest_ms"] = json!(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
        }
        details.insert(key.into(), row);
    }
    json!({ "exposure": details })
}
