//! Rules and dashboards: whatever files there are go into the objects as they are.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::helm::{Release, copy, release, top};
use super::pods::Manifests;

const RULES: &str = r#"groups:
  - name: orders
    rules:
      - alert: GateShut
        expr: epochgate_gate_open == 0
        for: 1m
        labels: { severity: critical, team: nobody }
        annotations:
          summary: 'The gate of {{ $labels.resource }} is shut at {{ $labels.instance }} ({{ printf "%.0f" $value }}).'
      - alert: OnlyGood
        expr: vector(1)
      - record: epochgate:refused:rate5m
        expr: sum by (resource) (rate(epochgate_rejections_total[5m]))
  - name: alone
    rules:
      - alert: OnlyOne
        expr: vector(2)
"#;
const DASHBOARD: &str = "{\n  \"title\": \"epochgate\",\n  \"legend\": \"{{resource}} {{ $x }} `as it is`\"\n}\n";

/// The guard's chart with other files of rules and dashboards than it has.
fn chart(folder: &Path, rules: &[(&str, &str)], dashboards: &[(&str, &str)]) -> PathBuf {
    let chart = folder.join("epochgate");
    copy(&top("charts/epochgate"), &chart);
    for (kind, files) in [("rules", rules), ("dashboards", dashboards)] {
        let _ = fs::remove_dir_all(chart.join(kind));
        fs::create_dir_all(chart.join(kind)).unwrap();
        for (name, text) in files {
            fs::write(chart.join(kind).join(name), text).unwrap();
        }
    }
    chart
}

fn monitored(chart: &Path) -> Release {
    let release = release("orders-guard", "charts/epochgate").of(chart);
    let release = release.file(&top("charts/epochgate/ci/default-values.yaml"));
    release.set("prometheusRule.enabled=true").set("dashboard.enabled=true")
}

fn rules(manifests: &Manifests) -> Vec<Value> {
    let groups = manifests.named("PrometheusRule", "orders-guard")["spec"]["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn without_files_there_is_nothing_to_apply() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = Manifests::read(&monitored(&chart(folder.path(), &[], &[])).render());
    assert_eq!(manifests.of_kind("PrometheusRule").count(), 0);
    assert_eq!(manifests.of_kind("ConfigMap").count(), 1);
}

#[test]
fn files_go_in_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let more = "groups: [{ name: more, interval: 30s, rules: [{ alert: More, expr: vector(3) }] }]\n";
    let chart = chart(folder.path(), &[("a.yaml", RULES), ("b.yaml", more)], &[("epochgate.json", DASHBOARD)]);
    let manifests = Manifests::read(&monitored(&chart).render());

    let groups = &manifests.named("PrometheusRule", "orders-guard")["spec"]["groups"];
    let names: Vec<&Value> = groups.as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert_eq!(names, ["orders", "alone", "more"]);
    assert_eq!(groups[2]["interval"], "30s");
    let rules = rules(&manifests);
    assert_eq!(rules[0]["for"], "1m");
    assert_eq!(rules[0]["labels"], json!({ "severity": "critical", "team": "nobody" }));
    let summary =
        "The gate of {{ $labels.resource }} is shut at {{ $labels.instance }} ({{ printf \"%.0f\" $value }}).";
    assert_eq!(rules[0]["annotations"]["summary"], summary);
    assert!(rules[1]["labels"].is_null(), "none are added unasked");

    let dashboard = manifests.named("ConfigMap", "orders-guard-dashboard-epochgate");
    assert_eq!(dashboard["data"]["epochgate.json"], DASHBOARD);
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
}

#[test]
fn alerts_are_left_out_and_labelled_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let release = monitored(&chart(folder.path(), &[("a.yaml", RULES)], &[]));
    let release = release.set("prometheusRule.disabled.OnlyGood=true").set("prometheusRule.disabled.OnlyOne=true");
    let release = release.set("prometheusRule.disabled.GateShut=false").set("prometheusRule.ruleLabels.team=orders");
    let manifests = Manifests::read(&release.set("prometheusRule.alertLabels.GateShut.severity=page").render());

    let groups = manifests.named("PrometheusRule", "orders-guard")["spec"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "a group without rules is left out");
    let rules = rules(&manifests);
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0]["labels"], json!({ "severity": "page", "team": "orders" }));
    assert_eq!(rules[1]["record"], "epochgate:refused:rate5m");
    assert_eq!(rules[1]["labels"], json!({ "team": "orders" }));
}

#[test]
fn nothing_is_applied_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let chart = chart(folder.path(), &[("a.yaml", RULES)], &[("epochgate.json", DASHBOARD)]);
    let values = top("charts/epochgate/ci/default-values.yaml");
    let manifests = Manifests::read(&release("orders-guard", "charts/epochgate").of(&chart).file(&values).render());
    assert_eq!(manifests.of_kind("PrometheusRule").count(), 0);
    assert_eq!(manifests.of_kind("ConfigMap").count(), 1);
    assert_eq!(manifests.of_kind("PodMonitor").count() + manifests.of_kind("ServiceMonitor").count(), 0);
}
