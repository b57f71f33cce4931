//! The dashboard as Grafana reads it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::read;

/// Where it is.
const PATH: &str = "charts/epochgate/dashboards/epochgate.json";

/// The dashboard.
pub struct Dashboard {
    /// The whole file.
    pub json: Value,
    /// Every panel but the headings of rows.
    pub panels: Vec<Panel>,
}

/// One panel.
pub struct Panel {
    pub title: String,
    pub queries: Vec<String>,
    json: Value,
}

/// Reads it.
pub fn load() -> Dashboard {
    let json: Value = serde_json::from_str(&read(PATH)).unwrap_or_else(|error| panic!("{PATH}: {error}"));
    let panels = json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let panel = |json: &Value| Panel {
        title: text(&json["title"]),
        queries: json["targets"].as_array().unwrap().iter().map(|target| text(&target["expr"])).collect(),
        json: json.clone(),
    };
    Dashboard { panels: panels.map(panel).collect(), json }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Dashboard {
    /// Every query, with where it stands: panels' and annotations'.
    pub fn queries(&self) -> Vec<(String, String)> {
        let of_panels =
            self.panels.iter().flat_map(|panel| panel.queries.iter().map(|query| (panel.title.clone(), query.clone())));
        of_panels.chain(self.annotations()).collect()
    }

    /// The queries that mark moments in every panel.
    pub fn annotations(&self) -> Vec<(String, String)> {
        let list = self.json["annotations"]["list"].as_array().unwrap().iter();
        list.map(|one| (text(&one["name"]), text(&one["expr"]))).collect()
    }

    /// The variables that ask Prometheus: name, and the metric and the label of their `label_values(metric, label)`.
    pub fn variables(&self) -> Vec<(String, String, String)> {
        let list = self.json["templating"]["list"].as_array().unwrap().iter();
        let asking = list.filter(|variable| variable["type"] == "query").map(|variable| {
            let query = text(&variable["query"]["query"]);
            let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (metric, label) =
                inside.and_then(|inside| inside.rsplit_once(", ")).unwrap_or_else(|| panic!("{query}"));
            (text(&variable["name"]), metric.to_owned(), label.to_owned())
        });
        asking.collect()
    }
}

/// What Grafana makes of a query before it sends it: with All chosen, and with several.
pub fn substituted(query: &str, chosen: &[(&str, &str)]) -> String {
    let times = [("$__rate_interval", "5s"), ("$__range", "10m")];
    let query = times.iter().chain(chosen).fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains('$'), "a variable is left in: {query}");
    query
}

#[test]
fn every_panel_teaches_has_a_unit_and_a_place_of_its_own() {
    let dashboard = load();
    let all = dashboard.json["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "an id stands twice");
    let mut taken = BTreeSet::new();
    for panel in all {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}: beyond the right edge", panel["title"]);
        for (x, y) in (place("x")..place("x") + place("w"))
            .flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
        }
    }
    let mut titles = BTreeSet::new();
    for Panel { title, queries, json } in &dashboard.panels {
        assert!(!title.is_empty() && titles.insert(title), "`{title}` is no title of its own");
        assert!(json["description"].as_str().is_some_and(|words| words.len() > 30), "{title} teaches nothing");
        assert!(
            json["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()),
            "{title}: no unit"
        );
        assert!(!queries.is_empty(), "{title} asks nothing");
        assert_eq!(json["datasource"]["uid"], "${datasource}", "{title}");
        for target in json["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(json["type"] == "table" || !text(&target["legendFormat"]).is_empty(), "{title}: no legend");
        }
        for query in queries {
            assert!(query.contains("$job") && query.contains("$namespace"), "{title} shows others' too: {query}");
            assert!(!query.contains("by (epoch") && !query.contains("by (writer"), "{title}: {query}");
        }
    }
    let variables: Vec<String> = dashboard.variables().into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(variables, ["namespace", "job", "resource", "listener"]);
    for (place, query) in dashboard.queries() {
        let all = variables.iter().map(|name| format!("${name}")).collect::<Vec<_>>();
        let chosen: Vec<(&str, &str)> = all.iter().map(|name| (&**name, ".*")).collect();
        assert!(!substituted(&query, &chosen).is_empty(), "{place}");
    }
}
