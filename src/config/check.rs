//! Compares the tree with the JSON Schema of the raw structs: keys, types, ranges and forms.
//!
//! Every problem is reported at its own place. What is bad is taken out, so that the rest can be read and checked
//! further; a bad element of a list of mappings becomes nothing, so that the others keep their numbers.

use serde_json::Value;

use super::NOT_YET;
use super::forms;
use super::problem::{KeyPath, Place, Report, suggestion};
use super::tree::{Content, Entry, Node, whole};
use super::units;

/// Checks `node`, the whole file, against `schema`, the whole schema.
pub(super) fn check(node: Node, schema: &Value, report: &mut Report) -> Node {
    let place = node.place;
    let mut check = Check { root: schema, report };
    check.value(node, schema, &KeyPath::root()).unwrap_or_else(|| Node::map(place))
}

struct Check<'a> {
    root: &'a Value,
    report: &'a mut Report,
}

impl<'a> Check<'a> {
    fn value(&mut self, node: Node, schema: &'a Value, path: &KeyPath) -> Option<Node> {
        let (schema, may_be_null) = follow(self.root, schema);
        if node.content == Content::Null && may_be_null {
            return Some(node);
        }
        if let Some(words) = words(schema) {
            return self.word(node, &words, schema, path);
        }
        let types = types(schema);
        match &node.content {
            Content::Map(_) if types.contains(&"object") => Some(self.map(node, schema, path)),
            Content::List(_) if types.contains(&"array") => self.list(node, schema, path),
            Content::Bool(_) if types.contains(&"boolean") => Some(node),
            Content::Number(text) if types.contains(&"integer") && whole(text).is_some() => {
                self.number(node, schema, path)
            }
            Content::Number(_) if types.contains(&"number") => self.number(node, schema, path),
            Content::Text(_) if types.contains(&"string") => self.text(node, schema, path),
            _ => {
                self.wrong_type(&node, schema, path);
                None
            }
        }
    }

