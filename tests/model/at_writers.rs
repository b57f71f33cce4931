//! What may happen to writers and to the coordinator.

use epochgate::coordinator::keys;
use epochgate::coordinator::records::{Report, from_value, to_value};
use epochgate::coordinator::store::{Change, Committed, Keys, Range, Txn};
use epochgate::fence::{Epoch, Term};

use crate::candidate::{Candidacy, Writer};
use crate::rules::Rule;
use crate::setup::Setup;
use crate::step::Step;
use crate::steps::spend;
use crate::tale::Tale;
use crate::words::{TARGET, mallory, nonce, orders, told};
use crate::world::{World, writer_lease};

impl World {
    // ---- the coordinator ---------------------------------------------------------------------------------------------

    /// A lease that no process has any more runs out.
    pub fn old_lease_ends(&mut self, lease: i64) -> bool {
        let is_old = !self.owns(lease);
        if is_old {
            self.coordinator.end_lease(lease);
        }
        is_old
    }

    pub fn back_up(&mut self) -> bool {
        if self.left.restores == 0 || self.coordinator.is_backed_up() {
            return false;
        }
        self.coordinator.back_up();
        true
    }

    pub fn coordinator_is_another(&mut self) {
        self.late.iter_mut().for_each(|(.., of_before)| *of_before = true);
        for writer in self.writers.iter_mut().filter(|writer| writer.is_on_its_way()) {
            writer.edit(Writer::outlives_the_coordinator);
        }
    }

    pub fn forge_a_report(&mut self) {
        let key = keys::report(orders(), TARGET, "ghost");
        let report = Report {
            floor: Epoch::LAST,
            nonce: nonce(255),
            writer: mallory(),
            drained: None,
            forced: None,
            regressed: false,
        };
        let changes = vec![Change::Put { key, value: to_value(&report), lease: None }];
        let _ = self.coordinator.commit(&Txn { compares: Vec::new(), changes });
    }

    // ---- writers -----------------------------------------------------------------------------------------------------

