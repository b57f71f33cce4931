//! What was measured, and how it is printed: medians with their ranges, and ratios taken within a repetition first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// Every sample: by measure, then by target, one for each repetition.
#[derive(Default)]
pub struct Board {
    samples: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// What went wrong, or could not be had.
    pub notes: Vec<String>,
}

/// A column of a table: what was measured, its heading, and digits after the point.
pub struct Column {
    pub measure: String,
    pub heading: String,
    pub digits: usize,
}

impl Board {
    /// The next repetition's value. Not a number stands for one that failed.
    pub fn add(&mut self, measure: &str, target: &str, value: f64) {
        self.samples.entry(measure.to_owned()).or_default().entry(target.to_owned()).or_default().push(value);
    }

    /// Says in the report what could not be measured.
    pub fn note(&mut self, text: String) {
        // An answer's body can be of several lines, and the first says it.
        let text = text.lines().next().unwrap_or_default().to_owned();
        eprintln!("  {text}");
        self.notes.push(text);
    }

    /// Every sample of a measure and a target.
    pub fn of(&self, measure: &str, target: &str) -> &[f64] {
        self.samples.get(measure).and_then(|targets| targets.get(target)).map_or(&[], Vec::as_slice)
    }

    /// One row a target, one column a measure.
    pub fn table(&self, targets: &[&str], columns: &[Column]) -> String {
        self.rows("target", targets, columns)
    }

    /// The same where a row is something else.
    pub fn rows(&self, what: &str, targets: &[&str], columns: &[Column]) -> String {
        let mut text = heading(what, columns);
        for target in targets {
            let cells = columns.iter().map(|column| show(self.of(&column.measure, target), column.digits));
            row(&mut text, target, cells);
        }
        text
    }

    /// One row for each of `ours` over each of `others`, one column a measure.
    pub fn ratios(&self, ours: &[&str], others: &[&str], columns: &[Column]) -> String {
        let mut text = heading("ratio", columns);
        for (own, other) in ours.iter().flat_map(|own| others.iter().map(move |other| (own, other))) {
            let cells = columns.iter().map(|column| show(&self.ratio(&column.measure, own, other), 2));
            row(&mut text, &format!("{own} ÷ {other}"), cells);
        }
        text
    }

    /// Of every repetition.
    pub fn ratio(&self, measure: &str, own: &str, other: &str) -> Vec<f64> {
        self.of(measure, own).iter().zip(self.of(measure, other)).map(|(own, other)| own / other).collect()
    }

    /// All of it, for machines.
    pub fn json(&self, about: Value) -> Value {
        json!({ "about": about, "notes": self.notes, "samples": self.samples })
    }
}

fn heading(first: &str, columns: &[Column]) -> String {
    let mut text = format!("| {first} |");
    for column in columns {
        let _ = write!(text, " {} |", column.heading);
    }
    let _ = write!(text, "\n|{}\n", "---|".repeat(columns.len() + 1));
    text
}

fn row(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    if cells.iter().any(|cell| cell != NOTHING) {
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
}

const NOTHING: &str = "–";

/// Median (least–greatest), without what failed.
pub fn show(samples: &[f64], digits: usize) -> String {
    let sorted = sorted(samples);
    let (Some(least), Some(greatest), Some(middle)) = (sorted.first(), sorted.last(), median(samples)) else {
        return NOTHING.to_owned();
    };
    if sorted.len() == 1 {
        return format!("{middle:.digits$}");
    }
    format!("{middle:.digits$} ({least:.digits$}–{greatest:.digits$})")
}

/// The median, without what failed; none where nothing is left.
pub fn median(samples: &[f64]) -> Option<f64> {
    let sorted = sorted(samples);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half]),
        _ => Some((sorted[half - 1] + sorted[half]) / 2.0),
    }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}
