//! A process's side of the network: sockets, and what the product asks for in their place.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use epochgate::net::dial::Dialling;
use epochgate::net::listen::Accept;
use epochgate::net::{Dial, ResetOnClose, Speaks, Stream};
use epochgate::peer::Peer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::life::Life;
use crate::network::{Address, Host, Id, LetGo, Network};

/// One end of a connection, in the hands of a process.
pub struct Socket {
    network: Network,
    id: Id,
    end: usize,
    life: Life,
    reset: Rc<OnceCell<ResetOnClose>>,
}

impl Socket {
    fn new(network: &Network, id: Id, end: usize, life: &Life) -> Socket {
        Socket { network: network.clone(), id, end, life: life.clone(), reset: Rc::default() }
    }

    /// Connects to an address.
    ///
    /// # Errors
    /// Where nothing listens there.
    pub async fn connect(network: &Network, from: Host, to: Address, life: &Life) -> io::Result<Socket> {
        let socket = Socket::new(network, network.dial_to(from, to), 0, life);
        socket.connected().await?;
        Ok(socket)
    }

    async fn connected(&self) -> io::Result<()> {
        poll_fn(|context| self.network.poll_connected(self.id, context)).await
    }

    /// Which connection it is.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Closes it by reset.
    pub fn abort(self) {
        self.network.let_go(self.id, self.end, LetGo::Reset);
    }

    fn into_stream(self) -> Stream {
        let reset = Rc::clone(&self.reset);
        let stream = Stream::other(self);
        reset.get_or_init(|| stream.reset_on_close());
        stream
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let how = match self.life.is_over() {
            Some(how) => how,
            None if self.reset.get().is_some_and(ResetOnClose::get) => LetGo::Reset,
            None => LetGo::Close,
        };
        self.network.let_go(self.id, self.end, how);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.network.poll_read(self.id, self.end, buffer.remaining(), context);
        read.map(|read| read.map(|bytes| buffer.put_slice(&bytes)))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.network.poll_write(self.id, self.end, bytes, context)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.shut(self.id, self.end);
        Poll::Ready(Ok(()))
    }
}

/// A listening socket.
pub struct Listening {
    network: Network,
    address: Address,
    socket: usize,
    life: Life,
}

impl Listening {
    /// One of the sockets that [`Network::listen`] made.
    pub fn new(network: &Network, address: Address, socket: usize, life: &Life) -> Listening {
        Listening { network: network.clone(), address, socket, life: life.clone() }
    }

    /// The next connection.
    pub async fn accept(&self) -> Socket {
        let id = poll_fn(|context| self.network.poll_accept(self.address, self.socket, Some(context))).await;
        Socket::new(&self.network, id, 1, &self.life)
    }

    fn accepted(&self, id: Id) -> (Stream, Peer) {
        (Socket::new(&self.network, id, 1, &self.life).into_stream(), Network::peer(id).into())
    }
}

impl Accept for Listening {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        self.network.poll_accept(self.address, self.socket, Some(context)).map(|id| Ok(self.accepted(id)))
    }

    fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        match self.network.poll_accept(self.address, self.socket, None) {
            Poll::Ready(id) => Ok(Some(self.accepted(id))),
            Poll::Pending => Ok(None),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let how = self.life.is_over().unwrap_or(LetGo::Close);
        self.network.unlisten(self.address, self.socket, how);
    }
}

/// How the product's processes dial.
pub struct Dialler {
    pub network: Network,
    pub host: Host,
    pub life: Life,
    /// As TCP_USER_TIMEOUT; none where the tests have the kernel go on by its own rules.
    pub send_timeout: Option<Duration>,
    /// Whether a stream that is to be reset is closed in order all the same, as the tests want it.
    pub lingers: bool,
}

impl Dial for Dialler {
    fn dial<'a>(&'a self, authority: &'a str, _: Speaks) -> Dialling<'a> {
        Box::pin(async move {
            let id = self.network.dial(self.host, authority, self.send_timeout)?;
            let socket = Socket::new(&self.network, id, 0, &self.life);
            socket.connected().await?;
            if self.lingers {
                return Ok(Stream::other(socket));
            }
            Ok(socket.into_stream())
        })
    }
}
