//! The beats of the story, with the guard and without it. Each waits for what it tells of, and fails when it does not
//! come; nothing is told that was not seen.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::log::Applied;
use super::narrate::{self, Narrator, bad, good};
use super::pause::Pause;
use super::shop::{self, FILE, Shop, Sidecar, Way};
use super::target::{SLOW, Target};
use crate::cli::client::{self, Address, Answer, ClientError};
use crate::fence::Epoch;

/// The longest that anything in the story is waited for, on a machine that is busy with other things too.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The parts that the story plays with; the story brings the target and the shops.
pub trait Stage {
    /// Starts the guard before a target.
    fn guard(&mut self, target: SocketAddr) -> Result<Sidecar, String>;

    /// Starts a writer's stamping sidecar, in front of the guard. It heeds the pause.
    fn writer(&mut self, id: &str, guard: SocketAddr) -> Result<(Sidecar, Pause), String>;
}

/// Why the story did not go as told.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A part does not start.
    #[error("{0} does not start: {1}")]
    Start(String, String),
    /// Something was waited for in vain.
    #[error("waited {limit} s for {0}; last seen: {1}", limit = LIMIT.as_secs())]
    Waited(String, String),
    /// Something else happened than the story tells.
    #[error("{0}")]
    Otherwise(String),
    /// A shop does not answer.
    #[error("no answer: {0}")]
    Client(#[from] ClientError),
    /// Nobody listens.
    #[error("cannot tell it: {0}")]
    Out(#[from] io::Error),
}

/// Tells the story with everything in its place. What the target applied is in its log, whatever comes of it.
pub async fn safe(stage: &mut impl Stage, target: &Target, tell: &mut Narrator<'_>) -> Result<(), Failure> {
    let mut cast = Cast::gather(stage, target, tell, false).await?;
    let (first, second) = cast.failover_during_an_order(tell).await?;
    cast.wake_refused(tell, first, second).await?;
    cast.slow_write_waited_for(tell, second).await
}

/// Tells it with the writers going around the guard.
pub async fn unsafe_story(stage: &mut impl Stage, target: &Target, tell: &mut Narrator<'_>) -> Result<(), Failure> {
    let mut cast = Cast::gather(stage, target, tell, true).await?;
    let (first, _) = cast.failover_during_an_order(tell).await?;
    cast.wake_applied(tell, first).await?;
    cast.slow_write_overtaken(tell).await
}

/// Everything that runs.
struct Cast<'a> {
    target: &'a Target,
    guard: Sidecar,
    a: Shop,
    b: Shop,
    /// The order that A was about to write when it stopped.
    late: Option<Order>,
}

type Order = JoinHandle<Result<Answer, ClientError>>;

