//! What the tests are played with.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::Redis;
use super::super::table::Table;
use super::super::value::Value;
use crate::clock::HostClock;
use crate::config::resolved::{
    IncomingStamp, Listener, Protocol, Role as ListenerRole, Stale, StampSettings, UntilArmed, Upstream,
};
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Epoch, Outcome, Reason, Refusal};
use crate::net::{Closer, Stream, UpstreamDial};
use crate::protocol::http::tests::support;
pub use crate::protocol::http::tests::support::{run, until};
use crate::protocol::right::{Keeper, Proof, Settled};
use crate::protocol::session::Sessions;
use crate::protocol::signal::{Caller, Signal};
use crate::protocol::{Accepted, Binding, CutReason, Decision, Facts, Finished, Kind, Party, Right, Role};

#[derive(Default)]
pub struct Books {
    pub settled: RefCell<Vec<Settled>>,
    /// What the next confirmation says.
    pub unconfirmed: RefCell<Option<Box<Refusal>>>,
    /// Whether nothing more may be sent.
    pub shut: Cell<bool>,
    pub caller: RefCell<Caller>,
}

impl Keeper for Books {
    fn confirm(&self, _: &Proof, _: usize) -> Result<(), Box<Refusal>> {
        self.unconfirmed.take().map_or(Ok(()), Err)
    }

    fn settle(&self, _: Proof, _: usize, how: Settled) {
        self.settled.borrow_mut().push(how);
    }

    fn may_send(&self) -> bool {
        !self.shut.get()
    }

    fn signal(&self, _: &Proof, _: usize) -> Option<Signal> {
        Some(self.caller.borrow().signal())
    }
}

/// Lets everything pass, stamped 42, unless the test has said otherwise.
#[derive(Default)]
pub struct FakeRole {
    pub next: RefCell<VecDeque<Decision>>,
    /// Every write is stale.
    pub stale: Cell<bool>,
    pub books: Rc<Books>,
    /// What it was asked: the path, the kind, the stamp.
    pub asked: RefCell<Vec<(String, Kind, Option<String>)>>,
    pub refused: RefCell<Vec<Reason>>,
    pub finished: RefCell<Vec<(Kind, Outcome)>>,
    pub cuts: RefCell<Vec<CutReason>>,
}

impl FakeRole {
    pub fn settled(&self) -> Vec<Settled> {
        self.books.settled.borrow().clone()
    }

    pub async fn until_settled(&self, how: &[Settled]) {
        until("settled", || self.settled().len() >= how.len()).await;
        assert_eq!(self.settled(), how);
    }

    /// The epoch moves on: what is under way is asked to end, and new writes are stale.
    pub fn fence(&self) -> Caller {
        self.stale.set(true);
        let caller = self.books.caller.take();
        caller.ask(crate::protocol::signal::Ask::Hurry);
        caller
    }

    pub fn right(&self) -> Right {
        let resource = "orders".parse().expect("a resource");
        Right::pretended(Rc::clone(&self.books) as _, resource, Some(HeaderValue::from_static("42")))
    }
}

impl Role for FakeRole {
    fn bind(&self) -> Binding {
        Binding::default()
    }

    fn decide(&self, facts: &Facts<'_>) -> Decision {
        let mut stamp = None;
        facts.fields.each("fencing-epoch", &mut |value| stamp = Some(String::from_utf8_lossy(value).into_owned()));
        let kind = facts.kind.expect("a session knows what it is");
        assert_eq!((facts.method, facts.target), ("REDIS", "/"));
        self.asked.borrow_mut().push((facts.path.to_owned(), kind, stamp));
        if let Some(decision) = self.next.borrow_mut().pop_front() {
            return decision;
        }
        match kind {
            Kind::Write if self.stale.get() => Decision::Refuse(stale()),
            Kind::Write => Decision::Forward(self.right()),
            Kind::Read => Decision::Forward(Right::read(Rc::new(Books::default()))),
        }
    }

    fn refused(&self, _: &Facts<'_>, refusal: &Refusal) {
        self.refused.borrow_mut().push(refusal.reason);
    }

    fn finished(&self, finished: Finished) {
        self.finished.borrow_mut().push((finished.kind, finished.outcome));
    }

    fn connection(&self, _: bool) {}

    fn cut(&self, reason: CutReason) {
        self.cuts.borrow_mut().push(reason);
    }
}

pub fn stale() -> Box<Refusal> {
    Box::new(Refusal::new(Reason::StaleEpoch, "epoch 41 is over").with_epochs(Epoch::new(41), Epoch::new(42)))
}

/// How a [`stale`] refusal looks to a client.
pub const READONLY: &str =
    "-READONLY stale_epoch: epoch 41 is over (epoch 41, required epoch 42, outcome not_applied)\r\n";

/// A listener, before a server that the test plays.
pub struct World {
    pub role: Rc<FakeRole>,
    pub closer: Closer,
    redis: Rc<Redis>,
    target: TcpListener,
}

