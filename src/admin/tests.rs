use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::nearby::Peer;
use super::readiness::Readiness;
use super::status::*;
use super::*;
use crate::clock::HostClock;
use crate::config::resolved::Admin as Settings;
use crate::fence::Epoch;
use crate::metrics::Metrics;

const STAMP: &str = r#"42;nonce=:n58qe3yfEjQ=:;by="orders-a";res="orders""#;

fn epoch(number: u64) -> Option<Epoch> {
    Epoch::new(number)
}

/// The state in the reference.
fn example() -> Status {
    let gate = GateStatus {
        target: None,
        phase: Phase::Open,
        floor: epoch(42),
        drained: epoch(42),
        in_flight: 3,
        lost: 0,
        lost_ms: None,
        held: 0,
        residue_ms: 0,
        holders: vec![Holder { epoch: epoch(41), peer: "10.0.0.7:5123".into(), what: "PUT /a".into(), age_ms: 812 }],
        waits_for_doors: Vec::new(),
        unrecorded_ms: None,
        blocked_by: None,
        waits_for: None,
        fence_action_error: None,
        stuck: false,
        regression: None,
    };
    let door = DoorStatus {
        id: "guard-1-9f3c2a7b".into(),
        target: "orders".into(),
        kind: "sole".into(),
        mode: "enforce".into(),
        alive: true,
        address: Some("10.0.0.3:8080".into()),
        floor: epoch(42),
        drained: epoch(42),
        left: false,
    };
    let handoff = HandoffStatus {
        epoch: Epoch::new(42).expect("in range"),
        at: "2026-11-22T02:00:03Z".parse().expect("a time"),
        fence_ms: 0.4,
        drain_ms: 12.0,
        mark_ms: 0.3,
        doors_ms: 0.0,
        open_ms: 0.1,
        by: crate::event::By::Answers,
    };
    let address = Some("http://10.0.0.7:8081".into());
    let leader = Leader { id: "orders-a".parse().expect("an id"), address, held: false };
    let resource = ResourceStatus {
        name: "orders".parse().expect("a name"),
        epoch: epoch(42),
        state: State::Armed,
        leader: Some(leader),
        standing: Some(Standing { leads: true, deadline_ms: Some(3120), stamp: Some(STAMP.into()) }),
        gate: Some(gate),
        other_gates: vec![],
        doors: vec![door],
        election_stopped: None,
        last_handoff: Some(handoff),
        refused: [("stale_epoch".into(), 50)].into(),
    };
    Status {
        version: "0.1.0".into(),
        id: "orders-a".parse().expect("an id"),
        started: "2026-11-22T02:00:00Z".parse().expect("a time"),
        ready: false,
        coordinator: CoordinatorStatus {
            kind: "etcd".into(),
            up: true,
            endpoint: Some("http://127.0.0.1:2379".into()),
            revision: Some(118),
            confirmed: Some("2026-11-22T02:00:09Z".parse().expect("a time")),
            regressions: 0,
        },
        floor_file_error: None,
        resources: vec![resource],
        listeners: vec![ListenerStatus {
            name: "orders-guard".into(),
            role: "guard".into(),
            protocol: "http".into(),
            listen: "0.0.0.0:8080".into(),
            mode: Some("enforce".into()),
            level: Some("proxy".into()),
            upstream: "http://127.0.0.1:9000".into(),
            connections: 12,
        }],
        stopping: false,
    }
    .with_readiness()
}

/// A process whose state is what the test says.
struct Fake {
    status: Arc<Status>,
    commands: Mutex<Vec<Command>>,
    flushes: Mutex<u32>,
    answer: Result<Value, CommandError>,
    deaf: bool,
}

impl Fake {
    fn new(status: Status) -> Fake {
        Fake {
            status: Arc::new(status),
            commands: Mutex::default(),
            flushes: Mutex::default(),
            answer: Ok(json!({ "done": true })),
            deaf: false,
        }
    }

