//! The story, played with parts that are faked in a few lines, good ones and bad ones: it must not tell what did not
//! happen. The real parts play it in the system tests.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::time::sleep;

use super::pause::Pause;
use super::serve::{self, Answering};
use super::shop::Sidecar;
use super::story::Stage;
use super::{Story, play};
use crate::cli::client::{self, Address};
use crate::fence::{Epoch, Stamp};

const TICK: Duration = Duration::from_millis(5);
const LEASE: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);

/// What a bad guard leaves out.
#[derive(Clone, Copy, Default)]
struct Fault {
    comparison: bool,
    drain: bool,
}

/// Everything that the fakes know, in one place.
#[derive(Default)]
struct Fakes {
    fault: Fault,
    epoch: Cell<u64>,
    leader: RefCell<Option<String>>,
    candidates: RefCell<Vec<(String, Pause)>>,
    running: RefCell<Vec<u64>>,
}

impl Fakes {
    fn is_drained(&self) -> bool {
        self.fault.drain || self.running.borrow().iter().all(|epoch| *epoch >= self.epoch.get())
    }

    fn leads(&self, id: &str) -> bool {
        self.leader.borrow().as_deref() == Some(id)
    }

    /// A leader that stands still for a lease is replaced by one that does not.
    async fn elect(self: Rc<Self>) {
        loop {
            sleep(TICK).await;
            let stands_still =
                |id: &str| self.candidates.borrow().iter().any(|(one, pause)| one == id && pause.is_paused());
            let leader = self.leader.borrow().clone();
            match leader {
                Some(id) if stands_still(&id) => sleep(LEASE).await,
                Some(_) => continue,
                None => {}
            }
            let next = self.candidates.borrow().iter().find(|(_, pause)| !pause.is_paused()).map(|(id, _)| id.clone());
            if let Some(id) = next {
                self.epoch.set(self.epoch.get() + 1);
                self.leader.replace(Some(id));
            }
        }
    }

    async fn stamped(self: Rc<Self>, id: String, guard: SocketAddr, request: Request<Bytes>) -> Response<Full<Bytes>> {
        if !self.leads(&id) {
            return refusal(421, "not_leader");
        }
        let epoch = self.epoch.get();
        while !self.is_drained() {
            sleep(TICK).await;
        }
        let stamp = format!("{epoch};nonce=:n58qe3yfEjQ=:;by=\"{id}\";res=\"orders\"");
        forward(guard, &request, Some(stamp)).await
    }

    async fn guarded(self: Rc<Self>, target: SocketAddr, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let stamp = request.headers().get("fencing-epoch").expect("a stamp");
        let stamp = Stamp::parse(stamp.as_bytes()).expect("a good one");
        if stamp.epoch.number() < self.epoch.get() && !self.fault.comparison {
            return refusal(412, "stale_epoch");
        }
        self.running.borrow_mut().push(stamp.epoch.number());
        let answer = forward(target, &request, Some(stamp.to_string())).await;
        let mut running = self.running.borrow_mut();
        let at = running.iter().position(|epoch| *epoch == stamp.epoch.number()).expect("it was counted in");
        running.swap_remove(at);
        answer
    }

    fn told(&self, id: &str, path: &str) -> Response<Full<Bytes>> {
        let epoch = Epoch::new(self.epoch.get()).map(|epoch| epoch.to_string());
        if path == "/leader" {
            let armed = self.leads(id) && self.is_drained();
            let status = if armed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            return serve::text(status, json!({ "epoch": epoch }).to_string());
        }
        let holders = if self.is_drained() { json!([]) } else { json!([{"what": "PUT /orders/1001"}]) };
        let phase = if self.is_drained() { "open" } else { "draining" };
        let gate = json!({"phase": phase, "floor": epoch, "holders": holders});
        let orders = json!({"epoch": epoch, "standing": {"leads": self.leads(id)}, "gate": gate});
        serve::text(StatusCode::OK, json!({ "resources": [orders] }).to_string())
    }
}

fn refusal(status: u16, reason: &str) -> Response<Full<Bytes>> {
    let mut refusal = serve::text(StatusCode::from_u16(status).expect("a status"), reason.into());
    refusal.headers_mut().insert("fencing-refused", reason.parse().expect("a word"));
    refusal
}

