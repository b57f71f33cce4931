//! The writer's side of the process: what it would lead, what it leads, and until when (DESIGN 3.4).
//!
//! The standing that the workers stamp by is kept here and published whole whenever a term of it changed.
//! [`candidacy`](super::candidacy) records that it would lead, [`elections`](super::elections) wins terms, and
//! [`leaderships`](super::leaderships) watches over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Control;
use crate::clock::Entropy;
use crate::config::Config;
use crate::config::resolved::Role;
use crate::coordinator::doors::Sightings;
use crate::coordinator::store::Revision;
use crate::event::{Event, TermEnd};
use crate::fence::mechanism::Mechanisms;
use crate::fence::tenure::Standing;
use crate::fence::{Moment, Nonce, Resource, Term, WriterId};
use crate::mailbox::ToWorker;

/// So many elections run at once: enough to hide the round trips of a thousand resources, few enough for any etcd.
const ELECTIONS_AT_ONCE: usize = 32;
/// How long to wait after an attempt that could not be decided.
pub(super) const RETRY: Duration = Duration::from_millis(250);

/// The writer's side of the process.
pub struct Writer {
    pub(super) id: WriterId,
    pub(super) process: Nonce,
    pub(super) address: Option<String>,
    pub(super) keep_on_loss: bool,
    pub(super) campaigns: BTreeMap<Resource, Campaign>,
    pub(super) standing: Standing,
    pub(super) dirty: bool,
    pub(super) deadline: Option<Moment>,
    pub(super) elections: Arc<Semaphore>,
    pub(super) due: BTreeSet<(Moment, Resource)>,
    pub(super) to_register: BTreeSet<Resource>,
    /// The doors are known completely as of this revision.
    pub(super) doors_known: Revision,
    /// Since when doors that are gone have been seen so.
    pub(super) sightings: Sightings,
}

/// One resource that this process would lead.
pub struct Campaign {
    pub(super) state: State,
    /// Whether its candidacy is on record under the present lease.
    pub(super) registered: bool,
    /// Terms whose commit had no clear answer: one that shows up as the leader was won.
    pub(super) unclear: Vec<Term>,
    /// The revision at which the present term was won: what an older reading says of the leader says nothing of it.
    pub(super) won_at: Revision,
    /// The revision of the doors that the present term was minted against.
    pub(super) minted_against: Revision,
    pub(super) vacant_since: Option<Moment>,
    /// Not before then, unless another has led meanwhile.
    pub(super) paused_until: Option<Moment>,
    /// The candidacy of another process with this writer's id, seen without an outage since.
    pub(super) other_seen: Option<Other>,
}

/// A candidacy of another process with this writer's id.
pub(super) struct Other {
    /// The revision at which it was put: a later one is another.
    pub(super) put_at: Revision,
    /// When it was first seen.
    pub(super) since: Moment,
    /// The reading that is to say whether it still stands.
    pub(super) look: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its candidacy is not recorded under the present lease.
    Unregistered,
    /// To be elected, not before then.
    Due(Moment),
    /// An attempt runs.
    Running,
    /// Somebody leads, perhaps this process.
    Waiting,
    /// The leader key is being deleted.
    Resigning,
}

impl Writer {
    pub(super) fn start(config: &Config, entropy: &dyn Entropy, mechanisms: Mechanisms) -> Writer {
        let stamps = config.listeners.iter().filter_map(|listener| match &listener.role {
            Role::Stamp(stamp) => Some(stamp),
            Role::Guard(_) => None,
        });
        let mut campaigns = BTreeMap::new();
        let (mut address, mut keep_on_loss, mut any) = (None, true, false);
        for stamp in stamps {
            any = true;
            address = address.or_else(|| stamp.advertise.as_ref().map(ToString::to_string));
            keep_on_loss &= stamp.keep_on_coordinator_loss;
            campaigns.extend(stamp.campaign.iter().map(|resource| (resource.clone(), Campaign::new())));
        }
        Writer {
            id: config.id.clone(),
            process: entropy.nonce(),
            address,
            keep_on_loss: any && keep_on_loss,
            campaigns,
            standing: Standing::new(mechanisms),
            dirty: false,
            deadline: None,
            elections: Arc::new(Semaphore::new(ELECTIONS_AT_ONCE)),
            due: BTreeSet::new(),
            to_register: BTreeSet::new(),
            doors_known: Revision(0),
            sightings: Sightings::default(),
        }
    }

