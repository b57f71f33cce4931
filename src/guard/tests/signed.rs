//! Signed stamps at a guard: what is not signed for this very request reaches no gate.

use super::*;
use crate::fence::Stamp;
use crate::signing::tests::keys;
use crate::signing::{Keys, Subject};

const NOW: u64 = 1_790_000_000;

/// A door that has `orders` at 5 open, and takes what `k1` or `k2` signed within thirty seconds of [`NOW`].
fn door(required: bool) -> Door {
    let mut door = Door::open_at(5);
    listens_to(&mut door, &[("k2", 2), ("k1", 1)], required);
    door
}

fn listens_to(door: &mut Door, ids: &[(&str, u8)], required: bool) {
    door.clock.set_wall(NOW);
    door.guard.listener.signatures = KeysInForce::new(Some(keys(ids, 30, required)));
}

/// A stamp as the holder of `by` would send it on `method` and `target`.
fn signed(stamp: &str, by: &Keys, method: &str, target: &str, ts: u64) -> String {
    let stamp = Stamp::parse(stamp.as_bytes()).expect("it is a stamp");
    let signature = by.sign(&Subject::of(&stamp, method, target).expect("it is whole"), ts);
    format!("{stamp}{signature}")
}

fn k1() -> Arc<Keys> {
    keys(&[("k1", 1)], 30, true)
}

fn ask(door: &Door, method: &str, target: &str, value: &str) -> Decision {
    door.guard.decide(&facts(method, target, &Head::of(&[("fencing-epoch", value)]), 0))
}

#[test]
fn what_is_signed_for_this_request_goes_on_in_canonical_form() {
    let door = door(true);
    for target in ["/a", "/a?b=c"] {
        let right = forwarded(ask(&door, "PUT", target, &signed(&stamp(5), &k1(), "PUT", target, NOW)));
        let seen = right.stamp().expect("the target sees it").as_bytes();
        assert_eq!(seen, stamp(5).as_bytes(), "without the signature, which is between the sidecars");
        right.settle(Settled::Answered);
    }
}

#[test]
fn what_is_forged_is_refused_before_the_gate_is_asked() {
    let mut door = door(true);
    // One that is let in, so that its reading is remembered: no later stamp may profit from it.
    let good = signed(&stamp(5), &k1(), "PUT", "/a", NOW);
    forwarded(ask(&door, "PUT", "/a", &good)).settle(Settled::Answered);
    let changed = |from: &str, to: &str| good.replacen(from, to, 1);
    let stranger = keys(&[("k1", 9)], 30, true);
    let k3 = keys(&[("k3", 1)], 30, true);
    let forged = [
        ("not signed", stamp(5)),
        ("bare", "5".to_owned()),
        ("a key that nobody knows", signed(&stamp(5), &k3, "PUT", "/a", NOW)),
        ("another key of this id", signed(&stamp(5), &stranger, "PUT", "/a", NOW)),
        ("another method", signed(&stamp(5), &k1(), "POST", "/a", NOW)),
        ("another path", signed(&stamp(5), &k1(), "PUT", "/b", NOW)),
        ("another query", signed(&stamp(5), &k1(), "PUT", "/a?b", NOW)),
        ("too old", signed(&stamp(5), &k1(), "PUT", "/a", NOW - 31)),
        ("of the future", signed(&stamp(5), &k1(), "PUT", "/a", NOW + 31)),
        ("a later time put on", changed(&format!("ts={NOW}"), &format!("ts={}", NOW + 1))),
        ("a higher epoch put on", changed("5;", "6;")),
        ("the highest epoch put on", changed("5;", "999999999999999;")),
        ("another nonce put on", changed("nonce=:AAAAAAAAAAU=:", "nonce=:AAAAAAAAAAY=:")),
        ("another writer put on", changed("by=\"orders-a\"", "by=\"orders-b\"")),
        ("another resource put on", changed("res=\"orders\"", "res=\"stock\"")),
        ("the other key's id put on", changed("kid=\"k1\"", "kid=\"k2\"")),
    ];
    door.said();
    for (what, value) in forged {
        assert_ne!(value, good, "{what}");
        let refusal = refused(ask(&door, "PUT", "/a", &value));
        assert_eq!(refusal.reason, Reason::SignatureRefused, "{what}: {}", refusal.detail);
        assert_eq!(refusal.required_epoch, Some(epoch(5)), "{what}");
        assert!(refusal.epoch.is_some() && refusal.resource == Some(orders()), "{what}");
        assert_eq!((door.counts(), door.said().len()), ((0, 0, 0), 0), "{what}: no gate and nobody was asked");
    }
    assert_eq!(door.cell.floor(), Some(epoch(5)));
    forwarded(ask(&door, "PUT", "/a", &good)).settle(Settled::Answered);
}

