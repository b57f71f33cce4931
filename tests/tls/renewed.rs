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
