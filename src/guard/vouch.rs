//! Who vouches for a stamp: the check that stands before every gate.
//!
//! A stamp as read is [`Unvouched`], and nothing weighs one. What a gate weighs is [`Vouched`], which only [`vouch`]
//! makes, for one request at a time: a reading that is remembered for the next request is unvouched again.

use std::ops::Deref;
use std::rc::Rc;

use super::GuardListener;
use super::cell::GateCell;
use super::running::Carried;
use crate::fence::mechanism::Mechanism;
use crate::fence::{Reason, Refusal, Signature};
use crate::protocol::Facts;
use crate::signing::{self, Keys, Objection, Subject};

/// A stamp as it was read from a request, with what that request has to show for it.
#[derive(Debug)]
pub(super) struct Unvouched {
    pub carried: Rc<Carried>,
    pub signature: Option<Signature>,
}

/// A stamp of which the listener's settings have nothing to say.
#[derive(Clone, Debug)]
pub(super) struct Vouched(Rc<Carried>);

impl Vouched {
    /// The reading itself, to be remembered: as one that nobody has vouched for.
    pub fn reading(&self) -> &Rc<Carried> {
        &self.0
    }
}

impl Deref for Vouched {
    type Target = Carried;

    fn deref(&self) -> &Carried {
        &self.0
    }
}

/// Whether a stamp may be put before the gate `cell`.
///
/// # Errors
/// The refusal, complete.
pub(super) fn vouch(
    listener: &GuardListener,
    cell: &GateCell,
    facts: &Facts<'_>,
    Unvouched { carried, signature }: Unvouched,
) -> Result<Vouched, Box<Refusal>> {
    let identified = is_identified(listener, cell, facts, &carried);
    identified.map_err(|refusal| cell.complete(refusal, Some(&carried.stamp)))?;
    let signed = listener.signatures.with(|keys| match keys {
        Some(keys) if cell.keeps(Mechanism::Signature) => verify(keys, cell, facts, &carried, signature.as_ref()),
        _ => Ok(()),
    });
    match signed {
        Ok(()) => Ok(Vouched(carried)),
        Err(objection) => {
            let refusal = Refusal::new(Reason::SignatureRefused, format!("{objection}; nothing was applied"));
            Err(cell.complete(Box::new(refusal), Some(&carried.stamp)))
        }
    }
}

/// Whether the sender may write as the writer of a stamp. One that names no writer is of the writer whose epoch it is: as
/// long as the gate knows of none, it lets none in.
fn is_identified(
    listener: &GuardListener,
    cell: &GateCell,
    facts: &Facts<'_>,
    carried: &Carried,
) -> Result<(), Box<Refusal>> {
    if listener.identities.takes_anybody() {
        return Ok(());
    }
    let writer = carried.stamp.by.clone().or_else(|| cell.writer());
    listener.identities.may_write(facts, writer.as_ref(), cell.resource())
}

fn verify(
    keys: &Keys,
    cell: &GateCell,
    facts: &Facts<'_>,
    carried: &Carried,
    signature: Option<&Signature>,
) -> Result<(), Objection> {
    let Some(signature) = signature else {
        return if keys.are_required() { Err(Objection::Unsigned) } else { Ok(()) };
    };
    // What is signed is whole: the parser takes no other.
    let subject = Subject::of(&carried.stamp, facts.method, facts.target).ok_or(Objection::Mismatch)?;
    keys.verify(&subject, signature, signing::seconds(cell.desk.clock.wall()))
}
