use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::config::resolved::SignatureKey;
use crate::fence::{Epoch, Nonce, Stamp};

/// Keys by id, each of one byte thirty-two times over; read from files, as they are.
pub(crate) fn keys(ids: &[(&str, u8)], window: u64, required: bool) -> Arc<Keys> {
    let folder = tempfile::tempdir().expect("a folder");
    let key = |&(kid, byte): &(&str, u8)| {
        let file = folder.path().join(kid);
        std::fs::write(&file, STANDARD.encode([byte; 32]) + "\n").expect("it can be written");
        SignatureKey { kid: kid.parse().expect("an id"), file }
    };
    let keys = ids.iter().map(key).collect();
    Keys::load(&Signatures { keys, window: Duration::from_secs(window), required }).expect("they are keys")
}

const NOW: u64 = 1_790_000_000;
const STAMP: &str = "42;nonce=:n58qe3yfEjQ=:;by=\"orders-a\";res=\"orders\"";

fn whole() -> Stamp {
    Stamp::parse(STAMP.as_bytes()).expect("it is whole")
}

fn subject(stamp: &Stamp) -> Subject<'_> {
    Subject::of(stamp, "PUT", "/orders/7?notify=yes").expect("it is whole")
}

/// The worked example of `docs/signed-stamps.md`: what a client in another language has to come to.
#[test]
fn the_example_of_the_docs_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("k1");
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    std::fs::write(&file, key).expect("it can be written");
    let settings = Signatures {
        keys: vec![SignatureKey { kid: "k1".parse().expect("an id"), file }],
        window: Duration::from_secs(30),
        required: true,
    };
    let stamp = whole();
    let message =
        "18:epochgate-stamp-v1,6:orders,2:42,12:n58qe3yfEjQ=,8:orders-a,3:PUT,20:/orders/7?notify=yes,10:1790000000,";
    assert_eq!(String::from_utf8(subject(&stamp).message(NOW)).expect("text"), message);
    let signature = Keys::load(&settings).expect("it is a key").sign(&subject(&stamp), NOW);
    let value = format!("{stamp}{signature}");
    let expected = format!("{STAMP};kid=\"k1\";ts=1790000000;sig=:jl5FJKwl4Mllbi/6/nvBTVvZMpGhtNjHH92UOP5Q8vQ=:");
    assert_eq!(value, expected);

    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/signed-stamps.md");
    let docs = std::fs::read_to_string(docs).expect("it is there");
    for part in [key, message, &expected] {
        assert!(docs.contains(part), "docs/signed-stamps.md does not have {part}");
    }
}

