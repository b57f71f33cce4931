//! The target: what applies writes, in an order that is the truth of a run.
//!
//! It does what a target may do. It takes its time, loses its answer, breaks off, says 504 and goes on, answers before
//! it has read, or in parts. Two bounds it keeps, those of DESIGN 3.8: an answer to a write that had been sent whole is
//! its last word on it; and any other write is over within the quarantine after its connection ended, however long it
//! left the write unread. [`Plan::exceeds`](crate::plan::Plan) lets it break the second.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use epochgate::fence::Stamp;
use epochgate::verify::{Outside, Taken};
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use crate::dice::Dice;
use crate::http1::{Head, Wire};
use crate::life::Life;
use crate::network::{Address, Host, Id, Network};
use crate::plan::Plan;
use crate::record::Record;
use crate::socket::Listening;

/// The port of every target.
pub const PORT: u16 = 9000;

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is applied and answered.
    Prompt,
    /// The same, but late: at times later than anybody waits.
    Late,
    /// It is applied, and not answered.
    Silent,
    /// The connection breaks, and it is applied all the same.
    Breaks,
    /// The connection is closed when it was applied.
    Closes,
    /// Somebody before the target says that he knows nothing; it is applied later.
    Gateway,
    /// The answer comes in two parts, and it is applied between them.
    InParts,
    /// The answer comes before the body was read.
    Early,
    /// Nothing is read for a while.
    Sleeps,
    /// It is not applied.
    Fails,
}

const WAYS: &[(u64, Way)] = &[
    (62, Way::Prompt),
    (12, Way::Late),
    (3, Way::Silent),
    (4, Way::Breaks),
    (2, Way::Closes),
    (4, Way::Gateway),
    (4, Way::InParts),
    (4, Way::Early),
    (3, Way::Sleeps),
    (2, Way::Fails),
];

/// One target.
pub struct Target {
    pub name: Arc<str>,
    pub host: Host,
    network: Network,
    record: Record,
    life: Life,
    plan: Plan,
    dice: RefCell<Dice>,
    /// How many writes it has applied.
    applied: Cell<u64>,
    /// Nothing goes wrong any more.
    pub calm: Cell<bool>,
}

/// One write, as it came.
#[derive(Clone)]
struct Write {
    connection: Id,
    resource: String,
    op: Arc<str>,
    stamp: Option<Stamp>,
    /// What came of its body.
    body: Arc<str>,
}

impl Target {
    pub fn new(number: u8, network: &Network, record: &Record, plan: &Plan, dice: Dice) -> Rc<Target> {
        let host = Host::Target(number);
        Rc::new(Target {
            name: format!("db-{number}").into(),
            host,
            network: network.clone(),
            record: record.clone(),
            life: Life::default(),
            plan: plan.clone(),
            dice: RefCell::new(dice),
            applied: Cell::new(0),
            calm: Cell::new(false),
        })
    }

