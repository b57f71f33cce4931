//! Candidacies: that this process would lead is on record, under its own id and nonce (DESIGN 5).

use std::sync::Arc;

use super::writer::{Other, RETRY, State};
use super::{Control, Internal};
use crate::coordinator::keys::{self};
use crate::coordinator::records::{CandidateRecord, from_value, to_value};
use crate::coordinator::store::{Change, Committed, Compare, Keys, Lease, Revision, StoreError, Txn};
use crate::fence::{Moment, Resource};

/// So many candidacies go into one commit: etcd limits a transaction to 128 operations.
const IN_ONE_COMMIT: usize = 50;

impl Control {
    pub(super) fn tend_writer(&mut self, now: Moment) {
        if self.stop.has_begun() {
            return;
        }
        let Some(lease) = self.connection.lease else { return };
        self.register(lease, now);
        while let Some((at, resource)) = self.writer.due.first().cloned() {
            if at > now {
                break;
            }
            self.writer.due.remove(&(at, resource.clone()));
            self.run_campaign(resource, lease);
        }
    }

    /// Records candidacies, many in one commit, once it is known whether another process has this writer's id.
    pub(super) fn register(&mut self, lease: Lease, now: Moment) {
        if self.writer.to_register.is_empty() || self.view.revision == Revision(0) {
            return;
        }
        while !self.writer.to_register.is_empty() {
            let batch: Vec<Resource> = self.writer.to_register.iter().take(IN_ONE_COMMIT).cloned().collect();
            let mut txn = Txn::default();
            let mut resources = Vec::new();
            for resource in batch {
                self.writer.to_register.remove(&resource);
                if self.add_candidacy(&resource, lease, now, &mut txn) {
                    resources.push(resource);
                }
            }
            if resources.is_empty() {
                continue;
            }
            let store = Arc::clone(&self.store);
            self.beside(async move { Internal::Registered { resources, lease, result: store.commit(txn).await } });
        }
    }

    /// `false` where another process's candidacy stands under the same id: it is waited for.
    fn add_candidacy(&mut self, resource: &Resource, lease: Lease, now: Moment, txn: &mut Txn) -> bool {
        let key = keys::candidate(resource, &self.writer.id);
        let compare = match self.view.get(&key) {
            None => Compare::Absent(key.clone()),
            Some(entry) => {
                let own =
                    from_value::<CandidateRecord>(&entry.value).is_some_and(|it| it.process == self.writer.process);
                if !own {
                    let put_at = entry.modified;
                    self.wait_for_other(resource, put_at, now);
                    return false;
                }
                Compare::ModifiedAt(key.clone(), entry.modified)
            }
        };
        txn.compares.push(compare);
        let value = to_value(&CandidateRecord { process: self.writer.process });
        txn.changes.push(Change::Put { key, value, lease: Some(lease.id) });
        true
    }

    /// A candidacy of the same id that outlives two leases is renewed by somebody: two processes have one id. Counted is
    /// from its first sight, again after an outage (a coordinator that comes back grants every lease its whole time
    /// anew), and it is looked at once more before that is said: this process may have stood still meanwhile.
    fn wait_for_other(&mut self, resource: &Resource, put_at: Revision, now: Moment) {
        self.writer.set(resource, State::Due(now.plus(RETRY)));
        let Some(campaign) = self.writer.campaigns.get_mut(resource).filter(|_| self.connection.up == Some(true))
        else {
            return;
        };
        let Some(other) = campaign.other_seen.as_mut().filter(|other| other.put_at == put_at) else {
            tracing::warn!(%resource, id = %self.writer.id, "another process had this writer id: waiting for its lease to lapse");
            campaign.other_seen = Some(Other { put_at, since: now, look: None });
            return;
        };
        if now.since(other.since) <= self.config.coordinator.lease_ttl * 2 {
            return;
        }
        match other.look {
            None => {
                let look = self.look(vec![Keys::Under(keys::candidates(resource))]);
                if let Some(other) = self.writer.campaigns.get_mut(resource).and_then(|it| it.other_seen.as_mut()) {
                    other.look = Some(look);
                }
            }
            Some(look) if self.looks.seen >= look => {
                self.stop.end(super::Ended::DuplicateWriter { resource: resource.clone() });
            }
            Some(_) => {}
        }
    }

    pub(super) fn registered(&mut self, resources: Vec<Resource>, lease: Lease, result: Result<Committed, StoreError>) {
        if self.connection.lease.is_none_or(|current| current.id != lease.id) {
            return;
        }
        let now = self.clock.now();
        let done = matches!(result, Ok(Committed::Done(_)));
        if let Err(error) = &result {
            self.coordinator_failed(error);
        }
        for resource in resources {
            if let Some(campaign) = self.writer.campaigns.get_mut(&resource).filter(|_| done) {
                campaign.other_seen = None;
                campaign.registered = true;
                self.seek(&resource, now);
            } else {
                // Refused: a candidacy changed under it. The next reading says how it stands.
                self.look(vec![Keys::Under(keys::candidates(&resource))]);
                self.writer.set(&resource, State::Due(now.plus(RETRY)));
            }
        }
    }

    /// Tries to win a resource that nobody leads, as soon as it may.
    pub(super) fn seek(&mut self, resource: &Resource, now: Moment) {
        let vacant = self.view.get(&keys::leader(resource)).is_none();
        let Some(campaign) = self.writer.campaigns.get_mut(resource) else { return };
        if matches!(campaign.state, State::Running | State::Resigning) {
            return;
        }
        if vacant && !self.writer.standing.tenures.contains_key(resource) {
            campaign.vacant_since.get_or_insert(now);
            let at = campaign.paused_until.map_or(now, |until| until.max(now));
            self.writer.set(resource, State::Due(at));
        } else {
            self.writer.set(resource, State::Waiting);
        }
    }
}
