//! What the service says of the term that its work belongs to: `Fencing-Expect`, or a stamp of its own.

use super::StampListener;
use super::desk::StampDesk;
use crate::config::resolved::IncomingStamp;
use crate::fence::stamp::Malformed;
use crate::fence::{Epoch, Nonce, Reason, Refusal, Stamp, WriterId};
use crate::protocol::Facts;

/// The field in which a service names the epoch that its work belongs to.
const EXPECT: &str = "fencing-expect";
/// The same where somebody on the way has made `_` of `-`, or the service was written so.
const EXPECT_ALIKE: &str = "fencing_expect";

/// What the service said.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// The epoch.
    pub epoch: Option<Epoch>,
    nonce: Option<Nonce>,
    by: Option<WriterId>,
}

impl Said {
    /// Whether what it says besides the epoch is not so of the term held.
    pub fn is_of_another(&self, desk: &StampDesk, place: usize) -> bool {
        (self.nonce.is_some() || self.by.is_some()) && desk.holds_another(place, self.nonce, self.by.as_ref())
    }
}

/// What the service says of the term that this write belongs to.
pub(super) fn said(
    listener: &StampListener,
    desk: &StampDesk,
    facts: &Facts<'_>,
    place: usize,
) -> Result<Said, Box<Refusal>> {
    let mut said = Said { epoch: expected(listener, desk, facts, place)?, ..Said::default() };
    if listener.incoming_stamp != IncomingStamp::Require {
        return Ok(said);
    }
    let stamp = match listener.field.collect(facts.fields, Stamp::parse) {
        Ok(Some(stamp)) => stamp,
        Ok(None) => {
            let detail = "this sidecar takes only writes that the service has stamped with the term that its work \
                          belongs to (incoming_stamp: require)";
            return Err(desk.refusal(place, Reason::EpochExpected, detail));
        }
        Err(Malformed(why)) => {
            let mut refusal = desk.refusal(place, Reason::EpochExpected, why);
            refusal.detail = format!("{}: {why}", listener.field.name()).into();
            return Err(refusal);
        }
    };
    if stamp.res.as_ref().is_some_and(|res| res != desk.resource(place)) {
        let detail = "the stamp that the service put on is for another resource than the request";
        let mut refusal = desk.refusal(place, Reason::ResourceMismatch, detail);
        refusal.epoch = Some(stamp.epoch);
        return Err(refusal);
    }
    if said.epoch.is_some_and(|expected| expected != stamp.epoch) {
        let detail = "the stamp and Fencing-Expect name different epochs";
        let mut refusal = desk.refusal(place, Reason::EpochExpected, detail);
        refusal.epoch = Some(stamp.epoch);
        return Err(refusal);
    }
    said.epoch = Some(stamp.epoch);
    (said.nonce, said.by) = (stamp.nonce, stamp.by);
    Ok(said)
}

fn expected(
    listener: &StampListener,
    desk: &StampDesk,
    facts: &Facts<'_>,
    place: usize,
) -> Result<Option<Epoch>, Box<Refusal>> {
    let (mut fields, mut epoch) = (0_usize, None);
    facts.fields.each(EXPECT, &mut |value| {
        fields += 1;
        epoch = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    });
    let detail = match (fields, epoch) {
        // To overlook it would stamp the work of one epoch with another.
        _ if facts.fields.has(EXPECT_ALIKE) => "Fencing-Expect stands with '_' in its name: write it with '-'",
        (0, _) if !listener.expect_required => return Ok(None),
        (0, _) => {
            "this sidecar takes only writes that say in Fencing-Expect which epoch they belong to (expect: require)"
        }
        (1, Some(epoch)) => return Ok(Some(epoch)),
        (1, None) => "Fencing-Expect is not an epoch: 1 to 999999999999999, in decimal digits",
        _ => "Fencing-Expect stands more than once",
    };
    Err(desk.refusal(place, Reason::EpochExpected, detail))
}
