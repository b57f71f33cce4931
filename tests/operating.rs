//! What an operator does to running processes, and what they then say of it: step down, open a gate by force, end
//! writes in the target, list doors, change the log level, look.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::client;
use support::process::{LONG, eventually};
use support::scene::{Node, Scene};
use support::upstream::Upstream;

const STEP_DOWN: &str = "/api/v1/step-down?resource=orders";
/// So that a drain without an end is noticed soon, and time alone never ends it.
const NOT_BY_TIME: &str = "drain: { timeout: 300ms, by_time: false }\nhold: { timeout: 60s }";

fn at(event: &Value) -> u64 {
    event["at"].as_u64().expect("every event has its time")
}

/// A guard before `upstream`, whose drain ends by no time; two writers, the first of which leads; and a write of that
/// one which hangs in the target until the latch `old` opens.
struct Hanging {
    a: Node,
    b: Node,
    guard: Node,
    old: thread::JoinHandle<u16>,
    upstream: Upstream,
    _scene: Scene,
}

impl Hanging {
    #[track_caller]
    fn start(resources: &str) -> Hanging {
        let scene = Scene::embedded();
        let upstream = Upstream::start();
        let guard = scene.node("guard").resources(resources).guard(&upstream.url(), "").more(NOT_BY_TIME).start();
        // A leader that steps down waits for its own write, but not for long.
        let writer = |id: &str| {
            let more = "step_down: { timeout: 200ms }\nhold: { timeout: 60s }";
            scene.node(id).stamp(&guard.url(), "").more(more).start()
        };
        let a = writer("orders-a");
        a.await_armed("orders");
        let b = writer("orders-b");
        upstream.next("/hangs", "apply=@old");
        let address = a.address();
        let old = thread::spawn(move || client::put(address, "/hangs", "old").map_or(0, |answer| answer.status));
        eventually("the target has it", LONG, || upstream.waiting("old") == 1);
        eventually("the leader steps down", LONG, || a.post(STEP_DOWN).status == 200);
        eventually("the other leads", LONG, || b.resource("orders")["standing"]["leads"] == true);
        Hanging { a, b, guard, old, upstream, _scene: scene }
    }
}

#[test]
fn a_leader_steps_down_only_for_somebody_or_by_force_and_then_keeps_its_pause() {
    let scene = Scene::embedded();
    let upstream = Upstream::start();
    let guard = scene.guard(&upstream.url(), "");
    let timeout = Duration::from_millis(600);
    let pause = Duration::from_millis(600);
    let a = scene.node("orders-a").stamp(&guard.url(), "").more("step_down: { timeout: 600ms, pause: 600ms }").start();
    a.await_armed("orders");

    let mut refused = a.command(&["step-down", "--resource", "orders"]);
    assert_eq!(refused.wait(LONG).code(), Some(75));
    assert!(refused.has_said("no other live candidate") && refused.has_said("--force"), "{}", refused.recent());
    let answer = a.post(STEP_DOWN);
    assert_eq!((answer.status, &answer.json()["status"]), (409, &409.into()));
    assert_eq!(guard.post(STEP_DOWN).status, 409, "it does not lead");
    assert_eq!(a.post("/api/v1/step-down?resource=others").status, 409);
    assert!(a.is_armed("orders"), "nothing has happened");
    assert_eq!(client::put(a.address(), "/x", "1").unwrap().status, 200);

    // By force, and with a write that takes longer than it is waited for: the pause begins when the key is given back.
    upstream.next("/slow", "apply=@slow");
    let address = a.address();
    let slow = thread::spawn(move || client::put(address, "/slow", "1").map_or(0, |answer| answer.status));
    eventually("the target has it", LONG, || upstream.waiting("slow") == 1);
    let mut forced = a.command(&["step-down", "--resource", "orders", "--force"]);
    assert_eq!(forced.wait(LONG).code(), Some(0), "{}", forced.recent());
    upstream.open("slow");
    assert_eq!(slow.join().unwrap(), 200, "its answer is not lost");
    eventually("nobody else came", LONG, || a.resource("orders")["epoch"] == "2");
    a.await_armed("orders");
    let history = a.history();
    let ended = history.iter().find(|event| event["event"] == "term_ended").expect("the first term is over");
    assert_eq!(ended["why"], "step_down");
    let again = history
        .iter()
        .find(|event| event["event"] == "elected" && event["epoch"] == 2)
        .or_else(|| history.iter().find(|event| event["event"] == "elected" && event["epoch"] == "2"));
    let between = Duration::from_nanos(at(again.expect("it was elected again")) - at(ended));
    assert!(between >= timeout + pause - Duration::from_millis(10), "{between:?}");

    // For somebody: at once, and without force.
    let b = scene.node("orders-b").stamp(&guard.url(), "").start();
    eventually("the other is a candidate", LONG, || {
        a.command(&["step-down", "--resource", "orders"]).wait(LONG).success()
    });
    b.await_armed("orders");
    assert_eq!(client::put(a.address(), "/x", "1").unwrap().refused(), Some("not_leader"));
    assert_eq!(client::put(b.address(), "/x", "1").unwrap().status, 200);
}

