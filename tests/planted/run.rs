//! Runs the copy's tests, with one bug switched on after the other.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::bugs::Bug;
use super::copy::Copy;

/// What stands where a test should that found a bug.
pub const NOBODY: &str = "nobody";

/// Not run in the copy: they look at the sources themselves, in which the copy has what the tree must not have, and at
/// pages, which lead to what a copy has not; or count what a request costs, to which a copy's bugs add.
const NOT_IN_A_COPY: &[&str] = &["cost", "dependencies", "docs_commands", "planted", "tidy"];
/// The cheapest first; what is not named comes after, what does not exist (yet) is left out.
const ORDER: &[&str] =
    &["lib", "simulation", "model", "mechanisms", "overtaking", "failover", "shared_doors", "store_etcd", "crashes"];
/// How often a test that found a bug is run again with it before its failure counts as an accident.
const AGAIN: usize = 3;

/// The copy's test binaries.
pub struct Suite {
    binaries: Vec<Binary>,
    fail_anyway: Vec<String>,
    tree: PathBuf,
    results: PathBuf,
}

struct Binary {
    name: String,
    path: PathBuf,
    /// How long it took without a bug.
    took: Duration,
}

/// What a run of a binary came to.
enum Ran {
    Passed,
    /// These tests failed.
    Failed(Vec<String>),
    /// It did not end in time, or died: and what it was at.
    Died(String),
}

