//! What a service and its target see of HTTP between them: one real stamp, one real guard, a target that remembers.

mod support;

#[path = "http_end_to_end/http2.rs"]
mod http2;
#[path = "http_end_to_end/http2_client.rs"]
mod http2_client;
#[path = "http_end_to_end/judged.rs"]
mod judged;
#[path = "http_end_to_end/stamps.rs"]
mod stamps;
#[path = "http_end_to_end/upgrades.rs"]
mod upgrades;

use support::client::{self, Answer, Connection};
use support::process::{LONG, eventually};
use support::scene::{Node, Scene};
use support::upstream::{Upstream, Write};

/// A leader's stamp, a guard, a target: the whole way. Fields end in this order: clients of a thing before the thing.
struct Way {
    stamp: Node,
    guard: Node,
    target: Upstream,
    scene: Scene,
}

impl Way {
    #[track_caller]
    fn new() -> Way {
        Way::with("", "")
    }

    /// With more lines for the stamp's listener and for the guard's.
    #[track_caller]
    fn with(stamp: &str, guard: &str) -> Way {
        let scene = Scene::embedded();
        let target = Upstream::start();
        let guard = scene.guard(&target.url(), guard);
        let stamp = scene.leader("orders-a", &guard, stamp);
        eventually("the guard knows that all is settled", LONG, || guard.resource("orders")["state"] == "armed");
        Way { stamp, guard, target, scene }
    }

    #[track_caller]
    fn connect(&self) -> Connection {
        Connection::open(self.stamp.address()).expect("the stamp listens")
    }

    /// One request through both.
    #[track_caller]
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        client::request(self.stamp.address(), method, path, headers, body).expect("the stamp answers")
    }

    /// One request at the guard, past the stamp.
    #[track_caller]
    fn at_guard(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        client::request(self.guard.address(), method, path, headers, body).expect("the guard answers")
    }

    /// The whole stamp of the present term.
    #[track_caller]
    fn own_stamp(&self) -> String {
        let leader = self.stamp.get("/leader?resource=orders").json();
        leader["stamp"].as_str().expect("the leader's page has the stamp").to_owned()
    }

    /// The only write that the target has seen under this path.
    #[track_caller]
    fn written(&self, path: &str) -> Write {
        let log = self.target.log();
        let mut found = log.into_iter().filter(|write| write.head.path == path);
        let write = found.next().expect("the target has seen the write");
        assert!(found.next().is_none(), "{path} was written twice");
        write
    }
}

/// So many bytes that repeat nowhere near each other.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let way = Way::new();
    let mut connection = way.connect();
    let own = way.own_stamp();
    for round in 0..20 {
        let body = format!("round {round}");
        let answer = connection.request("PUT", "/orders/1", &[], body.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.refused()), (200, "applied\n", None));
        assert!(connection.stays_open_after(&answer));
        let answer = connection.request("GET", "/orders/1?fresh=1", &[], b"").unwrap();
        assert_eq!((answer.status, answer.text()), (200, body));
    }
    let answer = connection.request("DELETE", "/orders/1", &[], b"").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(connection.request("GET", "/orders/1", &[], b"").unwrap().status, 404);

    // Each write carried the whole stamp, once and in its canonical form; reads carried none.
    for seen in way.target.arrived() {
        let stamps: Vec<&str> =
            seen.headers.iter().filter(|(name, _)| name == "fencing-epoch").map(|(_, value)| value.as_str()).collect();
        let expected: &[&str] = if seen.is_write() { &[&own] } else { &[] };
        assert_eq!(stamps, expected, "{} {}", seen.method, seen.path);
    }
    assert!(own.starts_with("1;nonce=:") && own.ends_with(";by=\"orders-a\";res=\"orders\""), "{own}");
    assert_eq!(way.stamp.metric("connections_open{listener=\"stamp\"}"), 1.0);
    let answered = way.guard.metric("requests_total{listener=\"guard\",kind=\"write\",outcome=\"answered\"}");
    assert_eq!(answered, 21.0);
}

