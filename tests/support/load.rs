//! Writers that keep at it: each on a connection that it keeps, following what a refusal says of the leader, and noting
//! what became of every write.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Answer, Connection};

/// What became of one write, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// 2xx.
    Applied,
    /// Refused: the status, the reason, the outcome that it says, and whether it names a leader.
    Refused(u16, String, String, bool),
    /// An answer that is neither.
    Answered(u16),
    /// No connection could be made: nothing was sent.
    NotConnected,
    /// A connection that had served requests was closed before a byte of the answer came.
    ClosedBetween,
    /// The connection broke on its first request, or within an answer.
    Broken,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Applied => f.write_str("2xx"),
            Fate::Refused(status, reason, outcome, hint) => {
                let hint = if *hint { "names the leader" } else { "names no leader" };
                write!(f, "{status} {reason} ({outcome}; {hint})")
            }
            Fate::Answered(status) => write!(f, "{status}, no refusal"),
            Fate::NotConnected => f.write_str("connection refused"),
            Fate::ClosedBetween => f.write_str("connection closed between two requests"),
            Fate::Broken => f.write_str("connection broke within a request"),
        }
    }
}

/// One write.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its path, which no other write has.
    pub path: String,
    /// When its end was known.
    pub at: Instant,
    /// What became of it.
    pub fate: Fate,
}

/// Clients under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    began: Instant,
    clients: Vec<JoinHandle<Vec<Done>>>,
}

impl Load {
    /// Starts `clients` clients; each waits for `pause` after every write, and turns to the next of `to` where nobody
    /// tells it where to go.
    pub fn start(clients: usize, to: &[SocketAddr], pause: Duration) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (stop, done, to) = (Arc::clone(&stop), Arc::clone(&done), to.to_vec());
            thread::spawn(move || run(number, &to, pause, &stop, &done))
        };
        let clients = (0..clients).map(client).collect();
        Load { stop, done, began: Instant::now(), clients }
    }

    /// How many writes have succeeded so far.
    pub fn succeeded(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Stops it. Every write, by client and in the order of each.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.clients.into_iter().flat_map(|client| client.join().expect("a client does not panic"));
        Report { done: done.collect(), took: self.began.elapsed() }
    }
}

/// What became of everything.
pub struct Report {
    /// Every write.
    pub done: Vec<Done>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// How many ended in each way.
    pub fn fates(&self) -> BTreeMap<Fate, usize> {
        let mut fates = BTreeMap::new();
        for done in &self.done {
            *fates.entry(done.fate.clone()).or_default() += 1;
        }
        fates
    }

    /// The failed ones.
    pub fn failed(&self) -> impl Iterator<Item = &Done> {
        self.done.iter().filter(|done| done.fate != Fate::Applied)
    }

    /// The longest time without a success of any client.
    pub fn longest_gap(&self) -> Duration {
        let mut times: Vec<Instant> =
            self.done.iter().filter(|done| done.fate == Fate::Applied).map(|done| done.at).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Says it all.
    pub fn print(&self, what: &str) {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand writes")]
        let rate = self.done.len() as f64 / self.took.as_secs_f64();
        println!(
            "{what}: {} writes, {rate:.0} a second; longest time without a success {:?}",
            self.done.len(),
            self.longest_gap()
        );
        for (fate, count) in self.fates() {
            println!("  {count:>6}  {fate}");
        }
    }
}

struct Client {
    connection: Option<Connection>,
    served: usize,
    to: SocketAddr,
}

fn run(number: usize, to: &[SocketAddr], pause: Duration, stop: &AtomicBool, succeeded: &AtomicUsize) -> Vec<Done> {
    let mut client = Client { connection: None, served: 0, to: to[0] };
    let mut all = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let path = format!("/load/{number}/{}", all.len());
        let (fate, hint) = client.put(&path);
        if fate == Fate::Applied {
            succeeded.fetch_add(1, Ordering::Relaxed);
        } else {
            let elsewhere = || *to.iter().find(|address| **address != client.to).unwrap_or(&client.to);
            let next = match &fate {
                Fate::Refused(421, ..) => hint.filter(|hint| *hint != client.to).unwrap_or_else(elsewhere),
                Fate::NotConnected => elsewhere(),
                _ => client.to,
            };
            if next != client.to {
                (client.to, client.connection) = (next, None);
            }
        }
        all.push(Done { path, at: Instant::now(), fate });
        thread::sleep(pause);
    }
    all
}

impl Client {
    /// One write; where it was refused, also who is said to lead.
    fn put(&mut self, path: &str) -> (Fate, Option<SocketAddr>) {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => match Connection::open(self.to) {
                Ok(connection) => {
                    self.served = 0;
                    self.connection.insert(connection)
                }
                Err(_) => return (Fate::NotConnected, None),
            },
        };
        match connection.request("PUT", path, &[], path.as_bytes()) {
            Ok(answer) => {
                self.served += 1;
                if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    self.connection = None;
                }
                judge(&answer)
            }
            Err(error) => {
                self.connection = None;
                // The client reads nothing between two answers, so that a close without a byte is an early end here.
                let ended = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
                let between = self.served > 0 && ended.contains(&error.kind());
                (if between { Fate::ClosedBetween } else { Fate::Broken }, None)
            }
        }
    }
}

fn judge(answer: &Answer) -> (Fate, Option<SocketAddr>) {
    match (answer.status, answer.refused()) {
        (200..300, None) => (Fate::Applied, None),
        (status, None) => (Fate::Answered(status), None),
        (status, Some(reason)) => {
            let problem = answer.json();
            let outcome = problem["outcome"].as_str().unwrap_or_default().to_owned();
            let leader = problem["leader"]["address"].as_str();
            let hint = leader.and_then(|url| url.strip_prefix("http://")?.parse().ok());
            (Fate::Refused(status, reason.to_owned(), outcome, hint.is_some()), hint)
        }
    }
}
