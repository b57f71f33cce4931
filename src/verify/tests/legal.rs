//! Legal histories at random never alarm; each of them with one thing changed does.
//!
//! A run has a guard, its target and clients. Writes overlap, are lost, refused, sent again; the guard hands off, is killed
//! with writes in the target and with its last events unwritten, and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;
use crate::event::{By, Event, Listening, Recorded};
use crate::fence::verdict::Reason;
use crate::fence::{Epoch, Moment, Nonce, Refusal, Resource, WriterId};
use crate::protocol::Kind;
use crate::protocol::right::Settled;

/// Numbers that depend on a seed only.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        // SplitMix64: every seed gives another run, zero too.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % count as u64).expect("it is below a usize")
    }
}

/// A write that was forwarded and may still be applied.
struct Pending {
    op: Arc<str>,
    resource: Resource,
    epoch: Epoch,
    /// Its number, while the guard that let it in lives.
    write: Option<u64>,
    applied: bool,
    client_waits: bool,
}

struct Run {
    dice: Dice,
    now: u64,
    lines: Vec<Line>,
    pending: Vec<Pending>,
    epochs: BTreeMap<Resource, Epoch>,
    seq: u64,
    writes: u64,
    operations: u64,
}

const TARGET: &str = "db";

fn writer(epoch: Epoch) -> WriterId {
    ["a", "b", "c"][usize::try_from(epoch.number() % 3).expect("small")].parse().expect("an id")
}

fn nonce(epoch: Epoch) -> Nonce {
    Nonce::from_bytes(epoch.number().to_be_bytes())
}

impl Run {
    fn make(seed: u64) -> Vec<Line> {
        let mut run = Run {
            dice: Dice(seed),
            now: 0,
            lines: Vec::new(),
            pending: Vec::new(),
            epochs: BTreeMap::new(),
            seq: 0,
            writes: 0,
            operations: 0,
        };
        run.outside("db", Outside::Recorded { target: TARGET.into() });
        run.start();
        for name in ["orders", "stock/7"] {
            let resource: Resource = name.parse().expect("a resource");
            run.hand_off(&resource);
            run.hand_off(&resource);
            run.write(&resource);
        }
        for _ in 0..run.dice.below(60) {
            run.step();
        }
        run.end()
    }

    fn outside(&mut self, from: &str, what: Outside) {
        self.now += 1 + self.dice.below(3) as u64;
        self.lines.push(Line::outside(Moment::from_nanos(self.now), from, what));
    }

    fn event(&mut self, event: Event) {
        self.now += 1 + self.dice.below(3) as u64;
        self.lines.push(Line::event("guard", Recorded { at: Moment::from_nanos(self.now), event }));
    }

    fn start(&mut self) {
        let listeners =
            vec![Listening { name: "g".into(), target: Some(TARGET.into()), audit: false, sessions: false }];
        self.event(Event::Started { id: "guard".parse().expect("an id"), listeners });
        self.writes = 0;
    }

    fn step(&mut self) {
        let resources: Vec<Resource> = self.epochs.keys().cloned().collect();
        let resource = resources[self.dice.below(resources.len())].clone();
        match self.dice.below(12) {
            0 | 1 => self.hand_off(&resource),
            2 => self.refuse(&resource),
            3 => self.crash(),
            4..=7 => self.write(&resource),
            _ if self.pending.is_empty() => {}
            _ => {
                let which = self.dice.below(self.pending.len());
                self.go_on(which);
            }
        }
    }

    /// Everything of the resource that may still take effect ends, then the next epoch opens.
    fn hand_off(&mut self, resource: &Resource) {
        let next = self.epochs.get(resource).map_or(Epoch::FIRST, |epoch| epoch.after().expect("far from the last"));
        let (r, t) = (|| resource.clone(), || Arc::<str>::from(TARGET));
        let (nonce, writer) = (nonce(next), writer(next));
        self.outside("etcd", Outside::Granted { resource: r(), epoch: next, nonce, writer: writer.clone() });
        self.event(Event::Verified { resource: r(), target: t(), epoch: next, nonce, writer, revision: next.number() });
        self.event(Event::Persisted { resource: r(), target: t(), epoch: next, drained: false });
        if self.dice.below(6) == 0 {
            self.crash();
        }
        self.event(Event::Fenced { resource: r(), target: t(), epoch: next });
        while let Some(which) = self.pending.iter().position(|pending| pending.resource == *resource) {
            self.go_on(which);
        }
        self.event(Event::Drained { resource: r(), target: t(), epoch: next, by: By::Answers });
        self.epochs.insert(r(), next);
        self.open(resource);
    }

