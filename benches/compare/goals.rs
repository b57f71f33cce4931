//! What is to be reached, and whether this run did.

use std::fmt::Write as _;

use crate::board::{Board, median, show};
use crate::http2;
use crate::targets::UNGATED;
use crate::two_cores;

/// One number that is to be reached.
pub struct Goal {
    /// What is measured.
    pub what: String,
    measure: String,
    own: &'static str,
    /// What it is compared with, in the same repetition.
    other: Option<&'static str>,
    /// What has to be reached, and what is hoped for.
    pub required: f64,
    aim: f64,
    /// Whether more is better.
    more: bool,
}

/// How far one of them is.
pub struct Reached {
    /// The median, with the range.
    pub shown: String,
    /// The median as a part of the bound: above one it is missed.
    pub of_bound: f64,
    /// In a word.
    pub word: &'static str,
}

impl Goal {
    /// What was measured; none where this run did not.
    pub fn reached(&self, board: &Board) -> Option<Reached> {
        let samples = match self.other {
            Some(other) => board.ratio(&self.measure, self.own, other),
            None => board.of(&self.measure, self.own).to_vec(),
        };
        let middle = median(&samples)?;
        let within = |bound: f64| if self.more { middle >= bound } else { middle <= bound.max(SELDOM) };
        let word = match (within(self.required), within(self.aim)) {
            (true, true) => "aim",
            (true, false) => "required",
            (false, _) => "missed",
        };
        let of_bound = if self.more { self.required / middle } else { middle / self.required };
        Some(Reached { shown: show(&samples, self.digits()), of_bound, word })
    }

    fn digits(&self) -> usize {
        if self.required > 1000.0 { 0 } else { 2 }
    }
}

/// Where nothing is hoped for: what happens less than once in fifty requests does not happen in each.
const SELDOM: f64 = 0.02;

/// Every goal of which this run measured something, in the order of the issue.
pub fn all() -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |what: &str, measure: &str, own, other: Option<&'static str>, [required, aim]: [f64; 2]| {
        let whom = other.map_or(String::new(), |other| format!(" ÷ {other}"));
        let (what, more) = (format!("{what}: {own}{whom}"), required <= aim);
        goals.push(Goal { what, measure: measure.to_owned(), own, other, required, aim, more });
    };
    for (own, bounds) in [("guard", [1.0, 0.88]), ("stamp", [1.05, 0.92])] {
        for scene in ["16 × 100 B", "128 × 100 B"] {
            for other in ["haproxy", "nginx"] {
                add(&format!("CPU, {scene}"), &format!("cpu {scene}"), own, Some(other), bounds);
            }
            add(&format!("CPU, {scene}"), &format!("cpu {scene}"), own, Some("envoy"), [0.5, 0.4]);
        }
    }
    for scene in ["16 × 100 B", "128 × 100 B"] {
        let what = format!("the fence itself, CPU, {scene}");
        add(&what, &format!("cpu {scene}"), "guard", Some(UNGATED), [1.05, 1.03]);
    }
    for own in crate::OURS {
        add("CPU, 16 × 64 KiB", "cpu 16 × 64 KiB", own, Some("haproxy"), [0.75, 0.6]);
        add("user instructions", "instructions", own, None, [20_000.0, 10_000.0]);
        add("allocations", "allocations", own, None, [4.0, 0.0]);
        add("added p50 at 4,000 a second", "paced added", own, Some("haproxy"), [1.1, 0.95]);
        add("KiB of an idle connection", "memory each", own, None, [4.0, 1.5]);
        add("KiB of a stalled upload", "stalled", own, None, [64.0, 16.0]);
        add("CPU, 10 streams, HTTP/2 to HTTP/1.1", http2::TO_HTTP1, own, Some("haproxy"), [1.1, 1.0]);
        add("CPU, 10 streams, HTTP/2 to HTTP/2", http2::TO_HTTP2, own, Some("haproxy"), [1.1, 1.0]);
        add("CPU of 1 GiB", "gib cpu", own, Some("haproxy"), [0.95, 0.7]);
        add("requests a second, two cores", two_cores::RATE, own, Some("haproxy"), [1.0, 1.2]);
    }
    add("cold start to a first read", "start read", "guard", Some("nginx"), [0.5, 0.2]);
    goals
}

/// The table of those that were measured; nothing where none was.
pub fn table(board: &Board) -> String {
    let mut text = String::new();
    for goal in all() {
        let Some(reached) = goal.reached(board) else { continue };
        let (sign, digits) = (if goal.more { '≥' } else { '≤' }, if goal.digits() == 0 { 0 } else { 2 });
        let word = if reached.word == "missed" { "**missed**" } else { reached.word };
        let _ = writeln!(
            text,
            "| {} | {sign} {:.digits$} | {sign} {:.digits$} | {} | {word} |",
            goal.what, goal.required, goal.aim, reached.shown
        );
    }
    if text.is_empty() {
        return text;
    }
    format!("| goal | required | aim | measured | reached |\n|---|---|---|---|---|\n{text}")
}
