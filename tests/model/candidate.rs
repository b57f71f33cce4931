//! One writer's stamping sidecar: how it comes to lead, and how it hears that it does no longer, as
//! `src/control/{writer,candidacy,elections,leaderships}.rs` do it. That it would lead is on record from the start.

use std::collections::BTreeSet;

use epochgate::coordinator::agreement::{Proof, prove};
use epochgate::coordinator::doors as records;
use epochgate::coordinator::election::{Campaigned, Candidate, Plan, plan, ranges};
use epochgate::coordinator::keys::{self, DoorName, Key};
use epochgate::coordinator::observer::View;
use epochgate::coordinator::records::{EpochRecord, LeaderRecord, Report, from_value};
use epochgate::coordinator::store::{Change, Committed, Compare, Keys, LeaseId, Range, Revision, StoreError, Txn};
use epochgate::fence::mechanism::{Mechanism, Mechanisms};
use epochgate::fence::tenure::{Armed, Leader, Standing};
use epochgate::fence::{Moment, Nonce, Term, WriterId};

use crate::coordinator::Coordinator;
use crate::part::Part;
use crate::tale::Tale;
use crate::words::{NOW, orders, told};

/// What a writer's observer reads.
const READS: [&str; 4] = [keys::EPOCHS, keys::LEADERS, keys::DOORS, "reports/"];

/// The end of every session, by its writer's clock.
const DEADLINE: Moment = Moment::from_nanos(100);

/// How far its candidacy is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Candidacy {
    /// It is to be elected.
    Due,
    /// Its transaction is on its way; the term that it makes, and the revision that it was decided on.
    OnItsWay(Txn, Term, Revision),
    /// The transaction was done at this revision, and it has not heard of it.
    Done(Term, Revision, Revision),
    /// Somebody leads.
    Waiting,
    /// It deletes the leader key of this term.
    Resigning(Term),
}

/// A writer's process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    pub number: usize,
    pub id: WriterId,
    pub standing: Standing,
    pub candidacy: Candidacy,
    /// Terms whose transactions had no clear answer.
    pub unclear: Vec<Term>,
    won_at: Revision,
    minted_against: Revision,
    doors_known: Revision,
    pub view: Part<View>,
    pub lease: i64,
    /// Whether what is on its way was decided on before the coordinator was wiped or restored.
    pub is_of_before: bool,
    /// Whether its deadline has passed by its own clock.
    pub is_late: bool,
    /// Whether its view is part of the state; else each reading counts as all new.
    keeps_view: bool,
}

impl Writer {
    /// A process that has a lease and leads nothing.
    pub fn new(number: usize, id: WriterId, lease: i64, mechanisms: Mechanisms, keeps_view: bool) -> Writer {
        let mut standing = Standing::new(mechanisms);
        standing.deadline = Some(DEADLINE);
        Writer {
            number,
            id,
            standing,
            candidacy: Candidacy::Due,
            unclear: Vec::new(),
            won_at: Revision(0),
            minted_against: Revision(0),
            doors_known: Revision(0),
            view: Part::new(View::default()),
            lease,
            is_of_before: false,
            is_late: false,
            keeps_view,
        }
    }

    /// What its clock says.
    pub fn clock(&self) -> Moment {
        if self.is_late { DEADLINE } else { NOW }
    }

    /// The term that it holds.
    pub fn term(&self) -> Option<&Term> {
        self.standing.tenure(orders()).map(|tenure| &tenure.term)
    }

    fn keeps(&self, mechanism: Mechanism) -> bool {
        self.standing.mechanisms.keeps(mechanism)
    }

    // ---- elections ---------------------------------------------------------------------------------------------------

    /// Reads, and decides on a term to be elected for.
    pub fn campaign(&mut self, coordinator: &Coordinator, nonce: Nonce, tale: &mut Tale) {
        if self.keeps_view && self.view.get(&keys::leader(orders())).is_some() {
            self.candidacy = Candidacy::Waiting;
            return self.disown();
        }
        let read = coordinator.read(&ranges(orders()));
        let candidate =
            Candidate { writer: self.id.clone(), address: None, lease: LeaseId(self.lease), deposes: false };
        let minted = jiff::Timestamp::UNIX_EPOCH;
        match plan(orders(), &read, &candidate, nonce, minted, self.standing.mechanisms) {
            Plan::Commit(commit) => {
                let (txn, term) = *commit;
                self.is_of_before = false;
                tale.add(|| format!("it would be {}", told(&term)));
                self.candidacy = Candidacy::OnItsWay(txn, term, read.revision);
            }
            Plan::Ended(Campaigned::Taken(leader)) => self.note_leader(Some(leader)),
            Plan::Ended(_) => {}
        }
    }

