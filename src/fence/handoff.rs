//! From one epoch to the next at a door: fence, drain, mark, open (DESIGN 3.2 and 3.3). Event in, effects out.
//!
//! One machine for each resource at a target, owned by control. Its workers' gates are small doors of their own: it
//! orders each to fence, and opens when all have drained. What it has been told, it keeps as facts; after each event
//! [`Handoff::advance`] looks at all of them and does what has become possible, so no order of events is special.
//!
//! It is also where an answer of the coordinator is weighed: only a linearizable reading that shows an epoch above
//! the floor starts a handoff (R4), and one that shows the coordinator behind what this door knows is a regression
//! (DESIGN 3.7).
//!
//! This file is long because the whole machine is easier to check in one place than in pieces that call each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::mechanism::{Mechanism, Mechanisms};
use super::{Epoch, Moment, Term};

/// What of the configuration a handoff goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// After this, half-sent requests are cut and the fence action runs.
    pub drain_timeout: Duration,
    /// How long a start that is not clean waits for what its predecessor forwarded.
    pub quarantine: Duration,
    /// Whether time alone ends that.
    pub by_time: bool,
    /// Whether there is a command that ends what still runs in the target.
    pub has_action: bool,
    /// Whether the target itself is asked to prove that nothing older runs: then nothing drains before it has.
    pub has_proof: bool,
    /// Whether to open when nothing else ends the drain.
    pub open_on_timeout: bool,
    /// Whether to shut when the session with the coordinator runs out.
    pub close_on_loss: bool,
    /// Whether other doors stand before the same target: it opens only what all of them have drained.
    pub shared: bool,
    /// How many workers have a gate.
    pub workers: usize,
    /// What is in force.
    pub mechanisms: Mechanisms,
}

/// What a door remembers of a resource when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// The term of its floor.
    pub term: Term,
    /// Whether that epoch had drained.
    pub drained: bool,
    /// Whether it had been opened without proof.
    pub forced: bool,
    /// Whether the predecessor stopped in order, with an empty ledger.
    pub clean: bool,
}

/// Whether this door may open at all (DESIGN 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Not known yet: it has not joined.
    Joining,
    /// Its record stands.
    Standing,
    /// Another door's record stands.
    Blocked(Arc<str>),
}

/// A linearizable reading of one resource's epoch record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// The last minted term, and the revision of the doors that it was minted against; none where there never was one.
    pub record: Option<(Term, u64)>,
    /// Whether the coordinator's revision lies below the highest that this door has seen.
    pub went_back: bool,
    /// The revision of this door's own record, as last put.
    pub joined_at: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A linearizable reading came.
    Read(Reading),
    /// A floor of this resource was found recorded by another door, with its term (DESIGN 3.3, a new door).
    FloorFound(Term),
    /// The floor is durable in the file, as of this write.
    Persisted(Persist),
    /// The file failed: the floor stays in memory until a later write succeeds.
    DiskFailed,
    /// A worker refuses everything below the epoch.
    WorkerFenced(usize, Epoch),
    /// A worker runs nothing below the epoch any more.
    WorkerQuiet(usize, Epoch),
    /// A worker's ledger holds nothing below the epoch.
    WorkerDrained(usize, Epoch),
    /// The fence action of this epoch's handoff ended.
    ActionDone(Epoch, bool),
    /// The target was asked whether anything older than this epoch may still take effect: nothing can (`true`), or it could
    /// not be proved yet, and is asked again.
    Proof(Epoch, bool),
    /// The operator opens the gate, accepting that writes may be reordered.
    ForceOpen,
    /// The door's claim to its target changed.
    Claimed(Claim),
    /// Of a shared door: a reading of the doors that was sent after it learned of this epoch shows that every other one
    /// has drained it, or has been waited out.
    Agreed(Epoch),
    /// Of a shared door: it knows of no other that could vouch for what went before, so until then there may be one
    /// that is not on record. It reports and opens nothing before.
    Alone(Moment),
    /// The session with the coordinator ran out (`false`) or is back.
    Session(bool),
    /// Time has passed.
    Tick,
}

/// What the floor file is to say of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Persist {
    /// The floor's term.
    pub term: Term,
    /// Whether it has drained.
    pub drained: bool,
    /// Whether it was opened without proof.
    pub forced: bool,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Every write was answered.
    Answers,
    /// The protocol proved that it is over.
    Proof,
    /// The quarantine passed.
    Time,
    /// The fence action ended what ran.
    Action,
    /// It did not: the gate was opened all the same.
    Forced,
}

impl By {
    /// All of them, for tables.
    pub const ALL: [By; 5] = [By::Answers, By::Proof, By::Time, By::Action, By::Forced];

    /// As in `status` and the audit record.
    pub const fn as_str(self) -> &'static str {
        match self {
            By::Answers => "answers",
            By::Proof => "proof",
            By::Time => "time",
            By::Action => "action",
            By::Forced => "forced",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write the floor file; answer with [`Event::Persisted`] or [`Event::DiskFailed`].
    Persist(Persist),
    /// Order every worker to fence this term.
    Fence(Term),
    /// Order every worker to open this term.
    Open(Term),
    /// Order every worker to shut.
    Shut(Claim),
    /// Order every worker to shut: the session ran out.
    ShutSessionOver,
    /// Cut what is half sent below this epoch.
    CutHalfSent(Epoch),
    /// Cut everything below this epoch.
    CutAll(Epoch),
    /// Run the fence action for this epoch; answer with [`Event::ActionDone`].
    RunAction(Epoch),
    /// Have the target prove that nothing below this epoch can take effect, until it has; answer with [`Event::Proof`].
    Prove(Epoch),
    /// Tell every worker that everything below this epoch is over.
    ProvedOver(Epoch),
    /// Tell every worker whether the coordinator went backwards.
    Regressed(bool),
    /// Publish this door's report of the resource.
    Report,
    /// Say that every worker has fenced.
    SayFenced(Epoch),
    /// Say that nothing lower may take effect any more.
    SayDrained(Epoch, By),
    /// Say that the gate opens.
    SayOpened(Epoch, By),
    /// Say that the coordinator went backwards: the floor, and the epoch that it has.
    SayRegressed(Epoch, Option<Epoch>),
}

/// Where a gate stands, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the words are those of INTERFACES")]
pub enum Phase {
    Unknown,
    Fencing,
    Draining,
    Quarantine,
    WaitingDoors,
    Blocked,
    Open,
    Shut,
}

impl Phase {
    /// As in `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Unknown => "unknown",
            Phase::Fencing => "fencing",
            Phase::Draining => "draining",
            Phase::Quarantine => "quarantine",
            Phase::WaitingDoors => "waiting_doors",
            Phase::Blocked => "blocked",
            Phase::Open => "open",
            Phase::Shut => "shut",
        }
    }
}

