//! What becomes of writes: stamped, under way, let in, sent, applied, answered or lost.

use epochgate::coordinator::keys;
use epochgate::coordinator::records::LeaderRecord;
use epochgate::coordinator::records::from_value;
use epochgate::coordinator::store::{Keys, Range};
use epochgate::fence::gate::{End, Verdict};
use epochgate::fence::mechanism::Mechanism;
use epochgate::fence::tenure::{Unarmed, Verdict as Standing, Wish};
use epochgate::fence::{Epoch, Term};

use crate::rules::Rule;
use crate::tale::Tale;
use crate::words::{NOW, door_id, orders};
use crate::world::World;
use crate::write::{By, Sent, Stage, Stamped, Write};

impl World {
    // ---- at the writer -----------------------------------------------------------------------------------------------

    /// A request comes to a writer's sidecar, on a connection that was just accepted, and is stamped. `false` where it is
    /// not.
    pub fn write_at_once(&mut self, writer: usize, tale: &mut Tale) -> bool {
        let held = self.writers[writer].term().map(|term| term.epoch);
        let bound_to = self.writers[writer].standing.version;
        let Some(stamped) = self.stamp(writer, bound_to, held, None, tale) else { return false };
        self.writes.push(Write { stamp: Some(stamped), stage: Stage::OnItsWay { twice: false } });
        true
    }

    /// A request that waits at its writer's sidecar is stamped. `false` where it is not.
    pub fn stamp_waiting(&mut self, at: usize, tale: &mut Tale) -> bool {
        let Stage::Pooled { writer, bound_to, held, expected } = self.writes[at].stage else { return false };
        let Some(stamped) = self.stamp(writer, bound_to, held, expected, tale) else { return false };
        self.writes[at] = Write { stamp: Some(stamped), stage: Stage::OnItsWay { twice: false } };
        true
    }

    /// Asks the writer's standing, and checks R2.
    fn stamp(
        &mut self,
        writer: usize,
        bound_to: u64,
        held: Option<Epoch>,
        expected: Option<Epoch>,
        tale: &mut Tale,
    ) -> Option<Stamped> {
        let unarmed = if self.reads { Unarmed::Hold } else { Unarmed::Pass };
        let wish = Wish { bound_to, expected, unarmed };
        let by = &self.writers[writer];
        let Standing::Stamp(stamped) = by.standing.stamp(orders(), by.clock(), wish) else { return None };
        let term = stamped.term().clone();
        tale.add(|| format!("it is stamped with {}", term.epoch));
        let mine = self.minted.iter().any(|(minted, process)| *minted == term && *process == writer);
        let told_otherwise = expected.is_some_and(|expected| expected != term.epoch);
        let lapsed = !self.coordinator.has_forgotten && !self.leads(writer);
        if !mine || held != Some(term.epoch) || told_otherwise || lapsed {
            self.breaks(Rule::OwnTerm);
        }
        if self.reads {
            self.settled = self.settled.max(Some(term.epoch));
        }
        Some(Stamped::of(&term, By::Writer(writer)))
    }

    /// Whether the coordinator says that this writer leads the term that it holds.
    fn leads(&self, writer: usize) -> bool {
        let read = self.coordinator.read(&[Range::all(Keys::One(keys::leader(orders())))]);
        let leader = read.ranges.first().and_then(|entries| from_value::<LeaderRecord>(&entries.first()?.value));
        leader.is_some_and(|leader| Some(&leader.term) == self.writers[writer].term())
    }

    /// The connections that wait in the kernel's queue are accepted: they are bound to this version of the standing.
    pub fn accept(&mut self, writer: usize, version: u64) {
        for write in &mut self.writes {
            if let Stage::Queued { writer: of, held } = write.stage
                && of == writer
            {
                write.stage = Stage::Pooled { writer, bound_to: version, held, expected: None };
            }
        }
    }

    // ---- at the guard ------------------------------------------------------------------------------------------------

    /// A write arrives at a worker of a guard. `false` where nothing comes of that but an answer.
    pub fn arrive(&mut self, at: usize, door: usize, worker: usize, tale: &mut Tale) -> bool {
        let Stage::OnItsWay { twice } = self.writes[at].stage else { return false };
        let Some(stamp) = self.writes[at].stamp() else { return false };
        let before = self.guard(door).map(|guard| guard.workers[worker].gate.clone());
        let let_in = self.with_guard(door, |guard, _| {
            let clock = guard.session_clock();
            let let_in = matches!(guard.workers[worker].admit(&stamp, clock), Verdict::Admit(..));
            if let_in && guard.kind.counts_late {
                guard.settle(worker, stamp.epoch, End::NothingLeft, &mut Tale::unread());
            }
            guard.admitted = guard.admitted.max(let_in.then_some(stamp.epoch));
            let_in
        });
        if let_in != Some(true) {
            return self.guard(door).map(|guard| guard.workers[worker].gate.clone()) != before;
        }
        tale.add(|| format!("{} lets it in", door_id(door)));
        if twice {
            self.writes.push(Write { stage: Stage::OnItsWay { twice: false }, ..self.writes[at] });
        }
        self.writes[at].stage = Stage::LetIn { door, worker };
        if self.doors[door].admitted > Some(stamp.epoch) {
            self.breaks(Rule::Memory);
        }
        true
    }

