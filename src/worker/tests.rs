use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::setup::{gates_of, stamped_by};
use super::*;
use crate::config::Config;
use crate::config::resolved::{self, Hold};
use crate::event::EventSink;
use crate::fence::gate::Order;
use crate::fence::mechanism::Mechanisms;
use crate::fence::tenure::{Armed, Standing};
use crate::mailbox::{Account, Answer, GateId, ToControl, WorkerId};
use crate::metrics::Metrics;
use crate::net::{Accept, Acceptor, Closing, Stage, Stream, listen};
use crate::peer::Peer;
use crate::protocol::right::Settled;
use crate::protocol::{Accepted, Decision, Party, Right, Role};
use crate::roles::testing::*;

const GATE: GateId = GateId(0);
/// Long enough for any machine; nothing waits for it that goes well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A protocol of lines: `write [STAMP]` is answered `ok`, or with the reason of the refusal; `keep [STAMP]` keeps the
/// right until `done`; `panic [STAMP]` panics with the right in its hands.
struct Lines(Rc<dyn Role>);

impl Protocol for Lines {
    fn serve(&self, Accepted { stream, who, closing, .. }: Accepted) -> Serving {
        Box::pin(converse(Rc::clone(&self.0), stream, who, closing))
    }

    fn writes_in_flight(&self) -> usize {
        0
    }
}

async fn converse(role: Rc<dyn Role>, stream: Stream, who: Party, mut closing: Closing) {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = tokio::io::BufReader::new(read).lines();
    let mut kept: Vec<Right> = Vec::new();
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            () = closing.until(Stage::Finishing), if kept.is_empty() => return,
        };
        let Ok(Some(line)) = line else { return };
        let (word, stamp) = line.split_once(' ').unwrap_or((&line, ""));
        let fields = if stamp.is_empty() { vec![] } else { vec![("fencing-epoch", stamp)] };
        let head = Head::of(&fields);
        if word == "done" {
            kept.drain(..).for_each(|right| right.settle(Settled::Answered));
            continue;
        }
        let decided = loop {
            let facts = crate::protocol::Facts { peer: who.peer, binding: who.binding, ..facts("PUT", "/a", &head, 0) };
            match role.decide(&facts) {
                Decision::Forward(right) => break Ok(right),
                Decision::Refuse(refusal) => break Err(refusal),
                Decision::Hold(held) => {
                    if let Err(refusal) = held.await {
                        break Err(refusal);
                    }
                }
            }
        };
        let answer = match (word, decided) {
            (_, Err(refusal)) => refusal.reason.as_str(),
            ("keep", Ok(right)) => {
                kept.push(right);
                "kept"
            }
            ("write", Ok(right)) => {
                right.settle(Settled::Answered);
                "ok"
            }
            (_, Ok(_right)) => panic!("{word}"),
        };
        if write.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A client of it, blocking.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Client(BufReader::new(stream))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").expect("it reads");
    }

    /// The next answer; empty where the connection ended instead.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(_) => line.trim_end().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }
}

/// A process that guards and stamps `orders`, with one worker.
struct Process {
    config: Config,
    clock: Arc<TestClock>,
    standing: Arc<Standing>,
}

struct Running {
    to: mpsc::UnboundedSender<ToWorker>,
    control: mpsc::UnboundedReceiver<ToControl>,
    guard: SocketAddr,
    stamp: SocketAddr,
}

impl Process {
    fn new() -> Process {
        let mut config = crate::metrics::tests::config(&["orders"]);
        config.hold = Hold { requests: 10, bytes: 10_000, timeout: PATIENCE };
        for listener in &mut config.listeners {
            Arc::make_mut(listener).limits.connections = 10;
        }
        Process { config, clock: Arc::default(), standing: Arc::new(Standing::new(Mechanisms::all())) }
    }