    fn commands(&self) -> Vec<Command> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Control for Fake {
    fn status(&self) -> BoxFuture<'_, Arc<Status>> {
        Box::pin(async {
            if self.deaf {
                std::future::pending::<()>().await;
            }
            Arc::clone(&self.status)
        })
    }

    fn flush_meters(&self) -> BoxFuture<'_, ()> {
        *self.flushes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Box::pin(async {
            if self.deaf {
                std::future::pending::<()>().await;
            }
        })
    }

    fn command(&self, command: Command) -> BoxFuture<'_, Result<Value, CommandError>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        Box::pin(async { self.answer.clone() })
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(crate::metrics::tests::metrics(&["orders"]))
}

/// One request to the endpoints, from `peer`.
async fn ask(control: &Arc<Fake>, peer: Peer, request: http::request::Builder) -> Response<Body> {
    let control: Arc<dyn Control> = Arc::<Fake>::clone(control);
    let router = routes::router(control, metrics(), Arc::new(HostClock));
    let request: Request<Body> = request.extension(peer).body(Body::empty()).expect("a request");
    router.oneshot(request).await.expect("the router answers everything")
}

fn here() -> Peer {
    Peer::Tcp("127.0.0.1:5123".parse().expect("an address"))
}

fn elsewhere() -> Peer {
    Peer::Tcp("10.0.0.7:5123".parse().expect("an address"))
}

async fn get(control: &Arc<Fake>, path: &str) -> Response<Body> {
    ask(control, elsewhere(), Request::get(path)).await
}

async fn post(control: &Arc<Fake>, path: &str) -> Response<Body> {
    ask(control, here(), Request::post(path).header("host", "127.0.0.1:9464")).await
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn body(response: Response<Body>) -> Value {
    let text = text(response).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn is_problem(response: Response<Body>, status: StatusCode) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = body(response).await;
    assert_eq!(body["status"], status.as_u16());
    body["detail"].as_str().expect("a detail").to_owned()
}

fn documented() -> Value {
    let page = include_str!("../../docs/reference/status.md");
    let block = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    serde_json::from_str(block).expect("the reference is JSON")
}

#[tokio::test]
async fn the_status_is_exactly_what_the_reference_shows() {
    let control = Arc::new(Fake::new(example()));
    let response = get(&control, "/api/v1/status").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let text = text(response).await;
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value, documented());
    let mut read: Status = serde_json::from_str(&text).expect("the command line reads it back");
    read.resources[0].standing.as_mut().expect("it stamps").stamp = Some(STAMP.into());
    assert_eq!(read, example());
}

/// Every key of a JSON value, at any depth.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        Value::Null => panic!("absent, never null"),
        _ => {}
    }
}

#[test]
fn every_field_is_in_the_reference_and_what_is_not_known_is_absent() {
    let mut full = example();
    full.floor_file_error = Some("disk full".into());
    full.resources[0].leader.as_mut().expect("somebody leads").held = true;
    let gate = full.resources[0].gate.as_mut().expect("it guards");
    gate.target = Some("orders".into());
    gate.blocked_by = Some("guard-2-00000000".into());
    gate.waits_for = Some("a door".into());
    gate.waits_for_doors = vec!["guard-2-00000000".into()];
    (gate.lost_ms, gate.unrecorded_ms, gate.stuck) = (Some(1), Some(1), true);
    gate.fence_action_error = Some("it ended with exit status: 1".into());
    gate.regression = Some("an epoch above 42".into());
    let gate = gate.clone();
    full.resources[0].other_gates = vec![gate];
    full.resources[0].election_stopped = Some("a floor is beyond belief".into());
    full.resources[0].last_handoff.as_mut().expect("there was one").doors_ms = 0.1;
    let mut found = BTreeSet::new();
    keys(&serde_json::to_value(&full).expect("plain data"), &mut found);
    let page = include_str!("../../docs/reference/status.md");
    let explained = page.rsplit("```").next().expect("what follows the example");
    let quoted = explained.split('`').skip(1).step_by(2);
    let words: BTreeSet<&str> = quoted.flat_map(|quoted| quoted.split('.')).collect();
    for key in found.iter().filter(|key| *key != "stale_epoch") {
        assert!(words.contains(key.as_str()), "{key} is not explained");
    }

    let mut bare = example();
    bare.coordinator.revision = None;
    bare.coordinator.confirmed = None;
    bare.coordinator.endpoint = None;
    bare.listeners[0].mode = None;
    bare.listeners[0].level = None;
    let resource = &mut bare.resources[0];
    (resource.epoch, resource.leader, resource.standing, resource.gate) = (None, None, None, None);
    (resource.last_handoff, resource.doors[0].floor, resource.doors[0].address) = (None, None, None);
    let value = serde_json::to_value(&bare).expect("plain data");
    keys(&value, &mut BTreeSet::new());
    assert_eq!(serde_json::from_value::<Status>(value).expect("it can be read back"), bare);
}

