//! `docs/reference/cli.md` and the command line say the same: every command, flag, variable and exit code, both ways.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;
use super::exit::Exit;

/// The flags that a key in the configuration file has, as INTERFACES.md names them. Each has a variable.
const SETTINGS: &[&str] = &[
    "config",
    "id",
    "state-dir",
    "etcd",
    "embedded",
    "prefix",
    "lease-ttl",
    "listen",
    "upstream",
    "resource",
    "mode",
    "on-coordinator-loss",
    "advertise",
    "admin",
    "audit",
    "log-format",
    "log-level",
    "workers",
];

/// What is said once, by a person, on the command line: a variable would say it again and again.
const SAID_ONCE: &[&str] = &[
    "dir",
    "san",
    "days",
    "renew",
    "tables",
    "schema",
    "role",
    "guard-role",
    "drop",
    "no-clock",
    "wait",
    "ttl",
    "release",
    "timeout",
    "as",
    "to",
    "adopt-floor",
    "force",
    "accept-reordering",
    "watch",
    "output",
    "unsafe",
    "file",
    "config-map",
    "image",
    "secret",
    "state-claim",
    "port",
    "admin-port",
    "no-native-sidecar",
    "strict",
    "help",
    "version",
];

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/cli.md");
    std::fs::read_to_string(&path).expect("docs/reference/cli.md is there")
}

/// Every command that can be typed, with its words: `epochgate gate open`.
fn commands() -> Vec<(String, Command)> {
    fn walk(command: &Command, above: &str, found: &mut Vec<(String, Command)>) {
        let name = format!("{above}{}", command.get_name());
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set()) {
            walk(inner, &format!("{name} "), found);
        }
        found.push((name, command.clone()));
    }
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    walk(&root, "", &mut found);
    found
}

/// A flag as the reference writes it: `--output`, `-o`.
fn flags(command: &Command) -> impl Iterator<Item = (String, &Arg)> {
    command.get_arguments().filter_map(|arg| arg.get_long().map(|long| (format!("--{long}"), arg)))
}

/// The rows of the reference below the heading of a command: flag and variable.
fn documented(text: &str, command: &str) -> Option<BTreeSet<(String, String)>> {
    let heading = format!("## `{command}`");
    let section =
        text.split("\n## ").find(|section| format!("## {}", section.lines().next().unwrap_or("")) == heading)?;
    Some(rows(section))
}

/// The first two cells of each row that begins with a flag, the flag without its short form and its value.
fn rows(section: &str) -> BTreeSet<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let flag = cells.next()?.split('`').next()?;
        let flag = flag.split([' ', ',']).find(|word| word.starts_with("--"))?;
        let variable = cells.next()?.trim_matches('`');
        Some((flag.to_owned(), variable.to_owned()))
    };
    section.lines().filter_map(row).collect()
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[test]
fn every_command_and_flag_is_documented_and_the_other_way_round() {
    let text = reference();
    let mut problems = Vec::new();
    let commands = commands();
    let process = documented(&text, "Flags of a process")
        .or_else(|| text.split("\n## ").find(|section| section.starts_with("Flags of a process")).map(rows));
    let process = process.expect("the reference has a section `Flags of a process`");
    for (name, command) in &commands {
        if command.get_subcommands().any(|inner| inner.get_name() != "help") && name != "epochgate check" {
            continue;
        }
        let Some(mut written) = documented(&text, name) else {
            problems.push(format!("{name} has no section"));
            continue;
        };
        let section = text.split("\n## ").find(|section| section.starts_with(&format!("`{name}`"))).unwrap_or("");
        if section.contains("[flags of a process](#flags-of-a-process)") {
            written.extend(process.iter().cloned());
        }
        for listener in ["guard", "stamp"] {
            if section.contains(&format!("[flags of {listener}](#epochgate-{listener})")) {
                written.extend(documented(&text, &format!("epochgate {listener}")).unwrap_or_default());
            }
        }
        let has: BTreeSet<(String, String)> = flags(command)
            .filter(|(flag, _)| !["--help", "--version"].contains(&flag.as_str()))
            .map(|(flag, arg)| (flag, variable(arg)))
            .collect();
        problems.extend(
            has.difference(&written).map(|(flag, variable)| format!("{name}: {flag} ({variable}) is not documented")),
        );
        problems.extend(
            written.difference(&has).map(|(flag, variable)| format!("{name}: {flag} ({variable}) does not exist")),
        );
    }
    let names: BTreeSet<&str> = commands.iter().map(|(name, _)| name.as_str()).collect();
    for section in text.split("\n## ").filter_map(|section| section.strip_prefix("`epochgate")) {
        let name = format!("epochgate{}", section.split('`').next().unwrap_or(""));
        if !names.contains(name.as_str()) {
            problems.push(format!("{name} is documented and does not exist"));
        }
    }
    assert!(problems.is_empty(), "docs/reference/cli.md:\n  {}", problems.join("\n  "));
}

#[test]
fn every_setting_has_its_variable_and_nothing_else_has_one() {
    let mut seen = BTreeSet::new();
    for (name, command) in commands() {
        for (flag, arg) in flags(&command) {
            let long = flag.trim_start_matches("--");
            seen.insert(long.to_owned());
            let expected = if SAID_ONCE.contains(&long) {
                String::new()
            } else {
                format!("EPOCHGATE_{}", long.replace('-', "_").to_uppercase())
            };
            assert_eq!(variable(arg), expected, "{name} {flag}");
        }
    }
    for setting in SETTINGS {
        assert!(seen.contains(*setting), "--{setting} is in INTERFACES.md and no command has it");
    }
}

#[test]
fn every_exit_code_is_documented_and_the_other_way_round() {
    let text = reference();
    let section = text.split("\n## ").find(|section| section.starts_with("Exit codes")).expect("a section");
    let written: Vec<u8> =
        section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(written, Exit::ALL.map(Exit::code));
}

#[test]
fn commands_that_are_planned_are_named_as_such() {
    let text = reference();
    let section = text.split("\n## ").find(|section| section.starts_with("Not in this version")).expect("a section");
    for name in super::later::names() {
        assert!(section.contains(&format!("`{name}`")), "{name}");
    }
}
