//! The listeners' sockets, and every worker's share of them.

use std::sync::Arc;

use super::{RunError, World};
use crate::config::Config;
use crate::config::resolved::Listener;
use crate::metrics::Metrics;
use crate::net::listen::{Bound, Socket, bind_at};
use crate::net::unix::Name;
use crate::worker::setup::Trust;
use crate::worker::{ListenerSetup, over_http, over_sessions};

/// Every listener's sockets, one for each worker. All of them, before anything else starts: an address that is taken
/// is an error, and nothing has happened yet.
pub(super) fn bind_all(config: &Config) -> Result<Vec<(Arc<Listener>, Bound)>, RunError> {
    let bind = |listener: &Arc<Listener>| {
        let failed = |source| RunError::Listen { listener: Arc::clone(&listener.name), source };
        let bound = bind_at(&listener.listen, listener.socket_mode, config.workers).map_err(failed)?;
        Ok((Arc::clone(listener), bound))
    };
    config.listeners.iter().map(bind).collect()
}

/// A listener as one worker is given it: its socket, and what its sessions are made with.
pub(super) type Share = (Arc<Listener>, Socket, Trust);

/// The share of each worker, and the names of unix sockets.
pub(super) fn per_worker(
    bound: Vec<(Arc<Listener>, Bound)>,
    trust: &[Trust],
    workers: usize,
) -> (Vec<Vec<Share>>, Vec<Name>) {
    let mut mine: Vec<Vec<Share>> = (0..workers).map(|_| Vec::new()).collect();
    let mut names = Vec::new();
    for ((listener, bound), trust) in bound.into_iter().zip(trust) {
        for (worker, socket) in mine.iter_mut().zip(bound.sockets) {
            worker.push((Arc::clone(&listener), socket, trust.clone()));
        }
        names.extend(bound.name);
    }
    (mine, names)
}

/// One worker's listeners: its socket of each, and the protocol that serves it.
pub(super) fn listeners(shares: Vec<Share>, config: &Config, world: &World, metrics: &Metrics) -> Vec<ListenerSetup> {
    let header: http::HeaderName = config.header.parse().expect("a resolved configuration has a header name");
    let set_up = |(listener, socket, trust): Share| {
        let meters = metrics.meters(&listener.name).expect("the metrics were made for these listeners");
        let make = if listener.protocol.has_sessions() { over_sessions } else { over_http };
        let protocol = make(header.clone(), Arc::clone(&world.clock), world.mechanisms);
        ListenerSetup::on(socket, listener, meters, protocol, trust)
    };
    shares.into_iter().map(set_up).collect()
}
