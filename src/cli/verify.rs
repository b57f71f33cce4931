//! `epochgate verify`: recorded histories, checked against the rules.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::exit::Exit;
use super::options::Output;
use super::paint::{BAD, FAINT, GOOD, HEADING, WARNING, plain, styled};
use super::{complain, print};
use crate::verify::read::{self, Read, ReadError};
use crate::verify::{self, Counts, Options, Verdict, Violation};

/// Checks recorded histories against the rules
///
/// A process with `history: FILE` in its configuration writes down everything that happens at its fence. Give the files
/// of all processes together: what a writer stamped, what a guard let in, and in which order its epochs were opened,
/// are then compared. With lines of your own beside them, of what clients sent and of what the target applied (a line of
/// JSON each; docs/reference/history.md), the whole promise is checked: no write of an old epoch after one of a newer
/// one, nothing acknowledged that is not there, nothing refused that is, nothing twice.
///
/// Every violation names the invariant and the rule, says what is wrong, and shows the lines that prove it. What the
/// histories do not say is not guessed: it is listed as not checked.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  epochgate verify guard.jsonl orders-a.jsonl orders-b.jsonl
  epochgate verify guard.jsonl client.jsonl target.jsonl -o json
  epochgate verify --no-clock host-1/guard.jsonl host-2/orders-a.jsonl

Exit codes: 0 no violation, 1 a violation, 2 a file or a line cannot be read, or there is none.")]
pub struct VerifyArgs {
    /// Histories: one JSON object a line
    ///
    /// A line is of the process that its file is named after, where it does not say `from` itself. A last line that a
    /// killed process did not write to its end is left out.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Do not compare the times of different files: they are of several hosts, or a host was started anew
    ///
    /// Times are those of the boot-time clock, which every process of one host shares, and nobody else. What is seen by
    /// the order of two files' lines is then not checked.
    #[arg(long)]
    no_clock: bool,

    /// How to print it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Reads, checks, prints.
pub fn run(args: &VerifyArgs) -> Exit {
    let read = match read::files(&args.files) {
        Ok(read) => read,
        Err(error) => {
            complain::error_with_help(&plain(&error.to_string()), &help(&error));
            return Exit::Usage;
        }
    };
    if read.lines.is_empty() {
        let help = "a process writes its history where its configuration has `history: FILE`";
        complain::error_with_help(&"there is no line in these files: nothing was checked", &help);
        return Exit::Usage;
    }
    if !args.no_clock
        && let Some(line) = read::first_time_of_day(&read.lines)
    {
        let what = format!("{}: `at` is a time of day, and other lines have the time since the boot", line.place);
        complain::error_with_help(
            &plain(&what),
            &"write nanoseconds of CLOCK_BOOTTIME, of the same host (in Python: \
              time.clock_gettime_ns(time.CLOCK_BOOTTIME)), or say --no-clock",
        );
        return Exit::Usage;
    }
    if !args.no_clock
        && let Some(line) = read::first_start_that_went_back(&read.lines)
    {
        let what =
            format!("{}: this process started at a time before its last lines: the host was started anew", line.place);
        complain::error_with_help(&plain(&what), &"say --no-clock, or give the lines since then only");
        return Exit::Usage;
    }
    let verdict = verify::check(&read.lines, Options { clock: !args.no_clock, whole: false });
    let printed = match args.output {
        Output::Table => print(&text(&verdict, &read)),
        Output::Json => print(&format!("{}\n", to_json(&verdict, &read))),
    };
    if printed == Exit::Ok && !verdict.is_good() { Exit::Failed } else { printed }
}

fn help(error: &ReadError) -> &'static str {
    match error {
        ReadError::File { .. } => "is the path right, and may this user read it?",
        ReadError::Twice(_) => "give each file once",
        ReadError::Line { .. } => "every line is one JSON object with `at` and `event`: docs/reference/history.md",
    }
}

