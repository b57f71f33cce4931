//! Signed stamps in the file.

use super::*;

/// `SMALL`, with this at its guard and this at its stamp.
fn signed(guard: &str, stamp: &str) -> String {
    with("role: guard,", &format!("role: guard, {guard}")).replacen("role: stamp,", &format!("role: stamp, {stamp}"), 1)
}

const KEYS: &str = "keys: [ { kid: k2, file: /etc/k2 }, { kid: k1, file: k1.key } ]";

#[test]
fn both_roles_have_keys_and_the_guard_its_window() {
    let text = signed(&format!("signatures: {{ {KEYS} }},"), "signatures: { keys: [ { kid: k2, file: /etc/k2 } ] },");
    let config = good(&text).config;
    let of_guard = guard(&config).0.signatures.as_ref().expect("it has keys");
    let keys: Vec<_> = of_guard.keys.iter().map(|key| (key.kid.as_str(), key.file.display().to_string())).collect();
    assert_eq!(keys, [("k2", "/etc/k2".to_owned()), ("k1", "k1.key".to_owned())], "in the order of the file");
    assert_eq!((of_guard.window, of_guard.required), (seconds(30), true));
    assert_eq!(stamp(&config).0.signatures.as_ref().map(|signatures| signatures.keys.len()), Some(1));
    assert!(guard(&good(SMALL).config).0.signatures.is_none());
}

#[test]
fn what_cannot_make_sense_is_refused() {
    for (guard, stamp, needle, what) in [
        ("signatures: {},", "", "{}", "listeners[0].signatures has no 'keys'"),
        ("signatures: { keys: [] },", "", "[]", "listeners[0].signatures.keys"),
        ("signatures: { keys: [ { kid: k1 } ] },", "", "{ kid", "has no 'file'"),
        ("signatures: { keys: [ { kid: \"k 1\", file: a } ] },", "", "\"k 1\"", "'k 1' is no key id"),
        (
            "signatures: { keys: [ { kid: k1, file: a }, { kid: k1, file: b } ] },",
            "",
            "k1, file: b",
            "'k1' is the id of another key too (listeners[0].signatures.keys[0].kid)",
        ),
        (&format!("signatures: {{ {KEYS}, window: 500ms }},"), "", "500ms", "from 1s to 5m"),
        (&format!("signatures: {{ {KEYS}, window: 1500ms }},"), "", "1500ms", "a whole number of seconds"),
        (&format!("signatures: {{ {KEYS}, window: 301s }},"), "", "301s", "from 1s to 5m"),
        ("", &format!("signatures: {{ {KEYS}, window: 5s }},"), "window", "'window' is for a guard"),
        ("", &format!("signatures: {{ {KEYS}, required: false }},"), "required", "'required' is for a guard"),
    ] {
        let text = signed(guard, stamp);
        let found = bad(&text);
        assert!(found.len() == 1 && found[0].contains(what), "{text}\n{found:?}");
        assert!(found[0].contains(&at(&text, needle)), "{needle}: {found:?}");
    }
}

#[test]
fn what_is_rarely_meant_is_warned_of() {
    let warned = |guard: &str| {
        let warnings = good(&signed(&format!("signatures: {{ {KEYS}, {guard} }},"), "")).warnings;
        let ours = warnings.into_iter().filter(|warning| warning.what.contains("signatures"));
        ours.map(|warning| warning.what).collect::<Vec<_>>()
    };
    assert!(warned("window: 11s").is_empty() && warned("window: 5m").is_empty());
    let short = warned("window: 10s");
    assert!(short.len() == 1 && short[0].contains("window (10s) is not longer than hold.timeout (10s)"), "{short:?}");
    let open = warned("required: false");
    assert!(open.len() == 1 && open[0].contains("takes stamps without a signature too"), "{open:?}");
}