    pub fn writer_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
        match step {
            Step::Campaign(writer) => self.campaign(setup, writer, tale),
            Step::Commit(writer) => self.commit(setup, writer, tale),
            Step::HearOfElection(writer) => {
                matches!(self.writers[writer].candidacy, Candidacy::Done(..)) && {
                    self.with_writer(writer, |writer, at| writer.hears_of_its_election(at, tale));
                    true
                }
            }
            Step::LoseAnswer(writer) => {
                let waits = matches!(self.writers[writer].candidacy, Candidacy::Done(..) | Candidacy::OnItsWay(..));
                waits && spend(&mut self.left.unclear) && {
                    let of_before = self.writers[writer].is_of_before;
                    let late = self.with_writer(writer, |writer, _| writer.hears_nothing());
                    self.late.extend(late.map(|(txn, term)| (txn, term, writer, of_before)));
                    true
                }
            }
            Step::CommitLate(at) => self.commit_late(at, tale),
            Step::Look(writer) => self.look(setup, step, writer, tale),
            Step::Resign(writer) => {
                matches!(self.writers[writer].candidacy, Candidacy::Resigning(_)) && {
                    self.with_writer(writer, |writer, coordinator| writer.resign(coordinator));
                    true
                }
            }
            Step::WriterLapses(writer) => {
                let lease = self.writers[writer].lease;
                let useful = self.writers[writer].has_something_to_lose() && self.coordinator.has_lease(lease);
                useful && spend(&mut self.left.writer_lapses) && {
                    self.with_writer(writer, |writer, _| writer.is_late = true);
                    self.coordinator.end_lease(lease);
                    true
                }
            }
            // Only where a restored coordinator has a lease again that was gone.
            Step::WriterRenews(writer) => {
                let it = &self.writers[writer];
                it.is_late && self.coordinator.has_lease(it.lease) && {
                    self.with_writer(writer, |writer, _| writer.is_late = false);
                    true
                }
            }
            Step::WriterSession(writer) => {
                // Without a term to win, a new session is no more than the end of the old one.
                let useful = self.minted.len() < setup.terms;
                useful && !self.coordinator.has_lease(self.writers[writer].lease) && {
                    let lease = self.fresh_lease(writer_lease(writer, 0));
                    self.with_writer(writer, |writer, coordinator| writer.begin_session(coordinator, lease));
                    true
                }
            }
            _ => false,
        }
    }

    /// Writers are alike: the first term is sought by the first.
    fn campaign(&mut self, setup: &Setup, writer: usize, tale: &mut Tale) -> bool {
        let out_of_turn = self.minted.is_empty() && (0..writer).any(|before| !self.writers[before].has_begun());
        let full =
            self.minted.len() + self.late.len() + self.writers.iter().filter(|writer| writer.is_on_its_way()).count()
                >= setup.terms;
        if full || out_of_turn || !self.writers[writer].may_campaign() {
            return false;
        }
        let nonce = self.fresh_nonce();
        self.with_writer(writer, |writer, coordinator| writer.campaign(coordinator, nonce, tale));
        if !setup.fine {
            self.commit(setup, writer, tale);
        }
        true
    }

    fn commit(&mut self, setup: &Setup, writer: usize, tale: &mut Tale) -> bool {
        if !self.writers[writer].is_on_its_way() {
            return false;
        }
        let reported = self.reported_floors();
        let of_before = self.writers[writer].is_of_before;
        let minted = self.with_writer(writer, |writer, coordinator| writer.commit(coordinator, tale));
        if let Some(term) = minted {
            self.is_minted(term, writer, &reported, of_before);
            if !setup.fine {
                self.with_writer(writer, |writer, at| writer.hears_of_its_election(at, tale));
            }
        }
        true
    }

    /// A transaction whose writer waits for it no longer reaches the coordinator.
    fn commit_late(&mut self, at: usize, tale: &mut Tale) -> bool {
        let (txn, term, writer, of_before) = self.late.remove(at);
        let reported = self.reported_floors();
        if let Ok(Committed::Done(_)) = self.coordinator.commit(&txn) {
            tale.add(|| format!("the term {} is minted", told(&term)));
            self.is_minted(term, writer, &reported, of_before);
        }
        true
    }

    /// R3: a term's epoch is new, as far as the coordinator has not forgotten; and it is above what doors have recorded,
    /// unless it was decided on `of_before`: what its transaction compares are revisions, and a restored coordinator has
    /// them a second time. (Then the term's nonce tells it from the other, and its leader gives up.)
    fn is_minted(&mut self, term: Term, by: usize, reported: &[Epoch], of_before: bool) {
        let again = self.minted.iter().any(|(minted, _)| minted.epoch == term.epoch);
        if (again && !self.coordinator.has_forgotten)
            || (!of_before && reported.iter().any(|floor| *floor >= term.epoch))
        {
            self.breaks(Rule::OneWriter);
        }
        self.minted.push((term, by));
    }

    /// The floors that doors have on record, but for those that nobody believes.
    fn reported_floors(&self) -> Vec<Epoch> {
        let read = self.coordinator.read(&[Range::all(Keys::Under(keys::reports(orders())))]);
        let reports = read.ranges.iter().flatten().filter_map(|entry| from_value::<Report>(&entry.value));
        reports.map(|report| report.floor).filter(|floor| *floor < Epoch::LAST).collect()
    }

    fn look(&mut self, setup: &Setup, step: Step, writer: usize, tale: &mut Tale) -> bool {
        // Where views are no part of the state, a writer that leads nothing has nothing to learn: a campaign reads.
        let it = &self.writers[writer];
        let blind = it.term().is_none() && it.unclear.is_empty();
        let heeds = setup.heeds_reports() && (!blind || setup.may_go_back());
        let curious = setup.views || heeds || it.has_no_use_for_itself();
        curious && {
            self.with_writer_again(writer, step, tale, |writer, coordinator, tale| writer.read(coordinator, tale));
            true
        }
    }
}
