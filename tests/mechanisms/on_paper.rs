//! The pure core alone: a door with a disk of paper, a gate, elections as plans.

use std::time::Duration;

use epochgate::coordinator::election::{Campaigned, Candidate, Plan, plan, ranges};
use epochgate::coordinator::keys;
use epochgate::coordinator::records::{EpochRecord, Report, to_value};
use epochgate::coordinator::store::{Committed, Entry, LeaseId, Revision, Snapshot};
use epochgate::fence::gate::{Admitted, Cause, Gate, Order, Policy as GatePolicy, Verdict};
use epochgate::fence::handoff::{Claim, Effect, Event, Handoff, Persist, Policy, Reading, Start};
use epochgate::fence::mechanism::Mechanisms;
use epochgate::fence::{Epoch, Moment, Nonce, Stamp, Term};

use crate::support::terms::orders;
use crate::support::world::World;
use crate::{Fence, Seen};

const NOW: Moment = Moment::from_nanos(1);

fn epoch(number: u64) -> Epoch {
    Epoch::new(number).expect("in range")
}

fn term(number: u64, nonce: u8) -> Term {
    Term { epoch: epoch(number), nonce: Nonce::from_bytes([nonce; 8]), writer: "orders-a".parse().expect("an id") }
}

/// One door: handoff machine, one gate, and what is on its disk.
struct Door {
    handoff: Handoff,
    gate: Gate,
    disk: Persist,
    /// Whether what is written becomes durable.
    disk_works: bool,
}

impl Door {
    /// Starts with what is on the disk, after a stop in order.
    fn start(disk: Persist, mechanisms: Mechanisms) -> Door {
        Door::start_as(disk, mechanisms, Claim::Standing, false)
    }

    fn start_as(disk: Persist, mechanisms: Mechanisms, claim: Claim, shared: bool) -> Door {
        let policy = Policy {
            drain_timeout: Duration::from_secs(5),
            quarantine: Duration::from_secs(35),
            by_time: true,
            has_action: false,
            has_proof: false,
            open_on_timeout: false,
            close_on_loss: false,
            shared,
            workers: 1,
            mechanisms,
        };
        let start = Start { term: disk.term.clone(), drained: disk.drained, forced: disk.forced, clean: true };
        let mut door = Door {
            handoff: Handoff::start(policy, claim, Some(start), NOW),
            gate: gate(mechanisms),
            disk,
            disk_works: true,
        };
        door.on(Event::Tick);
        door
    }

    /// Takes in an event, and everything that follows from it.
    fn on(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.handoff.on(event, NOW) {
                match effect {
                    Effect::Persist(persist) if self.disk_works => {
                        self.disk = persist.clone();
                        events.insert(0, Event::Persisted(persist));
                    }
                    Effect::Fence(term) => {
                        let epoch = term.epoch;
                        self.gate.follow(Order::Fence(term));
                        events.insert(0, Event::WorkerFenced(0, epoch));
                        events.insert(0, Event::WorkerDrained(0, epoch));
                    }
                    Effect::Open(term) => self.gate.follow(Order::Open(term)),
                    Effect::Regressed(regressed) => self.gate.follow(Order::Regressed(regressed)),
                    _ => {}
                }
            }
        }
    }

    fn read(&mut self, record: &Term, went_back: bool) {
        self.on(Event::Read(Reading { record: Some((record.clone(), 9)), went_back, joined_at: 7 }));
    }

    fn admits(&mut self, term: &Term) -> bool {
        matches!(self.gate.admit(Some(&Stamp::of(term, &orders()))), Verdict::Admit(..))
    }
}

fn gate(mechanisms: Mechanisms) -> Gate {
    Gate::new(GatePolicy {
        audit: false,
        bare_stamps: true,
        quarantine: Duration::from_secs(35),
        by_time: true,
        mechanisms,
    })
}

fn opened(number: u64, nonce: u8) -> Persist {
    Persist { term: term(number, nonce), drained: true, forced: false }
}

/// A shared door joins after the coordinator was wiped, and finds itself the only one: another may hold an open session.
pub fn a_shared_door_that_finds_nobody(fence: Fence) -> Seen {
    let mut door = Door::start_as(opened(4, 4), fence.mechanisms(), Claim::Joining, true);
    door.on(Event::Alone(NOW.plus(Duration::from_secs(40))));
    door.on(Event::Claimed(Claim::Standing));
    door.read(&term(5, 5), false);
    // Nobody else is on record, so nobody is waited for.
    door.on(Event::Agreed(epoch(5)));
    door.admits(&term(5, 5)).then(|| "it opened epoch 5 while a door that is not on record may admit 4".to_owned())
}

