//! The JSON Schema of the file: for editors, for the check, and for the reference.
//!
//! It is generated from the raw structs when a test asks for it (`UPDATE=1 cargo test --lib schema`), and kept as a file:
//! a process that starts reads it in a fraction of the time that generating it takes.

use std::sync::OnceLock;

use serde_json::Value;

/// The JSON Schema of `epochgate.yaml`, draft 2020-12.
pub fn schema() -> Value {
    built().clone()
}

pub(super) fn built() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| serde_json::from_str(include_str!("schema.json")).expect("a test has generated it"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::raw;
    use super::*;

    #[test]
    fn the_schema_is_the_one_of_the_raw_structs() {
        let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
        let mut schema = generator.into_root_schema_for::<raw::File>().to_value();
        tidy(&mut schema);
        schema["title"] = json!("epochgate configuration");
        let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/schema.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(file, &text).expect("the tree can be written to");
        }
        let kept = std::fs::read_to_string(file).expect("it is there");
        assert!(kept == text, "the raw structs have changed: UPDATE=1 cargo test --lib schema");
    }

    fn tidy(schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                // Doc comments are wrapped for the source; a description is one paragraph.
                if let Some(Value::String(text)) = fields.get_mut("description") {
                    *text = text.replace('\n', " ");
                }
                // Formats of numbers name Rust's types.
                if fields.get("type").is_some_and(|kind| kind == "integer" || kind == "number") {
                    fields.remove("format");
                }
                require(fields);
                fields.values_mut().for_each(tidy);
            }
            Value::Array(items) => items.iter_mut().for_each(tidy),
            _ => {}
        }
    }

    /// The raw structs have `None` for everything that is missing, so that the rest of a file is checked all the same. A
    /// property that nothing is no value for, and whose default is nothing, is one that must be there.
    fn require(fields: &mut serde_json::Map<String, Value>) {
        let Some(Value::Object(properties)) = fields.get_mut("properties") else { return };
        let mut required = Vec::new();
        for (key, property) in properties {
            if let Some(property) = property.as_object_mut()
                && property.get("default") == Some(&Value::Null)
            {
                property.remove("default");
                required.push(json!(key));
            }
        }
        if !required.is_empty() {
            fields.insert("required".into(), Value::Array(required));
        }
    }
}
