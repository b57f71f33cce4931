//! Every alert has a page, every page an alert, and each answers the same questions.

use super::{alerts, read, top};

/// What somebody wants to know who was woken, in this order.
const QUESTIONS: [&str; 4] = ["## What it means", "## Is data at risk?", "## Look", "## Fix"];

#[test]
fn every_alert_has_a_page_that_answers_the_same_questions() {
    let index = read("docs/runbooks/README.md");
    let alerts = alerts::all();
    for alert in &alerts {
        let page = read(&alert.runbook);
        assert_eq!(page.lines().next(), Some(&*format!("# {}", alert.name)), "{}", alert.runbook);
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, QUESTIONS, "{}", alert.runbook);
        let severity = format!("**{}**", alert.severity);
        assert!(page.contains(&severity), "{} does not say {severity}", alert.runbook);
        let row = format!("| [{0}]({0}.md) | {1} |", alert.name, alert.severity);
        assert!(index.contains(&row), "the index has no `{row}`");
    }
    let pages = std::fs::read_dir(top().join("docs/runbooks")).unwrap();
    let names = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    for name in names.filter(|name| name != "README.md") {
        let alert = name.trim_end_matches(".md");
        assert!(alerts.iter().any(|known| known.name == alert), "docs/runbooks/{name} is no alert's");
    }
}
