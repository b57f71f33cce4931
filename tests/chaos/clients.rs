//! Clients that write all the time and note what became of every write; some of them slow, some gone half way, some
//! with stamps of the past.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use epochgate::fence::{Outcome, Reason};
use epochgate::verify::Outside;

use crate::record::Recorder;
use crate::support::client::{Answer, Connection};
use crate::support::dice::Dice;
use crate::world::RESPONSE;

/// A client gives up after so long: longer than anything is held.
const PATIENCE: Duration = Duration::from_secs(8);

/// Clients under way.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// How the target and the clients behave.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// So many of a thousand writes meet a target that is slow, loses its answer or applies late.
    pub odd_target: u64,
    /// So many of a thousand clients stand still with half a write sent, or go away.
    pub odd_client: u64,
}

impl Clients {
    /// Starts `writers` clients that write through the stamps, and one that goes past them with stamps of the past.
    pub fn start(
        writers: usize,
        to: &[SocketAddr],
        guards: &[SocketAddr],
        leaders: &[PathBuf],
        manners: Manners,
        record: &Arc<Recorder>,
        dice: &Dice,
    ) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..writers {
            let name = format!("client-{number}");
            let dice = dice.apart(&name);
            let record = Arc::clone(record);
            let mut writer = Writer {
                name,
                record,
                dice,
                manners,
                to: to.to_vec(),
                at: number % to.len(),
                connection: None,
                count: 0,
            };
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || writer.run(&stop)));
        }
        let mut ghost = Ghost {
            record: Arc::clone(record),
            dice: dice.apart("ghost"),
            guards: guards.to_vec(),
            leaders: leaders.to_vec(),
            stamps: Vec::new(),
            count: 0,
        };
        let of_ghost = Arc::clone(&stop);
        threads.push(thread::spawn(move || ghost.run(&of_ghost)));
        Clients { stop, threads }
    }

    /// Lets each end what it has begun.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client does not panic");
        }
    }
}

struct Writer {
    name: String,
    record: Arc<Recorder>,
    dice: Dice,
    manners: Manners,
    to: Vec<SocketAddr>,
    at: usize,
    connection: Option<Connection>,
    count: usize,
}

