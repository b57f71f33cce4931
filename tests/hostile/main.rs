//! Clients that mean harm, or are broken: more frames, streams, half heads and unread answers than anybody needs. Memory
//! stays bounded, the bad one is cut and counted, and a good client is answered meanwhile.
//!
//! `cargo test --test hostile -- --nocapture --test-threads 1` prints the table of memory and waiting times;
//! `EPOCHGATE_TESTED` names another binary, `EPOCHGATE_REQUESTS` how many go over one connection.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod frames;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use beside::{Attacked, beside_a_good_client};
use frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RESET, SETTINGS, WINDOW_UPDATE, begin, flood,
    frame, get, put,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::client::{self, Connection};
use support::memory::memory;
use support::process::{LONG, eventually};
use support::world::World;

const MEBIBYTE: usize = 1024 * 1024;
const LIMITS: &str = "header_timeout: 1s, body_idle_timeout: 1s, answer_idle_timeout: 1s";

#[test]
fn streams_that_are_opened_and_reset_at_once() {
    beside_a_good_client("HTTP/2 rapid reset: 20,000 streams", LIMITS, |guard| {
        let (block, cancelled) = (put(guard.stamp), 8_u32.to_be_bytes());
        let sent = flood(guard.guard, &[], true, |number| {
            let stream = 2 * number + 1;
            (number < 20_000)
                .then(|| [frame(HEADERS, END_HEADERS, stream, &block), frame(RESET, 0, stream, &cancelled)].concat())
        });
        assert!(sent.ended, "{sent:?}");
        guard.await_cuts("flood", 1);
    });
}

#[test]
fn a_head_that_never_ends() {
    beside_a_good_client("CONTINUATION flood: one head of 64 MB", LIMITS, |guard| {
        let field = [0x00, 1, b'x', 1, b'y'].repeat(3_200);
        let block = put(guard.stamp);
        let sent = flood(guard.guard, &[], true, |number| match number {
            0 => Some(frame(HEADERS, 0, 1, &block)),
            _ if number < 4000 => Some(frame(CONTINUATION, 0, 1, &field)),
            _ => None,
        });
        assert!(sent.ended && sent.bytes < 16 * MEBIBYTE, "{sent:?} of one head were taken");
        guard.await_cuts("flood", 1);
    });
}

/// One field of 4 kB goes into the table, and each head refers to it four thousand times: 16 MB in 4 kB.
#[test]
fn heads_that_grow_when_they_are_unpacked() {
    beside_a_good_client("HPACK bomb: 200 heads of 16 MB each", LIMITS, |guard| {
        let mut first = put(guard.stamp);
        // Into the table: a name of one byte, a value of 4000.
        first.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        first.extend(std::iter::repeat_n(b'y', 4000));
        let mut bomb = put(guard.stamp);
        bomb.extend(std::iter::repeat_n(0xbe, 4000));
        let sent = flood(guard.guard, &[], true, |number| match number {
            0 => Some(frame(HEADERS, END_HEADERS | END_STREAM, 1, &first)),
            _ if number <= 200 => Some(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &bomb)),
            _ => None,
        });
        println!("HPACK bomb: {sent:?}");
    });
}

#[test]
fn frames_that_ask_for_nothing() {
    let update = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    for (what, one) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])),
        ("WINDOW_UPDATE", update),
        ("unknown frame", frame(0xbe, 0, 1, b"?")),
    ] {
        for reads in [true, false] {
            let what = format!("{what} flood{}", if reads { "" } else { ", answers unread" });
            beside_a_good_client(&what, LIMITS, |guard| {
                let many = one.repeat(1000);
                let sent = flood(guard.guard, &[], reads, |number| (number < 1000).then(|| many.clone()));
                assert!(sent.ended, "{what}: {sent:?}");
                guard.await_cuts("flood", 1);
            });
        }
    }
}

