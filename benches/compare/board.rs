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
        eprintln!("  {text}");
        self.notes.push(text);
    }

    fn of(&self, measure: &str, target: &str) -> &[f64] {
        self.samples.get(measure).and_then(|targets| targets.get(target)).map_or(&[], Vec::as_slice)
    }

    /// One row a target, one column a measure.
    pub fn table(&self, targets: &[&str], columns: &[Column]) -> String {
        let mut text = heading("target", columns);
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
            let cells = columns.iter().map(|column| {
                let (own, other) = (self.of(&column.measure, own), self.of(&column.measure, other));
                show(&own.iter().zip(other).map(|(own, other)| own / other).collect::<Vec<_>>(), 2)
            });
            row(&mut text, &format!("{own} ÷ {other}"), cells);
        }
        text
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
fn show(samples: &[f64], digits: usize) -> String {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (sorted.first(), sorted.last()) else { return NOTHING.to_owned() };
    let middle = median(&sorted);
    if sorted.len() == 1 {
        return format!("{middle:.digits$}");
    }
    format!("{middle:.digits$} ({least:.digits$}–{greatest:.digits$})")
}

fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}
