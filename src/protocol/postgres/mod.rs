//! PostgreSQL.
pub mod message;
pub mod tracker;
