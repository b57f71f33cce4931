//! Elections as control runs them: an attempt beside, its result, and the key given back.

use std::sync::Arc;
use std::time::Duration;

use super::writer::{RETRY, State};
use super::{Control, Internal};
use crate::coordinator::election::{Campaigned, Candidate, Tools, campaign, resign};
use crate::coordinator::keys::{self};
use crate::coordinator::store::{Keys, Lease, Revision, StoreError};
use crate::event::Event;
use crate::fence::tenure::Leader;
use crate::fence::{Resource, Term};

/// How long to wait where only an operator can help.
const OPERATOR_RETRY: Duration = Duration::from_secs(5);

impl Control {
    pub(super) fn run_campaign(&mut self, resource: Resource, lease: Lease) {
        if self.writer.campaigns.get(&resource).is_some_and(|campaign| !campaign.registered) {
            self.writer.unregister(&resource);
            self.writer.to_register.insert(resource);
            let now = self.clock.now();
            return self.register(lease, now);
        }
        if self.view.get(&keys::leader(&resource)).is_some() {
            return self.writer.set(&resource, State::Waiting);
        }
        self.writer.set(&resource, State::Running);
        let tools = Tools {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            mechanisms: self.mechanisms,
        };
        let candidate = Candidate {
            writer: self.writer.id.clone(),
            address: self.writer.address.clone(),
            lease: lease.id,
            deposes: false,
        };
        let elections = Arc::clone(&self.writer.elections);
        self.beside(async move {
            let _place = elections.acquire().await;
            let result = campaign(&tools, &resource, &candidate).await;
            Internal::Campaigned { resource, lease, result }
        });
    }

    pub(super) fn campaigned(&mut self, resource: &Resource, lease: Lease, result: Result<Campaigned, StoreError>) {
        if self.connection.lease.is_none_or(|current| current.id != lease.id) {
            // Whatever was won under that lease is gone with it, and the candidacy under the present one goes its own
            // way.
            return;
        }
        let now = self.clock.now();
        match result {
            Ok(Campaigned::Won(won)) => {
                self.coordinator_answered();
                self.won(resource, won.term, won.doors, won.at);
            }
            Ok(Campaigned::Taken(leader)) => {
                self.note_leader(resource, Some(leader));
                // The key may be gone by now, and no reading may ever show it: so it is tried again, unless one does.
                self.look(vec![Keys::One(keys::leader(resource))]);
                self.writer.set(resource, State::Due(now.plus(RETRY)));
            }
            Ok(Campaigned::Overtaken) => {
                let pause = Duration::from_millis(5).mul_f64(1.0 + 3.0 * self.entropy.fraction());
                self.writer.set(resource, State::Due(now.plus(pause)));
            }
            Ok(Campaigned::Unclear(term, error)) => {
                if let Some(campaign) = self.writer.campaigns.get_mut(resource) {
                    campaign.unclear.push(term);
                }
                self.coordinator_failed(&error);
                self.look(vec![Keys::One(keys::leader(resource))]);
                self.writer.set(resource, State::Due(now.plus(RETRY)));
            }
            Ok(Campaigned::Unbelievable { floor, door, epoch }) => {
                tracing::error!(
                    %resource, %floor, %door, epoch,
                    "no election: a floor on record is more than 1000000 above the epoch. A restored coordinator and a \
                     forged report look alike here; the door may be gone, or never have been: `epochgate status` names \
                     the key and what to do"
                );
                self.writer.set(resource, State::Due(now.plus(OPERATOR_RETRY)));
            }
            Ok(Campaigned::Exhausted) => {
                tracing::error!(%resource, "no election: there is no epoch above 999999999999999");
                self.writer.set(resource, State::Due(now.plus(OPERATOR_RETRY)));
            }
            Err(error) => {
                self.coordinator_failed(&error);
                self.writer.set(resource, State::Due(now.plus(RETRY)));
            }
        }
    }

    pub(super) fn won(&mut self, resource: &Resource, term: Term, minted_against: Revision, at: Revision) {
        self.writer.set(resource, State::Waiting);
        let Some(campaign) = self.writer.campaigns.get_mut(resource) else { return };
        campaign.unclear.clear();
        campaign.won_at = at;
        campaign.minted_against = minted_against;
        campaign.paused_until = None;
        let took = campaign.vacant_since.take().map(|since| self.clock.now().since(since));
        if self.stop.has_begun() || self.connection.lease.is_none() {
            return self.resign_term(resource, term);
        }
        tracing::info!(%resource, epoch = %term.epoch, "elected");
        let address = self.writer.address.as_deref().map(Into::into);
        let leader = Leader { term: term.clone(), address, held: false };
        self.writer.standing.leaders.insert(resource.clone(), leader);
        self.say(Event::Elected {
            resource: resource.clone(),
            epoch: term.epoch,
            nonce: term.nonce,
            writer: term.writer.clone(),
            own: true,
            took,
        });
        self.writer.standing.begin(resource.clone(), term);
        self.writer.dirty = true;
        self.look(vec![Keys::Under(keys::DOORS.to_owned()), Keys::Under(keys::reports(resource))]);
        // A reading that came before the answer has told nobody to give up, and no later one shows the same as changed.
        if self.view.revision >= at {
            self.check_epoch(resource);
            self.check_floors(resource);
        }
        self.try_to_arm(resource);
    }

    /// Deletes the leader key of a term that is not used any more.
    pub(super) fn resign_term(&mut self, resource: &Resource, term: Term) {
        self.writer.set(resource, State::Resigning);
        let (store, resource) = (Arc::clone(&self.store), resource.clone());
        self.beside(async move {
            let result = resign(store.as_ref(), &resource, &term).await;
            Internal::Resigned { resource, term, result }
        });
    }

    pub(super) fn resigned(&mut self, resource: &Resource, term: &Term, result: Result<bool, StoreError>) {
        if let Err(error) = result {
            // The lease goes with the process or lapses; until then nobody can be elected, so it is tried again.
            tracing::warn!(%resource, epoch = %term.epoch, %error, "cannot give the leader key back yet");
            self.coordinator_failed(&error);
            if self.connection.lease.is_some() && !self.stop.has_begun() {
                let (store, resource, term) = (Arc::clone(&self.store), resource.clone(), term.clone());
                self.beside(async move {
                    tokio::time::sleep(RETRY).await;
                    let result = resign(store.as_ref(), &resource, &term).await;
                    Internal::Resigned { resource, term, result }
                });
                return;
            }
        }
        self.writer.set(resource, State::Waiting);
        self.look(vec![Keys::One(keys::leader(resource))]);
        // A reading may have shown already that the key is gone; no later one would say so again.
        self.seek(resource, self.clock.now());
        self.key_given_back(resource);
    }
}