    /// Its transaction reaches the coordinator. Returns the term where it is made.
    pub fn commit(&mut self, coordinator: &mut Coordinator, tale: &mut Tale) -> Option<Term> {
        let Candidacy::OnItsWay(txn, term, read) = &self.candidacy else { return None };
        match coordinator.commit(txn) {
            Ok(Committed::Done(at)) => {
                let term = term.clone();
                tale.add(|| format!("the term {} is minted", told(&term)));
                self.candidacy = Candidacy::Done(term.clone(), *read, at);
                Some(term)
            }
            Ok(Committed::Refused(_)) | Err(StoreError::LeaseGone) => {
                tale.add(|| "it is refused: something has changed".to_owned());
                self.candidacy = Candidacy::Due;
                None
            }
            Err(error) => unreachable!("the store takes it or refuses it: {error}"),
        }
    }

    /// It hears that its transaction was done.
    pub fn hears_of_its_election(&mut self, coordinator: &Coordinator, tale: &mut Tale) {
        if let Candidacy::Done(term, minted_against, at) = self.candidacy.clone() {
            self.won(term, minted_against, at, coordinator, tale);
        }
    }

    /// It gets no answer to its transaction: whether it was done, it has to find out. Returns the transaction, where that
    /// may still arrive, and the term that it makes.
    pub fn hears_nothing(&mut self) -> Option<(Txn, Term)> {
        let (term, txn) = match std::mem::replace(&mut self.candidacy, Candidacy::Due) {
            Candidacy::OnItsWay(txn, term, _) => (term.clone(), Some((txn, term))),
            Candidacy::Done(term, ..) => (term, None),
            other => {
                self.candidacy = other;
                return None;
            }
        };
        self.unclear.push(term);
        txn
    }

    fn won(&mut self, term: Term, minted_against: Revision, at: Revision, coordinator: &Coordinator, tale: &mut Tale) {
        self.candidacy = Candidacy::Waiting;
        self.unclear.clear();
        self.won_at = at;
        self.minted_against = minted_against;
        tale.add(|| format!("{} leads {}", self.id, told(&term)));
        self.standing.leaders.insert(orders().clone(), Leader { term: term.clone(), address: None, held: false });
        self.standing.begin(orders().clone(), term);
        if self.keeps_view {
            if self.view.revision >= at {
                self.check_epoch(tale);
                self.check_floors(tale);
            }
            self.try_to_arm(tale);
        } else {
            // Its view is not part of the state: the reading that it asks for now is what it goes by.
            self.read(coordinator, tale);
        }
    }

    // ---- readings ----------------------------------------------------------------------------------------------------

    /// A linearizable reading of everything that it observes.
    pub fn read(&mut self, coordinator: &Coordinator, tale: &mut Tale) {
        let reading = coordinator.reading(&READS);
        let revision = reading.revision;
        let mut view = if self.keeps_view { (*self.view).clone() } else { View::default() };
        let went_back = revision < view.revision;
        let mut changed = view.take(reading);
        self.view = Part::new(view);
        if self.keeps_view {
            self.leaders_to_check(went_back, &mut changed);
        } else {
            if coordinator.has_forgotten {
                self.won_at = Revision(0);
            }
            changed.extend([keys::leader(orders()), keys::epoch(orders())]);
        }
        self.observe_leaderships(&changed, revision, coordinator, tale);
        if !self.keeps_view {
            self.view = Part::new(View::default());
        }
    }

    fn leaders_to_check(&mut self, back: bool, changed: &mut BTreeSet<String>) {
        if back {
            self.won_at = Revision(0);
        }
        let gone = self.term().is_some() && self.view.get(&keys::leader(orders())).is_none();
        if gone || !self.unclear.is_empty() {
            changed.insert(keys::leader(orders()));
        }
    }