/// A write was admitted and waits for a connection to the target while its door is declared dead, and another opens.
/// (Where only the epoch moves on, the drain waits for such a write: it is running.)
pub fn a_write_that_waits_for_a_connection(fence: Fence) -> Seen {
    let mut gate = gate(fence.mechanisms());
    gate.follow(Order::Fence(term(4, 1)));
    gate.follow(Order::Open(term(4, 1)));
    let Verdict::Admit(write, _) = gate.admit(Some(&Stamp::of(&term(4, 1), &orders()))) else {
        panic!("the gate is open")
    };
    gate.follow(Order::Shut(Cause::Blocked("second-00000000".into())));
    leaves(&gate, &write).then(|| "the gate is shut for second-00000000, and the write of epoch 4 leaves".to_owned())
}

fn leaves(gate: &Gate, write: &Admitted) -> bool {
    gate.confirm(write).is_ok()
}

/// A new epoch comes while the disk does not answer; then the power fails.
pub fn a_disk_that_does_not_answer(fence: Fence) -> Seen {
    let mut door = Door::start(opened(4, 1), fence.mechanisms());
    assert!(door.admits(&term(4, 1)));
    door.disk_works = false;
    door.read(&term(5, 2), false);
    let admitted = door.admits(&term(5, 2));
    let mut after = Door::start(door.disk, fence.mechanisms());
    (admitted && after.admits(&term(4, 1))).then(|| "admitted: 5, and after the restart 4".to_owned())
}

/// The coordinator is restored from a backup and mints epochs that were used before; then the guard restarts.
pub fn a_coordinator_restored_from_a_backup(fence: Fence) -> Seen {
    for again in [term(3, 9), term(42, 9)] {
        let mut door = Door::start(opened(42, 1), fence.mechanisms());
        assert!(door.admits(&term(42, 1)));
        door.read(&again, true);
        let mut after = Door::start(door.disk, fence.mechanisms());
        if after.admits(&again) {
            return Some(format!("admitted: 42, and after the restart {} of another term", again.epoch));
        }
        assert!(after.admits(&term(42, 1)), "the term at hand goes on");
    }
    None
}

/// The election's view of a coordinator with this epoch record and this door's floor.
fn reading(record: u64, floor: u64) -> Snapshot {
    let entry = |key, value| Entry { key, value, created: Revision(8), modified: Revision(8), lease: None };
    let minted = EpochRecord { term: term(record, 1), doors: Revision(1), minted: jiff::Timestamp::UNIX_EPOCH };
    let report = Report {
        floor: epoch(floor),
        nonce: Nonce::from_bytes([2; 8]),
        writer: "orders-b".parse().expect("an id"),
        drained: None,
        forced: None,
        regressed: false,
    };
    let epochs = vec![entry(keys::epoch(&orders()), to_value(&minted))];
    let reports = vec![entry(keys::report(&orders(), "orders", "guard-00000000"), to_value(&report))];
    Snapshot { revision: Revision(9), ranges: vec![vec![], epochs, reports], sent: NOW }
}

fn planned(read: &Snapshot, nonce: u8, lease: LeaseId, fence: Fence) -> Plan {
    let candidate = Candidate { writer: "orders-c".parse().expect("an id"), address: None, lease, deposes: false };
    let nonce = Nonce::from_bytes([nonce; 8]);
    plan(&orders(), read, &candidate, nonce, jiff::Timestamp::UNIX_EPOCH, fence.mechanisms())
}

/// A backup of epoch 7 is restored; a guard has recorded that it has seen 41.
pub fn an_election_after_a_restore(fence: Fence) -> Seen {
    match planned(&reading(7, 41), 3, LeaseId(5), fence) {
        Plan::Commit(commit) if commit.1.epoch > epoch(41) => None,
        Plan::Commit(commit) => Some(format!("epoch {} is minted again: a guard has seen 41", commit.1.epoch)),
        Plan::Ended(ended) => panic!("{ended:?}"),
    }
}

/// Somebody with access to the coordinator records a floor at the very end of all epochs.
pub fn a_forged_report(fence: Fence) -> Seen {
    match planned(&reading(7, 999_999_999_999_999), 3, LeaseId(5), fence) {
        Plan::Ended(Campaigned::Unbelievable { .. }) => None,
        other => Some(format!("{other:?}: there is no epoch left")),
    }
}

/// Two candidates read the same, and both commit.
pub fn two_elections_on_one_reading(fence: Fence) -> Seen {
    let world = World::embedded();
    let committed = world.terms.with_store(move |store| async move {
        let lease = store.grant(Duration::from_secs(600)).await?;
        let read = store.read(ranges(&orders())).await?;
        let mut won = Vec::new();
        for nonce in [3, 4] {
            let Plan::Commit(commit) = planned(&read, nonce, lease.id, fence) else { panic!("nobody leads") };
            let (txn, term) = *commit;
            if let Committed::Done(_) = store.commit(txn).await? {
                won.push(term);
            }
        }
        Ok(won)
    });
    let won = committed.expect("the store answers");
    (won.len() > 1).then(|| format!("won: {won:?}"))
}
