//! How a proxy is laid out.

use std::net::SocketAddr;

/// What is the same for all that are compared.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where they run.
    pub cores: Vec<usize>,
    /// Workers of each.
    pub workers: usize,
    /// What they forward to.
    pub upstream: SocketAddr,
    /// Whether they speak HTTP/2 to it.
    pub http2: bool,
}

impl Shape {
    /// One worker on these cores, and HTTP/1.1 to the upstream.
    pub fn plain(cores: &[usize], upstream: SocketAddr) -> Shape {
        Shape { cores: cores.to_vec(), workers: 1, upstream, http2: false }
    }
}
