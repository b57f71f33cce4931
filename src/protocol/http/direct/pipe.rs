//! Long bodies: the kernel hands them from one socket to the other through a pipe (splice(2)), and nobody copies them.
//!
//! Only between TCP sockets, and only for bodies that repay the making of a pipe. What is in the pipe has been read from
//! the client and has not left: it counts as what waits in a buffer of this process, and goes with the pipe.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A body of which less than this is missing is copied.
pub const LONG: u64 = 1024 * 1024;

/// What it holds at most, in the kernel. With the default, a quarter of that, twice as many calls take up half of the
/// gain.
const ROOM: usize = 256 * 1024;

/// A pipe from a client to the upstream.
pub struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
    holds: usize,
}

impl Pipe {
    /// A new one; `None` where there are no descriptors for it, or no room: a user may have only so many pages in pipes,
    /// and beyond that gets pipes so small that copying is cheaper (pipe(7), `pipe-user-pages-soft`).
    pub fn new() -> Option<Pipe> {
        let (from, to) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        fcntl_setpipe_size(&to, ROOM).ok()?;
        Some(Pipe { from, to, holds: 0 })
    }

    /// How many bytes are in it.
    pub fn holds(&self) -> usize {
        self.holds
    }

    /// Takes in what the client has sent, `most` bytes of it, while it holds nothing; how much that was, none at the end
    /// of the client's stream.
    pub fn poll_fill(&mut self, client: &TcpStream, most: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.holds == 0, "where a full pipe is filled, nobody can tell which side is to be waited for");
        loop {
            ready!(client.poll_read_ready(context))?;
            let spliced = client.try_io(Interest::READABLE, || Ok(splice(client, None, &self.to, None, most, FLAGS)?));
            match spliced {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(bytes) => {
                    self.holds = bytes;
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Hands on what it holds; how much the kernel took.
    pub fn poll_empty(&mut self, upstream: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(upstream.poll_write_ready(context))?;
            let holds = self.holds;
            let spliced =
                upstream.try_io(Interest::WRITABLE, || Ok(splice(&self.from, None, upstream, None, holds, FLAGS)?));
            match spliced {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => {
                    self.holds -= bytes;
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