    fn open(&mut self, resource: &Resource) {
        let (r, t, epoch) = (|| resource.clone(), || Arc::<str>::from(TARGET), self.epochs[resource]);
        self.event(Event::Persisted { resource: r(), target: t(), epoch, drained: true });
        self.event(Event::Opened { resource: r(), target: t(), epoch, forced: false });
    }

    /// A write is sent, let in and forwarded; nothing of it has ended.
    fn write(&mut self, resource: &Resource) {
        let epoch = self.epochs[resource];
        let again = self.dice.below(8) == 0 && self.operations > 0;
        let op: Arc<str> = match again {
            // One that has ended, or has not: a client may send whatever it likes again.
            true => self.sent_before(resource),
            false => {
                self.operations += 1;
                format!("w{}", self.operations).into()
            }
        };
        let body = Some(Arc::from(format!("digest of {op}")));
        let target = Some(TARGET.into());
        self.outside("client", Outside::Sent { op: Arc::clone(&op), resource: resource.clone(), target, body });
        self.writes += 1;
        let (listener, write) = (Arc::<str>::from("g"), self.writes);
        let (l, r) = (|| listener.clone(), || resource.clone());
        self.event(Event::Admitted { listener: l(), resource: r(), epoch: Some(epoch), write });
        self.event(Event::Forwarded { listener: l(), resource: r(), epoch: Some(epoch), write });
        let (write, resource) = (Some(write), resource.clone());
        self.pending.push(Pending { op, resource, epoch, write, applied: false, client_waits: true });
    }

    fn sent_before(&self, of: &Resource) -> Arc<str> {
        let sent = self.lines.iter().find_map(|line| match &line.what {
            What::Outside(Outside::Sent { op, resource, .. }) if resource == of => Some(Arc::clone(op)),
            _ => None,
        });
        sent.unwrap_or_else(|| "once".into())
    }

    fn refuse(&mut self, resource: &Resource) {
        let (op, required): (Arc<str>, _) = (format!("r{}", self.now).into(), self.epochs[resource]);
        let Some(given) = Epoch::new(required.number() - 1) else { return };
        let (r, body) = (|| resource.clone(), None);
        self.outside("client", Outside::Sent { op: op.clone(), resource: r(), target: None, body });
        let refusal = Refusal::new(Reason::StaleEpoch, "it is over").with_epochs(Some(given), Some(required));
        let peer = "127.0.0.1:1".parse().expect("an address");
        let (listener, method, path) = ("g".into(), "PUT".into(), "/".into());
        self.event(Event::Refused { listener, refusal: Box::new(refusal), peer, method, path, kind: Kind::Write });
        let reason = Some(Reason::StaleEpoch);
        self.outside("client", Outside::Ended { op, outcome: Outcome::NotApplied, status: Some(412), reason });
    }

    /// The next thing that happens to a write in flight.
    fn go_on(&mut self, which: usize) {
        let may_be_lost = self.pending[which].write.is_none() || self.dice.below(4) == 0;
        let never = may_be_lost && self.dice.below(2) == 0;
        if !self.pending[which].applied && !never {
            return self.apply(which);
        }
        let Pending { op, resource, epoch, write, applied, client_waits } = self.pending.swap_remove(which);
        let answered = applied && !may_be_lost;
        if let Some(write) = write {
            let how = if answered { Settled::Answered } else { Settled::Lost };
            self.event(Event::Settled { listener: "g".into(), resource, epoch: Some(epoch), write, how });
        }
        let (outcome, status) = if answered { (Outcome::Answered, 200) } else { (Outcome::Unknown, 502) };
        if client_waits {
            self.outside("client", Outside::Ended { op, outcome, status: Some(status), reason: None });
        }
    }

