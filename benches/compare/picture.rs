//! The goals as a picture: one bar each, as long as what was measured is of its bound. Plain SVG, written by hand, which
//! can be read on a light page and on a dark one.

use std::fmt::Write as _;

use crate::board::Board;
use crate::goals::{self, Goal, Reached};

const WIDTH: usize = 900;
const ROW: usize = 20;
const TOP: usize = 44;
/// Where the bars begin, and how long one is that reaches its bound.
const LEFT: usize = 365;
const BOUND: f64 = 240.0;
/// A bar ends here at the latest: its number says the rest.
const LONGEST: f64 = 1.6;

const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #24292f }
  .number { fill: #57606a }
  .aim { fill: #1a7f37 } .required { fill: #6f9f5f } .missed { fill: #cf222e }
  line { stroke: #57606a; stroke-dasharray: 4 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .number { fill: #9198a1 } line { stroke: #9198a1 }
    .aim { fill: #3fb950 } .required { fill: #8fbc7f } .missed { fill: #f85149 }
  }";

/// The picture of what was measured.
pub fn draw(board: &Board) -> String {
    let goals = goals::all();
    let rows: Vec<(&Goal, Reached)> = goals.iter().filter_map(|goal| Some((goal, goal.reached(board)?))).collect();
    let height = TOP + rows.len() * ROW + 12;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>What was measured as a part of what is required</title>\n<style>\n  {STYLE}\n</style>\n"
    );
    let bound = LEFT as f64 + BOUND;
    let _ = writeln!(text, "<text x=\"{bound}\" y=\"20\" text-anchor=\"middle\">required: shorter is better</text>");
    let _ = writeln!(text, "<line x1=\"{bound}\" y1=\"28\" x2=\"{bound}\" y2=\"{}\"/>", height - 8);
    for (index, (goal, reached)) in rows.iter().enumerate() {
        let y = TOP + index * ROW;
        let length = (reached.of_bound.clamp(0.005, LONGEST) * BOUND).round();
        let (base, label, number) = (y + 11, LEFT - 8, LEFT as f64 + length + 6.0);
        let (what, shown, word) = (&goal.what, &reached.shown, reached.word);
        let _ = writeln!(
            text,
            "<text x=\"{label}\" y=\"{base}\" text-anchor=\"end\">{what}</text>\
             <rect class=\"{word}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length}\" height=\"14\" rx=\"2\"/>\
             <text class=\"number\" x=\"{number}\" y=\"{base}\">{shown}</text>"
        );
    }
    text.push_str("</svg>\n");
    text
}
