//! What a guard proves at a real PostgreSQL over its control connection, and what the in-target level refuses there.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod checked;
mod ground;
mod proved;
mod raised;