#[test]
fn answers_without_a_body_have_none_and_leave_the_connection_usable() {
    let way = Way::new();
    let mut connection = way.connect();
    connection.request("PUT", "/a", &[], b"twelve bytes").unwrap();
    let head = connection.request("HEAD", "/a", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("12"), 0));
    for status in [204, 304] {
        let script = format!("status={status}");
        let answer = connection.request("GET", "/a", &[("X-Upstream", &script)], b"").unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    let answer = connection.request("PUT", "/a", &[("X-Upstream", "status=204")], b"again").unwrap();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    // The refusal of a HEAD has no body either; nor is it a write.
    let refused = client::request(way.guard.address(), "HEAD", "/a", &[("Fencing-Epoch", "0")], b"").unwrap();
    assert!(refused.body.is_empty());
    assert_eq!(connection.request("GET", "/a", &[], b"").unwrap().text(), "again");
    // The target's own errors pass as they are.
    let answer = connection.request("PUT", "/a", &[("X-Upstream", "status=409, skip")], b"x").unwrap();
    assert_eq!((answer.status, answer.refused()), (409, None));
}

#[test]
fn what_is_between_neighbours_does_not_travel() {
    let way = Way::new();
    let headers = [
        ("Connection", "keep-alive, X-Mine"),
        ("X-Mine", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("Fencing-Expect", "1"),
        ("X-Kept", "both"),
        ("X-Kept", "of them"),
    ];
    let answer = way.send("PUT", "/hop", &headers, b"1");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = way.written("/hop").head;
    for name in ["x-mine", "keep-alive", "proxy-authorization", "proxy-connection", "fencing-expect"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1, 127.0.0.1"));
    let kept: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "x-kept").map(|(_, value)| value).collect();
    assert_eq!(kept, ["both", "of them"]);
    assert_eq!(seen.header("host"), Some(way.stamp.address().to_string().as_str()), "the client's own");
    assert_eq!(seen.header("content-length"), Some("1"));
    assert_eq!(seen.header("transfer-encoding"), None);
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    let way = Way::new();
    let mut connection = way.connect();
    let expect = [("Expect", "100-continue"), ("Content-Length", "5")];
    connection.send_head("PUT", "/asked", &expect).unwrap();
    let go_on = connection.receive().unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&go_on));
    connection.send(b"hello").unwrap();
    assert_eq!(connection.answer().unwrap().status, 200);
    assert_eq!(way.target.stored("/asked").as_deref(), Some(&b"hello"[..]));

    // Where the answer is no, there is no 100 before it.
    let mut connection = Connection::open(way.guard.address()).unwrap();
    connection.send_head("PUT", "/asked", &expect).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.interim.len()), (428, 0), "{}", answer.text());
    assert_eq!(way.target.log().len(), 1);
}

#[test]
fn a_chunked_upload_arrives_with_its_trailers() {
    let way = Way::new();
    let mut connection = way.connect();
    for round in 0..3 {
        let path = format!("/chunked/{round}");
        connection.begin_chunked("PUT", &path, &[("Trailer", "X-Sum")]).unwrap();
        for piece in ["one ", "two ", "three"] {
            connection.send_chunk(piece.as_bytes()).unwrap();
        }
        connection.end_chunks(&[("X-Sum", "13"), ("Content-Length", "1")]).unwrap();
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let write = way.written(&path);
        assert_eq!((&write.body[..], write.complete), (&b"one two three"[..], true));
        assert_eq!(write.trailers, [("x-sum".to_owned(), "13".to_owned())], "no framing in trailers");
        assert_eq!(write.epoch(), Some(1));
    }
    // A stamp among the trailers is not taken off but refused, and the target never gets the end of the body.
    let mut connection = way.connect();
    connection.begin_chunked("PUT", "/chunked/stamped", &[]).unwrap();
    connection.send_chunk(b"all of it").unwrap();
    connection.end_chunks(&[("Fencing-Epoch", "9")]).unwrap();
    assert_eq!(connection.answer().unwrap().status, 400);
    eventually("the target has seen the end", LONG, || way.target.log().len() == 4);
    assert!(!way.written("/chunked/stamped").complete);
}