#[test]
fn bodies_in_frames_of_nothing() {
    for (what, payload) in [("empty DATA flood", &b""[..]), ("DATA flood of single bytes", b"x")] {
        beside_a_good_client(what, "body_idle_timeout: 60s", |guard| {
            let block = put(guard.stamp);
            let many = frame(DATA, 0, 1, payload).repeat(1000);
            let sent = flood(guard.guard, &[], true, |number| match number {
                0 => Some(frame(HEADERS, END_HEADERS, 1, &block)),
                _ if number < 1000 => Some(many.clone()),
                _ => None,
            });
            println!("{what}: {sent:?}");
            if payload.is_empty() {
                assert!(sent.ended, "{sent:?}");
                guard.await_cuts("flood", 1);
            }
        });
    }
}

/// Windows of no bytes: `SETTINGS_INITIAL_WINDOW_SIZE`.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// Asks for so many large answers on one connection.
fn ask(stream: &mut TcpStream, count: u32) {
    let block = get("/large");
    for number in 0..count {
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block)).unwrap();
    }
}

#[test]
fn answers_for_which_there_is_no_window() {
    const CONNECTIONS: u32 = 20;
    beside_a_good_client("HTTP/2 window stall: 20 × 50 answers of 16 MiB", LIMITS, |guard| {
        let stalled: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| {
                let mut stream = begin(guard.guard, &NO_WINDOW);
                ask(&mut stream, 50);
                stream
            })
            .collect();
        // One whose target is late on a slow machine has an answer that does not wait for it: it goes when it answers no
        // ping.
        let cut = || guard.cuts("slow_reader") + guard.cuts("idle");
        eventually("every connection was cut", 2 * LONG, || cut() >= u64::from(CONNECTIONS));
        assert!(guard.cuts("slow_reader") > 0);
        drop(stalled);
    });
}

#[test]
fn windows_that_open_by_a_byte() {
    beside_a_good_client("HTTP/2 windows of one byte", LIMITS, |guard| {
        let (block, byte) = (get("/large"), 1_u32.to_be_bytes());
        let many = frame(WINDOW_UPDATE, 0, 1, &byte).repeat(100);
        let sent = flood(guard.guard, &NO_WINDOW, true, |number| match number {
            0 => Some(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)),
            _ if number < 1000 => Some(many.clone()),
            _ => None,
        });
        assert!(sent.ended, "{sent:?}");
        guard.await_cuts("flood", 1);
    });
}

#[test]
fn heads_and_bodies_that_come_a_byte_at_a_time() {
    const SLOW: usize = 150;
    beside_a_good_client("slowloris: 150 heads, 150 bodies", LIMITS, |guard| {
        let mut slow: Vec<Connection> = (0..2 * SLOW)
            .map(|number| {
                let mut client = Connection::open(guard.guard).unwrap();
                if number < SLOW {
                    client.send(b"PUT /slow HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
                } else {
                    let head = [("Content-Length", "1000"), ("Fencing-Epoch", guard.stamp)];
                    client.send_head("PUT", "/slow", &head).unwrap();
                }
                client
            })
            .collect();
        // A byte now and then keeps no head open; a body needs more than nothing.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            slow.iter_mut().take(SLOW).for_each(|client| drop(client.send(b"y")));
            thread::sleep(Duration::from_millis(100));
        }
        eventually("every slow client was cut", LONG, || slow.iter_mut().all(has_ended));
        guard.await_cuts("header_timeout", SLOW as u64);
        guard.await_cuts("idle", SLOW as u64);
    });
}

