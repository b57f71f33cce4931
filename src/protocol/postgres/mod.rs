//! PostgreSQL: a session belongs to its epoch, and is told so in its own words.
//!
//! Nothing is known of what SQL does, so every session may write, and is fenced as a whole. It is admitted before a byte of it
//! leaves; then whole reads pass both ways, and the heads of the messages tell what is outstanding. When its epoch is over,
//! nothing more of its client is forwarded: where the server has answered everything, the session ends at once (an open
//! transaction can only be rolled back then); else when it has, or it is cancelled, or cut and counted as lost.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Postgres`]: a listener in one worker; a connection, from its first byte to its session |
//! | [`message`] | frames: where a message begins and ends, what the first ones are |
//! | [`opening`] | requests for encryption, up to a startup message or a request to cancel |
//! | [`startup`] | the startup message: whose session, which epoch, and what the target sees of it |
//! | [`session`] | the loop: bytes both ways, and every end that there is |
//! | [`watches`] | who looks at what passes |
//! | [`login`] | until the server takes queries: passwords pass, and all else waits |
//! | [`reading`] | sessions that may only read |
//! | [`tracker`] | what is outstanding at the server |
//! | [`cancel`] | requests to cancel |
//! | [`refuse`] | what clients are told |
//! | [`farewell`] | how they are told, so that they hear it |

pub mod cancel;
mod farewell;
mod login;
pub mod message;
mod opening;
pub mod reading;
pub mod refuse;
mod session;
pub mod startup;
pub mod tracker;
mod watches;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use self::cancel::Cancels;
use self::message::Malformed;
use self::opening::{Opened, Unfit, Wants};
use self::reading::Reading;
use self::session::Session;
use self::startup::Startup;
use super::right::Settled;
use super::session::{Asked, Finish, Sessions, unreachable};
use super::{Accepted, CutReason, Kind, Party, Right};
use crate::config::resolved::Stale;
use crate::fence::{Reason, Refusal, Stamp};
use crate::net::{Closing, Stage, Stream};

/// So much of a client is read while its session is held: it is to be seen when it goes.
const AHEAD: usize = 16 * 1024;

/// A listener that speaks PostgreSQL, in one worker.
pub struct Postgres {
    sessions: Sessions,
    cancels: Cancels,
}

/// What a session is put before its role as.
struct Named {
    who: Party,
    path: String,
    stamp: Option<Bytes>,
}

impl Named {
    fn asked(&self) -> Asked<'_> {
        let (path, stamp) = (self.path.as_str(), self.stamp.as_deref());
        Asked { method: "POSTGRES", path, kind: Kind::Write, lasts: true, who: &self.who, stamp }
    }
}

