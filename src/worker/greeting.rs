//! What a connection begins with, before its protocol serves it: who it is by its PROXY header, TLS, and the header that may stand
//! within. Bounded in time.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::{Instant, timeout};

use super::listening::{Listening, Served, Serving};
use crate::config::resolved::Protocol;
use crate::net::{Closing, ProxyHeader, Stage, Stream, proxy_header, tls};
use crate::peer::Peer;
use crate::protocol::{Accepted, CutReason, Party, Role as _};
use crate::tls::explain::{Why, explain};

/// At most so often does a listener log a connection that it could not make anything of: anybody may try. The counter has all
/// of them.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// A listener that ends, or is replaced, waits no longer for a client that has not agreed on TLS.
const LAST_SESSION: Duration = Duration::from_secs(1);

/// With `tcp`, so long is a header waited for from a client that has said nothing: the server may speak first there, and then a
/// client without a header waits for it. A stamp, or a load balancer, sends its header at once; one whose comes later is refused
/// as any that has none.
const SILENCE: Duration = Duration::from_secs(2);

/// What a TLS session begins with: a record of the handshake (RFC 8446 5.1).
const HANDSHAKE: u8 = 0x16;

/// Why a connection is not served.
enum Unfit {
    /// No TLS session.
    Tls(io::Error),
    /// Its PROXY header.
    Header(io::Error),
}

impl Listening {
    /// Hears a client out, and serves.
    pub(super) fn greeted(
        &self,
        served: Rc<Served>,
        tls: Option<Arc<ServerConfig>>,
        stream: Stream,
        party: Party,
        mut closing: Closing,
    ) -> Serving {
        let (name, meters, role) = (Arc::clone(&self.name), Rc::clone(&self.meters), Rc::clone(&self.role));
        let logged = Rc::clone(&self.logged);
        Box::pin(async move {
            let peer = party.peer;
            let greeting = Greeting { served: &served, tls, who: party, stamp: None };
            let greeted = tokio::select! {
                biased;
                () = given_up(&mut closing) => return role.cut(CutReason::Shutdown),
                greeted = timeout(served.greeting_timeout, greeting.hear(stream)) => greeted,
            };
            let unfit = match greeted.unwrap_or_else(|_| Err(Unfit::Tls(io::ErrorKind::TimedOut.into()))) {
                Ok((stream, Greeting { who, stamp, tls, .. })) => {
                    return served.protocol.serve(Accepted { stream, who, stamp, tls, closing }).await;
                }
                Err(unfit) => unfit,
            };
            let says = logged.get().is_none_or(|last: Instant| last.elapsed() >= LOG_EVERY);
            if says {
                logged.set(Some(Instant::now()));
            }
            match unfit {
                Unfit::Tls(error) => {
                    let (why, text) = explain(&error, true);
                    meters.no_session(why);
                    if why != Why::Closed {
                        role.cut(CutReason::Tls);
                    }
                    if says {
                        tracing::warn!(listener = %name, %peer, why = why.as_str(), "no session: {text}");
                    }
                }
                Unfit::Header(error) => {
                    role.cut(CutReason::ProxyHeader);
                    if says {
                        tracing::warn!(listener = %name, %peer, %error, "no PROXY protocol header that can be read: see proxy_protocol");
                    }
                }
            }
        })
    }
}

/// What has been heard.
struct Greeting<'a> {
    served: &'a Served,
    /// None once it has been agreed on.
    tls: Option<Arc<ServerConfig>>,
    who: Party,
    stamp: Option<bytes::Bytes>,
}

impl Greeting<'_> {
    async fn hear(mut self, mut stream: Stream) -> Result<(Stream, Self), Unfit> {
        let address_is_trusted = self.trusts_address();
        let mut announced = false;
        if address_is_trusted {
            announced = self.take_header(&mut stream).await?;
        }
        if let Some(config) = self.tls.take() {
            // PostgreSQL has its own way to TLS; its clients may also begin with it, and stamps do.
            if self.served.speaks == Protocol::Postgres && !begins_with_tls(&mut stream).await.map_err(Unfit::Tls)? {
                self.tls = Some(config);
            } else {
                stream = tls::accept(stream, &config).await.map_err(Unfit::Tls)?;
                self.who.names = tls::peer_names(&stream);
                // Behind a header that was taken already stands whoever its sender forwards: an address says nothing of that one.
                let is_trusted = (address_is_trusted && !announced) || self.who.names.is_some();
                if is_trusted && self.served.speaks.has_sessions() && self.served.proxy.is_some() {
                    announced |= self.take_header(&mut stream).await?;
                }
            }
        }
        if self.requires_header() && !announced {
            return Err(Unfit::Header(io::Error::other("there is none, and proxy_protocol.required is set")));
        }
        Ok((stream, self))
    }

    fn requires_header(&self) -> bool {
        self.served.proxy.as_ref().is_some_and(|proxy| proxy.required)
    }

    fn trusts_address(&self) -> bool {
        self.served.proxy.as_ref().is_some_and(|proxy| match self.who.peer {
            Peer::Tcp(address) => proxy.trusts(address.ip()),
            Peer::Unix(_) => true,
        })
    }

    /// Whether there was a header.
    async fn take_header(&mut self, stream: &mut Stream) -> Result<bool, Unfit> {
        if self.served.speaks == Protocol::Tcp && !self.requires_header() && is_silent(stream).await? {
            return Ok(false);
        }
        let Some(ProxyHeader { source, stamp }) = proxy_header::take(stream).await.map_err(Unfit::Header)? else {
            return Ok(false);
        };
        if let Some(source) = source {
            self.who.peer = Peer::Tcp(source);
        }
        if stamp.is_some() && (self.stamp.is_some() || !self.served.speaks.has_sessions()) {
            return Err(Unfit::Header(io::Error::other("it carries a stamp where none can stand")));
        }
        self.stamp = stamp.or(self.stamp.take());
        Ok(true)
    }
}

/// Whether nothing comes of it: it waits to be spoken to.
async fn is_silent(stream: &mut Stream) -> Result<bool, Unfit> {
    match timeout(SILENCE, stream.look(&mut [0])).await {
        Ok(seen) => seen.map(|_| false).map_err(Unfit::Header),
        Err(_) => Ok(true),
    }
}

async fn begins_with_tls(stream: &mut Stream) -> io::Result<bool> {
    let mut first = [0];
    Ok(stream.look(&mut first).await? == 1 && first[0] == HANDSHAKE)
}

/// Resolves when a client that is about to agree on TLS is not waited for any more.
async fn given_up(closing: &mut Closing) {
    closing.until(Stage::Finishing).await;
    tokio::select! {
        biased;
        () = closing.until(Stage::Now) => {}
        () = tokio::time::sleep(LAST_SESSION) => {}
    }
}