    fn apply(&mut self, which: usize) {
        self.seq += 1;
        let pending = &mut self.pending[which];
        pending.applied = true;
        let taken = Taken {
            target: TARGET.into(),
            resource: pending.resource.clone(),
            op: Some(Arc::clone(&pending.op)),
            epoch: Some(pending.epoch),
            nonce: Some(nonce(pending.epoch)),
            writer: Some(writer(pending.epoch)),
            body: Some(format!("digest of {}", pending.op).into()),
        };
        let seq = self.seq;
        self.outside("db", Outside::Applied { taken, seq });
    }

    /// The guard is killed, its last lines not all written; it comes back with what is on its disk.
    fn crash(&mut self) {
        let own = self.lines.iter().rposition(|line| matches!(line.what, What::Event(Event::Started { .. })));
        let own = own.expect("it has started");
        let settled = |line: &Line| {
            matches!(line.what, What::Event(Event::Settled { .. } | Event::Admitted { .. } | Event::Forwarded { .. }))
        };
        for _ in 0..self.dice.below(4) {
            let last = self.lines.iter().rposition(|line| matches!(line.what, What::Event(_))).expect("it has started");
            if last > own && settled(&self.lines[last]) {
                self.lines.remove(last);
            }
        }
        self.outside("test", Outside::Killed { process: "guard".into() });
        for pending in &mut self.pending {
            pending.write = None;
        }
        self.start();
        for resource in self.epochs.keys().cloned().collect::<Vec<_>>() {
            let epoch = self.epochs[&resource];
            // What was persisted on the way to the next epoch binds it: it goes on with that one, and opens no lower one.
            let floor = self.lines.iter().filter_map(|line| match &line.what {
                What::Event(Event::Persisted { resource: of, epoch, .. }) if *of == resource => Some(*epoch),
                _ => None,
            });
            if floor.max() == Some(epoch) {
                self.open(&resource);
            }
        }
    }

    fn end(mut self) -> Vec<Line> {
        while !self.pending.is_empty() {
            self.go_on(0);
        }
        self.event(Event::Stopped {});
        let within_ns = std::time::Duration::from_nanos(1_000_000);
        self.outside("test", Outside::FaultsOver { within_ns, resource: None });
        let resource = self.epochs.keys().next().expect("there is one").clone();
        self.start();
        self.open(&resource);
        self.operations += 1_000_000;
        self.write(&resource);
        self.apply(0);
        let Pending { op, resource, epoch, write, .. } = self.pending.remove(0);
        let (write, how) = (write.expect("its guard lives"), Settled::Answered);
        self.event(Event::Settled { listener: "g".into(), resource, epoch: Some(epoch), write, how });
        self.outside("client", Outside::Ended { op, outcome: Outcome::Answered, status: Some(200), reason: None });
        self.event(Event::Stopped {});
        self.lines
    }
}

/// One way to spoil a history: the invariant that has to be named then. `None` where this history gives no occasion.
type Spoil = fn(&mut Vec<Line>, &mut Dice) -> Option<Invariant>;

