//! epochgate: no write of an old leader is applied after a write of a new one.
//!
//! A fencing sidecar proxy: beside each writer it *stamps* outgoing writes with the epoch of the leadership that this
//! writer holds; beside an unmodified target it *guards*, and refuses every write whose epoch is stale. Epochs live in
//! a coordinator: etcd, or an embedded one on a single host.
//!
//! # The map
//!
//! | part | what it is | it may know of |
//! |---|---|---|
//! | [`fence`] | the pure core: every decision about who may write | nothing |
//! | [`rules`] | how requests are told apart: read or write, which resource | `fence` |
//! | [`config`] | the configuration: as written, checked, as the program uses it | `fence`, `rules` |
//! | [`coordinator`] | where epochs live: elections, sessions and doors over a small store trait | `fence` |
//! | [`state_dir`], [`disk`] | the floor file (R5) | `fence` |
//! | [`control`] | one thread: session, floor file, handoffs, candidacies | coordinator, `fence` |
//! | [`mailbox`] | plain messages between control and the workers | `fence` |
//! | [`worker`] | one a core: listeners, gates, connections | roles, protocols |
//! | [`signing`] | the keys of signed stamps: sign, verify | `fence`, `config` |
//! | [`guard`], [`stamp`] | the two roles: facts in, decision out ([`roles`]: what they share) | `protocol`, `fence` |
//! | [`protocol`] | what a protocol asks of a role, and the right to send a write; HTTP | `fence` |
//! | [`net`] | sockets | `peer` |
//! | [`tls`] | certificates and keys, made into what a session needs | `config`, `peer` |
//! | [`target`] | a guard's own connection to its target: what it can prove there | `fence`, `net` |
//! | [`peer`] | who is at the other end of a connection | nothing |
//! | [`event`] | one typed event for all that happens; [`metrics`], [`audit`] and the history read it | `fence` |
//! | [`verify`] | the checker of recorded histories | `event`, `fence` |
//! | [`admin`] | metrics, readiness, status, the page | status only |
//! | [`inject`] | the sidecar, added to Kubernetes manifests: text in, text out | nothing |
//! | [`run`], [`reload`], [`cli`], [`demo`] | a whole process; its files read again; the command line; the story | everything |
//!
//! # What never happens here
//!
//! - `fence` never reads a clock and never waits; time comes in as a value.
//! - A write never leaves without a [`protocol::Right`], which only a gate or a writer's standing can back; one that
//!   is dropped counts as lost, so a forgotten path keeps the gate shut rather than open.
//! - No stamp raises a floor: an epoch is believed only after a linearizable read.
//! - Nothing is sent to a target a second time.
//! - Workers share no memory with each other or with control: two queues each, nothing else.

pub mod admin;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod demo;
pub mod disk;
pub mod event;
pub mod fence;
#[cfg(test)]
#[path = "../fuzz/mod.rs"]
mod fuzz;
pub mod guard;
pub mod inject;
mod lines;
pub mod log;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod peer;
pub mod protocol;
pub mod reload;
pub mod roles;
pub mod rules;
pub mod run;
pub mod signing;
pub mod stamp;
pub mod state_dir;
pub mod target;
pub mod tls;
pub mod verify;
pub mod worker;
