//! Telling the story: one line a beat, with the time that it happened at, epochs in colour.

use std::io::{self, Write};
use std::time::Instant;

use crate::cli::paint::{self, BAD, FAINT, GOOD, HEADING, styled};
use crate::fence::Epoch;

use super::log::Applied;

/// Who tells, to whom, since when.
pub struct Narrator<'a> {
    out: &'a mut dyn Write,
    began: Instant,
}

impl<'a> Narrator<'a> {
    /// Begins the story now.
    pub fn new(out: &'a mut dyn Write) -> Narrator<'a> {
        Narrator { out, began: Instant::now() }
    }

    /// Something that happened.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        let time = format!("+{:.2}s", self.began.elapsed().as_secs_f64());
        self.line(&format!("{} {text}", styled(FAINT, format_args!("{time:>8}"))))
    }

    /// A new part of the story.
    pub fn part(&mut self, title: &str) -> io::Result<()> {
        self.line(&format!("\n{}", styled(HEADING, title)))
    }

    /// A line without a time.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// The target's own log, each stale write marked.
    pub fn log(&mut self, applied: &[Applied]) -> io::Result<()> {
        self.part("What the target applied, in this order, by its own log")?;
        let mut newest = None;
        for (at, write) in applied.iter().enumerate() {
            let known = write.epoch.map_or_else(|| "no epoch".into(), epoch);
            let stale = write.epoch < newest;
            newest = newest.max(write.epoch);
            let mark = if stale { styled(BAD, "  × stale: a later epoch was here before") } else { String::new() };
            self.line(&format!(
                "{:>8}  {known}  {} wrote \"{}\" to {}{mark}",
                at + 1,
                write.writer,
                write.what,
                write.key
            ))?;
        }
        self.line("")
    }
}

/// An epoch in its colour.
pub fn epoch(epoch: Epoch) -> String {
    styled(paint::epoch(epoch.number()), format_args!("epoch {epoch}"))
}

/// What went well.
pub fn good(text: &str) -> String {
    styled(GOOD, text)
}

/// What went wrong.
pub fn bad(text: &str) -> String {
    styled(BAD, text)
}
