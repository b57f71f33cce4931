//! The alerts as the rule file has them.

use super::read;

/// Where they are.
pub const PATH: &str = "charts/epochgate/rules/alerts.yaml";

/// One alert. The text is read as text: Prometheus itself says whether the file is one (`rules.rs`, `failover.rs`).
pub struct Alert {
    pub name: String,
    pub expr: String,
    pub severity: String,
    pub runbook: String,
    /// Everything under `annotations:`.
    pub texts: String,
}

/// All of them, in order.
pub fn all() -> Vec<Alert> {
    let file = read(PATH);
    file.split("\n      - alert: ").skip(1).map(alert).collect()
}

fn alert(block: &str) -> Alert {
    let block = block.split("\n  - name: ").next().unwrap();
    let (rule, texts) = block.split_once("        annotations:\n").unwrap_or_else(|| panic!("no annotations: {block}"));
    let name = rule.lines().next().unwrap().to_owned();
    let expr = rule.split_once("        expr: |\n").unwrap_or_else(|| panic!("{name}: no `expr: |`")).1;
    let expr = expr.lines().take_while(|line| line.starts_with("          ")).collect::<Vec<_>>().join("\n");
    let value = |text: &str, key: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": ").map(str::to_owned));
        found.unwrap_or_else(|| panic!("{name}: no {key}"))
    };
    Alert {
        expr,
        severity: value(rule, "severity"),
        runbook: value(texts, "runbook_url"),
        texts: texts.to_owned(),
        name,
    }
}