#[test]
fn a_stamp_that_is_signed_is_still_only_a_claim() {
    let mut door = door(true);
    let stale = refused(ask(&door, "PUT", "/a", &signed(&stamp(4), &k1(), "PUT", "/a", NOW)));
    assert_eq!(stale.reason, Reason::StaleEpoch);
    drop(held(ask(&door, "PUT", "/a", &signed(&stamp(999_999_999_999_999), &k1(), "PUT", "/a", NOW))));
    assert_eq!(door.cell.floor(), Some(epoch(5)), "R4: only the coordinator's word counts");
    let elsewhere = Stamp::of(&term(5), &"stock".parse().expect("a resource")).to_string();
    let elsewhere = refused(ask(&door, "PUT", "/a", &signed(&elsewhere, &k1(), "PUT", "/a", NOW)));
    assert_eq!(elsewhere.reason, Reason::ResourceMismatch);
    assert_eq!(door.said(), Vec::<String>::new());
    assert_eq!(refused(door.guard.decide(&facts("PUT", "/a", &Head::default(), 0))).reason, Reason::StampRequired);
}

/// A write is asked about again after it was held; what is asked then is all of it.
#[tokio::test(start_paused = true)]
async fn a_held_write_is_verified_again_when_it_goes_on() {
    let mut door = door(true);
    let value = signed(&stamp(6), &k1(), "PUT", "/a", NOW);
    let waiting = held(ask(&door, "PUT", "/a", &value));
    door.hand_over(6);
    goes_on(waiting);
    forwarded(ask(&door, "PUT", "/a", &value)).settle(Settled::Answered);
    door.clock.set_wall(NOW + 31);
    assert_eq!(refused(ask(&door, "PUT", "/a", &value)).reason, Reason::SignatureRefused);
}

#[test]
fn where_signatures_are_not_required_those_that_are_there_still_hold() {
    let door = door(false);
    for unsigned in [stamp(5), "5".to_owned()] {
        forwarded(ask(&door, "PUT", "/a", &unsigned)).settle(Settled::Answered);
    }
    let good = signed(&stamp(5), &k1(), "PUT", "/a", NOW);
    forwarded(ask(&door, "PUT", "/a", &good)).settle(Settled::Answered);
    assert_eq!(refused(ask(&door, "PUT", "/b", &good)).reason, Reason::SignatureRefused);
}

/// So that stamps may begin to sign before their guards have keys.
#[test]
fn a_guard_without_keys_reads_past_a_signature() {
    let door = Door::open_at(5);
    for good in [signed(&stamp(5), &k1(), "PUT", "/a", NOW), signed(&stamp(5), &k1(), "POST", "/b", 0)] {
        let right = forwarded(ask(&door, "PUT", "/a", &good));
        assert_eq!(right.stamp().expect("the target sees it").as_bytes(), stamp(5).as_bytes());
        right.settle(Settled::Answered);
    }
    let signature = "kid=\"k1\";ts=1;sig=::";
    for bad in [format!("{};{signature}", stamp(5)), format!("5;{signature}")] {
        assert_eq!(refused(ask(&door, "PUT", "/a", &bad)).reason, Reason::MalformedStamp, "{bad}");
    }
}

#[test]
fn a_door_in_audit_mode_says_that_it_would_have_refused() {
    let mut door = Door::new(Options { audit: true, ..OPTIONS });
    door.hand_over(5);
    listens_to(&mut door, &[("k1", 1)], true);
    let good = signed(&stamp(5), &k1(), "PUT", "/a", NOW);
    for value in [&good, &stamp(5)] {
        forwarded(ask(&door, "PUT", "/a", value)).settle(Settled::Answered);
    }
    assert_eq!(door.would_have_refused(), [Reason::SignatureRefused]);
}

#[test]
fn fenced_reads_are_verified_too() {
    let mut door = Door::new(Options { fence_reads: true, ..OPTIONS });
    door.hand_over(5);
    listens_to(&mut door, &[("k1", 1)], true);
    forwarded(ask(&door, "GET", "/a", &signed(&stamp(5), &k1(), "GET", "/a", NOW))).settle(Settled::Answered);
    assert_eq!(refused(ask(&door, "GET", "/a", &stamp(5))).reason, Reason::SignatureRefused);
}
