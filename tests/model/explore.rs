//! Exploring a world with stateright, and telling what was found.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use crate::recovery::recovers;
use crate::rules::{Rule, properties};
use crate::setup::Setup;
use crate::step::Step;
use crate::steps::{candidates, take};
use crate::tale::Tale;
use crate::world::World;

/// A world to explore, as stateright wants it.
#[derive(Clone)]
pub struct Exploration {
    pub setup: Setup,
    /// Whether a rule was seen broken. The checker looks at more states before it stops, and would tell of the last one
    /// that breaks a rule: so only the first counts.
    seen: Arc<AtomicBool>,
}

impl Exploration {
    /// Of this world.
    pub fn of(setup: Setup) -> Exploration {
        Exploration { setup, seen: Arc::default() }
    }

    /// Whether this state is the first in which something is `broken`.
    pub fn sees(&self, broken: bool) -> bool {
        broken && !self.seen.swap(true, Ordering::Relaxed)
    }
}

impl Model for Exploration {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let world = World::new(&self.setup);
        if !self.setup.begun {
            return vec![world];
        }
        // The way to the first term is the way that they go by themselves.
        let mut begun = match recovers(&world, &self.setup) {
            Ok(begun) => begun,
            Err(stuck) => panic!("{}: the world does not begin: {stuck:?}", self.setup.name),
        };
        begun.left = self.setup.faults;
        for step in self.setup.so_far {
            begun = match take(&begun, &self.setup, *step, &mut Tale::unread()) {
                Some(next) => next,
                None => panic!("{}: the world does not begin: it cannot be that {step}", self.setup.name),
            };
        }
        vec![begun]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        candidates(world, &self.setup, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        take(world, &self.setup, step, &mut Tale::unread())
    }

    fn properties(&self) -> Vec<Property<Exploration>> {
        properties()
    }
}

/// What was found.
pub struct Found {
    /// The rule that was broken first, and how.
    pub broken: Option<(Rule, String, usize)>,
    /// How many states there are, each counted once.
    pub states: usize,
    /// How many steps led to them.
    pub steps: usize,
    /// The longest of the shortest ways from the beginning.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether there is nothing more than what was seen.
    pub is_all: bool,
}

impl Exploration {
    /// Explores breadth first, so that what is found first is the shortest, up to the world's bounds.
    pub fn explore(self, threads: usize) -> Found {
        let began = Instant::now();
        let (depth, most) = (self.setup.depth, self.setup.most);
        let checker = self.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
        let mut checker = checker.target_state_count(most);
        if depth > 0 {
            checker = checker.target_max_depth(depth);
        }
        let checker = checker.spawn_bfs().join();
        let found = checker.discoveries();
        let broken = Rule::ALL.into_iter().find_map(|rule| {
            let path = found.get(rule.as_str())?.clone();
            Some((rule, self.tell(rule, path.clone()), path.into_actions().len()))
        });
        Found {
            is_all: broken.is_none() && depth == 0 && checker.state_count() < most,
            broken,
            states: checker.unique_state_count(),
            steps: checker.state_count(),
            depth: checker.max_depth(),
            took: began.elapsed(),
        }
    }

    /// A run in numbered lines.
    fn tell(&self, rule: Rule, path: Path<World, Step>) -> String {
        let mut text = String::new();
        for step in self.setup.so_far {
            let _ = writeln!(text, "       before: {step}");
        }
        let states = path.into_vec();
        for (number, (world, step)) in states.iter().enumerate() {
            let Some(step) = step else { continue };
            let mut tale = Tale::read();
            let _ = take(world, &self.setup, *step, &mut tale);
            let follows = tale.line();
            let then = if follows.is_empty() { String::new() } else { format!(": {follows}") };
            let _ = writeln!(text, "  {:>3}. {step}{then}", number + 1);
        }
        let last = states.last().map(|(world, _)| world);
        if let (Rule::Recovery, Some(world)) = (rule, last)
            && let Err(stuck) = recovers(world, &self.setup)
        {
            let _ = writeln!(text, "       and from here on, without a fault: {}, after:", stuck.why);
            for step in stuck.steps.iter().take(60) {
                let _ = writeln!(text, "       - {step}");
            }
        }
        text
    }
}
