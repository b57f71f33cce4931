//! What comes out of a run: the tables on standard output, every sample as JSON, and where asked the picture and the
//! tables in a page.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::board::Board;
use crate::{Plan, goals, measure, picture};

/// Between these lines of a page the tables are replaced.
const MARKS: [&str; 2] = ["<!-- printed by make bench -->\n", "<!-- end of what make bench printed -->"];

/// Where a run took place, and what else the machine did.
pub struct Place {
    processor: String,
    kernel: String,
    cores: usize,
    load: String,
    how: String,
}

impl Place {
    /// This machine, now; how it is measured.
    pub fn here(plan: &Plan) -> Place {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Place {
            processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
            kernel: kernel.trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(2, usize::from),
            load: measure::busy(),
            how: format!("{} times {:?}", plan.repeat, plan.window),
        }
    }
}

/// Says everything.
pub fn finish(tables: &str, board: &Board, place: &Place) {
    let Place { processor, kernel, cores, load, how } = place;
    let (ended, goals) = (measure::busy(), goals::table(board));
    let today = jiff::Zoned::now().date();
    let mut text = format!("Printed on {today} by `make bench`, {how}.\n\n{tables}");
    if !goals.is_empty() {
        text += &format!("Goals\n\n{goals}\n");
    }
    text += &format!("{processor}, {cores} cores, Linux {kernel}; load average {load} before, {ended} after.\n");
    board.notes.iter().for_each(|note| text += &format!("- {note}\n"));
    println!("\n{text}");

    let about = json!({ "processor": processor, "cores": cores, "kernel": kernel, "load": [load, &ended] });
    let samples = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare.json");
    put(&samples, &format!("{:#}\n", board.json(about)));
    if let Some(file) = asked("EPOCHGATE_BENCH_SVG") {
        put(Path::new(&file), &picture::draw(board));
    }
    if let Some(page) = asked("EPOCHGATE_BENCH_PAGE") {
        let renewed = fs::read_to_string(&page).ok().and_then(|old| renew(&old, &text));
        match renewed {
            Some(new) => put(Path::new(&page), &new),
            None => eprintln!("{page}: it cannot be read, or has not both of these lines: {MARKS:?}"),
        }
    }
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