impl<'a> Cast<'a> {
    async fn gather(
        stage: &mut impl Stage,
        target: &'a Target,
        tell: &mut Narrator<'_>,
        around: bool,
    ) -> Result<Cast<'a>, Failure> {
        tell.part("The cast")?;
        tell.line(
            "          Shop A and shop B keep their orders in the same file. Only the one that leads may write.",
        )?;
        tell.line("          Each leadership has a number that only grows: its epoch.")?;
        if around {
            tell.line(
                "          Both ask whether they lead before they write, and then write straight to the file's server.",
            )?;
        } else {
            tell.line("          Beside each shop a sidecar puts the epoch on every write; before the file's server a guard checks it.")?;
            tell.line("          Neither the shops nor the server know of it.")?;
        }
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error| Failure::Start(what, error)
        };
        let guard = stage.guard(target.address()).map_err(failed("the guard"))?;
        let way = if around { Way::Around(target.address()) } else { Way::Sidecar };
        let (sidecar, pause) = stage.writer("A", guard.listen).map_err(failed("A's sidecar"))?;
        let a = Shop::start("A", sidecar, way, pause).await?;
        let epoch = leads(&a).await?;
        tell.part("A leads")?;
        tell.say(&format!("A is elected: {}.", narrate::epoch(epoch)))?;
        // Only now, so that it is A that leads first.
        let (sidecar, pause) = stage.writer("B", guard.listen).map_err(failed("B's sidecar"))?;
        let b = Shop::start("B", sidecar, way, pause).await?;
        let cast = Cast { target, guard, a, b, late: None };
        cast.accepted(&cast.a, "1 lamp").await?;
        tell.say("A writes \"1 lamp\". The server has it.")?;
        Ok(cast)
    }

    /// A stops right before it writes an order; B is elected, and writes. Returns both epochs.
    async fn failover_during_an_order(&mut self, tell: &mut Narrator<'_>) -> Result<(Epoch, Epoch), Failure> {
        let first = epoch_of_last(&self.target.log())?;
        tell.part("A stops in the middle of an order, and does not know it")?;
        self.a.freeze_at_next_order();
        self.late = Some(ordered(&self.a, "2 lamps"));
        within("A to stop before it writes", self.a.frozen()).await?;
        tell.say(
            "A is about to write \"2 lamps\". At this moment its whole host stops (a long pause, a frozen machine).",
        )?;
        tell.say("Nobody hears of A. Its lease of 2 s has to run out first; this takes a moment.")?;
        let second = leads(&self.b).await?;
        if second <= first {
            return Err(Failure::Otherwise(format!("B was elected with {second}, and A had {first}")));
        }
        tell.say(&format!("B is elected: {}.", narrate::epoch(second)))?;
        self.accepted(&self.b, "3 lamps").await?;
        tell.say("B writes \"3 lamps\". The server has it.")?;
        Ok((first, second))
    }

    /// A wakes; its sidecar refuses, and so does the guard.
    async fn wake_refused(&mut self, tell: &mut Narrator<'_>, first: Epoch, second: Epoch) -> Result<(), Failure> {
        tell.part("A wakes up, and goes on as if nothing had been")?;
        self.a.pause().resume();
        tell.say("A writes \"2 lamps\", as it was about to.")?;
        let answer = self.late().await?;
        let reason = refused(&answer, 421)?;
        tell.say(&good(&format!("Refused by its own sidecar (421 {reason}): A does not lead any more. Not applied.")))?;
        let stamp = self.target.last_stamp_of("A").ok_or_else(|| otherwise("the target saw no stamp of A"))?;
        tell.say(&format!(
            "Worse: a write of A that left long ago, with its {}, reaches the guard only now.",
            narrate::epoch(first)
        ))?;
        let mut replay = client::request("PUT", FILE, "2 lamps, late");
        let stamp = stamp.to_string().parse().map_err(|_| otherwise("A's stamp is no header value"))?;
        replay.headers_mut().insert("fencing-epoch", stamp);
        let answer = client::send(&Address::Tcp(self.guard.listen.to_string()), replay, LIMIT).await?;
        let reason = refused(&answer, 412)?;
        tell.say(&good(&format!(
            "Refused by the guard (412 {reason}): it carries {}, and {} is required. Not applied.",
            narrate::epoch(first),
            narrate::epoch(second)
        )))?;
        self.file_says(tell, "3 lamps", "B's order, as it should.")
    }

    /// An old write is in the target when the epoch moves on; the new leader's first write waits for it.
    async fn slow_write_waited_for(&mut self, tell: &mut Narrator<'_>, second: Epoch) -> Result<(), Failure> {
        let (mut slow, old) = self.slow_write_of_b(tell).await?;
        let third = elected(&self.a, second).await?;
        tell.say(&format!(
            "A is elected: {}. B's old write is past the guard already, and still runs.",
            narrate::epoch(third)
        ))?;
        let new = ordered(&self.a, "5 lamps");
        let holder = self.guard_waits(third).await?;
        tell.say(&format!(
            "A writes \"5 lamps\". The guard lets nothing of {} in while {holder} of {} still runs: A's write waits.",
            narrate::epoch(third),
            narrate::epoch(second)
        ))?;
        if self.position("5 lamps").is_some() {
            return Err(otherwise("A's write was applied before the old one had ended"));
        }
        slow.let_go();
        slow.began().await;
        let new = answered("A's write", new).await?;
        self.taken_or_again(new, "5 lamps").await?;
        let (first_in, second_in) = (self.position("4 lamps"), self.position("5 lamps"));
        if first_in.is_none() || first_in >= second_in {
            return Err(otherwise("A's write did not land after the old one"));
        }
        tell.say(&good("B's old write lands first, A's second: in the order of their epochs."))?;
        self.b.pause().resume();
        answered("B's slow write", old).await?;
        self.file_says(tell, "5 lamps", "the order of the one that leads.")
    }

    /// A wakes, and its old write is applied.
    async fn wake_applied(&mut self, tell: &mut Narrator<'_>, first: Epoch) -> Result<(), Failure> {
        tell.part("A wakes up, and goes on as if nothing had been")?;
        self.a.pause().resume();
        tell.say(&format!(
            "A asked before it stopped, and the answer was yes: {}. So it writes \"2 lamps\" now.",
            narrate::epoch(first)
        ))?;
        let answer = self.late().await?;
        if !answer.status.is_success() {
            return Err(otherwise(&format!("A's late write was answered {}", described(&answer))));
        }
        tell.say(&bad("The server takes it: it cannot know better."))?;
        self.file_says(tell, "2 lamps", "the old leader's order. B's was confirmed to its customer, and is lost.")
    }

    /// An old write is in the target when the epoch moves on; the new leader's first write overtakes it.
    async fn slow_write_overtaken(&mut self, tell: &mut Narrator<'_>) -> Result<(), Failure> {
        let (slow, old) = self.slow_write_of_b(tell).await?;
        let third = leads(&self.a).await?;
        tell.say(&format!("A is elected: {}.", narrate::epoch(third)))?;
        self.accepted(&self.a, "5 lamps").await?;
        tell.say("A writes \"5 lamps\". The server has it, while B's old write still runs.")?;
        slow.let_go();
        let seen = || if self.position("4 lamps").is_some() { Ok(()) } else { Err("it still runs".to_owned()) };
        until("B's slow write to land", async || seen()).await?;
        tell.say(&bad("B's old write lands last."))?;
        self.b.pause().resume();
        answered("B's slow write", old).await?;
        self.file_says(tell, "4 lamps", "the old leader's order again.")
    }

    /// B writes, the target is slow with it, and B stops.
    async fn slow_write_of_b(&mut self, tell: &mut Narrator<'_>) -> Result<(super::target::Slow, Order), Failure> {
        tell.part("A write is slow in the server when the leader changes")?;
        let mut slow = self.target.slow_down_next();
        let old = ordered(&self.b, "4 lamps");
        within("B's write to reach the target", slow.began()).await?;
        self.b.pause().pause();
        tell.say(&format!(
            "B writes \"4 lamps\". The server takes {} s for it this time, and meanwhile B's host stops.",
            SLOW.as_secs()
        ))?;
        tell.say("B's lease has to run out; this takes a moment.")?;
        Ok((slow, old))
    }

    /// Until the guard knows the epoch, and waits for an older write. Returns what it waits for.
    async fn guard_waits(&self, epoch: Epoch) -> Result<String, Failure> {
        until("the guard to wait for the old write", async || {
            let gate = &orders(self.guard).await?["gate"];
            if gate["floor"] != epoch.to_string() {
                return Err(gate.to_string());
            }
            match (gate["phase"].as_str(), gate["holders"][0]["what"].as_str()) {
                (Some("open"), _) => Ok(Err(otherwise("the guard opened while an old write still ran"))),
                (Some("draining"), Some(holder)) => Ok(Ok(format!("`{holder}`"))),
                _ => Err(gate.to_string()),
            }
        })
        .await?
    }

    /// The answer to the order that A was about to write when it stopped.
    async fn late(&mut self) -> Result<Answer, Failure> {
        let late = self.late.take().ok_or_else(|| otherwise("A was about to write nothing"))?;
        answered("A's late write", late).await
    }

    /// The shop takes an order. Where its sidecar does not know of its own election yet, or its connection is older,
    /// the write was certainly not applied, and the customer orders again.
    async fn accepted(&self, shop: &Shop, what: &str) -> Result<(), Failure> {
        until(&format!("{} to take \"{what}\"", shop.name()), async || match shop.order(what).await {
            Ok(answer) if answer.status.is_success() => Ok(Ok(())),
            Ok(answer) if [421, 503].contains(&answer.status.as_u16()) => Err(described(&answer)),
            Ok(answer) => Ok(Err(otherwise(&format!("\"{what}\" was answered {}", described(&answer))))),
            Err(error) => Ok(Err(error.into())),
        })
        .await?
    }

    /// As [`Cast::accepted`], where A has been asked once already.
    async fn taken_or_again(&self, answer: Answer, what: &str) -> Result<(), Failure> {
        match answer.status.as_u16() {
            200..300 => Ok(()),
            421 => self.accepted(&self.a, what).await,
            _ => Err(otherwise(&format!("A's write was answered {}", described(&answer)))),
        }
    }

    fn position(&self, what: &str) -> Option<usize> {
        self.target.log().iter().position(|applied| applied.what == what)
    }

    fn file_says(&self, tell: &mut Narrator<'_>, what: &str, comment: &str) -> Result<(), Failure> {
        match self.target.content(FILE) {
            Some(content) if content == what => Ok(tell.say(&format!("The file says \"{what}\": {comment}"))?),
            other => Err(otherwise(&format!("the file says {other:?}, and not {what:?}"))),
        }
    }
}