    fn observe_leaderships(&mut self, changed: &BTreeSet<String>, doors: Revision, at: &Coordinator, tale: &mut Tale) {
        self.doors_known = doors;
        for key in changed {
            match keys::parse(key) {
                Some(Key::Leader(_)) => self.leader_changed(at, tale),
                Some(Key::Epoch(_)) => self.check_epoch(tale),
                Some(Key::Report(..)) => self.check_floors(tale),
                _ => {}
            }
        }
        if self.standing.tenure(orders()).is_some_and(|tenure| tenure.armed == Armed::No) {
            self.check_floors(tale);
        }
        self.try_to_arm(tale);
    }

    fn leader_changed(&mut self, coordinator: &Coordinator, tale: &mut Tale) {
        let leader = self.view.record::<LeaderRecord>(&keys::leader(orders()));
        self.note_leader(leader.clone());
        let says_something = self.view.revision >= self.won_at;
        match (self.term().cloned(), leader) {
            (Some(held), leader) if leader.as_ref().map(|leader| &leader.term) != Some(&held) && says_something => {
                tale.add(|| format!("{} no longer leads {}", self.id, told(&held)));
                self.standing.end(orders());
                self.seek();
            }
            (None, Some(leader)) if self.unclear.contains(&leader.term) || self.adopts(&leader.term) => {
                let entry = self.view.get(&keys::leader(orders())).map_or(Revision(0), |entry| entry.modified);
                let record = self.view.record::<EpochRecord>(&keys::epoch(orders()));
                let against = record.filter(|record| record.term == leader.term).map(|record| record.doors);
                // Here it is in the middle of a reading: what `won` would read is at hand.
                let keeps_view = std::mem::replace(&mut self.keeps_view, true);
                self.won(leader.term, against.unwrap_or(entry), entry, coordinator, tale);
                self.keeps_view = keeps_view;
            }
            _ => self.seek(),
        }
        self.disown();
    }

    /// A leader key that goes with this process's lease, of a term that it does not hold, nobody else would ever delete.
    fn disown(&mut self) {
        let Some(entry) = self.view.get(&keys::leader(orders())) else { return };
        let is_idle = matches!(self.candidacy, Candidacy::Due | Candidacy::Waiting) && self.unclear.is_empty();
        if entry.lease != Some(LeaseId(self.lease)) || self.term().is_some() || !is_idle {
            return;
        }
        if let Some(leader) = from_value::<LeaderRecord>(&entry.value) {
            self.candidacy = Candidacy::Resigning(leader.term);
        }
    }

    fn adopts(&self, term: &Term) -> bool {
        !self.keeps(Mechanism::OwnNonce) && term.writer == self.id
    }

    fn note_leader(&mut self, leader: Option<LeaderRecord>) {
        match leader {
            None => self.standing.leaders.remove(orders()),
            Some(LeaderRecord { term, held, .. }) => {
                self.standing.leaders.insert(orders().clone(), Leader { term, address: None, held })
            }
        };
    }

    fn seek(&mut self) {
        if !matches!(self.candidacy, Candidacy::Due | Candidacy::Waiting) {
            return;
        }
        let vacant = self.view.get(&keys::leader(orders())).is_none() && self.term().is_none();
        self.candidacy = if vacant { Candidacy::Due } else { Candidacy::Waiting };
    }

    fn check_epoch(&mut self, tale: &mut Tale) {
        let Some(own) = self.term() else { return };
        let Some(record) = self.view.record::<EpochRecord>(&keys::epoch(orders())) else { return };
        if record.term != *own && record.term.epoch >= own.epoch {
            self.give_up(tale);
        }
    }

    fn check_floors(&mut self, tale: &mut Tale) {
        let Some(own) = self.term() else { return };
        let prefix = keys::reports(orders());
        let overtaken = self.view.under(&prefix).any(|entry| {
            from_value::<Report>(&entry.value).is_some_and(|report| {
                let above = report.floor > own.epoch || (report.floor == own.epoch && report.nonce != own.nonce);
                above || (report.regressed && report.term() != *own && entry.modified > self.minted_against)
            })
        });
        if overtaken {
            self.give_up(tale);
        }
    }

    fn give_up(&mut self, tale: &mut Tale) {
        if !self.keeps(Mechanism::GivingUp) {
            return;
        }
        if let Some(tenure) = self.standing.end(orders()) {
            tale.add(|| format!("{} gives {} up", self.id, told(&tenure.term)));
            self.candidacy = Candidacy::Resigning(tenure.term);
        }
    }

