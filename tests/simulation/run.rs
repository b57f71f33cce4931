//! How the run of one seed goes: trouble until there were enough failovers, then calm, then judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use epochgate::event::Event;
use epochgate::fence::mechanism::Mechanisms;
use epochgate::verify::{Line, What};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::faults::{Faults, Kind};
use crate::judge;
use crate::panics;
use crate::plan::Plan;
use crate::record::Entry;
use crate::world::World;

/// Trouble lasts no longer, however few failovers there were.
const LONGEST_TROUBLE: Duration = Duration::from_secs(400);
/// Within so long after the last fault a write to every resource is acknowledged. The longest wait is that of an
/// observer whose watch has silently left something out: it reads everything every 30 s.
pub const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// The calm is looked at for so long at least.
const CALM: Duration = Duration::from_secs(4);

/// How a run went.
pub struct Run {
    pub plan: Plan,
    pub entries: Vec<Entry>,
    pub faults: BTreeMap<Kind, u64>,
    pub failovers: usize,
    /// Simulated.
    pub took: Duration,
    /// From the end of the faults until every resource was written to again.
    pub recovered: Duration,
    pub panics: Vec<String>,
}

/// Runs the world of a plan to its end.
pub fn run(plan: Plan, mechanisms: Mechanisms) -> Run {
    panics::listen();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    let mut run = runtime.block_on(async {
        let tasks = LocalSet::new();
        let run = tasks.run_until(live(plan, mechanisms)).await;
        drop(tasks);
        run
    });
    run.panics = panics::heard();
    run
}

async fn live(plan: Plan, mechanisms: Mechanisms) -> Run {
    let begun = Instant::now();
    let world = World::begin(plan.clone(), mechanisms);
    let faults = Faults::new(&world);
    let failovers = Failovers::of(&world);
    let enough = || failovers.count() >= plan.failovers || begun.elapsed() >= LONGEST_TROUBLE;
    faults.strike(enough).await;
    faults.heal();
    world.calm();
    faults.over(RECOVERED_WITHIN);
    let recovered = recover(&world).await;
    world.coordinator.note_all();
    let took = begun.elapsed();
    let run = Run {
        plan,
        entries: world.record.take(),
        faults: faults.counts(),
        failovers: failovers.count(),
        took,
        recovered,
        panics: Vec::new(),
    };
    // Faults that were spread over a time may have come after the others were healed.
    faults.heal();
    world.end();
    run
}

/// Waits until every resource has an acknowledged write, or for the time that this may take; returns how long it took.
async fn recover(world: &Rc<World>) -> Duration {
    let (from, begun) = (world.record.len(), Instant::now());
    let wanted = world.plan.resources.len();
    let mut recovered = None;
    loop {
        sleep(Duration::from_millis(250)).await;
        let well = world.record.look(from, judge::acknowledged).len() >= wanted;
        if well && recovered.is_none() {
            recovered = Some(begun.elapsed());
        }
        if (well && begun.elapsed() >= CALM) || begun.elapsed() > RECOVERED_WITHIN {
            return recovered.unwrap_or(begun.elapsed());
        }
    }
}

/// Counts the epochs that a door opened after another.
struct Failovers {
    world: Rc<World>,
    seen: std::cell::RefCell<(usize, BTreeSet<(String, u64)>)>,
}

impl Failovers {
    fn of(world: &Rc<World>) -> Failovers {
        Failovers { world: Rc::clone(world), seen: std::cell::RefCell::default() }
    }

    fn count(&self) -> usize {
        let mut seen = self.seen.borrow_mut();
        let (from, mut opened) = (seen.0, std::mem::take(&mut seen.1));
        self.world.record.look(from, |entries| {
            for entry in entries {
                if let Entry::Line(Line { what: What::Event(Event::Opened { resource, epoch, .. }), .. }) = entry {
                    opened.insert((resource.to_string(), epoch.number()));
                }
            }
        });
        let resources = self.world.plan.resources.len();
        *seen = (self.world.record.len(), opened);
        seen.1.len().saturating_sub(resources)
    }
}