#[test]
fn an_upload_that_breaks_off_never_arrives_as_whole() {
    let way = Way::new();
    for (path, chunked) in [("/broken/length", false), ("/broken/chunks", true)] {
        let mut connection = way.connect();
        if chunked {
            connection.begin_chunked("PUT", path, &[]).unwrap();
            connection.send_chunk(b"half of").unwrap();
        } else {
            connection.send_head("PUT", path, &[("Content-Length", "14")]).unwrap();
            connection.send(b"half of").unwrap();
        }
        eventually("the target has the head", LONG, || way.target.arrived().iter().any(|seen| seen.path == path));
        connection.finish_sending().unwrap();
        eventually("the target has seen the end", LONG, || {
            way.target.log().iter().any(|write| write.head.path == path)
        });
        assert!(!way.written(path).complete, "{path}");
        assert!(way.target.stored(path).is_none());
    }
    // Both count until it is certain that nothing more comes of them.
    eventually("they are over", LONG, || way.guard.gate()["in_flight"] == 0);
    let unknown = way.guard.metric("requests_total{listener=\"guard\",kind=\"write\",outcome=\"unknown\"}");
    assert_eq!(unknown, 2.0);
}

#[test]
fn ten_mebibytes_pass_byte_for_byte_both_ways() {
    let way = Way::new();
    let body = noise(10 * 1024 * 1024);
    let mut connection = way.connect();
    let answer = connection.request("PUT", "/large", &[], &body).unwrap();
    assert_eq!(answer.status, 200);
    assert!(way.target.stored("/large").expect("it was applied") == body, "the target has other bytes");
    let answer = connection.request("GET", "/large", &[], b"").unwrap();
    assert!(answer.body == body, "the client got other bytes");

    connection.begin_chunked("PUT", "/large/chunked", &[]).unwrap();
    for piece in body.chunks(70_001) {
        connection.send_chunk(piece).unwrap();
    }
    connection.end_chunks(&[]).unwrap();
    assert_eq!(connection.answer().unwrap().status, 200);
    assert!(way.target.stored("/large/chunked").expect("it was applied") == body, "the target has other bytes");
}

#[test]
fn a_target_that_cannot_be_reached_or_breaks_is_told_with_what_became_of_the_write() {
    let way = Way::new();
    let answer = way.send("PUT", "/breaks", &[("X-Upstream", "close")], b"1");
    let problem = answer.json();
    assert_eq!((answer.status, answer.refused()), (502, Some("upstream_broken")), "{problem}");
    assert_eq!((&problem["outcome"], &problem["resource"]), (&"unknown".into(), &"orders".into()));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));

    let problem = way.send("GET", "/breaks", &[("X-Upstream", "close")], b"").json();
    assert_eq!((&problem["reason"], &problem["resource"]), (&"upstream_broken".into(), &"orders".into()), "{problem}");

    // Half an answer is not made whole.
    let mut connection = way.connect();
    let half = connection.request("GET", "/breaks", &[("X-Upstream", "partial")], b"");
    assert!(half.is_err(), "{half:?}");

    let scene = &way.scene;
    let nobody = scene.node("nobody").guard("http://127.0.0.1:1", "target: nobody\nresource: others");
    let nobody = nobody.resources("others: {}").start();
    let stamp = scene.node("others-a").resources("others: {}").stamp(&nobody.url(), "resource: others").start();
    stamp.await_armed("others");
    let answer = client::put(stamp.address(), "/x", "1").unwrap();
    assert_eq!((answer.status, answer.refused()), (502, Some("upstream_unreachable")));
    assert_eq!(answer.json()["outcome"], "not_applied");
}
