//! The table of `docs/faults.md` names only tests that are there, and leaves no fault without one or a reason.

use std::fs;
use std::path::{Path, PathBuf};

/// The faults that the table has.
const FAULTS: usize = 40;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of each row.
fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(top().join("docs/faults.md")).expect("docs/faults.md is there");
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// The tests that a text names.
fn named(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|word| word.contains(": ")).collect()
}

/// Whether there is such a test: `file: function`, `src/path.rs: function`, or `mechanisms: name::in_force`.
fn is_there(test: &str) -> bool {
    let Some((file, function)) = test.split_once(": ") else { return false };
    let (file, function): (PathBuf, String) = match (file, function.split_once("::")) {
        ("mechanisms", Some((name, "in_force" | "taken_out"))) => {
            let table = fs::read_to_string(top().join("tests/mechanisms/main.rs")).unwrap_or_default();
            return table.contains(&format!(", {name}: "));
        }
        (path, _) if path.starts_with("src/") => (path.into(), function.to_owned()),
        ("tls", Some((module, function))) => (format!("tests/tls/{module}.rs").into(), function.to_owned()),
        ("chaos" | "hostile", _) => (format!("tests/{file}/main.rs").into(), function.to_owned()),
        (path, _) => (format!("tests/{path}.rs").into(), function.to_owned()),
    };
    let source = fs::read_to_string(top().join(file)).unwrap_or_default();
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").is_some_and(|rest| rest.starts_with(&format!("{function}(")))
    });
    // Other attributes may stand between.
    let above =
        |at: usize| lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).copied().collect::<Vec<_>>();
    at.is_some_and(|at| above(at).iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")))
}

#[test]
fn every_fault_has_tests_that_are_there_or_says_what_it_waits_for() {
    let rows = rows();
    let numbers: Vec<String> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(numbers, (1..=FAULTS).map(|number| number.to_string()).collect::<Vec<_>>());
    for row in rows {
        let (number, expected) = (&row[0], &row[2]);
        let tests = named(row.get(3).map_or("", String::as_str));
        let waits = expected.starts_with("waits for ");
        assert_eq!(waits, tests.is_empty(), "{number}: tests, or what it waits for: {row:?}");
        for test in tests.into_iter().chain(named(expected)) {
            assert!(is_there(test), "{number}: there is no test `{test}`");
        }
    }
}

#[test]
fn a_test_that_is_not_there_would_be_found() {
    assert!(!is_there("overtaking: no_such_test"));
    assert!(!is_there("overtaking: under_load"));
    assert!(!is_there("no_such_file: a_test"));
    assert!(!is_there("mechanisms: nonsense::in_force"));
    assert!(is_there("mechanisms: drain::taken_out"));
}
