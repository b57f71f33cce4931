//! What readings say of leaders, epochs and floors: own terms that are over, given up, or armed (DESIGN 3.4, 3.7).

use std::collections::BTreeSet;

use super::Control;
use super::writer::State;
use crate::coordinator::agreement::{Proof, prove, without_the_gone};
use crate::coordinator::doors as records;
use crate::coordinator::keys::{self, DoorName, Key};
use crate::coordinator::records::{EpochRecord, LeaderRecord, Report, from_value};
use crate::coordinator::store::Revision;
use crate::event::{Event, TermEnd};
use crate::fence::mechanism::Mechanism;
use crate::fence::tenure::{Armed, Leader};
use crate::fence::{Resource, Term};

impl Control {
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
            // Also where no report has changed: a floor may have been read before the answer to the own election.
            self.check_floors(&resource);
            self.try_to_arm(&resource);
        }
    }

    /// The leader keys that matter though no reading showed them change: of a term whose commit had no answer, for it
    /// may have been seen before that was known; and, where a reading shows every leader (`whole`), of own terms whose
    /// keys are not there: put and gone between two readings, or lost by a coordinator that went `back`; and those that
    /// this process keeps alive without leading.
    pub(super) fn leaders_to_check(&mut self, whole: bool, back: bool) -> Vec<String> {
        if back {
            // Revisions from before say nothing of those from now on.
            self.writer.campaigns.values_mut().for_each(|campaign| campaign.won_at = Revision(0));
        }
        let unclear = self.writer.campaigns.iter().filter(|(_, campaign)| !campaign.unclear.is_empty());
        let mut check: Vec<String> = unclear.map(|(resource, _)| keys::leader(resource)).collect();
        if whole {
            let gone = self.writer.standing.tenures.keys().map(keys::leader).filter(|key| self.view.get(key).is_none());
            check.extend(gone);
        }
        let resources = self.writer.campaigns.keys();
        check.extend(resources.filter(|resource| self.kept_for_nothing(resource).is_some()).map(keys::leader));
        check
    }

    /// The term of a leader key that goes with this process's own lease, and that it does not lead: a coordinator that
    /// was restored shows one of the time of its backup. Nobody else could be elected for as long as the lease lives.
    fn kept_for_nothing(&self, resource: &Resource) -> Option<Term> {
        if self.writer.standing.tenure(resource).is_some() {
            return None;
        }
        let lease = self.connection.lease?.id;
        let entry = self.view.get(&keys::leader(resource)).filter(|entry| entry.lease == Some(lease))?;
        let term = from_value::<LeaderRecord>(&entry.value)?.term;
        let campaign = self.writer.campaigns.get(resource)?;
        // What is being won or given back is none yet, and none any more.
        let on_its_way = matches!(campaign.state, State::Running | State::Resigning)
            || campaign.unclear.contains(&term)
            || self.stop.is_giving_up(resource);
        (!on_its_way).then_some(term)
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
            (None, Some(leader)) if campaign.unclear.contains(&leader.term) || self.adopts(&leader.term) => {
                // This very process minted it; its commit had no answer and succeeded all the same.
                let entry = self.view.get(&keys::leader(resource)).map_or(Revision(0), |entry| entry.modified);
                let record = self.view.record::<EpochRecord>(&keys::epoch(resource));
                let against = record.filter(|record| record.term == leader.term).map(|record| record.doors);
                self.won(resource, leader.term, against.unwrap_or(entry), entry);
            }
            _ => self.seek(resource, self.clock.now()),
        }
        if let Some(term) = self.kept_for_nothing(resource) {
            tracing::warn!(%resource, epoch = %term.epoch, "the coordinator shows a term that this process has led and leads no more: giving its key back");
            self.resign_term(resource, term);
        }
    }

    /// What R2 forbids: to take a term for one's own because the id matches.
    fn adopts(&self, term: &Term) -> bool {
        !self.keeps(Mechanism::OwnNonce) && term.writer == self.writer.id
    }

    pub(super) fn note_leader(&mut self, resource: &Resource, leader: Option<LeaderRecord>) {
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
                nonce: leader.term.nonce,
                writer: leader.term.writer.clone(),
                own,
                took: None,
            });
        }
        let leader = Leader { term: leader.term, address: leader.address.map(Into::into), held: leader.held };
        self.writer.standing.leaders.insert(resource.clone(), leader);
    }

    /// An epoch record at or above the own epoch that is not the own term: this process was overtaken.
    pub(super) fn check_epoch(&mut self, resource: &Resource) {
        let Some(tenure) = self.writer.standing.tenure(resource) else { return };
        let Some(record) = self.view.record::<EpochRecord>(&keys::epoch(resource)) else { return };
        if record.term != tenure.term && record.term.epoch >= tenure.term.epoch {
            self.give_up(resource);
        }
    }

    /// The same of a door's floor; also a door that says it does not believe whoever was elected before its report.
    pub(super) fn check_floors(&mut self, resource: &Resource) {
        let Some(tenure) = self.writer.standing.tenure(resource) else { return };
        let Some(campaign) = self.writer.campaigns.get(resource) else { return };
        let (own, minted_against) = (tenure.term.clone(), campaign.minted_against);
        let prefix = keys::reports(resource);
        let overtaken = self.view.under(&prefix).any(|entry| {
            from_value::<Report>(&entry.value)
                .is_some_and(|report| report.rules_out(&own, entry.modified, minted_against))
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

    /// A term is armed when a door of its resource is alive, and every recorded enforcing door has drained it, or is gone
    /// and has been waited out. It stays armed until it ends.
    pub(super) fn try_to_arm(&mut self, resource: &Resource) {
        if self.writer.standing.tenure(resource).is_none_or(|tenure| tenure.armed != Armed::No) {
            return;
        }
        let Some(campaign) = self.writer.campaigns.get(resource) else { return };
        if self.writer.doors_known < campaign.minted_against {
            return;
        }
        if !records::unreadable_of(resource, self.view.under(keys::DOORS)).is_empty() {
            return;
        }
        let (doors, now) = (records::among(self.view.under(keys::DOORS)), self.clock.now());
        let doors = without_the_gone(doors, self.patience(), &mut self.writer.sightings, now);
        let Some(tenure) = self.writer.standing.tenure(resource) else { return };
        let report = |door: &DoorName| self.view.record::<Report>(&keys::report(resource, &door.target, &door.id));
        let forced = match prove((resource, &tenure.term), &doors, report) {
            Proof::Missing(_) => return,
            Proof::Forced => true,
            Proof::Drained => false,
        };
        let epoch = tenure.term.epoch;
        let armed = if forced { Armed::Forced } else { Armed::Yes };
        if let Some(tenure) = self.writer.standing.tenures.get_mut(resource) {
            tenure.armed = armed;
            self.writer.dirty = true;
            tracing::info!(%resource, %epoch, forced, "armed");
            self.say(Event::Armed { resource: resource.clone(), epoch, forced });
        }
    }
}