    /// A write that was let in has its connection: it is compared once more, and goes.
    pub fn send(&mut self, at: usize, tale: &mut Tale) {
        let (Stage::LetIn { door, worker }, Some(stamp)) = (self.writes[at].stage, self.writes[at].stamp) else {
            return;
        };
        if self.guard(door).is_some_and(|guard| guard.kind.counts_late) {
            return self.send_uncompared(at, door, worker);
        }
        let goes = self.with_guard(door, |guard, _| {
            let clock = guard.session_clock();
            let goes = guard.workers[worker].confirms(stamp.epoch, clock);
            if !goes {
                guard.settle(worker, stamp.epoch, End::NothingLeft, tale);
            }
            goes
        });
        if goes == Some(true) {
            self.writes[at].stage = Stage::Sent { door, as_: Sent::Running(worker), before: false };
        } else {
            tale.add(|| "it is refused after all".to_owned());
            self.writes.remove(at);
        }
    }

    /// What a gate does that compares first and counts only now: the write goes, whatever the gate would say by now. (One
    /// of an epoch that is over counts for nothing any more: as if nobody had sent it.)
    fn send_uncompared(&mut self, at: usize, door: usize, worker: usize) {
        let Some(stamp) = self.writes[at].stamp() else { return };
        let counts = self.with_guard(door, |guard, _| {
            let clock = guard.session_clock();
            matches!(guard.workers[worker].admit(&stamp, clock), Verdict::Admit(..))
        });
        let as_ = if counts == Some(true) { Sent::Running(worker) } else { Sent::Orphan };
        self.writes[at].stage = Stage::Sent { door, as_, before: false };
    }

    /// A write whose answer has come, or that the guard gives up.
    pub fn settle(&mut self, at: usize, door: usize, worker: usize, end: End, tale: &mut Tale) {
        let Some(stamp) = self.writes[at].stamp else { return };
        self.with_guard(door, |guard, _| guard.settle(worker, stamp.epoch, end, tale));
        match (end, self.writes[at].stage) {
            (End::Lost(_), Stage::Sent { before, .. }) => {
                self.writes[at].stage = Stage::Sent { door, as_: Sent::Lost(worker), before };
            }
            _ => {
                self.writes.remove(at);
            }
        }
    }

    /// The process of a door is gone, and what it knew of its writes.
    pub fn guard_is_gone(&mut self, gone: usize) {
        let admitted = self.guard(gone).and_then(|guard| guard.admitted);
        self.doors[gone].admitted = self.doors[gone].admitted.max(admitted);
        self.doors[gone].guard = None;
        self.writes.retain_mut(|write| match &mut write.stage {
            Stage::LetIn { door, .. } | Stage::Applied { door, .. } if *door == gone => false,
            Stage::Sent { door, as_, before } if *door == gone => {
                (*as_, *before) = (Sent::Orphan, true);
                true
            }
            _ => true,
        });
    }

    // ---- at the target -----------------------------------------------------------------------------------------------

    /// A write takes effect.
    pub fn apply(&mut self, at: usize, tale: &mut Tale) {
        let (Stage::Sent { door, as_, .. }, Some(stamp)) = (self.writes[at].stage, self.writes[at].stamp) else {
            return;
        };
        tale.add(|| format!("a write of {} takes effect", stamp.epoch));
        match self.target.highest {
            Some((highest, _)) if stamp.epoch < highest => self.breaks(Rule::Order),
            Some((highest, nonce)) if stamp.epoch == highest && stamp.nonce != nonce => self.breaks(Rule::OneWriter),
            _ => self.target.highest = Some((stamp.epoch, stamp.nonce)),
        }
        if Some(stamp.epoch) < self.settled {
            self.breaks(Rule::Settled);
        }
        let minted = |(term, _): &(Term, usize)| (term.epoch, Some(term.nonce)) == (stamp.epoch, stamp.nonce);
        if stamp.nonce.is_some() && !self.minted.iter().any(minted) {
            let taken = self.minted.iter().any(|(term, _)| term.epoch == stamp.epoch);
            self.breaks(if taken { Rule::OneWriter } else { Rule::NoPoisoning });
        }
        match as_ {
            Sent::Running(worker) => self.writes[at].stage = Stage::Applied { door, worker },
            Sent::Lost(_) | Sent::Orphan => {
                self.writes.remove(at);
            }
        }
    }

    /// Whether a write that this door has sent may still take effect: one that `which` picks.
    pub fn may_still_land(&self, of: usize, which: impl Fn(Sent) -> bool) -> bool {
        self.writes.iter().any(|write| matches!(write.stage, Stage::Sent { door, as_, .. } if door == of && which(as_)))
    }

    /// A door begins a new session: what it has sent, it has sent in one before.
    pub fn session_ends(&mut self, of: usize) {
        for write in &mut self.writes {
            if let Stage::Sent { door, before, .. } = &mut write.stage
                && *door == of
            {
                *before = true;
            }
        }
    }

    /// Whether a write that this door has sent in a session before its present one may still take effect.
    pub fn may_land_from_before(&self, of: usize) -> bool {
        let from_before = |write: &Write| matches!(write.stage, Stage::Sent { door, before: true, .. } if door == of);
        self.writes.iter().any(from_before)
    }

    /// How a running write of this door ends, where it is given up.
    pub const fn given_up() -> End {
        End::Lost(NOW)
    }

    /// Whether connections that wait are accepted before a standing changes.
    pub fn accepts_first(&self, writer: usize) -> bool {
        self.writers[writer].standing.mechanisms.keeps(Mechanism::AcceptFirst)
    }
}
