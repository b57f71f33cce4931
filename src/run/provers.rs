//! The guards' own connections to their targets.

use std::rc::Rc;

use crate::config::Config;
use crate::config::resolved::{GuardSettings, Listener, Mode, Protocol, Role};
use crate::control::proving::{MakeProver, ProverSetup};
use crate::fence::floor::Memory;
use crate::net::dial::ClientSlot;
use crate::target::Prover;
use crate::target::home::{FromHome, Home, Wait};
use crate::target::postgres::Postgres;
use crate::target::redis::RedisProver;
use crate::worker::setup::Trust;

/// One for each guard that has a control connection and refuses what is stale: one that only counts ends nobody's session.
pub(super) fn provers(config: &Config, trust: &[Trust], memory: &Memory) -> Vec<ProverSetup> {
    let listeners = config.listeners.iter().zip(trust);
    let setups = listeners.filter_map(|(listener, (sides, _))| {
        let guard = match &listener.role {
            Role::Guard(guard) if guard.mode == Mode::Enforce => guard,
            _ => return None,
        };
        let (home, make) = (home(config, listener, guard, memory), make(listener)?);
        let make = Box::new(move |tls: ClientSlot| -> Rc<dyn Prover> { Rc::new(FromHome { prover: make(tls), home }) });
        Some(ProverSetup { listener: listener.name.clone(), tls: sides.client.clone(), make })
    });
    setups.collect()
}

fn home(config: &Config, listener: &Listener, guard: &GuardSettings, memory: &Memory) -> Home {
    let drains = listener.serves.iter().filter_map(|resource| Some(config.resources.get(resource)?.drain));
    let wait = Wait {
        residue: listener.serves.iter().any(|resource| memory.of(&guard.target, resource).has_residue(false)),
        quarantine: drains.clone().map(|drain| drain.quarantine).max().unwrap_or_default(),
        by_time: drains.clone().all(|drain| drain.by_time),
    };
    Home::new(&config.state_dir, &guard.target, wait)
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
