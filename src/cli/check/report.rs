//! Findings by category, for people and for programs.

use serde_json::{Value, json};

use super::super::paint::{BAD, GOOD, HEADING, WARNING, plain, styled};
use super::super::table::Table;

/// How one thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Warning,
    Bad,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Bad => "failed",
        }
    }

    fn mark(self) -> String {
        match self {
            Verdict::Good => styled(GOOD, "√"),
            Verdict::Warning => styled(WARNING, "‼"),
            Verdict::Bad => styled(BAD, "×"),
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    verdict: Verdict,
    what: String,
    hint: String,
}

impl Finding {
    /// As it should be.
    pub fn good(what: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Good, what: what.into(), hint: String::new() }
    }

    /// As it should be, with what follows from it.
    pub fn good_with(what: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { hint: hint.into(), ..Finding::good(what) }
    }

    /// Allowed, and rarely meant.
    pub fn warning(what: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Warning, ..Finding::good_with(what, hint) }
    }

    /// Not as it must be.
    pub fn bad(what: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Bad, ..Finding::good_with(what, hint) }
    }

    /// How it was found.
    #[cfg(test)]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What, and what to do.
    #[cfg(test)]
    pub fn words(&self) -> String {
        format!("{}; {}", self.what, self.hint)
    }
}

/// Findings that belong together.
#[derive(Clone, Debug)]
pub struct Category {
    name: &'static str,
    findings: Vec<Finding>,
    table: Option<Table>,
    details: Value,
}

impl Category {
    /// An empty one.
    pub fn new(name: &'static str) -> Category {
        Category { name, findings: Vec::new(), table: None, details: Value::Null }
    }

    /// One more finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// A table below the findings, and the same for programs.
    pub fn set_table(&mut self, table: Table, details: Value) {
        self.table = Some(table);
        self.details = details;
    }

    /// What was found.
    #[cfg(test)]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    categories: Vec<Category>,
}

impl Report {
    /// One more category.
    pub fn add(&mut self, category: Category) {
        self.categories.push(category);
    }

    /// Whether anything is not as it must be.
    pub fn has_failed(&self) -> bool {
        self.count(Verdict::Bad) > 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        let findings = self.categories.iter().flat_map(|category| &category.findings);
        findings.filter(|finding| finding.verdict == verdict).count()
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for category in &self.categories {
            text += &format!("{}\n{}\n", styled(HEADING, category.name), "-".repeat(category.name.chars().count()));
            for finding in &category.findings {
                text += &format!("{} {}\n", finding.verdict.mark(), plain(&finding.what));
                if !finding.hint.is_empty() {
                    text += &format!("    {}\n", plain(&finding.hint));
                }
            }
            for line in
                category.table.iter().flat_map(|table| table.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
            {
                text += &format!("    {line}\n");
            }
            text.push('\n');
        }
        let [failed, warnings, passed] =
            [Verdict::Bad, Verdict::Warning, Verdict::Good].map(|verdict| self.count(verdict));
        let counted =
            format!("{failed} failed, {warnings} warning{}, {passed} passed", if warnings == 1 { "" } else { "s" });
        text + &format!("{} {counted}\n", styled(HEADING, "Check results:"))
    }

    /// For programs; keys are only ever added.
    pub fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            let mut json = json!({ "result": finding.verdict.as_str(), "what": finding.what });
            if !finding.hint.is_empty() {
                json["hint"] = json!(finding.hint);
            }
            json
        };
        let category = |category: &Category| {
            let checks: Vec<Value> = category.findings.iter().map(finding).collect();
            let mut json = json!({ "name": category.name, "checks": checks });
            if !category.details.is_null() {
                json["details"] = category.details.clone();
            }
            json
        };
        json!({
            "categories": self.categories.iter().map(category).collect::<Vec<_>>(),
            "failed": self.count(Verdict::Bad),
            "warnings": self.count(Verdict::Warning),
            "passed": self.count(Verdict::Good),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_see_the_same() {
        let mut category = Category::new("etcd");
        category.add(Finding::good("answers"));
        category.add(Finding::warning("is slow", "look at its disk"));
        category.add(Finding::bad("is \u{1b}[2J away", "start it"));
        let mut report = Report::default();
        report.add(category);
        assert!(report.has_failed());
        let text = anstream::adapter::strip_str(&report.to_text()).to_string();
        assert_eq!(
            text,
            "etcd\n----\n√ answers\n‼ is slow\n    look at its disk\n× is \\u{1b}[2J away\n    start it\n\n\
             Check results: 1 failed, 1 warning, 1 passed\n"
        );
        let json = report.to_json();
        assert_eq!(json["categories"][0]["checks"][1]["result"], "warning");
        assert_eq!(json["categories"][0]["checks"][2]["hint"], "start it");
        assert_eq!((&json["failed"], &json["warnings"], &json["passed"]), (&json!(1), &json!(1), &json!(1)));
    }
}
