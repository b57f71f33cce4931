//! Connections played out: a client and a server that the test is, and a role that does what the test says.

mod fenced;
mod passing;
mod refused;
mod support;
