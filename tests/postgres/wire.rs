//! The bytes themselves: what no well-meaning client sends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::World;
use crate::support::process::{LONG, eventually};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = 196_608_u32.to_be_bytes().to_vec();
    parameters.iter().for_each(|(name, value)| body.extend(format!("{name}\0{value}\0").bytes()));
    body.push(0);
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends this and returns all that comes until the other side ends the connection.
fn told(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn encryption_is_asked_for_at_most_once_and_nothing_hides_behind_it() {
    let world = World::start();
    let guard = world.guard.address;
    let epoch = world.epoch_of_a().to_string();
    let session = startup(&[("user", "app"), ("database", "app"), ("epochgate.epoch", &epoch)]);
    assert!(told(guard, &[&SSL_REQUEST[..], &session].concat()).contains("follow a request for encryption"));
    assert!(told(guard, &[&GSS_REQUEST[..], &SSL_REQUEST].concat()).contains("follow a request for encryption"));

    // One of each, then a session in plain text: as libpq does it.
    let mut stream = connect(guard);
    let mut no = [0];
    for request in [GSS_REQUEST, SSL_REQUEST] {
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut no).unwrap();
        assert_eq!(&no, b"N");
    }
    stream.write_all(&session).unwrap();
    stream.read_exact(&mut no).unwrap();
    assert_eq!(&no, b"R", "the server asks or greets");

    let mut twice = connect(guard);
    twice.write_all(&SSL_REQUEST).unwrap();
    twice.read_exact(&mut no).unwrap();
    twice.write_all(&SSL_REQUEST).unwrap();
    let mut answer = Vec::new();
    let _ = twice.read_to_end(&mut answer);
    assert!(String::from_utf8_lossy(&answer).contains("second time"));

    for (bad, why) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "length"),
        ([0, 0, 0, 8, 0, 2, 0, 0].to_vec(), "version 2"),
        (startup(&[("user", "app"), ("epochgate.epoch", "1"), ("epochgate.epoch", "2")]), "twice"),
        (startup(&[("database", "app")]), "no user"),
    ] {
        let answer = told(guard, &bad);
        assert!(answer.starts_with('E') && answer.contains("08P01") && answer.contains(why), "{answer:?}");
    }
    assert!(told(guard, &startup(&[("user", "app")])).contains("C57P01"));
}

#[test]
fn what_a_client_sends_ahead_waits_for_the_greeting_and_garbage_ends_the_session() {
    let world = World::start();
    let epoch = world.epoch_of_a().to_string();
    let session = startup(&[("user", "app"), ("database", "app"), ("epochgate.epoch", &epoch)]);
    let query =
        |sql: &str| [&b"Q"[..], &u32::try_from(sql.len() + 5).unwrap().to_be_bytes(), sql.as_bytes(), b"\0"].concat();
    // The startup message, a query and the end in one.
    let all = [&session[..], &query("CREATE TABLE ahead (what text)"), b"X\0\0\0\x04"].concat();
    let answer = told(world.guard.address, &all);
    assert!(answer.contains("CREATE TABLE"), "{answer:?}");
    // In single bytes.
    let mut slow = connect(world.guard.address);
    for byte in &all {
        slow.write_all(&[*byte]).unwrap();
    }
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(String::from_utf8_lossy(&answer).contains("42P07"), "the table is there");

    let answer = told(world.guard.address, &[&session[..], &query("SELECT 1"), b"Y\0\0\0\x04"].concat());
    assert!(answer.contains("FATAL"), "{answer:?}");
    eventually("it has ended", LONG, || world.guard.resource()["gate"]["in_flight"] == 0);
}