fn otherwise(what: &str) -> Failure {
    Failure::Otherwise(what.to_owned())
}

/// An order that is under way while the story goes on.
fn ordered(shop: &Shop, what: &str) -> Order {
    let (address, what) = (shop.address(), what.to_owned());
    tokio::task::spawn_local(async move { shop::order(address, &what).await })
}

async fn answered(what: &str, order: Order) -> Result<Answer, Failure> {
    let answer = within(&format!("the answer to {what}"), order).await?;
    Ok(answer.map_err(|error| otherwise(&format!("{what} came to nothing: {error}")))??)
}

/// The reason of a refusal with this status.
fn refused(answer: &Answer, status: u16) -> Result<String, Failure> {
    let reason = answer.headers.get("fencing-refused").and_then(|reason| reason.to_str().ok());
    match reason {
        Some(reason) if answer.status == status => Ok(reason.to_owned()),
        _ => Err(otherwise(&format!("a refusal with {status} was to come, and it was {}", described(answer)))),
    }
}

fn described(answer: &Answer) -> String {
    format!("{} {}", answer.status.as_u16(), answer.text().trim())
}

fn epoch_of_last(log: &[Applied]) -> Result<Epoch, Failure> {
    let last = log.last().and_then(|applied| applied.epoch);
    last.ok_or_else(|| otherwise("the target's last write has no epoch"))
}

