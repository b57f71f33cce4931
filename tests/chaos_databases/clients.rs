//! Clients that write all the time through the stamps, and note what became of every operation; and a ghost that goes past them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use epochgate::fence::{Outcome, Stamp};
use epochgate::net::proxy_header;

use crate::database::{Kind, Manner, Talk, Told};
use crate::node;
use crate::plan::Plan;
use crate::record::Recorder;
use crate::redis;
use crate::relay::Sightings;
use crate::support::dice::Dice;

/// What a database may say against an operation because of what others do to it, in its own words: a lock that was waited for too
/// long, a deadlock, a cancellation, a session that the guard has ended, nothing that came.
const ITS_OWN: [&str; 9] = ["1205", "1213", "1317", "55P03", "40P01", "57014", "UNBLOCKED", "NULL", "EXECABORT"];

/// What everybody shares.
pub struct Shared {
    /// Which database.
    pub kind: Kind,
    /// Where it listens itself.
    pub server: SocketAddr,
    /// So many of a thousand operations are slow, or wait, at the database...
    pub slow: u64,
    /// ...and for no longer than this.
    pub longest: Duration,
    /// What the outside sees.
    pub record: Arc<Recorder>,
    /// What went to the guard.
    pub sightings: Sightings,
    /// What clients were told, and how often.
    pub told: Mutex<BTreeMap<String, u64>>,
    /// What they may not be told.
    pub complaints: Mutex<Vec<String>>,
    /// How many slow operations were sent so far.
    pub slow_ones: AtomicUsize,
    stop: AtomicBool,
}

impl Shared {
    /// For one episode.
    pub fn new(plan: &Plan, server: SocketAddr, record: &Arc<Recorder>, sightings: &Sightings) -> Arc<Shared> {
        Arc::new(Shared {
            kind: plan.kind,
            server,
            slow: plan.slow,
            longest: plan.longest,
            record: Arc::clone(record),
            sightings: sightings.clone(),
            told: Mutex::default(),
            complaints: Mutex::default(),
            slow_ones: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        })
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts what a client was told; whether the session may go on.
    fn heard(&self, told: &Told) -> bool {
        let (word, goes_on) = match told {
            Told::Done => ("done".to_owned(), true),
            Told::Refused(reason) => (format!("refused {reason}"), false),
            Told::Unclear(reason) => (format!("ended {reason}"), false),
            Told::Failed(said) => {
                let code = said.split(' ').next().unwrap_or_default();
                if !ITS_OWN.contains(&code) {
                    self.complaints.lock().expect("no holder of it panics").push(format!("a client was told: {said}"));
                }
                (format!("failed {code}"), false)
            }
            Told::Gone(_) => ("connection lost".to_owned(), false),
        };
        *self.told.lock().expect("no holder of it panics").entry(word).or_default() += 1;
        goes_on
    }

    /// Says the last word of an operation, and notes what came of it; whether the session may go on.
    fn say(&self, from: &str, op: &str, manner: Manner, session: &mut dyn Talk, waits: bool) -> bool {
        let last_word = session.last_word(op, manner);
        self.record.sent(from, op);
        let told = match session.wire().send(&last_word) {
            Err(error) => Told::Gone(error),
            Ok(()) if !waits => Told::Gone(std::io::ErrorKind::ConnectionAborted.into()),
            Ok(()) => {
                session.begun(manner);
                self.slow_ones.fetch_add(usize::from(matches!(manner, Manner::Slow(_))), Ordering::Relaxed);
                session.answer()
            }
        };
        let (outcome, status) = match &told {
            Told::Done => (Outcome::Answered, Some(200)),
            Told::Failed(_) => (Outcome::Answered, Some(500)),
            Told::Refused(_) => (Outcome::NotApplied, None),
            Told::Unclear(_) | Told::Gone(_) => (Outcome::Unknown, None),
        };
        self.record.ended(from, op, outcome, status);
        self.heard(&told)
    }
}

/// Clients under way.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts `writers` clients that write through `stamps`, and one that writes to `guard` with what it finds in `folders`.
    pub fn start(
        shared: &Arc<Shared>,
        writers: usize,
        stamps: &[SocketAddr],
        guard: SocketAddr,
        folders: &[PathBuf],
        dice: &Dice,
    ) -> Clients {
        let mut threads = Vec::new();
        for number in 0..writers {
            let name = format!("w{number}");
            let (dice, to, at) = (dice.apart(&name), stamps.to_vec(), number % stamps.len());
            let shared = Arc::clone(shared);
            let mut writer = Writer { shared, name, dice, to, at, session: None, count: 0 };
            threads.push(thread::spawn(move || writer.run()));
        }
        let (shared_too, dice, folders) = (Arc::clone(shared), dice.apart("ghost"), folders.to_vec());
        let mut ghost = Ghost { shared: shared_too, dice, guard, folders, stamps: Vec::new(), count: 0 };
        threads.push(thread::spawn(move || ghost.run()));
        Clients { shared: Arc::clone(shared), threads }
    }

