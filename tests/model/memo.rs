//! What a process makes of the coordinator, worked out once for each state of both. Most steps of a world happen far from
//! them, so that the same guard reads the same coordinator in thousands of states.
//!
//! States are told apart by their 64-bit hashes, as stateright tells them apart.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::candidate::Writer;
use crate::coordinator::Coordinator;
use crate::guard::Guard;
use crate::part::Part;
use crate::step::Step;
use crate::tale::Tale;
use crate::world::World;

/// So many are remembered; then it begins anew.
const MOST: usize = 100_000;

type Seen<T> = RefCell<HashMap<(Step, u64, u64), (Part<T>, Coordinator, bool)>>;

thread_local! {
    static GUARDS: Seen<Guard> = RefCell::default();
    static WRITERS: Seen<Writer> = RefCell::default();
}

impl World {
    /// Has a running guard do what follows from it and the coordinator alone. Whether it did.
    pub fn with_guard_again(
        &mut self,
        door: usize,
        step: Step,
        tale: &mut Tale,
        change: impl FnOnce(&mut Guard, &mut Coordinator, &mut Tale) -> bool,
    ) -> bool {
        let Some(guard) = self.doors[door].guard.as_mut() else { return false };
        GUARDS.with(|seen| again(seen, step, guard, &mut self.coordinator, tale, change))
    }

    /// Has a writer do what follows from it and the coordinator alone.
    pub fn with_writer_again(
        &mut self,
        writer: usize,
        step: Step,
        tale: &mut Tale,
        change: impl FnOnce(&mut Writer, &mut Coordinator, &mut Tale),
    ) {
        let writer = &mut self.writers[writer];
        let change = |writer: &mut Writer, at: &mut Coordinator, tale: &mut Tale| {
            change(writer, at, tale);
            true
        };
        WRITERS.with(|seen| again(seen, step, writer, &mut self.coordinator, tale, change));
    }
}

fn again<T: std::hash::Hash + Clone>(
    seen: &Seen<T>,
    step: Step,
    part: &mut Part<T>,
    coordinator: &mut Coordinator,
    tale: &mut Tale,
    change: impl FnOnce(&mut T, &mut Coordinator, &mut Tale) -> bool,
) -> bool {
    let key = (step, part.fingerprint(), coordinator.fingerprint());
    // Whoever wants to read what happens has it happen.
    if !tale.is_read()
        && let Some((after, store, did)) = seen.borrow().get(&key)
    {
        (*part, *coordinator) = (after.clone(), store.clone());
        return *did;
    }
    let did = part.edit(|part| change(part, coordinator, tale));
    let mut seen = seen.borrow_mut();
    if seen.len() >= MOST {
        seen.clear();
    }
    seen.insert(key, (part.clone(), coordinator.clone(), did));
    did
}
