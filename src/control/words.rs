//! What a gate waits for, in words for people, and what ends it: `status`, `/readyz?verbose` and the page show them.

use std::sync::Arc;
use std::time::Duration;

use super::Control;
use super::doors::OwnDoor;
use crate::admin::status::{GateStatus, Phase};
use crate::config::resolved::{OnTimeout, ResourceSettings};
use crate::coordinator::agreement::{WaitsFor, Why};
use crate::coordinator::keys;
use crate::coordinator::records::{DoorKind, DoorRecord, EpochRecord, Report, from_value};
use crate::fence::handoff::Phase as Stands;
use crate::fence::{Moment, Resource};
use crate::mailbox::GateId;

/// What is to be said of a drain once the workers have counted what it waits for.
pub(super) struct Draining {
    resource: Resource,
    settings: Arc<ResourceSettings>,
    action_error: Option<Arc<str>>,
    has_proof: bool,
    proof_error: Option<Arc<str>>,
}

impl Control {
    pub(super) fn draining(&self, gate: GateId) -> Draining {
        let state = self.gates.get(gate);
        Draining {
            resource: state.name.resource.clone(),
            settings: Arc::clone(&state.settings),
            action_error: self.action_error(gate),
            has_proof: state.has_proof,
            proof_error: self.proof_error(gate),
        }
    }

    /// Why the fence action of the handoff at hand failed, while that goes on.
    pub(super) fn action_error(&self, gate: GateId) -> Option<Arc<str>> {
        let state = self.gates.get(gate);
        let (epoch, error) = state.action_error.as_ref()?;
        let goes_on = self.gates.floor(gate) == Some(*epoch) && state.handoff.phase() != Stands::Open;
        goes_on.then(|| Arc::clone(error))
    }

    /// For how long it waits for doors that may not be on record, while it does.
    pub(super) fn unrecorded(&self, gate: GateId, now: Moment) -> Option<Duration> {
        let handoff = &self.gates.get(gate).handoff;
        let until = handoff.alone_until().filter(|_| handoff.phase() == Stands::WaitingDoors)?;
        Some(until.since(now))
    }

    /// What a gate that is not open waits for. Of a drain [`tell_drain`] says it, when the workers have counted.
    pub(super) fn waits_for(&self, gate: GateId, residue: Duration, now: Moment) -> Option<String> {
        let state = self.gates.get(gate);
        let door = self.doors.of(&state.name.target);
        Some(match state.handoff.phase() {
            Stands::Open => return None,
            Stands::Unknown if door.is_some_and(|door| door.joined_at.is_none()) => {
                "the coordinator: this door has not joined its target yet".to_owned()
            }
            Stands::Unknown => "the first election".to_owned(),
            Stands::Fencing => "the floor file and every worker".to_owned(),
            Stands::Draining => "writes of a lower epoch that are in flight or lost".to_owned(),
            Stands::Quarantine if state.has_proof => {
                "the target, to say that nothing of a predecessor runs any more".to_owned()
            }
            Stands::Quarantine if state.settings.drain.by_time => {
                format!("what a predecessor forwarded: {}", more(residue))
            }
            Stands::Quarantine => "what a predecessor forwarded, which no time ends (drain.by_time: false)".to_owned(),
            Stands::WaitingDoors => match self.unrecorded(gate, now) {
                Some(left) => format!("doors that may not be on record: {}", more(left)),
                None => doors_in_words(&state.name.resource, self.peers_waited_for(gate), now),
            },
            Stands::Blocked => door.map_or_else(|| "another door".to_owned(), |door| self.blocked_in_words(door, now)),
            Stands::Shut if self.floors.failing.is_some() => "the floor file, which cannot be written".to_owned(),
            Stands::Shut => "a session with the coordinator".to_owned(),
        })
    }

    /// By whom a door is kept shut. That one is declared dead only where it shows no sign of life: one that lives is to
    /// be stopped, or to stand beside this one as both say that they are shared.
    fn blocked_in_words(&self, door: &OwnDoor, now: Moment) -> String {
        let by = door.blocked_by.as_deref().unwrap_or("another door");
        if let Some(until) = door.blocked_until {
            return format!("what door {by}, which is gone, may have forwarded: {}", more(until.since(now)));
        }
        let target = &door.name.target;
        let alive = self.view.get(&keys::alive(target, by)).is_some();
        let other = self.view.record::<DoorRecord>(&keys::door(target, by));
        let kind = other.map(|other| other.kind).filter(|_| alive);
        blocked_by_in_words(by, target, door.record.kind, kind)
    }