#[tokio::test]
async fn liveness_depends_on_nothing() {
    let mut fake = Fake::new(example());
    fake.deaf = true;
    assert_eq!(get(&Arc::new(fake), "/livez").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn readiness_names_each_check() {
    let response = get(&Arc::new(Fake::new(example())), "/readyz?verbose").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        text(response).await,
        "[+] running: yes\n[+] coordinator: http://127.0.0.1:2379 answers\n[+] floor-file: written\n\
         [+] gate orders: open\nready\n"
    );
    let mut shut = example();
    shut.coordinator.up = false;
    shut.floor_file_error = Some("disk\nfull".into());
    let gate = shut.resources[0].gate.as_mut().expect("it guards");
    gate.phase = Phase::Blocked;
    gate.blocked_by = Some("guard-1-9f3c2a7b".into());
    gate.regression = Some("an epoch above 42".into());
    let control = Arc::new(Fake::new(shut.with_readiness()));
    let response = get(&control, "/readyz?verbose").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        text(response).await,
        "[+] running: yes\n[!] coordinator: http://127.0.0.1:2379 does not answer\n\
         [!] floor-file: cannot be written, tried again: disk full\n\
         [-] gate orders: blocked, blocked by guard-1-9f3c2a7b, waits for an epoch above 42\nnot ready\n"
    );
    assert_eq!(text(get(&control, "/readyz").await).await, "not ready\n");
}

#[test]
fn a_process_is_ready_while_it_can_answer() {
    let ready = |change: &dyn Fn(&mut Status)| {
        let mut status = example();
        change(&mut status);
        let status = status.with_readiness();
        assert_eq!(status.ready, Readiness::of(&status).ready);
        status.ready
    };
    let phase = |status: &mut Status, phase| status.resources[0].gate.as_mut().expect("it guards").phase = phase;
    for held in [Phase::Open, Phase::Fencing, Phase::Draining, Phase::Quarantine, Phase::WaitingDoors] {
        assert!(ready(&|status| phase(status, held)), "{held:?}");
    }
    for shut in [Phase::Unknown, Phase::Blocked, Phase::Shut] {
        assert!(!ready(&|status| phase(status, shut)), "{shut:?}");
        let audits = |status: &mut Status| {
            phase(status, shut);
            status.listeners[0].mode = Some("audit".into());
        };
        assert!(ready(&audits), "{shut:?} in audit mode");
        let one_of_two = |status: &mut Status| {
            let mut other = status.resources[0].clone();
            other.name = "other".parse().expect("a name");
            phase(status, shut);
            status.resources.push(other);
        };
        assert!(ready(&one_of_two), "{shut:?} for one resource of two");
    }
    assert!(ready(&|status| status.coordinator.up = false));
    assert!(!ready(&|status| status.stopping = true));
    let standby = |status: &mut Status| {
        status.resources[0].gate = None;
        status.resources[0].standing = Some(Standing { leads: false, deadline_ms: None, stamp: None });
    };
    assert!(ready(&standby));
}