    /// Serves, for ever.
    pub async fn serve(self: Rc<Target>) {
        let address = Address(self.host, PORT);
        self.network.listen(address, 1);
        let listening = Listening::new(&self.network, address, 0, &self.life);
        loop {
            let socket = listening.accept().await;
            let this = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                let mut wire = Some(Wire::new(socket));
                while let Some(next) = wire.take() {
                    wire = this.one(next).await;
                }
            });
        }
    }

    fn way(&self) -> Way {
        if self.calm.get() { Way::Prompt } else { *self.dice.borrow_mut().weighed(WAYS) }
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        self.dice.borrow_mut().millis(from, to)
    }

    fn percent(&self, chance: u64) -> bool {
        self.dice.borrow_mut().percent(chance)
    }

    /// One request. Returns the connection where it can take another.
    async fn one(self: &Rc<Target>, mut wire: Wire) -> Option<Wire> {
        let head = wire.head().await.ok()??;
        let Some(mut write) = Write::of(&head, wire.socket().id()) else {
            wire.body(&head).await.ok()?;
            wire.write(answer(200, "read").as_bytes()).await.ok()?;
            return Some(wire);
        };
        let way = self.way();
        match way {
            Way::Early => return self.early(wire, &head, write).await,
            Way::Sleeps => self.sleeps(wire.socket().id()).await,
            _ => {}
        }
        let body = wire.body(&head).await.ok()?;
        write.body = body.len().to_string().into();
        self.record.saw(&self.name, Outside::Received(self.taken(&write)));
        match way {
            Way::Prompt | Way::Sleeps => {
                self.later(write, self.millis(0, 25), None).await;
                wire.write(answer(200, "applied").as_bytes()).await.ok()?;
                Some(wire)
            }
            Way::Late => {
                let longest = self.plan.response_timeout.as_millis() as u64 * 2;
                self.later(write, self.millis(25, longest), None).await;
                wire.write(answer(200, "applied late").as_bytes()).await.ok()?;
                Some(wire)
            }
            Way::Silent => {
                self.later(write, self.anywhen(), None).await;
                // It keeps the connection for as long as the guard does.
                self.network.over(wire.socket().id()).await;
                None
            }
            Way::Breaks => {
                self.beside(write, None);
                sleep(self.millis(0, 400)).await;
                wire.abort();
                None
            }
            Way::Closes => {
                self.later(write, self.millis(0, 500), None).await;
                None
            }
            Way::Gateway => {
                let status = if self.percent(50) { 502 } else { 504 };
                let limit = Instant::now() + self.plan.over_within();
                self.beside(write, Some(limit));
                wire.write(answer(status, "who knows").as_bytes()).await.ok()?;
                Some(wire)
            }
            Way::InParts => {
                let text = answer(200, "applied in parts");
                let (first, second) = text.split_at(text.len() - 6);
                wire.write(first.as_bytes()).await.ok()?;
                let delay = self.millis(5, self.plan.response_timeout.as_millis() as u64);
                self.later(write, delay, None).await;
                wire.write(second.as_bytes()).await.ok()?;
                Some(wire)
            }
            Way::Fails => {
                wire.write(answer(500, "not applied").as_bytes()).await.ok()?;
                Some(wire)
            }
            Way::Early => unreachable!("it was answered before it was read"),
        }
    }

    /// Reads nothing for a while: but whoever has left a connection unread for longer than a write may go on after it
    /// has ended does nothing with it any more.
    async fn sleeps(&self, connection: Id) {
        let until = Instant::now() + self.millis(100, 2_500);
        tokio::select! {
            biased;
            () = sleep_until(until) => {}
            over = self.network.over(connection) => sleep_until(until.min(over + self.plan.over_within())).await,
        }
    }

    /// Answers before it reads. The guard takes the answer for the last word on a write that it has sent whole, and it
    /// is: such a write is applied before the guard has the answer, or not at all. Of any other the guard cannot know
    /// what the target will do with the rest, nor does it.
    async fn early(self: &Rc<Target>, mut wire: Wire, head: &Head, mut write: Write) -> Option<Wire> {
        wire.write(answer(413, "no more of it").as_bytes()).await.ok()?;
        let (answered, _) = self.network.served(write.connection);
        let body = wire.body(head).await.ok()?;
        let whole = self.network.served(write.connection).1.saturating_sub(wire.ahead());
        let is_last_word = |handed: Option<u64>| handed.is_some_and(|handed| handed >= whole);
        if self.network.took(write.connection, answered).now_or_never().is_some_and(is_last_word) {
            return Some(wire);
        }
        write.body = body.len().to_string().into();
        self.record.saw(&self.name, Outside::Received(self.taken(&write)));
        let delay = self.millis(0, 2_500);
        let at_last = tokio::select! {
            biased;
            handed = self.network.took(write.connection, answered) => is_last_word(handed),
            () = sleep(delay) => true,
        };
        if at_last {
            self.apply(&write);
        } else {
            self.later(write, self.anywhen(), None).await;
        }
        Some(wire)
    }

    fn anywhen(&self) -> Duration {
        let longest = self.plan.response_timeout + self.plan.quarantine;
        self.dice.borrow_mut().between(Duration::ZERO, longest)
    }

    fn beside(self: &Rc<Target>, write: Write, limit: Option<Instant>) {
        let (this, delay) = (Rc::clone(self), self.anywhen());
        tokio::task::spawn_local(async move { this.later(write, delay, limit).await });
    }

    /// Applies it after a while, but not later than it may.
    async fn later(&self, write: Write, delay: Duration, limit: Option<Instant>) {
        let wanted = Instant::now() + delay;
        let mut at = limit.map_or(wanted, |limit| wanted.min(limit));
        if self.plan.exceeds {
            at = wanted + self.dice.borrow_mut().between(Duration::ZERO, self.plan.quarantine * 2);
        }
        let connection = write.connection;
        tokio::select! {
            biased;
            () = sleep_until(at) => {}
            over = self.network.over(connection), if !self.plan.exceeds => {
                // A target that sees its client go may drop the write, or go on as before, or longer; but not for ever.
                let longest = self.dice.borrow_mut().between(Duration::ZERO, self.plan.over_within());
                let throw = self.dice.borrow_mut().below(100);
                let wait = match throw {
                    0..15 => return,
                    15..60 => over + longest,
                    _ => at,
                };
                let latest = over + self.plan.over_within();
                sleep_until(wait.min(limit.map_or(latest, |limit| limit.min(latest)))).await;
            }
        }
        self.apply(&write);
    }

    fn apply(&self, write: &Write) {
        let seq = self.applied.get() + 1;
        self.applied.set(seq);
        self.record.saw(&self.name, Outside::Applied { taken: self.taken(write), seq });
    }

    fn taken(&self, write: &Write) -> Taken {
        let stamp = write.stamp.as_ref();
        Taken {
            target: Arc::clone(&self.name),
            resource: write.resource.parse().expect("services write to resources"),
            op: Some(Arc::clone(&write.op)),
            epoch: stamp.map(|stamp| stamp.epoch),
            nonce: stamp.and_then(|stamp| stamp.nonce),
            writer: stamp.and_then(|stamp| stamp.by.clone()),
            body: Some(Arc::clone(&write.body)),
        }
    }
}

impl Write {
    fn of(head: &Head, connection: Id) -> Option<Write> {
        let mut words = head.first.split(' ');
        if words.next() != Some("PUT") {
            return None;
        }
        let path = words.next()?.strip_prefix('/')?;
        let (resource, _) = path.split_once("/ops/")?;
        let stamp = head.field("fencing-epoch").map(|stamp| Stamp::parse(stamp.as_bytes()));
        Some(Write {
            connection,
            resource: resource.to_owned(),
            op: head.field("x-op")?.into(),
            stamp: stamp.map(|stamp| stamp.expect("a guard forwards a stamp in its canonical form")),
            body: "".into(),
        })
    }
}

fn answer(status: u16, text: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nx-target: yes\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}
