//! Certificates and settings that are others while everything runs.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::place::Place;
use super::support::certificates::{Authority, Special, replace};
use super::support::client::{self, Connection};
use super::support::process::{LONG, eventually};

#[test]
fn certificates_are_swapped_under_load_and_no_request_fails() {
    let place = Place::new("");
    let mut a = place.leader("orders-a");
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = a.address();
    let mut guard_shows = vec![place.certificate_shown()];
    thread::scope(|scope| {
        for client in 0..4 {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                let mut kept = Connection::open(address).unwrap();
                for number in 0.. {
                    let path = format!("/{client}/{number}");
                    let answer = match client % 2 {
                        0 => kept.request("PUT", &path, &[], b"x").unwrap(),
                        _ => client::put(address, &path, "x").unwrap(),
                    };
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    written.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        for round in 1..=3 {
            // By a signal; by itself, because the content is another; by a command.
            place.authority.issue("guard", "db-guard", &Special::default());
            place.pair("orders-a");
            if round == 1 {
                place.guard.process.hang_up();
                a.process.hang_up();
            }
            if round == 3 {
                assert_eq!(place.guard.post("/api/v1/reload").status, 200);
                assert_eq!(a.post("/api/v1/reload").status, 200);
            }
            let taken = |node: &super::support::scene::Node| node.metric("config_reloads_total{outcome=\"applied\"}");
            let both = || taken(&place.guard) >= f64::from(round) && taken(&a) >= f64::from(round);
            eventually("both have taken it up", LONG, both);
            let before = written.load(Ordering::Relaxed);
            eventually("writes go on", LONG, || written.load(Ordering::Relaxed) > before + 20);
            guard_shows.push(place.certificate_shown());
        }
        stop.store(true, Ordering::Relaxed);
    });
    guard_shows.dedup();
    assert_eq!(guard_shows.len(), 4, "each was shown to those who came after it");
    println!("{} writes, none failed, over three swaps on both sides", written.load(Ordering::Relaxed));
    assert_eq!(place.target.applied().len(), written.load(Ordering::Relaxed));
    a.stop();
}

#[test]
fn files_that_are_wrong_change_nothing_and_are_tried_again() {
    let place = Place::new("");
    let a = place.leader("orders-a");
    let shown = place.certificate_shown();
    let refused = || place.guard.metric("config_reloads_total{outcome=\"refused\"}");
    let key = place.folder().join("guard.key");
    let good = fs::read_to_string(&key).unwrap();
    replace(&key, "nothing of the kind");
    let answer = place.guard.post("/api/v1/reload");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(
        answer.text().contains("guard.key") && answer.text().contains("what was in force stays"),
        "{}",
        answer.text()
    );
    assert_eq!((refused(), place.guard.metric("config_last_reload_successful")), (1.0, 0.0));
    assert_eq!(client::put(a.address(), "/one", "x").unwrap().status, 200);
    assert_eq!(place.certificate_shown(), shown);
    replace(&key, &good);
    eventually("the good one is taken up", LONG, || place.guard.metric("config_last_reload_successful") == 1.0);
}

#[test]
fn a_file_that_waits_for_a_restart_or_is_broken_keeps_no_certificate_from_being_renewed() {
    let place = Place::new("");
    let a = place.leader("orders-a");
    let file = place.guard.folder().join("epochgate.yaml");
    let text = fs::read_to_string(&file).unwrap();
    for waits in [text.replace("workers: 2", "workers: 1"), "id: [".to_owned()] {
        replace(&file, &waits);
        let before = place.certificate_shown();
        place.authority.issue("guard", "db-guard", &Special::default());
        assert_eq!(place.guard.post("/api/v1/reload").status, 409);
        eventually("the new certificate is shown", LONG, || place.certificate_shown() != before);
        assert_eq!(place.guard.metric("config_last_reload_successful"), 0.0);
    }
    assert_eq!(client::put(a.address(), "/one", "x").unwrap().status, 200);
}

#[test]
fn what_was_refused_is_tried_again_without_another_word() {
    let place = Place::new("");
    let before = place.certificate_shown();
    let key = fs::read_to_string(place.folder().join("guard.key")).unwrap();
    let cert = fs::read_to_string(place.folder().join("guard.crt")).unwrap();
    // The very same bytes as before, after something else was refused: they are in force, and it says so.
    place.authority.issue("guard", "db-guard", &Special { expired: true, ..Special::default() });
    assert_eq!(place.guard.post("/api/v1/reload").status, 409);
    assert_eq!(place.guard.post("/api/v1/reload").status, 409, "it is as wrong as before");
    replace(&place.folder().join("guard.key"), &key);
    replace(&place.folder().join("guard.crt"), &cert);
    assert_eq!(place.guard.post("/api/v1/reload").status, 200);
    assert_eq!(place.guard.metric("config_last_reload_successful"), 1.0);
    assert_eq!(place.certificate_shown(), before);
}

#[test]
fn nobody_keeps_a_right_by_keeping_a_connection() {
    let place = Place::new("");
    let a = place.leader("orders-a");
    let stamp = a.get("/leader?resource=orders").json()["stamp"].as_str().unwrap().to_owned();
    let pair = place.pair("orders-a");
    super::support::sidecar::wait_for(async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = place.session(&pair).await;
        // The head has begun; from here on another writer is known, and nobody else.
        stream.write_all(b"PUT /b HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let file = place.guard.folder().join("epochgate.yaml");
        let text = fs::read_to_string(&file).unwrap();
        replace(&file, &text.replace("    tls:", "    identities: [{ san: other, writer: other }]\n    tls:"));
        assert_eq!(place.guard.post("/api/v1/reload").status, 200);
        eventually("both workers have it", LONG, || client::put(a.address(), "/c", "x").unwrap().status == 403);
        let rest = format!("fencing-epoch: {stamp}\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx");
        stream.write_all(rest.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 403 "), "{}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn an_authority_that_is_taken_out_takes_its_clients_with_it() {
    let place = Place::new("");
    let mut a = place.leader("orders-a");
    let mut kept = Connection::open(a.address()).unwrap();
    assert_eq!(kept.request("PUT", "/one", &[], b"x").unwrap().status, 200);
    // The guard trusts another authority from now on. Who is connected stays so; who comes anew is refused.
    let other = Authority::new(place.folder(), "other");
    replace(&place.folder().join("ca.crt"), &fs::read_to_string(other.path()).unwrap());
    place.guard.process.hang_up();
    eventually("it is taken up", LONG, || place.guard.metric("config_reloads_total{outcome=\"applied\"}") == 1.0);
    assert_eq!(kept.request("PUT", "/two", &[], b"x").unwrap().status, 200, "its worker is connected");
    a.stop();
    let node = place.plan("orders-b", &other.path(), Some(&place.pair("orders-b")), "").start();
    let answer = client::get(node.address(), "/one").unwrap();
    assert_eq!(answer.refused(), Some("upstream_unreachable"), "{}", answer.text());
}

#[test]
fn settings_are_taken_whole_or_not_at_all_and_what_needs_a_restart_is_named() {
    let place = Place::new("");
    let a = place.leader("orders-a");
    assert_eq!(client::put(a.address(), "/one", "x").unwrap().status, 200);
    let file = place.guard.folder().join("epochgate.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let reload = || place.guard.post("/api/v1/reload");

    // Whom it knows: from now on nobody but another writer.
    let known = text.replace(
        "    tls:",
        "    identities: [{ san: \"{writer}\", resources: [orders], writer: orders-z }]\n    tls:",
    );
    assert_ne!(known, text);
    replace(&file, &known);
    let answer = reload();
    assert_eq!(
        (answer.status, answer.json()["replaced"].clone()),
        (200, serde_json::json!(["guard"])),
        "{}",
        answer.text()
    );
    let answer = client::put(a.address(), "/two", "x").unwrap();
    assert_eq!((answer.status, answer.refused()), (403, Some("identity_refused")), "{}", answer.text());

    // A restart would be needed for one of two: neither is taken.
    replace(&file, &text.replace("workers: 2", "workers: 1"));
    let answer = reload();
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("need a restart") && answer.text().contains("workers"), "{}", answer.text());
    assert_eq!(client::put(a.address(), "/three", "x").unwrap().status, 403, "nothing has changed");

    replace(&file, "id: [");
    assert_eq!(reload().status, 409);
    replace(&file, &text);
    assert_eq!(reload().status, 200);
    assert_eq!(client::put(a.address(), "/four", "x").unwrap().status, 200);
}

#[allow(dead_code, reason = "the other test uses the rest")]
#[path = "../hostile/frames.rs"]
mod frames;

#[test]
fn an_http2_client_that_will_not_hear_of_the_end_is_served_no_longer() {
    use std::io::Write as _;

    use super::support::scene::Scene;
    use super::support::upstream::Upstream;
    let (scene, target) = (Scene::embedded(), Upstream::start());
    let guard = scene.guard(&target.url(), "limits: { streams: 50 }");
    let a = scene.leader("orders-a", &guard, "");
    let stamp = a.get("/leader?resource=orders").json()["stamp"].as_str().unwrap().to_owned();
    let mut stream = frames::begin(guard.address(), &[]);
    let block = frames::put(&stamp);
    let mut number = 1;
    // It answers no ping, reads no GOAWAY, and goes on.
    let mut write = |stream: &mut std::net::TcpStream| {
        let sent =
            stream.write_all(&frames::frame(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, number, &block));
        number += 2;
        sent
    };
    write(&mut stream).unwrap();
    eventually("it is served", LONG, || target.applied().len() == 1);
    let file = guard.folder().join("epochgate.yaml");
    let text = fs::read_to_string(&file).unwrap();
    replace(&file, &text.replace("streams: 50", "streams: 51"));
    assert_eq!(guard.post("/api/v1/reload").status, 200);
    eventually("its connection ends", LONG, || write(&mut stream).is_err());
}
