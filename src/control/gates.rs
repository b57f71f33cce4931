//! Drives the handoff machine of each gate: events in, effects out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Control;
use crate::config::Config;
use crate::config::resolved::{GuardLoss, Mode, OnTimeout, ResourceSettings, Role};
use crate::coordinator::keys::{self, Key};
use crate::coordinator::records::EpochRecord;
use crate::event::Event as Said;
use crate::fence::floor::Memory;
use crate::fence::gate::{Cause, Order};
use crate::fence::handoff::{By, Claim, Effect, Event, Handoff, Persist, Policy, Reading, Start};
use crate::fence::mechanism::{Mechanism, Mechanisms};
use crate::fence::{Epoch, Moment, Resource};
use crate::mailbox::{GateId, GateName, ToWorker};

/// One gate as control knows it.
pub struct GateState {
    pub(super) name: GateName,
    pub(super) handoff: Handoff,
    pub(super) settings: Arc<ResourceSettings>,
    pub(super) audit: bool,
    pub(super) last: Option<LastHandoff>,
    /// Why the fence action of this epoch's handoff failed.
    pub(super) action_error: Option<(Epoch, Arc<str>)>,
    /// Whether the target is asked for the proof.
    pub(super) has_proof: bool,
    /// Why the proof of this epoch's handoff could not be had when it was last asked for.
    pub(super) proof_error: Option<(Epoch, Arc<str>)>,
    /// Whether the target itself refuses what is older, as the last proof found it.
    pub(super) in_target: bool,
    closes: bool,
    pub(super) shared: bool,
    times: Times,
    wakes: Option<Moment>,
}

/// When the steps of the handoff at hand were done.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    learned: Option<Moment>,
    fenced: Option<Moment>,
    drained: Option<(Moment, By)>,
    marked: Option<Moment>,
    opened: Option<(Moment, By)>,
}

impl Times {
    /// How the handoff went whose order to open is out `now`; none where its beginning was not seen.
    fn done(self, epoch: Epoch, now: Moment) -> Option<LastHandoff> {
        let (learned, fenced, (opened, by)) = (self.learned?, self.fenced?, self.opened?);
        let drained = self.drained.map_or(opened, |(at, _)| at);
        let marked = self.marked.map_or(opened, |at| at.max(drained));
        Some(LastHandoff {
            epoch,
            at: opened,
            fence: fenced.since(learned),
            drain: drained.since(fenced),
            mark: marked.since(drained),
            doors: opened.since(marked),
            open: now.since(opened),
            by,
        })
    }
}

/// How the last handoff went.
#[derive(Clone, Copy, Debug)]
pub struct LastHandoff {
    /// To which epoch.
    pub epoch: Epoch,
    /// When it was over.
    pub at: Moment,
    /// From learning of the epoch until every worker had fenced.
    pub fence: Duration,
    /// From then until nothing lower could take effect.
    pub drain: Duration,
    /// From then until that was on disk.
    pub mark: Duration,
    /// From then until the other doors had drained too.
    pub doors: Duration,
    /// From then until the order to open was out.
    pub open: Duration,
    /// What ended the drain.
    pub by: By,
}

/// All gates of the process.
pub struct Gates {
    all: Vec<GateState>,
    by_resource: BTreeMap<Resource, Vec<GateId>>,
    wakes: BTreeSet<(Moment, GateId)>,
    closes_at: Option<Moment>,
}

