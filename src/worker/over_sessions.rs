//! Protocols with sessions as a worker's protocol.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderName;

use super::listening::{Protocol, Serving};
use super::over_http::dial;
use super::setup::MakeProtocol;
use crate::clock::Clock;
use crate::config::resolved;
use crate::fence::mechanism::Mechanisms;
use crate::protocol::postgres::Postgres;
use crate::protocol::redis::Redis;
use crate::protocol::session::Sessions;
use crate::protocol::{Accepted, tcp};

/// Serves a listener's connections in the protocol that its configuration names, which has sessions.
pub fn over_sessions(header: HeaderName, clock: Arc<dyn Clock>, mechanisms: Mechanisms) -> MakeProtocol {
    Box::new(move |listener, role, tls| {
        let dial = dial(&listener.upstream, tls, mechanisms);
        let sessions = Sessions::new(Arc::clone(listener), role, Arc::clone(&clock), mechanisms, header.as_str(), dial);
        match listener.protocol {
            // HTTP is served elsewhere; of what else there is nothing is known.
            resolved::Protocol::Http | resolved::Protocol::Tcp => Rc::new(OverTcp(Rc::new(sessions))),
            resolved::Protocol::Postgres => Rc::new(OverPostgres(Rc::new(Postgres::new(sessions)))),
            resolved::Protocol::Redis => Rc::new(OverRedis(Rc::new(Redis::new(sessions)))),
        }
    })
}

struct OverTcp(Rc<Sessions>);

impl Protocol for OverTcp {
    fn serve(&self, accepted: Accepted) -> Serving {
        Box::pin(tcp::serve(Rc::clone(&self.0), accepted))
    }

    fn writes_in_flight(&self) -> usize {
        // They end with their connections.
        0
    }
}

struct OverPostgres(Rc<Postgres>);

impl Protocol for OverPostgres {
    fn serve(&self, accepted: Accepted) -> Serving {
        Box::pin(Rc::clone(&self.0).serve(accepted))
    }

    fn writes_in_flight(&self) -> usize {
        0
    }
}

struct OverRedis(Rc<Redis>);

impl Protocol for OverRedis {
    fn serve(&self, accepted: Accepted) -> Serving {
        Box::pin(Rc::clone(&self.0).serve(accepted))
    }

    fn writes_in_flight(&self) -> usize {
        0
    }
}
