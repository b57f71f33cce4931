//! Whether the keys of signed stamps can be used, by this process.

use super::report::{Category, Finding};
use crate::config::resolved::{Config, Listener, Role, Signatures};
use crate::signing::{self, Keys};

/// One finding a listener that has keys, and one for each key that is wrong or in view; none, and no category, where no
/// listener has any.
pub fn look(config: &Config) -> Option<Category> {
    let mut category = Category::new("signed stamps");
    let mut any = false;
    for listener in &config.listeners {
        if let Some(signatures) = &listener.signatures {
            any = true;
            of(listener, signatures).into_iter().for_each(|finding| category.add(finding));
        }
    }
    any.then_some(category)
}

fn of(listener: &Listener, signatures: &Signatures) -> Vec<Finding> {
    let name = &listener.name;
    let ids: Vec<&str> = signatures.keys.iter().map(|key| key.kid.as_str()).collect();
    let mut findings = match Keys::load(signatures) {
        Ok(_) => vec![Finding::good(match &listener.role {
            Role::Guard(_) => format!("{name}: verifies with {}", ids.join(", ")),
            Role::Stamp(_) => format!("{name}: signs with {}", ids.first().copied().unwrap_or_default()),
        })],
        Err(problems) => {
            let bad = |problem: signing::KeyProblem| {
                let what = format!("{name}: the key '{}' in {}: {}", problem.kid, problem.file.display(), problem.what);
                Finding::bad(what, problem.help)
            };
            problems.into_iter().map(bad).collect()
        }
    };
    findings.extend(signing::in_view(signatures).into_iter().map(|key| {
        let file = key.file.display();
        let help = format!("chmod o= {file}, and think of whether somebody has read it: a new key is a new id");
        Finding::warning(format!("{name}: every user of this host can read the key '{}'", key.kid), help)
    }));
    findings
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::super::report::Verdict;
    use super::*;
    use crate::config::resolved::SignatureKey;

    #[test]
    fn a_key_is_looked_at_as_a_start_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |kid: &str, text: &str, mode: u32| {
            let file = folder.path().join(kid);
            std::fs::write(&file, text).expect("a file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("its owner may");
            SignatureKey { kid: kid.parse().expect("an id"), file }
        };
        let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
        let config = crate::metrics::tests::config(&["orders"]);
        let listener = &config.listeners[0];
        let verdicts = |keys: Vec<SignatureKey>| -> Vec<Verdict> {
            let signatures = Signatures { keys, window: Duration::from_secs(30), required: true };
            of(listener, &signatures).iter().map(Finding::verdict).collect()
        };
        assert_eq!(verdicts(vec![key("k1", good, 0o600)]), [Verdict::Good]);
        assert_eq!(verdicts(vec![key("k2", good, 0o644)]), [Verdict::Good, Verdict::Warning]);
        assert_eq!(verdicts(vec![key("k3", "short", 0o600), key("k4", "", 0o600)]), [Verdict::Bad, Verdict::Bad]);
    }
}