#[tokio::test]
async fn the_leader_says_its_stamp_and_nobody_else_does() {
    let control = Arc::new(Fake::new(example()));
    let response = get(&control, "/leader?resource=orders").await;
    assert_eq!(response.status(), StatusCode::OK);
    let page = include_str!("../../docs/reference/admin.md");
    let block = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    assert_eq!(body(response).await, serde_json::from_str::<Value>(block).expect("the reference is JSON"));

    let mut standby = example();
    standby.resources[0].standing = Some(Standing { leads: false, deadline_ms: None, stamp: None });
    let response = get(&Arc::new(Fake::new(standby)), "/leader?resource=orders").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let leader = json!({ "id": "orders-a", "address": "http://10.0.0.7:8081" });
    assert_eq!(
        body(response).await,
        json!({ "resource": "orders", "leads": false, "armed": true, "epoch": "42", "leader": leader })
    );

    let mut elected = example();
    elected.resources[0].state = State::Elected;
    let response = get(&Arc::new(Fake::new(elected)), "/leader?resource=orders").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = body(response).await;
    assert_eq!((&body["leads"], &body["armed"], body.get("stamp")), (&json!(true), &json!(false), None));
}

#[tokio::test]
async fn what_is_asked_wrongly_is_explained() {
    let control = Arc::new(Fake::new(example()));
    let detail = is_problem(get(&control, "/leader?resource=stock").await, StatusCode::NOT_FOUND).await;
    assert!(detail.contains("stock"), "{detail}");
    is_problem(get(&control, "/leader").await, StatusCode::BAD_REQUEST).await;
    is_problem(get(&control, "/leader?resource=Orders").await, StatusCode::BAD_REQUEST).await;
    is_problem(get(&control, "/no/such").await, StatusCode::NOT_FOUND).await;
    is_problem(get(&control, "/api/v1/no-such").await, StatusCode::NOT_FOUND).await;
    is_problem(post(&control, "/api/v1/status").await, StatusCode::METHOD_NOT_ALLOWED).await;
    is_problem(post(&control, "/api/v1/step-down?resource=orders&forse=true").await, StatusCode::BAD_REQUEST).await;
    is_problem(post(&control, "/api/v1/log-level?level=loud").await, StatusCode::BAD_REQUEST).await;
    let open = post(&control, "/api/v1/gate/open?resource=orders").await;
    assert!(is_problem(open, StatusCode::BAD_REQUEST).await.contains("accept-reordering=true"));
    assert_eq!(control.commands(), []);
}

