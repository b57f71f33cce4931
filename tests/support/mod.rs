//! What the system tests share: real processes, a target that remembers, a client that does exactly what it is told.
//!
//! `mod support;` in a test gives it all. Everything listens on 127.0.0.1, ends with its owner, and on a failing test
//! prints what it saw.

#![allow(dead_code, reason = "each test uses another part")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

pub mod certificates;
pub mod client;
pub mod dice;
pub mod etcd;
pub mod faults;
pub mod faulty_link;
pub mod haproxy;
pub mod history;
pub mod link;
pub mod load;
pub mod mariadb;
pub mod memory;
pub mod nginx;
pub mod other_user;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod scene;
pub mod sidecar;
pub mod stalls;
pub mod store_contract;
pub mod talk;
pub mod template;
pub mod terms;
pub mod upstream;
pub mod world;
