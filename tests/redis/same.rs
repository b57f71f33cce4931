//! Through a stamp and a guard everything is as it is without them.

use super::client::Client;
use super::support::process::{LONG, Launch};
use super::support::redis::{Redis, cli};
use super::world::World;

/// What clients do; each answer is the same through both sidecars as it is direct.
const SAID: &[&str] = &[
    "SET k v",
    "GET k",
    "get nothing",
    "APPEND k w",
    "HSET h a 1 b 2",
    "HGETALL h",
    "MULTI",
    "INCR n",
    "LPUSH l a b c",
    "GET k",
    "EXEC",
    "LRANGE l 0 -1",
    "MULTI",
    "SET k w",
    "DISCARD",
    "GET k",
    "EXEC",
    "WATCH k",
    "MULTI",
    "SET k x",
    "EXEC",
    "MULTI",
    "NONSENSE",
    "EXEC",
    "EVAL return{KEYS[1],redis.call('incr','n')} 1 k",
    "EVAL_RO return{redis.call('get','k')} 0",
    "OBJECT ENCODING n",
    "CONFIG GET maxmemory",
    "BLPOP l 1",
    "BLPOP empty 0.01",
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "SELECT 1",
    "GET k",
    "SELECT 0",
    "PFADD p a b",
    "PFCOUNT p",
    "TYPE l",
    "SUBSCRIBE c d",
    "PING",
    "GET k",
    // In which order it ends several is the server's to choose, by a seed of its own.
    "UNSUBSCRIBE d",
    "UNSUBSCRIBE",
    "GET k",
    "HELLO 3",
    "HGETALL h",
    "SUBSCRIBE c",
    "PUBLISH c hello",
    "GET k",
    "UNSUBSCRIBE",
    "RESET",
    "GET k",
];

/// How many replies, and messages, come of a command here.
fn replies(command: &str) -> usize {
    match command {
        "SUBSCRIBE c d" | "PUBLISH c hello" => 2,
        _ => 1,
    }
}

fn play(client: &mut Client) -> Vec<String> {
    let mut said = Vec::new();
    for command in SAID {
        client.send(command);
        for _ in 0..replies(command) {
            let reply = client.reply();
            // It has the connection's number.
            said.push(if command.starts_with("HELLO") { "[…]".to_owned() } else { reply });
        }
    }
    // Nothing is left over.
    said.push(client.ask("ECHO end"));
    said
}

#[test]
fn every_kind_of_command_is_answered_as_it_is_without_sidecars() {
    let world = World::start();
    let direct = Redis::start();
    let library = "#!lua name=l\nredis.register_function('f', function(keys) return redis.call('incr', keys[1]) end)";
    for (at, other) in [(world.a.address, direct.address)] {
        let expected = play(&mut Client::open(other));
        assert_eq!(play(&mut Client::open(at)), expected);
        for at in [at, other] {
            let mut client = Client::open(at);
            client.send_words(&["FUNCTION", "LOAD", library]);
            assert_eq!(client.reply(), "l");
            assert_eq!(client.ask("FCALL f 1 m"), "1");
            client.send_bytes(b"set inline 'a b'\r\n\r\nget \"inline\"\r\n");
            assert_eq!((client.reply(), client.reply()), ("OK".into(), "a b".into()));
            client.send("CLIENT REPLY OFF");
            client.send("SET quiet 1");
            client.send("CLIENT REPLY ON");
            client.send("GET quiet");
            assert_eq!((client.reply(), client.reply()), ("OK".into(), "1".into()));
            client.send("CLIENT REPLY SKIP");
            client.send("SET quiet 2");
            assert_eq!(client.ask("GET quiet"), "2");
            let big = "v".repeat(3_000_000);
            client.send_words(&["SET", "big", &big]);
            assert_eq!(client.reply(), "OK");
            assert!(client.ask("GET big") == big);
            for name in ["NOT^A!COMMAND", "\u{e1}\u{171}"] {
                client.send_words(&[name, "x"]);
                assert!(client.reply().starts_with(&format!("ERR unknown command '{name}'")));
            }
            let mut quiet = Client::open(at);
            quiet.send("CLIENT REPLY OFF");
            assert_eq!(quiet.ask("SUBSCRIBE c"), "[subscribe, c, 1]");
            for no_command in
                [&b"*1\r\n$x\r\n"[..], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\nx\r\n", b"*2\r\n$3\r\nGET\r\n$-3\r\n"]
            {
                let mut client = Client::open(at);
                client.send_bytes(no_command);
                assert!(client.reply().starts_with("ERR Protocol error"));
                assert!(client.has_ended());
            }
        }
    }

    // What is published, and what is monitored, comes to whom it belongs.
    let (mut monitor, mut listener, mut writer) =
        (Client::open(world.a.address), Client::open(world.b.address), Client::open(world.a.address));
    assert_eq!(monitor.ask("MONITOR"), "OK");
    assert_eq!(listener.ask("SUBSCRIBE c"), "[subscribe, c, 1]");
    assert_eq!(writer.ask("PUBLISH c hi"), "1");
    assert_eq!(listener.reply(), "[message, c, hi]");
    while !monitor.reply().contains("\"PUBLISH\" \"c\" \"hi\"") {}

    let mut tool = Launch::program("redis-benchmark")
        .args([
            "-p",
            &world.a.address.port().to_string(),
            "-n",
            "20000",
            "-P",
            "16",
            "-q",
            "-t",
            "set,get,lpush,lrange_100",
        ])
        .run(LONG);
    let said = tool.told().unwrap_or_else(|error| panic!("redis-benchmark: {error}"));
    assert_eq!(said.matches("requests per second").count(), 5, "{said}");
    assert_eq!(cli(world.b.address, &["GET", "k"]).unwrap(), world.redis.cli(&["GET", "k"]));
    assert_eq!(world.guard.metric("epochgate_lost_writes{resource=\"orders\"}"), 0.0);
}
