//! What the tests are played with.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

use crate::clock::HostClock;
use crate::config::resolved::{
    GuardLoss, GuardSettings, Limits, Listener, Mode, Role as ListenerRole, Upstream, UpstreamVersion,
};
use crate::fence::mechanism::Mechanisms;
use crate::fence::{Outcome, Reason, Refusal};
use crate::net::dial::Dialling;
use crate::net::{Acceptor, Closer, Dial, Speaks, Stream, UpstreamDial, listen};
use crate::protocol::http::{Http, Settings};
use crate::protocol::right::{Keeper, Proof, Settled};
use crate::protocol::signal::{Caller, Signal};
use crate::protocol::{Binding, CutReason, Decision, Facts, Finished, Kind, Right, Role};

/// Longer than anything takes on the slowest machine.
const FOREVER: Duration = Duration::from_secs(60);

/// Runs a test the way a worker runs.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(FOREVER, test).await.expect("the test hangs");
    });
}

/// Waits until it is so.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(FOREVER / 2, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[derive(Default)]
pub struct Books {
    pub settled: RefCell<Vec<Settled>>,
    pub confirms: Cell<usize>,
    /// What the next confirmation says.
    pub unconfirmed: RefCell<Option<Box<Refusal>>>,
    /// What happens at the next confirmation.
    pub at_confirm: Cell<Option<Box<dyn FnOnce()>>>,
    /// Whether nothing more may be sent.
    pub shut: Cell<bool>,
    pub caller: RefCell<Option<Caller>>,
}

impl Keeper for Books {
    fn confirm(&self, _: &Proof, _: usize) -> Result<(), Box<Refusal>> {
        self.confirms.set(self.confirms.get() + 1);
        if let Some(at_confirm) = self.at_confirm.take() {
            at_confirm();
            return Ok(());
        }
        self.unconfirmed.take().map_or(Ok(()), Err)
    }

    fn settle(&self, _: Proof, _: usize, how: Settled) {
        self.settled.borrow_mut().push(how);
    }

    fn may_send(&self) -> bool {
        !self.shut.get()
    }

    fn signal(&self, _: &Proof, _: usize) -> Option<Signal> {
        self.caller.borrow().as_ref().map(Caller::signal)
    }
}

/// GET and HEAD are reads, all else writes stamped 42, unless the test has said otherwise.
pub struct FakeRole {
    pub next: RefCell<VecDeque<Decision>>,
    pub writes: Rc<Books>,
    pub reads: Rc<Books>,
    pub paths: RefCell<Vec<String>>,
    pub refused: RefCell<Vec<Reason>>,
    pub finished: RefCell<Vec<(Kind, Outcome)>>,
    pub cuts: RefCell<Vec<CutReason>>,
    pub open: Cell<i64>,
    pub standing: Cell<u64>,
}

impl FakeRole {
    pub fn write(&self) -> Right {
        let resource = "orders".parse().expect("a resource");
        Right::pretended(Rc::clone(&self.writes) as _, resource, Some(HeaderValue::from_static("42")))
    }

    pub fn settled(&self) -> Vec<Settled> {
        self.writes.settled.borrow().clone()
    }

    pub async fn until_settled(&self, how: Settled) {
        until("settled", || !self.settled().is_empty()).await;
        assert_eq!(self.settled(), [how]);
    }

    pub async fn until_finished(&self, kind: Kind, outcome: Outcome) {
        until("finished", || !self.finished.borrow().is_empty()).await;
        assert_eq!(*self.finished.borrow(), [(kind, outcome)]);
    }

    /// The fence, as the next write hears it.
    pub fn fence(&self) -> Caller {
        let caller = Caller::default();
        self.writes.caller.replace(Some(caller.clone()));
        caller
    }
}

impl Role for FakeRole {
    fn bind(&self) -> Binding {
        Binding { standing: self.standing.get() }
    }

    fn decide(&self, facts: &Facts<'_>) -> Decision {
        self.paths.borrow_mut().push(facts.path.to_owned());
        if let Some(decision) = self.next.borrow_mut().pop_front() {
            return decision;
        }
        match (facts.method, facts.upgrade) {
            ("GET" | "HEAD", false) => Decision::Forward(Right::read(Rc::clone(&self.reads) as _)),
            _ => Decision::Forward(self.write()),
        }
    }

