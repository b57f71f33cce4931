//! TLS on every leg: asked for in the protocol's own way by clients and of the server, and begun at once between sidecars.

use std::fs;

use crate::support::certificates::{Authority, Special};
use crate::support::postgres::{Postgres, newest_libpq, psql_launch};
use crate::support::process::LONG;
use crate::support::sidecar::{etcd, guard, stamp};
use crate::support::{other_user, process::eventually};

#[test]
fn every_leg_has_tls_and_passwords_pass_untouched() {
    let (etcd, folder) = (etcd(), tempfile::tempdir().unwrap());
    let authority = Authority::new(folder.path(), "ca");
    let own = authority.issue("own", "localhost", &Special::default());
    let mut postgres = Postgres::start();
    // The server reads a key only where nobody else may.
    let (cert, key) = (postgres.data().join("server.crt"), postgres.data().join("server.key"));
    fs::copy(&own.cert, &cert).unwrap();
    fs::copy(&own.key, &key).unwrap();
    other_user::give(&postgres.data());
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    postgres.stop();
    postgres.set("ssl", "on");
    postgres.begin();

    let ca = authority.path();
    let tls = format!("tls: {{ {} }}", own.keys());
    let to_server = format!(
        "upstream: {{ url: \"postgres://{}\", response_timeout: 1s, send_timeout: 1s, tls: {{ ca: {ca} }} }}",
        postgres.address
    );
    let guard = guard("guard", etcd.url(), "").protocol("postgres").listener(&to_server).listener(&tls).start();
    let to_guard = format!("upstream: {{ url: \"postgres://{}\", tls: {{ ca: {ca} }} }}", guard.address);
    let a =
        stamp("orders-a", etcd.url(), guard.address).protocol("postgres").listener(&to_guard).listener(&tls).start();
    a.await_leadership();

    let psql = |mode: &str, sql: &str| {
        let launch = psql_launch(a.address, "scram", "app").env("PGSSLMODE", mode).env("PGSSLROOTCERT", &ca);
        launch.args(["-At", "-c", sql]).run(LONG).told()
    };
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(psql("verify-full", sql).as_deref(), Ok("t"));
    // From the first byte on, without a request for it.
    match newest_libpq() {
        None => eprintln!("left out: sslnegotiation=direct needs libpq 17 or later"),
        Some(libpq) => {
            let launch = psql_launch(a.address, "scram", "app").env("LD_LIBRARY_PATH", libpq.display().to_string());
            let launch =
                launch.env("PGSSLNEGOTIATION", "direct").env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &ca);
            assert_eq!(launch.args(["-At", "-c", sql]).run(LONG).told().as_deref(), Ok("t"));
        }
    }
    let refused = psql("disable", sql).expect_err("in plain text");
    assert!(refused.contains("over TLS only"), "{refused}");
    eventually("all have ended", LONG, || guard.resource()["gate"]["in_flight"] == 0);
    assert_eq!(guard.resource()["gate"]["lost"], 0);
}
