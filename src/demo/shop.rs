//! A shop: a service that takes orders and writes them to a file. Two of them run; the one that leads may write.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use tokio::sync::Notify;

use super::pause::Pause;
use super::serve::{self, Answering};
use super::target::{TERM, WRITER};
use crate::cli::client::{self, Address, Answer};

/// The file that all orders go to: the last one counts.
pub const FILE: &str = "/orders/1001";

/// A slow target and a held write together stay below this.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// Where the parts of one writer listen.
#[derive(Clone, Copy, Debug)]
pub struct Sidecar {
    /// For requests.
    pub listen: SocketAddr,
    /// For questions.
    pub admin: SocketAddr,
}

/// Which way a shop writes.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Through its sidecar, which stamps; it knows nothing of leadership.
    Sidecar,
    /// Straight to the target, after asking its sidecar whether it leads: as is done without fencing.
    Around(SocketAddr),
}

/// A running shop. It ends with the local set that it was started in.
pub struct Shop {
    address: SocketAddr,
    state: Rc<State>,
}

struct State {
    name: String,
    sidecar: Sidecar,
    way: Way,
    pause: Pause,
    freeze_before_writing: Cell<bool>,
    frozen: Notify,
}

impl Shop {
    /// Starts it on a free port of this host, in the current local set.
    pub async fn start(name: &str, sidecar: Sidecar, way: Way, pause: Pause) -> io::Result<Shop> {
        let state = Rc::new(State {
            name: name.to_owned(),
            sidecar,
            way,
            pause,
            freeze_before_writing: Cell::new(false),
            frozen: Notify::new(),
        });
        let serving = Rc::clone(&state);
        let address = serve::serve(move |request| answer(Rc::clone(&serving), request)).await?;
        Ok(Shop { address, state })
    }

    /// Its name, which is its writer id.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Its sidecar.
    pub fn sidecar(&self) -> Sidecar {
        self.state.sidecar
    }

    /// Its pause.
    pub fn pause(&self) -> &Pause {
        &self.state.pause
    }

    /// A customer orders something. The answer is the shop's.
    pub async fn order(&self, what: &str) -> Result<Answer, client::ClientError> {
        order(self.address, what).await
    }

    /// Where customers order.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The whole writer stops at the next order, right before it writes it.
    pub fn freeze_at_next_order(&self) {
        self.state.freeze_before_writing.set(true);
    }

    /// Until that has happened.
    pub async fn frozen(&self) {
        self.state.frozen.notified().await;
    }
}

/// A customer orders something from the shop at this address.
pub async fn order(shop: SocketAddr, what: &str) -> Result<Answer, client::ClientError> {
    client::send(&Address::Tcp(shop.to_string()), client::request("POST", "/orders", what), WRITE_LIMIT).await
}

fn answer(state: Rc<State>, request: Request<Bytes>) -> Answering {
    Box::pin(async move {
        let what = String::from_utf8_lossy(request.body()).into_owned();
        let answer = state.take(&what).await;
        state.pause.wait().await;
        answer.unwrap_or_else(|error| serve::text(StatusCode::BAD_GATEWAY, error.to_string()))
    })
}

#[derive(Deserialize)]
struct Leader {
    epoch: String,
}

impl State {
    async fn take(&self, what: &str) -> Result<Response<Full<Bytes>>, client::ClientError> {
        self.pause.wait().await;
        let mut believes = None;
        if let Way::Around(_) = self.way {
            let asked = client::get(&Address::Tcp(self.sidecar.admin.to_string()), "/leader?resource=orders").await?;
            let leader = serde_json::from_slice::<Leader>(&asked.body).ok();
            let Some(leader) = leader.filter(|_| asked.status.is_success()) else {
                return Ok(serve::text(StatusCode::SERVICE_UNAVAILABLE, "this shop does not lead\n".into()));
            };
            believes = Some(leader.epoch);
        }
        if self.freeze_before_writing.take() {
            self.pause.pause();
            self.frozen.notify_one();
        }
        // Between what a service knows and what it does there is always such a gap.
        self.pause.wait().await;
        let written = self.write(what, believes).await?;
        let mut answer = serve::text(written.status, written.text());
        for (name, value) in &written.headers {
            if name == "fencing-refused" {
                answer.headers_mut().insert(name.clone(), value.clone());
            }
        }
        Ok(answer)
    }

    /// Writes the order; around the guard it says what it `believes` its epoch to be, for the target's log.
    async fn write(&self, what: &str, believes: Option<String>) -> Result<Answer, client::ClientError> {
        let mut request = client::request("PUT", FILE, what);
        let to = match self.way {
            Way::Sidecar => self.sidecar.listen,
            Way::Around(target) => {
                let said = [(WRITER, Some(self.name.clone())), (TERM, believes)];
                for (name, text) in said {
                    if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                        request.headers_mut().insert(name, value);
                    }
                }
                target
            }
        };
        client::send(&Address::Tcp(to.to_string()), request, WRITE_LIMIT).await
    }
}