const SPOILS: &[(&str, Spoil)] = &[
    ("an old write moves behind a new one", |lines, dice| {
        let (old, new) = a_pair_of_epochs(lines, dice)?;
        let last = applied(lines).len() as u64 + 1;
        let _ = new;
        taken(&mut lines[old])?.1.clone_from(&last);
        Some(Invariant::Order)
    }),
    ("an old write is applied when the next epoch is open", |lines, dice| {
        let (old, new) = a_pair_of_epochs(lines, dice)?;
        lines[old].at = lines[new].at;
        let line = lines.remove(old);
        lines.insert(new, line);
        Some(Invariant::Closed)
    }),
    ("an acknowledged write is not there", |lines, dice| {
        let op = an_operation(lines, dice, Outcome::Answered)?;
        lines.retain(|line| !is_applied_op(line, &op));
        Some(Invariant::Acknowledged)
    }),
    ("a write is there twice", |lines, dice| {
        let op = an_operation(lines, dice, Outcome::Answered)?;
        let mut again = lines.iter().find(|line| is_applied_op(line, &op))?.clone();
        taken(&mut again)?.1.clone_from(&1_000_000);
        lines.push(again);
        Some(Invariant::Acknowledged)
    }),
    ("a write has another body", |lines, dice| {
        let op = an_operation(lines, dice, Outcome::Answered)?;
        let line = lines.iter_mut().find(|line| is_applied_op(line, &op))?;
        taken(line)?.0.body = Some("another".into());
        Some(Invariant::Acknowledged)
    }),
    ("an acknowledged write was refused, its client is told", |lines, dice| {
        let op = an_operation(lines, dice, Outcome::Answered)?;
        for line in lines.iter_mut() {
            match &mut line.what {
                What::Outside(Outside::Ended { op: of, outcome, .. }) if *of == op => *outcome = Outcome::NotApplied,
                _ => {}
            }
        }
        Some(Invariant::Refused)
    }),
    ("a write is of somebody else", |lines, dice| {
        let which = *pick(&applied(lines), dice)?;
        taken(&mut lines[which])?.0.writer = Some("mallory".parse().expect("an id"));
        Some(Invariant::Granted)
    }),
    ("a write is of another term of that epoch", |lines, dice| {
        let which = *pick(&applied(lines), dice)?;
        taken(&mut lines[which])?.0.nonce = Some(Nonce::from_bytes([0xff; 8]));
        Some(Invariant::Granted)
    }),
    ("an epoch is granted to two", |lines, dice| {
        let which = *pick(&positions(lines, |line| matches!(line.what, What::Outside(Outside::Granted { .. }))), dice)?;
        let mut again = lines[which].clone();
        if let What::Outside(Outside::Granted { writer, .. }) = &mut again.what {
            *writer = "mallory".parse().expect("an id");
        }
        lines.insert(which + 1, again);
        Some(Invariant::Granted)
    }),
    ("an epoch is not on disk as drained", |lines, dice| {
        let opened = positions(lines, |line| matches!(line.what, What::Event(Event::Opened { .. })));
        let What::Event(Event::Opened { resource, epoch, .. }) = &lines[*pick(&opened, dice)?].what.clone() else {
            return None;
        };
        lines.retain(|line| {
            !matches!(&line.what, What::Event(Event::Persisted { resource: r, epoch: e, drained: true, .. }) if r == resource && e == epoch)
        });
        Some(Invariant::Persisted)
    }),
    ("a floor goes down", |lines, dice| {
        let higher = positions(
            lines,
            |line| matches!(line.what, What::Event(Event::Persisted { epoch, .. }) if epoch > Epoch::FIRST),
        );
        let which = *pick(&higher, dice)?;
        let mut lower = lines[which].clone();
        if let What::Event(Event::Persisted { epoch, .. }) = &mut lower.what {
            *epoch = Epoch::FIRST;
        }
        lines.insert(which + 1, lower);
        Some(Invariant::Floor)
    }),
    ("a write is settled twice", |lines, dice| {
        let settled = positions(lines, |line| matches!(line.what, What::Event(Event::Settled { .. })));
        let which = *pick(&settled, dice)?;
        let again = lines[which].clone();
        lines.insert(which + 1, again);
        Some(Invariant::Books)
    }),
    ("a write is received more often than sent", |lines, dice| {
        let op = an_operation(lines, dice, Outcome::Answered)?;
        let mut line = lines.iter().find(|line| is_applied_op(line, &op))?.clone();
        let taken = taken(&mut line)?.0.clone();
        line.what = What::Outside(Outside::Received(taken));
        lines.extend([line.clone(), line.clone(), line.clone(), line.clone(), line]);
        let sends =
            lines.iter().filter(|line| matches!(&line.what, What::Outside(Outside::Sent { op: of, .. }) if *of == op));
        (sends.count() < 5).then_some(Invariant::Once)
    }),
    ("nothing is acknowledged in time", |lines, _| {
        for line in lines.iter_mut() {
            if let What::Outside(Outside::FaultsOver { within_ns, .. }) = &mut line.what {
                *within_ns = std::time::Duration::from_nanos(1);
            }
        }
        Some(Invariant::Liveness)
    }),
];

