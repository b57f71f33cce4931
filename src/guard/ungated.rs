//! The guard with its gate compiled out: for `make bench` alone, to see what the fence itself costs.
//!
//! Such a guard reads no stamp and refuses nothing, so three things stand between it and anybody's data. The feature
//! does not compile unless the build says that it is the bench's, in the very words of the Makefile. The binary says in
//! `--version` what it is. And it does nothing unless the environment says that this is a measurement.

#[cfg(feature = "bench-without-gate")]
const _: () = assert!(
    is_of_the_bench(option_env!("EPOCHGATE_BUILD_WITHOUT_GATE")),
    "bench-without-gate takes the fence out: it is for `make bench`, and nothing that ships has it"
);

/// Whether a build says that it is the bench's. Strings can't be compared with `==` in a constant.
#[cfg(any(test, feature = "bench-without-gate"))]
const fn is_of_the_bench(said: Option<&str>) -> bool {
    let Some(said) = said else { return false };
    let (said, expected) = (said.as_bytes(), b"make bench");
    if said.len() != expected.len() {
        return false;
    }
    let mut at = 0;
    while at < said.len() {
        if said[at] != expected[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Whether it is compiled out.
pub const COMPILED_OUT: bool = cfg!(feature = "bench-without-gate");

/// What `--version` says of it.
pub const WARNING: &str =
    "DANGER: built without the gate, for `make bench` alone: it refuses no write; never run it on data";

/// The variable that says that this is a measurement, with the only value that does.
const MEASUREMENT: (&str, &str) = ("EPOCHGATE_WITHOUT_GATE", "only to measure");

/// Why this process must not do anything; none in every build but the bench's.
pub fn objection() -> Option<&'static str> {
    let (name, value) = MEASUREMENT;
    (COMPILED_OUT && std::env::var(name).as_deref() != Ok(value)).then_some(WARNING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tests_run_has_its_gate() {
        assert!(!COMPILED_OUT && objection().is_none());
    }

    #[test]
    fn no_other_words_build_it() {
        assert!(is_of_the_bench(Some("make bench")));
        for said in [None, Some(""), Some("1"), Some("make benches"), Some("make bencH")] {
            assert!(!is_of_the_bench(said), "{said:?}");
        }
    }
}
