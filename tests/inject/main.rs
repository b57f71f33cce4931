//! `epochgate inject` on whole manifests. `cases/NAME.in.yaml` goes in, with the flags of `NAME.args.txt`, where there are any;
//! `NAME.out.yaml` is what comes out, and `NAME.report.txt` what is said beside it. `UPDATE=1` writes both anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FLAGS: &str = "--role stamp --config-map orders-stamp";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject/cases")
}

fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).expect("the cases are there");
    let name = |path: PathBuf| path.file_name()?.to_str()?.strip_suffix(".in.yaml").map(str::to_owned);
    entries.filter_map(|entry| name(entry.expect("it can be read").path())).collect()
}

fn flags(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.args.txt"))).unwrap_or_else(|_| FLAGS.to_owned())
}

fn inject(file: &str, flags: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochgate"));
    command.current_dir(folder()).args(["inject", "-f", file]).args(flags.split_whitespace());
    command.env_clear().output().expect("the program runs")
}

/// In a pipeline a database without its guard is not to be applied.
#[test]
fn strict_prints_nothing_where_a_workload_lacks_its_sidecar() {
    let output = inject("skipped.in.yaml", &format!("{FLAGS} --strict"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
    assert!(text(output.stderr).contains("--strict: a workload is left without its sidecar"));
    assert_eq!(inject("deployment.in.yaml", &format!("{FLAGS} --strict")).status.code(), Some(0));
    // Who opted out lacks nothing.
    let output = Command::new(env!("CARGO_BIN_EXE_epochgate"))
        .args("inject -f - --strict".split_whitespace().chain(FLAGS.split_whitespace()))
        .stdin(std::fs::File::open(opted_out()).expect("it is there"))
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(output.stderr));
}

/// As kubectl reads it, and fast: mappings that merge each other have many ways to one, and each is gone once.
#[test]
fn a_host_network_is_seen_however_it_is_written_and_merges_take_no_time() {
    let merges: String =
        (1..9).map(|n| format!("x{n}: &x{n} {{<<: [{}]}}\n", vec![format!("*x{}", n - 1); 30].join(", "))).collect();
    for written in ["true", "yes", "True", "on", "Y"] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-network.yaml");
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  hostNetwork: {written}\n  containers: [{{name: a, image: a}}]\nx0: &x0 {{}}\n{merges}<<: *x8\n"
        );
        fs::write(&path, pod).expect("it can be written");
        let output = inject(path.to_str().expect("text"), FLAGS);
        let report = text(output.stderr);
        assert!(report.contains("pod/a: skipped: hostNetwork"), "{written}: {report}");
    }
}

fn opted_out() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("opted-out.yaml");
    let labels = "labels: {epochgate.dev/inject: disabled}";
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, {labels}}}\nspec: {{containers: [{{name: a, image: a}}]}}\n"
    );
    fs::write(&path, pod).expect("it can be written");
    path
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("it is text")
}