fn positions(lines: &[Line], is_it: impl Fn(&Line) -> bool) -> Vec<usize> {
    lines.iter().enumerate().filter(|(_, line)| is_it(line)).map(|(position, _)| position).collect()
}

fn applied(lines: &[Line]) -> Vec<usize> {
    positions(lines, |line| matches!(line.what, What::Outside(Outside::Applied { .. })))
}

fn pick<'a, T>(from: &'a [T], dice: &mut Dice) -> Option<&'a T> {
    if from.is_empty() { None } else { Some(&from[dice.below(from.len())]) }
}

fn taken(line: &mut Line) -> Option<(&mut Taken, &mut u64)> {
    match &mut line.what {
        What::Outside(Outside::Applied { taken, seq }) => Some((taken, seq)),
        _ => None,
    }
}

fn is_applied_op(line: &Line, op: &str) -> bool {
    matches!(&line.what, What::Outside(Outside::Applied { taken, .. }) if taken.op.as_deref() == Some(op))
}

/// An operation that was sent once, and ended like this.
fn an_operation(lines: &[Line], dice: &mut Dice, ended: Outcome) -> Option<Arc<str>> {
    let once = |op: &Arc<str>| {
        lines
            .iter()
            .filter(|line| matches!(&line.what, What::Outside(Outside::Sent { op: of, .. }) if of == op))
            .count()
            == 1
    };
    let all: Vec<Arc<str>> = lines
        .iter()
        .filter_map(|line| match &line.what {
            What::Outside(Outside::Ended { op, outcome, .. }) if *outcome == ended && once(op) => Some(op.clone()),
            _ => None,
        })
        .collect();
    pick(&all, dice).cloned()
}

/// Two applied writes of one resource, the second of a later epoch.
fn a_pair_of_epochs(lines: &[Line], dice: &mut Dice) -> Option<(usize, usize)> {
    let of = |position: usize| match &lines[position].what {
        What::Outside(Outside::Applied { taken, .. }) => (taken.resource.clone(), taken.epoch),
        _ => unreachable!("only positions of applied writes are asked for"),
    };
    let applied = applied(lines);
    let pairs: Vec<(usize, usize)> = applied
        .iter()
        .flat_map(|old| applied.iter().map(|new| (*old, *new)))
        .filter(|(old, new)| of(*old).0 == of(*new).0 && of(*old).1 < of(*new).1)
        .collect();
    pick(&pairs, dice).copied()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_legal_history_never_alarms(seed: u64) {
        let lines = Run::make(seed);
        for options in [Options::default(), Options { clock: false, whole: false }] {
            let verdict = check(&lines, options);
            prop_assert!(verdict.is_good(), "{}", verdict);
        }
        let read: Vec<Line> = super::lines(&lines.iter().map(|line| line.to_json() + "\n").collect::<String>());
        prop_assert!(read.iter().zip(&lines).all(|(read, line)| (read.at, &read.what) == (line.at, &line.what)));
    }

    #[test]
    fn a_spoiled_history_always_does(seed: u64) {
        for (name, spoil) in SPOILS {
            let mut lines = Run::make(seed);
            let Some(expected) = spoil(&mut lines, &mut Dice(!seed)) else { continue };
            let verdict = check(&lines, Options::default());
            prop_assert!(verdict.broken().contains(&expected), "{}: {} was not named: {}", name, expected, verdict);
        }
    }
}

/// Each way is taken in some run.
#[test]
fn there_is_occasion_for_every_way() {
    for (name, spoil) in SPOILS {
        assert!((0..50).any(|seed| spoil(&mut Run::make(seed), &mut Dice(seed)).is_some()), "{name}");
    }
}
