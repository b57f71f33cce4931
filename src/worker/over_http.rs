//! HTTP as a worker's protocol.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderName;

use super::listening::{Protocol, Serving};
use super::setup::MakeProtocol;
use crate::clock::Clock;
use crate::config::resolved::{Role, Upstream};
use crate::fence::mechanism::Mechanisms;
use crate::net::dial::ClientSlot;
use crate::net::{Dial, UpstreamDial};
use crate::protocol::Accepted;
use crate::protocol::http::{Http, Settings};

struct OverHttp(Rc<Http>);

impl Protocol for OverHttp {
    fn serve(&self, Accepted { stream, who, closing, .. }: Accepted) -> Serving {
        Box::pin(Rc::clone(&self.0).serve(stream, who, closing))
    }

    fn writes_in_flight(&self) -> usize {
        self.0.writes_in_flight()
    }
}

/// Makes the way to a listener's upstream; called on the worker's thread.
pub type MakeDial = Box<dyn Fn(&Upstream, &ClientSlot) -> Rc<dyn Dial> + Send>;

/// Serves a listener's connections over HTTP; its upstream is reached as its configuration says.
pub fn over_http(header: HeaderName, clock: Arc<dyn Clock>, mechanisms: Mechanisms) -> MakeProtocol {
    over_http_by(header, clock, mechanisms, Box::new(move |upstream, tls| dial(upstream, tls, mechanisms)))
}

/// The same; its upstream is reached by what `dial` makes.
pub fn over_http_by(header: HeaderName, clock: Arc<dyn Clock>, mechanisms: Mechanisms, dial: MakeDial) -> MakeProtocol {
    Box::new(move |listener, role, tls| {
        let dial = dial(&listener.upstream, tls);
        let settings = Settings {
            listener: Arc::clone(listener),
            header: header.clone(),
            clock: Arc::clone(&clock),
            strip_refused_from_upstream: matches!(listener.role, Role::Guard(_)),
            mechanisms,
        };
        Rc::new(OverHttp(Http::new(settings, role, dial)))
    })
}

pub(super) fn dial(upstream: &Upstream, tls: &ClientSlot, _mechanisms: Mechanisms) -> Rc<dyn Dial> {
    #[cfg(feature = "danger-test-switches")]
    if !_mechanisms.keeps(crate::fence::mechanism::Mechanism::Reset) {
        return Rc::new(crate::net::dial::LingeringDial);
    }
    Rc::new(UpstreamDial::new(upstream, Rc::clone(tls)))
}
