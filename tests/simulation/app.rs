//! The service beside a stamping sidecar: it writes numbered operations, and understands answers as the documentation
//! tells it to.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use epochgate::fence::{Outcome, Reason};
use epochgate::verify::Outside;
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::http1::Wire;
use crate::life::Life;
use crate::network::{Address, Host, Network};
use crate::plan::Plan;
use crate::record::Record;
use crate::socket::Socket;

/// Numbers that no two writes of a run share.
#[derive(Clone, Default)]
pub struct Numbers(Rc<Cell<u64>>);

impl Numbers {
    pub fn next(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

/// One service.
pub struct App {
    name: Arc<str>,
    host: Host,
    network: Network,
    record: Record,
    plan: Plan,
    life: Life,
    ops: Numbers,
    dice: RefCell<Dice>,
    /// What is to be sent again.
    again: RefCell<Option<Op>>,
    /// Nothing goes wrong any more.
    pub calm: Cell<bool>,
}

/// One operation: what is sent again has the same.
#[derive(Clone)]
pub struct Op {
    number: u64,
    pub resource: String,
    pub length: usize,
    target: u8,
}

/// What came of one send.
pub struct Ended {
    pub outcome: Outcome,
    status: Option<u16>,
    reason: Option<Reason>,
    /// Why there is no answer.
    why: Option<String>,
    /// The connection, where it can take another request.
    wire: Option<Wire>,
}

impl Ended {
    pub fn unknown(why: impl Into<String>) -> Ended {
        Ended { outcome: Outcome::Unknown, status: None, reason: None, why: Some(why.into()), wire: None }
    }
}

impl App {
    pub fn new(number: u8, (network, record): (&Network, &Record), plan: &Plan, ops: &Numbers, dice: Dice) -> Rc<App> {
        Rc::new(App {
            name: format!("app-{number}").into(),
            host: Host::Writer(number),
            network: network.clone(),
            record: record.clone(),
            plan: plan.clone(),
            life: Life::default(),
            ops: ops.clone(),
            dice: RefCell::new(dice),
            again: RefCell::default(),
            calm: Cell::new(false),
        })
    }

    pub fn percent(&self, chance: u64) -> bool {
        self.dice.borrow_mut().percent(chance)
    }

    pub fn below(&self, end: u64) -> u64 {
        self.dice.borrow_mut().below(end)
    }

    pub fn millis(&self, from: u64, to: u64) -> Duration {
        self.dice.borrow_mut().millis(from, to)
    }

    /// Writes, for ever, one connection after the other.
    pub async fn write(self: Rc<App>) {
        loop {
            let target = u8::try_from(self.below(u64::from(self.plan.targets))).unwrap_or(0) + 1;
            let Ok(socket) = self.connect(self.plan.stamp_port(target)).await else {
                sleep(self.millis(100, 500)).await;
                continue;
            };
            if self.plan.http2 && self.percent(40) {
                // What came of each write is on record; that the connection broke is nothing more.
                let _ = self.over_http2(socket, target).await;
                sleep(self.pause()).await;
            } else {
                self.over_http1(socket, target).await;
            }
        }
    }

    /// Writes on one connection, one operation after the other.
    async fn over_http1(&self, socket: Socket, target: u8) {
        let mut wire = Some(Wire::new(socket));
        for _ in 0..=self.below(12) {
            let Some(present) = wire.take() else { break };
            let again = self.again.borrow_mut().take_if(|op| op.target == target);
            let op = again.unwrap_or_else(|| self.op(target));
            let ended = self.send(&op, |name| self.exchange(present, &op, name)).await;
            let unled = ended.reason == Some(Reason::NotLeader);
            if ended.outcome != Outcome::Answered && !unled && self.percent(25) {
                self.again.replace(Some(op));
            }
            wire = ended.wire;
            sleep(if unled { self.millis(150, 900) } else { self.pause() }).await;
        }
    }

    pub fn pause(&self) -> Duration {
        let (shortest, longest) = self.plan.pause;
        self.dice.borrow_mut().between(shortest, longest)
    }

    async fn connect(&self, port: u16) -> io::Result<Socket> {
        let connecting = Socket::connect(&self.network, self.host, Address(self.host, port), &self.life);
        timeout(Duration::from_secs(1), connecting).await?
    }

    pub fn op(&self, target: u8) -> Op {
        let mut dice = self.dice.borrow_mut();
        let resource = dice.pick(&self.plan.resources).clone();
        let length = match dice.below(20) {
            0 => 0,
            1 => 20_000 + dice.index(60_000),
            _ => 8 + dice.index(120),
        };
        Op { number: self.ops.next(), resource, length, target }
    }

    /// Sends an operation once, by way of `exchange`, and has what came of it on record.
    pub async fn send<F: Future<Output = io::Result<Ended>>>(
        &self,
        op: &Op,
        exchange: impl FnOnce(String) -> F,
    ) -> Ended {
        let name: Arc<str> = format!("w{}", op.number).into();
        self.record.saw(
            &self.name,
            Outside::Sent {
                op: Arc::clone(&name),
                resource: op.resource.parse().expect("the plan names resources"),
                target: Some(format!("db-{}", op.target).into()),
                body: Some(op.length.to_string().into()),
            },
        );
        let patience = self.millis(2_000, 9_000);
        let ended = match timeout(patience, exchange(name.to_string())).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => Ended::unknown(error.kind().to_string()),
            Err(_) => Ended::unknown("gave up waiting"),
        };
        if let Some(why) = &ended.why {
            self.record.note(&self.name, format!("{name}: {why}"));
        }
        let (outcome, status, reason) = (ended.outcome, ended.status, ended.reason);
        self.record.saw(&self.name, Outside::Ended { op: name, outcome, status, reason });
        ended
    }

    async fn exchange(&self, mut wire: Wire, op: &Op, name: String) -> io::Result<Ended> {
        let body = vec![b'x'; op.length];
        let mut request = format!(
            "PUT /{}/ops/{name} HTTP/1.1\r\nhost: shop\r\nx-op: {name}\r\nx-length: {}\r\n",
            op.resource, op.length
        );
        let chunked = op.length > 0 && self.percent(10);
        request += &if chunked {
            "transfer-encoding: chunked\r\n\r\n".to_owned()
        } else {
            format!("content-length: {}\r\n\r\n", op.length)
        };
        let mut bytes = request.into_bytes();
        if chunked {
            bytes.extend_from_slice(format!("{:x}\r\n", op.length).as_bytes());
        }
        let head = bytes.len();
        bytes.extend_from_slice(&body);
        if chunked {
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        if !self.calm.get() && self.percent(10) {
            // The body stalls, and is never finished now and then.
            let at = head + self.dice.borrow_mut().index(bytes.len() - head + 1);
            wire.write(&bytes[..at]).await?;
            sleep(self.millis(50, 2_500)).await;
            if self.percent(30) {
                if self.percent(50) {
                    wire.abort();
                }
                return Ok(Ended::unknown("broke off"));
            }
            wire.write(&bytes[at..]).await?;
        } else {
            wire.write(&bytes).await?;
        }
        let Some(head) = wire.head().await? else { return Ok(Ended::unknown("closed without an answer")) };
        let body = wire.body(&head).await?;
        let mut ended = understand(head.status(), |name| head.field(name), &body);
        ended.wire = (head.field("connection") != Some("close")).then_some(wire);
        Ok(ended)
    }
}

/// What an answer says of its request.
pub fn understand<'a>(status: u16, field: impl Fn(&str) -> Option<&'a str>, body: &[u8]) -> Ended {
    if let Some(word) = field("fencing-refused") {
        let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let outcome = match problem["outcome"].as_str() {
            Some("not_applied") => Outcome::NotApplied,
            _ => Outcome::Unknown,
        };
        let reason = Reason::ALL.iter().copied().find(|reason| reason.as_str() == word);
        return Ended { outcome, status: Some(status), reason, why: None, wire: None };
    }
    // What is neither the target's word nor a refusal says nothing; nor does a target's 202, or a proxy's 504.
    let answered = field("x-target").is_some() && status == 200;
    let outcome = if answered { Outcome::Answered } else { Outcome::Unknown };
    Ended { outcome, status: Some(status), reason: None, why: None, wire: None }
}