/// Compares with what is kept, or keeps it.
fn compare(name: &str, end: &str, is: &str, problems: &mut Vec<String>) {
    let path = folder().join(format!("{name}.{end}"));
    if std::env::var_os("UPDATE").is_some() {
        if is.is_empty() {
            let _ = fs::remove_file(&path);
        } else {
            fs::write(&path, is).expect("it can be written");
        }
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if kept != is {
        let line = kept.lines().zip(is.lines()).position(|(kept, is)| kept != is);
        let line = line.unwrap_or_else(|| kept.lines().count().min(is.lines().count()));
        let at = |text: &str| text.lines().nth(line).unwrap_or("(its end)").to_owned();
        problems.push(format!("{name}.{end}:{}: kept is {:?}, and it is {:?}", line + 1, at(&kept), at(is)));
    }
}

#[test]
fn every_manifest_becomes_what_is_kept() {
    let mut problems = Vec::new();
    for name in names() {
        let output = inject(&format!("{name}.in.yaml"), &flags(&name));
        let (yaml, report) = (text(output.stdout), text(output.stderr));
        let expected = if name.starts_with("broken-") { 78 } else { 0 };
        if output.status.code() != Some(expected) {
            problems.push(format!("{name}: {}, and {expected} was expected:\n{report}", output.status));
        }
        assert!(expected == 0 || yaml.is_empty(), "{name}: with an error there is no output");
        compare(&name, "out.yaml", &yaml, &mut problems);
        compare(&name, "report.txt", &report, &mut problems);
    }
    assert!(problems.is_empty(), "UPDATE=1 keeps what is:\n  {}", problems.join("\n  "));
}

#[test]
fn a_second_run_changes_nothing() {
    for name in names().into_iter().filter(|name| !name.starts_with("broken-")) {
        let file = format!("{name}.out.yaml");
        let output = inject(&file, &flags(&name));
        let before = fs::read_to_string(folder().join(file)).expect("it is kept");
        assert!(output.status.success(), "{name}: {}", text(output.stderr));
        assert_eq!(text(output.stdout), before, "{name}");
        assert!(!text(output.stderr).contains(": added"), "{name}");
    }
}

/// These have an empty list or null where the sidecar goes, which is replaced.
const REPLACED: [&str; 2] = ["empty-values", "json-one-line"];

/// What was there is still there, in the same order.
#[test]
fn nothing_of_a_manifest_is_lost() {
    for name in names().into_iter().filter(|name| !name.starts_with("broken-") && !REPLACED.contains(&name.as_str())) {
        let read = |end: &str| fs::read_to_string(folder().join(format!("{name}.{end}"))).expect("it is kept");
        let (before, after) = (read("in.yaml"), read("out.yaml"));
        let mut rest = after.chars();
        for c in before.chars() {
            assert!(rest.any(|there| there == c), "{name}: it does not come in order from {c:?} on");
        }
        let line_breaks = |text: &str| (text.matches("\r\n").count(), text.matches('\n').count());
        let ((carriage, _), (returns, lines)) = (line_breaks(&before), line_breaks(&after));
        assert_eq!(if carriage > 0 { lines } else { 0 }, returns, "{name}: one kind of line ends");
    }
}

#[test]
fn several_files_are_one_stream() {
    let two = |files: [&str; 2]| {
        let output = inject(files[0], &format!("-f {} {FLAGS}", files[1]));
        assert!(output.status.success(), "{}", text(output.stderr));
        text(output.stdout)
    };
    let read = |file: &str| fs::read_to_string(folder().join(file)).expect("it is kept");
    let (first, nothing) = (read("no-last-line-break.out.yaml"), read("nothing.in.yaml"));
    assert_eq!(two(["no-last-line-break.in.yaml", "nothing.in.yaml"]), format!("{first}\n---\n{nothing}"));
    let documents = read("documents.out.yaml");
    assert_eq!(two(["nothing.in.yaml", "documents.in.yaml"]), format!("{nothing}...\n{documents}"));
    let letters = read("other-letters.out.yaml");
    let letters = letters.trim_start_matches('\u{feff}');
    assert_eq!(two(["nothing.in.yaml", "other-letters.in.yaml"]), format!("{nothing}---\n{letters}"));
}

#[test]
fn what_cannot_be_is_usage() {
    let refused = |flags: &str, said: &str| {
        let output = inject("deployment.in.yaml", flags);
        let report = text(output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {report}");
        assert!(report.contains(said) && output.stdout.is_empty(), "{flags}: {report}");
    };
    refused("--role stamp", "--config-map");
    refused("--role stamp --config-map Orders", "small letters");
    refused("--role stamp --config-map x --state-claim y", "a stamp keeps nothing");
    refused("--role stamp --config-map x --secret config=y", "epochgate's own");
    refused("--role stamp --config-map x --secret a=y --secret a=z", "given twice");
    refused("--role stamp --config-map x --secret a_b=y", "FOLDER=SECRET");
    refused("--role stamp --config-map x --port a=9464", "eg-admin");
    refused("--role stamp --config-map x --port a=0", "NAME=PORT");
    refused("--role stamp --config-map x --admin-port 0", "0");
    refused("--role stamp --config-map x --image größe", "registry/repository:tag");
    refused("--role stamp --config-map x -f missing.yaml", "missing.yaml");
    refused("--role stamp --config-map x -f - -f -", "once");
    refused("--role target --config-map x", "stamp");
}