fn text(verdict: &Verdict, read: &Read) -> String {
    let mut text = String::new();
    for violation in &verdict.violations {
        text += &violation_text(violation);
    }
    for (invariant, count) in &verdict.left_out {
        text += &format!("{} {invariant}: {count} more\n", styled(BAD, "×"));
    }
    for place in &read.torn {
        let place = plain(&place.to_string());
        text += &format!("{} {place}: not written to its end, and left out\n", styled(WARNING, "‼"));
    }
    for file in &read.empty {
        text += &format!("{} {}: there is no line in it\n", styled(WARNING, "‼"), plain(file));
    }
    for what in &verdict.not_checked {
        text += &format!("{} not checked: {}\n", styled(WARNING, "‼"), plain(what));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text + &summary(verdict)
}

fn violation_text(violation: &Violation) -> String {
    let Violation { invariant, rule, what, lines } = violation;
    let mut text =
        format!("{} {} {}\n", styled(BAD, "×"), styled(HEADING, format!("{invariant} ({rule})")), plain(what));
    text += &format!("    {}\n", styled(FAINT, invariant.in_words()));
    for line in lines {
        text += &format!("    {} {}\n", styled(HEADING, plain(&line.place.to_string())), plain(&line.to_json()));
    }
    text
}

fn summary(verdict: &Verdict) -> String {
    let Counts { lines, processes, starts, operations, acknowledged, applied, terms, opened } = verdict.counts;
    let wrong = count(verdict);
    let found = match wrong {
        0 => styled(GOOD, "√ no violation"),
        1 => styled(BAD, "× 1 violation"),
        more => styled(BAD, format!("× {more} violations")),
    };
    format!(
        "{found} in {lines} lines\n  processes {processes}, starts {starts}, terms {terms}, opened {opened}\n  operations \
         {operations}, acknowledged {acknowledged}, applied {applied}\n"
    )
}

fn count(verdict: &Verdict) -> usize {
    verdict.violations.len() + verdict.left_out.values().sum::<usize>()
}

fn to_json(verdict: &Verdict, read: &Read) -> Value {
    let Counts { lines, processes, starts, operations, acknowledged, applied, terms, opened } = verdict.counts;
    let shown = |violation: &Violation| {
        let lines: Vec<Value> = violation
            .lines
            .iter()
            .map(|line| json!({"file": &*line.place.file, "line": line.place.line, "says": line}))
            .collect();
        json!({
            "invariant": violation.invariant.code(),
            "rule": violation.rule,
            "what": violation.what,
            "lines": lines,
        })
    };
    let left_out: serde_json::Map<String, Value> =
        verdict.left_out.iter().map(|(invariant, count)| (invariant.code().to_owned(), (*count).into())).collect();
    json!({
        "violations": verdict.violations.iter().map(shown).collect::<Vec<_>>(),
        "left_out": left_out,
        "count": count(verdict),
        "not_checked": verdict.not_checked,
        "torn": read.torn.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "empty": read.empty,
        "counts": {
            "lines": lines, "processes": processes, "starts": starts, "operations": operations,
            "acknowledged": acknowledged, "applied": applied, "terms": terms, "opened": opened,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const APPLIED: &str = r#"{"at":1,"event":"applied","target":"db","resource":"orders","epoch":"2","seq":1}
{"at":2,"event":"applied","target":"db","resource":"orders","epoch":"1","seq":2}
{"at":3,"even"#;

    fn verify(text: &str) -> (Exit, Read) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("db.jsonl");
        fs::write(&file, text).expect("it is in a temporary folder");
        let args = VerifyArgs { files: vec![file.clone()], no_clock: false, output: Output::Json };
        (run(&args), read::files(&[file]).unwrap_or_default())
    }

    #[test]
    fn the_exit_code_says_how_it_went() {
        assert_eq!(verify("").0, Exit::Usage, "nothing was checked");
        let today = r#"{"at":1794999814000000000,"event":"recorded","target":"db"}"#;
        assert_eq!(verify(today).0, Exit::Ok);
        assert_eq!(verify(&format!("{today}\n{}\n", today.replace("1794999814000000000", "5"))).0, Exit::Usage);
        assert_eq!(verify(APPLIED).0, Exit::Failed);
        assert_eq!(verify("{\"at\":1}\n").0, Exit::Usage);
        let started = r#"{"at":5,"event":"started","id":"a","listeners":[]}"#;
        assert_eq!(verify(&format!("{started}\n{}\n", started.replace('5', "4"))).0, Exit::Usage);
        let args = VerifyArgs { files: vec!["no/such/file".into()], no_clock: false, output: Output::Table };
        assert_eq!(run(&args), Exit::Usage);
    }

    #[test]
    fn a_violation_is_shown_with_its_lines() {
        let (_, read) = verify(APPLIED);
        let verdict = verify::check(&read.lines, Options::default());
        let text = anstream::adapter::strip_str(&text(&verdict, &read)).to_string();
        assert!(text.starts_with("× I1 (R1) orders at db: a write of epoch 1 was applied (place 2) after"), "{text}");
        assert!(text.contains("db.jsonl:2 {\"at\":2,\"from\":\"db\",\"event\":\"applied\""), "{text}");
        assert!(text.contains("db.jsonl:3: not written to its end"), "{text}");
        assert!(text.contains("not checked: I3, I4, I5 and I10: no client's lines"), "{text}");
        assert!(text.contains("\n× 1 violation in 2 lines\n"), "{text}");
        let json = to_json(&verdict, &read);
        assert_eq!((&json["count"], &json["violations"][0]["invariant"]), (&1.into(), &"I1".into()), "{json}");
        assert_eq!(json["violations"][0]["lines"][1]["line"], 2, "{json}");
        assert_eq!(json["violations"][0]["lines"][1]["says"]["epoch"], "1", "{json}");
    }
}
