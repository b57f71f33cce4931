//! Manifests of Kubernetes, for `epochgate inject`: any text gives a result that reads as it should, or a reason; and what
//! came out goes in again unchanged.

use super::text;
use crate::inject::{Input, Role, Said, Settings, inject};

#[test]
fn manifests() {
    let words = [
        "apiVersion: v1\n",
        "kind: Pod\n",
        "kind: List\n",
        "spec:\n",
        "  containers:\n",
        "  initContainers:",
        "  volumes: []\n",
        "  - name: a\n",
        "- ",
        "\n  ",
        "{\"containers\": [{\"name\": \"a\"}]}",
        "&a ",
        "*a",
        "<<: *a\n",
        "hostNetwork: true\n",
        "---\n",
        "...\n",
        " |+\n",
        " >-\n",
        "? ",
        "# x\n",
        "!!map ",
        "%YAML 1.2\n",
    ];
    let settings = |native| Settings {
        role: Role::Guard,
        config_map: "c".into(),
        image: "i".into(),
        secrets: Vec::new(),
        state_claim: None,
        admin_port: 1,
        ports: Vec::new(),
        native,
    };
    crate::fuzz::engine::fuzz_for("manifests", &words, 3_000, |input| {
        let text = text(input)?;
        Some([true, false].map(|native| {
            let outcome = match inject(&[Input { name: "f", text }], &settings(native)) {
                Ok(outcome) => outcome,
                Err(problem) => {
                    assert!(!problem.at.is_empty() && !problem.help.is_empty());
                    return (vec![problem.what.chars().filter(char::is_ascii_lowercase).collect()], 0);
                }
            };
            let again =
                inject(&[Input { name: "f", text: &outcome.yaml }], &settings(native)).expect("it was read once");
            assert_eq!(again.yaml, outcome.yaml, "a second run changes something");
            assert!(!again.added());
            if !outcome.added() {
                assert_eq!(outcome.yaml, text, "nothing was added, and it is another");
            }
            let word = |said: &Said| match said {
                Said::Added(note) => format!("added {}", note.is_some()),
                Said::Present => "present".to_owned(),
                Said::Skipped(why) | Said::OptedOut(why) => why.split([':', '/']).next().unwrap_or_default().to_owned(),
            };
            (outcome.workloads.iter().map(|workload| word(&workload.said)).collect(), outcome.others)
        }))
    });
}
