//! Reading histories from files, a line at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::{Line, Place, What};
use crate::event::Event;
use crate::fence::Moment;

/// No line of a history is nearly this long.
const LONGEST: u64 = 1024 * 1024;

/// Why files are no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("{file}: {source}")]
    File {
        /// Which one.
        file: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// A file is named twice, and every line of it would count twice.
    #[error("{0}: this file is given twice")]
    Twice(Arc<str>),
    /// A line is not one of a history.
    #[error("{place}:{column}: {what}")]
    Line {
        /// Which one.
        place: Place,
        /// From which byte on, from 1.
        column: usize,
        /// Why.
        what: String,
    },
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Every line, file after file.
    pub lines: Vec<Line>,
    /// Lines that a killed process did not write to their end, and that are left out.
    pub torn: Vec<Place>,
    /// Files without a line.
    pub empty: Vec<Arc<str>>,
}

/// Reads files. A line that does not say what process it is of is of the one that its file is named after: its name
/// without the folder and the ending, or the whole path where two files have the same name.
///
/// # Errors
/// [`ReadError`], at the first file or line that is wrong.
pub fn files(paths: &[impl AsRef<Path>]) -> Result<Read, ReadError> {
    let (mut read, mut seen) = (Read::default(), BTreeSet::new());
    for (path, from) in paths.iter().zip(names(paths)) {
        let path = path.as_ref();
        let file: Arc<str> = path.display().to_string().into();
        // What has no such path is no file, or fails to open.
        if path.canonicalize().is_ok_and(|path| !seen.insert(path)) {
            return Err(ReadError::Twice(file));
        }
        let input = File::open(path).map_err(|source| ReadError::File { file: Arc::clone(&file), source })?;
        let before = read.lines.len();
        read_lines(BufReader::new(input), &file, &from, &mut read)?;
        if read.lines.len() == before {
            read.empty.push(file);
        }
    }
    Ok(read)
}

/// Reads one input, named `file`.
///
/// # Errors
/// As [`files`].
pub fn input(input: impl BufRead, file: &str) -> Result<Read, ReadError> {
    let (mut read, file) = (Read::default(), Arc::from(file));
    read_lines(input, &file, &file, &mut read)?;
    Ok(read)
}

/// The first start of a process whose time is before what the process had recorded until then: its host was started
/// anew, and the times before and after are of two clocks.
pub fn first_start_that_went_back(lines: &[Line]) -> Option<&Line> {
    let mut latest: BTreeMap<&Arc<str>, Moment> = BTreeMap::new();
    lines.iter().filter(|line| matches!(line.what, What::Event(_))).find(|line| {
        let latest = latest.entry(&line.from).or_default();
        let went_back = matches!(line.what, What::Event(Event::Started { .. })) && line.at < *latest;
        *latest = line.at.max(*latest);
        went_back
    })
}

/// No host has been up for so long, and since 2001 every time of day is beyond it, in nanoseconds.
const TIME_OF_DAY: Moment = Moment::from_nanos(1_000_000_000_000_000_000);

/// The first line whose `at` is a time of day, where others are of the boot-time clock: they cannot be compared.
pub fn first_time_of_day(lines: &[Line]) -> Option<&Line> {
    let is_one = |line: &&Line| line.at >= TIME_OF_DAY;
    lines.iter().find(is_one).filter(|_| !lines.iter().all(|line| is_one(&line)))
}

fn names(paths: &[impl AsRef<Path>]) -> Vec<Arc<str>> {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let stems: Vec<String> = paths.iter().map(|path| stem(path.as_ref())).collect();
    let is_one = |name: &String| stems.iter().filter(|other| *other == name).count() == 1;
    paths
        .iter()
        .zip(&stems)
        .map(
            |(path, stem)| if is_one(stem) { stem.as_str().into() } else { path.as_ref().display().to_string().into() },
        )
        .collect()
}

/// A line that cannot be read.
struct Bad {
    place: Place,
    column: usize,
    what: String,
    /// Whether it has an end.
    ended: bool,
}

impl From<Bad> for ReadError {
    fn from(Bad { place, column, what, .. }: Bad) -> ReadError {
        ReadError::Line { place, column, what }
    }
}

fn read_lines(mut input: impl BufRead, file: &Arc<str>, from: &Arc<str>, read: &mut Read) -> Result<(), ReadError> {
    let failed = |source| ReadError::File { file: Arc::clone(file), source };
    // Forgiven where nothing follows, or the next start of its process: then it was killed while it wrote.
    let mut bad: Option<Bad> = None;
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let length = input.by_ref().take(LONGEST).read_until(b'\n', &mut bytes).map_err(failed)?;
        if length == 0 {
            break;
        }
        let place = Place { file: Arc::clone(file), line: number };
        let ended = bytes.last() == Some(&b'\n');
        if !ended && bytes.len() as u64 == LONGEST {
            let what = format!("the line is longer than {LONGEST} bytes");
            return Err(ReadError::Line { place, column: 1, what });
        }
        let line = match read_line(&bytes, from, &place) {
            Ok(None) => continue,
            Ok(Some(line)) => line,
            Err((column, what)) => {
                if let Some(earlier) = bad.replace(Bad { place, column, what, ended }) {
                    return Err(earlier.into());
                }
                continue;
            }
        };
        if let Some(earlier) = bad.take() {
            if !matches!(line.what, What::Event(Event::Started { .. })) {
                return Err(earlier.into());
            }
            read.torn.push(earlier.place);
        }
        read.lines.push(line);
    }
    match bad {
        Some(bad) if !bad.ended => read.torn.push(bad.place),
        Some(bad) => return Err(bad.into()),
        None => {}
    }
    Ok(())
}

