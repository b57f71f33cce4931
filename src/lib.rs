//! epochgate: no write of an old leader is applied after a write of a new one.

pub mod admin;
pub mod audit;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod event;
pub mod disk;
pub mod fence;
pub mod mailbox;
mod lines;
pub mod log;
pub mod metrics;
pub mod protocol;
pub mod rules;
pub mod state_dir;
