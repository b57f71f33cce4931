//! From the server to its client: replies are counted as they pass, and the sidecar's own are put between them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::super::tunnel::Ends as _;
use super::reply::Replies;
use super::session::{CHUNK, Session, with_buffer, write_now};
use crate::fence::Outcome;

/// So much is kept for a client that does not read while the fence waits for its writes. Then the client is given up.
const MOST_KEPT: usize = 1024 * 1024;

/// The way down.
#[derive(Debug, Default)]
pub struct Down {
    replies: Replies,
    /// Whether the reply that has begun is one that the client is not to see.
    hiding: bool,
    /// For the client, which has not taken it yet.
    left: Vec<u8>,
    unflushed: bool,
    /// Whether nobody is there to be told.
    deaf: bool,
    /// The server has ended its side...
    pub ended: bool,
    /// ...after it had been told that nothing follows.
    pub let_go: bool,
}

impl Down {
    /// Whether the client has taken everything.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether so much waits for a client that takes nothing that no more is to be said to it.
    pub fn waits_for_the_client(&self) -> bool {
        self.left.len() >= CHUNK
    }

    /// Whether something may be said between two replies.
    pub fn is_between(&self) -> bool {
        self.replies.between() && !self.deaf
    }

    /// Nobody is there any more.
    pub fn deafen(&mut self) {
        self.deaf = true;
        self.left = Vec::new();
    }
}

impl Session {
    /// Moves what there is to move; says whether something was.
    ///
    /// # Errors
    /// Where the server's end broke, or what it sends is no reply.
    pub(super) fn poll_down(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            moved |= self.say_own(context);
            self.write_left(context);
            let waits = !(self.down.left.is_empty() || self.is_hurried() && self.down.left.len() < MOST_KEPT);
            if waits && self.is_hurried() {
                self.client_is_gone();
            } else if waits || self.down.ended {
                return Ok(moved);
            }
            let read = with_buffer(|buffer| {
                let mut space = ReadBuf::new(&mut buffer[..CHUNK]);
                match Pin::new(&mut self.server).poll_read(context, &mut space) {
                    Poll::Pending => Ok(None),
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Ready(Ok(())) => {
                        let read = space.filled().len();
                        self.pass_down(&buffer[..read], context).map(|()| Some(read))
                    }
                }
            })?;
            match read {
                None => return Ok(moved),
                Some(0) => (self.down.ended, self.down.let_go) = (true, self.up.told),
                Some(_) => {}
            }
            moved = true;
        }
    }

    /// Counts the replies in what the server sent, and passes it on.
    fn pass_down(&mut self, bytes: &[u8], context: &mut Context<'_>) -> io::Result<()> {
        let (mut at, mut from) = (0, 0);
        while at < bytes.len() {
            if self.down.replies.between() {
                self.down.hiding = self.owed.hides(bytes[at]);
            }
            let (taken, reply) = self.down.replies.read(&bytes[at..]).map_err(|no_reply| {
                io::Error::new(io::ErrorKind::InvalidData, format!("not what Redis says: {}", no_reply.0))
            })?;
            if self.down.hiding {
                self.pass_to_client(&bytes[from..at], context);
                from = at + taken;
            }
            at += taken;
            let Some(reply) = reply else { break };
            self.owed.reply(&reply);
            if self.writing.as_ref().is_some_and(|writing| writing.until <= self.owed.answered()) {
                self.settle(Outcome::Answered);
            }
            if let Some(text) = self.owed.take_own() {
                self.pass_to_client(&bytes[from..at], context);
                self.pass_to_client(&text, context);
                from = at;
                self.say_own(context);
            }
        }
        self.pass_to_client(&bytes[from..at], context);
        if self.owed.is_empty()
            && let Some(mut reading) = self.reading.take()
        {
            reading.ends_as(Outcome::Answered);
        }
        Ok(())
    }

    /// Whether it is the sidecar's turn to say something.
    pub(super) fn has_own_to_say(&self) -> bool {
        self.down.replies.between() && self.owed.owns_the_next()
    }

    /// Says what the sidecar itself has to say, if it is its turn.
    fn say_own(&mut self, context: &mut Context<'_>) -> bool {
        let mut said = false;
        while self.down.replies.between()
            && let Some(text) = self.owed.take_own()
        {
            self.pass_to_client(&text, context);
            said = true;
        }
        said
    }

    fn pass_to_client(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        if bytes.is_empty() || self.down.deaf {
            return;
        }
        let mut written = 0;
        if self.down.left.is_empty() {
            match write_now(&mut self.client, bytes, context) {
                Ok(taken) => written = taken,
                Err(_) => return self.client_is_gone(),
            }
        }
        self.down.unflushed = true;
        self.down.left.extend_from_slice(&bytes[written..]);
    }

    /// Writes what the client has not taken yet, as far as it takes it now.
    fn write_left(&mut self, context: &mut Context<'_>) {
        if self.down.deaf {
            return;
        }
        if !self.down.left.is_empty() {
            match write_now(&mut self.client, &self.down.left, context) {
                Ok(written) => drop(self.down.left.drain(..written)),
                Err(_) => return self.client_is_gone(),
            }
            if self.down.left.is_empty() && self.down.left.capacity() > CHUNK {
                self.down.left = Vec::new();
            }
        }
        if self.down.unflushed && self.down.left.is_empty() {
            match Pin::new(&mut self.client).poll_flush(context) {
                Poll::Ready(Ok(())) => self.down.unflushed = false,
                Poll::Ready(Err(_)) => self.client_is_gone(),
                Poll::Pending => {}
            }
        }
    }
}
