//! What becomes of a connection whose request was refused before its body came: it goes on, or it says that it ends.

mod support;

use std::net::SocketAddr;

use support::client::Connection;
use support::ports;
use support::process::{LONG, Launch, Process, eventually};

/// A guard that refuses every write: nothing stamps here, and nothing is behind it.
fn guard(folder: &std::path::Path) -> (Process, SocketAddr) {
    let address = ports::free_address();
    let guard = Launch::epochgate("guard")
        .args(["guard", "--listen", &address.to_string(), "--upstream", "http://127.0.0.1:9", "--resource", "orders"])
        .args(["--admin", "none", "--state-dir"])
        .arg(folder.join("state"))
        .arg("--embedded")
        .arg(folder.join("epochs"))
        .start();
    eventually("the guard listens", LONG, || Connection::open(address).is_ok());
    (guard, address)
}

#[test]
fn a_small_body_that_comes_after_its_head_leaves_the_connection_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_guard, address) = guard(folder.path());
    let mut connection = Connection::open(address).expect("it listens");
    for _ in 0..3 {
        // In two packets, as many client libraries send it.
        connection.send_head("PUT", "/a", &[("content-length", "2")]).expect("sent");
        connection.send(b"hi").expect("the connection that was not said to end is there");
        let answer = connection.answer().expect("an answer");
        assert_eq!(answer.refused(), Some("stamp_required"));
        assert_eq!(answer.header("connection"), None);
    }
}

#[test]
fn a_body_that_is_not_waited_for_ends_the_connection_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_guard, address) = guard(folder.path());
    let large: &[(&str, &str)] = &[("content-length", "10000000")];
    let asking: &[(&str, &str)] = &[("content-length", "2"), ("expect", "100-continue")];
    let stalled: &[(&str, &str)] = &[("content-length", "2")];
    for headers in [large, asking, stalled] {
        let mut connection = Connection::open(address).expect("it listens");
        connection.send_head("PUT", "/a", headers).expect("sent");
        let answer = connection.answer().expect("an answer, before any of the body");
        assert_eq!(answer.refused(), Some("stamp_required"), "{headers:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{headers:?}");
        assert!(connection.ends_within(LONG), "{headers:?}");
    }
}