impl Gates {
    pub(super) fn start(
        config: &Config,
        names: &[GateName],
        memory: &Memory,
        workers: usize,
        mechanisms: Mechanisms,
        now: Moment,
    ) -> Gates {
        let mut gates =
            Gates { all: Vec::new(), by_resource: BTreeMap::new(), wakes: BTreeSet::new(), closes_at: None };
        for (number, name) in names.iter().enumerate() {
            gates.by_resource.entry(name.resource.clone()).or_default().push(GateId(number));
            gates.all.push(GateState::start(config, name, memory, workers, mechanisms, now));
        }
        gates
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn name(&self, gate: GateId) -> GateName {
        self.all[gate.0].name.clone()
    }

    pub(super) fn get(&self, gate: GateId) -> &GateState {
        &self.all[gate.0]
    }

    pub(super) fn note_action_error(&mut self, gate: GateId, error: Option<(Epoch, Arc<str>)>) {
        self.all[gate.0].action_error = error;
    }

    pub(super) fn note_in_target(&mut self, gate: GateId, in_target: bool) {
        self.all[gate.0].in_target = in_target;
    }

    /// Whether the target itself refuses what is older, for every resource of a listener.
    pub(super) fn is_in_target(&self, listener: &str) -> bool {
        let mut own = self.all.iter().filter(|state| *state.name.listener == *listener).peekable();
        own.peek().is_some() && own.all(|state| state.in_target)
    }

    pub(super) fn note_proof_error(&mut self, gate: GateId, error: Option<(Epoch, Arc<str>)>) {
        self.all[gate.0].proof_error = error;
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = GateId> + use<> {
        (0..self.all.len()).map(GateId)
    }

    pub(super) fn of(&self, resource: &Resource) -> &[GateId] {
        self.by_resource.get(resource).map_or(&[], Vec::as_slice)
    }

    pub(super) fn floor(&self, gate: GateId) -> Option<Epoch> {
        self.all[gate.0].handoff.term().map(|term| term.epoch)
    }

    pub(super) fn is_regressed(&self, gate: GateId) -> bool {
        self.all[gate.0].handoff.is_regressed()
    }

    pub(super) fn wakes_at(&self) -> Option<Moment> {
        [self.wakes.first().map(|(at, _)| *at), self.closes_at].into_iter().flatten().min()
    }

    fn schedule(&mut self, gate: GateId, now: Moment) {
        let state = &mut self.all[gate.0];
        let wakes = state.handoff.wakes_at(now);
        if wakes != state.wakes {
            if let Some(old) = state.wakes {
                self.wakes.remove(&(old, gate));
            }
            self.wakes.extend(wakes.map(|at| (at, gate)));
            state.wakes = wakes;
        }
    }
}

impl GateState {
    fn start(
        config: &Config,
        name: &GateName,
        memory: &Memory,
        workers: usize,
        mechanisms: Mechanisms,
        now: Moment,
    ) -> GateState {
        let settings = Arc::clone(&config.resources[&name.resource]);
        let listener = config.listeners.iter().find(|listener| listener.name == name.listener);
        let (audit, closes, shared) = match listener.map(|listener| &listener.role) {
            Some(Role::Guard(guard)) => {
                (guard.mode == Mode::Audit, guard.on_coordinator_loss == GuardLoss::Close, guard.shared)
            }
            _ => (false, false, false),
        };
        // One that only counts ends nobody's session.
        let has_proof = !audit && listener.is_some_and(|listener| listener.upstream.control.is_some());
        let policy = Policy {
            drain_timeout: settings.drain.timeout,
            quarantine: settings.drain.quarantine,
            by_time: settings.drain.by_time && !has_proof,
            has_action: settings.fence_action.is_some(),
            has_proof,
            open_on_timeout: settings.drain.on_timeout == OnTimeout::Open,
            close_on_loss: closes,
            shared,
            workers,
            mechanisms,
        };
        let remembered = memory.of(&name.target, &name.resource);
        let residue = remembered.has_residue(audit);
        // A door that stopped in order has taken its record back, and joins like a new one. One that did not has its
        // record standing: nobody else can have opened, so it may go on before it has reached the coordinator.
        let left = memory.left.contains(&name.target) && mechanisms.keeps(Mechanism::Leaving);
        // The record of one that only counted claims nothing.
        let claimed = remembered.floor.is_some() && (!remembered.audit || audit);
        let stands = claimed && !left && !closes;
        // What drained while the door only counted says nothing of what it forwarded after that.
        let proved = remembered.clean || audit || !remembered.audit;
        let start = remembered.floor.map(|floor| Start {
            term: floor.term(),
            drained: floor.drained && proved,
            forced: floor.forced,
            clean: !residue,
        });
        let claim = if stands { Claim::Standing } else { Claim::Joining };
        let mut handoff = Handoff::start(policy, claim, start, now);
        if residue && handoff.term().is_none() {
            handoff.wait_for_residue(now);
        }
        GateState {
            name: name.clone(),
            handoff,
            settings,
            audit,
            closes,
            shared,
            last: None,
            action_error: None,
            has_proof,
            proof_error: None,
            in_target: false,
            times: Times::default(),
            wakes: None,
        }
    }

    /// The floor file has the mark: what comes until the gate opens is waiting for others.
    fn note_mark(&mut self, persist: &Persist, now: Moment) {
        let at_hand = self.handoff.term() == Some(&persist.term);
        if at_hand && (persist.drained || persist.forced) {
            self.times.marked.get_or_insert(now);
        }
    }
}

impl Control {
    /// Gets every gate that remembers a term going.
    pub(super) fn start_gates(&mut self) {
        for gate in self.gates.ids() {
            let state = self.gates.get(gate);
            if state.audit {
                // It forwards from now on, without waiting for an epoch, or for the disk.
                self.floors.mark_audit(&state.name.target, &state.name.resource);
            }
            self.drive(gate, Event::Tick);
        }
    }

    /// Tells a gate's machine what happened and does what it says.
    pub(super) fn drive(&mut self, gate: GateId, event: Event) {
        let now = self.clock.now();
        if let Event::Persisted(persist) = &event {
            self.gates.all[gate.0].note_mark(persist, now);
        }
        let effects = self.gates.all[gate.0].handoff.on(event, now);
        for effect in effects {
            self.perform(gate, effect, now);
        }
        self.gates.schedule(gate, now);
        let state = self.gates.get(gate);
        if state.shared {
            self.agreeing.note(gate, state.handoff.waits_for_doors().is_some());
        }
    }

    fn perform(&mut self, gate: GateId, effect: Effect, now: Moment) {
        let name = self.gates.name(gate);
        match effect {
            Effect::Persist(persist) => {
                let audit = self.gates.get(gate).audit;
                self.floors.persist(gate, &name.target, audit, persist, &name.resource);
            }
            Effect::Fence(term) => {
                super::failpoint("fence", term.epoch);
                let times = &mut self.gates.all[gate.0].times;
                times.learned = times.learned.or(Some(now));
                self.order(gate, &Order::Fence(term));
            }
            Effect::Open(term) => {
                super::failpoint("open", term.epoch);
                let epoch = term.epoch;
                self.order(gate, &Order::Open(term));
                super::failpoint("opened", epoch);
                self.handoff_done(gate, &name, epoch);
            }
            Effect::Shut(Claim::Blocked(by)) => self.order(gate, &Order::Shut(Cause::Blocked(by))),
            Effect::Shut(_) => self.order(gate, &Order::Shut(Cause::Joining)),
            Effect::ShutSessionOver => self.order(gate, &Order::Shut(Cause::SessionOver)),
            Effect::CutHalfSent(below) => self.tell_all(|| ToWorker::Cut { gate, below, all: false }),
            Effect::CutAll(below) => self.tell_all(|| ToWorker::Cut { gate, below, all: true }),
            Effect::RunAction(epoch) => self.run_action(gate, epoch),
            Effect::Prove(epoch) => self.prove(gate, epoch),
            Effect::ProvedOver(epoch) => self.order(gate, &Order::ProvedOver(epoch)),
            Effect::Regressed(regressed) => {
                if !regressed {
                    self.floors.accept_revision(self.view.revision.0);
                }
                self.order(gate, &Order::Regressed(regressed));
            }
            Effect::Report => self.reports.wanted(gate),
            Effect::SayFenced(epoch) => self.say_fenced(gate, &name, epoch, now),
            Effect::SayDrained(epoch, by) => self.say_drained(gate, &name, epoch, by, now),
            Effect::SayOpened(epoch, by) => self.say_opened(gate, &name, epoch, by, now),
            Effect::SayRegressed(floor, seen) => self.say_regressed(&name, floor, seen),
        }
    }

    fn order(&mut self, gate: GateId, order: &Order) {
        self.tell_all(|| ToWorker::Order(gate, order.clone()));
    }

    fn say_fenced(&mut self, gate: GateId, name: &GateName, epoch: Epoch, now: Moment) {
        super::failpoint("fenced", epoch);
        self.gates.all[gate.0].times.fenced = Some(now);
        let what = if self.gates.get(gate).audit { "would be refused (mode: audit)" } else { "is refused" };
        tracing::info!(resource = %name.resource, target = %name.target, %epoch, "fenced: every lower epoch {what}");
        self.say(Said::Fenced { resource: name.resource.clone(), target: name.target.clone(), epoch });
    }

    fn say_drained(&mut self, gate: GateId, name: &GateName, epoch: Epoch, by: By, now: Moment) {
        super::failpoint("drained", epoch);
        self.gates.all[gate.0].times.drained = Some((now, by));
        self.say(Said::Drained { resource: name.resource.clone(), target: name.target.clone(), epoch, by });
    }

    fn say_opened(&mut self, gate: GateId, name: &GateName, epoch: Epoch, by: By, now: Moment) {
        let forced = by == By::Forced;
        if forced {
            tracing::warn!(resource = %name.resource, target = %name.target, %epoch, "opened without proof that older writes are over");
        } else {
            tracing::info!(resource = %name.resource, target = %name.target, %epoch, by = by.as_str(), "open");
        }
        self.say(Said::Opened { resource: name.resource.clone(), target: name.target.clone(), epoch, forced });
        self.gates.all[gate.0].times.opened = Some((now, by));
    }

    /// Every worker has its order to open.
    fn handoff_done(&mut self, gate: GateId, name: &GateName, epoch: Epoch) {
        let state = &mut self.gates.all[gate.0];
        let Some(last) = std::mem::take(&mut state.times).done(epoch, self.clock.now()) else { return };
        state.last = Some(last);
        self.say(Said::HandoffDone {
            resource: name.resource.clone(),
            target: name.target.clone(),
            epoch,
            fence: last.fence,
            drain: last.drain,
            mark: last.mark,
            doors: last.doors,
            open: last.open,
            by: last.by,
        });
    }

    fn say_regressed(&mut self, name: &GateName, floor: Epoch, seen: Option<Epoch>) {
        self.connection.regressions += 1;
        tracing::error!(
            resource = %name.resource, target = %name.target, %floor, seen = seen.map(Epoch::number),
            "the coordinator went backwards (restored or wiped): only the term at hand is admitted until an election above the floor"
        );
        self.say(Said::Regression { resource: name.resource.clone(), floor, seen });
    }

    /// What a reading says of the epochs. Where the coordinator went backwards, what it does not say matters too.
    pub(super) fn observe_epochs(&mut self, changed: &BTreeSet<String>, went_back: bool) {
        let resources: BTreeSet<Resource> = if went_back {
            self.gates.by_resource.keys().cloned().collect()
        } else {
            let named = changed.iter().filter_map(|key| match keys::parse(key)? {
                Key::Epoch(resource) => Some(resource),
                _ => None,
            });
            named.collect()
        };
        for resource in resources {
            for gate in self.gates.of(&resource).to_vec() {
                self.weigh(gate, went_back);
            }
        }
    }

    /// Has a gate's machine weigh what the view says of its epoch.
    pub(super) fn weigh(&mut self, gate: GateId, went_back: bool) {
        let name = self.gates.name(gate);
        let Some(joined_at) = self.doors.joined_at(&name.target) else { return };
        let record = self.view.record::<EpochRecord>(&keys::epoch(&name.resource));
        let before = self.gates.floor(gate);
        if let Some(record) = record.as_ref().filter(|record| before.is_none_or(|before| record.term.epoch > before)) {
            self.gates.all[gate.0].times = Times { learned: Some(self.clock.now()), ..Times::default() };
            self.say(Said::Verified {
                resource: name.resource.clone(),
                target: name.target.clone(),
                epoch: record.term.epoch,
                nonce: record.term.nonce,
                writer: record.term.writer.clone(),
                revision: self.view.revision.0,
            });
            super::failpoint("verified", record.term.epoch);
            if self.gates.get(gate).shared {
                // What the doors say counts from after now.
                self.look(Vec::new());
            }
        }
        let record = record.map(|record| (record.term, record.doors.0));
        self.drive(gate, Event::Read(Reading { record, went_back, joined_at: joined_at.0 }));
    }

    pub(super) fn tick_gates(&mut self, now: Moment) {
        while let Some((at, gate)) = self.gates.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.gates.wakes.remove(&(at, gate));
            self.gates.all[gate.0].wakes = None;
            self.drive(gate, Event::Tick);
        }
        if self.floors.has_forgotten() && !self.gates.all.iter().any(|gate| gate.handoff.has_residue(now)) {
            self.floors.residue_is_over();
        }
        if self.gates.closes_at.is_some_and(|at| at <= now) {
            self.gates.closes_at = None;
            self.tell_closing(false);
        }
    }

    /// A session that was renewed keeps doors that close without one open until then.
    pub(super) fn gates_renewed(&mut self, until: Moment) {
        if self.gates.all.iter().any(|gate| gate.closes) {
            self.gates.closes_at = Some(until);
            for gate in self.gates.ids().filter(|gate| self.gates.get(*gate).closes).collect::<Vec<_>>() {
                self.order(gate, &Order::Until(until));
            }
            self.tell_closing(true);
        }
    }

    fn tell_closing(&mut self, alive: bool) {
        let closing: Vec<GateId> = self.gates.ids().filter(|gate| self.gates.get(*gate).closes).collect();
        for gate in closing {
            self.drive(gate, Event::Session(alive));
        }
    }

    /// The claim of one door to its target changed.
    pub(super) fn claim(&mut self, gates: &[GateId], claim: &Claim) {
        for gate in gates {
            self.drive(*gate, Event::Claimed(claim.clone()));
        }
    }

    pub(super) fn keeps(&self, mechanism: Mechanism) -> bool {
        self.mechanisms.keeps(mechanism)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_other_doors_is_not_booked_as_the_disks() {
        let at = |ms: u64| Moment::from_nanos(ms * 1_000_000);
        let times = Times {
            learned: Some(at(0)),
            fenced: Some(at(1)),
            drained: Some((at(3), By::Answers)),
            marked: Some(at(6)),
            opened: Some((at(40_006), By::Answers)),
        };
        let last = times.done(Epoch::FIRST, at(40_007)).expect("all is known");
        let spans = [last.fence, last.drain, last.mark, last.doors, last.open];
        assert_eq!(spans.map(|span| span.as_millis()), [1, 2, 3, 40_000, 1]);
        let unmarked = Times { marked: None, ..times }.done(Epoch::FIRST, at(40_007)).expect("all is known");
        assert_eq!((unmarked.mark.as_millis(), unmarked.doors), (40_003, Duration::ZERO));
        assert!(Times { fenced: None, ..times }.done(Epoch::FIRST, at(40_007)).is_none());
    }
}
