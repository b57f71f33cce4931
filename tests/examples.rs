//! The examples do what their READMEs say: each script checks it, and says which refusals it saw.

mod support;

use std::path::Path;
use std::time::Duration;

use support::process::Launch;

const OF_HTTP: [&str; 3] = ["421 ", "412 stale_epoch (not_applied)", "502 fenced_in_flight (unknown)"];

#[test]
fn http_two_writers() {
    show("http-two-writers", &["--config"], &OF_HTTP);
}

#[test]
fn http_two_writers_over_mtls() {
    let more = ["403 identity_refused (not_applied)", "40 writes over two new certificates"];
    show("http-two-writers", &["--mtls"], &[&OF_HTTP[..], &more].concat());
}

#[test]
fn postgres_two_writers() {
    let told = ["FATAL:  57P01", "reason stale_epoch", "reason not_leader", "reason stamp_required"];
    show("postgres-two-writers", &[], &told);
}

#[test]
fn redis_two_writers() {
    show("redis-two-writers", &[], &["READONLY not_leader", "READONLY stale_epoch", "READONLY stamp_required"]);
}

#[track_caller]
fn show(name: &str, args: &[&str], words: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("run.sh");
    let launch = Launch::program("bash").named(name).arg(&script).args(args);
    let mut example = launch.env("BINARY", env!("CARGO_BIN_EXE_epochgate")).start();
    let ended = example.wait(Duration::from_secs(300));
    let told = example.stdout();
    assert!(ended.success(), "{ended}:\n{told}{}", example.stderr());
    for line in words {
        assert!(told.contains(line), "no `{line}` in:\n{told}");
    }
    assert!(told.ends_with("No write of A was applied after B's.\n"), "{told}");
    assert_eq!(example.stderr(), "", "what it says on the side is noise");
}
