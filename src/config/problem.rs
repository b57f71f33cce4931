//! What is wrong with a configuration: what, where, and what to do.

use std::fmt;
use std::sync::Arc;

/// The way to a key: `listeners[0].upstream.url`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(Arc<str>),
    Index(usize),
}

impl KeyPath {
    /// The way to the whole file.
    pub const fn root() -> KeyPath {
        KeyPath(Vec::new())
    }

    /// One key further.
    #[must_use]
    pub fn key(&self, key: &str) -> KeyPath {
        self.then(Step::Key(key.into()))
    }

    /// One place of a list further.
    #[must_use]
    pub fn index(&self, index: usize) -> KeyPath {
        self.then(Step::Index(index))
    }

    /// Whether it is the way to the whole file.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    fn then(&self, step: Step) -> KeyPath {
        let mut steps = self.0.clone();
        steps.push(step);
        KeyPath(steps)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) => {
                    write!(f, "{}{key}", if at == 0 { "" } else { "." })?;
                }
                Step::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

/// The place that a value comes from. Those of a file come first, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The configuration as a whole: nothing was written that could be pointed at.
    Whole,
    /// A place in the file.
    Text {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// A flag, or the environment variable of the same meaning.
    Flag(&'static str),
}

/// The environment variable of a flag: `EPOCHGATE_LEASE_TTL` for `--lease-ttl`.
pub fn variable(flag: &str) -> String {
    format!("EPOCHGATE_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase())
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file's name as it was given, where there is a file.
    pub file: Option<Arc<str>>,
    /// The place in it, or the flag.
    pub place: Place,
    /// The key, such as `listeners[0].upstream.url`; empty for the whole file.
    pub path: KeyPath,
}

impl Location {
    /// The line, from 1, where the problem is in a file.
    pub fn line(&self) -> Option<usize> {
        match self.place {
            Place::Text { line, .. } => Some(line),
            _ => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.place, &self.file) {
            (Place::Flag(flag), _) => write!(f, "{flag} ({})", variable(flag)),
            (Place::Text { line, column }, Some(file)) => write!(f, "{file}:{line}:{column}"),
            (Place::Text { line, column }, None) => write!(f, "{line}:{column}"),
            (Place::Whole, Some(file)) => write!(f, "{file}"),
            (Place::Whole, None) => write!(f, "configuration"),
        }
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Location,
    /// What, with the key and the value.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n  help: {}", self.help) }
    }
}

impl std::error::Error for Problem {}

/// More problems than this are counted, not listed: nobody reads them, and a hostile file could have a million.
const LISTED: usize = 100;

/// Collects problems.
#[derive(Debug)]
pub(super) struct Report {
    file: Option<Arc<str>>,
    problems: Vec<Problem>,
    left_out: usize,
}

impl Report {
    pub(super) fn new(file: Option<Arc<str>>) -> Report {
        Report { file, problems: Vec::new(), left_out: 0 }
    }

    /// Whether another problem would be listed. Callers that have to search for a place ask first.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= LISTED
    }

    pub(super) fn add(&mut self, place: Place, path: &KeyPath, what: impl Into<String>, help: impl Into<String>) {
        if self.is_full() {
            self.left_out += 1;
            return;
        }
        let at = Location { file: self.file.clone(), place, path: path.clone() };
        let problem = Problem { at, what: what.into(), help: help.into() };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether a problem at `path`, or of something in it, was reported: what follows from it needs no words.
    pub(super) fn mentions(&self, path: &KeyPath) -> bool {
        self.problems.iter().any(|problem| problem.at.path.0.starts_with(&path.0))
    }

    /// Whether a problem at `path` itself was reported.
    pub(super) fn is_about(&self, path: &KeyPath) -> bool {
        self.problems.iter().any(|problem| problem.at.path == *path)
    }

    /// All of them in the order of the file, then those of flags.
    pub(super) fn sorted(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.at.place);
        if self.left_out > 0 {
            let at = Location { file: self.file, place: Place::Whole, path: KeyPath::root() };
            let what = format!("and {} more problems", self.left_out);
            self.problems.push(Problem { at, what, help: "solve the ones above first".into() });
        }
        self.problems
    }
}

/// The candidate that `written` was most likely meant to be.
pub(super) fn did_you_mean<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// A list of a hundred thousand resources is not searched to the end.
    const LOOKED_AT: usize = 1000;
    let allowed = written.chars().count().div_ceil(3).clamp(1, 3);
    candidates
        .take(LOOKED_AT)
        .map(|candidate| (strsim::damerau_levenshtein(written, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean 'x'?)`, or nothing.
pub(super) fn suggestion<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    did_you_mean(written, candidates).map_or_else(String::new, |meant| format!(" (did you mean '{meant}'?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_like_a_compilers() {
        let at = Location {
            file: Some("epochgate.yaml".into()),
            place: Place::Text { line: 14, column: 5 },
            path: KeyPath::root().key("listeners").index(0).key("upstreem"),
        };
        assert_eq!(at.path.to_string(), "listeners[0].upstreem");
        let what =
            format!("unknown key 'upstreem' in listeners[0]{}", suggestion("upstreem", ["upstream"].into_iter()));
        let problem = Problem { at, what, help: "known keys: upstream".into() };
        assert_eq!(
            problem.to_string(),
            "epochgate.yaml:14:5: unknown key 'upstreem' in listeners[0] (did you mean 'upstream'?)\n  help: known keys: upstream"
        );
        let flag = Location { file: None, place: Place::Flag("--lease-ttl"), path: KeyPath::root() };
        assert_eq!(flag.to_string(), "--lease-ttl (EPOCHGATE_LEASE_TTL)");
        assert_eq!(
            KeyPath::root().key("resources").key("a/{0..3}").key("drain").to_string(),
            "resources[\"a/{0..3}\"].drain"
        );
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(did_you_mean("gaurd", ["guard", "stamp"].into_iter()), Some("guard"));
        assert_eq!(did_you_mean("banana", ["guard", "stamp"].into_iter()), None);
    }

    #[test]
    fn more_than_anyone_reads_is_counted_only() {
        let mut report = Report::new(None);
        for line in 0..LISTED + 5 {
            report.add(Place::Text { line, column: 1 }, &KeyPath::root(), line.to_string(), "");
        }
        let problems = report.sorted();
        assert_eq!(problems.len(), LISTED + 1);
        assert_eq!(problems[LISTED].what, "and 5 more problems");
    }
}