    fn setup(&self) -> (WorkerSetup, mpsc::UnboundedReceiver<ToControl>, [SocketAddr; 2]) {
        let metrics = Metrics::new(prometheus::Registry::new(), &self.config).expect("new metrics");
        let (control, reports) = mpsc::unbounded_channel();
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for listener in &self.config.listeners {
            let socket = listen::bind("127.0.0.1:0".parse().expect("an address"), 1).expect("a free port").remove(0);
            addresses.push(socket.local_addr().expect("an address"));
            let meters = metrics.meters(&listener.name).expect("it is configured");
            let protocol: setup::MakeProtocol = Box::new(|_, role, _| Rc::new(Lines(role)));
            listeners.push(ListenerSetup::on(
                listen::Socket::Tcp(socket),
                Arc::clone(listener),
                meters,
                protocol,
                Default::default(),
            ));
        }
        let setup = WorkerSetup {
            id: WorkerId(0),
            workers: 1,
            writer: self.config.id.clone(),
            header: self.config.header.clone(),
            hold: self.config.hold,
            gates: gates_of(&self.config, Mechanisms::all()),
            stamped: stamped_by(&self.config),
            standing: Arc::clone(&self.standing),
            listeners,
            clock: self.clock.clone(),
            events: EventSink::nowhere(),
            control,
        };
        (setup, reports, addresses.try_into().expect("two listeners"))
    }

    fn spawn(&self) -> (Running, thread::JoinHandle<io::Result<()>>) {
        let (setup, control, [guard, stamp]) = self.setup();
        let WorkerHandle { to, thread } = spawn(setup).expect("a thread");
        (Running { to, control, guard, stamp }, thread)
    }
}

impl Running {
    fn send(&self, mail: ToWorker) {
        self.to.send(mail).expect("it works");
    }

    fn next(&mut self) -> ToControl {
        self.control.blocking_recv().expect("it works")
    }

    fn hand_over(&mut self, number: u64) {
        self.send(ToWorker::Order(GATE, Order::Fence(term(number))));
        self.send(ToWorker::Order(GATE, Order::Open(term(number))));
    }

    /// Opens `number` and waits until it is so.
    fn open(&mut self, number: u64) {
        self.hand_over(number);
        while !matches!(self.next(), ToControl::Drained(_, GATE, drained) if drained == epoch(number)) {}
    }

    fn account(&self) -> Account {
        let (reply, account) = oneshot::channel();
        self.send(ToWorker::Report(reply));
        account.blocking_recv().expect("it works")
    }

