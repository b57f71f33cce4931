//! What people look at when something is wrong: the alerts, their runbooks, the dashboard. Each alert is seen to fire and
//! to stay silent (promtool), and each query of the dashboard to return data from a real Prometheus that scrapes guards
//! and stamps through a failover.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod dashboard;
mod failover;
mod prometheus;
mod promql;
mod rules;
mod runbooks;

use std::path::Path;

/// The top of the checkout.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project.
#[track_caller]
fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
