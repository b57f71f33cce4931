//! What goes to the floor file, and when it is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Control;
use crate::event::Event;
use crate::fence::floor::{Floor, Memory, Remembered};
use crate::fence::handoff::{Event as Handoff, Persist};
use crate::fence::mechanism::{Mechanism, Mechanisms};
use crate::mailbox::GateId;
use crate::state_dir::{FloorEvent, FloorWriter};

/// The floor file's content and what is on its way to it.
pub struct Floors {
    writer: Option<FloorWriter>,
    memory: Memory,
    dirty: bool,
    asked: Vec<(GateId, Persist)>,
    on_its_way: VecDeque<(u64, GateId, Persist)>,
    /// The number of the orderly stop's write.
    last: Option<u64>,
    /// The last failure, until a write succeeds.
    pub failing: Option<String>,
    mechanisms: Mechanisms,
}

impl Floors {
    /// Over a file with this content.
    pub fn new(writer: Option<FloorWriter>, memory: Memory, mechanisms: Mechanisms) -> Floors {
        Floors {
            writer,
            memory,
            dirty: false,
            asked: Vec::new(),
            on_its_way: VecDeque::new(),
            last: None,
            failing: None,
            mechanisms,
        }
    }

    /// Whether `revision` lies below the highest that was seen; a higher one becomes the highest.
    pub fn went_back(&mut self, revision: u64) -> bool {
        let back = revision < self.memory.revision;
        self.memory.revision = self.memory.revision.max(revision);
        back
    }

    /// The coordinator's new history is believed from here on.
    pub fn accept_revision(&mut self, revision: u64) {
        self.memory.revision = revision;
    }

    /// Has this written with the next submission.
    pub fn persist(
        &mut self,
        gate: GateId,
        target: &Arc<str>,
        audit: bool,
        persist: Persist,
        resource: &crate::fence::Resource,
    ) {
        let floor = Floor { drained: persist.drained, forced: persist.forced, ..Floor::of(&persist.term) };
        let clean = !self.mechanisms.keeps(Mechanism::CleanMark) && self.memory.of(target, resource).clean;
        self.memory.put(target, resource, Remembered { floor: Some(floor), clean, audit });
        self.asked.push((gate, persist));
        self.dirty = true;
    }

    /// Marks these clean: nothing that was forwarded for them can still take effect.
    pub fn mark_clean(&mut self, target: &Arc<str>, resource: &crate::fence::Resource) {
        let record = self.memory.of(target, resource);
        self.memory.put(target, resource, Remembered { clean: true, ..record });
        self.dirty = true;
    }

    /// Marks what a door has that only counts: whatever it forwards may take effect after its end.
    pub fn mark_audit(&mut self, target: &Arc<str>, resource: &crate::fence::Resource) {
        let record = self.memory.of(target, resource);
        self.memory.put(target, resource, Remembered { clean: false, audit: true, ..record });
        self.dirty = true;
    }

    /// Hands over what has gathered.
    pub fn submit(&mut self) {
        let Some(writer) = self.writer.as_ref().filter(|_| self.dirty) else { return };
        self.dirty = false;
        let number = writer.submit(Arc::new(self.memory.clone()));
        self.on_its_way.extend(self.asked.drain(..).map(|(gate, persist)| (number, gate, persist)));
        self.last = Some(number);
    }

    /// Whether records were lost with an earlier file.
    pub fn has_forgotten(&self) -> bool {
        self.memory.forgotten
    }

    /// What was lost with an earlier file can take effect no more.
    pub fn residue_is_over(&mut self) {
        self.dirty |= self.memory.forgotten;
        self.memory.forgotten = false;
    }

    /// Remembers whether the door's record at this target stands.
    pub fn leave(&mut self, target: &str, left: bool) {
        self.dirty |= match left {
            true => self.memory.left.insert(target.into()),
            false => self.memory.left.remove(target),
        };
    }

    /// Has the same content written once more: into the other slot.
    pub fn write_again(&mut self) {
        self.dirty = true;
    }

    /// Waits until what was submitted is written, or has failed once more.
    pub fn close(&mut self) {
        self.submit();
        if let Some(writer) = self.writer.take() {
            writer.stop();
        }
    }

    /// Whether everything that was submitted is durable.
    pub fn is_settled(&self) -> bool {
        self.writer.is_none() || (!self.dirty && self.last.is_none())
    }

    fn durable(&mut self, upto: u64) -> Vec<(GateId, Persist)> {
        self.failing = None;
        if self.last.is_some_and(|last| last <= upto) {
            self.last = None;
        }
        let count = self.on_its_way.iter().take_while(|(number, ..)| *number <= upto).count();
        self.on_its_way.drain(..count).map(|(_, gate, persist)| (gate, persist)).collect()
    }
}

impl Control {
    pub(super) fn disk_says(&mut self, event: FloorEvent) {
        match event {
            FloorEvent::Durable { once, .. } => {
                for (gate, persist) in self.floors.durable(once) {
                    let name = self.gates.name(gate);
                    self.say(Event::Persisted {
                        resource: name.resource.clone(),
                        target: name.target.clone(),
                        epoch: persist.term.epoch,
                        drained: persist.drained,
                    });
                    super::failpoint(if persist.drained { "marked" } else { "persisted" }, persist.term.epoch);
                    self.drive(gate, Handoff::Persisted(persist));
                }
            }
            FloorEvent::Failed { error, .. } => {
                let waiting: Vec<GateId> = self.floors.on_its_way.iter().map(|(_, gate, _)| *gate).collect();
                let resources = waiting.iter().map(|gate| self.gates.name(*gate).resource.clone()).collect();
                if self.floors.failing.is_none() {
                    tracing::error!(%error, "the floor file cannot be written: new epochs stay shut until it can");
                }
                self.floors.failing = Some(error.to_string());
                self.say(Event::FloorWriteFailed { resources, error: error.to_string().into() });
                for gate in waiting {
                    self.drive(gate, Handoff::DiskFailed);
                }
            }
        }
    }
}
