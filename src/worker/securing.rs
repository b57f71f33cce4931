//! A connection to a listener with TLS: first a session, bounded in time; then its protocol serves.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::{Instant, timeout};

use super::listening::{Listening, Served, Serving};
use crate::net::{Closing, Stage, Stream, tls};
use crate::peer::Names;
use crate::protocol::{CutReason, Party, Role as _};
use crate::tls::certificate::Certificate;
use crate::tls::explain::{Why, explain};

/// At most so often does a listener log a session that could not be had: anybody may try. The counter has all of them.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// A listener that ends, or is replaced, waits no longer for a client that has not agreed on a session.
const LAST_SESSION: Duration = Duration::from_secs(1);

impl Listening {
    /// Agrees on a session, and serves.
    pub(super) fn secured(
        &self,
        served: Rc<Served>,
        config: Arc<ServerConfig>,
        stream: Stream,
        mut party: Party,
        mut closing: Closing,
    ) -> Serving {
        let (name, meters, role) = (Arc::clone(&self.name), Rc::clone(&self.meters), Rc::clone(&self.role));
        let logged = Rc::clone(&self.logged);
        Box::pin(async move {
            let session = tokio::select! {
                biased;
                () = given_up(&mut closing) => return role.cut(CutReason::Shutdown),
                session = timeout(served.session_timeout, tls::accept(stream, &config)) => session,
            };
            let session = session.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let stream = match session {
                Ok(stream) => stream,
                Err(error) => {
                    let (why, text) = explain(&error, true);
                    meters.no_session(why);
                    if why != Why::Closed {
                        role.cut(CutReason::Tls);
                    }
                    if logged.get().is_none_or(|last: Instant| last.elapsed() >= LOG_EVERY) {
                        logged.set(Some(Instant::now()));
                        tracing::warn!(listener = %name, peer = %party.peer, why = why.as_str(), "no session: {text}");
                    }
                    return;
                }
            };
            party.names = names(&stream);
            served.protocol.serve(stream, party, closing).await;
        })
    }
}

/// Resolves when a client that is about to agree on a session is not waited for any more.
async fn given_up(closing: &mut Closing) {
    closing.until(Stage::Finishing).await;
    tokio::select! {
        biased;
        () = closing.until(Stage::Now) => {}
        () = tokio::time::sleep(LAST_SESSION) => {}
    }
}

/// What the client's certificate names it, where it has shown one.
fn names(stream: &Stream) -> Option<Rc<Names>> {
    let own = stream.tls()?.peer_certificates()?.first()?;
    // One that the verifier took, and this cannot read, names nobody: then it may write as nobody.
    Some(Rc::new(Certificate::read(own).map(|certificate| certificate.names).unwrap_or_default()))
}
