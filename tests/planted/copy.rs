//! A copy of the tree with every bug in it, each behind its switch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::bugs::Bug;

/// What only the copy has: whether a bug is switched on.
const SWITCH: &str = r#"//! Which planted bug is switched on.

use std::sync::OnceLock;

/// Whether this one is.
pub fn on(bug: &str) -> bool {
    static BUG: OnceLock<String> = OnceLock::new();
    BUG.get_or_init(|| std::env::var("PLANTED_BUG").unwrap_or_default()) == bug
}
"#;

/// The copy.
pub struct Copy {
    /// Its top.
    pub tree: PathBuf,
    /// Where it is built.
    pub target: PathBuf,
    /// What was found so far.
    pub results: PathBuf,
}

impl Copy {
    /// Makes it anew from the last commit, under cargo's folder for tests. What was built there before is used again.
    pub fn make(top: &Path, bugs: &[Bug]) -> Copy {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
        let copy =
            Copy { tree: folder.join("tree"), target: folder.join("target"), results: folder.join("results.txt") };
        let fresh = folder.join("fresh");
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(&fresh).unwrap();
        unpack(top, &fresh);
        let files = planted(&fresh, bugs)
            .unwrap_or_else(|wrong| panic!("these do not apply to the last commit:\n  {}", wrong.join("\n  ")));
        for (file, text) in files {
            fs::write(fresh.join(file), text).unwrap();
        }
        fs::write(fresh.join("src/planted.rs"), SWITCH).unwrap();
        let lib = fresh.join("src/lib.rs");
        let text = fs::read_to_string(&lib).unwrap();
        fs::write(&lib, text.replacen("\npub mod admin;", "\npub mod planted;\npub mod admin;", 1)).unwrap();
        copy.take_over(&fresh);
        let tools = copy.tree.join(".tools");
        if !tools.exists() && top.join(".tools").exists() {
            // It may lead to a tree that is gone.
            let _ = fs::remove_file(&tools);
            std::os::unix::fs::symlink(top.join(".tools"), tools).unwrap();
        }
        copy
    }

    /// Builds tests of it, those that cargo is told of; what cargo says, message by message.
    pub fn build_tests(&self, which: &[&str]) -> Vec<serde_json::Value> {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["test", "--locked", "--no-run", "--features", "danger-test-switches", "--message-format=json"])
            .args(which)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env_remove("RUSTFLAGS")
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "the copy with every bug in it does not build");
        let lines = output.stdout.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Only what is different is written, and so is newer than what was built: cargo builds what has changed, and no
    /// more.
    fn take_over(&self, fresh: &Path) {
        let (new, old) = (files(fresh), files(&self.tree));
        for file in old.iter().filter(|file| !new.contains(*file)) {
            fs::remove_file(self.tree.join(file)).unwrap();
        }
        for file in new {
            let (from, to) = (fresh.join(&file), self.tree.join(&file));
            if fs::read(&from).unwrap() != fs::read(&to).unwrap_or_default() || !to.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(&from, &to).unwrap();
            }
        }
    }
}

/// Every file below a folder, by its way from there; not what a link leads to.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.insert(entry.path().strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found
}

fn unpack(top: &Path, to: &Path) {
    let mut archive = Command::new("git")
        .args(["archive", "HEAD"])
        .current_dir(top)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the copy is made from a git checkout");
    let tar = Command::new("tar").arg("-x").arg("-C").arg(to).stdin(archive.stdout.take().unwrap()).status().unwrap();
    assert!(archive.wait().unwrap().success() && tar.success(), "git archive HEAD | tar -x");
}

/// Where in a file, what is to stand there instead, and for which bug.
type Change<'a> = (Range<usize>, String, &'a str);

/// Every file that a bug changes, with all of them in it; or what does not apply.
pub fn planted(tree: &Path, bugs: &[Bug]) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut wrong = Vec::new();
    let mut changes: BTreeMap<String, Vec<Change<'_>>> = BTreeMap::new();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for bug in bugs {
        for edit in &bug.edits {
            let text = texts
                .entry(edit.file.clone())
                .or_insert_with(|| fs::read_to_string(tree.join(&edit.file)).unwrap_or_default());
            let places: Vec<usize> = text.match_indices(&edit.original).map(|(at, _)| at).collect();
            let [at] = places[..] else {
                wrong.push(format!("{}: {} has its text {} times", bug.name, edit.file, places.len()));
                continue;
            };
            let switch = format!("crate::planted::on({:?})", bug.name);
            if !edit.planted.contains("PLANTED") && bug.edits.len() == 1 {
                wrong.push(format!("{}: nothing in it asks whether it is switched on", bug.name));
            }
            let planted = edit.planted.replace("PLANTED", &switch);
            changes.entry(edit.file.clone()).or_default().push((at..at + edit.original.len(), planted, &bug.name));
        }
    }
    let mut files = BTreeMap::new();
    for (file, mut changes) in changes {
        changes.sort_by_key(|(range, ..)| range.start);
        for pair in changes.windows(2).filter(|pair| pair[0].0.end > pair[1].0.start) {
            wrong.push(format!("{file}: {} and {} change the same text", pair[0].2, pair[1].2));
        }
        let mut text = texts[&file].clone();
        if wrong.is_empty() {
            changes.iter().rev().for_each(|(range, planted, _)| text.replace_range(range.clone(), planted));
        }
        files.insert(file, text);
    }
    if wrong.is_empty() { Ok(files) } else { Err(wrong) }
}