    /// Why nobody can be elected: a floor is on record that no election believes (DESIGN 3.7).
    pub(super) fn election_stopped(&self, resource: &Resource) -> Option<String> {
        let last = self.view.record::<EpochRecord>(&keys::epoch(resource));
        let last = last.map_or(0, |record| record.term.epoch.number());
        let prefix = keys::reports(resource);
        let floors =
            self.view.under(&prefix).filter_map(|entry| Some((from_value::<Report>(&entry.value)?.floor, &entry.key)));
        let (floor, key) = floors.max_by_key(|(floor, _)| *floor).filter(|(floor, _)| floor.is_beyond_belief(last))?;
        let key = format!("{}{key}", self.config.coordinator.prefix);
        Some(format!(
            "{key} in the coordinator records the floor {floor}, more than 1000000 above the last epoch {last}; where \
             it is real, say so with `epochgate rebase --resource {resource} --to {floor}`, else delete that key"
        ))
    }
}

/// Says what a drain waits for and what ends it, and whether anything does.
pub(super) fn tell_drain(shown: &mut GateStatus, draining: &Draining) {
    let waits = match shown.phase {
        Phase::Draining => shown.lost > 0,
        Phase::Quarantine => true,
        _ => return,
    };
    let drain = &draining.settings.drain;
    let may_act = draining.settings.fence_action.is_some() && draining.action_error.is_none();
    // What is in flight is answered, or lost in the end.
    let may_end = drain.by_time || draining.has_proof;
    shown.stuck = waits && !may_end && !may_act && drain.on_timeout == OnTimeout::Hold;
    let mut words = shown.waits_for.as_deref().unwrap_or_default().to_owned();
    if let Some(ms) = shown.lost_ms.filter(|_| shown.phase == Phase::Draining) {
        words.push_str(&format!("; those that were lost: {}", more(Duration::from_millis(ms))));
    }
    if let Some(why) = &draining.proof_error {
        words.push_str(&format!(
            "; the target cannot be asked whether anything older runs: {why}; it is asked again every second"
        ));
    }
    if let Some(why) = &draining.action_error {
        words.push_str(&format!("; the fence action failed: {why}"));
    }
    if shown.stuck {
        let resource = &draining.resource;
        let proof = match draining.action_error {
            Some(_) => format!(
                "mend the fence action, and `epochgate step-down --resource {resource}` at the leader's sidecar runs \
                 it again"
            ),
            None => "start this guard again with a fence_action".to_owned(),
        };
        words.push_str(&format!(
            "; nothing ends this by itself: {proof}; or give the proof up with `epochgate gate open --resource \
             {resource} --accept-reordering`"
        ));
    }
    shown.waits_for = Some(words.into());
}

/// So long still.
fn more(left: Duration) -> String {
    format!("{:.1} s more", left.as_secs_f64())
}

/// Which door keeps another of the kind `own` shut, and what ends that. `living` is its kind where it lives.
fn blocked_by_in_words(by: &str, target: &str, own: DoorKind, living: Option<DoorKind>) -> String {
    match (own, living) {
        (_, None) => format!("door {by} to leave: if it is dead, `epochgate doors forget {by}`"),
        (DoorKind::Sole, Some(DoorKind::Shared)) => format!(
            "door {by}, which is alive and one of the shared ones before {target}: write `doors: shared` here too, or \
             stop all of those"
        ),
        (DoorKind::Shared, Some(_)) => format!(
            "door {by}, which is alive and alone before {target}: stop that guard, and write `doors: shared` there too"
        ),
        (DoorKind::Sole, Some(DoorKind::Sole)) => {
            format!("door {by}, which is alive: stop that guard, or write `doors: shared` at both")
        }
    }
}