/// The handoff machine of one resource at one target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handoff {
    policy: Policy,
    claim: Claim,
    session: bool,
    regressed: bool,
    /// Until when what a predecessor forwarded may still take effect; `None` once that is over.
    residue: Option<Moment>,
    /// Until when a door that is not on record may still write; `None` once that is over.
    alone: Option<Moment>,
    current: Option<Current>,
}

/// The term at hand and how far its handoff has come. A higher one replaces it whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Current {
    term: Term,
    since: Moment,
    asked_disk: Option<(bool, bool)>,
    durable: Option<Persist>,
    disk_failed: bool,
    fence_ordered: bool,
    fenced: BTreeSet<usize>,
    quiet: BTreeSet<usize>,
    drained: BTreeSet<usize>,
    said_fenced: bool,
    cut: bool,
    cut_all: bool,
    action: Action,
    proof: Proof,
    said_drained: Option<By>,
    forced: bool,
    agreed: bool,
    reported: bool,
    opened: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Proof {
    NotAsked,
    Asked,
    /// Asked, and not had for now.
    Failed,
    Had,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    NotRun,
    Running,
    Succeeded,
    Failed,
}

impl Current {
    fn new(term: Term, since: Moment) -> Current {
        Current {
            term,
            since,
            asked_disk: None,
            durable: None,
            disk_failed: false,
            fence_ordered: false,
            fenced: BTreeSet::new(),
            quiet: BTreeSet::new(),
            drained: BTreeSet::new(),
            said_fenced: false,
            cut: false,
            cut_all: false,
            action: Action::NotRun,
            proof: Proof::NotAsked,
            said_drained: None,
            forced: false,
            agreed: false,
            reported: false,
            opened: false,
        }
    }

    /// Nothing is admitted any more. What is to open it again is found out afresh, the other doors' part too.
    fn shut(&mut self) {
        self.opened = false;
        self.reported = false;
        self.agreed = false;
    }
}

impl Handoff {
    /// A door's machine at its start. `claim` is [`Claim::Standing`] only for a door whose record is known to stand
    /// from before (it stopped without leaving).
    pub fn start(policy: Policy, claim: Claim, start: Option<Start>, now: Moment) -> Handoff {
        let mut handoff =
            Handoff { policy, claim, session: true, regressed: false, residue: None, alone: None, current: None };
        if let Some(start) = start {
            if !start.clean && handoff.keeps(Mechanism::Residue) {
                handoff.residue = Some(now.plus(policy.quarantine));
            }
            let mut current = Current::new(start.term.clone(), now);
            if start.drained || start.forced || !handoff.keeps(Mechanism::DrainedMark) {
                // What the file says it said before: the floor's own epoch needs no second handoff.
                current.said_drained = Some(By::Answers);
                current.forced = start.forced;
                current.said_fenced = true;
            }
            handoff.current = Some(current);
        }
        handoff
    }

    /// A start whose file was lost: there is no floor to admit, and what was forwarded then may still take effect.
    pub fn wait_for_residue(&mut self, now: Moment) {
        if self.keeps(Mechanism::Residue) {
            self.residue = Some(now.plus(self.policy.quarantine));
        }
    }

