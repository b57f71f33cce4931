//! What the tests are played with: a client, the proxy, and a server, each end in the test's hands.

use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::Postgres;
use super::super::message::tests::message;
use super::super::startup::tests::startup;
use crate::clock::HostClock;
use crate::config::resolved::{Limits, Listener, Protocol};
use crate::fence::mechanism::Mechanisms;
use crate::net::{Closer, Stream, UpstreamDial};
pub use crate::protocol::http::tests::support::{FakeRole, run, until};
use crate::protocol::http::tests::support::{limits, listener, role, upstream};
use crate::protocol::session::Sessions;
use crate::protocol::signal::Caller;
use crate::protocol::{Accepted, Binding, Party};

/// A guard before a server that the test plays.
pub struct World {
    pub role: Rc<FakeRole>,
    pub fence: Caller,
    pub closer: Closer,
    server: TcpListener,
    service: Rc<Postgres>,
}

/// One end of a connection.
pub struct End(pub TcpStream);

pub async fn world() -> World {
    world_with(|_| {}).await
}

pub async fn world_with(change: impl FnOnce(&mut Limits)) -> World {
    world_where(|listener| change(&mut listener.limits)).await
}

/// With another listener.
pub async fn world_where(change: impl FnOnce(&mut Listener)) -> World {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let upstream = upstream(server.local_addr().expect("address").to_string());
    let dial = Rc::new(UpstreamDial::new(&upstream, Rc::default()));
    let mut listener = listener(Protocol::Postgres, upstream, limits());
    change(&mut listener);
    let listener = Arc::new(listener);
    let role = role();
    let fence = role.fence();
    let clock = Arc::new(HostClock);
    let sessions = Sessions::new(listener, Rc::clone(&role) as _, clock, Mechanisms::all(), "fencing-epoch", dial);
    World { role, fence, closer: Closer::default(), server, service: Rc::new(Postgres::new(sessions)) }
}

impl World {
    /// A client whose connection the proxy has just taken.
    pub async fn client(&self) -> (End, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (socket, peer) = far.expect("accept");
        let stream = Stream::tcp(socket).expect("options");
        let who = Party::unnamed(peer, Binding::default());
        let accepted = Accepted { stream, who, stamp: None, tls: None, closing: self.closer.handle() };
        let serving = tokio::task::spawn_local(Rc::clone(&self.service).serve(accepted));
        (End(near.expect("connect")), serving)
    }

    /// The next connection that the server gets.
    pub async fn at_server(&self) -> End {
        End(self.server.accept().await.expect("accept").0)
    }

    /// A session that the server has greeted.
    pub async fn session(&self) -> (End, End) {
        let (mut client, _) = self.client().await;
        client.send(&startup(&[("user", "app")])).await;
        let mut server = self.at_server().await;
        server.expect(&rewritten()).await;
        server.send(&greeting()).await;
        client.expect(&greeting()).await;
        (client, server)
    }
}

/// A session with a query under way.
pub async fn running() -> (World, End, End) {
    let world = world().await;
    let (mut client, mut server) = world.session().await;
    client.send(&query()).await;
    server.expect(&query()).await;
    (world, client, server)
}

/// [`World::session`]'s startup message as the server gets it.
pub fn rewritten() -> Vec<u8> {
    startup(&[("user", "app"), ("application_name", "[epochgate 42]"), ("epochgate.epoch", "42")])
}

/// AuthenticationOk, a key, ReadyForQuery.
pub fn greeting() -> Vec<u8> {
    [message(b'R', &[0; 4]), message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]), ready()].concat()
}

pub fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

pub fn in_transaction() -> Vec<u8> {
    message(b'Z', b"T")
}

pub fn query() -> Vec<u8> {
    message(b'Q', b"select 1\0")
}

pub fn done() -> Vec<u8> {
    [message(b'C', b"SELECT 1\0"), ready()].concat()
}

impl End {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("write");
    }

    /// Reads exactly these.
    pub async fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.0.read_exact(&mut got).await.unwrap_or_else(|error| panic!("{}: {error}", bytes.escape_ascii()));
        assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }

    /// All that still comes, and whether the end is orderly.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        let orderly = self.0.read_to_end(&mut got).await.is_ok();
        (got, orderly)
    }

    /// What it is told last, in the fields of one error.
    pub async fn told(&mut self) -> Vec<String> {
        let (got, _) = self.rest().await;
        super::super::refuse::tests::fields(&got)
    }
}