/// Whom a shared door waits for, and what ends that.
fn doors_in_words(resource: &Resource, waits_for: &[WaitsFor], now: Moment) -> String {
    let in_words = |waits: &WaitsFor| {
        let door = &waits.door.id;
        match waits.why {
            // Its reports do not say why: it may drain, or wait itself for doors that are not on record.
            Why::Draining => {
                format!("door {door} to report that it has drained: its own status says what it waits for")
            }
            Why::Forced => format!(
                "door {door}, which opened without having drained and so proves nothing: `epochgate step-down \
                 --resource {resource}` at the leader's sidecar begins an epoch that all can prove; `epochgate gate \
                 open --resource {resource} --accept-reordering` here gives the proof up once more"
            ),
            Why::Gone(until) => {
                format!("what door {door}, which is gone, may have forwarded: {}", more(until.since(now)))
            }
            Why::Held => format!("door {door}, which is not alive: if it is dead, `epochgate doors forget {door}`"),
        }
    };
    if waits_for.is_empty() {
        return "a reading of the other doors".to_owned();
    }
    waits_for.iter().map(in_words).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::{Drain, FenceAction};
    use crate::coordinator::keys::DoorName;

    fn orders() -> Resource {
        "orders".parse().expect("a resource")
    }

    /// How a drain is told that has one lost write, which by time has 12.3 s still.
    fn told(by_time: bool, has_action: bool, error: Option<&str>) -> GateStatus {
        let seconds = Duration::from_secs;
        let drain = Drain { timeout: seconds(5), quarantine: seconds(35), by_time, on_timeout: OnTimeout::Hold };
        let action = FenceAction { command: vec!["kill-jobs".into()], timeout: seconds(20) };
        let settings = ResourceSettings {
            label: "orders".into(),
            drain,
            hold_timeout: None,
            fence_action: has_action.then_some(action),
        };
        let draining = Draining {
            resource: orders(),
            settings: Arc::new(settings),
            action_error: error.map(Into::into),
            has_proof: false,
            proof_error: None,
        };
        let mut shown = GateStatus {
            target: None,
            phase: Phase::Draining,
            floor: None,
            drained: None,
            in_flight: 0,
            lost: 1,
            lost_ms: by_time.then_some(12_340),
            held: 0,
            residue_ms: 0,
            holders: Vec::new(),
            waits_for_doors: Vec::new(),
            unrecorded_ms: None,
            blocked_by: None,
            waits_for: Some("writes".into()),
            fence_action_error: None,
            stuck: false,
            regression: None,
        };
        tell_drain(&mut shown, &draining);
        shown
    }

    #[test]
    fn a_drain_says_what_ends_it_and_whether_anything_does() {
        let words = |shown: &GateStatus| shown.waits_for.as_deref().unwrap_or_default().to_owned();
        let by_time = told(true, false, None);
        assert_eq!((words(&by_time).as_str(), by_time.stuck), ("writes; those that were lost: 12.3 s more", false));

        let failed = told(true, true, Some("it is not there"));
        assert!(words(&failed).ends_with("12.3 s more; the fence action failed: it is not there"));
        assert!(!failed.stuck, "time ends it");

        assert!(!told(false, true, None).stuck, "the action is to run, or runs");
        let stuck = told(false, true, Some("it is not there"));
        let said = words(&stuck);
        assert!(stuck.stuck && said.contains("failed: it is not there; nothing ends this by itself: mend"), "{said}");
        assert!(said.find("step-down") < said.find("gate open"), "what has a proof comes first: {said}");
        let without = told(false, false, None);
        assert!(without.stuck && words(&without).contains("with a fence_action"), "{}", words(&without));
    }

    #[test]
    fn a_door_that_lives_is_never_to_be_declared_dead() {
        let words = |own, living| blocked_by_in_words("g-1", "db", own, living);
        assert!(words(DoorKind::Sole, None).contains("doors forget g-1"));
        for (own, living) in
            [(DoorKind::Sole, DoorKind::Shared), (DoorKind::Sole, DoorKind::Sole), (DoorKind::Shared, DoorKind::Sole)]
        {
            let said = words(own, Some(living));
            assert!(!said.contains("forget") && said.contains("`doors: shared`") && said.contains("g-1"), "{said}");
        }
    }

    #[test]
    fn beside_a_door_that_was_forced_the_way_with_a_proof_comes_first() {
        let door = DoorName { target: "db".into(), id: "g-1".into() };
        let words = |why| doors_in_words(&orders(), &[WaitsFor { door: door.clone(), why }], Moment::default());
        let forced = words(Why::Forced);
        let (proof, force) = (forced.find("step-down --resource orders"), forced.find("gate open --resource orders"));
        assert!(proof.is_some() && proof < force, "{forced}");
        assert!(words(Why::Draining).contains("its own status"));
        assert_eq!(
            words(Why::Gone(Moment::from_nanos(1_500_000_000))),
            "what door g-1, which is gone, may have forwarded: 1.5 s more"
        );
    }
}