    pub(super) fn wakes_at(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Its candidacy is to be recorded (again) before it is elected.
    pub(super) fn unregister(&mut self, resource: &Resource) {
        self.set(resource, State::Unregistered);
        if let Some(campaign) = self.campaigns.get_mut(resource) {
            campaign.registered = false;
            // What may have been won under an earlier lease is gone with it.
            campaign.unclear.clear();
        }
    }

    pub(super) fn set(&mut self, resource: &Resource, state: State) {
        let Some(campaign) = self.campaigns.get_mut(resource) else { return };
        if let State::Due(at) = campaign.state {
            self.due.remove(&(at, resource.clone()));
        }
        if let State::Due(at) = state {
            self.due.insert((at, resource.clone()));
        }
        campaign.state = state;
    }
}

impl Campaign {
    fn new() -> Campaign {
        Campaign {
            state: State::Unregistered,
            registered: false,
            unclear: Vec::new(),
            won_at: Revision(0),
            minted_against: Revision(0),
            vacant_since: None,
            paused_until: None,
            other_seen: None,
        }
    }
}

impl Control {
    /// A new lease: whatever was led under the one before is over, and every candidacy is recorded anew.
    pub(super) fn session_began(&mut self) {
        self.end_all_terms(TermEnd::LeaseLost);
        for resource in self.writer.campaigns.keys().cloned().collect::<Vec<_>>() {
            self.writer.unregister(&resource);
            self.writer.to_register.insert(resource);
        }
        self.doors_session_began();
    }

    pub(super) fn session_ended(&mut self) {
        tracing::warn!("the session with the coordinator is gone; beginning a new one");
        self.end_all_terms(TermEnd::LeaseLost);
        for resource in self.writer.campaigns.keys().cloned().collect::<Vec<_>>() {
            self.writer.unregister(&resource);
        }
        self.writer.to_register.clear();
        self.doors_session_over();
    }

    /// Every stamped write compares the clock with this deadline itself; the workers only have to learn of it.
    pub(super) fn writer_renewed(&mut self, until: Moment) {
        self.writer.deadline = Some(until);
        self.writer.standing.deadline = (!self.writer.keep_on_loss).then_some(until);
        let deadline = self.writer.standing.deadline;
        if !self.writer.campaigns.is_empty() {
            self.tell_all(|| ToWorker::Deadline(deadline));
        }
    }

    fn end_all_terms(&mut self, why: TermEnd) {
        for resource in self.writer.standing.tenures.keys().cloned().collect::<Vec<_>>() {
            self.end_term(&resource, why);
        }
    }

    /// This process leads `resource` no longer. Nothing where it does not.
    pub(super) fn end_term(&mut self, resource: &Resource, why: TermEnd) -> Option<Term> {
        let tenure = self.writer.standing.end(resource)?;
        self.writer.dirty = true;
        tracing::info!(%resource, epoch = %tenure.term.epoch, why = why.as_str(), "own term over");
        self.say(Event::TermEnded { resource: resource.clone(), epoch: tenure.term.epoch, why });
        Some(tenure.term)
    }

    /// The workers learn of what has changed, at most once a round.
    pub(super) fn publish_standing(&mut self) {
        if std::mem::take(&mut self.writer.dirty) {
            let standing = Arc::new(self.writer.standing.clone());
            self.tell_all(|| ToWorker::Standing(Arc::clone(&standing)));
        }
    }
}