/// Until this shop's writer leads, and may write. Returns its epoch.
async fn leads(shop: &Shop) -> Result<Epoch, Failure> {
    until(&format!("{} to lead", shop.name()), async || {
        let admin = Address::Tcp(shop.sidecar().admin.to_string());
        let answer = client::get(&admin, "/leader?resource=orders").await.map_err(|error| error.to_string())?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let epoch = said["epoch"].as_str().and_then(|epoch| epoch.parse().ok());
        epoch.filter(|_| answer.status.is_success()).ok_or_else(|| described(&answer))
    })
    .await
}

/// Until this shop's writer is elected after `before`, whether it may write or not. Returns its epoch.
async fn elected(shop: &Shop, before: Epoch) -> Result<Epoch, Failure> {
    until(&format!("{} to be elected", shop.name()), async || {
        let orders = orders(shop.sidecar()).await?;
        let epoch = orders["epoch"].as_str().and_then(|epoch| epoch.parse::<Epoch>().ok());
        let leads = orders["standing"]["leads"] == true;
        epoch.filter(|epoch| leads && *epoch > before).ok_or_else(|| orders.to_string())
    })
    .await
}

/// What a process says of the resource.
async fn orders(sidecar: Sidecar) -> Result<Value, String> {
    let admin = Address::Tcp(sidecar.admin.to_string());
    let answer = client::get(&admin, "/api/v1/status").await.map_err(|error| error.to_string())?;
    let mut status: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok(status["resources"][0].take())
}

/// Looks again and again, until there is what was waited for, or nothing came for too long.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> Result<T, Failure> {
    let mut seen = String::new();
    let looking = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(instead) => seen = instead,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let found = tokio::time::timeout(LIMIT, looking).await;
    found.map_err(|_| Failure::Waited(what.to_owned(), seen))
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    let waited = tokio::time::timeout(LIMIT, future).await;
    waited.map_err(|_| Failure::Waited(what.to_owned(), "nothing".to_owned()))
}
