//! Signed stamps, as a listener has them.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Resolver;
use crate::config::problem::KeyPath;
use crate::config::raw::{self, OF_A_VERIFIER};
use crate::config::resolved::{SignatureKey, Signatures};
use crate::config::units::show;
use crate::fence::KeyId;

/// Shorter, and clocks that agree well are still too far apart; longer, and a stamp that somebody has read is good for
/// too long.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// Resolves what is written at `signatures` of the listener at `path`.
pub(super) fn resolve(
    written: &raw::Signatures,
    listener: &raw::Listener,
    path: &KeyPath,
    resolver: &mut Resolver<'_>,
) -> Signatures {
    let path = path.key("signatures");
    if listener.role == Some(raw::Role::Stamp) {
        for key in OF_A_VERIFIER {
            let path = path.key(key);
            if resolver.written(&path) {
                let what = format!("{path}: '{key}' is for a guard: it is the guard that verifies");
                resolver.problem_of_key(&path, what, "take it out");
            }
        }
    }
    let window = written.window.value;
    if !WINDOWS.contains(&window) || window.subsec_nanos() != 0 {
        let path = path.key("window");
        let what = format!("{path}: {} is not a whole number of seconds from 1s to 5m", show(window));
        resolver.problem(&path, what, "write 30s: as long as clocks may differ and a request may be under way");
    }
    Signatures { keys: keys(written, &path, resolver), window, required: written.required }
}

fn keys(written: &raw::Signatures, path: &KeyPath, resolver: &mut Resolver<'_>) -> Vec<SignatureKey> {
    let mut seen: HashMap<KeyId, KeyPath> = HashMap::new();
    let mut keys = Vec::new();
    for (at, key) in written.keys.iter().flatten().enumerate() {
        let path = path.key("keys").index(at).key("kid");
        let Some((kid, file)) = key.as_ref().and_then(|key| Some((key.kid.as_ref()?, key.file.as_ref()?))) else {
            // The check has said so.
            continue;
        };
        if let Some(other) = seen.insert(kid.value, path.clone()) {
            let what = format!("{path}: '{}' is the id of another key too ({other})", kid.value);
            resolver.problem(&path, what, "give each key its own id: a new key is a new id");
        }
        keys.push(SignatureKey { kid: kid.value, file: file.value.clone() });
    }
    keys
}
