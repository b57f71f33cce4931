//! HTTP as a worker's protocol.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderName;

use super::listening::{Protocol, Serving};
use super::setup::MakeProtocol;
use crate::clock::Clock;
use crate::config::resolved::{Listener, Role, Upstream};
use crate::fence::mechanism::Mechanisms;
use crate::net::{Closing, Dial, Stream, TcpDial};
use crate::protocol::Binding;
use crate::protocol::http::{Http, Settings};

struct OverHttp(Rc<Http>);

impl Protocol for OverHttp {
    fn serve(&self, stream: Stream, peer: SocketAddr, binding: Binding, closing: Closing) -> Serving {
        Box::pin(Rc::clone(&self.0).serve(stream, peer, binding, closing))
    }

    fn writes_in_flight(&self) -> usize {
        self.0.writes_in_flight()
    }
}

/// Makes the way to a listener's upstream; called on the worker's thread.
pub type MakeDial = Box<dyn FnOnce(&Upstream) -> Rc<dyn Dial> + Send>;

/// Serves a listener's connections over HTTP; its upstream is reached over TCP.
pub fn over_http(
    listener: Arc<Listener>,
    header: HeaderName,
    clock: Arc<dyn Clock>,
    mechanisms: Mechanisms,
) -> MakeProtocol {
    over_http_by(listener, header, clock, mechanisms, Box::new(move |upstream| dial(upstream, mechanisms)))
}

/// The same; its upstream is reached by what `dial` makes.
pub fn over_http_by(
    listener: Arc<Listener>,
    header: HeaderName,
    clock: Arc<dyn Clock>,
    mechanisms: Mechanisms,
    dial: MakeDial,
) -> MakeProtocol {
    Box::new(move |role| {
        let dial = dial(&listener.upstream);
        let strip_refused_from_upstream = matches!(listener.role, Role::Guard(_));
        let settings = Settings { listener, header, clock, strip_refused_from_upstream, mechanisms };
        Rc::new(OverHttp(Http::new(settings, role, dial)))
    })
}

fn dial(upstream: &Upstream, _mechanisms: Mechanisms) -> Rc<dyn Dial> {
    #[cfg(feature = "danger-test-switches")]
    if !_mechanisms.keeps(crate::fence::mechanism::Mechanism::Reset) {
        return Rc::new(crate::net::dial::LingeringDial);
    }
    Rc::new(TcpDial { connect_timeout: upstream.connect_timeout, send_timeout: upstream.send_timeout })
}
