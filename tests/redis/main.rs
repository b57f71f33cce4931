//! A real Redis behind real sidecars: what clients do goes through unchanged, and what is stale does not.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod fenced;
mod same;
mod world;