#[test]
fn a_signature_holds_for_what_was_signed_and_nothing_else() {
    let keys = keys(&[("k1", 1)], 30, true);
    let stamp = whole();
    let signed = subject(&stamp);
    let signature = keys.sign(&signed, NOW);
    assert_eq!(keys.verify(&signed, &signature, NOW), Ok(()));
    let others = [
        ("resource", Subject { resource: "stock", ..signed }),
        ("epoch", Subject { epoch: Epoch::new(43).expect("in range"), ..signed }),
        ("the highest epoch", Subject { epoch: Epoch::new(999_999_999_999_999).expect("in range"), ..signed }),
        ("nonce", Subject { nonce: Nonce::from_bytes([0; 8]), ..signed }),
        ("writer", Subject { writer: "orders-b", ..signed }),
        ("method", Subject { method: "DELETE", ..signed }),
        ("path", Subject { target: "/orders/8?notify=yes", ..signed }),
        ("query", Subject { target: "/orders/7?notify=no", ..signed }),
        ("no query", Subject { target: "/orders/7", ..signed }),
    ];
    for (what, other) in others {
        assert_eq!(keys.verify(&other, &signature, NOW), Err(Objection::Mismatch), "another {what}");
    }
    let later = Signature { ts: NOW + 1, ..signature };
    assert_eq!(keys.verify(&signed, &later, NOW), Err(Objection::Mismatch), "another time");
    for bit in 0..256 {
        let mut guess = signature;
        guess.mac[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(keys.verify(&signed, &guess, NOW), Err(Objection::Mismatch), "bit {bit}");
    }
}

#[test]
fn a_signature_is_good_within_the_window_both_ways() {
    let keys = keys(&[("k1", 1)], 30, true);
    let stamp = whole();
    let (signed, signature) = (subject(&stamp), keys.sign(&subject(&stamp), NOW));
    for good in [NOW - 30, NOW, NOW + 30] {
        assert_eq!(keys.verify(&signed, &signature, good), Ok(()));
    }
    let late = keys.verify(&signed, &signature, NOW + 31).expect_err("it is too old");
    assert_eq!(late, Objection::OutOfWindow { off: 31, ahead: false, window: 30 });
    assert!(late.to_string().contains("31s behind this door's clock, and 30s are allowed"), "{late}");
    let early = keys.verify(&signed, &signature, NOW - 31).expect_err("it is to come");
    assert!(early.to_string().contains("31s ahead of this door's clock"), "{early}");
    assert!(keys.verify(&signed, &signature, 0).is_err() && keys.verify(&signed, &signature, u64::MAX).is_err());
}

/// From one key to the next without a moment in which a stamp is refused: guards first, then stamps, then guards.
#[test]
fn a_key_is_replaced_with_overlap() {
    let stamp = whole();
    let subject = subject(&stamp);
    let (old, both) = (keys(&[("k1", 1)], 30, true), keys(&[("k2", 2), ("k1", 1)], 30, true));
    let new = keys(&[("k2", 2)], 30, true);
    let by = |signer: &Keys, verifier: &Keys| verifier.verify(&subject, &signer.sign(&subject, NOW), NOW);
    assert_eq!(both.sign(&subject, NOW).kid.as_str(), "k2", "the first signs");
    for (signer, verifier) in [(&old, &old), (&old, &both), (&both, &both), (&new, &both), (&both, &new)] {
        assert_eq!(by(signer, verifier), Ok(()));
    }
    assert_eq!(by(&old, &new), Err(Objection::UnknownKey("k1".parse().expect("an id"))));
    assert_eq!(by(&new, &old), Err(Objection::UnknownKey("k2".parse().expect("an id"))));
    let another_k1 = keys(&[("k1", 7)], 30, true);
    assert_eq!(by(&old, &another_k1), Err(Objection::Mismatch), "an id is no key");
    // A key verifies under its own id only: what a signature says of its key is part of what is believed.
    let swapped = Signature { kid: "k2".parse().expect("an id"), ..old.sign(&subject, NOW) };
    assert_eq!(both.verify(&subject, &swapped, NOW), Err(Objection::Mismatch));
}

#[test]
fn keys_in_force_are_replaced_in_every_clone() {
    let stamp = whole();
    let in_force = KeysInForce::new(Some(keys(&[("k1", 1)], 30, true)));
    let elsewhere = in_force.clone();
    let signs_with =
        |keys: &KeysInForce| keys.with(|keys| keys.map(|keys| keys.sign(&subject(&stamp), NOW).kid.to_string()));
    assert_eq!(signs_with(&elsewhere).as_deref(), Some("k1"));
    in_force.replace(Some(keys(&[("k2", 2)], 30, true)));
    assert_eq!(signs_with(&elsewhere).as_deref(), Some("k2"));
    in_force.replace(None);
    assert_eq!(signs_with(&elsewhere), None);
}

#[test]
fn nothing_of_a_key_is_shown_and_all_that_is_wrong_is_said() {
    let shown = format!("{:?}", keys(&[("k1", 0x41), ("k2", 0x42)], 30, true));
    assert_eq!(shown, "[k1, k2]");
    let nowhere = |kid: &str| SignatureKey { kid: kid.parse().expect("an id"), file: "/nowhere/at/all".into() };
    let settings =
        Signatures { keys: vec![nowhere("k1"), nowhere("k2")], window: Duration::from_secs(30), required: true };
    let problems = Keys::load(&settings).expect_err("there are none");
    assert_eq!(problems.iter().map(|problem| problem.kid.to_string()).collect::<Vec<_>>(), ["k1", "k2"]);
}

proptest! {
    /// Moving a border between two texts changes the bytes: no request is signed with another's signature.
    #[test]
    fn different_requests_have_different_bytes(
        texts in prop::array::uniform4("[0-9:,a/]{0,12}"),
        others in prop::array::uniform4("[0-9:,a/]{0,12}"),
        ts in 0u64..2000,
        other_ts in 0u64..2000,
    ) {
        let stamp = whole();
        let of = |texts: &[String; 4], ts| {
            let [resource, writer, method, target] = texts.each_ref().map(String::as_str);
            Subject { resource, writer, method, target, ..subject(&stamp) }.message(ts)
        };
        prop_assert_eq!(of(&texts, ts) == of(&others, other_ts), texts == others && ts == other_ts);
    }
}
