//! TLS on both sides of real sidecars: what is trusted, what is refused and how it is said, and certificates that are
//! replaced while everything runs.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod identities;
mod place;
mod refused;
mod renewed;
