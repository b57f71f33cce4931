//! What a client is told, in the protocol's own words: an ErrorResponse that ends its session.
//!
//! Pools and drivers go by the SQLSTATE. 57P01 (`admin_shutdown`) makes them drop the connection; 57P03 (`cannot_connect_now`)
//! says that the same may succeed later. The epochs stand in DETAIL, what to do in HINT.

use std::fmt::Write as _;

use super::message::Malformed;
use crate::fence::{Outcome, Reason, Refusal};

const DROP_IT: &str = "57P01";
const TRY_LATER: &str = "57P03";
const PROTOCOL_VIOLATION: &str = "08P01";

/// The answer to a session that is not let in, or that is over.
pub fn refusal(refusal: &Refusal) -> Vec<u8> {
    told(refusal, refusal.reason.outcome().as_str(), hint(refusal.reason))
}

/// What a session is told that was let in, and whose epoch is over now. `over` is what the role says of its stamp today.
pub fn fenced(over: &Refusal, was_idle: bool) -> Vec<u8> {
    if was_idle {
        let hint = "Nothing was outstanding. A transaction that was open is rolled back. Connect again through the present leader.";
        return told(over, "idle", hint);
    }
    let hint = "What was running may have been applied, or not: look before you send it again. \
                Connect again through the present leader.";
    // What the role says of a request that has not left does not hold of this one.
    let detail = "the writer's leadership ended while a statement was running";
    told(&Refusal { detail: detail.into(), ..over.clone() }, Outcome::Unknown.as_str(), hint)
}

/// What a session is told whose listener stops, or has other settings now.
pub fn stopping() -> Vec<u8> {
    error(
        DROP_IT,
        "This sidecar is stopping, or has been given other settings",
        "Nothing was outstanding.",
        "Connect again.",
    )
}

/// What a client is told that does not speak the protocol.
pub fn unreadable(why: Malformed) -> Vec<u8> {
    error(
        PROTOCOL_VIOLATION,
        "This is not PostgreSQL's protocol as it should be",
        why.0,
        "What could not be read was not forwarded.",
    )
}

fn told(refusal: &Refusal, outcome: &str, hint: &str) -> Vec<u8> {
    let code = if refusal.reason.is_worth_retrying() { TRY_LATER } else { DROP_IT };
    error(code, refusal.reason.title(), &detail(refusal, outcome), hint)
}

/// What happened, and all that is known of it.
pub fn detail(refusal: &Refusal, outcome: &str) -> String {
    let mut detail = refusal.detail.trim_end_matches('.').to_owned();
    let mut say =
        |text: std::fmt::Arguments<'_>| detail.write_fmt(text).expect("a text takes all that is written to it");
    say(format_args!(" (reason {}, outcome {outcome}", refusal.reason));
    if let Some(resource) = &refusal.resource {
        say(format_args!(", resource {resource}"));
    }
    if let Some(epoch) = refusal.epoch {
        say(format_args!(", epoch {epoch} given"));
    }
    if let Some(required) = refusal.required_epoch {
        say(format_args!(", {required} required"));
    }
    if let Some(writer) = &refusal.writer {
        say(format_args!(", writer {writer}"));
    }
    if let Some(leader) = &refusal.leader {
        say(format_args!(", leader {}", leader.id));
        if let Some(address) = &leader.address {
            say(format_args!(" at {address}"));
        }
    }
    if let Some(door) = &refusal.blocked_by {
        say(format_args!(", blocked by {door}"));
    }
    say(format_args!(")."));
    detail
}