    /// Deletes the leader key of the term that it has given up.
    pub fn resign(&mut self, coordinator: &mut Coordinator) {
        let Candidacy::Resigning(term) = std::mem::replace(&mut self.candidacy, Candidacy::Waiting) else { return };
        let key = keys::leader(orders());
        let read = coordinator.read(&[Range::all(Keys::One(key.clone()))]);
        if let Some(entry) = read.ranges.first().and_then(|entries| entries.first())
            && from_value::<LeaderRecord>(&entry.value).is_some_and(|leader| leader.term == term)
        {
            let compares = vec![Compare::ModifiedAt(key.clone(), entry.modified)];
            let _ = coordinator.commit(&Txn { compares, changes: vec![Change::Delete(key)] });
        }
        self.seek();
    }

    fn try_to_arm(&mut self, tale: &mut Tale) {
        let Some(tenure) = self.standing.tenure(orders()).filter(|tenure| tenure.armed == Armed::No) else { return };
        if self.doors_known < self.minted_against {
            return;
        }
        let doors = records::among(self.view.under(keys::DOORS));
        let report = |door: &DoorName| self.view.record::<Report>(&keys::report(orders(), &door.target, &door.id));
        let forced = match prove((orders(), &tenure.term), &doors, report) {
            Proof::Missing(_) => return,
            Proof::Forced => true,
            Proof::Drained => false,
        };
        let epoch = tenure.term.epoch;
        if let Some(tenure) = self.standing.tenures.get_mut(orders()) {
            tenure.armed = if forced { Armed::Forced } else { Armed::Yes };
            tale.add(|| format!("{} is armed for {epoch}", self.id));
        }
    }

    // ---- the session -------------------------------------------------------------------------------------------------

    /// Its lease is gone, and it has a new one: whatever it led is over, and its candidacy is recorded anew.
    pub fn begin_session(&mut self, coordinator: &mut Coordinator, lease: i64) {
        self.standing.end(orders());
        self.unclear.clear();
        coordinator.grant(lease);
        self.lease = lease;
        self.is_late = false;
        // What is on its way went with the old lease, and its result is not looked at.
        self.candidacy = Candidacy::Due;
        if self.keeps_view {
            self.seek();
        }
    }
}

// What a step asks before it is taken, and what is done after it.
impl Writer {
    /// Whether the revisions that it remembers are part of the state.
    pub fn speaks_of_revisions(&self) -> bool {
        [self.won_at, self.minted_against, self.doors_known] != [Revision(0); 3]
    }

    /// Forgets them: where every reading is of the present, none is older than what it is compared with.
    pub fn forget_revisions(&mut self) {
        (self.won_at, self.minted_against, self.doors_known) = (Revision(0), Revision(0), Revision(0));
    }

    /// Whether it has sought a term, ever.
    pub fn has_begun(&self) -> bool {
        self.standing.version > 0 || self.candidacy != Candidacy::Due
    }

    /// Whether a lapse of its lease would make a difference.
    pub fn has_something_to_lose(&self) -> bool {
        self.term().is_some()
            || !self.unclear.is_empty()
            || !matches!(self.candidacy, Candidacy::Due | Candidacy::Waiting)
    }

    /// Whether its transaction is on its way.
    pub fn is_on_its_way(&self) -> bool {
        matches!(self.candidacy, Candidacy::OnItsWay(..))
    }

    /// The coordinator is not what it was: what is on its way was decided on another.
    pub fn outlives_the_coordinator(&mut self) {
        self.is_of_before |= self.is_on_its_way();
    }

    /// Whether it may seek a term now.
    pub fn may_campaign(&self) -> bool {
        let due = match self.candidacy {
            Candidacy::Due => true,
            // Where its view is no part of the state, what it waits for is not known.
            Candidacy::Waiting => !self.keeps_view,
            _ => false,
        };
        due && self.term().is_none()
    }

    /// Whether it would do what it should not with a term of another's, and so goes by what it reads.
    pub fn has_no_use_for_itself(&self) -> bool {
        !self.keeps(Mechanism::OwnTerm) || !self.keeps(Mechanism::OwnNonce)
    }

    /// Whether a term that it knows of is such.
    pub fn knows(&self, is: impl Fn(&Term) -> bool) -> bool {
        let pending = match &self.candidacy {
            Candidacy::OnItsWay(_, term, _) | Candidacy::Done(term, ..) | Candidacy::Resigning(term) => Some(term),
            _ => None,
        };
        pending.into_iter().chain(&self.unclear).any(is)
    }
}
