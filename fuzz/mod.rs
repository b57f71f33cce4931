//! Fuzzing of everything that reads what somebody else wrote: peers, users, disks.
//!
//! The library's own tests mount this folder, so that it reaches what is private, runs on any stable compiler, and each
//! target is a test: a short run with every `cargo test`, a long one with `make fuzz`.
//!
//! ```text
//! cargo test --lib fuzz::                      a short run of every target
//! EPOCHGATE_FUZZ=60s cargo test --lib fuzz::   a minute each (make fuzz does that, optimised)
//! EPOCHGATE_FUZZ_SEED=7 …                      another run; the seed of each is printed
//! ```
//!
//! | file | what it is for |
//! |---|---|
//! | [`engine`] | runs a target: replays what is kept, mutates, looks for what is new, keeps what fails |
//! | [`mutate`] | one input made of another |
//! | [`targets`] | what is fuzzed, and what must hold of it |
//! | `corpus/<target>/` | where inputs begin: real ones |
//! | `failures/<target>/` | inputs that failed once. They are replayed first, for ever |

mod engine;
mod mutate;
mod targets;
