//! How additions are written: in block style, or as JSON, which is flow style.

use serde::Serialize as _;
use serde_json::Value as Json;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::proof::is_special;

/// How the manifest around it writes block style.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Whether the dashes of a list stand further to the right than its key.
    pub(super) indented: bool,
}

impl Block {
    /// A key with its value, as lines.
    pub(super) fn entry(self, column: usize, key: &str, value: &Json) -> Vec<String> {
        let begin = format!("{}{}:", " ".repeat(column), text(key));
        match value {
            Json::Object(entries) if !entries.is_empty() => {
                let inner = entries.iter().flat_map(|(key, value)| self.entry(column + 2, key, value));
                std::iter::once(begin).chain(inner).collect()
            }
            Json::Array(items) if !items.is_empty() => {
                let inner = items.iter().flat_map(|item| self.item(self.dash(column), item));
                std::iter::once(begin).chain(inner).collect()
            }
            value => vec![format!("{begin} {}", scalar(value))],
        }
    }

    /// The column of the dashes of a list whose key is at this one.
    pub(super) fn dash(self, column: usize) -> usize {
        if self.indented { column + 2 } else { column }
    }

    /// An item of a list, its dash at this column.
    pub(super) fn item(self, column: usize, value: &Json) -> Vec<String> {
        let dash = format!("{}- ", " ".repeat(column));
        let mut lines = match value {
            Json::Object(entries) if !entries.is_empty() => {
                entries.iter().flat_map(|(key, value)| self.entry(column + 2, key, value)).collect()
            }
            value => vec![format!("{dash}{}", scalar(value))],
        };
        lines[0].replace_range(..column + 2, &dash);
        lines
    }
}

/// What stands on one line. A list in a list is written as JSON: nothing here has one.
fn scalar(value: &Json) -> String {
    match value {
        Json::String(value) => text(value),
        value => value.to_string(),
    }
}

/// A text without quotes, where no reader takes it for anything else.
fn text(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./@".contains(c);
    let inner = value.replace(':', "");
    let colons = !value.contains(": ") && !value.ends_with(':') && !value.starts_with(':');
    if inner.chars().all(plain) && colons && !is_special(value) && !value.starts_with(['@', '-']) {
        return value.to_owned();
    }
    Json::from(value).to_string()
}

/// As JSON: on one line, or on several, each but the first behind `base`, and with `unit` for each level.
pub(super) fn json(value: &Json, pretty: Option<(&str, &str)>, line_break: &str) -> String {
    let Some((base, unit)) = pretty else { return value.to_string() };
    let mut bytes = Vec::new();
    let mut to = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(unit.as_bytes()));
    value.serialize(&mut to).expect("a JSON value is written to memory");
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    text.replace('\n', &format!("{line_break}{base}"))
}
