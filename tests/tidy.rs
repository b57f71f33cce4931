//! House rules that a machine can check (CONTRIBUTING.md says why each is there).

#[path = "support/source.rs"]
mod source;

use std::fs;
use std::process::Command;

use source::{sources, top, words};

/// Above this a file needs a reason, beginning with "long because", in its module documentation.
const LONG: usize = 500;

/// The parts of a worker thread: one thread owns everything in them.
const ONE_THREAD: &[&str] = &["guard", "protocol", "stamp", "worker"];

#[test]
fn every_module_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//!")).map(|source| source.path);
    none("do not begin with a `//!` that says what they are for", silent);
}

#[test]
fn long_files_say_why() {
    let long = sources().into_iter().filter_map(|source| {
        let lines = source.code.lines().count();
        let doc: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        (lines > LONG && !doc.contains("long because")).then(|| format!("{}: {lines} lines", source.path))
    });
    none(&format!("have more than {LONG} lines, and do not say \"long because …\" at their top"), long);
}

#[test]
fn nothing_unwraps() {
    let found = sources().into_iter().flat_map(|source| {
        let places = source.code.match_indices(".unwrap()").map(|(at, _)| source.line_of(at));
        places.map(|line| format!("{}:{line}", source.path)).collect::<Vec<_>>()
    });
    none("unwrap; an `expect` that states why it cannot fail would do", found);
}

#[test]
fn a_worker_shares_nothing() {
    let shared = ["atomic", "Mutex", "RwLock"];
    let found = sources().into_iter().filter(|source| ONE_THREAD.contains(&source.part())).flat_map(|source| {
        let places = shared.iter().flat_map(|word| words(&source.code, word).into_iter().map(move |at| (at, word)));
        places.map(|(at, word)| format!("{}:{}: {word}", source.path, source.line_of(at))).collect::<Vec<_>>()
    });
    none("share state between threads; a worker owns its state, and talks through its mailbox", found);
}

#[test]
fn nothing_tracked_names_a_machine() {
    // Pieced together, so that this file does not name them either.
    let hosts = [["crates", ".io/api"], ["index.", "crates.io"], ["static.", "crates.io"], ["deb.", "debian.org"]];
    let folders = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"]];
    let forbidden: Vec<String> = hosts.iter().chain(&folders).map(|parts| parts.concat()).collect();

    let Some(files) = tracked() else {
        eprintln!("not a git checkout: tracked files are not looked at");
        return;
    };
    let mut found = Vec::new();
    for file in files {
        // Not text, or deleted and not yet committed: nothing to read.
        let Ok(text) = fs::read_to_string(top().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            found.extend(
                forbidden
                    .iter()
                    .filter(|word| begins_a_path_or_host(line, word))
                    .map(|word| format!("{file}:{}: {word}", number + 1)),
            );
        }
    }
    none("name a registry's host, or a path of one machine", found.into_iter());
}

/// `/ho me/x` is a path of a machine, `/v1/ho me/x` is not.
fn begins_a_path_or_host(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || "_-.}".contains(c))
    })
}

fn tracked() -> Option<Vec<String>> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(top()).output().ok()?;
    let names = String::from_utf8(listed.stdout).ok()?;
    listed.status.success().then(|| names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn none(what: &str, found: impl Iterator<Item = String>) {
    let found: Vec<String> = found.collect();
    assert!(found.is_empty(), "these {what}:\n  {}", found.join("\n  "));
}