impl Writer {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.write();
            thread::sleep(self.dice.span(Duration::from_millis(5), Duration::from_millis(60)));
        }
    }

    fn write(&mut self) {
        let op = format!("{}-{}", self.name, self.count);
        self.count += 1;
        let body = self.body(&op);
        let script = self.script();
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match open(self.to[self.at]) {
                Ok(connection) => connection,
                // Nobody is there: nothing was sent.
                Err(_) => return self.pause_and_go_elsewhere(),
            },
        };
        self.record.sent(&self.name, &op, Some(&body));
        let result = self.send(connection, &op, &body, script.as_deref());
        let ended = outcome_of(&op, result.as_ref().ok().map(|(answer, _)| answer));
        self.record.note(&self.name, ended);
        match result {
            Ok((answer, connection)) => {
                let stays = !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                self.connection = stays.then_some(connection);
                if answer.status == 421 {
                    self.follow(&answer);
                }
            }
            Err(_) => self.pause_and_go_elsewhere(),
        }
    }

    /// Sends a write, as an ordinary client most of the time.
    fn send(
        &mut self,
        mut connection: Connection,
        op: &str,
        body: &[u8],
        script: Option<&str>,
    ) -> io::Result<(Answer, Connection)> {
        let path = format!("/{op}");
        let script = script.map(|script| ("X-Upstream", script));
        let mut headers = vec![("X-Op", op)];
        headers.extend(script);
        if !self.dice.per_mille(self.manners.odd_client) {
            return connection.request("PUT", &path, &headers, body).map(|answer| (answer, connection));
        }
        let length = body.len().to_string();
        headers.push(("Content-Length", &length));
        connection.send_head("PUT", &path, &headers)?;
        let (first, rest) = body.split_at(body.len() / 2);
        connection.send(first)?;
        match self.dice.below(4) {
            // Gone without a goodbye, half of it sent.
            0 => {
                connection.reset()?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // Gone once all of it was sent.
            1 => {
                connection.send(rest)?;
                drop(connection);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // It stands still, for as long as a few leases last.
            _ => thread::sleep(self.dice.span(Duration::from_millis(200), Duration::from_secs(4))),
        }
        connection.send(rest)?;
        connection.answer().map(|answer| (answer, connection))
    }

    fn body(&mut self, op: &str) -> Vec<u8> {
        let length = if self.dice.per_mille(20) { self.dice.below(200_000) } else { self.dice.below(500) };
        let mut body = format!("{op}:").into_bytes();
        body.resize(body.len() + length, b'.');
        body
    }

    /// What the target makes of it: late, lost and broken answers, and never anything once its time is over.
    fn script(&mut self) -> Option<String> {
        if !self.dice.per_mille(self.manners.odd_target) {
            return None;
        }
        let millis = |dice: &mut Dice, least: u64, most: u64| {
            dice.span(Duration::from_millis(least), Duration::from_millis(most)).as_millis()
        };
        let patience = u64::try_from(RESPONSE.as_millis()).expect("small");
        let dice = &mut self.dice;
        Some(match dice.below(10) {
            // A slow target.
            0..3 => format!("apply={}ms", millis(dice, 20, patience / 2)),
            // It applies when the guard has long given up.
            3 | 4 => format!("apply={}ms", millis(dice, patience + 100, patience + 1000)),
            // The answer is lost, or late.
            5 => format!("answer={}ms", millis(dice, patience + 100, patience + 600)),
            6 => "close".to_owned(),
            7 => "partial".to_owned(),
            8 => format!("split={}ms", millis(dice, 20, patience + 500)),
            _ => ["status=503", "status=409", "status=504"][dice.below(3)].to_owned(),
        })
    }

    /// Goes where a refusal says that the leader is.
    fn follow(&mut self, refused: &Answer) {
        let hint = serde_json::from_slice::<serde_json::Value>(&refused.body).ok();
        let hint = hint.and_then(|body| body["leader"]["address"].as_str()?.strip_prefix("http://")?.parse().ok());
        let named = hint.and_then(|address: SocketAddr| self.to.iter().position(|to| *to == address));
        match named {
            Some(named) if named != self.at => (self.at, self.connection) = (named, None),
            _ => self.pause_and_go_elsewhere(),
        }
    }

    fn pause_and_go_elsewhere(&mut self) {
        thread::sleep(self.dice.span(Duration::from_millis(50), Duration::from_millis(250)));
        self.connection = None;
        self.at = self.dice.below(self.to.len());
    }
}

/// Whoever has seen stamps and sends them whenever it likes, right to the guards; forged ones too.
struct Ghost {
    record: Arc<Recorder>,
    dice: Dice,
    guards: Vec<SocketAddr>,
    leaders: Vec<PathBuf>,
    stamps: Vec<String>,
    count: usize,
}

impl Ghost {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.look();
            if !self.stamps.is_empty() {
                self.write();
            }
            thread::sleep(self.dice.span(Duration::from_millis(20), Duration::from_millis(300)));
        }
    }

    /// Learns the stamps that were ever used: the histories have them.
    fn look(&mut self) {
        let Some(folder) = self.leaders.get(self.dice.below(self.leaders.len())) else { return };
        if let Some(stamp) = crate::node::stamp_of(folder)
            && !self.stamps.contains(&stamp)
        {
            self.stamps.push(stamp);
        }
    }

    fn write(&mut self) {
        let newest = self.stamps.len() - 1;
        let stamp = match self.dice.below(10) {
            // The present one, in all likelihood: late is not wrong.
            0 | 1 => self.stamps[newest].clone(),
            // Bare.
            2 => epoch_of(&self.stamps[self.dice.below(newest + 1)]),
            // Of the future.
            3 => (epoch_of(&self.stamps[newest]).parse::<u64>().unwrap_or(0) + 1_000_007).to_string(),
            _ => self.stamps[self.dice.below(newest + 1)].clone(),
        };
        let op = format!("ghost-{}", self.count);
        self.count += 1;
        let to = *self.dice.one(&self.guards);
        let Ok(mut connection) = open(to) else { return };
        self.record.sent("ghost", &op, Some(op.as_bytes()));
        let headers = [("X-Op", op.as_str()), ("Fencing-Epoch", &stamp)];
        let answer = connection.request("PUT", &format!("/{op}"), &headers, op.as_bytes());
        self.record.note("ghost", outcome_of(&op, answer.as_ref().ok()));
    }
}

fn epoch_of(stamp: &str) -> String {
    stamp.split(';').next().unwrap_or_default().to_owned()
}

fn open(to: SocketAddr) -> io::Result<Connection> {
    let connection = Connection::open(to)?;
    connection.patience(PATIENCE)?;
    Ok(connection)
}

/// What a client knows of a write that got this answer, or none.
fn outcome_of(op: &str, answer: Option<&Answer>) -> Outside {
    let Some(answer) = answer else {
        return Outside::Ended { op: op.into(), outcome: Outcome::Unknown, status: None, reason: None };
    };
    let status = Some(answer.status);
    let Some(refused) = answer.refused() else {
        return Outside::Ended { op: op.into(), outcome: Outcome::Answered, status, reason: None };
    };
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let outcome = Outcome::ALL.into_iter().find(|outcome| body["outcome"] == outcome.as_str());
    let reason = Reason::ALL.iter().copied().find(|reason| reason.as_str() == refused);
    Outside::Ended { op: op.into(), outcome: outcome.unwrap_or(Outcome::Unknown), status, reason }
}
