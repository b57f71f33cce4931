//! Orphans are ended and seen gone, nobody else is, and where nothing can be proved it is said why.

use std::os::unix::fs::PermissionsExt as _;

use epochgate::net::dial::ClientSlot;

use crate::ground::{Asker, SHORT, as_user, await_running, server, upstream};
use crate::support::certificates::{Authority, Special};
use crate::support::link::Link;
use crate::support::other_user;
use crate::support::postgres::{Postgres, Session};

/// A session whose client is gone in the middle of a statement, in a transaction that has written.
fn orphan(server: &Postgres, user: &str) {
    let mut session = Session::open(server.address, user, "app");
    session.say("BEGIN");
    session.say("INSERT INTO orders VALUES (1)");
    session.begin("SELECT pg_sleep(600), 'orphan'");
    await_running(server, "orphan", 1);
    drop(session);
}

#[test]
fn a_session_whose_client_was_killed_is_ended_and_its_neighbours_are_spared() {
    let server = server();
    server.query("CREATE TABLE orders (id int); GRANT ALL ON orders TO app");
    let mut idle = Session::open(server.address, "app", "app");
    let mut busy = Session::open(server.address, "app", "app");
    busy.begin("SELECT pg_sleep(600), 'neighbour'");
    await_running(&server, "neighbour", 1);
    orphan(&server, "app");
    await_running(&server, "orphan", 1);

    let asker = Asker::of(server.address);
    let proof = asker.prove(42).unwrap();
    // A psql that was asked something just now may count too: its client is gone as well.
    assert!(proof.ended >= 1 && !proof.in_target, "{proof:?}");
    await_running(&server, "orphan", 0);
    await_running(&server, "neighbour", 1);
    assert_eq!(idle.say("SELECT 'alive'"), "alive");
    assert_eq!(server.query("SELECT count(*) FROM orders"), "0", "rolled back");
    asker.prove(43).unwrap();
    await_running(&server, "neighbour", 1);
}

#[test]
fn prepared_transactions_stand_and_are_counted() {
    let server = server();
    server.query("CREATE TABLE orders (id int)");
    server.query("BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'left'");
    assert_eq!(Asker::of(server.address).prove(42).unwrap().prepared, 1);
    server.query("COMMIT PREPARED 'left'");
    assert_eq!(server.query("SELECT count(*) FROM orders"), "1");
}

#[test]
fn behind_something_that_changes_addresses_nothing_is_proved() {
    let server = server();
    let relay = Link::to(server.address);
    let why = Asker::of(relay.address).prove(42).unwrap_err();
    assert!(why.contains("the server sees the control connection from") && why.contains("translation"), "{why}");
    assert!(why.contains("orders-guard") && why.contains(&relay.address.to_string()), "says where: {why}");
}

#[test]
fn without_the_rights_it_says_which_to_grant() {
    let server = server();
    server.query("CREATE ROLE nobody LOGIN");
    let why = Asker::with(as_user(upstream(server.address), "nobody"), ClientSlot::default()).prove(42).unwrap_err();
    assert!(why.contains("GRANT pg_monitor, pg_signal_backend TO \"nobody\""), "{why}");
    let why = Asker::with(as_user(upstream(server.address), "none"), ClientSlot::default()).prove(42).unwrap_err();
    assert!(why.contains("cannot log in as none to app") && why.contains("does not exist"), "{why}");
}

#[test]
fn a_superusers_session_is_not_ended_by_less_and_that_is_said() {
    let server = server();
    server.query("CREATE TABLE orders (id int)");
    orphan(&server, "postgres");
    let asker = Asker::of(server.address);
    let why = asker.prove(42).unwrap_err();
    assert!(why.contains("epochgate may not end process") && why.contains("superuser"), "{why}");
    server.query("ALTER ROLE epochgate SUPERUSER");
    assert!(asker.prove(42).unwrap().ended >= 1, "the same asker, which begins anew");
}

#[test]
fn a_password_is_read_where_it_is_asked_for() {
    let server = server();
    server.query("GRANT pg_monitor, pg_signal_backend TO scram");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let mut upstream = as_user(upstream(server.address), "scram");
    upstream.control.as_mut().unwrap().password_file = Some(file.clone());
    let asker = Asker::with(upstream, ClientSlot::default());
    assert!(asker.prove(42).unwrap_err().contains("cannot read upstream.control.password_file"));
    std::fs::write(&file, "wrong\n").unwrap();
    let why = asker.prove(42).unwrap_err();
    assert!(why.contains("password authentication failed") && !why.contains("wrong"), "{why}");
    std::fs::write(&file, "secret\n").unwrap();
    asker.prove(42).unwrap();
}

#[test]
fn over_tls_it_is_asked_for_first_and_the_server_has_to_be_who_it_is() {
    let mut server = server();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ca");
    let other = Authority::new(folder.path(), "other");
    let asker = Asker::over_tls(server.address, &authority.path());
    let mistaken = Asker::over_tls(server.address, &other.path());
    let why = asker.prove(42).unwrap_err();
    assert!(why.contains("the server takes no TLS"), "{why}");

    let pair = authority.issue("db", "db", &Special::default());
    for (file, from) in [("server.crt", &pair.cert), ("server.key", &pair.key)] {
        let to = server.data().join(file);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    other_user::give(&server.data());
    server.set("ssl", "on");
    server.stop();
    server.begin();
    asker.prove(42).unwrap();
    let secured =
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'epochgate' AND ssl";
    assert_eq!(server.query(secured), "1");
    let why = mistaken.prove(42).unwrap_err();
    assert!(why.contains("certificate"), "{why}");
}

#[test]
fn a_server_that_says_nothing_proves_nothing_and_one_that_is_back_does() {
    let mut server = server();
    let mut upstream = upstream(server.address);
    let patient = Asker::with(upstream.clone(), ClientSlot::default());
    upstream.response_timeout = SHORT;
    let hasty = Asker::with(upstream, ClientSlot::default());
    patient.prove(42).unwrap();
    server.pause();
    let why = hasty.prove(42).unwrap_err();
    assert!(why.contains("upstream.response_timeout"), "{why}");
    server.resume();
    server.kill();
    let why = patient.prove(42).unwrap_err();
    assert!(why.contains("control connection"), "{why}");
    server.begin();
    patient.prove(42).unwrap();
}
