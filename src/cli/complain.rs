//! What goes wrong, to standard error.

use std::fmt::Display;
use std::io::Write as _;

use super::paint::{BAD, HEADING, WARNING, styled};
use crate::config::Problem;

/// One thing that went wrong. Nowhere to say it is no reason to fail differently.
pub fn error(what: &dyn Display) {
    let _ = writeln!(anstream::stderr(), "{} {what}", styled(BAD, "error:"));
}

/// One thing that went wrong, and what to do about it.
pub fn error_with_help(what: &dyn Display, help: &dyn Display) {
    error(what);
    let _ = writeln!(anstream::stderr(), "  {} {help}", styled(HEADING, "help:"));
}

/// Everything that is wrong with a configuration, at once.
pub fn problems(problems: &[Problem]) {
    let mut text = String::new();
    for problem in problems {
        text += &problem_text(problem, &styled(BAD, "error:"));
    }
    let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    text += &format!("{} {count} in the configuration; nothing was started\n", styled(BAD, "error:"));
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// What a configuration is warned of.
pub fn warnings(warnings: &[Problem]) {
    let text: String = warnings.iter().map(|warning| problem_text(warning, &styled(WARNING, "warning:"))).collect();
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// `file:line:column: error: what`, which editors know, and what to do.
fn problem_text(problem: &Problem, word: &str) -> String {
    let mut text = format!("{}: {word} {}\n", styled(HEADING, &problem.at), problem.what);
    if !problem.help.is_empty() {
        text += &format!("  {} {}\n", styled(HEADING, "help:"), problem.help);
    }
    text
}
