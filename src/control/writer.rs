//! Candidacies, own terms, arming, giving up (DESIGN 3.4 and 3.7): the writer's side of control.
//!
//! The standing that the workers stamp by is kept here and published whole whenever a term of it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Control, Internal};
use crate::clock::Entropy;
use crate::config::Config;
use crate::config::resolved::Role;
use crate::coordinator::doors as records;
use crate::coordinator::election::{Campaigned, Candidate, Tools, campaign, resign};
use crate::coordinator::keys::{self, Key};
use crate::coordinator::records::{CandidateRecord, EpochRecord, LeaderRecord, Report, from_value, to_value};
use crate::coordinator::store::{Change, Committed, Compare, Keys, Lease, Revision, StoreError, Txn};
use crate::event::{Event, TermEnd};
use crate::fence::mechanism::{Mechanism, Mechanisms};
use crate::fence::tenure::{Armed, Leader, Standing};
use crate::fence::{Moment, Nonce, Resource, Term, WriterId};
use crate::mailbox::ToWorker;

/// So many elections run at once: enough to hide the round trips of a thousand resources, few enough for any etcd.
const ELECTIONS_AT_ONCE: usize = 32;
/// So many candidacies go into one commit: etcd limits a transaction to 128 operations.
const IN_ONE_COMMIT: usize = 50;
/// How long to wait after an attempt that could not be decided.
const RETRY: Duration = Duration::from_millis(250);
/// How long to wait where only an operator can help.
const OPERATOR_RETRY: Duration = Duration::from_secs(5);

/// The writer's side of the process.
pub struct Writer {
    id: WriterId,
    process: Nonce,
    address: Option<String>,
    keep_on_loss: bool,
    pub(super) campaigns: BTreeMap<Resource, Campaign>,
    pub(super) standing: Standing,
    dirty: bool,
    pub(super) deadline: Option<Moment>,
    elections: Arc<Semaphore>,
    due: BTreeSet<(Moment, Resource)>,
    to_register: BTreeSet<Resource>,
    /// The doors are known completely as of this revision.
    doors_known: Revision,
}