#[test]
fn a_gate_that_is_opened_by_force_says_so_everywhere() {
    let Hanging { _scene, upstream, guard, b, a, old } = Hanging::start("orders: {}");
    eventually("the gate says what it waits for", LONG, || guard.gate()["phase"] == "draining");
    let gate = guard.gate();
    assert_eq!((&gate["floor"], &gate["in_flight"]), (&"2".into(), &1.into()), "{gate}");
    let holder = &gate["holders"][0];
    assert_eq!((&holder["epoch"], &holder["what"]), (&"1".into(), &"PUT /hangs".into()), "{gate}");
    assert!(gate["waits_for"].is_string() && holder["age_ms"].is_u64(), "{gate}");
    assert_eq!(guard.get("/readyz").status, 200, "it can hold");
    assert!(!b.is_armed("orders"), "the old write is not over");
    let address = b.address();
    let new = thread::spawn(move || client::put(address, "/new", "new").map_or(0, |answer| answer.status));
    assert!(guard.command(&["status"]).has_said("PUT /hangs"), "people see it too");

    let mut without = guard.command(&["gate", "open", "--resource", "orders"]);
    assert_eq!(without.wait(LONG).code(), Some(2));
    assert!(without.has_said("--accept-reordering"), "{}", without.recent());
    assert_eq!(guard.post("/api/v1/gate/open?resource=orders").status, 400);
    assert_eq!(a.post("/api/v1/gate/open?resource=orders&accept-reordering=true").status, 404, "it guards nothing");
    assert_eq!(guard.gate()["phase"], "draining", "nothing has happened");

    let opened = guard.command(&["gate", "open", "--resource", "orders", "--accept-reordering"]);
    assert!(opened.has_said("opened by force"), "{}", opened.recent());
    assert_eq!(new.join().unwrap(), 200, "what was held goes on");
    b.await_armed("orders");

    // On the record as forced, everywhere, and nowhere as drained.
    let forced = guard.audited("it", |record| record["event"] == "forced");
    assert_eq!((&forced["epoch"], &forced["resource"]), (&"2".into(), &"orders".into()), "{forced}");
    assert_eq!(guard.metric("forced_opens_total{resource=\"orders\"}"), 1.0);
    let resource = guard.resource("orders");
    assert_eq!(resource["last_handoff"]["by"], "forced");
    assert_ne!(resource["gate"]["drained"], "2", "{resource}");
    let armed = b.history().into_iter().rfind(|event| event["event"] == "armed").expect("it is armed");
    assert_eq!(armed["forced"], true);
    assert!(!guard.history().iter().any(|event| event["event"] == "drained" && event["epoch"] == "2"));
    assert_eq!(guard.post("/api/v1/gate/open?resource=orders&accept-reordering=true").status, 409, "it is open");

    // What was accepted: the old write lands after the new one.
    upstream.open("old");
    assert_eq!(old.join().unwrap(), 200);
    let epochs = upstream.epochs();
    assert_eq!(epochs, [2, 1]);
    // The next term is drained like any other.
    eventually("the other is a candidate", LONG, || b.post(STEP_DOWN).status == 200);
    a.await_armed("orders");
    assert_eq!(guard.resource("orders")["last_handoff"]["by"], "answers");
    assert_eq!(guard.metric("forced_opens_total{resource=\"orders\"}"), 1.0);
}

