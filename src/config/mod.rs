//! The configuration: as written, checked, and as the program uses it.
//!
//! ```text
//! YAML ── tree ──────► overrides ──► check ────────► raw ──► resolve, times, warnings ──► resolved
//!         with places  flags over    against the     serde   what it means, all
//!                      the file      JSON Schema             inequalities
//! ```
//!
//! Every step reports all that it finds into one list, and takes out what is bad so that the next can go on: whoever
//! has twelve mistakes in a file sees twelve problems, each with its place and with what to do.

mod check;
pub mod forms;
mod overrides;
mod problem;
pub mod raw;
mod raw_listener;
mod raw_session;
mod raw_trust;
mod resolve;
pub mod resolved;
mod resolved_session;
mod resolved_trust;
mod schema;
pub mod secrets;
mod surroundings;
pub mod times;
mod tree;
pub mod units;
mod warnings;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::Path;

pub use overrides::{Overrides, Single};
pub use problem::{KeyPath, Location, Place, Problem, variable};
pub use resolved::Config;
pub use schema::schema;
pub use surroundings::Surroundings;
pub use times::{Exposure, exposure};

use problem::Report;
use resolve::{Beside, Resolver};
use tree::{LARGEST_FILE, Node};

/// What the reference promises to say of everything that is planned and not built.
const NOT_YET: &str = "not in this version";

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed and rarely meant, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads the text of a file, at most as much as [`load`] takes.
///
/// # Errors
/// One problem, where it cannot be read, is larger than 1 MiB, or is not UTF-8.
pub fn read_file(path: &Path) -> Result<String, Problem> {
    let problem = |what: String, help: &str| Problem {
        at: Location { file: Some(path.display().to_string().into()), place: Place::Whole, path: KeyPath::root() },
        what,
        help: help.to_owned(),
    };
    let mut bytes = Vec::new();
    let most = LARGEST_FILE as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| problem(format!("the file cannot be read: {error}"), "check the path of --config"))?;
    if bytes.len() > LARGEST_FILE {
        return Err(problem(
            "the file has more than 1 MiB".into(),
            "name many resources with a range: \"orders/{0..63}\"",
        ));
    }
    String::from_utf8(bytes).map_err(|_| problem("the file is not UTF-8".into(), "save it as UTF-8"))
}

/// Makes a configuration of a file (its name for messages, and its text), of what flags and environment variables
/// say, and of defaults that depend on this host. With `single` the command has its own listener, or none, and the
/// file may be left out; without, the file's listeners are taken.
///
/// # Errors
/// Every problem that could be found, in the order of the file, those of flags last.
pub fn load(
    file: Option<(&Path, &str)>,
    overrides: &Overrides,
    single: Option<Single>,
) -> Result<Loaded, Vec<Problem>> {
    load_in(file, overrides, single, &Surroundings::here())
}

/// As [`load`]; the file is read from where `--config` says, if it says so.
///
/// # Errors
/// As [`load`] and [`read_file`].
pub fn load_from(overrides: &Overrides, single: Option<Single>) -> Result<Loaded, Vec<Problem>> {
    match &overrides.config {
        None => load(None, overrides, single),
        Some(path) => {
            let text = read_file(path).map_err(|problem| vec![problem])?;
            load(Some((path, &text)), overrides, single)
        }
    }
}

/// As [`load`], for a host described by `surroundings`.
///
/// # Errors
/// As [`load`].
pub fn load_in(
    file: Option<(&Path, &str)>,
    overrides: &Overrides,
    single: Option<Single>,
    surroundings: &Surroundings,
) -> Result<Loaded, Vec<Problem>> {
    let name = file.map(|(path, _)| std::sync::Arc::from(path.display().to_string()));
    let mut problems = Report::new(name.clone());
    let tree = match file {
        None => Some(Node::map(Place::Whole)),
        Some((_, text)) => tree::parse(text, &mut problems),
    };
    let Some(mut tree) = tree else { return Err(problems.sorted()) };
    let is_mapping = matches!(tree.content, tree::Content::Map(_));
    overrides.apply(&mut tree, single, &mut problems);
    let tree = check::check(tree, schema::built(), &mut problems);
    if !is_mapping {
        // The check has said so; nothing more can be said of its keys.
        return Err(problems.sorted());
    }
    let raw: raw::File = match serde_json::from_value(tree.to_json()) {
        Ok(raw) => raw,
        Err(error) => {
            // The check lets nothing through that does not fit; if it ever does, say so rather than guess.
            problems.add(
                Place::Whole,
                &KeyPath::root(),
                format!("the file cannot be read: {error}"),
                "report this as a bug",
            );
            return Err(problems.sorted());
        }
    };
    let mut resolver = Resolver { tree: &tree, problems, warnings: Report::new(name) };
    let beside = Beside {
        surroundings,
        adopt_floor: overrides.adopt_floor,
        without_listeners: single == Some(Single::NoListener),
    };
    let config = resolve::resolve(&raw, &beside, &mut resolver);
    if config.is_none() && resolver.problems.is_empty() {
        let what = "something that is needed is missing, and nobody said what";
        resolver.problems.add(Place::Whole, &KeyPath::root(), what, "report this as a bug");
    }
    match config {
        Some(config) if resolver.problems.is_empty() => Ok(Loaded { config, warnings: resolver.warnings.sorted() }),
        _ => Err(resolver.problems.sorted()),
    }
}
