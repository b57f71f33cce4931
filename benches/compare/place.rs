//! Where a run took place: the machine, what was measured in which version, and what else the machine did.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, geteuid, getrlimit};

use crate::running::{find, launch};
use crate::support::process::LONG;
use crate::{Plan, measure, targets};

/// As it was when the run began.
pub struct Place {
    pub today: String,
    /// The processor's name.
    pub processor: String,
    /// How often, and for how long.
    pub how: String,
    pub load: String,
    kernel: String,
    cores: usize,
    revision: String,
    versions: String,
    user: &'static str,
    congestion: String,
    descriptors: String,
}

impl Place {
    /// This machine, now; how it is measured.
    pub fn here(plan: &Plan) -> Place {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let kernel = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned();
        let limit = getrlimit(Resource::Nofile).current;
        Place {
            today: jiff::Zoned::now().date().to_string(),
            processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
            how: format!("REPEAT={} WINDOW={:?}", plan.repeat, plan.window),
            load: measure::busy(),
            kernel: kernel("kernel/osrelease"),
            cores: std::thread::available_parallelism().map_or(2, usize::from),
            revision: revision(),
            versions: TOOLS.iter().filter_map(|(name, flag)| version(name, flag)).collect::<Vec<_>>().join(", "),
            user: if geteuid().is_root() { "as root" } else { "not as root" },
            congestion: kernel("net/ipv4/tcp_congestion_control"),
            descriptors: limit.map_or("any number of".to_owned(), |limit| limit.to_string()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { processor, cores, kernel, revision, versions, user, congestion, descriptors, .. } = self;
        write!(
            out,
            "{processor}, {cores} cores, Linux {kernel}; epochgate {revision}; {versions}; run {user}, TCP congestion \
             control {congestion}, {descriptors} descriptors a process"
        )
    }
}

/// What is measured with, and how it is asked for its version.
const TOOLS: [(&str, &str); 4] = [("nginx", "-v"), ("haproxy", "-v"), ("envoy", "--version"), ("h2load", "--version")];

fn version(name: &str, flag: &str) -> Option<String> {
    let said = launch(&find(name)?).args([flag]).run(LONG);
    let said = said.stdout() + &said.stderr();
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let number = said.split(|c: char| !c.is_ascii_digit() && c != '.').find(number)?;
    Some(format!("{name} {number}"))
}

/// What git calls the tree that was built.
fn revision() -> String {
    if targets::is_another() {
        return "of another build (`EPOCHGATE_TESTED`)".to_owned();
    }
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = Command::new("git").current_dir(tree).args(["describe", "--always", "--dirty"]).output();
    let said =
        said.ok().filter(|said| said.status.success()).map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    said.map_or("of an unknown revision".to_owned(), |said| said.trim().to_owned())
}
