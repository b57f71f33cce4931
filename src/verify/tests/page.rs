//! `docs/reference/history.md` and the checker say the same, both ways.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Invariant, history};

/// A table of the page: the first cell of each row, and the others.
fn table(heading: &str) -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../../docs/reference/history.md");
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned());
        (cells.next().expect("a first cell"), cells.collect())
    })
    .collect()
}

#[test]
fn every_invariant_is_documented() {
    let documented = table("What is checked");
    let documented: Vec<(&str, &str)> = documented.iter().map(|(code, cells)| (&**code, &*cells[1])).collect();
    assert_eq!(documented, Invariant::ALL.map(|invariant| (invariant.code(), invariant.in_words())));
    for (code, cells) in table("What is checked") {
        let rules = ["R1", "R2", "R3", "R4", "R5", "R6", "R7", "liveness", "history"];
        assert!(cells[0].split(", ").all(|rule| rules.contains(&rule)), "{code}: {}", cells[0]);
    }
}

#[test]
fn every_line_of_the_outside_is_documented() {
    let quoted = |cell: &str| -> BTreeSet<String> {
        format!("`{cell}")
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| !["", "from"].contains(word))
            .map(str::to_owned)
            .collect()
    };
    let mut documented = BTreeMap::new();
    for (event, cells) in table("What you write") {
        documented.insert(event, cells.get(1).map(|cell| quoted(cell)).unwrap_or_default());
    }
    let mut written: BTreeMap<String, BTreeSet<String>> = Default::default();
    for line in history::samples() {
        let value = serde_json::to_value(&line).expect("it is plain data");
        let common = ["at", "from", "event"];
        let fields = value.as_object().expect("an object").keys().filter(|key| !common.contains(&key.as_str()));
        written.entry(value["event"].as_str().expect("a word").to_owned()).or_default().extend(fields.cloned());
    }
    assert_eq!(documented, written);
}
