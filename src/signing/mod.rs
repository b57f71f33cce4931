//! Signed stamps: who has a key can make a stamp that a guard takes, and nobody else on the link can (DESIGN 4).
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Keys`]: sign, verify; [`KeysInForce`]: where a role finds them |
//! | [`file`] | a key as it is kept: read, judged, and wiped |
//! | [`subject`] | what a signature covers, as bytes that cannot be taken apart in two ways |
//!
//! How a signature travels is [`fence::signature`](crate::fence::signature). Keys are read when they are loaded, and never
//! while a request waits; to load them once more and put them in the old ones' place is a reload.

mod file;
mod subject;

#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;

use crate::config::resolved::Signatures;
use crate::fence::{KeyId, Signature};
pub use file::{KeyProblem, in_view};
pub use subject::Subject;

/// The keys of one listener, ready for use. Its `Debug` shows their ids only.
pub struct Keys {
    /// The first one signs.
    keys: Box<[(KeyId, hmac::Key)]>,
    window: Duration,
    required: bool,
}

/// Why a stamp's signature is refused. Said to the one who sent it: nothing of a key is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// There is none.
    #[error(
        "the stamp is not signed, and this door takes signed stamps only: give the sidecar that stamps a key (signatures)"
    )]
    Unsigned,
    /// Nobody here knows its key.
    #[error(
        "the stamp is signed with the key '{0}', which this door does not know: give it to the guards before a stamp signs with it"
    )]
    UnknownKey(KeyId),
    /// It was made too long ago, or will be.
    #[error(
        "the stamp was signed {off}s {} this door's clock, and {window}s are allowed (signatures.window): it was sent a second \
         time, or the clocks of the two hosts do not agree",
        if *ahead { "ahead of" } else { "behind" }
    )]
    OutOfWindow {
        /// How far off, in seconds.
        off: u64,
        /// Whether it is ahead of this host's clock.
        ahead: bool,
        /// How far it may be.
        window: u64,
    },
    /// It was made by another key, or for something else.
    #[error(
        "the signature does not hold for this stamp, method and path with query: it was made for another request, with another \
         key of the same id, or something between the two sidecars rewrites paths"
    )]
    Mismatch,
}

impl Keys {
    /// Reads every key of a listener.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn load(settings: &Signatures) -> Result<Arc<Keys>, Vec<KeyProblem>> {
        let (mut keys, mut problems) = (Vec::with_capacity(settings.keys.len()), Vec::new());
        for key in &settings.keys {
            match file::read(key) {
                Ok(read) => keys.push((key.kid, read)),
                Err(problem) => problems.push(problem),
            }
        }
        let keys = keys.into();
        if problems.is_empty() {
            Ok(Arc::new(Keys { keys, window: settings.window, required: settings.required }))
        } else {
            Err(problems)
        }
    }

    /// Signs with the first key, at `now` (seconds of UTC since 1970).
    pub fn sign(&self, subject: &Subject<'_>, now: u64) -> Signature {
        let (kid, key) = self.keys.first().expect("a resolved configuration has at least one key");
        let tag = hmac::sign(key, &subject.message(now));
        let mac = tag.as_ref().try_into().expect("HMAC-SHA-256 makes 32 bytes");
        Signature { kid: *kid, ts: now, mac }
    }

    /// Whether a stamp may be believed to come from who has a key, at `now` (seconds of UTC since 1970).
    ///
    /// # Errors
    /// What is to be said against it.
    pub fn verify(&self, subject: &Subject<'_>, signature: &Signature, now: u64) -> Result<(), Objection> {
        let Some((_, key)) = self.keys.iter().find(|(kid, _)| *kid == signature.kid) else {
            return Err(Objection::UnknownKey(signature.kid));
        };
        let (off, window) = (now.abs_diff(signature.ts), self.window.as_secs());
        if off > window {
            return Err(Objection::OutOfWindow { off, ahead: signature.ts > now, window });
        }
        // In constant time: how much of a guess was right is not to be measured.
        hmac::verify(key, &subject.message(signature.ts), &signature.mac).map_err(|_| Objection::Mismatch)
    }

    /// Whether a stamp without a signature is refused.
    pub fn are_required(&self) -> bool {
        self.required
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|(kid, _)| kid);
        f.debug_list().entries(ids).finish()
    }
}

/// Where a listener's role in one worker finds its keys: the one place in which a reload puts others.
#[derive(Clone, Debug, Default)]
pub struct KeysInForce(Rc<RefCell<Option<Arc<Keys>>>>);

impl KeysInForce {
    /// These, or none where the listener has nothing to do with signatures.
    pub fn new(keys: Option<Arc<Keys>>) -> KeysInForce {
        KeysInForce(Rc::new(RefCell::new(keys)))
    }

    /// These from now on, in every clone.
    pub fn replace(&self, keys: Option<Arc<Keys>>) {
        let old = self.0.replace(keys);
        drop(old);
    }

    /// Has `look` see them. Nothing of this type is to be called by it.
    pub fn with<T>(&self, look: impl FnOnce(Option<&Keys>) -> T) -> T {
        look(self.0.borrow().as_deref())
    }
}

/// A moment of the wall clock as a signature says it.
pub fn seconds(wall: jiff::Timestamp) -> u64 {
    u64::try_from(wall.as_second()).unwrap_or(0)
}
