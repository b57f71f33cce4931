//! The target: an unmodified API that keeps what is put to it, and knows nothing of epochs.
//!
//! It writes down what it applied, in the order of taking effect, with what the request said of itself. Of a write that
//! came with a stamp that is the stamp; of one that went around the guard it is what the shop knew ([`TERM`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::watch;

use super::log::Applied;
use super::serve::{self, Answering};
use crate::fence::{Epoch, Stamp};

/// What a shop that goes around the guard says of itself: the epoch that it believes to lead in.
pub const TERM: &str = "demo-term";
/// Who it is.
pub const WRITER: &str = "demo-writer";
/// The stamp's header.
const STAMP: &str = "fencing-epoch";

/// How long a slow write takes at least.
pub const SLOW: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(3) };

/// The running target. It ends with the local set that it was started in.
pub struct Target {
    address: SocketAddr,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    files: RefCell<BTreeMap<String, String>>,
    log: RefCell<Vec<Applied>>,
    stamps: RefCell<Vec<Stamp>>,
    next_is_slow: RefCell<Option<SlowHalf>>,
}

/// A write that takes long. It takes effect when [`SLOW`] has passed and it was let go.
pub struct Slow {
    began: watch::Receiver<bool>,
    go: watch::Sender<bool>,
}

struct SlowHalf {
    began: watch::Sender<bool>,
    go: watch::Receiver<bool>,
}

impl Slow {
    /// Until the write is in the target.
    pub async fn began(&mut self) {
        // The other half may be gone: then the write is over, and so it began.
        let _ = self.began.wait_for(|began| *began).await;
    }

    /// Lets it take effect.
    pub fn let_go(&self) {
        self.go.send_replace(true);
    }
}

impl Target {
    /// Starts it on a free port of this host, in the current local set.
    pub async fn start() -> io::Result<Target> {
        let state = Rc::new(State::default());
        let serving = Rc::clone(&state);
        let address = serve::serve(move |request| answer(Rc::clone(&serving), request)).await?;
        Ok(Target { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it applied so far.
    pub fn log(&self) -> Vec<Applied> {
        self.state.log.borrow().clone()
    }

    /// The last stamp that it saw of this writer.
    pub fn last_stamp_of(&self, writer: &str) -> Option<Stamp> {
        let stamps = self.state.stamps.borrow();
        stamps.iter().rev().find(|stamp| stamp.by.as_ref().is_some_and(|by| by.as_str() == writer)).cloned()
    }

    /// What a file holds now.
    pub fn content(&self, key: &str) -> Option<String> {
        self.state.files.borrow().get(key).cloned()
    }

    /// The next write is slow.
    pub fn slow_down_next(&self) -> Slow {
        let (began, has_begun) = watch::channel(false);
        let (go, may_go) = watch::channel(false);
        self.state.next_is_slow.replace(Some(SlowHalf { began, go: may_go }));
        Slow { began: has_begun, go }
    }
}

fn answer(state: Rc<State>, request: Request<Bytes>) -> Answering {
    Box::pin(async move {
        let key = request.uri().path().to_owned();
        match *request.method() {
            Method::PUT => put(&state, key, &request).await,
            Method::GET => match state.files.borrow().get(&key) {
                Some(content) => serve::text(StatusCode::OK, content.clone()),
                None => serve::text(StatusCode::NOT_FOUND, "no such file\n".into()),
            },
            _ => serve::text(StatusCode::METHOD_NOT_ALLOWED, "GET or PUT\n".into()),
        }
    })
}

async fn put(state: &State, key: String, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let slow = state.next_is_slow.take();
    if let Some(mut slow) = slow {
        slow.began.send_replace(true);
        tokio::time::sleep(SLOW).await;
        // A story that ended early lets everything go.
        let _ = slow.go.wait_for(|go| *go).await;
    }
    let what = String::from_utf8_lossy(request.body()).into_owned();
    let (epoch, writer, stamp) = origin(request.headers());
    state.files.borrow_mut().insert(key.clone(), what.clone());
    state.log.borrow_mut().push(Applied { epoch, writer, key, what });
    state.stamps.borrow_mut().extend(stamp);
    serve::text(StatusCode::CREATED, String::new())
}

/// The epoch and the writer that a request names.
fn origin(headers: &HeaderMap) -> (Option<Epoch>, String, Option<Stamp>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(stamp) = headers.get(STAMP).and_then(|value| Stamp::parse(value.as_bytes()).ok()) {
        let by = stamp.by.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string);
        return (Some(stamp.epoch), by, Some(stamp));
    }
    let epoch = text(TERM).and_then(|term| term.parse().ok());
    (epoch, text(WRITER).unwrap_or("somebody").to_owned(), None)
}
