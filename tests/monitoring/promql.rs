//! What a query names: just enough of PromQL to find the series and the labels that it hopes for.

use std::collections::BTreeSet;

/// Every selector of ours: the name of a metric, with its matchers.
pub fn selectors(query: &str) -> BTreeSet<String> {
    let starts = ["epochgate_", "process_"].into_iter().flat_map(|prefix| query.match_indices(prefix));
    let begins = |at: usize| !query[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '"');
    starts.filter(|(at, _)| begins(*at)).map(|(at, _)| selector(&query[at..]).to_owned()).collect()
}

fn selector(text: &str) -> &str {
    let name = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if !text[name..].starts_with('{') {
        return &text[..name];
    }
    let mut quoted = false;
    let end = text[name..].find(|c| {
        quoted ^= c == '"';
        c == '}' && !quoted
    });
    &text[..name + end.expect("a selector has its end") + 1]
}

/// The name of a selector's metric as the reference has it: without what histograms add.
pub fn metric(selector: &str) -> &str {
    let name = selector.split('{').next().unwrap();
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// The labels that results are told apart by.
pub fn grouped_by(query: &str) -> BTreeSet<String> {
    let lists = query.split("by (").skip(1).map(|rest| rest.split(')').next().unwrap());
    lists.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned()).collect()
}

/// The values that a query compares a label with, by `=` or as the alternatives of a `=~`.
pub fn compared_with(query: &str, label: &str) -> Vec<String> {
    let values = |operator: &str| {
        let compared = format!("{label}{operator}\"");
        let pieces = query.split(&compared).skip(1);
        pieces.map(|rest| rest.split('"').next().unwrap()).collect::<Vec<_>>()
    };
    let all = values("=").into_iter().chain(values("=~"));
    all.flat_map(|value| value.split('|')).filter(|value| !value.starts_with('$')).map(str::to_owned).collect()
}

#[test]
fn what_a_query_names_is_found() {
    let query = r#"sum by (job, reason) (rate(epochgate_rejections_total{reason=~"a|b", x="}"}[5m]))
        / on (job) group_left () max by (job) (epochgate_epoch) unless process_open_fds{job=~"$job"} and my_epochgate_x"#;
    let found = selectors(query).into_iter().collect::<Vec<_>>();
    let rejections = r#"epochgate_rejections_total{reason=~"a|b", x="}"}"#;
    assert_eq!(found, ["epochgate_epoch", rejections, r#"process_open_fds{job=~"$job"}"#]);
    assert_eq!(grouped_by(query).into_iter().collect::<Vec<_>>(), ["job", "reason"]);
    assert_eq!(compared_with(query, "reason"), ["a", "b"]);
    assert!(compared_with(query, "job").is_empty());
    assert_eq!(metric("epochgate_epoch_gap_bucket{a=\"b\"}"), "epochgate_epoch_gap");
}
