//! The epoch moves on, and nothing of the old leader is applied after it.

use super::client::Client;
use super::support::process::{LONG, eventually};
use super::support::redis::{Redis, cli};
use super::world::{World, guard};

#[test]
fn an_old_leader_is_refused_in_its_own_words_and_may_read() {
    let mut world = World::start();
    let (mut open, mut waiting, mut watching, mut direct) = (
        Client::open(world.a.address),
        Client::open(world.a.address),
        Client::open(world.a.address),
        Client::open(world.guard.address),
    );
    assert_eq!(open.ask("SET k a"), "OK");
    assert_eq!((open.ask("MULTI"), open.ask("SET k late")), ("OK".into(), "QUEUED".into()));
    assert_eq!(watching.ask("WATCH k"), "OK");
    direct.send_words(&["EPOCHGATE", "EPOCH", &world.stamp_of_a]);
    assert_eq!((direct.reply(), direct.ask("SET d a")), ("OK".into(), "OK".into()));
    waiting.send("BLPOP queue 0");
    eventually("it waits", LONG, || world.redis.cli(&["INFO", "clients"]).contains("blocked_clients:1"));

    world.fail_over();
    assert_eq!(cli(world.b.address, &["SET", "k", "b"]).unwrap(), "OK");
    assert!(world.redis.cli(&["INFO", "clients"]).contains("blocked_clients:0"), "it was let go before B was let in");
    assert_eq!(world.guard.resource()["gate"]["lost"], 0);

    // Around A's sidecar, with A's own stamp.
    let refused = direct.ask("SET d late");
    assert!(refused.starts_with("READONLY stale_epoch"), "{refused}");
    assert!(refused.contains("required epoch") && refused.contains("leader orders-b"), "{refused}");
    assert_eq!(direct.ask("GET k"), "b");
    let unstamped = cli(world.guard.address, &["SET", "d", "x"]).unwrap();
    assert!(unstamped.starts_with("READONLY stamp_required"), "{unstamped}");
    assert_eq!(cli(world.guard.address, &["GET", "d"]).unwrap(), "a");

    // Through A's sidecar, which wakes.
    world.a.process().resume();
    let refused = open.ask("EXEC");
    assert!(refused.starts_with("READONLY"), "{refused}");
    assert!(open.has_ended(), "it is to connect anew");
    assert!(waiting.try_reply().map_or(true, |said| said.starts_with("ERR fenced_in_flight")));
    assert!(watching.ask("SET k later").starts_with("READONLY"));
    let mut again = Client::open(world.a.address);
    assert_eq!(again.ask("GET k"), "b");
    eventually("A names B", LONG, || {
        let refused = again.ask("SET k late");
        refused.starts_with("READONLY not_leader") && refused.contains("orders-b")
    });
    assert_eq!(world.redis.cli(&["GET", "k"]), "b");
}

/// A write that the server had not even read when its guard was killed.
#[test]
fn a_killed_guards_write_is_over_before_the_next_epoch_is_let_in() {
    let mut world = World::start();
    let mut client = Client::open(world.a.address);
    assert_eq!(client.ask("RPUSH log a"), "1");
    world.redis.pause();
    client.send("RPUSH log late");
    // It has reached the server's socket when the guard counts it.
    eventually("it is under way", LONG, || world.guard.resource()["gate"]["in_flight"] == 1);
    world.guard.kill();
    world.guard.start();
    world.a.process().pause();
    world.guard.process().await_words("the target cannot be asked whether anything older runs", LONG);
    assert_ne!(world.guard.phase(), "open");
    world.redis.resume();
    world.b.await_leadership();
    let length = cli(world.b.address, &["RPUSH", "log", "b"]).unwrap();
    assert!(matches!(&*length, "2" | "3"), "{length}");
    let log = world.redis.cli(&["LRANGE", "log", "0", "-1"]);
    assert!(log.trim_end().ends_with('b'), "{log}");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(world.redis.cli(&["LRANGE", "log", "0", "-1"]), log, "nothing comes late");
}

#[test]
fn a_server_with_a_password_tells_its_commands_to_who_logs_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let redis = Redis::start_with(&[("requirepass", "secret")]);
    let control = format!("{{ password_file: {} }}", file.display());
    let world = World::with(redis, Some(&control));
    let mut client = Client::open(world.guard.address);
    assert!(client.ask("GET k").starts_with("NOAUTH"), "the server asks for it itself");
    assert_eq!((client.ask("AUTH secret"), client.ask("GET k")), ("OK".into(), "(nil)".into()));
    assert!(client.ask("SET k v").starts_with("READONLY stamp_required"));

    // Without one of its own, the guard knows of no reads.
    let etcd = super::support::sidecar::etcd();
    let blind = guard(etcd.url(), world.redis.address, None).start();
    let mut client = Client::open(blind.address);
    assert_eq!((client.ask("AUTH secret"), client.ask("PING")), ("OK".into(), "PONG".into()));
    assert!(client.ask("GET k").starts_with("READONLY stamp_required"));
}
