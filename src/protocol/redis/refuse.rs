//! Refusals as Redis errors.
//!
//! The first word is what client libraries act on. `READONLY` is what a replica says: clients look for the new leader, or at
//! least do not try again here. `LOADING` is what a server says that is about to serve: it is the one word of its kind after
//! which the usual clients (redis-py, go-redis) connect anew and try again by themselves, which they may: nothing was applied.

use std::fmt::Write as _;

use crate::fence::{Outcome, Reason, Refusal};

/// The first word.
fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::StaleEpoch
        | Reason::StampRequired
        | Reason::EpochConflict
        | Reason::EpochDenied
        | Reason::EpochExpected
        | Reason::NotLeader
        | Reason::TermChanged => "READONLY",
        Reason::IdentityRefused | Reason::SignatureRefused => "NOPERM",
        reason if reason.is_worth_retrying() => "LOADING",
        Reason::UpstreamUnreachable => "LOADING",
        _ => "ERR",
    }
}

/// A refusal as a reply: one line.
pub fn error(refusal: &Refusal) -> Vec<u8> {
    let mut text = format!("{} {}: ", word(refusal.reason), refusal.reason.as_str());
    text.push_str(if refusal.detail.is_empty() { refusal.reason.title() } else { &refusal.detail });
    let mut known = Vec::new();
    known.extend(refusal.resource.as_ref().map(|resource| format!("resource {resource}")));
    known.extend(refusal.epoch.map(|epoch| format!("epoch {epoch}")));
    known.extend(refusal.required_epoch.map(|epoch| format!("required epoch {epoch}")));
    known.extend(refusal.leader.as_ref().map(|leader| match &leader.address {
        Some(address) => format!("leader {} at {address}", leader.id),
        None => format!("leader {}", leader.id),
    }));
    known.extend(refusal.blocked_by.as_ref().map(|door| format!("blocked by {door}")));
    known.push(format!("outcome {}", refusal.reason.outcome().as_str()));
    // Writing to a string does not fail.
    let _ = write!(text, " ({})", known.join(", "));
    line(&text)
}

/// What is said where something of a connection's writes had left when its epoch ended.
pub fn cut(refusal: &Refusal) -> Vec<u8> {
    debug_assert_eq!(refusal.reason.outcome(), Outcome::Unknown);
    error(refusal)
}

/// An error that is about the words of a command.
pub fn plain(text: &str) -> Vec<u8> {
    line(&format!("ERR {text}"))
}

/// What EXEC says after a command of its transaction was refused.
pub fn aborted() -> Vec<u8> {
    line("EXECABORT Transaction discarded because a command of it was refused (see the error of that command)")
}

/// One line, whatever is in the text.
fn line(text: &str) -> Vec<u8> {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("-{text}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Epoch;

    #[test]
    fn an_error_is_one_line_that_says_all_that_is_known() {
        let refusal = Refusal::new(Reason::StaleEpoch, "epoch 41 is over;\r\nnothing was applied")
            .with_epochs(Epoch::new(41), Epoch::new(42))
            .with_resource(&"orders".parse().expect("a resource"));
        let text = String::from_utf8(error(&refusal)).expect("text");
        assert_eq!(
            text,
            "-READONLY stale_epoch: epoch 41 is over;  nothing was applied (resource orders, epoch 41, required epoch 42, \
             outcome not_applied)\r\n"
        );
    }

    #[test]
    fn every_reason_has_a_word_that_clients_know() {
        for reason in Reason::ALL {
            let word = word(*reason);
            assert!(["READONLY", "NOPERM", "LOADING", "ERR"].contains(&word));
            if word == "LOADING" || word == "READONLY" {
                assert_eq!(reason.outcome(), Outcome::NotApplied, "{reason:?}: clients may send it again");
            }
        }
        assert_eq!(word(Reason::GateShut), "LOADING");
        assert_eq!(word(Reason::FencedInFlight), "ERR");
    }
}
