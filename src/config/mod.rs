//! The configuration: as written, checked, and as the program uses it.

pub mod resolved;

pub use resolved::Config;