    /// Takes in what happened and returns what is to be done, in order.
    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Read(reading) => self.weigh(reading, now, &mut effects),
            Event::FloorFound(term) => self.learn(term, now),
            Event::Persisted(persist) => self.persisted(persist),
            Event::DiskFailed => self.with_current(|current| current.disk_failed = true),
            Event::WorkerFenced(worker, epoch) => self.for_epoch(epoch, |current| {
                current.fenced.insert(worker);
            }),
            Event::WorkerQuiet(worker, epoch) => self.for_epoch(epoch, |current| {
                current.quiet.insert(worker);
            }),
            Event::WorkerDrained(worker, epoch) => self.for_epoch(epoch, |current| {
                current.quiet.insert(worker);
                current.drained.insert(worker);
            }),
            Event::ActionDone(epoch, succeeded) => self.action_done(epoch, succeeded, &mut effects),
            Event::Proof(epoch, had) => self.proof_came(epoch, had, &mut effects),
            // An operator speaks for the other doors too.
            Event::ForceOpen => self.with_current(|current| {
                (current.forced, current.agreed, current.reported) = (true, true, false);
            }),
            Event::Claimed(claim) => self.claimed(claim, &mut effects),
            Event::Agreed(epoch) => self.for_epoch(epoch, |current| current.agreed = true),
            Event::Alone(until) => self.left_alone(until),
            Event::Session(alive) => self.session_changed(alive, &mut effects),
            Event::Tick => {}
        }
        self.advance(now, &mut effects);
        effects
    }

    /// The highest term that this door has learned of: everything below is refused.
    pub fn term(&self) -> Option<&Term> {
        self.current.as_ref().map(|current| &current.term)
    }

    /// The epoch that it has drained, where that is the floor's and others may go by it.
    pub fn drained(&self) -> Option<Epoch> {
        if self.alone.is_some() {
            return None;
        }
        let current = self.current.as_ref().filter(|current| current.said_drained.is_some() && !current.forced)?;
        current.durable.as_ref().filter(|durable| durable.drained).map(|durable| durable.term.epoch)
    }

    /// The epoch that it has opened without proof.
    pub fn forced(&self) -> Option<Epoch> {
        let current = self.current.as_ref()?;
        current.durable.as_ref().filter(|durable| durable.forced).map(|durable| durable.term.epoch)
    }

    /// Whether the coordinator is behind what this door knows.
    pub fn is_regressed(&self) -> bool {
        self.regressed
    }

    /// Until when a door that is not on record is waited for.
    pub fn alone_until(&self) -> Option<Moment> {
        self.alone
    }

    /// The epoch that it would open if the other doors agreed.
    pub fn waits_for_doors(&self) -> Option<Epoch> {
        let current = self.current.as_ref()?;
        let waits = self.policy.shared && current.reported && !current.agreed && !current.opened;
        waits.then_some(current.term.epoch)
    }

    /// How long what a predecessor forwarded is still waited for.
    pub fn residue(&self, now: Moment) -> Duration {
        self.residue.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// Whether what a predecessor forwarded may still take effect. Where time alone ends nothing, it may for longer than
    /// [`Handoff::residue`] says.
    pub fn has_residue(&self, now: Moment) -> bool {
        self.residue.is_some_and(|until| now < until || !self.policy.by_time)
    }

    /// Where the gate stands.
    pub fn phase(&self) -> Phase {
        match (&self.claim, &self.current) {
            (Claim::Blocked(_), _) => Phase::Blocked,
            (_, None) => Phase::Unknown,
            _ if self.closes_on_loss() && !self.session => Phase::Shut,
            (_, Some(current)) if current.opened => Phase::Open,
            (Claim::Joining, _) => Phase::Unknown,
            (_, Some(current)) if current.disk_failed && current.fence_ordered => Phase::Shut,
            (_, Some(current)) if !current.said_fenced => Phase::Fencing,
            (_, Some(current)) if current.drained.len() == self.policy.workers && self.residue.is_some() => {
                Phase::Quarantine
            }
            (_, Some(current)) if self.policy.shared && current.said_drained.is_some() => Phase::WaitingDoors,
            _ => Phase::Draining,
        }
    }

    /// Whether its claim to the target stands.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// When [`Event::Tick`] is due next, if ever.
    pub fn wakes_at(&self, now: Moment) -> Option<Moment> {
        let current = self.current.as_ref()?;
        let drain = current.since.plus(self.policy.drain_timeout);
        let draining = !current.opened && current.said_drained.is_none() && drain > now;
        let residue = self.residue.filter(|_| self.policy.by_time);
        [draining.then_some(drain), residue, self.alone].into_iter().flatten().min()
    }

    fn keeps(&self, mechanism: Mechanism) -> bool {
        self.policy.mechanisms.keeps(mechanism)
    }

    fn closes_on_loss(&self) -> bool {
        self.policy.close_on_loss && self.keeps(Mechanism::Closing)
    }

    fn with_current(&mut self, change: impl FnOnce(&mut Current)) {
        if let Some(current) = &mut self.current {
            change(current);
        }
    }

    /// What is said of another epoch than the one at hand came too late, and changes nothing.
    fn for_epoch(&mut self, epoch: Epoch, change: impl FnOnce(&mut Current)) {
        self.with_current(|current| {
            if current.term.epoch == epoch {
                change(current);
            }
        });
    }

    fn learn(&mut self, term: Term, now: Moment) {
        if self.current.as_ref().is_none_or(|current| term.epoch > current.term.epoch) {
            self.current = Some(Current::new(term, now));
        }
    }

    fn weigh(&mut self, reading: Reading, now: Moment, effects: &mut Vec<Effect>) {
        let Some(floor) = self.term().map(|term| (term.epoch, term.nonce)) else {
            if let Some((term, _)) = reading.record {
                self.learn(term, now);
            }
            return;
        };
        if !self.keeps(Mechanism::Regression) {
            return self.trust_blindly(reading, now);
        }
        let behind = match &reading.record {
            None => true,
            Some((term, _)) => term.epoch < floor.0 || (term.epoch == floor.0 && term.nonce != floor.1),
        };
        if (behind || reading.went_back) && !self.regressed {
            self.regressed = true;
            effects.push(Effect::Regressed(true));
            effects.push(Effect::SayRegressed(floor.0, reading.record.as_ref().map(|(term, _)| term.epoch)));
            effects.push(Effect::Report);
        }
        let Some((term, minted_against)) = reading.record.filter(|(term, _)| term.epoch > floor.0) else { return };
        if self.regressed {
            let in_reach = !term.epoch.is_beyond_belief(floor.0.number()) || !self.keeps(Mechanism::Belief);
            let believable = in_reach && minted_against >= reading.joined_at;
            if !believable {
                return;
            }
            self.regressed = false;
            effects.push(Effect::Regressed(false));
        }
        self.learn(term, now);
    }

    /// What a guard without regressions does: the coordinator is always right, also when it goes backwards.
    fn trust_blindly(&mut self, reading: Reading, now: Moment) {
        if let Some((term, _)) = reading.record
            && self.term().is_none_or(|known| *known != term)
        {
            self.current = Some(Current::new(term, now));
        }
    }

    fn persisted(&mut self, persist: Persist) {
        self.with_current(|current| {
            if current.term == persist.term {
                current.disk_failed = false;
                current.durable = Some(persist);
            }
        });
    }

    fn action_done(&mut self, epoch: Epoch, succeeded: bool, effects: &mut Vec<Effect>) {
        let mut proved = false;
        self.for_epoch(epoch, |current| {
            if current.action == Action::Running {
                current.action = if succeeded { Action::Succeeded } else { Action::Failed };
                proved = succeeded;
            }
        });
        if proved {
            self.residue = None;
            effects.push(Effect::ProvedOver(epoch));
        }
    }

    fn proof_came(&mut self, epoch: Epoch, had: bool, effects: &mut Vec<Effect>) {
        let mut proved = false;
        self.for_epoch(epoch, |current| {
            if matches!(current.proof, Proof::Asked | Proof::Failed) {
                current.proof = if had { Proof::Had } else { Proof::Failed };
                proved = had;
            }
        });
        if proved {
            self.residue = None;
            effects.push(Effect::ProvedOver(epoch));
        }
    }

    fn claimed(&mut self, claim: Claim, effects: &mut Vec<Effect>) {
        if self.claim == claim {
            return;
        }
        self.claim = claim;
        if self.claim != Claim::Standing {
            self.with_current(Current::shut);
            effects.push(Effect::Shut(self.claim.clone()));
        } else if let Some(current) = &self.current {
            // What was shut holds its term's writes again until it opens.
            effects.extend(current.fence_ordered.then(|| Effect::Fence(current.term.clone())));
            effects.extend(current.durable.is_some().then_some(Effect::Report));
        }
    }

    /// What it has reported is taken back until then: the report goes out again when the time is over.
    fn left_alone(&mut self, until: Moment) {
        self.alone = self.alone.max(Some(until)).filter(|_| self.keeps(Mechanism::Solitude));
        if self.alone.is_some() {
            self.with_current(|current| current.reported = false);
        }
    }

    fn session_changed(&mut self, alive: bool, effects: &mut Vec<Effect>) {
        if self.session == alive || !self.closes_on_loss() {
            self.session = alive;
            return;
        }
        self.session = alive;
        if alive {
            // A door that has to join again first stays shut.
            let stands = self.claim == Claim::Standing;
            let fenced = self.current.as_ref().filter(|current| current.fence_ordered && stands);
            effects.extend(fenced.map(|current| Effect::Fence(current.term.clone())));
        } else {
            self.with_current(Current::shut);
            effects.push(Effect::ShutSessionOver);
        }
    }

    /// Does everything that the facts allow.
    fn advance(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.policy.by_time && self.residue.is_some_and(|until| now >= until) {
            self.residue = None;
        }
        self.alone = self.alone.filter(|until| now < *until);
        let Some(mut current) = self.current.take() else { return };
        self.fence(&mut current, effects);
        self.prove(&mut current, effects);
        self.drain(&mut current, now, effects);
        self.mark(&mut current, effects);
        self.report(&mut current, effects);
        self.open(&mut current, effects);
        self.current = Some(current);
    }

    /// The floor goes to disk, then every worker refuses what lies below; without a disk, from memory at once.
    fn fence(&self, current: &mut Current, effects: &mut Vec<Effect>) {
        if current.asked_disk.is_none() {
            let already = current.said_drained.is_some();
            self.persist(current, already && !current.forced, effects);
        }
        let durable = current.durable.is_some() || !self.keeps(Mechanism::Persistence);
        if !current.fence_ordered && (durable || current.disk_failed) {
            current.fence_ordered = true;
            effects.push(Effect::Fence(current.term.clone()));
            // What comes to a blocked door is refused, not held for an order that does not come.
            let blocked = matches!(self.claim, Claim::Blocked(_));
            effects.extend(blocked.then(|| Effect::Shut(self.claim.clone())));
        }
        if !current.said_fenced && current.fence_ordered && current.fenced.len() == self.policy.workers {
            current.said_fenced = true;
            effects.push(Effect::SayFenced(current.term.epoch));
        }
    }

    /// Asks the target once nothing is on its way any more: what runs on then runs without this door.
    fn prove(&self, current: &mut Current, effects: &mut Vec<Effect>) {
        let all = self.policy.workers;
        let is_quiet = current.fenced.len() == all && current.quiet.len() == all;
        let is_wanted = current.said_drained.is_none() || self.residue.is_some();
        if self.policy.has_proof && current.proof == Proof::NotAsked && is_quiet && is_wanted {
            current.proof = Proof::Asked;
            effects.push(Effect::Prove(current.term.epoch));
        }
    }

    /// Waits until no worker's ledger, and no predecessor's, holds anything below; helps after the time limit.
    fn drain(&mut self, current: &mut Current, now: Moment, effects: &mut Vec<Effect>) {
        if current.said_drained.is_some() || !current.fence_ordered {
            return;
        }
        let all = self.policy.workers;
        let workers_drained = current.drained.len() == all || !self.keeps(Mechanism::Drain);
        let is_proved = !self.policy.has_proof || current.proof == Proof::Had;
        if workers_drained && self.residue.is_none() && current.fenced.len() == all && is_proved {
            let by = match (current.action, current.cut || now >= current.since.plus(self.policy.drain_timeout)) {
                (Action::Succeeded, _) => By::Action,
                (_, true) if self.policy.has_proof => By::Proof,
                (_, true) => By::Time,
                _ => By::Answers,
            };
            current.said_drained = Some(by);
            effects.push(Effect::SayDrained(current.term.epoch, by));
            return;
        }
        if now < current.since.plus(self.policy.drain_timeout) || current.forced {
            return;
        }
        let epoch = current.term.epoch;
        if !current.cut {
            current.cut = true;
            effects.push(Effect::CutHalfSent(epoch));
        }
        if self.policy.has_action && !current.cut_all {
            current.cut_all = true;
            effects.push(Effect::CutAll(epoch));
        }
        // The action proves the end of what has left; nothing may be on its way any more when it begins.
        if self.policy.has_action && current.action == Action::NotRun && current.quiet.len() == all {
            current.action = Action::Running;
            effects.push(Effect::RunAction(epoch));
        }
        let no_proof = !self.policy.has_proof || current.proof == Proof::Failed;
        let no_action = !self.policy.has_action || current.action == Action::Failed;
        let nothing_else = !self.policy.by_time && no_action && no_proof;
        if nothing_else && self.policy.open_on_timeout {
            current.forced = true;
        }
    }

    /// "Drained" goes to disk, apart from the floor.
    fn mark(&self, current: &mut Current, effects: &mut Vec<Effect>) {
        if current.forced && current.asked_disk != Some((false, true)) {
            current.asked_disk = Some((false, true));
            effects.push(Effect::Persist(Persist { term: current.term.clone(), drained: false, forced: true }));
        } else if current.said_drained.is_some() && !current.forced && current.asked_disk != Some((true, false)) {
            self.persist(current, true, effects);
        }
    }

    /// Once it is on disk, the others may know.
    fn report(&self, current: &mut Current, effects: &mut Vec<Effect>) {
        let marked = current.durable.as_ref().is_some_and(|durable| {
            if current.forced { durable.forced } else { durable.drained && current.said_drained.is_some() }
        });
        let unmarked_will_do = !self.keeps(Mechanism::Persistence) && current.said_drained.is_some();
        let may = self.claim == Claim::Standing && (self.session || !self.closes_on_loss()) && self.alone.is_none();
        if !current.reported && may && current.fence_ordered && (marked || unmarked_will_do) {
            current.reported = true;
            effects.push(Effect::Report);
        }
    }

    /// What may be reported may be opened: at once by a sole door, by a shared one when the others have reported it too.
    fn open(&self, current: &mut Current, effects: &mut Vec<Effect>) {
        let agreed = !self.policy.shared || current.agreed || !self.keeps(Mechanism::Agreement);
        if current.opened || !current.reported || !agreed {
            return;
        }
        current.opened = true;
        let by = if current.forced { By::Forced } else { current.said_drained.unwrap_or(By::Answers) };
        // Said first: a worker may admit a write, and say so, before the last one has its order.
        effects.push(Effect::SayOpened(current.term.epoch, by));
        effects.push(Effect::Open(current.term.clone()));
    }

    fn persist(&self, current: &mut Current, drained: bool, effects: &mut Vec<Effect>) {
        current.asked_disk = Some((drained, current.forced));
        let persist = Persist { term: current.term.clone(), drained, forced: current.forced };
        effects.push(Effect::Persist(persist));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Nonce;

    const POLICY: Policy = Policy {
        drain_timeout: Duration::from_secs(5),
        quarantine: Duration::from_secs(35),
        by_time: true,
        has_action: false,
        has_proof: false,
        open_on_timeout: false,
        close_on_loss: false,
        shared: false,
        workers: 2,
        mechanisms: Mechanisms::all(),
    };

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number).expect("in range")
    }

    fn term(number: u64) -> Term {
        Term {
            epoch: epoch(number),
            nonce: Nonce::from_bytes(number.to_be_bytes()),
            writer: "a".parse().expect("an id"),
        }
    }

    fn second(number: u64) -> Moment {
        Moment::from_nanos(number * 1_000_000_000)
    }

    fn read(number: u64) -> Event {
        Event::Read(Reading { record: Some((term(number), 10)), went_back: false, joined_at: 1 })
    }

    fn persisted(number: u64, drained: bool, forced: bool) -> Event {
        Event::Persisted(Persist { term: term(number), drained, forced })
    }

    fn opens(effects: &[Effect]) -> bool {
        effects.iter().any(|effect| matches!(effect, Effect::Open(_)))
    }

    /// A joined door that has `number` open, with an orderly past.
    fn open_at(number: u64) -> Handoff {
        let start = Start { term: term(number), drained: true, forced: false, clean: true };
        let mut handoff = Handoff::start(POLICY, Claim::Standing, Some(start), second(0));
        handoff.on(Event::Tick, second(0));
        assert!(opens(&handoff.on(persisted(number, true, false), second(0))));
        handoff
    }

    fn all_workers(handoff: &mut Handoff, event: fn(usize, Epoch) -> Event, number: u64, now: Moment) -> Vec<Effect> {
        (0..2).flat_map(|worker| handoff.on(event(worker, epoch(number)), now)).collect()
    }

    #[test]
    fn fence_drain_mark_open_in_this_order() {
        let mut handoff = open_at(4);
        let fence = handoff.on(read(5), second(1));
        assert_eq!(fence, [Effect::Persist(Persist { term: term(5), drained: false, forced: false })]);
        assert_eq!(handoff.on(persisted(5, false, false), second(1)), [Effect::Fence(term(5))]);
        assert_eq!(
            all_workers(&mut handoff, Event::WorkerFenced, 5, second(1)),
            [Effect::SayFenced(epoch(5))],
            "every worker counts"
        );
        assert_eq!(handoff.on(Event::WorkerDrained(0, epoch(5)), second(1)), []);
        assert_eq!(
            handoff.on(Event::WorkerDrained(1, epoch(5)), second(1)),
            [
                Effect::SayDrained(epoch(5), By::Answers),
                Effect::Persist(Persist { term: term(5), drained: true, forced: false })
            ]
        );
        assert_eq!(handoff.drained(), None, "not before it is on disk");
        assert_eq!(
            handoff.on(persisted(5, true, false), second(1)),
            [Effect::Report, Effect::SayOpened(epoch(5), By::Answers), Effect::Open(term(5))]
        );
        assert_eq!((handoff.drained(), handoff.phase()), (Some(epoch(5)), Phase::Open));
    }

    #[test]
    fn a_higher_epoch_on_the_way_replaces_the_one_at_hand_whole() {
        let mut handoff = open_at(4);
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        handoff.on(read(6), second(2));
        let late = all_workers(&mut handoff, Event::WorkerDrained, 5, second(2));
        assert!(!opens(&late) && late.is_empty(), "what is said of 5 says nothing of 6: {late:?}");
        assert_eq!(handoff.on(persisted(5, false, false), second(2)), []);
        assert_eq!(handoff.on(persisted(6, false, false), second(2)), [Effect::Fence(term(6))]);
    }

    /// A door whose target is asked for the proof: time ends nothing.
    fn proving_at(number: u64, clean: bool) -> Handoff {
        let policy = Policy { has_proof: true, by_time: false, ..POLICY };
        let start = Start { term: term(number), drained: true, forced: false, clean };
        let mut handoff = Handoff::start(policy, Claim::Standing, Some(start), second(0));
        handoff.on(Event::Tick, second(0));
        handoff.on(persisted(number, true, false), second(0));
        handoff
    }

    #[test]
    fn where_the_target_proves_nothing_drains_before_it_has() {
        let mut handoff = proving_at(4, true);
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        assert_eq!(handoff.on(Event::WorkerDrained(0, epoch(5)), second(1)), [], "a worker still runs something");
        // What is lost there has no socket any more: the target is asked about it.
        assert_eq!(handoff.on(Event::WorkerQuiet(1, epoch(5)), second(1)), [Effect::Prove(epoch(5))]);
        assert_eq!(
            handoff.on(Event::WorkerDrained(1, epoch(5)), second(1)),
            [],
            "drained by its own books is not enough"
        );
        let proved = handoff.on(Event::Proof(epoch(5), true), second(2));
        assert_eq!(proved[..2], [Effect::ProvedOver(epoch(5)), Effect::SayDrained(epoch(5), By::Answers)]);
    }

    #[test]
    fn a_proof_that_is_not_had_keeps_the_gate_shut_and_one_that_comes_later_opens_it() {
        let mut handoff = proving_at(4, true);
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        let asked = all_workers(&mut handoff, Event::WorkerDrained, 5, second(1));
        assert_eq!(asked, [Effect::Prove(epoch(5))]);
        assert_eq!(handoff.on(Event::Proof(epoch(5), false), second(2)), []);
        assert!(!opens(&handoff.on(Event::Tick, second(500))), "no time ends it");
        assert_eq!(handoff.on(Event::Proof(epoch(4), true), second(500)), [], "of another handoff");
        let proved = handoff.on(Event::Proof(epoch(5), true), second(501));
        assert_eq!(proved[..2], [Effect::ProvedOver(epoch(5)), Effect::SayDrained(epoch(5), By::Proof)]);
        assert!(opens(&handoff.on(persisted(5, true, false), second(501))));
    }

    #[test]
    fn residue_ends_with_the_proof_and_no_sooner() {
        let mut handoff = proving_at(4, false);
        assert!(handoff.has_residue(second(900)), "no time ends it");
        let asked: Vec<Effect> = [Event::WorkerFenced, Event::WorkerDrained]
            .into_iter()
            .flat_map(|event| all_workers(&mut handoff, event, 4, second(1)))
            .collect();
        assert!(asked.contains(&Effect::Prove(epoch(4))), "at the start already: {asked:?}");
        assert_eq!(handoff.on(Event::Proof(epoch(4), true), second(2)), [Effect::ProvedOver(epoch(4))]);
        assert!(!handoff.has_residue(second(2)));
    }

    #[test]
    fn open_on_timeout_waits_for_a_proof_that_may_come() {
        let policy = Policy { open_on_timeout: true, has_proof: true, by_time: false, ..POLICY };
        let start = Start { term: term(4), drained: true, forced: false, clean: true };
        let mut handoff = Handoff::start(policy, Claim::Standing, Some(start), second(0));
        handoff.on(Event::Tick, second(0));
        handoff.on(persisted(4, true, false), second(0));
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        all_workers(&mut handoff, Event::WorkerQuiet, 5, second(1));
        assert!(handoff.forced().is_none() && !opens(&handoff.on(Event::Tick, second(60))), "it is being asked");
        let failed = handoff.on(Event::Proof(epoch(5), false), second(61));
        let forced = Effect::Persist(Persist { term: term(5), drained: false, forced: true });
        assert_eq!(failed, [forced], "there is none to be had");
    }

    #[test]
    fn a_failed_disk_fences_from_memory_and_opens_nothing() {
        let mut handoff = open_at(4);
        handoff.on(read(5), second(1));
        assert_eq!(handoff.on(Event::DiskFailed, second(1)), [Effect::Fence(term(5))]);
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        let drained = all_workers(&mut handoff, Event::WorkerDrained, 5, second(1));
        assert!(!opens(&drained));
        assert_eq!(handoff.phase(), Phase::Shut);
        assert!(!opens(&handoff.on(persisted(5, false, false), second(9))), "the floor alone is not the mark");
        assert!(opens(&handoff.on(persisted(5, true, false), second(9))));
    }

    #[test]
    fn residue_keeps_every_other_epoch_shut_and_the_drained_one_open() {
        let start = Start { term: term(4), drained: true, forced: false, clean: false };
        let mut handoff = Handoff::start(POLICY, Claim::Standing, Some(start), second(0));
        handoff.on(Event::Tick, second(0));
        assert!(opens(&handoff.on(persisted(4, true, false), second(0))), "its own epoch at once");
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        all_workers(&mut handoff, Event::WorkerDrained, 5, second(1));
        assert_eq!(handoff.phase(), Phase::Quarantine);
        assert_eq!(handoff.wakes_at(second(10)), Some(second(35)));
        assert!(!handoff.on(Event::Tick, second(34)).contains(&Effect::SayDrained(epoch(5), By::Time)));
        assert!(handoff.on(Event::Tick, second(35)).contains(&Effect::SayDrained(epoch(5), By::Time)));
        assert!(opens(&handoff.on(persisted(5, true, false), second(35))));
    }

    #[test]
    fn a_floor_that_had_not_drained_waits_for_the_residue_too() {
        let start = Start { term: term(4), drained: false, forced: false, clean: false };
        let mut handoff = Handoff::start(POLICY, Claim::Standing, Some(start), second(0));
        handoff.on(Event::Tick, second(0));
        handoff.on(persisted(4, false, false), second(0));
        all_workers(&mut handoff, Event::WorkerFenced, 4, second(0));
        all_workers(&mut handoff, Event::WorkerDrained, 4, second(0));
        assert!(!opens(&handoff.on(Event::Tick, second(34))));
        handoff.on(Event::Tick, second(35));
        assert!(opens(&handoff.on(persisted(4, true, false), second(35))));
    }

    #[test]
    fn nothing_opens_before_the_door_has_joined_or_while_another_blocks_it() {
        let mut handoff = Handoff::start(POLICY, Claim::Joining, None, second(0));
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        all_workers(&mut handoff, Event::WorkerDrained, 5, second(1));
        assert!(!opens(&handoff.on(persisted(5, true, false), second(1))));
        let blocked = Claim::Blocked("guard-1-00000000".into());
        assert_eq!(handoff.on(Event::Claimed(blocked.clone()), second(2)), [Effect::Shut(blocked)]);
        assert_eq!(handoff.phase(), Phase::Blocked);
        assert!(opens(&handoff.on(Event::Claimed(Claim::Standing), second(3))));
    }

    #[test]
    fn the_action_runs_once_when_nothing_is_on_its_way_and_its_success_proves_the_end() {
        let policy = Policy { has_action: true, by_time: false, ..POLICY };
        let start = Start { term: term(4), drained: true, forced: false, clean: false };
        let mut handoff = Handoff::start(policy, Claim::Standing, Some(start), second(0));
        handoff.on(Event::Tick, second(0));
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        let late = handoff.on(Event::Tick, second(6));
        assert_eq!(late, [Effect::CutHalfSent(epoch(5)), Effect::CutAll(epoch(5))]);
        assert_eq!(handoff.on(Event::WorkerQuiet(0, epoch(5)), second(6)), []);
        assert_eq!(handoff.on(Event::WorkerQuiet(1, epoch(5)), second(6)), [Effect::RunAction(epoch(5))]);
        assert_eq!(handoff.on(Event::Tick, second(600)), [], "time alone ends nothing here");
        assert_eq!(handoff.on(Event::ActionDone(epoch(5), true), second(601)), [Effect::ProvedOver(epoch(5))]);
        let drained = all_workers(&mut handoff, Event::WorkerDrained, 5, second(601));
        assert!(drained.contains(&Effect::SayDrained(epoch(5), By::Action)));
    }

    #[test]
    fn an_action_that_failed_proves_nothing() {
        let policy = Policy { has_action: true, by_time: false, ..POLICY };
        let start = Start { term: term(4), drained: true, forced: false, clean: false };
        let mut handoff = Handoff::start(policy, Claim::Standing, Some(start), second(0));
        handoff.on(read(5), second(1));
        handoff.on(persisted(5, false, false), second(1));
        all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
        let ran = all_workers(&mut handoff, Event::WorkerQuiet, 5, second(6));
        assert!(ran.contains(&Effect::RunAction(epoch(5))));
        assert_eq!(handoff.on(Event::ActionDone(epoch(5), false), second(7)), []);
        assert!(handoff.has_residue(second(600)), "what the predecessor forwarded may still run");
        assert_eq!(all_workers(&mut handoff, Event::WorkerDrained, 5, second(600)), [], "it stays shut");
    }

    #[test]
    fn forced_is_on_record_as_forced_and_never_as_drained() {
        let policy = Policy { by_time: false, open_on_timeout: true, ..POLICY };
        for by_operator in [false, true] {
            let policy = Policy { open_on_timeout: !by_operator, ..policy };
            let start = Start { term: term(4), drained: true, forced: false, clean: false };
            let mut handoff = Handoff::start(policy, Claim::Standing, Some(start), second(0));
            handoff.on(Event::Tick, second(0));
            handoff.on(read(5), second(1));
            handoff.on(persisted(5, false, false), second(1));
            all_workers(&mut handoff, Event::WorkerFenced, 5, second(1));
            let mut effects = handoff.on(Event::Tick, second(6));
            if by_operator {
                assert!(!opens(&effects));
                effects = handoff.on(Event::ForceOpen, second(7));
            }
            assert!(effects.contains(&Effect::Persist(Persist { term: term(5), drained: false, forced: true })));
            let opened = handoff.on(persisted(5, false, true), second(7));
            assert!(opened.contains(&Effect::SayOpened(epoch(5), By::Forced)));
            assert_eq!((handoff.drained(), handoff.forced()), (None, Some(epoch(5))));
        }
    }

    #[test]
    fn a_coordinator_that_went_back_is_not_believed_until_it_mints_above_the_floor_again() {
        let reading = |number, minted_against| {
            Event::Read(Reading { record: Some((term(number), minted_against)), went_back: true, joined_at: 7 })
        };
        let mut handoff = open_at(42);
        let wiped = Event::Read(Reading { record: None, went_back: true, joined_at: 1 });
        assert_eq!(
            handoff.on(wiped.clone(), second(1)),
            [Effect::Regressed(true), Effect::SayRegressed(epoch(42), None), Effect::Report]
        );
        assert_eq!(handoff.on(wiped, second(1)), [], "it is counted once");
        assert_eq!(handoff.phase(), Phase::Open, "the term at hand goes on");
        assert_eq!(handoff.on(reading(1, 9), second(2)), []);
        assert_eq!(handoff.on(reading(43, 6), second(2)), [], "minted before our record was back");
        assert_eq!(handoff.on(reading(42 + 1_000_001, 9), second(2)), [], "beyond belief");
        let over = handoff.on(reading(43, 9), second(3));
        assert_eq!(over[0], Effect::Regressed(false));
        assert!(matches!(over[1], Effect::Persist(_)));
        assert_eq!(handoff.term(), Some(&term(43)));
    }

    #[test]
    fn a_coordinator_that_went_back_and_has_elected_past_the_floor_since_is_not_believed_either() {
        let mut handoff = open_at(42);
        let reading = Reading { record: Some((term(43), 6)), went_back: true, joined_at: 7 };
        assert_eq!(handoff.on(Event::Read(reading), second(1))[0], Effect::Regressed(true));
        assert_eq!(handoff.term(), Some(&term(42)), "whoever minted it did not know of our floor");
    }

    #[test]
    fn the_same_epoch_with_another_nonce_is_a_regression() {
        let mut handoff = open_at(42);
        let other = Term { nonce: Nonce::from_bytes([9; 8]), ..term(42) };
        let reading = Reading { record: Some((other, 9)), went_back: false, joined_at: 7 };
        assert_eq!(handoff.on(Event::Read(reading), second(1))[0], Effect::Regressed(true));
        assert!(handoff.is_regressed());
    }

    #[test]
    fn a_door_that_is_to_close_without_a_session_shuts_and_comes_back() {
        let policy = Policy { close_on_loss: true, ..POLICY };
        let start = Start { term: term(4), drained: true, forced: false, clean: true };
        let mut handoff = Handoff::start(policy, Claim::Standing, Some(start), second(0));
        handoff.on(Event::Tick, second(0));
        handoff.on(persisted(4, true, false), second(0));
        assert_eq!(handoff.on(Event::Session(false), second(5)), [Effect::ShutSessionOver]);
        assert_eq!(handoff.phase(), Phase::Shut);
        let back = handoff.on(Event::Session(true), second(6));
        assert!(back.contains(&Effect::Fence(term(4))) && opens(&back));
    }

    #[test]
    fn where_time_ends_nothing_residue_outlasts_it() {
        let start = Start { term: term(4), drained: true, forced: false, clean: false };
        let at = |by_time| {
            let policy = Policy { by_time, ..POLICY };
            let mut door = Handoff::start(policy, Claim::Standing, Some(start.clone()), second(0));
            assert!(door.has_residue(second(34)));
            door.on(Event::Tick, second(35));
            door.has_residue(second(35))
        };
        assert!(!at(true));
        assert!(at(false), "an orderly stop would mark it clean");
    }

    #[test]
    fn a_session_that_is_back_opens_nothing_before_the_door_has_joined_again() {
        let policy = Policy { close_on_loss: true, ..POLICY };
        let start = Start { term: term(4), drained: true, forced: false, clean: true };
        let mut door = Handoff::start(policy, Claim::Standing, Some(start), second(0));
        door.on(Event::Tick, second(0));
        let persist = Persist { term: term(4), drained: true, forced: false };
        assert!(door.on(Event::Persisted(persist), second(0)).contains(&Effect::Open(term(4))));
        door.on(Event::Session(false), second(1));
        door.on(Event::Claimed(Claim::Joining), second(1));
        assert_eq!(door.on(Event::Session(true), second(2)), []);
        let effects = door.on(Event::Claimed(Claim::Standing), second(3));
        assert!(effects.starts_with(&[Effect::Fence(term(4))]) && effects.contains(&Effect::Open(term(4))));
    }

    /// A shared door that knows of 5, has fenced and drained it, and has that on disk at second 1.
    fn shared_and_drained(alone_until: Option<u64>) -> (Handoff, Vec<Effect>) {
        let policy = Policy { shared: true, close_on_loss: true, ..POLICY };
        let start = Start { term: term(4), drained: true, forced: false, clean: true };
        let mut door = Handoff::start(policy, Claim::Joining, Some(start), second(0));
        door.on(Event::Tick, second(0));
        if let Some(until) = alone_until {
            door.on(Event::Alone(second(until)), second(0));
        }
        door.on(Event::Claimed(Claim::Standing), second(0));
        door.on(read(5), second(1));
        door.on(persisted(5, false, false), second(1));
        all_workers(&mut door, Event::WorkerFenced, 5, second(1));
        all_workers(&mut door, Event::WorkerDrained, 5, second(1));
        let effects = door.on(persisted(5, true, false), second(1));
        (door, effects)
    }

    #[test]
    fn a_shared_door_reports_when_it_has_drained_and_opens_when_the_others_agree() {
        let (mut door, effects) = shared_and_drained(None);
        assert_eq!(effects, [Effect::Report]);
        assert_eq!((door.phase(), door.drained()), (Phase::WaitingDoors, Some(epoch(5))));
        assert_eq!(door.waits_for_doors(), Some(epoch(5)));
        assert_eq!(door.on(Event::Agreed(epoch(4)), second(2)), [], "that was about another epoch");
        let opened = door.on(Event::Agreed(epoch(5)), second(2));
        assert_eq!(opened, [Effect::SayOpened(epoch(5), By::Answers), Effect::Open(term(5))]);
        assert_eq!(door.waits_for_doors(), None);
    }

    #[test]
    fn a_shared_door_that_was_shut_needs_the_others_again() {
        let (mut door, _) = shared_and_drained(None);
        assert!(opens(&door.on(Event::Agreed(epoch(5)), second(2))));
        assert_eq!(door.on(Event::Session(false), second(3)), [Effect::ShutSessionOver]);
        door.on(Event::Claimed(Claim::Joining), second(3));
        door.on(Event::Session(true), second(4));
        let back = door.on(Event::Claimed(Claim::Standing), second(5));
        assert!(back.contains(&Effect::Report) && !opens(&back), "{back:?}");
        assert!(opens(&door.on(Event::Agreed(epoch(5)), second(6))));
    }

    #[test]
    fn a_shared_door_that_is_alone_reports_and_opens_nothing_until_its_time_is_over() {
        let (mut door, effects) = shared_and_drained(Some(40));
        assert_eq!(effects, []);
        assert_eq!((door.drained(), door.phase()), (None, Phase::WaitingDoors));
        assert_eq!(door.wakes_at(second(39)), Some(second(40)));
        assert_eq!(door.on(Event::Agreed(epoch(5)), second(39)), [], "nobody can agree for those not on record");
        let over = door.on(Event::Tick, second(40));
        assert!(over.contains(&Effect::Report) && opens(&over), "{over:?}");
        assert_eq!(door.drained(), Some(epoch(5)));
    }

    #[test]
    fn a_shared_door_that_is_open_and_found_alone_stays_open_and_reports_again() {
        let (mut door, _) = shared_and_drained(None);
        door.on(Event::Agreed(epoch(5)), second(2));
        assert_eq!(door.on(Event::Alone(second(40)), second(3)), []);
        assert_eq!((door.phase(), door.drained()), (Phase::Open, None));
        assert_eq!(door.on(Event::Tick, second(40)), [Effect::Report]);
        assert_eq!((door.phase(), door.drained()), (Phase::Open, Some(epoch(5))));
    }

    #[test]
    fn an_operator_who_forces_a_shared_door_speaks_for_the_others_too_and_no_configuration_does() {
        let (mut door, _) = shared_and_drained(None);
        let forced = door.on(Event::ForceOpen, second(2));
        assert_eq!(forced, [Effect::Persist(Persist { term: term(5), drained: false, forced: true })]);
        assert!(opens(&door.on(persisted(5, false, true), second(2))));

        let policy = Policy { shared: true, by_time: false, open_on_timeout: true, ..POLICY };
        let start = Start { term: term(4), drained: true, forced: false, clean: true };
        let mut door = Handoff::start(policy, Claim::Standing, Some(start), second(0));
        door.on(Event::Tick, second(0));
        door.on(read(5), second(1));
        door.on(persisted(5, false, false), second(1));
        all_workers(&mut door, Event::WorkerFenced, 5, second(1));
        door.on(Event::Tick, second(6));
        let given_up = door.on(persisted(5, false, true), second(7));
        assert!(
            given_up.contains(&Effect::Report) && !opens(&given_up),
            "its own drain alone is given up: {given_up:?}"
        );
    }
}
