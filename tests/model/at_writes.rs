//! What may happen to writes.

use epochgate::fence::Epoch;
use epochgate::fence::gate::End;

use crate::guard::Joining;
use crate::setup::Setup;
use crate::step::Step;
use crate::steps::spend;
use crate::tale::Tale;
use crate::words::nonce;
use crate::world::World;
use crate::write::{By, Sent, Stage, Stamped, Write};

impl World {
    pub fn write_does(&mut self, setup: &Setup, step: Step, tale: &mut Tale) -> bool {
        let room = self.writes.len() < setup.writes;
        match step {
            Step::Write(writer) => !setup.pools && room && self.write_at_once(writer, tale),
            Step::Queue(writer) => {
                room && {
                    let held = self.writers[writer].term().map(|term| term.epoch);
                    self.writes.push(Write { stamp: None, stage: Stage::Queued { writer, held } });
                    true
                }
            }
            Step::Accept(writer) => {
                let version = self.writers[writer].standing.version;
                self.accept(writer, version);
                true
            }
            Step::Expect(writer) => room && self.expects(writer),
            Step::Stamp(at) => self.stamp_waiting(at, tale),
            Step::ForgeEpoch => {
                spend(&mut self.left.forged_epochs) && {
                    self.forge(Epoch::LAST);
                    true
                }
            }
            Step::ForgeNonce => {
                let Some((term, _)) = self.minted.last().cloned() else { return false };
                spend(&mut self.left.forged_nonces) && {
                    self.forge(term.epoch);
                    true
                }
            }
            Step::Duplicate(at) => {
                matches!(self.writes[at].stage, Stage::OnItsWay { twice: false })
                    && spend(&mut self.left.duplicates)
                    && {
                        self.writes[at].stage = Stage::OnItsWay { twice: true };
                        true
                    }
            }
            Step::Arrive(at, door, worker) => self.comes_to(at, door, worker, tale),
            Step::Send(at) => {
                self.send(at, tale);
                true
            }
            Step::Apply(at) => {
                self.apply(at, tale);
                true
            }
            Step::Answer(at) => self.ends(at, End::Answered, tale),
            Step::Lose(at) => self.ends(at, World::given_up(), tale),
            Step::Vanish(at) => {
                self.writes.remove(at);
                true
            }
            _ => false,
        }
    }

    fn ends(&mut self, at: usize, end: End, tale: &mut Tale) -> bool {
        match self.writes[at].stage {
            Stage::Applied { door, worker } | Stage::Sent { door, as_: Sent::Running(worker), .. } => {
                self.settle(at, door, worker, end, tale);
                true
            }
            _ => false,
        }
    }

    /// Workers are alike: a write comes to the first of those that are the same.
    fn comes_to(&mut self, at: usize, door: usize, worker: usize, tale: &mut Tale) -> bool {
        let Some(guard) = self.guard(door) else { return false };
        let leaving = matches!(guard.joining, Joining::Leaving { .. });
        let twin = guard.workers[..worker].contains(&guard.workers[worker]);
        !leaving && !twin && self.arrive(at, door, worker, tale)
    }

    /// A service's work belongs to the term that its sidecar held when it began, and it says so on a new connection.
    fn expects(&mut self, writer: usize) -> bool {
        let mine = self.minted.iter().filter(|(_, by)| *by == writer).map(|(term, _)| term.epoch).min();
        let Some(expected) = mine else { return false };
        let bound_to = self.writers[writer].standing.version;
        let held = self.writers[writer].term().map(|term| term.epoch);
        let stage = Stage::Pooled { writer, bound_to, held, expected: Some(expected) };
        self.writes.push(Write { stamp: None, stage });
        true
    }

    fn forge(&mut self, epoch: Epoch) {
        let stamp = Stamped { epoch, nonce: Some(nonce(255)), by: By::Mallory };
        self.writes.push(Write { stamp: Some(stamp), stage: Stage::OnItsWay { twice: false } });
    }
}
