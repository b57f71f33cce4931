//! The alerts, without a server: promtool runs the made series of `rules/`, and what it cannot see is looked at here.

use std::collections::BTreeSet;

use epochgate::fence::Reason;

use super::alerts::{self, all};
use super::support::process::{LONG, Launch};
use super::{promql, read, top};

/// Labels that every scrape has, or may have.
const OF_SCRAPES: [&str; 4] = ["cluster", "namespace", "job", "instance"];

#[track_caller]
fn promtool(args: &[&str], file: &str) {
    let mut promtool = Launch::program("promtool").args(args).arg(top().join(file)).start();
    let ended = promtool.wait(LONG);
    assert!(ended.success(), "promtool {args:?} {file}:\n{}{}", promtool.stdout(), promtool.stderr());
}

fn test_files() -> Vec<String> {
    let folder = std::fs::read_dir(top().join("tests/monitoring/rules")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut paths: Vec<String> = names.map(|name| format!("tests/monitoring/rules/{name}")).collect();
    paths.sort();
    paths
}

#[test]
fn promtool_sees_every_alert_fire_where_it_should_and_stay_silent_where_it_should() {
    promtool(&["check", "rules"], alerts::PATH);
    let files = test_files();
    files.iter().for_each(|file| promtool(&["test", "rules"], file));

    // It runs what is there; whether anything is missing it cannot know.
    let tests: String = files.iter().map(|file| read(file)).collect();
    for alert in all() {
        let asked = format!("- expr: ALERTS{{alertname=\"{}\", alertstate=\"firing\"}}", alert.name);
        let answers = tests.split(&asked).skip(1).map(|rest| rest.split("- expr:").next().unwrap());
        let (silent, firing): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.contains("exp_samples: []"));
        assert!(!firing.is_empty(), "{} is never seen to fire", alert.name);
        assert!(!silent.is_empty(), "{} is never seen to be silent beside what is like it", alert.name);
        let metrics = promql::selectors(&alert.expr);
        let healthy = read("tests/monitoring/rules/healthy.yaml");
        // A door that waits has a series only while it does.
        let rare = "epochgate_drain_waits_for_door";
        for name in metrics.iter().map(|selector| selector.split('{').next().unwrap()).filter(|name| *name != rare) {
            assert!(healthy.contains(name), "{} looks at {name}, which the healthy system lacks", alert.name);
        }
    }
}

#[test]
fn every_alert_says_how_bad_it_is_what_is_at_risk_and_where_to_read_on() {
    let alerts = all();
    assert_eq!(alerts.len(), read(alerts::PATH).matches("- alert:").count());
    assert!((15..=25).contains(&alerts.len()), "{} alerts: few enough to be read", alerts.len());
    for alert in &alerts {
        let name = &alert.name;
        assert!(name.starts_with("Epochgate"), "{name}: Alertmanager has others' beside it");
        assert!(["critical", "warning", "info"].contains(&&*alert.severity), "{name}: {}", alert.severity);
        assert_eq!(alert.runbook, format!("docs/runbooks/{name}.md"));
        let flowing = alert.texts.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flowing.contains("summary: ") && flowing.contains("description: "), "{name}");
        assert!(
            ["data is at risk", "Data is safe", "data is safe", "Data IS at risk", "Data is at risk"]
                .iter()
                .any(|words| flowing.contains(words)),
            "{name} does not say whether data is at risk: {flowing}"
        );
        // A label that the expression drops would come out empty.
        let mut there = promql::grouped_by(&alert.expr);
        if there.is_empty() {
            there.extend(OF_SCRAPES.map(str::to_owned));
        }
        for label in alert.texts.split("$labels.").skip(1) {
            let label = label.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            assert!(there.contains(label), "{name} names the label {label}, and has {there:?}");
        }
    }
    let names: BTreeSet<&str> = alerts.iter().map(|alert| &*alert.name).collect();
    assert_eq!(names.len(), alerts.len(), "a name stands twice");
}

#[test]
fn alerts_and_dashboard_name_metrics_and_reasons_that_there_are() {
    let reference = read("docs/reference/metrics.md");
    let dashboard = super::dashboard::load();
    let queries = all().into_iter().map(|alert| (alert.name, alert.expr)).chain(dashboard.queries());
    let mut shown = BTreeSet::new();
    for (place, query) in queries {
        for selector in promql::selectors(&query) {
            let metric = promql::metric(&selector);
            assert!(reference.contains(&format!("| `{metric}` |")), "{place}: {metric} is not in the reference");
            shown.insert(metric.to_owned());
        }
        for reason in promql::compared_with(&query, "reason").iter().filter(|reason| *reason != "-") {
            assert!(Reason::ALL.iter().any(|known| known.as_str() == reason), "{place}: {reason} is no reason");
        }
    }
    let of_ours = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
    let left_out: Vec<&str> = of_ours.filter(|name| name.starts_with("epochgate_") && !shown.contains(*name)).collect();
    assert!(left_out.is_empty(), "neither an alert nor the dashboard looks at {left_out:?}");
}
