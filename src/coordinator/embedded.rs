//! The embedded coordinator.