/// A line, none where it is empty; else from which byte on it is wrong, and why.
fn read_line(bytes: &[u8], from: &Arc<str>, place: &Place) -> Result<Option<Line>, (usize, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| (error.valid_up_to() + 1, "not UTF-8".to_owned()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Ok(None);
    }
    let line = Line::parse(text, from, place.clone());
    line.map(Some).map_err(|error| {
        let (said, at) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
        (error.column().max(1), said.strip_suffix(&at).unwrap_or(&said).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: &str = r#"{"at":5,"event":"started","id":"a","listeners":[]}"#;
    const REWOUND: &str = r#"{"at":1,"event":"rewound"}"#;

    fn read(text: &str) -> Result<Read, String> {
        input(text.as_bytes(), "h").map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_killed_process_did_not_write_to_its_end_is_left_out() {
        let read =
            read(&format!("{REWOUND}\n\n{{\"at\":2,\"ev\n{STARTED}\r\n{REWOUND}\n{{\"at\":3,\"ev")).expect("a history");
        assert_eq!(read.lines.iter().map(|line| line.place.line).collect::<Vec<_>>(), [1, 4, 5]);
        assert_eq!(read.torn.iter().map(ToString::to_string).collect::<Vec<_>>(), ["h:3", "h:6"]);
        assert_eq!(super::input(REWOUND.as_bytes(), "h").expect("its end is missing, no more").lines.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, said) in [
            (format!("{REWOUND}\n{{\"at\":2,\"ev\n{REWOUND}\n"), "h:2:11: EOF while parsing a string"),
            (format!("{REWOUND}\n{{\"at\":2,\"ev\n"), "h:2:11: EOF while parsing a string"),
            ("{]\n{]\n{]\n".to_owned(), "h:1:2: key must be a string"),
            (r#"{"at":1,"event":"rewind"}"#.to_owned() + "\n", "unknown event `rewind`"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(said), "{error}");
        }
        let error = input(&b"{\"at\":1,\"\xff\"}\n"[..], "h").expect_err("no text");
        assert_eq!(error.to_string(), "h:1:10: not UTF-8");
        let long = vec![b' '; usize::try_from(LONGEST).expect("small") + 1];
        assert!(input(&long[..], "h").expect_err("too long").to_string().contains("longer than"));
    }

    #[test]
    fn a_process_is_named_after_its_file() {
        let named = |paths: &[&str]| names(paths).iter().map(|name| (**name).to_owned()).collect::<Vec<_>>();
        assert_eq!(named(&["a/guard-1.jsonl", "b/client"]), ["guard-1", "client"]);
        assert_eq!(named(&["a/history.jsonl", "b/history.jsonl"]), ["a/history.jsonl", "b/history.jsonl"]);
    }

    #[test]
    fn a_file_counts_once_and_one_without_a_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, none) = (folder.path().join("one.jsonl"), folder.path().join("none.jsonl"));
        std::fs::write(&one, REWOUND).expect("it is in a temporary folder");
        std::fs::write(&none, "\n").expect("it is in a temporary folder");
        let read = files(&[one.clone(), none.clone()]).expect("a history");
        assert_eq!((read.lines.len(), read.empty), (1, vec![none.display().to_string().into()]));
        let again = folder.path().join(".").join("one.jsonl");
        let error = files(&[one, none, again]).expect_err("one of them is there twice").to_string();
        assert!(error.ends_with("one.jsonl: this file is given twice"), "{error}");
    }

    #[test]
    fn a_time_of_day_is_noticed() {
        let now = REWOUND.replace("\"at\":1", "\"at\":1794999814000000000");
        let read = read(&format!("{REWOUND}\n{now}\n")).expect("a history");
        assert_eq!(first_time_of_day(&read.lines).map(|line| line.place.line), Some(2));
        assert!(first_time_of_day(&read.lines[..1]).is_none());
        assert!(first_time_of_day(&read.lines[1..]).is_none(), "all of one clock can be compared");
    }

    #[test]
    fn a_host_that_was_started_anew_is_noticed() {
        let early = STARTED.replace("\"at\":5", "\"at\":4");
        let read = read(&format!("{STARTED}\n{REWOUND}\n{STARTED}\n{early}\n")).expect("a history");
        assert_eq!(first_start_that_went_back(&read.lines).map(|line| line.place.line), Some(4));
        assert!(first_start_that_went_back(&read.lines[..3]).is_none());
    }
}
