//! What the roles have in common: how a request's stamp is found, where held requests wait, who may write, how a refusal is told.

pub mod field;
pub mod hold;
pub mod identity;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

pub use field::StampField;
pub use hold::Hold;
pub use identity::Identities;

use crate::event::Event;
use crate::fence::{Refusal, Resource};
use crate::protocol::{Facts, Kind};
use crate::rules::Rules;

/// The event of a refused request.
pub(crate) fn refused(listener: &Arc<str>, rules: &Rules, facts: &Facts<'_>, refusal: &Refusal) -> Event {
    Event::Refused {
        listener: Arc::clone(listener),
        refusal: Box::new(refusal.clone()),
        peer: facts.peer,
        method: facts.method.into(),
        path: facts.path.into(),
        kind: kind(rules, facts),
    }
}

/// The resource of a request; none where no rule names one.
pub(crate) fn resource(rules: &Rules, facts: &Facts<'_>) -> Option<Resource> {
    let place = rules.judge(facts).ok()?.resource?;
    rules.resources().get(place).cloned()
}

/// What a request is; where no rule can be applied to it, what its method says.
pub(crate) fn kind(rules: &Rules, facts: &Facts<'_>) -> Kind {
    if let Some(kind) = facts.kind {
        return kind;
    }
    match (rules.judge(facts), facts.method) {
        (Ok(judged), _) => judged.kind,
        (Err(_), "GET" | "HEAD" | "OPTIONS" | "TRACE") if !facts.upgrade => Kind::Read,
        (Err(_), _) => Kind::Write,
    }
}
