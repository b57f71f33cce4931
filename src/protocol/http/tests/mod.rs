//! The proxy between raw sockets: a client, a target, and a role that does what the test says.

mod fenced;
mod framing;
mod hostile;
mod http2;
mod long;
mod sizes;
mod streams;
pub(crate) mod support;
mod times;
mod upgrades;
mod writes;
