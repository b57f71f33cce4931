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
            resolved::Protocol::Http | resolved::Protocol::Tcp => {
                let sessions = Rc::new(sessions);
                over(move |accepted| Box::pin(tcp::serve(Rc::clone(&sessions), accepted)))
            }
            resolved::Protocol::Postgres => {
                let postgres = Rc::new(Postgres::new(sessions));
                over(move |accepted| Box::pin(Rc::clone(&postgres).serve(accepted)))
            }
            resolved::Protocol::Redis => {
                let redis = Rc::new(Redis::new(sessions));
                over(move |accepted| Box::pin(Rc::clone(&redis).serve(accepted)))
            }
        }
    })
}

/// A protocol of which nothing but a connection's whole life is known.
struct OverSessions<S>(S);

fn over(serve: impl Fn(Accepted) -> Serving + 'static) -> Rc<dyn Protocol> {
    Rc::new(OverSessions(serve))
}

impl<S: Fn(Accepted) -> Serving> Protocol for OverSessions<S> {
    fn serve(&self, accepted: Accepted) -> Serving {
        (self.0)(accepted)
    }

    fn writes_in_flight(&self) -> usize {
        // They end with their connections.
        0
    }
}
