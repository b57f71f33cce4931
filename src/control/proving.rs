//! Proofs of the target: what control asks through a guard's own connection to it (DESIGN 3.2, 3.3).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Control, Internal};
use crate::fence::Epoch;
use crate::fence::handoff::{Event, Phase};
use crate::mailbox::{GateId, Renewal};
use crate::net::dial::ClientSlot;
use crate::target::{Proof, Prover};
use crate::tls::ClientSide;

/// A proof that could not be had is asked for again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// Makes a listener's prover on control's own thread; in the slot is what TLS sessions with its target are made with.
pub type MakeProver = Box<dyn FnOnce(ClientSlot) -> Rc<dyn Prover> + Send>;

/// A listener's prover to be.
pub struct ProverSetup {
    /// Whose it is.
    pub listener: Arc<str>,
    /// What TLS sessions with the target are made with, where they are.
    pub tls: Option<Arc<ClientSide>>,
    /// Makes it.
    pub make: MakeProver,
}

/// The provers, by the listener's name.
#[derive(Default)]
pub(super) struct Provers(BTreeMap<Arc<str>, (ClientSlot, Rc<dyn Prover>)>);

impl Provers {
    pub(super) fn start(setups: Vec<ProverSetup>) -> Provers {
        let start = |ProverSetup { listener, tls, make }: ProverSetup| {
            let slot: ClientSlot = Rc::new(RefCell::new(tls));
            let prover = make(Rc::clone(&slot));
            (listener, (slot, prover))
        };
        Provers(setups.into_iter().map(start).collect())
    }

    fn of(&self, listener: &str) -> Option<Rc<dyn Prover>> {
        self.0.get(listener).map(|(_, prover)| Rc::clone(prover))
    }

    /// Sessions that are made from now on are made with what the listeners have now.
    pub(super) fn renew(&self, renewals: &[Renewal]) {
        for renewal in renewals {
            if let Some((slot, _)) = self.0.get(&renewal.listener.name) {
                slot.replace(renewal.sides.client.clone());
            }
        }
    }
}

impl Control {
    /// Asks beside, and comes back with what was said.
    pub(super) fn prove(&mut self, gate: GateId, epoch: Epoch) {
        let state = self.gates.get(gate);
        let (name, term) = (state.name.clone(), state.handoff.term().filter(|term| term.epoch == epoch).cloned());
        let (Some(term), Some(prover)) = (term, self.provers.of(&name.listener)) else { return };
        self.beside(async move {
            let result = prover.prove(&term, &name.resource).await;
            Internal::Proved { gate, epoch, result }
        });
    }

    /// It was had, or was not: then it is asked for again, for as long as the handoff waits for it.
    pub(super) fn proved(&mut self, gate: GateId, epoch: Epoch, result: Result<Proof, String>) {
        if self.gates.floor(gate) != Some(epoch) {
            return;
        }
        let resource = &self.gates.get(gate).name.resource;
        match &result {
            Ok(Proof { ended, prepared, in_target, .. }) => {
                tracing::info!(%resource, %epoch, ended, prepared, in_target, "the target has nothing older that can take effect");
                let in_target = *in_target;
                self.gates.note_in_target(gate, in_target);
            }
            Err(why) if self.gates.get(gate).proof_error.as_ref().is_none_or(|(_, before)| **before != **why) => {
                tracing::error!(%resource, %epoch, %why, "the target cannot be asked whether anything older runs: the gate stays shut");
            }
            Err(_) => {}
        }
        let had = result.is_ok();
        self.gates.note_proof_error(gate, result.err().map(|why| (epoch, why.into())));
        if !had {
            self.beside(async move {
                tokio::time::sleep(AGAIN).await;
                Internal::ProveAgain { gate, epoch }
            });
        }
        self.drive(gate, Event::Proof(epoch, had));
    }

    pub(super) fn prove_again(&mut self, gate: GateId, epoch: Epoch) {
        if self.gates.floor(gate) == Some(epoch) {
            self.prove(gate, epoch);
        }
    }

    /// Why the proof of the handoff at hand cannot be had, while it is waited for.
    pub(super) fn proof_error(&self, gate: GateId) -> Option<Arc<str>> {
        let state = self.gates.get(gate);
        let (epoch, error) = state.proof_error.as_ref()?;
        let is_awaited = self.gates.floor(gate) == Some(*epoch) && state.handoff.phase() != Phase::Open;
        is_awaited.then(|| Arc::clone(error))
    }
}
