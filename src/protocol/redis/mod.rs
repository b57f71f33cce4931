//! Redis and Valkey: commands are told apart, and each write needs a right.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Redis`]: one listener in one worker; a connection from its first byte to its first command |
//! | [`request`], [`reply`] | what clients and servers send, read as it comes |
//! | [`table`] | what each command is |
//! | [`learn`], [`client`], [`value`] | the server's own table of commands, over a connection of the sidecar's own |
//! | [`owed`] | which replies are due: when a write is answered, and where there is room for a refusal |
//! | [`session`] | a connection that is being served: both directions, the fence, the end |
//! | [`find`] | which command it is that a client sends |
//! | [`own`] | what the sidecar does itself of what a client asks for |
//! | [`up`], [`down`] | from the client: what may pass; from the server: what is answered |
//! | [`passing`] | which bytes may go to the server: nothing else is written there |
//! | [`writing`] | the right of the writes that are under way |
//! | [`refuse`] | refusals as Redis errors |
//!
//! A connection holds a right only while a write of its is unanswered: one decision and one settlement for as many writes as
//! are under way together. What a stale writer gets is an error in its place among the replies, and it may go on reading.

pub mod client;
mod down;
mod find;
mod learn;
mod owed;
mod own;
mod passing;
pub mod refuse;
pub mod reply;
pub mod request;
mod session;
pub mod table;
mod up;
pub mod value;
mod writing;

#[cfg(test)]
mod tests;

use std::rc::Rc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use super::right::Settled;
use super::session::{Asked, Sessions, unreachable};
use super::{Accepted, CutReason, Kind, Party};
use crate::config::resolved::{self, Stale};
use crate::fence::Refusal;
use crate::net::{Closing, Stage, Stream};
use learn::Commands;
use session::Session;

/// One listener in one worker.
pub struct Redis {
    sessions: Rc<Sessions>,
    commands: Rc<Commands>,
    /// Whether the role is asked about reads too.
    asks_reads: bool,
    /// Whether a connection that may not write may not read either.
    refuses_stale: bool,
}

impl Redis {
    /// Over these sessions.
    pub fn new(sessions: Sessions) -> Redis {
        let refuses_stale = !sessions.is_stamp() && sessions.listener.stale == Stale::Refuse;
        let fences_reads =
            matches!(&sessions.listener.role, resolved::Role::Guard(guard) if guard.fence_reads) || refuses_stale;
        let asks_reads = fences_reads || sessions.is_stamp();
        Redis { sessions: Rc::new(sessions), commands: Rc::default(), asks_reads, refuses_stale }
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted { stream: mut client, who, stamp, mut closing, .. } = accepted;
        let _counted = self.sessions.count();
        // No server is troubled for somebody who says nothing.
        let mut first = [0];
        let began = tokio::select! {
            biased;
            () = closing.until(Stage::Finishing) => return self.sessions.role.cut(CutReason::Shutdown),
            began = client.look(&mut first) => began,
        };
        if !matches!(began, Ok(1..)) {
            return;
        }
        self.commands.known(&self.sessions).await;
        match self.connect(&who, &mut closing).await {
            Ok((server, announced)) => {
                Box::pin(Session::new(self, who, stamp, announced, client, server).run(closing)).await;
            }
            Err(refusal) => {
                // It goes to somebody who may be gone.
                let _ = client.write_all(&refuse::error(&refusal)).await;
                session::end(client, closing).await;
            }
        }
    }

    /// The server's end of a session; at a stamp with the stamp that it was announced with, where its writer leads.
    async fn connect(&self, who: &Party, closing: &mut Closing) -> Result<(Stream, Option<Bytes>), Box<Refusal>> {
        let asked = Asked { method: METHOD, path: "/", kind: Kind::Write, lasts: false, who, stamp: None };
        if self.sessions.is_stamp()
            && let Ok(right) = self.sessions.admit(&asked, closing).await
        {
            let stamp = right.stamp().map(|stamp| Bytes::copy_from_slice(stamp.as_bytes()));
            let connected = self.sessions.connect(&right, who).await;
            // No command has left: each will need a right of its own.
            right.settle(Settled::NothingLeft);
            return match connected {
                Ok(server) => Ok((server, stamp)),
                Err(refusal) => {
                    self.sessions.say_refused(&asked, &refusal);
                    Err(refusal)
                }
            };
        }
        // Who does not lead may read.
        let connected = self.sessions.connect_without_right(who).await;
        connected.map(|server| (server, None)).map_err(|error| {
            let refusal = unreachable(&error);
            self.sessions.say_refused(&asked, &refusal);
            Box::new(refusal)
        })
    }
}

/// How the audit log calls what comes over this protocol.
const METHOD: &str = "REDIS";
