//! The goals as a picture: one bar each, as long as what was measured is of its bound. Plain SVG, written by hand, which
//! can be read on a light page and on a dark one, and without colours.

use std::fmt::Write as _;

use crate::board::Board;
use crate::goals::{self, Goal, Reached, Word};
use crate::place::Place;

const WIDTH: usize = 980;
const ROW: usize = 20;
const TOP: usize = 76;
const BOTTOM: usize = 36;
/// Where the bars begin, and how long one is that reaches its bound.
const LEFT: usize = 385;
const BOUND: f64 = 190.0;
/// A bar ends here at the latest, with a gap before its end: its number says the rest.
const LONGEST: f64 = 1.6;
/// Where signs and numbers begin, right of the longest bar.
const NUMBERS: usize = 705;

const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #24292f }
  .page { fill: #ffffff } .quiet { fill: #57606a }
  .aim { fill: #1a7f37 } .met { fill: #6f9f5f } .undecided { fill: #bf8700 } .missed { fill: #cf222e }
  line { stroke: #57606a; stroke-dasharray: 4 3 } .gap { stroke: #ffffff; stroke-width: 3; stroke-dasharray: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .page { fill: #0d1117 } .quiet { fill: #9198a1 }
    .aim { fill: #3fb950 } .met { fill: #8fbc7f } .undecided { fill: #d29922 } .missed { fill: #f85149 }
    line { stroke: #9198a1 } .gap { stroke: #0d1117 }
  }";

/// The picture of what was measured.
pub fn draw(board: &Board, place: &Place) -> String {
    let goals = goals::all();
    let rows: Vec<(&Goal, Reached)> = goals.iter().filter_map(|goal| Some((goal, goal.reached(board)?))).collect();
    let end = TOP + rows.len() * ROW;
    let height = end + BOTTOM;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>What was measured as a part of what is required</title>\n<style>\n  {STYLE}\n</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n"
    );
    legend(&mut text);
    for (index, (goal, reached)) in rows.iter().enumerate() {
        row(&mut text, TOP + index * ROW, goal, reached);
    }
    let bound = LEFT as f64 + BOUND;
    let _ = writeln!(text, "<line x1=\"{bound}\" y1=\"{}\" x2=\"{bound}\" y2=\"{end}\"/>", TOP - 8);
    let corner = escaped(&format!("{}, {}, {}", place.today, place.processor, place.how));
    let (right, base) = (WIDTH - 12, height - 12);
    let _ = writeln!(text, "<text class=\"quiet\" x=\"{right}\" y=\"{base}\" text-anchor=\"end\">{corner}</text>");
    text.push_str("</svg>\n");
    text
}

/// What the colours, the signs and the lines mean.
fn legend(text: &mut String) {
    const MEANINGS: [(Word, &str); 4] = [
        (Word::Aim, "the aim, in every repetition"),
        (Word::Met, "met in every repetition"),
        (Word::Undecided, "some met it"),
        (Word::Missed, "missed by all"),
    ];
    let mut x = 20;
    for (word, meaning) in MEANINGS {
        let (name, sign) = (word.name(), word.sign());
        let _ = writeln!(
            text,
            "<rect class=\"{name}\" x=\"{x}\" y=\"14\" width=\"14\" height=\"14\" rx=\"2\"/>\
             <text x=\"{}\" y=\"25\">{sign} {name}: {meaning}</text>",
            x + 20
        );
        x += 240;
    }
    let bound = LEFT as f64 + BOUND;
    let _ = writeln!(
        text,
        "<text x=\"{bound}\" y=\"60\" text-anchor=\"middle\">the bound; shorter is better</text>\
         <text class=\"quiet\" x=\"20\" y=\"60\">a bar: the median as a part of the bound; with a gap: cut</text>\
         <text class=\"quiet\" x=\"{NUMBERS}\" y=\"60\">median (least–greatest) of the bound</text>"
    );
}

fn row(text: &mut String, y: usize, goal: &Goal, reached: &Reached) {
    let length = (reached.of_bound.clamp(0.005, LONGEST) * BOUND).round();
    let (base, label) = (y + 11, LEFT - 8);
    let (what, name, sign) = (escaped(&goal.what), reached.word.name(), reached.word.sign());
    let _ = write!(
        text,
        "<text x=\"{label}\" y=\"{base}\" text-anchor=\"end\">{what}</text>\
         <rect class=\"{name}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length}\" height=\"14\" rx=\"2\"/>"
    );
    if reached.of_bound > LONGEST {
        let gap = LEFT as f64 + length - 16.0;
        let (top, bottom, slant) = (y.saturating_sub(1), y + 15, gap + 6.0);
        let _ = write!(text, "<line class=\"gap\" x1=\"{slant}\" y1=\"{top}\" x2=\"{gap}\" y2=\"{bottom}\"/>");
    }
    let (shown, bound) = (&reached.shown, goal.bound());
    let _ = writeln!(text, "<text x=\"{NUMBERS}\" y=\"{base}\">{sign} {shown} of {bound}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
