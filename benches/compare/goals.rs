//! What is to be reached, and whether this run did.

use std::fmt::Write as _;

use crate::board::{Board, median, show};
use crate::http2;
use crate::stalled;
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
    pub word: Word,
}

/// What a run says of a goal, by the whole range of its repetitions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// All of them reach what is hoped for.
    Aim,
    /// All of them reach what is required.
    Met,
    /// Some do and some don't.
    Undecided,
    /// None does.
    Missed,
}

impl Word {
    /// What it is called; the picture's colours have the same names.
    pub fn name(self) -> &'static str {
        match self {
            Word::Aim => "aim",
            Word::Met => "met",
            Word::Undecided => "undecided",
            Word::Missed => "missed",
        }
    }

    /// Its sign, for who sees no colours.
    pub fn sign(self) -> &'static str {
        match self {
            Word::Aim => "★",
            Word::Met => "✓",
            Word::Undecided => "?",
            Word::Missed => "✗",
        }
    }
}

impl Goal {
    /// What was measured; none where this run did not.
    pub fn reached(&self, board: &Board) -> Option<Reached> {
        let samples = match self.other {
            Some(other) => board.ratio(&self.measure, self.own, other),
            None => board.of(&self.measure, self.own).to_vec(),
        };
        let middle = median(&samples)?;
        let within = |bound: f64, value: f64| if self.more { value >= bound } else { value <= bound.max(SELDOM) };
        let valid = || samples.iter().filter(|sample| sample.is_finite());
        let all = |bound: f64| valid().all(|&sample| within(bound, sample));
        let word = match (all(self.aim), all(self.required), valid().any(|&sample| within(self.required, sample))) {
            (true, true, _) => Word::Aim,
            (_, true, _) => Word::Met,
            (_, _, true) => Word::Undecided,
            _ => Word::Missed,
        };
        let of_bound = if self.more { self.required / middle } else { middle / self.required };
        Some(Reached { shown: show(&samples, self.digits()), of_bound, word })
    }

    /// The bound, with its direction.
    pub fn bound(&self) -> String {
        format!("{} {:.*}", self.sign(), self.digits(), self.required)
    }

    fn sign(&self) -> char {
        if self.more { '≥' } else { '≤' }
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
        add("KiB of a stalled upload of 16 MiB", stalled::LONG_BODY, own, None, [64.0, 16.0]);
        add("CPU, 10 streams, HTTP/2 to HTTP/1.1", http2::TO_HTTP1, own, Some("haproxy"), [1.1, 1.0]);
        add("CPU, 10 streams, HTTP/2 to HTTP/2", http2::TO_HTTP2, own, Some("haproxy"), [1.1, 1.0]);
        add("CPU of 1 GiB", "gib cpu", own, Some("haproxy"), [0.95, 0.7]);
        add("requests a second, two cores", two_cores::RATE, own, Some("haproxy"), [1.0, 1.2]);
    }
    add("cold start to a first read", "start read", "guard", Some("nginx"), [0.5, 0.2]);
    databases(&mut add);
    goals
}

fn databases(add: &mut impl FnMut(&str, &str, &'static str, Option<&'static str>, [f64; 2])) {
    use crate::databases::{DIRECT, GUARD, HAPROXY, PGBOUNCER};
    add("CPU of a TPC-B transaction", "cpu tpcb", GUARD, Some(PGBOUNCER), [1.05, 0.95]);
    add("TPC-B transactions a second", "rate tpcb", GUARD, Some(PGBOUNCER), [0.97, 1.0]);
    for command in ["SET", "GET"] {
        for (depth, bounds) in [(1, [1.05, 0.95]), (16, [1.3, 1.0])] {
            let what = format!("{command} -P {depth}");
            add(&format!("CPU of a Redis {what}"), &format!("cpu {what}"), GUARD, Some(HAPROXY), bounds);
        }
    }
    for copy in ["copy out", "copy in"] {
        add(&format!("rate of a {copy} of 1 GiB"), &format!("rate {copy}"), GUARD, Some(DIRECT), [0.5, 0.8]);
    }
}

const LEGEND: &str = "
*aim*, *met*: every repetition reached what is hoped for, or required. *undecided*: some reached what is required, and some
did not; the median alone would say more than was measured. *missed*: none did. What ran once has no range, and its word says
less.
";

/// The table of those that were measured; nothing where none was.
pub fn table(board: &Board) -> String {
    let mut text = String::new();
    for goal in all() {
        let Some(reached) = goal.reached(board) else { continue };
        let (sign, digits, name) = (goal.sign(), goal.digits(), reached.word.name());
        let word = if reached.word == Word::Missed { format!("**{name}**") } else { name.to_owned() };
        let _ = writeln!(
            text,
            "| {} | {} | {sign} {:.digits$} | {} | {word} |",
            goal.what,
            goal.bound(),
            goal.aim,
            reached.shown
        );
    }
    if text.is_empty() {
        return text;
    }
    text += LEGEND;
    format!("| goal | required | aim | measured | reached |\n|---|---|---|---|---|\n{text}")
}