async fn forward(to: SocketAddr, request: &Request<Bytes>, stamp: Option<String>) -> Response<Full<Bytes>> {
    let body = String::from_utf8_lossy(request.body()).into_owned();
    let mut request = client::request(request.method().as_str(), request.uri().path(), &body);
    request
        .headers_mut()
        .extend(stamp.map(|stamp| (http::HeaderName::from_static("fencing-epoch"), stamp.parse().expect("a stamp"))));
    let answer = client::send(&Address::Tcp(to.to_string()), request, LIMIT).await.expect("an answer");
    let mut forwarded = serve::text(answer.status, answer.text());
    forwarded.headers_mut().extend(
        answer
            .headers
            .get("fencing-refused")
            .map(|reason| (http::HeaderName::from_static("fencing-refused"), reason.clone())),
    );
    forwarded
}

struct FakeStage(Rc<Fakes>);

impl FakeStage {
    /// Serves on a thread-local task; the address is there when this returns.
    fn serve(&self, id: &str, handle: impl Fn(Request<Bytes>) -> Answering + 'static) -> Sidecar {
        let (fakes, id) = (Rc::clone(&self.0), id.to_owned());
        let admin = move |request: Request<Bytes>| -> Answering {
            let told = fakes.told(&id, request.uri().path());
            Box::pin(async move { told })
        };
        Sidecar { listen: now(serve::serve(handle)), admin: now(serve::serve(admin)) }
    }
}

/// Binding a port waits for nothing.
fn now<T>(future: impl Future<Output = std::io::Result<T>>) -> T {
    use futures_util::FutureExt as _;
    future.now_or_never().expect("binding waits for nothing").expect("a port")
}

impl Stage for FakeStage {
    fn guard(&mut self, target: SocketAddr) -> Result<Sidecar, String> {
        tokio::task::spawn_local(Rc::clone(&self.0).elect());
        let fakes = Rc::clone(&self.0);
        Ok(self.serve("guard", move |request| Box::pin(Rc::clone(&fakes).guarded(target, request))))
    }

    fn writer(&mut self, id: &str, guard: SocketAddr) -> Result<(Sidecar, Pause), String> {
        let pause = Pause::new();
        self.0.candidates.borrow_mut().push((id.to_owned(), pause.clone()));
        let (fakes, own) = (Rc::clone(&self.0), id.to_owned());
        let stamp = move |request| -> Answering { Box::pin(Rc::clone(&fakes).stamped(own.clone(), guard, request)) };
        Ok((self.serve(id, stamp), pause))
    }
}

/// What was told, without colour, and whether it went as told.
fn told(story: Story, fault: Fault) -> (String, bool) {
    let (done, wait) = mpsc::channel();
    // A thread of its own, so that a story that hangs fails the test and not the run.
    std::thread::spawn(move || {
        let mut out = Vec::new();
        let went = play(story, &mut FakeStage(Rc::new(Fakes { fault, ..Fakes::default() })), &mut out);
        done.send((out, went.expect("a vector takes everything"))).ok();
    });
    let (out, went) = wait.recv_timeout(5 * LIMIT).expect("the story ends");
    let text = String::from_utf8(out).expect("text");
    (anstream::adapter::strip_str(&text).to_string(), went)
}

#[test]
fn with_the_guard_nothing_stale_is_applied() {
    let (text, went) = told(Story::Safe, Fault::default());
    assert!(went, "{text}");
    for beat in [
        "A is elected: epoch 1.",
        "B is elected: epoch 2.",
        "421 not_leader",
        "412 stale_epoch",
        "A is elected: epoch 3.",
    ] {
        assert!(text.contains(beat), "{beat:?} was not told:\n{text}");
    }
    assert_eq!(text.lines().last(), Some("stale writes applied: 0"));
    let position = |what: &str| text.rfind(&format!("wrote \"{what}\"")).expect("it is in the log");
    assert!(position("4 lamps") < position("5 lamps"), "{text}");
    assert!(!text.contains("wrote \"2 lamps"), "{text}");
}

#[test]
fn around_the_guard_updates_are_lost() {
    let (text, went) = told(Story::Unsafe, Fault::default());
    assert!(went, "{text}");
    assert!(text.contains("The file says \"2 lamps\""), "{text}");
    assert!(text.contains("× stale"), "{text}");
    assert_eq!(text.lines().last(), Some("stale writes applied: 2"));
}

#[test]
fn a_guard_that_does_not_compare_is_found_out() {
    let (text, went) = told(Story::Safe, Fault { comparison: true, drain: false });
    assert!(!went, "{text}");
    assert!(text.contains("The story did not go as told: a refusal with 412 was to come"), "{text}");
    assert_eq!(text.lines().last(), Some("stale writes applied: 1"));
}

#[test]
fn a_guard_that_does_not_drain_is_found_out() {
    let (text, went) = told(Story::Safe, Fault { comparison: false, drain: true });
    assert!(!went, "{text}");
    assert!(text.contains("the guard opened while an old write still ran"), "{text}");
}