    /// Lets each end what it has begun.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client does not panic");
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    name: String,
    dice: Dice,
    to: Vec<SocketAddr>,
    at: usize,
    session: Option<Box<dyn Talk>>,
    count: usize,
}

impl Writer {
    fn run(&mut self) {
        while !self.shared.stops() {
            self.write();
            thread::sleep(self.dice.span(Duration::from_millis(2), Duration::from_millis(40)));
        }
    }

    fn write(&mut self) {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => match self.shared.kind.talk(self.to[self.at], b"") {
                Ok(session) => session,
                Err(told) => {
                    self.shared.heard(&told);
                    return self.go_elsewhere();
                }
            },
        };
        let (op, manner) = (format!("{}-{}", self.name, self.count), self.manner());
        self.count += 1;
        if let Err(told) = session.prepare(&op, manner) {
            self.shared.heard(&told);
            return self.go_elsewhere();
        }
        if let Manner::Open(span) = manner {
            thread::sleep(span);
        }
        // Half a last word, and then nothing: it is never whole, so it was never sent.
        if self.dice.per_mille(10) {
            let last_word = session.last_word(&op, manner);
            let _ = session.wire().send(&last_word[..last_word.len() / 2]);
            return;
        }
        if let Manner::Waiting(span) = manner
            && self.shared.kind == Kind::Redis
        {
            redis::release_later(self.shared.server, &op, span);
        }
        let stays = !self.dice.per_mille(20);
        let goes_on = self.shared.say(&self.name, &op, manner, &mut *session, stays);
        match (goes_on, stays) {
            (true, _) if self.dice.per_mille(900) => self.session = Some(session),
            // It goes in good order, or without having heard the answer.
            (true, _) | (false, false) => session.wire().end(),
            (false, true) => self.go_elsewhere(),
        }
    }

    fn manner(&mut self) -> Manner {
        let open = self.dice.span(Duration::ZERO, Duration::from_millis(300));
        let slow = self.dice.span(Duration::from_millis(50), self.shared.longest);
        match self.dice.below(1000) as u64 {
            throw if throw < self.shared.slow / 2 => Manner::Slow(slow),
            throw if throw < self.shared.slow => Manner::Waiting(slow),
            throw if throw % 5 == 0 => Manner::Open(open),
            _ => Manner::Quick,
        }
    }

    fn go_elsewhere(&mut self) {
        thread::sleep(self.dice.span(Duration::from_millis(30), Duration::from_millis(150)));
        self.at = self.dice.below(self.to.len());
    }
}

/// Whoever has seen stamps and comes with them whenever it likes, right to the guard; with bare epochs, and with forged ones too.
struct Ghost {
    shared: Arc<Shared>,
    dice: Dice,
    guard: SocketAddr,
    folders: Vec<PathBuf>,
    stamps: Vec<String>,
    count: usize,
}

impl Ghost {
    fn run(&mut self) {
        while !self.shared.stops() {
            let folder = &self.folders[self.dice.below(self.folders.len())];
            if let Some(stamp) = node::stamp_of(folder)
                && !self.stamps.contains(&stamp)
            {
                self.stamps.push(stamp);
            }
            if !self.stamps.is_empty() {
                self.write();
            }
            thread::sleep(self.dice.span(Duration::from_millis(30), Duration::from_millis(250)));
        }
    }

    fn write(&mut self) {
        let stamp = self.dice.one(&self.stamps).clone();
        let seen = Stamp::parse(stamp.as_bytes()).expect("it was a sidecar's");
        let bare = |epoch| Stamp { epoch, nonce: None, by: None, res: None };
        let future = seen.epoch.number() + 1_000_007;
        let (seen, header, said) = match self.dice.below(8) {
            0 => (bare(seen.epoch), proxy_header::write(None, None, Some(seen.epoch.to_string().as_bytes())), None),
            1 | 2 => (bare(seen.epoch), Vec::new(), Some(seen.epoch.number())),
            3 => {
                let forged = proxy_header::write(None, None, Some(future.to_string().as_bytes()));
                (bare(epochgate::fence::Epoch::new(future).expect("it is in range")), forged, None)
            }
            _ => (seen, proxy_header::write(None, None, Some(stamp.as_bytes())), None),
        };
        let session = match said {
            None => self.shared.kind.talk(self.guard, &header),
            Some(epoch) => self.shared.kind.talk_of_epoch(self.guard, epoch),
        };
        let mut session = match session {
            Ok(session) => session,
            Err(told) => {
                self.shared.heard(&told);
                return;
            }
        };
        for _ in 0..1 + self.dice.below(3) {
            let op = format!("g-{}", self.count);
            self.count += 1;
            self.shared.sightings.note(&op, Some(&seen));
            let goes_on = self.shared.say("ghost", &op, Manner::Quick, &mut *session, true);
            if !goes_on {
                return;
            }
            // It comes back to its session later.
            thread::sleep(self.dice.span(Duration::from_millis(0), Duration::from_millis(600)));
        }
    }
}