    fn map(&mut self, node: Node, schema: &'a Value, path: &KeyPath) -> Node {
        let properties = schema["properties"].as_object();
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if node.get(required).is_none() {
                self.missing(&node, required, &schema["properties"][required], path);
            }
        }
        let Content::Map(entries) = node.content else { return node };
        let mut kept = Vec::with_capacity(entries.len());
        for Entry { key, place, node } in entries {
            let inner = path.key(&key);
            let checked = match properties.and_then(|properties| properties.get(&key)) {
                Some(property) => self.value(node, property, &inner),
                None if schema["additionalProperties"].is_object() => {
                    let at = node.place;
                    let of_any_name = &schema["additionalProperties"];
                    let may_be_null = follow(self.root, of_any_name).1;
                    self.value(node, of_any_name, &inner).or_else(|| may_be_null.then(|| Node::null(at)))
                }
                None => {
                    self.unknown(&key, place, schema, path);
                    None
                }
            };
            kept.extend(checked.map(|node| Entry { key, place, node }));
        }
        Node { place: node.place, content: Content::Map(kept) }
    }

    fn list(&mut self, node: Node, schema: &'a Value, path: &KeyPath) -> Option<Node> {
        let Content::List(items) = node.content else { return Some(node) };
        if let Some(least) = schema["minItems"].as_u64()
            && (items.len() as u64) < least
        {
            let what = format!("{path} is empty");
            self.report.add(node.place, path, what, format!("write at least {least}, or leave the key out"));
            return None;
        }
        if let Some(most) = schema["maxItems"].as_u64()
            && (items.len() as u64) > most
        {
            let what = format!("{path} has {} elements", items.len());
            self.report.add(node.place, path, what, format!("write at most {most}"));
            return None;
        }
        let schema = &schema["items"];
        let of_maps = types(follow(self.root, schema).0).contains(&"object");
        let mut kept = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let place = item.place;
            match self.value(item, schema, &path.index(at)) {
                Some(item) => kept.push(item),
                None if of_maps => kept.push(Node::null(place)),
                None => {}
            }
        }
        Some(Node { place: node.place, content: Content::List(kept) })
    }

    fn number(&mut self, node: Node, schema: &Value, path: &KeyPath) -> Option<Node> {
        let Content::Number(text) = &node.content else { return Some(node) };
        if form_of(schema).is_some() {
            return self.form(&node, text, schema, path).then_some(node);
        }
        let number: f64 = text.parse().unwrap_or(f64::NAN);
        let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        let fits = least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most);
        if !fits {
            let help = match (least, most) {
                (Some(least), Some(most)) => format!("write a number from {least} to {most}"),
                (Some(least), None) => format!("write {least} or more"),
                (None, most) => format!("write {} or less", most.unwrap_or(f64::MAX)),
            };
            self.report.add(node.place, path, format!("{path}: {text} is out of range"), help);
        }
        fits.then_some(node)
    }

    fn text(&mut self, node: Node, schema: &Value, path: &KeyPath) -> Option<Node> {
        let Content::Text(text) = &node.content else { return Some(node) };
        self.form(&node, text, schema, path).then_some(node)
    }

    /// Whether a text has the form that the schema names.
    fn form(&mut self, node: &Node, text: &str, schema: &Value, path: &KeyPath) -> bool {
        let Some(form) = form_of(schema) else { return true };
        match (form.read)(text) {
            Ok(()) => true,
            Err(unfit) => {
                self.report.add(node.place, path, format!("{path}: '{}' {}", shortened(text), unfit.what), unfit.help);
                false
            }
        }
    }

    fn word(&mut self, node: Node, words: &[&str], schema: &Value, path: &KeyPath) -> Option<Node> {
        let choice = words.join(", ");
        let Content::Text(text) = &node.content else {
            self.report.add(
                node.place,
                path,
                format!("{path} is {}", describe(&node)),
                format!("write one of: {choice}"),
            );
            return None;
        };
        if words.contains(&text.as_str()) {
            return Some(node);
        }
        let what = if not_yet(schema).any(|word| word == text) {
            format!("{path}: '{text}' is {NOT_YET}")
        } else {
            let near = suggestion(text, words.iter().copied());
            format!("{path}: '{}' is not a word that is known here{near}", shortened(text))
        };
        let help = if words.len() == 1 { format!("write {choice}") } else { format!("write one of: {choice}") };
        self.report.add(node.place, path, what, help);
        None
    }

    fn unknown(&mut self, key: &str, place: Place, schema: &Value, path: &KeyPath) {
        let within = if path.is_root() { "at the top".to_owned() } else { format!("in {path}") };
        let key_path = path.key(key);
        if not_yet(schema).any(|planned| planned == key) {
            let what = format!("the key '{key}' {within} is {NOT_YET}");
            return self.report.add(place, &key_path, what, "take it out: it would have no effect");
        }
        let known: Vec<&str> =
            schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let near = suggestion(key, known.iter().copied());
        let what = format!("unknown key '{}' {within}{near}", shortened(key));
        let help = if key == "<<" {
            "merge keys are not part of YAML 1.2: write the keys out".to_owned()
        } else {
            format!("known keys: {}", known.join(", "))
        };
        self.report.add(place, &key_path, what, help);
    }

    fn missing(&mut self, node: &Node, key: &str, schema: &'a Value, path: &KeyPath) {
        let place = node.place;
        match (place, flag_of(schema)) {
            (Place::Whole | Place::Flag(_), Some(flag)) => {
                let help = format!("add {flag} {}", example(follow(self.root, schema).0));
                self.report.add(Place::Flag(flag), &path.key(key), "is missing", help);
            }
            _ => {
                let what = format!("{path} has no '{key}'");
                self.report.add(place, path, what, format!("add {key}: {}", example(follow(self.root, schema).0)));
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &'a Value, path: &KeyPath) {
        let form = form_of(schema);
        let wanted = form.as_ref().map_or_else(|| wanted(&types(schema)), |form| form.wanted.to_owned());
        // A number or a word that YAML took for something else: what would it be as text?
        let written = match &node.content {
            Content::Number(text) => Some(text.clone()),
            Content::Bool(value) => Some(value.to_string()),
            _ => None,
        };
        if let (Some(text), Some(form)) = (&written, &form)
            && let Err(unfit) = (form.read)(text)
        {
            self.report.add(node.place, path, format!("{path}: {text} {}", unfit.what), unfit.help);
            return;
        }
        let types = types(schema);
        let help = match (&node.content, written) {
            (_, Some(text)) if types.contains(&"string") => format!("put it in quotes: \"{text}\""),
            (Content::Text(text), _) if types.contains(&"boolean") && is_yes_or_no(text) => {
                "write true or false".to_owned()
            }
            (Content::Text(text), _) if text.parse::<f64>().is_ok() => format!("take the quotes off: {text}"),
            (Content::Null, _) => format!("write {wanted} after the ':', or take the key out"),
            (content, _) if types.contains(&"array") && !matches!(content, Content::Map(_)) => {
                format!("write a list, also of one: [{}]", shown(node))
            }
            _ => format!("write {wanted}"),
        };
        let name = if path.is_root() { "the file".to_owned() } else { path.to_string() };
        self.report.add(node.place, path, format!("{name} is {}, not {wanted}", describe(node)), help);
    }
}

/// The schema behind references and "or nothing", and whether nothing is allowed.
pub(super) fn follow<'a>(root: &'a Value, schema: &'a Value) -> (&'a Value, bool) {
    let mut schema = schema;
    let mut may_be_null = false;
    loop {
        may_be_null |= types(schema).contains(&"null");
        if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
            schema = &root["$defs"][name];
        } else if let Some(branches) = schema["anyOf"].as_array() {
            may_be_null |= branches.iter().any(|branch| types(branch) == ["null"]);
            match branches.iter().find(|branch| types(branch) != ["null"]) {
                Some(branch) => schema = branch,
                None => return (schema, may_be_null),
            }
        } else {
            return (schema, may_be_null);
        }
    }
}