/// What to do, where the detail does not say it.
pub fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::StampRequired => {
            "Connect through the writer's stamping sidecar, or name the epoch: options='-c epochgate.epoch=42'."
        }
        Reason::MalformedStamp => "Name one epoch, in decimal digits: options='-c epochgate.epoch=42'.",
        Reason::StampPresent => "Leave epochgate.epoch out of the connection's options: the sidecar sets it.",
        Reason::StaleEpoch
        | Reason::EpochConflict
        | Reason::EpochDenied
        | Reason::EpochExpected
        | Reason::TermChanged => {
            "Nothing was applied. Another leads now, or led since: connect anew through the present leader."
        }
        Reason::NotLeader => "Nothing was applied. Connect through the present leader.",
        Reason::UpstreamBroken | Reason::FencedInFlight | Reason::UpstreamTimeout => {
            "What was running may have been applied, or not: look before you send it again."
        }
        reason if reason.is_worth_retrying() => "Nothing was applied. Try again in a moment.",
        _ => "Nothing was applied.",
    }
}

/// An ErrorResponse of severity FATAL.
fn error(code: &str, message: &str, detail: &str, hint: &str) -> Vec<u8> {
    let mut packet = vec![b'E', 0, 0, 0, 0];
    let fields = [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message), (b'D', detail), (b'H', hint)];
    for (field, text) in fields {
        packet.push(field);
        // A zero byte would end the text, and everything behind it would be read as fields.
        packet.extend(text.bytes().filter(|byte| *byte != 0));
        packet.push(0);
    }
    packet.push(0);
    let length = u32::try_from(packet.len() - 1).expect("what a refusal says is bounded");
    packet[1..5].copy_from_slice(&length.to_be_bytes());
    packet
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::message::Walk;
    use super::*;
    use crate::fence::Epoch;
    use crate::fence::verdict::LeaderHint;

    /// The fields of the one error in `bytes`.
    pub fn fields(bytes: &[u8]) -> Vec<String> {
        let mut bodies = Vec::new();
        let mut walk = Walk::default();
        walk.over(bytes, |part| {
            assert_eq!((part.kind, part.begins, part.ends), (b'E', true, true));
            bodies.push(part.body.to_vec());
            Ok(())
        })
        .expect("a message");
        assert!(walk.is_between() && bodies.len() == 1);
        let body = String::from_utf8(bodies.remove(0)).expect("text");
        body.strip_suffix("\0\0").expect("its end").split('\0').map(str::to_owned).collect()
    }

    fn stale() -> Refusal {
        let leader = LeaderHint { id: "orders-b".parse().expect("an id"), address: Some("10.0.0.8:5432".into()) };
        Refusal::new(Reason::StaleEpoch, "epoch 41 is over\0.")
            .with_resource(&"orders".parse().expect("a resource"))
            .with_epochs(Epoch::new(41), Epoch::new(42))
            .with_leader(Some(leader))
    }

    #[test]
    fn a_refusal_says_the_epochs_and_what_to_do() {
        assert_eq!(
            fields(&refusal(&stale())),
            [
                "SFATAL",
                "VFATAL",
                "C57P01",
                "MThe write is of an epoch that is over",
                "Depoch 41 is over (reason stale_epoch, outcome not_applied, resource orders, epoch 41 given, 42 required, \
                 leader orders-b at 10.0.0.8:5432).",
                "HNothing was applied. Another leads now, or led since: connect anew through the present leader.",
            ]
        );
    }

    #[test]
    fn what_may_succeed_later_says_so_and_all_else_drops_the_connection() {
        for reason in Reason::ALL {
            let fields = fields(&refusal(&Refusal::new(*reason, "As it is.")));
            let code = if reason.status() == 503 { "C57P03" } else { "C57P01" };
            assert_eq!(fields[2], code, "{reason}");
            let outcome = format!("outcome {}", reason.outcome().as_str());
            assert!(fields[4].contains(&outcome) && fields[4].contains(&format!("reason {reason}")), "{fields:?}");
        }
    }

    #[test]
    fn who_is_fenced_learns_what_became_of_it() {
        assert!(
            fields(&fenced(&stale(), true))[4].contains("outcome idle, resource orders, epoch 41 given, 42 required")
        );
        assert!(fields(&fenced(&stale(), false))[4].contains("outcome unknown"));
        assert_eq!(fields(&stopping())[2], "C57P01");
        assert_eq!(fields(&unreadable(Malformed("it ends too soon")))[4], "Dit ends too soon");
    }
}