    fn refused(&self, facts: &Facts<'_>, refusal: &Refusal) {
        assert!(!facts.method.is_empty());
        self.refused.borrow_mut().push(refusal.reason);
    }

    fn finished(&self, finished: Finished) {
        self.finished.borrow_mut().push((finished.kind, finished.outcome));
    }

    fn connection(&self, opened: bool) {
        self.open.set(self.open.get() + if opened { 1 } else { -1 });
    }

    fn cut(&self, reason: CutReason) {
        self.cuts.borrow_mut().push(reason);
    }
}

pub fn refusal(reason: Reason) -> Box<Refusal> {
    Box::new(Refusal::new(reason, "As the test says."))
}

/// A proxy with its role, before a target that the test plays.
pub struct World {
    pub role: Rc<FakeRole>,
    pub http: Rc<Http>,
    pub closer: Closer,
    pub address: SocketAddr,
    pub target: TcpListener,
    serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub struct Change<'a> {
    pub limits: &'a mut Limits,
    pub upstream: &'a mut Upstream,
    pub strip_refused: bool,
    /// Whether plain requests take the direct path.
    pub direct: bool,
    /// What the proxy connects to, one after the other; the target where there is nothing.
    pub dialled: VecDeque<tokio::io::DuplexStream>,
}

/// Hands out prepared streams, whose ends the other side sees at once.
struct Prepared(RefCell<VecDeque<tokio::io::DuplexStream>>);

impl Dial for Prepared {
    fn dial<'a>(&'a self, _: &'a str, _: Speaks) -> Dialling<'a> {
        let stream = self.0.borrow_mut().pop_front().expect("the test has prepared enough");
        Box::pin(async { Ok(Stream::other(stream)) })
    }
}

