//! What `--version` says.

use std::sync::LazyLock;

use crate::fence::mechanism::Mechanism;
use crate::guard::ungated;

/// The package's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision that was built, where the build said so in `EPOCHGATE_REVISION`.
const REVISION: Option<&str> = option_env!("EPOCHGATE_REVISION");

/// Version, revision, and a warning where this build can be weakened.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = written(REVISION, cfg!(feature = "danger-test-switches").then_some(Mechanism::ALL));
        if ungated::COMPILED_OUT {
            text += &format!("\n{}", ungated::WARNING);
        }
        text
    });
    &TEXT
}

fn written(revision: Option<&str>, switches: Option<&[Mechanism]>) -> String {
    let mut text = VERSION.to_owned();
    if let Some(revision) = revision.filter(|revision| !revision.is_empty()) {
        text += &format!(" ({revision})");
    }
    if let Some(mechanisms) = switches {
        text +=
            "\nDANGER: built with test switches. Each of these can be taken out of the fence; never run it on data:";
        for mechanism in mechanisms {
            text += &format!("\n  {}", mechanism.as_str());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_can_be_weakened_says_so_loudly() {
        assert_eq!(written(None, None), VERSION);
        assert_eq!(written(Some("3d03905"), None), format!("{VERSION} (3d03905)"));
        let danger = written(None, Some(Mechanism::ALL));
        assert!(danger.contains("DANGER: built with test switches"));
        assert!(Mechanism::ALL.iter().all(|mechanism| danger.contains(mechanism.as_str())));
        assert_eq!(text().contains("DANGER"), cfg!(feature = "danger-test-switches"));
    }
}
