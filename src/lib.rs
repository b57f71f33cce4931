//! epochgate: no write of an old leader is applied after a write of a new one.

pub mod admin;
pub mod audit;
pub mod clock;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod disk;
pub mod event;
pub mod fence;
mod lines;
pub mod log;
pub mod guard;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod protocol;
pub mod roles;
pub mod rules;
pub mod state_dir;
pub mod stamp;
pub mod worker;
