//! What a request may cost: instructions and allocations, counted by callgrind, so that no machine is too slow or too
//! busy for it. `make bench` measures the same beside other proxies (docs/performance.md); this one fails when a change
//! makes the hot path dearer.
//!
//! It runs in `make test` with the profile `simulation`, whose binary is there anyway. That one has debug assertions and
//! other inlining than a release, so its numbers are its own; what a change adds shows in both. In other profiles only
//! the allocations are bounded: they are the same in all.
//!
//! To renew the bounds below after a change that is worth its price, or that made it cheaper: run
//! `cargo test --profile simulation --features danger-test-switches --test cost -- --nocapture`, and write down what
//! it prints and six in a hundred more.

#[allow(dead_code, reason = "what other tests need besides")]
#[allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
mod support {
    pub mod client;
    pub mod ports;
    pub mod process;
}

#[path = "../benches/compare/callgrind.rs"]
mod callgrind;
#[path = "../benches/compare/epochgate.rs"]
#[allow(dead_code, reason = "what the bench needs besides")]
mod epochgate;
#[path = "../benches/compare/load.rs"]
#[allow(dead_code, reason = "what the bench needs besides")]
mod load;
#[path = "../benches/compare/pin.rs"]
mod pin;
#[path = "../benches/compare/running.rs"]
#[allow(dead_code, reason = "what the bench needs besides")]
mod running;
#[path = "../benches/compare/shape.rs"]
mod shape;
#[path = "../benches/compare/streams.rs"]
mod streams;
#[path = "../benches/compare/upstream.rs"]
#[allow(dead_code, reason = "what the bench needs besides")]
mod upstream;
#[path = "../benches/compare/wire.rs"]
#[allow(dead_code, reason = "what the bench needs besides")]
mod wire;

use std::path::Path;

use epochgate::{Pair, Role, Setup};
use shape::Shape;

/// The profile whose instructions are bounded.
const PROFILE: &str = "simulation";

/// What may be used for a request at most.
struct Bound {
    instructions: f64,
    allocations: f64,
}

/// A PUT of 100 bytes, on 16 connections.
const GUARD: Bound = Bound { instructions: 19_780.0, allocations: 0.5 };
const STAMP: Bound = Bound { instructions: 18_060.0, allocations: 0.5 };
/// The same where stamps are signed. valgrind shows the program a processor without instructions for SHA-256, so that most
/// of what these have more is the hash, which a processor of today has done in a fraction of it.
const SIGNED_GUARD: Bound = Bound { instructions: 33_750.0, allocations: 2.5 };
const SIGNED_STAMP: Bound = Bound { instructions: 31_360.0, allocations: 4.5 };
/// The same over HTTP/2, with ten streams on each connection: how many frames come in one read varies more.
const GUARD_HTTP2: Bound = Bound { instructions: 55_000.0, allocations: 12.7 };

/// What the machine does besides only ever adds: events come in smaller batches, and clocks are read between them. A
/// cost that is there shows every time.
const ATTEMPTS: usize = 3;

#[test]
fn a_put_over_a_guard_costs_no_more_than_it_did() {
    is_within("a PUT over a guard", &GUARD, Role::Guard, callgrind::send);
}

#[test]
fn a_put_over_a_stamp_costs_no_more_than_it_did() {
    is_within("a PUT over a stamp", &STAMP, Role::Stamp, callgrind::send);
}

#[test]
fn a_put_over_a_guard_and_http2_costs_no_more_than_it_did() {
    is_within("a PUT over a guard and HTTP/2", &GUARD_HTTP2, Role::Guard, streams::send);
}

#[test]
fn a_put_over_a_guard_that_verifies_costs_no_more_than_it_did() {
    is_within_as("a signed PUT over a guard", &SIGNED_GUARD, Role::Guard, callgrind::send, true);
}

#[test]
fn a_put_over_a_stamp_that_signs_costs_no_more_than_it_did() {
    is_within_as("a PUT over a stamp that signs", &SIGNED_STAMP, Role::Stamp, callgrind::send, true);
}

#[track_caller]
fn is_within(what: &str, bound: &Bound, role: Role, send: callgrind::Sending) {
    is_within_as(what, bound, role, send, false);
}

#[track_caller]
fn is_within_as(what: &str, bound: &Bound, role: Role, send: callgrind::Sending, signed: bool) {
    let instructions = if is_profile(PROFILE) { bound.instructions } else { f64::INFINITY };
    let allocations = bound.allocations;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let cores = pin::cores();
    let setup = Setup { signed, ..Setup::of(&Shape::plain(&cores, upstream::start(&cores))) };
    let mut seen = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let folder = folder.path().join(attempt.to_string());
        let cost = Pair::cost(&folder, role, &setup, send).expect("it serves under callgrind");
        println!("{what}: {:.0} instructions, {:.2} allocations", cost.instructions, cost.allocations);
        if cost.instructions <= instructions && cost.allocations <= allocations {
            return;
        }
        seen.push(cost);
    }
    panic!(
        "{what} costs more than {instructions} instructions or {allocations} allocations: {seen:?}. Where that is worth \
         it, the top of this file says how to renew the bounds; `make bench ONLY=instructions` measures a release build"
    );
}

/// Whether the binary was built with this profile: cargo says it nowhere but in the path.
fn is_profile(name: &str) -> bool {
    Path::new(env!("CARGO_BIN_EXE_epochgate")).parent().is_some_and(|folder| folder.ends_with(name))
}
