//! What `epochgate check` says of a guard before a database.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::ground::{Asker, put_in, server, session_of};
use crate::support::postgres::{Postgres, Session, psql};
use crate::support::process::{LONG, Launch, eventually};
use crate::support::redis::Redis;

/// A configuration with one guard before this server of PostgreSQL.
fn config(folder: &Path, server: &Postgres, control: &str) -> String {
    config_of("postgres", folder, server.address, control)
}

fn config_of(protocol: &str, folder: &Path, server: SocketAddr, control: &str) -> String {
    let text = format!(
        "id: guard-1\nstate_dir: {0}/state\ncoordinator: {{ embedded: {0}/epochs }}\nresources: {{ orders: {{}} }}\n\
         listeners:\n- name: orders-guard\n  role: guard\n  protocol: {protocol}\n  listen: 127.0.0.1:0\n  \
         resource: orders\n  upstream:\n    url: {protocol}://{server}\n{control}",
        folder.display(),
    );
    let path = folder.join("epochgate.yaml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// What stands under `databases`: the result, and its words.
fn databases(path: &str) -> Vec<(String, String)> {
    let mut checked = Launch::epochgate("check").args(["check", "-o", "json", "-c", path]).run(LONG);
    let said = checked.stdout();
    let _ = checked.wait(LONG);
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let categories = report["categories"].as_array().unwrap();
    let category = categories.iter().find(|category| category["name"] == "databases").expect(&said);
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let one = |check: &Value| (text(&check["result"]), format!("{}; {}", text(&check["what"]), text(&check["hint"])));
    category["checks"].as_array().unwrap().iter().map(one).collect()
}

#[track_caller]
fn assert_says(findings: &[(String, String)], result: &str, words: &str) {
    assert!(findings.iter().any(|(is, said)| is == result && said.contains(words)), "{result} {words}: {findings:#?}");
}

#[test]
fn it_names_the_level_who_goes_around_and_what_is_prepared() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), &server, "    control: { user: epochgate, database: app }\n");
    psql(server.address, "app", "app", "CREATE TABLE orders (id int) PARTITION BY RANGE (id)").unwrap();
    // Sessions of the server's own commands are on their way out.
    let quiet = |server: &Postgres| eventually("nobody is connected", LONG, || server.sessions() == 0);
    quiet(&server);
    eventually("everybody has come through the guard", LONG, || {
        databases(&path).iter().any(|(_, said)| said.contains("every session has come through the guard"))
    });
    assert_says(&databases(&path), "ok", "orders: level proxy");
    assert_says(&databases(&path), "ok", "client_connection_check_interval");

    put_in(&server, "orders");
    assert_says(&databases(&path), "warning", "orders: level in-target, not raised yet");
    let asker = Asker::of(server.address);
    asker.prove(42).unwrap();
    assert_says(&databases(&path), "ok", "orders: level in-target, at epoch 42: 1 table(s): public.orders");

    psql(server.address, "app", "app", "CREATE TABLE low PARTITION OF orders FOR VALUES FROM (0) TO (9)").unwrap();
    assert_says(&databases(&path), "failed", "public.low has no trigger");
    put_in(&server, "orders");
    assert_says(&databases(&path), "ok", "2 table(s): public.low, public.orders");
    server.query("ALTER TABLE low DISABLE TRIGGER epochgate_fence");
    assert_says(&databases(&path), "failed", "turned off on public.low");

    let mut around = session_of(&server, 42);
    around.say("SET application_name = 'cron'");
    assert_says(&databases(&path), "warning", "app@app from 127.0.0.1");
    around.say("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'left over'");
    assert_says(&databases(&path), "warning", "1 prepared transaction(s): left over");
    around.say("ROLLBACK PREPARED 'left over'");
    drop((around, asker));
    let mut through = Session::open(server.address, "app", "app");
    through.say("SET application_name = 'app [epochgate 42]'");
    eventually("only who comes through the guard is there", LONG, || {
        databases(&path).iter().any(|(_, said)| said.contains("every session has come through the guard"))
    });
}

#[test]
fn it_says_what_a_control_connection_lacks() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), &server, "    control: { user: app, database: app }\n");
    assert_says(&databases(&path), "failed", "GRANT pg_monitor, pg_signal_backend TO \"app\"");
    let path = config(folder.path(), &server, "");
    assert_says(&databases(&path), "warning", "no control connection");
}

#[test]
fn at_redis_it_tries_each_right_that_a_proof_needs() {
    let server = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let control = format!("    control: {{ user: epochgate, password_file: {} }}\n", password.display());
    let path = config_of("redis", folder.path(), server.address, &control);
    assert_says(&databases(&path), "failed", "WRONGPASS");
    for (rights, what) in [
        ("+client|id +client|list +command", "NOPERM"),
        ("+client|id +client|kill +command", "NOPERM"),
        ("+client", "NOPERM"),
    ] {
        server.cli(
            &[&["ACL", "SETUSER", "epochgate", "reset", "on", ">secret"], &*rights.split(' ').collect::<Vec<_>>()]
                .concat(),
        );
        assert_says(&databases(&path), "failed", what);
    }
    server.cli(&["ACL", "SETUSER", "epochgate", "reset", "on", ">secret", "+client", "+command"]);
    let found = databases(&path);
    assert_says(&found, "ok", "sees every client, and may end them");
    assert_says(&found, "ok", "every client is of this host");

    let without = config_of("redis", folder.path(), server.address, "");
    assert_says(&databases(&without), "warning", "no control connection");
}
