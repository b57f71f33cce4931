//! One direction of a session or a tunnel: whole reads, with a look at what passes.
//!
//! One buffer serves all sessions of a worker. What the other side does not take at once is copied, so an idle session holds
//! nothing, and one that stalls holds what is left of one read.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::net::Stream;

/// What one read takes at most. Smaller ones cost three times the CPU of a large transfer.
const CHUNK: usize = 256 * 1024;

thread_local! {
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// One direction.
#[derive(Debug, Default)]
pub struct Way {
    /// Read, and not taken yet.
    pub left: BytesMut,
    /// Nothing more can be read.
    pub at_end: bool,
    unflushed: bool,
}

/// Why nothing goes this way any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Where it comes from has ended its side, and all of it is where it should be.
    End,
    /// Where it comes from broke.
    FromBroke,
    /// Where it goes to broke.
    ToBroke,
    /// It may go no more.
    Forbidden,
    /// It is not the protocol, and why.
    Malformed(&'static str),
}

/// Who looks at what passes. An error says why it is not the protocol.
pub trait Watch {
    /// This was read.
    fn read(&mut self, _bytes: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }
    /// This has been taken by the other side.
    fn taken(&mut self, bytes: &[u8]) -> Result<(), &'static str>;
    /// Whether a part may leave.
    fn may_leave(&self) -> bool {
        true
    }
    /// Whether more may be read. Where it says no, somebody else has to see that this way is polled again.
    fn may_read(&self) -> bool {
        true
    }
}

impl Way {
    /// With something that was read before.
    pub fn with(left: BytesMut) -> Way {
        Way { left, ..Way::default() }
    }

    /// Passes on what can be passed; ready when nothing goes this way any more.
    pub fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        watch: &mut impl Watch,
        context: &mut Context<'_>,
    ) -> Poll<Stop> {
        loop {
            if let Some(stop) = ready!(self.poll_left(to, watch, context)) {
                return Poll::Ready(stop);
            }
            if self.at_end {
                return Poll::Ready(Stop::End);
            }
            if !watch.may_read() {
                return Poll::Pending;
            }
            let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
            let moved = self.poll_move(&mut buffer, from, to, watch, context);
            BUFFER.set(Some(buffer));
            match moved {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => return Poll::Pending,
                Err(stop) => return Poll::Ready(stop),
            }
        }
    }

    /// Ready when nothing is left, also within TLS; with a stop where it cannot go on.
    pub fn poll_left(
        &mut self,
        to: &mut Stream,
        watch: &mut impl Watch,
        context: &mut Context<'_>,
    ) -> Poll<Option<Stop>> {
        while !self.left.is_empty() {
            if !watch.may_leave() {
                return Poll::Ready(Some(Stop::Forbidden));
            }
            let Ok(taken @ 1..) = ready!(Pin::new(&mut *to).poll_write(context, &self.left)) else {
                return Poll::Ready(Some(Stop::ToBroke));
            };
            self.unflushed = true;
            if let Err(why) = watch.taken(&self.left[..taken]) {
                return Poll::Ready(Some(Stop::Malformed(why)));
            }
            self.left.advance(taken);
        }
        if self.unflushed {
            // What TLS holds back is no reason to wait with reading: the next write waits for it.
            match Pin::new(to).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Stop::ToBroke)),
                Poll::Pending => {}
            }
        }
        if self.left.capacity() > 0 {
            self.left = BytesMut::new();
        }
        Poll::Ready(None)
    }

    /// Reads, and passes nothing on; ready when nothing more comes.
    pub fn poll_discard(&mut self, from: &mut Stream, watch: &mut impl Watch, context: &mut Context<'_>) -> Poll<Stop> {
        self.left = BytesMut::new();
        let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
        let stop = loop {
            let mut space = ReadBuf::new(&mut buffer);
            match Pin::new(&mut *from).poll_read(context, &mut space) {
                Poll::Pending => break None,
                Poll::Ready(Err(_)) => break Some(Stop::FromBroke),
                Poll::Ready(Ok(())) if space.filled().is_empty() => break Some(Stop::End),
                Poll::Ready(Ok(())) => {
                    if let Err(why) = watch.read(space.filled()) {
                        break Some(Stop::Malformed(why));
                    }
                }
            }
        };
        BUFFER.set(Some(buffer));
        stop.map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_move(
        &mut self,
        buffer: &mut [u8],
        from: &mut Stream,
        to: &mut Stream,
        watch: &mut impl Watch,
        context: &mut Context<'_>,
    ) -> Result<Poll<()>, Stop> {
        let mut space = ReadBuf::new(buffer);
        match Pin::new(from).poll_read(context, &mut space) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Err(_)) => return Err(Stop::FromBroke),
            Poll::Ready(Ok(())) => {}
        }
        let read = space.filled();
        if read.is_empty() {
            self.at_end = true;
            return Ok(Poll::Ready(()));
        }
        watch.read(read).map_err(Stop::Malformed)?;
        if !watch.may_leave() {
            return Err(Stop::Forbidden);
        }
        let taken = match Pin::new(to).poll_write(context, read) {
            Poll::Ready(Ok(taken @ 1..)) => taken,
            Poll::Ready(_) => return Err(Stop::ToBroke),
            Poll::Pending => 0,
        };
        self.unflushed |= taken > 0;
        watch.taken(&read[..taken]).map_err(Stop::Malformed)?;
        self.left.extend_from_slice(&read[taken..]);
        Ok(Poll::Ready(()))
    }
}