#[test]
fn a_fence_action_ends_a_drain_that_does_not_end_and_runs_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("ran");
    let script = format!("echo \"$1 $2\" >> {}", log.display());
    let action = format!(
        "orders: {{ fence_action: {{ command: [sh, -c, {script:?}, action, \"{{resource}}\", \"{{epoch}}\"] }} }}"
    );
    let Hanging { _scene, upstream, guard, b, a: _a, old } = Hanging::start(&action);
    b.await_armed("orders");
    assert_eq!(client::put(b.address(), "/new", "new").unwrap().status, 200);
    assert_eq!(guard.resource("orders")["last_handoff"]["by"], "action");
    let drained = guard.audited("the drain", |record| record["event"] == "drained" && record["epoch"] == "2");
    assert_eq!(drained["by"], "action");
    assert_eq!(guard.gate()["drained"], "2", "as good as drained: that is what the action proves");
    assert_eq!(fs::read_to_string(&log).unwrap(), "orders 2\n", "once");
    assert_eq!(guard.metric("forced_opens_total"), 0.0);
    assert_eq!(old.join().unwrap(), 502, "it was cut before the action ran");
    upstream.open("old");
}

#[test]
fn a_fence_action_that_fails_opens_nothing() {
    let hanging = Hanging::start("orders: { fence_action: { command: [\"false\"] } }");
    let Hanging { _scene, upstream, mut guard, b, a: _a, old } = hanging;
    guard.process.await_words("the fence action failed", LONG);
    assert_eq!(old.join().unwrap(), 502, "it was cut before, so that nothing was on its way any more");
    // It is lost, and no time ends it: also not its own end in the target, of which nobody hears.
    upstream.open("old");
    eventually("the target applies it", LONG, || upstream.epochs() == [1]);
    let gate = guard.gate();
    assert_eq!((&gate["phase"], &gate["lost"]), (&"draining".into(), &1.into()), "{gate}");
    assert!(!b.is_armed("orders"));
    // Everybody who looks is told, and what to do.
    assert_eq!(gate["stuck"], true, "{gate}");
    assert!(gate["fence_action_error"].as_str().is_some_and(|why| why.contains("false ended with")), "{gate}");
    assert!(guard.get("/readyz?verbose").text().contains("the fence action failed: false ended with"));
    assert_eq!(guard.metric("fence_action_failed{resource=\"orders\"}"), 1.0);
    assert_eq!((b.metric("is_leader{resource=\"orders\"}"), b.metric("is_armed{resource=\"orders\"}")), (1.0, 0.0));
    assert!(guard.command(&["status"]).has_said("nothing ends the drain of orders by itself"));
    assert!(guard.command(&["gate", "open", "--resource", "orders", "--accept-reordering"]).has_said("by force"));
    b.await_armed("orders");
    assert_eq!(guard.metric("fence_action_failed{resource=\"orders\"}"), 0.0, "that handoff is over");
    assert_eq!(b.metric("is_armed{resource=\"orders\"}"), 1.0);
    upstream.assert_epochs_never_decrease();
}

#[test]
fn a_fence_action_that_was_mended_runs_again_for_the_next_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let mended = folder.path().join("mended");
    let action = format!("orders: {{ fence_action: {{ command: [test, -e, {:?}] }} }}", mended.display().to_string());
    let Hanging { _scene, upstream, mut guard, b, a, old } = Hanging::start(&action);
    guard.process.await_words("the fence action failed", LONG);
    assert_eq!(old.join().unwrap(), 502);
    eventually("it says what to do", LONG, || {
        guard.gate()["waits_for"]
            .as_str()
            .is_some_and(|words| words.contains("`epochgate step-down --resource orders`"))
    });
    fs::write(&mended, "").unwrap();
    eventually("the other is a candidate", LONG, || b.post(STEP_DOWN).status == 200);
    a.await_armed("orders");
    let resource = guard.resource("orders");
    assert_eq!((&resource["last_handoff"]["epoch"], &resource["last_handoff"]["by"]), (&"3".into(), &"action".into()));
    assert!(resource["gate"].get("fence_action_error").is_none(), "{resource}");
    assert_eq!(guard.metric("forced_opens_total"), 0.0);
    upstream.open("old");
}

