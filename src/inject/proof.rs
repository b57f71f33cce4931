//! Whether the result says just what it should: what was there, what was added, and nothing else.
//!
//! The text is patched by rules about lines and columns. Should one of them be wrong for some manifest, it is found here,
//! and nothing is printed.

use serde_json::Value as Json;

use super::tree::{self, Content, Node};
use super::{Input, Problem};
use saphyr_parser::ScalarStyle;

/// What a document says, without how it is written. Anchors and aliases stay what they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    /// A scalar without quotes that is neither a text nor nothing, as written.
    Plain(String),
    Text(String),
    Alias(usize),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// A value with an anchor, a tag, or both.
    Marked(usize, Option<String>, Box<Value>),
}

impl Value {
    pub(super) fn is_text(&self, key: &str) -> bool {
        match self {
            Value::Text(text) => text == key,
            Value::Marked(_, _, value) => value.is_text(key),
            _ => false,
        }
    }

    /// The value of an entry, or an item, by its place.
    pub(super) fn inner(&mut self, at: usize) -> Option<&mut Value> {
        match self {
            Value::List(items) => items.get_mut(at),
            Value::Map(entries) => entries.get_mut(at).map(|(_, value)| value),
            Value::Marked(_, _, value) => value.inner(at),
            _ => None,
        }
    }

    pub(super) fn entries(&mut self) -> Option<&mut Vec<(Value, Value)>> {
        match self {
            Value::Map(entries) => Some(entries),
            Value::Marked(_, _, value) => value.entries(),
            _ => None,
        }
    }

    pub(super) fn items(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::List(items) => Some(items),
            Value::Marked(_, _, value) => value.items(),
            _ => None,
        }
    }
}

/// What a node says.
pub(super) fn value(node: &Node) -> Value {
    let value = match &node.content {
        Content::Scalar { .. } if node.is_null() => Value::Null,
        Content::Scalar { text, style: ScalarStyle::Plain } if is_special(text) => Value::Plain(text.clone()),
        Content::Scalar { text, .. } => Value::Text(text.clone()),
        Content::Alias(anchor) => Value::Alias(*anchor),
        Content::List { items, .. } => Value::List(items.iter().map(|item| self::value(item)).collect()),
        Content::Map { entries, .. } => {
            Value::Map(entries.iter().map(|entry| (self::value(&entry.key), self::value(&entry.value))).collect())
        }
    };
    if node.anchor == 0 && node.tag.is_none() {
        return value;
    }
    Value::Marked(node.anchor, node.tag.clone(), Box::new(value))
}

/// What is added, as it has to be read.
pub(super) fn value_of_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(_) | Json::Number(_) => Value::Plain(json.to_string()),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(value_of_json).collect()),
        Json::Object(entries) => {
            let entry = |(key, value): (&String, &Json)| (Value::Text(key.clone()), value_of_json(value));
            Value::Map(entries.iter().map(entry).collect())
        }
    }
}

/// Whether some reader of YAML, of 1.1 or of 1.2, takes these letters without quotes for something else than a text: a
/// boolean, a number, a date, nothing.
pub(super) fn is_special(text: &str) -> bool {
    const WORDS: &[&str] = &["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", "="];
    let lower = text.to_ascii_lowercase();
    WORDS.contains(&lower.as_str()) || text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
}

/// Reads the result, and compares it with what it should say.
pub(super) fn check(yaml: &str, expected: &[Value]) -> Result<(), Problem> {
    let bug = |why: String| Problem {
        at: "the result".to_owned(),
        what: format!("it would not say what it should ({why}), so nothing is printed"),
        help:
            "write the pod specs plainly, in block style or as JSON, end the files with a line break, and report the \
            manifest as a bug"
                .to_owned(),
    };
    let documents = tree::parse(&Input { name: "the result", text: yaml }).map_err(|problem| bug(problem.what))?;
    // A file that has no document at all is nothing between the others.
    let there: Vec<Value> = documents.iter().map(|document| value(&document.root)).collect();
    if there.len() != expected.len() {
        return Err(bug(format!("it has {} documents instead of {}", there.len(), expected.len())));
    }
    match there.iter().zip(expected).position(|(there, expected)| there != expected) {
        None => Ok(()),
        Some(at) => Err(bug(format!("the document that begins in its line {} is another", documents[at].root.line))),
    }
}
