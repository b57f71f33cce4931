//! What is written twice says the same twice: the schemas of values have the configuration's own schema in them, the
//! READMEs have a table of every value, the charts and the program have one version.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::helm::{assert_kept, top};
use super::yaml;

const CHARTS: [&str; 2] = ["charts/epochgate", "charts/epochgate-lib"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `$defs` of a values.schema.json: those of the configuration, and the parts of it that values are made of.
fn definitions() -> Value {
    let schema: Value = serde_json::from_str(&read(&top("src/config/schema.json"))).unwrap();
    let mut definitions = schema["$defs"].clone();
    let mut config = json!({ "type": "object", "additionalProperties": false });
    config["properties"] = schema["properties"].clone();
    // The chart says where listeners go, and what its own keys are for; a schema could only say no.
    config["properties"]["listeners"] = json!(true);
    definitions["Coordinator"]["properties"]["etcd"] = json!(true);
    definitions["Config"] = config;

    let listener = definitions["Listener"].clone();
    let mut upstream = listener["properties"]["upstream"].clone();
    upstream.as_object_mut().unwrap().remove("required");
    // Empty where `listeners` has all of them.
    let url = upstream["properties"]["url"].clone();
    upstream["properties"]["url"] = json!({ "anyOf": [{ "const": "" }, url] });
    definitions["Upstream"] = upstream;

    let mut own = listener.clone();
    own.as_object_mut().unwrap().remove("required");
    for key in ["role", "listen", "protocol", "mode", "resource", "upstream"] {
        own["properties"].as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("a listener has {key}"));
    }
    definitions["OwnListener"] = own;

    let mut more = listener;
    more["properties"].as_object_mut().unwrap().remove("name");
    more["required"] = json!(["listen", "upstream"]);
    definitions["MoreListener"] = more;
    forget_own_words(&mut definitions);
    definitions
}

/// Takes out what only epochgate's own checker reads.
fn forget_own_words(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, _| !key.starts_with("x-"));
            map.values_mut().for_each(forget_own_words);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_own_words),
        _ => {}
    }
}

#[test]
fn the_schemas_of_values_have_the_schema_of_the_configuration() {
    for chart in CHARTS {
        let path = top(chart).join("values.schema.json");
        let mut schema: Value = serde_json::from_str(&read(&path)).unwrap();
        schema["$defs"] = definitions();
        assert_kept(&path, &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
    }
}

/// Every value has a place in the schema, and everything in the schema a default.
#[test]
fn the_schemas_know_every_value_and_no_other() {
    for chart in CHARTS {
        let schema: Value = serde_json::from_str(&read(&top(chart).join("values.schema.json"))).unwrap();
        let values = yaml::document(&read(&top(chart).join("values.yaml")));
        compare(&schema, &values, chart);
    }
}

fn compare(schema: &Value, values: &Value, at: &str) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let values = values.as_object().unwrap_or_else(|| panic!("{at} is a mapping"));
    for key in values.keys() {
        assert!(properties.contains_key(key), "{at}: {key} is not in the schema");
    }
    assert_eq!(schema["additionalProperties"], false, "{at} takes anything");
    for (key, property) in properties {
        // What Helm puts there; what is nobody's to set by default.
        if ["global", "epochgate-lib"].contains(&key.as_str()) || at.contains("probes.") {
            continue;
        }
        let value = values.get(key).unwrap_or_else(|| panic!("{at}: {key} has no default in values.yaml"));
        compare(property, value, &format!("{at}.{key}"));
    }
}

/// What both charts have is the same in both, so that a guard beside a database is set up like one before it.
#[test]
fn shared_values_have_the_same_defaults() {
    let [guard, library] = CHARTS.map(|chart| yaml::document(&read(&top(chart).join("values.yaml"))));
    for (key, value) in guard.as_object().unwrap() {
        if let Some(other) = library.get(key).filter(|_| key != "mode") {
            assert_eq!(value, other, "{key}");
        }
    }
    assert_eq!([&guard["mode"], &library["mode"]], ["enforce", ""]);
}

#[test]
fn the_readmes_have_every_value() {
    for chart in CHARTS {
        let path = top(chart).join("README.md");
        let text = read(&path);
        let (begin, end) = (
            "<!-- values: begin (made of values.yaml: UPDATE=1 cargo test --test charts) -->\n",
            "<!-- values: end -->",
        );
        let (before, rest) =
            text.split_once(begin).unwrap_or_else(|| panic!("{} has no place for values", path.display()));
        let (_, after) = rest.split_once(end).expect("what begins has an end");
        let table = table(&read(&top(chart).join("values.yaml")));
        assert_kept(&path, &format!("{before}{begin}{table}{end}{after}"));
    }
}

/// The table of a values.yaml: each key with the comment above it. A key below another has its comment, or is told by that.
fn table(values: &str) -> String {
    let mut rows = String::from("| key | default | meaning |\n|---|---|---|\n");
    let (mut comment, mut path): (Vec<&str>, Vec<(usize, String)>) = (Vec::new(), Vec::new());
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        if text.is_empty() {
            comment.clear();
            continue;
        }
        let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with("- ")) else { continue };
        path.retain(|(outer, _)| *outer < indent);
        let full: String = path.iter().map(|(_, key)| format!("{key}.")).collect::<String>() + key;
        path.push((indent, key.to_owned()));
        let value = value.trim();
        let leaf = !value.is_empty();
        if leaf || !comment.is_empty() {
            let default = if leaf { format!("`{value}`") } else { String::new() };
            rows.push_str(&format!("| `{full}` | {default} | {} |\n", comment.join(" ").replace('|', "\\|")));
        }
        comment.clear();
    }
    rows
}

/// Every value says what it is for, itself or by the one above it.
#[test]
fn every_value_has_a_comment() {
    for chart in CHARTS {
        let table = table(&read(&top(chart).join("values.yaml")));
        let told =
            |key: &str| table.lines().any(|row| row.starts_with(&format!("| `{key}` |")) && !row.ends_with("|  |"));
        for row in table.lines().skip(2).filter(|row| row.ends_with("|  |")) {
            let key = row.split('`').nth(1).unwrap();
            let outer = key.match_indices('.').map(|(at, _)| &key[..at]);
            assert!(outer.clone().any(told), "{chart}: {key} has no comment, nor has what it is in");
        }
    }
}

#[test]
fn charts_and_program_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    for chart in CHARTS {
        let about = yaml::document(&read(&top(chart).join("Chart.yaml")));
        assert_eq!(about["version"], version, "{chart}");
        assert_eq!(about["appVersion"], version, "{chart}");
    }
    let names = read(&top("charts/epochgate-lib/templates/_names.tpl"));
    let (_, text) = names.split_once("define \"epochgate.version\" -}}\n").unwrap();
    assert_eq!(text.lines().next(), Some(version), "the library's own");
}