impl Postgres {
    /// The sessions of this listener.
    pub fn new(sessions: Sessions) -> Postgres {
        Postgres { sessions, cancels: Cancels::default() }
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted { stream, mut who, stamp, tls, mut closing } = accepted;
        let _counted = self.sessions.count();
        let opening = timeout(self.sessions.listener.limits.header_timeout, opening::open(stream, tls));
        let opened = tokio::select! {
            biased;
            () = closing.until(Stage::Finishing) => return self.sessions.role.cut(CutReason::Shutdown),
            opened = opening => opened,
        };
        let Opened { stream, names, wants, ahead } = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(Unfit::Gone)) => return,
            Ok(Err(Unfit::Tls)) => return self.sessions.role.cut(CutReason::Tls),
            Ok(Err(Unfit::Malformed(stream, why))) => {
                return farewell::tell(stream, &refuse::unreadable(why), &mut closing).await;
            }
            Err(_) => return self.sessions.role.cut(CutReason::HeaderTimeout),
        };
        who.names = names.or(who.names);
        match wants {
            Wants::Session(packet) => self.session(stream, who, stamp, &packet, ahead, closing).await,
            Wants::Cancel(request) => tokio::select! {
                biased;
                () = closing.until(Stage::Now) => {}
                () = self.cancels.send(&self.sessions, &who, &request) => {}
            },
        }
    }

    /// Has a session admitted, connects it, and runs it.
    async fn session(
        self: Rc<Self>,
        mut client: Stream,
        who: Party,
        carried: Option<Bytes>,
        packet: &[u8],
        mut ahead: BytesMut,
        mut closing: Closing,
    ) {
        let startup = match Startup::parse(packet) {
            Ok(startup) => startup,
            Err(why) => return farewell::tell(client, &refuse::unreadable(why), &mut closing).await,
        };
        let said = startup.epoch();
        // What a sidecar vouches for stands before what the client says of itself.
        let stamp = carried.or_else(|| Some(Bytes::from(said.as_ref().ok()?.clone().map(Cow::into_owned)?)));
        let named = Named { who, path: startup.path(), stamp };
        let mut finish = self.sessions.begin(Kind::Write);
        let begun = async {
            if let Err(why) = said {
                return Err(Box::new(Refusal::new(Reason::MalformedStamp, why.0)));
            }
            let right = self.sessions.admit(&named.asked(), &mut closing).await?;
            match self.connect(&right, &startup, packet, &named.who).await {
                Ok((upstream, packet)) => Ok((right, upstream, packet)),
                Err(refusal) => {
                    right.settle(Settled::NothingLeft);
                    Err(refusal)
                }
            }
        };
        let begun = tokio::select! {
            biased;
            begun = begun => begun,
            // Whoever has gone is not let in any more: what was taken on the way is given back by being dropped.
            () = gone(&mut client, &mut ahead) => return,
        };
        match begun {
            Ok((right, upstream, packet)) => {
                Session::begin(self, named, client, ahead, upstream, &packet, Some(right), finish, closing).run().await;
            }
            Err(refusal) if self.lets_read(refusal.reason, &named) => {
                finish.is(Kind::Read);
                self.read_only(named, refusal, &startup, packet, client, ahead, finish, closing).await;
            }
            Err(refusal) => {
                self.sessions.say_refused(&named.asked(), &refusal);
                farewell::tell(client, &refuse::refusal(&refusal), &mut closing).await;
            }
        }
    }

    /// Whether a session that is refused with this may read all the same. A stamp passes it on without a stamp, and leaves the rest
    /// to the guard; so its client has named no epoch either, which a guard would take for a stamp.
    fn lets_read(&self, reason: Reason, named: &Named) -> bool {
        let may = match self.sessions.is_stamp() {
            true => reason == Reason::NotLeader && named.stamp.is_none(),
            false => reading::may_read(reason),
        };
        may && self.sessions.listener.stale == Stale::ReadOnly
    }

    /// Connects and runs a session that may only read.
    #[expect(clippy::too_many_arguments, reason = "each is another's, and they come together only here")]
    async fn read_only(
        self: Rc<Self>,
        named: Named,
        refusal: Box<Refusal>,
        startup: &Startup<'_>,
        packet: &[u8],
        mut client: Stream,
        mut ahead: BytesMut,
        finish: Finish,
        mut closing: Closing,
    ) {
        let is_stamp = self.sessions.is_stamp();
        let packet = match startup.for_reading() {
            _ if is_stamp => Cow::Borrowed(packet),
            Ok(packet) => Cow::Owned(packet),
            Err(Malformed(why)) => {
                let refusal = Refusal { detail: format!("{}; {why}", refusal.detail).into(), ..*refusal };
                self.sessions.say_refused(&named.asked(), &refusal);
                return farewell::tell(client, &refuse::refusal(&refusal), &mut closing).await;
            }
        };
        let connected = tokio::select! {
            biased;
            connected = self.sessions.connect_without_right(&named.who) => connected,
            () = gone(&mut client, &mut ahead) => return,
        };
        match connected {
            Ok(upstream) if is_stamp => {
                Session::begin(self, named, client, ahead, upstream, &packet, None, finish, closing).run().await;
            }
            Ok(upstream) => {
                Reading::begin(self, named, refusal, client, ahead, upstream, &packet, finish).run(closing).await;
            }
            Err(error) => {
                let refusal = unreachable(&error);
                self.sessions.say_refused(&named.asked(), &refusal);
                farewell::tell(client, &refuse::refusal(&refusal), &mut closing).await;
            }
        }
    }

    /// The connection to the upstream, with the startup message as that is to get it.
    async fn connect<'a>(
        &self,
        right: &Right,
        startup: &Startup<'_>,
        packet: &'a [u8],
        who: &Party,
    ) -> Result<(Stream, Cow<'a, [u8]>), Box<Refusal>> {
        let stamp = right.stamp().filter(|_| !self.sessions.is_stamp());
        let packet = match stamp.and_then(|value| Stamp::parse(value.as_bytes()).ok()) {
            Some(stamp) => Cow::Owned(
                startup
                    .for_target(stamp.epoch)
                    .map_err(|Malformed(why)| Box::new(Refusal::new(Reason::MalformedStamp, why)))?,
            ),
            None => Cow::Borrowed(packet),
        };
        Ok((self.sessions.connect(right, who).await?, packet))
    }
}

/// Resolves when the client has gone; what it sends meanwhile is kept, up to a bound.
async fn gone(client: &mut Stream, ahead: &mut BytesMut) {
    while ahead.len() < AHEAD {
        ahead.reserve(1024);
        if matches!(client.read_buf(ahead).await, Ok(0) | Err(_)) {
            return;
        }
    }
    std::future::pending().await
}
