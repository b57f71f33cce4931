//! Sockets: listening, accepting, dialling, and the stream that both sides are.
//!
//! | file | what it holds |
//! |---|---|
//! | [`stream`] | a byte stream: a TCP socket in production, anything in tests and the simulation; closed by reset on demand |
//! | [`listen`] | one listening socket a worker, and the acceptor that outlives running out of descriptors |
//! | [`tls`] | a TLS session over a socket, as a stream |
//! | [`unix`] | unix sockets by name |
//! | [`dial`] | connections to an upstream |
//! | [`proxy_header`] | the PROXY protocol's header, with the stamp of a session |
//! | [`limit`] | how many connections a worker holds |
//! | [`closing`] | how a worker tells its connections to finish, or to end |
//!
//! Everything here belongs to one worker thread: no lock, no atomic.

pub mod bell;
pub mod closing;
pub mod dial;
pub mod limit;
pub mod listen;
pub mod proxy_header;
pub mod stream;
pub mod tls;
pub mod unix;

pub use closing::{Closer, Closing, Stage};
pub use dial::{Dial, Speaks, UpstreamDial};
pub use limit::{Limiter, Permit};
pub use listen::{Accept, Acceptor};
pub use proxy_header::ProxyHeader;
pub use stream::{ResetOnClose, Stream};