    /// Asks for accounts until one is as wanted.
    fn until(&self, wanted: impl Fn(&Account) -> bool) -> Account {
        let begun = std::time::Instant::now();
        loop {
            let account = self.account();
            if wanted(&account) {
                return account;
            }
            assert!(begun.elapsed() < PATIENCE, "{account:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stopped(&mut self) -> Vec<GateId> {
        loop {
            if let ToControl::Stopped { worker: WorkerId(0), unclean } = self.next() {
                return unclean;
            }
        }
    }
}

#[test]
fn a_worker_serves_reports_and_stops() {
    let (mut worker, thread) = Process::new().spawn();
    worker.open(5);
    let mut client = Client::connect(worker.guard);
    assert_eq!(client.ask(&format!("write {}", stamp(5))), "ok");
    assert_eq!(client.ask(&format!("write {}", stamp(4))), "stale_epoch");
    assert_eq!(client.ask("write"), "stamp_required");
    assert_eq!(Client::connect(worker.stamp).ask("write"), "not_leader");
    worker.send(ToWorker::Ping(9));
    assert!(matches!(worker.next(), ToControl::Pong(WorkerId(0), 9)));
    let (reply, flushed) = oneshot::channel();
    worker.send(ToWorker::Flush(reply));
    flushed.blocking_recv().expect("it works");
    let account =
        worker.until(|account| account.connections == [("orders-guard".into(), 1), ("orders-stamp".into(), 0)]);
    assert_eq!((account.gates, account.stamped), (vec![], vec![]));
    worker.send(ToWorker::Stop);
    assert_eq!(worker.stopped(), []);
    thread.join().expect("no panic").expect("no error");
    assert_eq!(client.hear(), "", "the connection has ended");
    assert!(TcpStream::connect(worker.guard).is_err(), "nobody listens");
}

#[test]
fn a_held_write_goes_on_when_its_term_opens() {
    let (mut worker, thread) = Process::new().spawn();
    worker.open(4);
    let (mut old, mut new) = (Client::connect(worker.guard), Client::connect(worker.guard));
    assert_eq!(old.ask(&format!("keep {}", stamp(4))), "kept");
    new.say(&format!("write {}", stamp(5)));
    let ToControl::Ask { worker: WorkerId(0), number, gate: GATE, epoch: asked } = worker.next() else {
        panic!("the epoch is new")
    };
    assert_eq!(asked, epoch(5));
    worker.send(ToWorker::Answer(number, Answer::Known));
    worker.send(ToWorker::Order(GATE, Order::Fence(term(5))));
    assert!(matches!(worker.next(), ToControl::Fenced(_, GATE, _)));
    let account = worker.until(|account| account.gates.iter().any(|gate| gate.held == 1));
    let [gate] = &account.gates[..] else { panic!("{account:?}") };
    assert_eq!((gate.in_flight, gate.lost), (1, 0));
    assert_eq!((&*gate.holders[0].what, gate.holders[0].epoch), ("PUT /a", Some(epoch(4))));
    old.say("done");
    assert!(matches!(worker.next(), ToControl::Quiet(_, GATE, _)));
    assert!(matches!(worker.next(), ToControl::Drained(_, GATE, _)));
    worker.send(ToWorker::Order(GATE, Order::Open(term(5))));
    assert_eq!(new.hear(), "ok");
    worker.send(ToWorker::Stop);
    assert_eq!(worker.stopped(), []);
    thread.join().expect("no panic").expect("no error");
}

/// The worker runs on the test's own thread, so that nothing of it happens between the two lines that matter.
#[test]
fn what_waits_to_be_accepted_is_bound_to_the_old_standing() {
    let mut process = Process::new();
    process.standing = Arc::new(leading(3, Armed::Yes));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (setup, mut control, [_, address]) = process.setup();
        let (to, mailbox) = mpsc::unbounded_channel();
        let scenario = async {
            // Turns of the runtime, until the worker waits for connections.
            to.send(ToWorker::Ping(0)).expect("it works");
            assert!(matches!(control.recv().await, Some(ToControl::Pong(..))));
            // In the kernel's queue when this returns; the worker has had no turn since.
            let waiting = Client::connect(address);
            let mut next = (*process.standing).clone();
            next.end(&orders());
            next.begin(orders(), term(5));
            next.tenures.get_mut(&orders()).expect("it leads").armed = Armed::Yes;
            let version = next.version;
            to.send(ToWorker::Standing(Arc::new(next))).expect("it works");
            assert!(matches!(control.recv().await, Some(ToControl::Adopted(_, adopted)) if adopted == version));
            let later = Client::connect(address);
            let ask = |mut client: Client| tokio::task::spawn_blocking(move || client.ask("write"));
            assert_eq!(ask(waiting).await.expect("no panic"), "term_changed");
            assert_eq!(ask(later).await.expect("no panic"), "ok");
            to.send(ToWorker::Deadline(Some(crate::fence::Moment::default()))).expect("it works");
            assert_eq!(ask(Client::connect(address)).await.expect("no panic"), "not_leader");
            to.send(ToWorker::Abort).expect("it works");
        };
        let (ran, ()) = tokio::join!(run(setup, mailbox), scenario);
        ran.expect("no error");
    });
}

/// A listener of a process that has no descriptors left, as long as `exhausted` says so.
struct Exhausted {
    acceptor: Acceptor,
    exhausted: Arc<std::sync::atomic::AtomicBool>,
}

impl Exhausted {
    fn check(&self) -> io::Result<()> {
        match self.exhausted.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(24)),
            false => Ok(()),
        }
    }
}

impl Accept for Exhausted {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        self.check()?;
        std::pin::pin!(self.acceptor.accept()).poll(context).map(Ok)
    }

    fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        self.check()?;
        self.acceptor.accept_waiting()
    }
}