fn is_yes_or_no(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off")
}

pub(super) fn form_of(schema: &Value) -> Option<forms::Known> {
    schema["x-form"].as_str().and_then(forms::known)
}

pub(super) fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The words of an enumeration.
pub(super) fn words(schema: &Value) -> Option<Vec<&str>> {
    let listed = schema["enum"].as_array().map(|words| words.iter().filter_map(Value::as_str).collect());
    listed.or_else(|| {
        let branches = schema["oneOf"].as_array()?;
        branches.iter().map(|branch| branch["const"].as_str()).collect()
    })
}

fn not_yet(schema: &Value) -> impl Iterator<Item = &str> {
    schema["x-not-in-this-version"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn flag_of(schema: &Value) -> Option<&'static str> {
    let flag = schema["x-flag"].as_str()?;
    super::overrides::FLAGS.iter().copied().find(|known| *known == flag)
}

pub(super) fn wanted(types: &[&str]) -> String {
    let words = types.iter().filter(|one| **one != "null").map(|one| match *one {
        "object" => "a mapping (key: value)",
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "text",
    });
    words.collect::<Vec<_>>().join(" or ")
}

fn example(schema: &Value) -> String {
    let wanted_form = form_of(schema).map(|form| form.wanted.to_owned());
    let of_words = || words(schema).map(|words| words.join(" or "));
    wanted_form.or_else(of_words).unwrap_or_else(|| wanted(&types(schema)))
}

fn describe(node: &Node) -> String {
    match &node.content {
        Content::Null => "empty".into(),
        Content::Bool(value) => value.to_string(),
        Content::Number(text) => format!("the number {text}"),
        Content::Text(text) => format!("the text '{}'", shortened(text)),
        Content::List(_) => "a list".into(),
        Content::Map(_) => "a mapping".into(),
    }
}

fn shown(node: &Node) -> String {
    match &node.content {
        Content::Number(text) | Content::Text(text) => shortened(text),
        Content::Bool(value) => value.to_string(),
        _ => "...".into(),
    }
}

/// A text that fits into a message, on one line, and repeats no password.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    let text = units::without_password(text);
    let plain: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(MOST).is_some() { plain + "..." } else { plain }
}
