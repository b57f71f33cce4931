//! The rules, as the model sees them kept or broken.

use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::Property;

use crate::explore::Exploration;
use crate::recovery::recovers;
use crate::world::World;

/// What must never happen, or what must always be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// At the target, the epochs of applied writes never decrease.
    Order,
    /// What an armed leader has read, no older write changes any more.
    Settled,
    /// A write carries the term that its writer held when it began.
    OwnTerm,
    /// No two terms share an epoch.
    OneWriter,
    /// Nobody but an election makes an epoch.
    NoPoisoning,
    /// A guard never admits below what it has admitted.
    Memory,
    /// With the faults over, a leader's write is admitted again.
    Recovery,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 7] =
        [Rule::Order, Rule::Settled, Rule::OwnTerm, Rule::OneWriter, Rule::NoPoisoning, Rule::Memory, Rule::Recovery];

    /// As the output names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rule::Order => "R1 order",
            Rule::Settled => "R1 settled",
            Rule::OwnTerm => "R2 own term",
            Rule::OneWriter => "R3 one writer an epoch",
            Rule::NoPoisoning => "R4 no poisoning",
            Rule::Memory => "R5 memory",
            Rule::Recovery => "liveness",
        }
    }
}

/// The rules as properties of a state.
pub fn properties() -> Vec<Property<Exploration>> {
    vec![
        Property::always(Rule::Order.as_str(), |all, world: &World| !all.sees(world.broken == Some(Rule::Order))),
        Property::always(Rule::Settled.as_str(), |all, world: &World| !all.sees(world.broken == Some(Rule::Settled))),
        Property::always(Rule::OwnTerm.as_str(), |all, world: &World| !all.sees(world.broken == Some(Rule::OwnTerm))),
        Property::always(Rule::OneWriter.as_str(), |all, world: &World| {
            !all.sees(world.broken == Some(Rule::OneWriter))
        }),
        Property::always(Rule::NoPoisoning.as_str(), |all, world: &World| {
            !all.sees(world.broken == Some(Rule::NoPoisoning) || !floors_were_minted(world))
        }),
        Property::always(Rule::Memory.as_str(), |all, world: &World| !all.sees(world.broken == Some(Rule::Memory))),
        Property::always(Rule::Recovery.as_str(), |all, world: &World| {
            !all.sees(is_sampled(all, world) && recovers(world, &all.setup).is_err())
        }),
    ]
}

/// R4: every floor of a running guard is that of a term that was minted.
fn floors_were_minted(world: &World) -> bool {
    let minted = |epoch, nonce| world.minted.iter().any(|(term, _)| (term.epoch, term.nonce) == (epoch, nonce));
    world.doors.iter().filter_map(|door| door.guard.as_ref()).all(|guard| {
        let gates = guard.workers.iter().filter_map(|worker| worker.gate.term());
        guard.handoff.term().into_iter().chain(gates).all(|term| minted(term.epoch, term.nonce))
    })
}

fn is_sampled(exploration: &Exploration, world: &World) -> bool {
    let one_of = exploration.setup.recovery;
    if one_of == 0 || world.broken.is_some() {
        return false;
    }
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    one_of == 1 || hasher.finish().is_multiple_of(one_of)
}
