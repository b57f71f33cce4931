//! Clients that mean harm, or are broken: more frames, streams and half heads than anybody needs. Memory stays bounded,
//! and a good client is answered meanwhile.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use support::client::{self, Connection};
use support::memory::most_memory;
use support::process::{LONG, eventually};
use support::world::{Sidecar, World};

const MEBIBYTE: usize = 1024 * 1024;
/// So much more memory than before may be in use at the end.
const ALLOWED: usize = 64 * MEBIBYTE;

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of a stamped PUT of `/`, in HPACK without a table.
fn head(stamp: &str) -> Vec<u8> {
    let mut block = vec![0x02, 3, b'P', b'U', b'T', 0x86, 0x84, 0x01, 1, b'a', 0x00, 13];
    block.extend(b"fencing-epoch");
    // Shorter than what would need a second byte.
    block.push(u8::try_from(stamp.len()).ok().filter(|length| *length < 127).unwrap());
    block.extend(stamp.as_bytes());
    block
}

/// Speaks HTTP/2 by hand: sends what `next` gives until that is all, the other side ends the connection, or takes
/// nothing for a while. Returns how many bytes went out, and whether the other side ended it.
fn flood(to: SocketAddr, mut next: impl FnMut(u32) -> Option<Vec<u8>>) -> (usize, bool) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut sent = 0;
    for number in 0.. {
        let Some(frames) = next(number) else { break };
        match stream.write_all(&frames) {
            Ok(()) => sent += frames.len(),
            Err(error) => {
                let full = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                return (sent, !full);
            }
        }
    }
    // It may have been ended while the last frames were on their way.
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut heard = [0; 4096];
    let ended = loop {
        match stream.read(&mut heard) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    };
    (sent, ended)
}

/// A guard with an open epoch, its stamp, and somebody who writes in order while `attack` goes on.
fn under_attack(what: &str, attack: impl FnOnce(&Sidecar, &str) + Send) {
    let mut world = World::embedded();
    let limits = "limits: { header_timeout: 1s, body_idle_timeout: 1s }";
    let mut guard = world.guard("guard").hasty().listener(limits).start();
    let (one, stamp) = world.elect("orders-a");
    guard.await_open(&one);
    assert_eq!(guard.put("/first", &stamp).status, 200);
    let id = guard.process().id();
    let before = most_memory(id);
    let mut slowest = Duration::ZERO;
    let mut answered = 0;
    thread::scope(|scope| {
        let attacker = scope.spawn(|| attack(&guard, &stamp));
        loop {
            let began = Instant::now();
            assert_eq!(guard.put("/good", &stamp).status, 200, "{what}");
            slowest = slowest.max(began.elapsed());
            answered += 1;
            if attacker.is_finished() {
                attacker.join().unwrap();
                break;
            }
        }
    });
    let more = most_memory(id).saturating_sub(before);
    println!("{what}: {answered} good writes, the slowest {slowest:?}; {} KiB more memory", more / 1024);
    assert!(more < ALLOWED, "{what}: {} MiB more than before", more / MEBIBYTE);
    // Whatever became of the rest: the next epoch opens, and nothing of the old one comes after it.
    let (_, next) = world.elect("orders-b");
    let opened = eventually_written(&guard, &next);
    assert_eq!(opened, 200);
    assert_eq!(guard.put("/late", &stamp).refused(), Some("stale_epoch"));
    world.upstream.assert_epochs_never_decrease();
}

/// The status of a write of the next epoch, which may be held for as long as lost writes count.
fn eventually_written(guard: &Sidecar, stamp: &str) -> u16 {
    client::request(guard.address, "PUT", "/next", &[("Fencing-Epoch", stamp)], b"x").unwrap().status
}

#[test]
fn streams_that_are_opened_and_reset_at_once() {
    under_attack("rapid reset", |guard, stamp| {
        let (block, cancelled) = (head(stamp), 8_u32.to_be_bytes());
        let (sent, ended) = flood(guard.address, |number| {
            let stream = 2 * number + 1;
            (number < 20_000)
                .then(|| [frame(HEADERS, END_HEADERS, stream, &block), frame(RESET, 0, stream, &cancelled)].concat())
        });
        println!("rapid reset: {sent} bytes, ended by the guard: {ended}");
    });
}

#[test]
fn a_head_that_never_ends() {
    under_attack("CONTINUATION flood", |guard, stamp| {
        let mut field = vec![0x00, 1, b'x', 0x7f, 0x81, 0x7e];
        field.resize(field.len() + 16_000 + 128, b'y');
        field.truncate(16_000);
        let block = head(stamp);
        let (sent, ended) = flood(guard.address, |number| match number {
            0 => Some(frame(HEADERS, 0, 1, &block)),
            _ if number < 4000 => Some(frame(CONTINUATION, 0, 1, &field)),
            _ => None,
        });
        println!("CONTINUATION flood: {sent} bytes, ended by the guard: {ended}");
        assert!(ended && sent < 16 * MEBIBYTE, "{sent} bytes of one head were taken");
    });
}

#[test]
fn questions_whose_answers_nobody_reads() {
    for (what, kind, payload) in [("PING flood", PING, &[0; 8][..]), ("SETTINGS flood", SETTINGS, &[])] {
        under_attack(what, |guard, _| {
            let many = frame(kind, 0, 0, payload).repeat(1000);
            let (sent, ended) = flood(guard.address, |number| (number < 1000).then(|| many.clone()));
            println!("{what}: {sent} bytes, ended by the guard: {ended}");
        });
    }
}

#[test]
fn heads_and_bodies_that_come_a_byte_at_a_time() {
    const SLOW: usize = 150;
    under_attack("slow clients", |guard, stamp| {
        let length = ["Content-Length", "1000"];
        let mut slow: Vec<Connection> = (0..2 * SLOW)
            .map(|number| {
                let mut client = Connection::open(guard.address).unwrap();
                if number < SLOW {
                    client.send(b"PUT /slow HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
                } else {
                    let head = [(length[0], length[1]), ("Fencing-Epoch", stamp)];
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
        eventually("every slow client was cut", LONG, || {
            slow.iter_mut()
                .all(|client| !matches!(client.receive(), Err(error) if error.kind() == io::ErrorKind::WouldBlock))
        });
    });
}
