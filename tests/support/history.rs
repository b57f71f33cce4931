//! What a test recorded, and the checker on it: the processes' own files, and what the target applied.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use epochgate::fence::{Moment, Stamp};
use epochgate::verify::{self, Invariant, Line, Options, Outside, Taken, Verdict, read};

use super::upstream::Write;

/// The lines of these files; one of a process that has not begun is left out.
#[track_caller]
pub fn of_files(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Line> {
    let there: Vec<PathBuf> = paths.into_iter().filter(|path| path.exists()).collect();
    read::files(&there).unwrap_or_else(|error| panic!("{error}")).lines
}

/// What a target applied, in its order. `X-Op` names the operation; the resource is the stamp's, else `resource`.
#[track_caller]
pub fn of_target(target: &str, resource: &str, applied: &[Write]) -> Vec<Line> {
    let target: Arc<str> = target.into();
    let line = |(seq, write): (u64, &Write)| {
        let stamp =
            write.stamp.as_ref().map(|stamp| Stamp::parse(stamp.as_bytes()).expect("the guard forwards a stamp"));
        let res = stamp.as_ref().and_then(|stamp| stamp.res.clone());
        let taken = Taken {
            target: Arc::clone(&target),
            resource: res.unwrap_or_else(|| resource.parse().expect("a resource")),
            op: write.head.header("x-op").map(Arc::from),
            epoch: stamp.as_ref().map(|stamp| stamp.epoch),
            nonce: stamp.as_ref().and_then(|stamp| stamp.nonce),
            writer: stamp.and_then(|stamp| stamp.by),
            body: None,
        };
        Line::outside(write.moment, format!("target {target}"), Outside::Applied { taken, seq })
    };
    let recorded = Line::outside(Moment::default(), "test", Outside::Recorded { target: Arc::clone(&target) });
    std::iter::once(recorded).chain((1..).zip(applied).map(line)).collect()
}

/// Panics where a rule was broken, with the lines that show it.
#[track_caller]
pub fn assert_rules_kept(lines: &[Line]) -> Verdict {
    let verdict = verify::check(lines, Options::default());
    assert!(verdict.is_good(), "{verdict}");
    assert!(verdict.counts.lines > 0, "there is nothing to check");
    verdict
}

thread_local! {
    static BROKEN: RefCell<BTreeMap<Invariant, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// Checks what a world has left behind, for a test that asks afterwards.
pub fn note(lines: &[Line]) {
    let verdict = verify::check(lines, Options::default());
    BROKEN.with_borrow_mut(|broken| {
        for violation in verdict.violations {
            broken.entry(violation.invariant).or_insert_with(|| violation.to_string());
        }
    });
}

/// What did not hold of the worlds that have ended on this thread, with the first that shows it.
pub fn broken() -> BTreeMap<Invariant, String> {
    BROKEN.take()
}
