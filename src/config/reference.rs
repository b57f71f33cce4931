//! The tables of `docs/reference/configuration.md`, made of the schema. `UPDATE=1 cargo test reference` rewrites them.

use serde_json::Value;

use super::check::{follow, form_of, types, wanted, words};
use super::overrides::FLAGS;
use super::schema;

const BEGIN: &str = "<!-- keys: begin (made of the schema: UPDATE=1 cargo test --lib reference) -->\n";
const END: &str = "<!-- keys: end -->\n";

/// The tables: the top, then every mapping in it, depth first.
fn tables() -> String {
    let schema = schema::built();
    let mut text = String::new();
    table(schema, schema, "", &mut text);
    text
}

fn table(root: &Value, schema: &Value, path: &str, text: &mut String) {
    let name = if path.is_empty() { "The top".to_owned() } else { format!("`{path}`") };
    text.push_str(&format!("### {name}\n\n"));
    if !path.is_empty()
        && let Some(description) = schema["description"].as_str()
    {
        text.push_str(&format!("{description}\n\n"));
    }
    text.push_str("| key | value | default | flag | meaning |\n|---|---|---|---|---|\n");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut inner = Vec::new();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let (followed, _) = follow(root, property);
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let default =
            if required.contains(&key.as_str()) { "required".to_owned() } else { default(property, followed) };
        let flag = property["x-flag"].as_str().map(|flag| format!("`{flag}`")).unwrap_or_default();
        text.push_str(&format!(
            "| `{key}` | {} | {default} | {flag} | {} |\n",
            value(root, followed),
            meaning(property, followed)
        ));
        if types(followed).contains(&"object") && followed["properties"].is_object() {
            inner.push((full, followed));
        } else if followed["additionalProperties"].is_object() {
            inner.push((format!("{full}.<name>"), follow(root, &followed["additionalProperties"]).0));
        } else if followed["items"].is_object() {
            inner.push((format!("{full}[]"), follow(root, &followed["items"]).0));
        }
    }
    text.push('\n');
    for (path, schema) in inner.into_iter().filter(|(_, schema)| schema["properties"].is_object()) {
        table(root, schema, &path, text);
    }
}

fn value(root: &Value, schema: &Value) -> String {
    if let Some(form) = form_of(schema) {
        return form.wanted.to_owned();
    }
    if let Some(words) = words(schema) {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if schema["items"].is_object() {
        return format!("a list of: {}", value(root, follow(root, &schema["items"]).0));
    }
    let range = match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        _ => String::new(),
    };
    wanted(&types(schema)).replace(" (key: value)", "") + &range
}

fn default(property: &Value, followed: &Value) -> String {
    if let Some(words) = property["x-default"].as_str() {
        return words.to_owned();
    }
    match &property["default"] {
        Value::Null => "none".into(),
        // Its own table has them.
        Value::Object(_) if followed["properties"].is_object() => "as below".into(),
        Value::Object(fields) if fields.is_empty() => "none".into(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

fn meaning(property: &Value, followed: &Value) -> String {
    let mut meaning = property["description"].as_str().unwrap_or_default().to_owned();
    for branch in followed["oneOf"].as_array().into_iter().flatten() {
        if let (Some(word), Some(description)) = (branch["const"].as_str(), branch["description"].as_str()) {
            meaning.push_str(&format!(" `{word}`: {description}"));
        }
    }
    meaning.replace('|', "\\|")
}

#[test]
fn the_reference_has_every_key() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/configuration.md");
    let written = std::fs::read_to_string(&path).expect("the reference");
    let (before, rest) = written.split_once(BEGIN).expect("where the tables begin");
    let (_, after) = rest.split_once(END).expect("where the tables end");
    let wanted = format!("{before}{BEGIN}\n{}{END}{after}", tables());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &wanted).expect("written");
    } else {
        assert!(
            written == wanted,
            "docs/reference/configuration.md is not what the schema says: UPDATE=1 cargo test --lib reference"
        );
    }
}

#[test]
fn every_flag_of_the_schema_can_be_given() {
    let text = schema::built().to_string();
    for flag in FLAGS {
        assert!(text.contains(&format!("\"x-flag\":\"{flag}\"")), "{flag}");
    }
    let written = text.matches("\"x-flag\"").count();
    assert_eq!(written, FLAGS.len() + 1, "--resource stands at resources and at a listener's resource");
}

#[test]
fn the_schema_is_strict_and_explains_everything() {
    fn visit(schema: &Value, path: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], Value::Bool(false), "{path} takes unknown keys");
            for (key, property) in properties {
                assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path}.{key}");
            }
        }
        match schema {
            Value::Object(fields) => fields.iter().for_each(|(key, inner)| visit(inner, &format!("{path}.{key}"))),
            Value::Array(items) => items.iter().for_each(|inner| visit(inner, path)),
            _ => {}
        }
    }
    let schema = schema::built();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["$defs"]["Listener"]["required"], serde_json::json!(["name", "role", "listen", "upstream"]));
    visit(schema, "");
}