#[tokio::test]
async fn commands_reach_the_control_thread_and_its_answer_comes_back() {
    let control = Arc::new(Fake::new(example()));
    for path in [
        "step-down?resource=orders",
        "step-down?resource=orders&force=true",
        "gate/open?resource=orders%2F7&accept-reordering=true&target=db",
        "doors/forget?target=orders&id=guard-1-9f3c2a7b",
        "log-level?level=debug",
        "reload",
    ] {
        let response = post(&control, &format!("/api/v1/{path}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(body(response).await, json!({ "done": true }));
    }
    let orders: Resource = "orders".parse().expect("a name");
    assert_eq!(
        control.commands(),
        [
            Command::StepDown { resource: orders.clone(), force: false },
            Command::StepDown { resource: orders, force: true },
            Command::OpenGate { resource: "orders/7".parse().expect("a name"), target: Some("db".into()) },
            Command::ForgetDoor { target: "orders".into(), id: "guard-1-9f3c2a7b".into() },
            Command::LogLevel { level: tracing::Level::DEBUG },
            Command::Reload,
        ]
    );

    for (error, status) in [
        (CommandError::NotFound("no such door".into()), StatusCode::NOT_FOUND),
        (CommandError::Conflict("nobody else could lead".into()), StatusCode::CONFLICT),
        (CommandError::Unavailable("etcd does not answer".into()), StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let mut fake = Fake::new(example());
        fake.answer = Err(error.clone());
        let response = post(&Arc::new(fake), "/api/v1/step-down?resource=orders").await;
        assert_eq!(is_problem(response, status).await, error.to_string());
    }
}

const CHANGES: [&str; 6] = [
    "/api/v1/rebase?resource=orders&to=9000000",
    "/api/v1/step-down?resource=orders",
    "/api/v1/gate/open?resource=orders&accept-reordering=true",
    "/api/v1/doors/forget?target=orders&id=d",
    "/api/v1/log-level?level=debug",
    "/api/v1/reload",
];

#[tokio::test]
async fn nothing_is_changed_from_elsewhere_by_a_page_or_by_looking() {
    let control = Arc::new(Fake::new(example()));
    for path in CHANGES {
        let from_elsewhere = ask(&control, elsewhere(), Request::post(path).header("host", "localhost")).await;
        is_problem(from_elsewhere, StatusCode::FORBIDDEN).await;
        for (name, value) in [("origin", "http://localhost"), ("sec-fetch-site", "cross-site")] {
            let by_a_page = Request::post(path).header("host", "localhost").header(name, value);
            is_problem(ask(&control, here(), by_a_page).await, StatusCode::FORBIDDEN).await;
        }
        let rebound = Request::post(path).header("host", "evil.example");
        is_problem(ask(&control, here(), rebound).await, StatusCode::FORBIDDEN).await;
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "X"] {
            let looking = Request::builder().method(method).uri(path).header("host", "localhost");
            // Words of other servers for "take this for a POST".
            let looking = looking.header("x-http-method-override", "POST").header("x-method-override", "POST");
            let response = ask(&control, here(), looking).await;
            assert_eq!(response.headers()["allow"], "POST", "{method} {path}");
            is_problem(response, StatusCode::METHOD_NOT_ALLOWED).await;
        }
        let head = ask(&control, here(), Request::head(path).header("host", "localhost")).await;
        assert_eq!(head.status(), StatusCode::METHOD_NOT_ALLOWED);
        let by_another_user = Request::post(path).header("host", "localhost");
        is_problem(ask(&control, Peer::OtherUser, by_another_user).await, StatusCode::FORBIDDEN).await;
        for (name, value) in
            [("transfer-encoding", "chunked"), ("content-length", "2"), ("x-forwarded-for", "127.0.0.1")]
        {
            let relayed = Request::post(path).header("host", "localhost").header(name, value);
            is_problem(ask(&control, here(), relayed).await, StatusCode::FORBIDDEN).await;
        }
        // The method in the query is no method.
        let joint = if path.contains('?') { '&' } else { '?' };
        let query = Request::get(format!("{path}{joint}_method=POST")).header("host", "localhost");
        is_problem(ask(&control, here(), query).await, StatusCode::METHOD_NOT_ALLOWED).await;
    }
    assert_eq!(control.commands(), []);
}

#[tokio::test]
async fn doors_are_listed_once_with_what_they_serve() {
    let mut status = example();
    let mut other = status.resources[0].clone();
    other.name = "stock".parse().expect("a name");
    status.resources.push(other);
    let body = body(get(&Arc::new(Fake::new(status)), "/api/v1/doors").await).await;
    assert_eq!(
        body,
        json!({ "doors": [{ "id": "guard-1-9f3c2a7b", "target": "orders", "kind": "sole", "mode": "enforce",
            "alive": true, "address": "10.0.0.3:8080", "left": false, "resources": ["orders", "stock"] }] })
    );
}

#[tokio::test]
async fn a_scrape_flushes_the_workers_and_shows_the_state() {
    let control = Arc::new(Fake::new(example()));
    let response = get(&control, "/metrics").await;
    assert_eq!(response.headers()["content-type"], crate::metrics::TEXT_TYPE);
    let text = text(response).await;
    assert_eq!(*control.flushes.lock().unwrap_or_else(PoisonError::into_inner), 1);
    for line in [
        "epochgate_coordinator_up 1",
        "epochgate_epoch{resource=\"orders\"} 42",
        "epochgate_leader_present{resource=\"orders\"} 1",
        "epochgate_is_leader{resource=\"orders\"} 1",
        "epochgate_in_flight_writes{resource=\"orders\"} 3",
        "epochgate_gate_open{resource=\"orders\"} 1",
        "epochgate_epoch_confirmed_timestamp_seconds{resource=\"orders\"} 1795312809",
    ] {
        assert!(text.lines().any(|each| each == line), "{line}\n{text}");
    }
    assert!(!text.contains("epochgate_session_deadline_timestamp_seconds{resource=\"orders\"} 0\n"));
}

#[tokio::test]
async fn a_leader_is_present_unless_nobody_leads_or_nobody_may_write() {
    for (held, present) in [(Some(false), 1), (Some(true), 0), (None, 0)] {
        let mut status = example();
        let leader = held.map(|held| Leader { id: "orders-b".parse().expect("an id"), address: None, held });
        status.resources[0].leader = leader;
        let text = text(get(&Arc::new(Fake::new(status)), "/metrics").await).await;
        let line = format!("epochgate_leader_present{{resource=\"orders\"}} {present}");
        assert!(text.lines().any(|each| each == line), "{held:?}: {line}\n{text}");
    }
}

#[tokio::test]
async fn a_control_thread_that_does_not_answer_is_said_and_not_waited_for() {
    let mut fake = Fake::new(example());
    fake.deaf = true;
    let control = Arc::new(fake);
    let (ready, leader, status, page, metrics) = tokio::join!(
        get(&control, "/readyz"),
        get(&control, "/leader?resource=orders"),
        get(&control, "/api/v1/status"),
        get(&control, "/"),
        get(&control, "/metrics"),
    );
    for response in [ready, leader, status, page] {
        is_problem(response, StatusCode::SERVICE_UNAVAILABLE).await;
    }
    assert_eq!(metrics.status(), StatusCode::OK);
    assert!(text(metrics).await.contains("epochgate_build_info"));
}

#[tokio::test]
async fn the_page_shows_text_as_text() {
    let mut status = example();
    status.resources[0].gate.as_mut().expect("it guards").holders[0].what = "PUT /<script>alert('1')&\"".into();
    status.resources[0].doors[0].mode = "<b>".into();
    status.coordinator.endpoint = Some("http://<img>".into());
    let response = get(&Arc::new(Fake::new(status)), "/").await;
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert!(response.headers()["content-security-policy"].to_str().expect("text").starts_with("default-src 'none'"));
    let page = text(response).await;
    assert!(page.contains("PUT /&lt;script&gt;alert(&#39;1&#39;)&amp;&quot;"), "{page}");
    for wrong in ["<script", "<img", "<b>\u{3c}", "src=", "@import"] {
        assert!(!page.contains(wrong), "{wrong}");
    }
    assert!(page.contains("orders-a (armed)") && page.contains("stale_epoch 50"), "{page}");
}

fn settings(listen: Option<&str>, socket: Option<&std::path::Path>) -> Settings {
    Settings {
        listen: listen.map(|address| address.parse().expect("an address")),
        socket: socket.map(std::path::Path::to_path_buf),
    }
}

fn start(settings: &Settings, control: &Arc<Fake>) -> Result<AdminServer, AdminError> {
    let control: Arc<dyn Control> = Arc::<Fake>::clone(control);
    AdminServer::start(settings, control, metrics(), Arc::new(HostClock))
}

/// Sends `head` as it is and reads until the server closes.
fn talk(mut stream: impl std::io::Read + std::io::Write, head: &str) -> String {
    stream.write_all(head.as_bytes()).expect("the server takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server closes");
    answer
}

#[test]
fn it_serves_an_address_and_a_socket_and_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock");
    let control = Arc::new(Fake::new(example()));
    let server = start(&settings(Some("127.0.0.1:0"), Some(&socket)), &control).expect("it starts");
    let address = server.address().expect("it listens");

    let stream = TcpStream::connect(address).expect("it accepts");
    let answer = talk(stream, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");

    let post = "POST /api/v1/step-down?resource=orders HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = talk(TcpStream::connect(address).expect("it accepts"), post);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = talk(UnixStream::connect(&socket).expect("it accepts"), post);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(control.commands().len(), 2);
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // One that is open and silent does not keep the server from ending.
    let mut idle = TcpStream::connect(address).expect("it accepts");
    drop(server);
    assert!(matches!(idle.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
    assert!(!socket.exists());
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0);
}

#[test]
fn over_a_real_connection_nothing_is_changed_either() {
    let control = Arc::new(Fake::new(example()));
    // Of both families, so that a caller over IPv4 has a mapped address.
    let server = start(&settings(Some("[::]:0"), None), &control).expect("it starts");
    let port = server.address().expect("it listens").port();
    let ask = |head: &str| talk(TcpStream::connect(("127.0.0.1", port)).expect("it accepts"), head);
    let to = "/api/v1/gate/open?resource=orders&accept-reordering=true";
    for (request, status) in [
        (format!("GET {to} HTTP/1.1\r\nHost: localhost\r\n"), "405"),
        (format!("GET {to} HTTP/1.1\r\nHost: localhost\r\nX-HTTP-Method-Override: POST\r\n"), "405"),
        (format!("post {to} HTTP/1.1\r\nHost: localhost\r\n"), "405"),
        (format!("POST {to} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"), "403"),
        (format!("POST {to} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"), "403"),
        (format!("POST {to} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n"), "403"),
        (format!("POST {to} HTTP/1.1\r\nHost: localhost, evil.example\r\n"), "403"),
        (format!("POST http://evil.example{to} HTTP/1.1\r\nHost: localhost\r\n"), "403"),
        (format!("POST {to} HTTP/1.1\r\n"), "403"),
        (format!("POST {to} HTTP/1.0\r\n"), "403"),
        (format!("POST {to} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0, 7\r\n"), "400"),
    ] {
        let body = if request.contains("chunked") { "0\r\n\r\n" } else { "{}" };
        let answer = ask(&format!("{request}Connection: close\r\n\r\n{body}"));
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}{answer}");
    }
    assert_eq!(control.commands(), []);
    let answer = ask(&format!("POST {to} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(control.commands().len(), 1);
}

#[test]
fn one_address_cannot_keep_others_from_looking() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock");
    let control = Arc::new(Fake::new(example()));
    let server = start(&settings(Some("0.0.0.0:0"), Some(&socket)), &control).expect("it starts");
    let port = server.address().expect("it listens").port();
    // More than it may have, all silent: those beyond its room are closed.
    let silent: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("the kernel accepts")).collect();
    let look = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = talk(UnixStream::connect(&socket).expect("it accepts"), look);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let closed = silent.iter().rev().take(8).filter(|stream| {
        let mut stream = *stream;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("it is open");
        matches!(stream.read(&mut [0; 1]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
    });
    assert_eq!(closed.count(), 8);
    let other = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let from_elsewhere = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    from_elsewhere.bind(&std::net::SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("all of 127/8 is this host");
    from_elsewhere.connect(&other.into()).expect("it accepts");
    let answer = talk(TcpStream::from(from_elsewhere), look);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(silent);
}

#[test]
fn a_place_that_is_taken_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock");
    let control = Arc::new(Fake::new(example()));
    let first = start(&settings(Some("127.0.0.1:0"), Some(&socket)), &control).expect("it starts");
    let address = first.address().expect("it listens").to_string();
    let error = start(&settings(Some(&address), None), &control).expect_err("it is taken");
    assert!(matches!(error, AdminError::Listen { .. }) && error.to_string().contains(&address), "{error}");
    let error = start(&settings(None, Some(&socket)), &control).expect_err("it is taken");
    assert!(error.to_string().contains("admin.sock"), "{error}");
    drop(first);
    // What a dead process left behind is replaced; what is no socket is not.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a stale one"));
    drop(start(&settings(None, Some(&socket)), &control).expect("it replaces it"));
    std::fs::write(&socket, "precious").expect("a file");
    start(&settings(None, Some(&socket)), &control).expect_err("it is no socket");
    assert_eq!(std::fs::read_to_string(&socket).expect("it is there"), "precious");
}

#[test]
fn nowhere_is_nowhere() {
    let server = start(&settings(None, None), &Arc::new(Fake::new(example()))).expect("nothing to start");
    assert_eq!(server.address(), None);
}
