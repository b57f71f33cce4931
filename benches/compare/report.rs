//! What comes out of a run: the tables on standard output, every sample as JSON, and where asked the picture and the
//! tables in a page.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::board::{Board, Column};
use crate::place::Place;
use crate::targets::UNGATED;
use crate::{goals, measure, picture};

const SVG: &str = "EPOCHGATE_BENCH_SVG";
const PAGE: &str = "EPOCHGATE_BENCH_PAGE";

/// Between these lines of a page the tables are replaced.
const MARKS: [&str; 2] = ["<!-- printed by make bench -->\n", "<!-- end of what make bench printed -->"];

/// Says everything.
pub fn finish(tables: &str, board: &Board, place: &Place) {
    let (ended, goals) = (measure::busy(), goals::table(board));
    let Place { today, how, load, .. } = place;
    let mut text = format!("Printed on {today} by `make bench`, {how}.\n\n{tables}{}", fence(board));
    if !goals.is_empty() {
        text += &format!("Goals\n\n{goals}\n");
    }
    text += &format!("{place}; load average {load} before, {ended} after.\n");
    board.notes.iter().for_each(|note| text += &format!("- {note}\n"));
    println!("\n{text}");

    let samples = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare.json");
    let about = json!({ "place": place.to_string(), "how": how, "load": [load, &ended] });
    put(&samples, &format!("{:#}\n", board.json(about)));
    if let Some(file) = asked(SVG) {
        put(Path::new(&file), &picture::draw(board, place));
    }
    if let Some(page) = asked(PAGE) {
        let renewed = fs::read_to_string(&page).ok().and_then(|old| renew(&old, &text));
        match renewed {
            Some(new) => put(Path::new(&page), &new),
            None => eprintln!("{page}: it cannot be read, or has not both of these lines: {MARKS:?}"),
        }
    }
}

/// Whether this run replaces something that a whole run wrote.
pub fn renews() -> bool {
    asked(SVG).is_some() || asked(PAGE).is_some()
}

/// What the fence itself costs, by CPU and by instructions; nothing where it was not measured.
fn fence(board: &Board) -> String {
    let column = |measure: &str, heading: &str| Column { measure: measure.into(), heading: heading.into(), digits: 2 };
    let columns = [
        column("cpu 16 × 100 B", "CPU, 16 × 100 B"),
        column("cpu 128 × 100 B", "CPU, 128 × 100 B"),
        column("cpu 16 × 64 KiB", "CPU, 16 × 64 KiB"),
        column("instructions", "user instructions, 16 × 100 B (n = 1)"),
    ];
    if columns.iter().all(|column| board.ratio(&column.measure, "guard", UNGATED).is_empty()) {
        return String::new();
    }
    format!("The fence itself\n\n{}\n", board.ratios(&["guard"], &[UNGATED], &columns))
}

/// A page with these tables instead of those that it had.
fn renew(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some([before, MARKS[0], "\n", tables, "\n", MARKS[1], after].concat())
}

fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|file| !file.is_empty())
}

fn put(file: &Path, text: &str) {
    match fs::write(file, text) {
        Ok(()) => eprintln!("written: {}", file.display()),
        Err(error) => eprintln!("{}: {error}", file.display()),
    }
}
