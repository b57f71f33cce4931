//! A client program that stays and is talked to: for a transaction that stays open, or a session that a failover finds
//! idle.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ChildStdin;

use super::process::{LONG, Launch, Process, eventually};

/// A running client, which reads what it is to do from its standard input.
pub struct Talk {
    /// The process, to be paused or killed.
    pub process: Process,
    input: ChildStdin,
    mark: fn(&str) -> String,
    asked: usize,
    heard: usize,
}

impl Talk {
    /// Starts it. `mark` is how it is told, in its own words, to write a line that has nothing to do with the server.
    #[track_caller]
    pub fn start(launch: Launch, mark: fn(&str) -> String) -> Talk {
        // One stream, so that an error stands where it came.
        let (process, input) = launch.under("sh", &["-c", "exec \"$@\" 2>&1", "sh"]).start_with_input();
        Talk { process, input, mark, asked: 0, heard: 0 }
    }

    /// Says something and returns what comes back, errors too; where the program ends, what it said until then.
    #[track_caller]
    pub fn say(&mut self, what: &str) -> String {
        self.begin(what);
        self.answer()
    }

    /// Says something and does not wait; then [`Talk::answer`].
    pub fn begin(&mut self, what: &str) {
        self.asked += 1;
        let mark = (self.mark)(&self.mark_line());
        // It may have ended; then the answer says so.
        let _ = writeln!(self.input, "{what}\n{mark}");
    }

    /// What came back for what was begun.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        let end = self.mark_line();
        let mut text = String::new();
        eventually(&format!("an answer comes; so far: {}", self.process.recent()), LONG * 2, || {
            // Asked first: what it said before it ended has been read when this says that it has.
            let over = !self.process.is_running() && self.process.has_been_heard();
            let lines = self.process.stdout_from(self.heard);
            for line in lines {
                self.heard += 1;
                if line == end {
                    return true;
                }
                let _ = writeln!(text, "{line}");
            }
            over
        });
        text.trim_end_matches('\n').to_owned()
    }

    fn mark_line(&self) -> String {
        format!("--- {} ---", self.asked)
    }
}