#[test]
fn doors_are_listed_and_a_dead_ones_record_keeps_the_next_shut() {
    let scene = Scene::embedded();
    let upstream = Upstream::start();
    let times = format!(
        "target: orders\nupstream: {{ url: \"{}\", response_timeout: 200ms, send_timeout: 200ms }}",
        upstream.url()
    );
    let drain = "drain: { timeout: 300ms, quarantine: 500ms }";
    let mut first = scene.node("guard-1").guard(&upstream.url(), &times).more(drain).start();
    let listed = first.command(&["doors", "list", "-o", "json"]);
    let doors: Value = serde_json::from_str(&listed.stdout()).expect("JSON");
    let id = doors["doors"][0]["id"].as_str().expect("it is recorded").to_owned();
    let expected = json!({"doors": [{
        "id": id, "target": "orders", "kind": "sole", "mode": "enforce", "alive": true,
        "address": first.address().to_string(), "left": false, "resources": ["orders"],
    }]});
    assert_eq!(doors, expected);
    assert!(id.starts_with("guard-1-") && id.len() == "guard-1-".len() + 8, "{id}");
    assert!(first.command(&["doors", "list"]).has_said(&id));

    first.process.kill();
    let mut second = scene.node("guard-2").guard(&upstream.url(), &times).more(drain).start_blocked();
    second.process.await_words(&id, LONG);
    eventually("it says so", LONG, || second.gate()["phase"] == "blocked");
    assert_eq!(second.gate()["blocked_by"].as_str(), Some(id.as_str()));
    assert_eq!(second.get("/readyz").status, 503);
    assert!(second.get("/readyz?verbose").text().contains(&id));
    let answer = client::request(second.address(), "PUT", "/x", &[("Fencing-Epoch", "1")], b"1").unwrap();
    let problem = answer.json();
    assert_eq!((answer.status, answer.refused()), (503, Some("gate_shut")), "{problem}");
    assert_eq!((&problem["blocked_by"], answer.header("retry-after")), (&id.as_str().into(), Some("1")), "{problem}");

    let mut nobody = second.command(&["doors", "forget", "nobody-00000000"]);
    assert_eq!(nobody.wait(LONG).code(), Some(1), "{}", nobody.recent());
    let mut forgotten = second.command(&["doors", "forget", &id]);
    assert_eq!(forgotten.wait(LONG).code(), Some(0), "{}", forgotten.recent());
    second.audited("it", |record| record["event"] == "forgotten" && record["door"].as_str() == Some(&id));
    let a = scene.leader("orders-a", &second, "");
    assert_eq!(client::put(a.address(), "/x", "1").unwrap().status, 200);
}

#[test]
fn the_log_level_changes_at_run_time_and_only_from_here() {
    let scene = Scene::embedded();
    let upstream = Upstream::start();
    let guard = scene.guard(&upstream.url(), "");
    let a = scene.leader("orders-a", &guard, "");
    assert!(!a.process.has_said("\"level\":\"DEBUG\""));
    let answer = a.post("/api/v1/log-level?level=debug");
    assert_eq!((answer.status, answer.json()), (200, json!({"level": "debug"})));
    eventually("it tells more", LONG, || {
        let _ = client::put(a.address(), "/x?secret=1", "1");
        let _ = support::client::Connection::open(a.address()).map(|mut it| it.send(b"GARBAGE\r\n\r\n"));
        a.process.has_said("\"level\":\"DEBUG\"")
    });
    assert!(!a.process.has_said("secret"), "no query string is ever logged");
    assert_eq!(a.post("/api/v1/log-level?level=loud").status, 400);
    assert_eq!(a.get("/api/v1/log-level?level=debug").status, 405);
    let through_a_proxy = [("X-Forwarded-For", "192.0.2.7")];
    let answer = client::request(a.admin, "POST", "/api/v1/log-level?level=trace", &through_a_proxy, b"").unwrap();
    assert_eq!(answer.status, 403);
    let of_a_page = [("Origin", "http://evil.test")];
    let answer = client::request(a.admin, "POST", STEP_DOWN, &of_a_page, b"").unwrap();
    assert_eq!(answer.status, 403);
    let answer = a.post("/api/v1/reload");
    assert_eq!((answer.status, answer.json()["reloaded"].clone()), (200, json!(false)), "nothing has changed");
    assert!(a.is_armed("orders"));
}

