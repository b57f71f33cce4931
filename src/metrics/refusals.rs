//! How many requests were refused, by resource and reason: for the status, which names every resource even where the
//! metrics have one label for many.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fence::{Reason, Resource};

/// Room for every configured resource; the counters of one are made at its first refusal.
#[derive(Debug)]
pub(super) struct Refusals(HashMap<Resource, OnceLock<Box<[AtomicU64]>>>);

impl Refusals {
    pub fn new<'a>(resources: impl Iterator<Item = &'a Resource>) -> Refusals {
        Refusals(resources.map(|resource| (resource.clone(), OnceLock::new())).collect())
    }

    pub fn count(&self, resource: &Resource, reason: Reason) {
        if let Some(counts) = self.0.get(resource) {
            let counts = counts.get_or_init(|| Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect());
            counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn of(&self, resource: &Resource) -> BTreeMap<Reason, u64> {
        let counts = self.0.get(resource).and_then(OnceLock::get);
        let all = Reason::ALL.iter().zip(counts.into_iter().flat_map(|counts| counts.iter()));
        all.map(|(reason, count)| (*reason, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_up_is_named() {
        let orders: Resource = "orders".parse().expect("a name");
        let refusals = Refusals::new([&orders].into_iter());
        assert!(refusals.of(&orders).is_empty());
        refusals.count(&orders, Reason::StaleEpoch);
        refusals.count(&orders, Reason::StaleEpoch);
        refusals.count(&"unknown".parse().expect("a name"), Reason::StaleEpoch);
        assert_eq!(refusals.of(&orders), BTreeMap::from([(Reason::StaleEpoch, 2)]));
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }
}
