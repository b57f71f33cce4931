//! Upgraded connections: bound to their epoch, and cut when it moves on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::support::client::Connection;
use super::support::process::{LONG, eventually};
use super::support::scene::Scene;

const UPGRADE: [(&str, &str); 2] = [("Connection", "upgrade"), ("Upgrade", "echo")];

/// A target that grants every upgrade, then says back what it hears. A stubborn one stays on when the other side has
/// ended, like a server that still works on what it got.
struct Echo {
    address: SocketAddr,
    /// The heads that came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    fn start(stubborn: bool) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let of_thread = Arc::clone(&heads);
        // Ends with the test's process: it waits for connections only.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heads = Arc::clone(&of_thread);
                thread::spawn(move || {
                    let stream = echo(stream, &heads);
                    while stubborn && stream.is_some() {
                        thread::park();
                    }
                });
            }
        });
        Echo { address, heads }
    }
}

fn echo(mut stream: TcpStream, heads: &Mutex<Vec<String>>) -> Option<TcpStream> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    heads.lock().expect("nobody panics with it").push(String::from_utf8_lossy(&head).to_lowercase());
    let grant = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nwelcome";
    let mut piece = [0; 4096];
    let _ = stream.write_all(grant);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        stream.write_all(&piece[..count]).ok()?;
    }
    Some(stream)
}

/// Exactly so many bytes of what comes.
fn hear(connection: &mut Connection, length: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < length {
        let more = connection.receive().expect("the tunnel stands");
        assert!(!more.is_empty(), "the tunnel ended after {} bytes", heard.len());
        heard.extend(more);
    }
    heard
}

#[test]
fn an_upgraded_connection_is_a_tunnel_until_the_epoch_moves_on() {
    let scene = Scene::embedded();
    let echo = Echo::start(false);
    let guard = scene.guard(&format!("http://{}", echo.address), "");
    // A tunnel does not end by itself: the leader waits for it only so long.
    let a = scene.node("orders-a").stamp(&guard.url(), "").more("step_down: { timeout: 200ms }").start();
    a.await_armed("orders");
    let b = scene.node("orders-b").stamp(&guard.url(), "").start();

    let mut tunnel = Connection::open(a.address()).unwrap();
    tunnel.send_head("GET", "/live", &UPGRADE).unwrap();
    let answer = tunnel.answer().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")), "{answer:?}");
    assert_eq!(hear(&mut tunnel, 7), b"welcome");
    let said = super::noise(300_000);
    let mut sender = said.chunks(10_000);
    for piece in &mut sender {
        tunnel.send(piece).unwrap();
        assert!(hear(&mut tunnel, piece.len()) == piece, "the echo is another");
    }
    // Also an upgrade by GET is a write: it was stamped.
    assert!(echo.heads.lock().unwrap()[0].contains("fencing-epoch: 1;nonce="), "{:?}", echo.heads);
    assert_eq!(guard.gate()["in_flight"], 1);

    // The standby may not open one.
    let mut refused = Connection::open(b.address()).unwrap();
    refused.send_head("GET", "/live", &UPGRADE).unwrap();
    assert_eq!(refused.answer().unwrap().status, 421);

    // The guard cuts the tunnel when the epoch moves on; the target then closes its side, so nothing is waited out.
    eventually("the other is a candidate", LONG, || a.post("/api/v1/step-down?resource=orders").status == 200);
    assert!(tunnel.ends_within(LONG), "the tunnel was not cut");
    b.await_armed("orders");
    let cut = guard.audited("the cut", |record| record["event"] == "cut");
    assert_eq!((&cut["path"], &cut["epoch"]), (&"/live".into(), &"1".into()), "{cut}");
    assert_eq!(guard.resource("orders")["last_handoff"]["by"], "answers");
    assert!(!guard.audit().iter().any(|record| record["event"] == "lost"));
    assert_eq!(guard.metric("connections_cut_total{listener=\"guard\",reason=\"fenced\"}"), 1.0);

    let mut tunnel = Connection::open(b.address()).unwrap();
    tunnel.send_head("GET", "/live", &UPGRADE).unwrap();
    assert_eq!(tunnel.answer().unwrap().status, 101);
    assert!(!tunnel.ends_within(Duration::from_millis(1)));
}

#[test]
fn bytes_before_the_grant_are_not_sent_and_a_refused_upgrade_leaves_http() {
    let scene = Scene::embedded();
    let target = super::Upstream::start();
    let guard = scene.guard(&target.url(), "");
    let a = scene.leader("orders-a", &guard, "");
    // The recording target grants nothing: its answer is an ordinary one, on a connection that goes on.
    let mut connection = Connection::open(a.address()).unwrap();
    let answer = connection.request("GET", "/live", &UPGRADE, b"").unwrap();
    assert_eq!(answer.status, 404);
    let answer = connection.request("PUT", "/after", &[], b"1").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(target.applied().len(), 1);
}

#[test]
fn a_tunnel_that_its_target_does_not_close_is_waited_out() {
    let scene = Scene::embedded();
    let echo = Echo::start(true);
    let url = format!("http://{}", echo.address);
    let times = format!("upstream: {{ url: \"{url}\", response_timeout: 300ms, send_timeout: 300ms }}");
    let drain = "drain: { timeout: 300ms, quarantine: 1s }";
    let guard = scene.node("guard").guard(&url, &times).more(drain).start();
    let a = scene.node("orders-a").stamp(&guard.url(), "").more("step_down: { timeout: 200ms }").start();
    a.await_armed("orders");
    let b = scene.node("orders-b").stamp(&guard.url(), "").start();
    let mut tunnel = Connection::open(a.address()).unwrap();
    tunnel.send_head("GET", "/live", &UPGRADE).unwrap();
    assert_eq!(tunnel.answer().unwrap().status, 101);
    eventually("the other is a candidate", LONG, || a.post("/api/v1/step-down?resource=orders").status == 200);
    b.await_armed("orders");
    assert_eq!(guard.resource("orders")["last_handoff"]["by"], "time");
    let last = guard.resource("orders")["last_handoff"].clone();
    let waited: f64 = ["fence_ms", "drain_ms"].iter().filter_map(|phase| last[phase].as_f64()).sum();
    assert!(waited >= 1300.0, "the drain's timeout and then the quarantine, but {waited} ms");
    guard.audited("the cut", |record| record["event"] == "cut");
    guard.audited("the loss", |record| record["event"] == "lost");
}