#[test]
fn what_waits_and_cannot_be_accepted_is_bound_to_the_old_standing_when_it_can() {
    let mut process = Process::new();
    process.standing = Arc::new(leading(3, Armed::Yes));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut setup, mut control, [_, address]) = process.setup();
        let exhausted = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let says = Arc::clone(&exhausted);
        let made = std::mem::replace(&mut setup.listeners[1].accept, Box::new(|| unreachable!("it is replaced")));
        setup.listeners[1].accept =
            Box::new(move || Ok(Acceptor::from_source(Exhausted { acceptor: made()?, exhausted: says })));
        let (to, mailbox) = mpsc::unbounded_channel();
        let scenario = async {
            to.send(ToWorker::Ping(0)).expect("it works");
            assert!(matches!(control.recv().await, Some(ToControl::Pong(..))));
            exhausted.store(true, std::sync::atomic::Ordering::SeqCst);
            let waiting = Client::connect(address);
            let mut next = (*process.standing).clone();
            next.end(&orders());
            next.begin(orders(), term(5));
            next.tenures.get_mut(&orders()).expect("it leads").armed = Armed::Yes;
            to.send(ToWorker::Standing(Arc::new(next))).expect("it works");
            assert!(matches!(control.recv().await, Some(ToControl::Adopted(..))));
            exhausted.store(false, std::sync::atomic::Ordering::SeqCst);
            let ask = |mut client: Client| tokio::task::spawn_blocking(move || client.ask("write"));
            assert_eq!(ask(waiting).await.expect("no panic"), "term_changed");
            assert_eq!(ask(Client::connect(address)).await.expect("no panic"), "ok");
            to.send(ToWorker::Abort).expect("it works");
        };
        let (ran, ()) = tokio::join!(run(setup, mailbox), scenario);
        ran.expect("no error");
    });
}

#[test]
fn a_stop_waits_for_what_is_in_flight_and_an_abort_does_not() {
    for abort in [false, true] {
        let (mut worker, thread) = Process::new().spawn();
        worker.open(5);
        let mut client = Client::connect(worker.guard);
        assert_eq!(client.ask(&format!("keep {}", stamp(5))), "kept");
        worker.send(ToWorker::Stop);
        worker.send(ToWorker::Ping(1));
        assert!(matches!(worker.next(), ToControl::Pong(..)), "it still answers");
        if abort {
            worker.send(ToWorker::Abort);
            assert_eq!(worker.stopped(), [GATE], "what was in flight is lost");
        } else {
            client.say("done");
            assert_eq!(worker.stopped(), []);
        }
        thread.join().expect("no panic").expect("no error");
        assert_eq!(client.hear(), "");
    }
}

#[test]
fn a_panic_in_a_request_is_a_loss_and_the_worker_goes_on() {
    let process = Process::new();
    let (mut worker, thread) = process.spawn();
    process.clock.set(10);
    worker.open(4);
    assert_eq!(Client::connect(worker.guard).ask(&format!("panic {}", stamp(4))), "");
    let account = worker.until(|account| account.connections[0].1 == 0);
    assert_eq!((account.gates[0].in_flight, account.gates[0].lost), (0, 1));
    assert_eq!(Client::connect(worker.guard).ask(&format!("write {}", stamp(4))), "ok");
    worker.send(ToWorker::Order(GATE, Order::Fence(term(5))));
    assert!(matches!(worker.next(), ToControl::Fenced(..)));
    assert!(matches!(worker.next(), ToControl::Quiet(..)));
    // Time alone ends it; nobody sends the worker anything.
    process.clock.set(11);
    assert!(matches!(worker.next(), ToControl::Drained(_, GATE, drained) if drained == epoch(5)));
    worker.send(ToWorker::Stop);
    assert_eq!(worker.stopped(), []);
    thread.join().expect("no panic").expect("no error");
}