impl World {
    /// A guard that lets stale writers read.
    pub async fn new() -> World {
        World::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Listener)) -> World {
        let target = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let mut listener = listener(&target.local_addr().expect("address").to_string());
        change(&mut listener);
        let (role, dial) =
            (Rc::new(FakeRole::default()), Rc::new(UpstreamDial::new(&listener.upstream, Rc::default())));
        let as_role = Rc::clone(&role) as Rc<dyn Role>;
        let (clock, all) = (Arc::new(HostClock), Mechanisms::all());
        let sessions = Sessions::new(Arc::new(listener), as_role, clock, all, "fencing-epoch", dial);
        let redis = Rc::new(Redis::new(sessions));
        redis.commands.is_told(table());
        World { role, closer: Closer::default(), redis, target }
    }

    /// A new connection whose PROXY header had this stamp: its client's end.
    pub async fn client(&self, stamp: Option<&'static str>) -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connect");
        let (far, peer) = listener.accept().await.expect("accept");
        let accepted = Accepted {
            stream: Stream::tcp(far).expect("options"),
            who: Party::unnamed(peer, Binding::default()),
            stamp: stamp.map(|stamp| Bytes::from_static(stamp.as_bytes())),
            tls: None,
            closing: self.closer.handle(),
        };
        tokio::task::spawn_local(Rc::clone(&self.redis).serve(accepted));
        Raw::from(near)
    }

    /// Sends this over a new connection, and has the server get `expected` of it.
    pub async fn sent(&self, request: &str, expected: &str) -> (Raw, Raw) {
        let mut client = self.client(Some("42")).await;
        client.send(request).await;
        let mut server = self.at_server().await;
        assert_eq!(server.exactly(expected.len()).await, expected);
        (client, server)
    }

    /// The next connection that the server gets.
    pub async fn at_server(&self) -> Raw {
        Raw::from(self.target.accept().await.expect("accept").0)
    }
}

fn table() -> Table {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    let command = |(name, flags): &(&str, &str)| {
        let flags = flags.split(' ').map(text).collect();
        Value::List(vec![text(name), Value::Integer(2), Value::List(flags)])
    };
    let listed = [
        ("get", "readonly fast"),
        ("lrange", "readonly"),
        ("set", "write denyoom"),
        ("blpop", "write blocking"),
        ("xread", "readonly blocking"),
    ];
    Table::of_server(&Value::List(listed.iter().map(command).collect())).expect("a table")
}

fn listener(authority: &str) -> Listener {
    let upstream = Upstream { no_answer: vec![], ..support::upstream(authority.to_owned()) };
    Listener { stale: Stale::ReadOnly, ..support::listener(Protocol::Redis, upstream, support::limits()) }
}

/// The role of a stamp's listener.
pub fn stamp_role() -> ListenerRole {
    ListenerRole::Stamp(StampSettings {
        advertise: None,
        campaign: Vec::new(),
        incoming_stamp: IncomingStamp::Refuse,
        expect_required: false,
        until_armed: UntilArmed::Hold,
        keep_on_coordinator_loss: false,
    })
}

/// One end of a TCP connection, byte by byte.
pub struct Raw {
    pub socket: TcpStream,
    read: Vec<u8>,
}

impl From<TcpStream> for Raw {
    fn from(socket: TcpStream) -> Raw {
        socket.set_nodelay(true).expect("an option");
        Raw { socket, read: Vec::new() }
    }
}

impl Raw {
    pub async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("write");
    }

    pub async fn exactly(&mut self, bytes: usize) -> String {
        String::from_utf8(self.bytes(bytes).await).expect("text")
    }

    pub async fn bytes(&mut self, bytes: usize) -> Vec<u8> {
        while self.read.len() < bytes {
            let more = self.socket.read_buf(&mut self.read).await.expect("read");
            assert_ne!(more, 0, "ended after {:?}", String::from_utf8_lossy(&self.read));
        }
        let rest = self.read.split_off(bytes);
        std::mem::replace(&mut self.read, rest)
    }

    /// The value of the stamp's field in the PROXY header that goes ahead, if there is one.
    pub async fn announced(&mut self) -> Option<Vec<u8>> {
        let head = self.bytes(16).await;
        assert!(head.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "a PROXY header goes ahead");
        let rest = self.bytes(usize::from(u16::from_be_bytes([head[14], head[15]]))).await;
        let at = rest.iter().position(|byte| *byte == 0xe7)?;
        Some(rest[at + 3..].to_vec())
    }

    /// Gets exactly this.
    #[track_caller]
    pub fn gets<'a>(&'a mut self, expected: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let got = self.exactly(expected.len()).await;
            assert_eq!(got, expected, "{caller}");
        }
    }

    /// To the end, which must be in order.
    pub async fn rest(&mut self) -> String {
        while self.socket.read_buf(&mut self.read).await.expect("read") > 0 {}
        String::from_utf8(std::mem::take(&mut self.read)).expect("text")
    }

    /// Whether it ends by reset.
    pub async fn is_reset(&mut self) -> bool {
        loop {
            match self.socket.read_buf(&mut self.read).await {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}
