//! The guards' own connections to their targets.

use std::rc::Rc;

use crate::config::Config;
use crate::config::resolved::{Listener, Mode, Protocol, Role};
use crate::control::proving::{MakeProver, ProverSetup};
use crate::target::postgres::Postgres;
use crate::target::redis::RedisProver;
use crate::worker::setup::Trust;

/// One for each guard that has a control connection and refuses what is stale: one that only counts ends nobody's session.
pub(super) fn provers(config: &Config, trust: &[Trust]) -> Vec<ProverSetup> {
    let enforces = |role: &Role| matches!(role, Role::Guard(guard) if guard.mode == Mode::Enforce);
    let listeners = config.listeners.iter().zip(trust).filter(|(listener, _)| enforces(&listener.role));
    let setups = listeners.filter_map(|(listener, (sides, _))| {
        let make = make(listener)?;
        Some(ProverSetup { listener: listener.name.clone(), tls: sides.client.clone(), make })
    });
    setups.collect()
}

fn make(listener: &Listener) -> Option<MakeProver> {
    let (owner, upstream) = (listener.name.clone(), listener.upstream.clone());
    let control = upstream.control.clone()?;
    match listener.protocol {
        // The configuration has no control connection for these.
        Protocol::Http | Protocol::Tcp => None,
        Protocol::Postgres => Some(Box::new(move |slot| {
            Rc::new(Postgres::new(owner, &upstream, slot).expect("it has a control connection, as was just looked at"))
        })),
        Protocol::Redis => Some(Box::new(move |tls| Rc::new(RedisProver::new(&upstream, control, tls)))),
    }
}
