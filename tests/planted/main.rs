//! Planted bugs: what a plausible mistake would break, the project's own tests must find.
//!
//! `blind.txt` and `listed.txt` hold the bugs: as data, each a change of the production code. The quick test here sees
//! that each still applies to the tree; `docs/planted-bugs.md` says of each which test found it. To find out again
//! (`make planted`, an hour or two of a small machine; `BUGS="name name"` for some, `TESTS="lib crashes"` by some tests):
//!
//! 1. [`copy`] makes a copy of the last commit, and plants all bugs in it at once, each behind a switch that only the
//!    copy has: the module `planted`, which reads the environment variable `PLANTED_BUG`.
//! 2. The copy's tests are built once, and run once with no bug switched on: all must pass.
//! 3. [`run`] switches on one bug after the other and runs the tests, those that a bug names first, then the cheapest,
//!    until one fails. That one is run again, without the bug and with it: it must pass and fail.
//!
//! `TESTS=simulation` by itself says which seed of the simulation finds each bug first instead ([`seeds`]).
//!
//! A bug's form: `== name`, then `rule:`, `what:` and `first:` (the test binaries to begin with, each with a filter),
//! then for each place `file:`, `--- original` with text that stands there exactly once, and `+++ planted` with what
//! takes its place, in which `PLANTED` says whether the bug is switched on. Indentation counts; empty lines at the
//! end of either do not.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod bugs;
mod copy;
mod run;
mod seeds;
mod table;

use std::path::Path;

use bugs::Bug;

/// The top of the repository.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_bug_applies_to_the_tree() {
    let wrong: Vec<String> = copy::planted(top(), &Bug::all()).err().unwrap_or_default();
    assert!(wrong.is_empty(), "mend the text in tests/planted, or the bug is gone:\n  {}", wrong.join("\n  "));
}

#[test]
fn the_page_has_every_bug_and_who_found_it() {
    let page = std::fs::read_to_string(top().join("docs/planted-bugs.md")).unwrap();
    let rows = table::rows(&page);
    for bug in Bug::all() {
        let found = rows.get(&bug.name).unwrap_or_else(|| panic!("docs/planted-bugs.md has no row for {}", bug.name));
        assert!(found.contains(": "), "{}: docs/planted-bugs.md names no test that found it, but {found:?}", bug.name);
    }
    let bugs: Vec<String> = Bug::all().into_iter().map(|bug| bug.name).collect();
    let gone: Vec<&String> = rows.keys().filter(|name| !bugs.contains(name)).collect();
    assert!(gone.is_empty(), "docs/planted-bugs.md has rows for bugs that are not planted: {gone:?}");
}

/// Plants every bug, or those that `PLANTED_ONLY` names, runs all tests, or those that `PLANTED_TESTS` names (`lib` and
/// files of `tests/`), and prints the table. It begins where it was interrupted, also
/// by another commit: `planted/results.txt` in cargo's folder for tests has what was found, and goes where all of it is
/// to be found again.
#[test]
#[ignore = "takes hours: `make planted`"]
fn every_bug_is_found() {
    let only = std::env::var("PLANTED_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split_whitespace().collect();
    let tests = std::env::var("PLANTED_TESTS").unwrap_or_default();
    let tests: Vec<&str> = tests.split_whitespace().collect();
    let bugs = Bug::all();
    for name in &only {
        assert!(bugs.iter().any(|bug| bug.name == *name), "there is no bug {name} in tests/planted");
    }
    let copy = copy::Copy::make(top(), &bugs);
    if tests == ["simulation"] {
        let wanted = |bug: &&Bug| only.contains(&&*bug.name) || only.is_empty();
        return seeds::Seeds::build(&copy).look_for(&bugs.iter().filter(wanted).collect::<Vec<_>>());
    }
    let mut suite = run::Suite::build(&copy, &tests);
    suite.run_without_a_bug();
    let wanted = |bug: &&Bug| only.contains(&&*bug.name) || only.is_empty();
    // Where most of them are found takes seconds, and all tests take minutes.
    bugs.iter().filter(wanted).for_each(|bug| {
        if !only.is_empty() || !suite.has_found(bug) {
            suite.look_for(bug, false);
        }
    });
    bugs.iter().filter(wanted).for_each(|bug| {
        if !suite.has_found(bug) {
            suite.look_for(bug, true);
        }
    });
    println!("\n{}", table::print(&bugs, &suite.findings()));
    let survivors: Vec<String> =
        suite.findings().into_iter().filter(|(_, by)| by == run::NOBODY).map(|it| it.0).collect();
    assert!(survivors.is_empty(), "no test found {survivors:?}");
    assert!(suite.fail_anyway().is_empty(), "these fail without any bug: {:?}", suite.fail_anyway());
}
