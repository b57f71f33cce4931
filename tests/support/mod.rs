//! What several test files share. Each of them uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

pub mod etcd;
pub mod store_contract;