/// A world as the defaults make it, but for what `change` says.
pub async fn world(change: impl FnOnce(&mut Change<'_>)) -> World {
    world_with(Mechanisms::all(), change).await
}

/// A world with an HTTP/1.1 target and without one mechanism.
#[cfg(feature = "danger-test-switches")]
pub async fn world_without(mechanism: crate::fence::mechanism::Mechanism) -> World {
    let mechanisms = Mechanisms::all().without(mechanism);
    world_with(mechanisms, |change| change.upstream.version = UpstreamVersion::Http1).await
}

async fn world_with(mechanisms: Mechanisms, change: impl FnOnce(&mut Change<'_>)) -> World {
    let target = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let authority = target.local_addr().expect("address").to_string();
    let (http, role) = proxy(mechanisms, authority, None, change);
    let socket = listen::bind("127.0.0.1:0".parse().expect("address"), 1).expect("bind").remove(0);
    let address = socket.local_addr().expect("address");
    let mut acceptor = Acceptor::tcp(socket).expect("acceptor");
    let closer = Closer::default();
    let serving = tokio::task::spawn_local({
        let (http, closer, role) = (Rc::clone(&http), closer.clone(), Rc::clone(&role));
        async move {
            loop {
                let (stream, peer) = acceptor.accept().await;
                let binding = role.bind();
                tokio::task::spawn_local(Rc::clone(&http).serve(
                    stream,
                    crate::protocol::Party::unnamed(peer, binding),
                    closer.handle(),
                ));
            }
        }
    });
    World { role, http, closer, address, target, serving }
}

/// The proxy alone, before a target that is dialled by `dial`, or over TCP.
pub fn proxy(
    mechanisms: Mechanisms,
    authority: String,
    dial: Option<Rc<dyn Dial>>,
    change: impl FnOnce(&mut Change<'_>),
) -> (Rc<Http>, Rc<FakeRole>) {
    let (mut upstream, mut limits) = (upstream(authority), limits());
    // These tests are compiled a second time, under that name.
    let direct = !module_path!().contains("over_hyper");
    let mut changed =
        Change { limits: &mut limits, upstream: &mut upstream, strip_refused: true, direct, dialled: VecDeque::new() };
    change(&mut changed);
    let strip_refused_from_upstream = changed.strip_refused;
    let (dialled, direct) = (changed.dialled, changed.direct);
    let tcp = UpstreamDial::new(&upstream, Rc::default());
    let listener = Arc::new(listener(crate::config::resolved::Protocol::Http, upstream, limits));
    let settings = Settings {
        listener,
        header: HeaderName::from_static("fencing-epoch"),
        clock: Arc::new(HostClock),
        strip_refused_from_upstream,
        mechanisms,
    };
    let role = role();
    let dial: Rc<dyn Dial> = match dial {
        Some(dial) => dial,
        None if dialled.is_empty() => Rc::new(tcp),
        None => Rc::new(Prepared(RefCell::new(dialled))),
    };
    let http = Http::new(settings, Rc::clone(&role) as _, dial);
    if !direct {
        http.direct.turn_off();
    }
    (http, role)
}

/// An upstream that is waited for.
pub fn upstream(authority: String) -> Upstream {
    Upstream {
        url: format!("http://{authority}").into(),
        authority: authority.into(),
        socket: None,
        tls: None,
        control: None,
        version: UpstreamVersion::Same,
        connect_timeout: FOREVER,
        response_timeout: FOREVER,
        send_timeout: FOREVER,
        idle_timeout: FOREVER,
        no_answer: vec![502, 504],
    }
}

/// Limits that no test reaches.
pub fn limits() -> Limits {
    Limits {
        connections: 100,
        connections_per_peer: None,
        streams: 100,
        headers: 100,
        header_bytes: 64 * 1024,
        header_timeout: FOREVER,
        body_idle_timeout: FOREVER,
        answer_idle_timeout: FOREVER,
        idle_timeout: FOREVER,
    }
}

/// A guard's listener.
pub fn listener(protocol: crate::config::resolved::Protocol, upstream: Upstream, limits: Limits) -> Listener {
    let guard = GuardSettings {
        mode: Mode::Enforce,
        target: "orders".into(),
        shared: false,
        on_coordinator_loss: GuardLoss::Keep,
        fence_reads: false,
        bare_stamps: true,
        forward_stamp: true,
    };
    Listener {
        name: "guard".into(),
        role: ListenerRole::Guard(guard),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        protocol,
        proxy_protocol: None,
        stale: crate::config::resolved::Stale::Refuse,
        socket_mode: 0o660,
        tls: None,
        identities: None,
        upstream,
        resource: None,
        rules: crate::rules::Rules::default(),
        serves: Vec::new(),
        limits,
        signatures: None,
    }
}

/// A role that has decided nothing yet.
pub fn role() -> Rc<FakeRole> {
    Rc::new(FakeRole {
        next: RefCell::default(),
        writes: Rc::default(),
        reads: Rc::default(),
        paths: RefCell::default(),
        refused: RefCell::default(),
        finished: RefCell::default(),
        cuts: RefCell::default(),
        open: Cell::new(0),
        standing: Cell::new(0),
    })
}

impl World {
    pub async fn client(&self) -> Raw {
        Raw::from(TcpStream::connect(self.address).await.expect("connect"))
    }

    /// The next connection that the target gets.
    pub async fn at_target(&self) -> Raw {
        Raw::from(self.target.accept().await.expect("accept").0)
    }

    /// Sends a request over a new connection, and has the target take its head.
    pub async fn sent(&self, request: &str) -> (Raw, Raw, String) {
        let mut client = self.client().await;
        client.send(request).await;
        let mut target = self.at_target().await;
        let head = target.head().await;
        (client, target, head)
    }
}

/// One end of a TCP connection, byte by byte.
pub struct Raw {
    pub socket: TcpStream,
    read: Vec<u8>,
}

impl From<TcpStream> for Raw {
    fn from(socket: TcpStream) -> Raw {
        Raw { socket, read: Vec::new() }
    }
}

impl Raw {
    pub async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.expect("write");
    }

    async fn more(&mut self) -> usize {
        self.socket.read_buf(&mut self.read).await.expect("read")
    }

    /// Up to and with `end`.
    pub async fn up_to(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).expect("text");
            }
            assert_ne!(self.more().await, 0, "ended after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// A head, in lower case.
    pub async fn head(&mut self) -> String {
        self.up_to("\r\n\r\n").await.to_lowercase()
    }

    pub async fn exactly(&mut self, bytes: usize) -> String {
        while self.read.len() < bytes {
            assert_ne!(self.more().await, 0, "ended after {:?}", String::from_utf8_lossy(&self.read));
        }
        let rest = self.read.split_off(bytes);
        String::from_utf8(std::mem::replace(&mut self.read, rest)).expect("text")
    }

    /// An answer with a Content-Length: its head in lower case, and its body.
    pub async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        let body = self.exactly(length).await;
        (head, body)
    }

    /// To the end, which must be in order.
    pub async fn rest(&mut self) -> String {
        while self.more().await > 0 {}
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