#[test]
fn a_worker_without_control_ends() {
    let (worker, thread) = Process::new().spawn();
    let mut client = Client::connect(worker.guard);
    client.say("write 5");
    drop(worker);
    thread.join().expect("no panic").expect("no error");
    assert_eq!(client.hear(), "");
}

#[test]
fn each_worker_takes_its_share_of_connections() {
    let mut process = Process::new();
    Arc::make_mut(&mut process.config.listeners[0]).limits.connections = 1;
    let (worker, thread) = process.spawn();
    let mut first = Client::connect(worker.guard);
    assert_eq!(first.ask("write 0"), "malformed_stamp");
    let mut second = Client::connect(worker.guard);
    assert_eq!(second.hear(), "", "one too many");
    drop(first);
    worker.until(|account| account.connections[0].1 == 0);
    assert_eq!(Client::connect(worker.guard).ask("write 0"), "malformed_stamp");
    worker.send(ToWorker::Abort);
    thread.join().expect("no panic").expect("no error");
}

struct Panics;

impl Accept for Panics {
    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        panic!("a panic of the worker itself")
    }

    fn accept_waiting(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        Ok(None)
    }
}

#[test]
fn a_panic_of_the_worker_ends_its_thread() {
    let (mut setup, _control, _) = Process::new().setup();
    setup.listeners[1].accept = Box::new(|| Ok(Acceptor::from_source(Panics)));
    let worker = spawn(setup).expect("a thread");
    assert!(worker.thread.join().is_err(), "control sees it");
    assert!(worker.to.is_closed());
}

#[test]
fn gates_are_numbered_alike_for_all() {
    let mut config = crate::metrics::tests::config(&["orders", "users"]);
    let gates = gates_of(&config, Mechanisms::all());
    assert_eq!(gates.iter().map(|gate| gate.name.resource.as_str()).collect::<Vec<_>>(), ["orders", "users"]);
    assert_eq!(gates[0].hold_timeout, config.hold.timeout);
    assert_eq!(stamped_by(&config).len(), 2);
    config.listeners.retain(|listener| matches!(listener.role, resolved::Role::Stamp(_)));
    assert!(gates_of(&config, Mechanisms::all()).is_empty());
}

/// A target that answers every request with what it got of the stamp.
fn target() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream);
            let mut stamp = String::new();
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("fencing-epoch: ") {
                    value.trim_end().clone_into(&mut stamp);
                }
                line.clear();
            }
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{stamp}", stamp.len());
            if lines.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    address
}

/// One request on a connection of its own; the whole answer.
fn put(address: SocketAddr, stamp: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let request = format!(
        "PUT /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nFencing-Epoch: {stamp}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    answer
}

#[test]
fn it_guards_http() {
    let mut process = Process::new();
    for listener in &mut process.config.listeners {
        let listener = Arc::make_mut(listener);
        listener.upstream.authority = target().to_string().into();
        listener.limits = resolved::Limits { headers: 100, header_bytes: 64 * 1024, streams: 100, ..listener.limits };
        for limit in [
            &mut listener.upstream.connect_timeout,
            &mut listener.upstream.response_timeout,
            &mut listener.limits.header_timeout,
            &mut listener.limits.idle_timeout,
        ] {
            *limit = PATIENCE;
        }
    }
    let (mut setup, control, [guard, stamp_address]) = process.setup();
    for listener in &mut setup.listeners {
        let header = ::http::HeaderName::from_static("fencing-epoch");
        listener.protocol = over_http(header, process.clock.clone(), Mechanisms::all());
    }
    let WorkerHandle { to, thread } = spawn(setup).expect("a thread");
    let mut worker = Running { to, control, guard, stamp: stamp_address };
    worker.open(5);
    let answer = put(guard, &stamp(5).replace(';', "; "));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&stamp(5).to_ascii_lowercase()), "{answer}");
    let answer = put(guard, &stamp(4));
    assert!(answer.starts_with("HTTP/1.1 412") && answer.contains("\"required_epoch\":\"5\""), "{answer}");
    worker.send(ToWorker::Stop);
    assert_eq!(worker.stopped(), []);
    thread.join().expect("no panic").expect("no error");
}