/// One resource that this process would lead.
pub struct Campaign {
    state: State,
    /// Terms whose commit had no clear answer: one that shows up as the leader was won.
    unclear: Vec<Term>,
    /// The revision at which the present term was won: what an older reading says of the leader says nothing of it.
    won_at: Revision,
    /// The revision of the doors that the present term was minted against.
    minted_against: Revision,
    vacant_since: Option<Moment>,
    /// Not before then, unless another has led meanwhile.
    pub(super) paused_until: Option<Moment>,
    /// Another process with this writer's id was first seen then.
    other_seen: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
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
        }
    }

    pub(super) fn wakes_at(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    fn set(&mut self, resource: &Resource, state: State) {
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
    // ---- the session -------------------------------------------------------------------------------------------

    /// A new lease: whatever was led under the one before is over, and every candidacy is recorded anew.
    pub(super) fn session_began(&mut self) {
        self.end_all_terms(TermEnd::LeaseLost);
        for resource in self.writer.campaigns.keys().cloned().collect::<Vec<_>>() {
            self.writer.set(&resource, State::Unregistered);
            self.writer.to_register.insert(resource);
        }
        self.doors_session_began();
    }

    pub(super) fn session_ended(&mut self) {
        tracing::warn!("the session with the coordinator is gone; beginning a new one");
        self.end_all_terms(TermEnd::LeaseLost);
        for resource in self.writer.campaigns.keys().cloned().collect::<Vec<_>>() {
            self.writer.set(&resource, State::Unregistered);
        }
        self.writer.to_register.clear();
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

    // ---- candidacies -------------------------------------------------------------------------------------------

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
    fn register(&mut self, lease: Lease, now: Moment) {
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
                    self.wait_for_other(resource, now);
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

    /// A candidacy of the same id that outlives two leases is renewed by somebody: two processes have one id.
    fn wait_for_other(&mut self, resource: &Resource, now: Moment) {
        let Some(campaign) = self.writer.campaigns.get_mut(resource) else { return };
        if campaign.other_seen.is_none() {
            tracing::warn!(%resource, id = %self.writer.id, "another process had this writer id: waiting for its lease to lapse");
        }
        let since = *campaign.other_seen.get_or_insert(now);
        if now.since(since) > self.config.coordinator.lease_ttl * 2 {
            self.stop.end(super::Ended::DuplicateWriter { resource: resource.clone() });
        }
        self.writer.set(resource, State::Due(now.plus(RETRY)));
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
                self.seek(&resource, now);
            } else {
                // Refused: a candidacy changed under it. The next reading says how it stands.
                self.look(vec![Keys::Under(keys::candidates(&resource))]);
                self.writer.set(&resource, State::Due(now.plus(RETRY)));
            }
        }
    }

    /// Tries to win a resource that nobody leads, as soon as it may.
    fn seek(&mut self, resource: &Resource, now: Moment) {
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

    // ---- elections ---------------------------------------------------------------------------------------------

    fn run_campaign(&mut self, resource: Resource, lease: Lease) {
        let unregistered = self.writer.campaigns.get(&resource).is_some_and(|campaign| campaign.other_seen.is_some());
        let own = self.view.record::<CandidateRecord>(&keys::candidate(&resource, &self.writer.id));
        if unregistered || own.is_some_and(|own| own.process != self.writer.process) {
            self.writer.set(&resource, State::Unregistered);
            self.writer.to_register.insert(resource);
            let now = self.clock.now();
            return self.register(lease, now);
        }
        self.writer.set(&resource, State::Running);
        let tools = Tools {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            mechanisms: self.mechanisms,
        };
        let candidate =
            Candidate { writer: self.writer.id.clone(), address: self.writer.address.clone(), lease: lease.id };
        let elections = Arc::clone(&self.writer.elections);
        self.beside(async move {
            let _place = elections.acquire().await;
            let result = campaign(&tools, &resource, &candidate).await;
            Internal::Campaigned { resource, result }
        });
    }

    pub(super) fn campaigned(&mut self, resource: &Resource, result: Result<Campaigned, StoreError>) {
        let now = self.clock.now();
        match result {
            Ok(Campaigned::Won(won)) => {
                self.coordinator_answered();
                self.won(resource, won.term, won.doors, won.at);
            }
            Ok(Campaigned::Taken(leader)) => {
                self.note_leader(resource, Some(leader));
                self.writer.set(resource, State::Waiting);
                // The key may be gone by now, and the watch's word of it may have come before this answer.
                self.look(vec![Keys::One(keys::leader(resource))]);
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
                    "no election: a door's floor is more than 1000000 above the epoch. A restored coordinator and a \
                     forged report look alike here: look at the door, then use `epochgate rebase`"
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

    fn won(&mut self, resource: &Resource, term: Term, minted_against: Revision, at: Revision) {
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
        let leader = Leader { term: term.clone(), address: self.writer.address.as_deref().map(Into::into) };
        self.writer.standing.leaders.insert(resource.clone(), leader);
        self.say(Event::Elected {
            resource: resource.clone(),
            epoch: term.epoch,
            writer: term.writer.clone(),
            own: true,
            took,
        });
        self.writer.standing.begin(resource.clone(), term);
        self.writer.dirty = true;
        self.look(vec![Keys::Under(keys::DOORS.to_owned()), Keys::Under(keys::reports(resource))]);
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
        self.key_given_back(resource);
    }

    // ---- what readings say --------------------------------------------------------------------------------------

    /// What a reading says of leaders, doors and reports. `doors` is its revision where it covers every door.
    pub(super) fn observe_leaderships(&mut self, changed: &BTreeSet<String>, doors: Option<Revision>) {
        if let Some(revision) = doors {
            self.writer.doors_known = revision;
        }
        let mut doors_changed = doors.is_some();
        let mut to_arm = BTreeSet::new();
        for key in changed {
            match keys::parse(key) {
                Some(Key::Leader(resource)) => self.leader_changed(&resource),
                Some(Key::Epoch(resource)) => self.check_epoch(&resource),
                Some(Key::Report(resource, _)) => {
                    self.check_floors(&resource);
                    to_arm.insert(resource);
                }
                Some(Key::Door(_) | Key::Alive(_)) => doors_changed = true,
                Some(Key::Candidate(..)) | None => {}
            }
        }
        if doors_changed {
            let unarmed = self.writer.standing.tenures.iter().filter(|(_, tenure)| tenure.armed == Armed::No);
            to_arm.extend(unarmed.map(|(resource, _)| resource.clone()));
        }
        for resource in to_arm {
            self.try_to_arm(&resource);
        }
    }

    fn leader_changed(&mut self, resource: &Resource) {
        let leader = self.view.record::<LeaderRecord>(&keys::leader(resource));
        self.note_leader(resource, leader.clone());
        let Some(campaign) = self.writer.campaigns.get(resource) else { return };
        let says_something = self.view.revision >= campaign.won_at;
        let held = self.writer.standing.tenure(resource).map(|tenure| tenure.term.clone());
        match (held, leader) {
            (Some(held), leader) if leader.as_ref().map(|leader| &leader.term) != Some(&held) && says_something => {
                self.end_term(resource, TermEnd::LeaseLost);
                self.seek(resource, self.clock.now());
            }
            (None, Some(leader)) if campaign.unclear.contains(&leader.term) => {
                // This very process minted it; its commit had no answer and succeeded all the same.
                let entry = self.view.get(&keys::leader(resource)).map_or(Revision(0), |entry| entry.modified);
                let record = self.view.record::<EpochRecord>(&keys::epoch(resource));
                let against = record.filter(|record| record.term == leader.term).map(|record| record.doors);
                self.won(resource, leader.term, against.unwrap_or(entry), entry);
            }
            _ => self.seek(resource, self.clock.now()),
        }
    }

    fn note_leader(&mut self, resource: &Resource, leader: Option<LeaderRecord>) {
        let known = self.writer.standing.leaders.get(resource).map(|leader| leader.term.clone());
        if known == leader.as_ref().map(|leader| leader.term.clone()) {
            return;
        }
        self.writer.dirty = true;
        let Some(leader) = leader else {
            self.writer.standing.leaders.remove(resource);
            return;
        };
        let own = leader.term.writer == self.writer.id;
        if !own {
            if let Some(campaign) = self.writer.campaigns.get_mut(resource) {
                campaign.paused_until = None;
                campaign.vacant_since = None;
            }
            self.say(Event::Elected {
                resource: resource.clone(),
                epoch: leader.term.epoch,
                writer: leader.term.writer.clone(),
                own,
                took: None,
            });
        }
        let leader = Leader { term: leader.term, address: leader.address.map(Into::into) };
        self.writer.standing.leaders.insert(resource.clone(), leader);
    }

    /// An epoch record at or above the own epoch that is not the own term: this process was overtaken.
    fn check_epoch(&mut self, resource: &Resource) {
        let Some(tenure) = self.writer.standing.tenure(resource) else { return };
        let Some(record) = self.view.record::<EpochRecord>(&keys::epoch(resource)) else { return };
        if record.term != tenure.term && record.term.epoch >= tenure.term.epoch {
            self.give_up(resource);
        }
    }

    /// The same of a door's floor; also a door that says it does not believe whoever was elected before its report.
    fn check_floors(&mut self, resource: &Resource) {
        let Some(tenure) = self.writer.standing.tenure(resource) else { return };
        let Some(campaign) = self.writer.campaigns.get(resource) else { return };
        let (own, minted_against) = (tenure.term.clone(), campaign.minted_against);
        let prefix = keys::reports(resource);
        let overtaken = self.view.under(&prefix).any(|entry| {
            from_value::<Report>(&entry.value).is_some_and(|report| {
                let above = report.floor > own.epoch || (report.floor == own.epoch && report.nonce != own.nonce);
                above || (report.regressed && report.term() != own && entry.modified > minted_against)
            })
        });
        if overtaken {
            self.give_up(resource);
        }
    }

    fn give_up(&mut self, resource: &Resource) {
        if !self.keeps(Mechanism::GivingUp) {
            return;
        }
        tracing::warn!(%resource, "a door or the epoch record is at or above the own epoch, under another term: giving up and campaigning again");
        if let Some(term) = self.end_term(resource, TermEnd::Overtaken) {
            self.resign_term(resource, term);
        }
    }

    // ---- arming ------------------------------------------------------------------------------------------------

    /// A term is armed when a door of its resource is alive, and every recorded enforcing door has drained it. It
    /// stays armed until it ends.
    fn try_to_arm(&mut self, resource: &Resource) {
        let Some(tenure) = self.writer.standing.tenure(resource).filter(|tenure| tenure.armed == Armed::No) else {
            return;
        };
        let Some(campaign) = self.writer.campaigns.get(resource) else { return };
        if self.writer.doors_known < campaign.minted_against {
            return;
        }
        let (epoch, mut forced, mut alive) = (tenure.term.epoch, false, false);
        for door in records::among(self.view.under(keys::DOORS)) {
            alive |= door.alive && door.record.serves(resource);
            if !door.record.counts_for(resource) {
                continue;
            }
            let key = keys::report(resource, &door.name.target, &door.name.id);
            match self.view.record::<Report>(&key) {
                Some(report) if report.drained == Some(epoch) => {}
                Some(report) if report.forced == Some(epoch) => forced = true,
                _ => return,
            }
        }
        if !alive {
            return;
        }
        let armed = if forced { Armed::Forced } else { Armed::Yes };
        if let Some(tenure) = self.writer.standing.tenures.get_mut(resource) {
            tenure.armed = armed;
            self.writer.dirty = true;
            tracing::info!(%resource, %epoch, forced, "armed");
            self.say(Event::Armed { resource: resource.clone(), epoch, forced });
        }
    }
}
