//! Everything that was recorded, held against the rules.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use epochgate::verify::{self, Options, Verdict, read};

use crate::support::process::Launch;
use crate::world::World;

/// What the checker said, and of what.
pub struct Judged {
    pub verdict: Verdict,
    /// The folder with the history of each process and of the outside.
    pub folder: PathBuf,
}

/// Collects the histories of a world whose processes have ended, and checks them.
pub fn judge(world: &World<'_>) -> Judged {
    world.record.applied(&world.target);
    let folder = world.folder.path().join("histories");
    fs::create_dir_all(&folder).expect("it is in a temporary folder");
    let mut files = vec![folder.join("outside.jsonl")];
    let mut outside = std::io::BufWriter::new(fs::File::create(&files[0]).expect("the folder was just made"));
    for line in world.record.lines().iter() {
        writeln!(outside, "{}", line.to_json()).expect("there is room");
    }
    outside.flush().expect("there is room");
    for history in world.guards.iter().chain(&world.stamps).flat_map(|node| node.histories()) {
        let copy = folder.join(history.file_name().expect("it is a file"));
        fs::copy(history, &copy).expect("it was listed");
        files.push(copy);
    }
    let read = read::files(&files).unwrap_or_else(|error| panic!("the histories cannot be read: {error}"));
    Judged { verdict: verify::check(&read.lines, Options::default()), folder }
}

/// The same by the command, as a user would; none where this binary has no such command.
pub fn by_command(folder: &Path) -> Option<(bool, String)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("it was just written").map(|entry| entry.expect("it is there").path()).collect();
    files.sort();
    let mut command = Launch::epochgate("verify").arg("verify").args(&files).start();
    let status = command.wait(Duration::from_secs(300));
    let said = format!("{}{}", command.stdout(), command.stderr());
    if said.contains("is not in this version") {
        println!("`epochgate verify` is not in this build: the histories were judged by the library alone");
        return None;
    }
    Some((status.success(), said))
}

/// Keeps everything of a world where it stays, and says where.
pub fn keep(world: &World<'_>, name: &str, plan: &str, verdict: &str) -> PathBuf {
    let kept = std::env::var_os("EPOCHGATE_CHAOS_KEEP")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos"), PathBuf::from);
    let kept = kept.join(name);
    fs::create_dir_all(&kept).expect("the target folder can be written");
    fs::write(kept.join("plan.txt"), plan).expect("the target folder can be written");
    fs::write(kept.join("verdict.txt"), verdict).expect("the target folder can be written");
    for file in fs::read_dir(world.folder.path().join("histories")).into_iter().flatten().flatten() {
        let _ = fs::copy(file.path(), kept.join(file.file_name()));
    }
    for node in world.guards.iter().chain(&world.stamps) {
        let _ = fs::copy(node.folder().join("epochgate.yaml"), kept.join(format!("{}.yaml", node.id)));
        let said = node.process.as_ref().map(crate::support::process::Process::stderr).unwrap_or_default();
        let _ = fs::write(kept.join(format!("{}.log", node.id)), said);
    }
    kept
}