impl Suite {
    /// Builds the copy's tests; where some are named, only those.
    pub fn build(copy: &Copy, only: &[&str]) -> Suite {
        say("building the copy");
        let named = only.iter().flat_map(|name| if *name == "lib" { vec!["--lib"] } else { vec!["--test", name] });
        let mut binaries = Vec::new();
        for message in copy.build_tests(&named.collect::<Vec<_>>()) {
            let is_test = message["profile"]["test"] == true;
            let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str()) else {
                continue;
            };
            let kind = message["target"]["kind"][0].as_str().unwrap_or_default();
            let name = if kind == "lib" { "lib" } else { name };
            if is_test && ["lib", "test"].contains(&kind) && !NOT_IN_A_COPY.contains(&name) {
                binaries.push(Binary { name: name.to_owned(), path: path.into(), took: Duration::ZERO });
            }
        }
        let place = |binary: &Binary| ORDER.iter().position(|name| *name == binary.name).unwrap_or(ORDER.len());
        binaries.sort_by_key(|binary| (place(binary), binary.name.clone()));
        Suite { binaries, fail_anyway: Vec::new(), tree: copy.tree.clone(), results: copy.results.clone() }
    }

    /// Runs every test with no bug switched on; how long that takes is what a hang is told by.
    pub fn run_without_a_bug(&mut self) {
        for at in 0..self.binaries.len() {
            let name = format!("clean {}", self.binaries[at].name);
            if let Some(took) = self.findings().get(&name) {
                self.binaries[at].took = Duration::from_secs(took.parse().unwrap());
                continue;
            }
            let began = Instant::now();
            let mut ran = self.run(&self.binaries[at], "", &[], Duration::from_secs(3600));
            if let Ran::Failed(tests) = &ran {
                say(&format!("{name}: {tests:?} failed; once more"));
                ran = self.run(&self.binaries[at], "", &[], Duration::from_secs(3600));
            }
            let took = began.elapsed();
            say(&format!("{name}: {} s", took.as_secs()));
            self.binaries[at].took = took;
            match ran {
                Ran::Passed => self.note(&name, &(took.as_secs() + 1).to_string()),
                // What fails anyway finds nothing; the rest of its binary still may.
                Ran::Failed(tests) => self.fail_anyway.extend(tests),
                Ran::Died(how) => panic!("without any bug {}: {how}", self.binaries[at].name),
            }
        }
    }

    /// The tests that fail without any bug.
    pub fn fail_anyway(&self) -> &[String] {
        &self.fail_anyway
    }

    /// Switches a bug on and looks for a test that fails where the bug says, or (`everywhere`) in every test; notes which.
    pub fn look_for(&mut self, bug: &Bug, everywhere: bool) {
        let began = Instant::now();
        let found = if everywhere {
            self.binaries.iter().find_map(|binary| self.finds(bug, binary, &[]))
        } else {
            bug.first.iter().find_map(|(name, filter)| {
                let binary = self.binaries.iter().find(|binary| binary.name == *name)?;
                let filter: Vec<&str> = Some(filter.as_str()).into_iter().filter(|it| !it.is_empty()).collect();
                self.finds(bug, binary, &filter)
            })
        };
        let by = match found {
            Some(by) => by,
            None if everywhere => NOBODY.to_owned(),
            None => return say(&format!("{}: not where it was looked for first", bug.name)),
        };
        say(&format!("{}: {by} ({} s)", bug.name, began.elapsed().as_secs()));
        self.note(&bug.name, &by);
    }

    /// Whether a test is known that finds it.
    pub fn has_found(&self, bug: &Bug) -> bool {
        self.findings().get(&bug.name).is_some_and(|by| by != NOBODY)
    }

    /// The test of this binary that finds a bug.
    fn finds(&self, bug: &Bug, binary: &Binary, filter: &[&str]) -> Option<String> {
        let limit = binary.took * 4 + Duration::from_secs(90);
        match self.run(binary, &bug.name, filter, limit) {
            Ran::Passed => None,
            Ran::Died(how) => Some(format!("{}: {how}", binary.name)),
            Ran::Failed(tests) => tests
                .into_iter()
                .find(|test| self.is_the_bugs_doing(bug, binary, test, limit))
                .map(|test| format!("{}: {test}", binary.name)),
        }
    }

    /// Whether a test that failed passes without the bug, and fails with it once more.
    fn is_the_bugs_doing(&self, bug: &Bug, binary: &Binary, test: &str, limit: Duration) -> bool {
        let alone = ["--exact", test];
        if !matches!(self.run(binary, "", &alone, limit), Ran::Passed) {
            say(&format!("{}: {test} fails without it too", bug.name));
            return false;
        }
        let again = (0..AGAIN).any(|_| !matches!(self.run(binary, &bug.name, &alone, limit), Ran::Passed));
        if !again {
            say(&format!("{}: {test} failed once, and does not again", bug.name));
        }
        again
    }

    fn run(&self, binary: &Binary, bug: &str, arguments: &[&str], limit: Duration) -> Ran {
        let mut command = Command::new(&binary.path);
        command.args(arguments).current_dir(&self.tree).env("PLANTED_BUG", bug);
        let (status, said) = end(&mut command, &self.results.with_extension("output"), limit);
        let of = |end: &str| {
            let tests = said.lines().filter_map(|line| Some(line.strip_prefix("test ")?.strip_suffix(end)?.to_owned()));
            tests.collect::<Vec<String>>()
        };
        match status {
            Some(status) if status.success() => Ran::Passed,
            Some(_) if !of(" ... FAILED").is_empty() => Ran::Failed(of(" ... FAILED")),
            Some(status) => Ran::Died(format!("ends with {status}")),
            None if !of(" ... FAILED").is_empty() => Ran::Failed(of(" ... FAILED")),
            None => Ran::Died(format!("hangs (without the bug it takes {} s)", binary.took.as_secs())),
        }
    }

    /// What was found so far: by bug, the test.
    pub fn findings(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(&self.results).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once('\t')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    fn note(&self, what: &str, found: &str) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.results).unwrap();
        writeln!(file, "{what}\t{found}").unwrap();
    }
}

/// Runs a command to its end, or for so long; how it ended, if it did, and what it said.
pub fn end(command: &mut Command, output: &Path, limit: Duration) -> (Option<ExitStatus>, String) {
    let file = fs::File::create(output).unwrap();
    let mut child = command
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .process_group(0)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > limit {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // Its own children too, where it left any.
    if let Some(group) = Pid::from_raw(i32::try_from(child.id()).unwrap()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
    (status, String::from_utf8_lossy(&fs::read(output).unwrap()).into_owned())
}

pub fn say(text: &str) {
    eprintln!("planted: {text}");
}