/// Whether the connection has ended, or says something.
fn has_ended(client: &mut Connection) -> bool {
    !matches!(client.receive(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether what a client has not read begins so.
fn says(client: &TcpStream, words: &[u8]) -> bool {
    let mut space = vec![0; words.len()];
    client.set_nonblocking(true).unwrap();
    client.peek(&mut space).is_ok_and(|read| &space[..read] == words)
}

#[test]
fn answers_that_nobody_reads() {
    const SLOW: usize = 150;
    beside_a_good_client("slow reading: 150 answers of 16 MiB", LIMITS, |guard| {
        let slow: Vec<TcpStream> = (0..SLOW)
            .map(|_| {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.set_recv_buffer_size(4096).unwrap();
                socket.connect(&guard.guard.into()).unwrap();
                let mut client = TcpStream::from(socket);
                client.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                client
            })
            .collect();
        // On a slow machine the target is late for some of them: those are told so, and are no slow readers.
        let told_late = || slow.iter().filter(|client| says(client, b"HTTP/1.1 504")).count();
        eventually("everybody else was cut", LONG, || guard.cuts("slow_reader") as usize + told_late() >= SLOW);
        assert!(guard.cuts("slow_reader") > 0);
        drop(slow);
    });
}

/// Requests on one connection: 20,000, or as many as the environment says.
#[test]
fn a_connection_that_never_ends() {
    const AT_ONCE: usize = 100;
    let count = std::env::var("EPOCHGATE_REQUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    beside_a_good_client(&format!("{count} pipelined requests on one connection"), LIMITS, |guard| {
        let request =
            format!("GET /none HTTP/1.1\r\nHost: a\r\nFencing-Epoch: {}\r\n\r\n", guard.stamp).repeat(AT_ONCE);
        let mut stream = TcpStream::connect(guard.guard).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut reading = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..count / AT_ONCE {
                    stream.write_all(request.as_bytes()).unwrap();
                }
            });
            let (mut answers, mut space) = (0, vec![0; 64 * 1024]);
            // Every answer has one such line, which may come in two pieces.
            let (mark, mut kept) = (&b"HTTP/1.1 "[..], 0);
            while answers < count / AT_ONCE * AT_ONCE {
                let read = reading.read(&mut space[kept..]).unwrap();
                assert_ne!(read, 0, "it ended after {answers} answers");
                let filled = kept + read;
                answers += space[..filled].windows(mark.len()).filter(|window| *window == mark).count();
                let rest = (mark.len() - 1).min(filled);
                space.copy_within(filled - rest..filled, 0);
                kept = rest;
            }
        });
    });
}

/// Lets a process open so many descriptors.
fn allow_descriptors(id: u32, count: u64) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process has an id");
    let limit = Rlimit { current: Some(count), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(pid), Resource::Nofile, limit).expect("the limit of a child can be set");
}

#[test]
fn nine_and_a_half_thousand_connections() {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(20_000);
    let count = usize::try_from(most).unwrap().saturating_sub(500).min(9_500);
    let own = u32::try_from(rustix::process::getpid().as_raw_nonzero().get()).unwrap();
    allow_descriptors(own, most);
    let mut world = World::embedded();
    let mut guard = world.guard("guard").listener("limits: { idle_timeout: 10m }").start();
    let id = guard.process().id();
    allow_descriptors(id, most);
    let (one, stamp) = world.elect("orders-a");
    guard.await_open(&one);
    assert_eq!(guard.put("/first", &stamp).status, 200);
    let before = memory(id);
    let mut crowd: Vec<Connection> = (0..count).map(|_| Connection::open(guard.address).unwrap()).collect();
    for client in &mut crowd {
        assert_eq!(client.request("GET", "/none", &[], b"").unwrap().status, 404);
    }
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let asked = Instant::now();
            assert_eq!(guard.put("/good", &stamp).status, 200);
            asked.elapsed()
        })
        .collect();
    times.sort_unstable();
    let each = memory(id).saturating_sub(before) / count;
    println!("{count} idle connections: {each} bytes each; a write on a new one beside them: p99 {:.2?}", times[198]);
    assert!(each < 64 * 1024, "{each} bytes for an idle connection");
}

/// A connection from an address of this machine's that is not the usual one.
fn from(host: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address: SocketAddr = format!("{host}:0").parse().unwrap();
    socket.bind(&address.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn one_address_does_not_take_every_connection() {
    let mut world = World::embedded();
    let limits = "limits: { connections: 40, connections_per_peer: 10 }";
    let guard = world.guard("guard").listener(limits).start();
    let (one, stamp) = world.elect("orders-a");
    guard.await_open(&one);
    let attacked = Attacked { guard: guard.address, admin: guard.admin, stamp: &stamp };
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(guard.address).unwrap()).collect();
    attacked.await_cuts("limit", 90);
    for _ in 0..4 {
        let mut other = from("127.0.0.2", guard.address);
        write!(other, "PUT /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nFencing-Epoch: {stamp}\r\n\r\n").unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
    drop(crowd);
    eventually("its places are free again", LONG, || {
        client::request(guard.address, "PUT", "/b", &[("Fencing-Epoch", &stamp)], b"x").is_ok()
    });
}