#[test]
fn every_look_says_what_the_reference_says() {
    let scene = Scene::embedded();
    let upstream = Upstream::start();
    let guard = scene.guard(&upstream.url(), "");
    let a = scene.leader("orders-a", &guard, "");
    let b = scene.node("orders-b").stamp(&guard.url(), "").start();
    assert_eq!(client::put(a.address(), "/x", "1").unwrap().status, 200);
    eventually("all know all", LONG, || [&a, &b, &guard].iter().all(|it| it.resource("orders")["state"] == "armed"));

    let leader = a.get("/leader?resource=orders").json();
    let keys: BTreeSet<&str> = leader.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["resource", "leads", "armed", "epoch", "stamp", "leader", "deadline_ms"]));
    assert_eq!((&leader["leads"], &leader["armed"], &leader["epoch"]), (&true.into(), &true.into(), &"1".into()));
    let deadline = leader["deadline_ms"].as_u64().expect("a number");
    assert!(deadline < 4850, "5 s less 1 % and 100 ms at most: {deadline}");
    for standby in [&b, &guard] {
        let answer = standby.get("/leader?resource=orders");
        let leader = answer.json();
        assert_eq!((answer.status, &leader["leads"], &leader["armed"]), (503, &false.into(), &true.into()), "{leader}");
        assert_eq!(leader["leader"], json!({"id": "orders-a", "address": a.url()}));
        assert!(leader.get("stamp").is_none() && leader.get("deadline_ms").is_none(), "{leader}");
    }
    assert_eq!(a.get("/leader?resource=others").status, 404);
    assert_eq!(a.get("/leader").status, 400);

    for node in [&a, &b, &guard] {
        assert_eq!(node.get("/livez").status, 200);
        let ready = node.get("/readyz?verbose");
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("[+] running: yes\n[+] coordinator: ") && ready.text().ends_with("\nready\n"));
        assert!(node.get("/").text().contains("orders"), "the page for people");
        let status = node.command(&["status"]);
        assert!(status.has_said("orders") && status.has_said("armed"), "{}", status.recent());
        let as_json: Value = serde_json::from_str(&node.command(&["status", "-o", "json"]).stdout()).expect("JSON");
        assert_eq!(as_json["id"], node.id.as_str());
    }
    assert!(guard.get("/readyz?verbose").text().contains("[+] gate orders: open\n"));

    // Every field of a running process is one of the reference's example or tables, in its place.
    let reference = include_str!("../docs/reference/status.md");
    let example = reference.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let example: Value = serde_json::from_str(example).expect("the reference is JSON");
    for node in [&a, &b, &guard] {
        assert_is_like(&node.status(), &example, "");
    }
    let status = guard.status();
    assert_eq!((&status["ready"], &status["coordinator"]["kind"]), (&true.into(), &"embedded".into()));
    let resource = &status["resources"][0];
    assert!(resource.get("standing").is_none() && a.resource("orders").get("gate").is_none());
    assert_eq!(resource["gate"]["phase"], "open");
    assert_eq!((&resource["last_handoff"]["epoch"], &resource["last_handoff"]["by"]), (&"1".into(), &"answers".into()));
    let listener = &status["listeners"][0];
    assert_eq!((&listener["level"], &listener["listen"]), (&"proxy".into(), &guard.address().to_string().into()));
}

/// Every field of `value` is in `example`, at the same place and of the same kind.
#[track_caller]
fn assert_is_like(value: &Value, example: &Value, place: &str) {
    match (value, example) {
        // Its keys are reasons.
        (Value::Object(_), Value::Object(_)) if place.ends_with(".refused") => {}
        (Value::Object(fields), Value::Object(known)) => {
            for (key, value) in fields {
                let place = format!("{place}.{key}");
                // Only there while something is the matter, and explained in the tables.
                let at_times =
                    ["waits_for", "target", "blocked_by", "regression", "other_gates", "lost_ms", "doors_ms"];
                if at_times.contains(&key.as_str()) {
                    continue;
                }
                assert_is_like(
                    value,
                    known.get(key).unwrap_or_else(|| panic!("{place} is not in the example")),
                    &place,
                );
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            items.iter().for_each(|item| assert_is_like(item, &known[0], place));
        }
        (value, example) => {
            let same = std::mem::discriminant(value) == std::mem::discriminant(example);
            assert!(same, "{place}: {value} is not of the kind of {example}");
        }
    }
}
