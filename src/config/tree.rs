//! YAML as a tree that remembers where everything stands.
//!
//! Built from the parser's events, so that every key has its own place, a key that stands twice is seen, and an alias
//! is paid for: a file that unfolds into more than [`WEIGHT`] is refused before it is unfolded.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::problem::{KeyPath, Place, Report, Step};

/// The largest file that is read: a thousand times the usual, and nothing for a machine.
pub const LARGEST_FILE: usize = 1 << 20;
/// What a file may unfold into, about in bytes.
const WEIGHT: usize = 16 << 20;
/// What a node weighs besides its text.
const NODE: usize = 16;
/// How deep lists and mappings may stand in each other; a configuration needs seven.
const DEPTH: usize = 32;

/// One value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    /// A number, as written: whole, or finite.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn null(place: Place) -> Node {
        Node { place, content: Content::Null }
    }

    pub(super) fn text(place: Place, text: impl Into<String>) -> Node {
        Node { place, content: Content::Text(text.into()) }
    }

    pub(super) fn map(place: Place) -> Node {
        Node { place, content: Content::Map(Vec::new()) }
    }

    /// A value as it would be read where it stands without quotes.
    pub(super) fn plain(place: Place, text: &str) -> Node {
        Node { place, content: plain(text) }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// Puts a value, in place of another of that key.
    pub(super) fn put(&mut self, key: &str, node: Node) {
        let entry = Entry { key: key.to_owned(), place: node.place, node };
        if let Content::Map(entries) = &mut self.content {
            entries.retain(|other| other.key != key);
            entries.push(entry);
        }
    }

    /// Takes a key out.
    pub(super) fn take_out(&mut self, key: &str) {
        if let Content::Map(entries) = &mut self.content {
            entries.retain(|other| other.key != key);
        }
    }

    /// The mapping under a key; made where there is none, or nothing. A key that has something else keeps it.
    pub(super) fn map_under(&mut self, key: &str, place: Place) -> Option<&mut Node> {
        if self.get(key).is_none_or(|node| node.content == Content::Null) {
            self.put(key, Node::map(place));
        }
        self.get_mut(key)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.content {
            Content::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        if let Content::Map(entries) = &self.content { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Node] {
        if let Content::List(items) = &self.content { items } else { &[] }
    }

    /// The node at `path`, where there is one.
    pub(super) fn at(&self, path: &KeyPath) -> Option<&Node> {
        path.steps().iter().try_fold(self, |node, step| node.step(step))
    }

    /// The place of `path`, or of the nearest that is written of what it stands in.
    pub(super) fn nearest(&self, path: &KeyPath) -> Place {
        let mut node = self;
        for step in path.steps() {
            match node.step(step) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// The place of the key that `path` ends with; of the nearest that is written, where it is not.
    pub(super) fn nearest_key(&self, path: &KeyPath) -> Place {
        let entry = path.steps().split_last().and_then(|(last, before)| {
            let map = before.iter().try_fold(self, |node, step| node.step(step))?;
            map.entries().iter().find(|entry| matches!(last, Step::Key(key) if **key == *entry.key))
        });
        entry.map_or_else(|| self.nearest(path), |entry| entry.place)
    }

    fn step(&self, step: &Step) -> Option<&Node> {
        match step {
            Step::Key(key) => self.get(key),
            Step::Index(index) => self.items().get(*index),
        }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(text) => whole(text)
                .map(Value::from)
                .or_else(|| text.parse::<f64>().ok().map(Value::from))
                .unwrap_or_else(|| Value::String(text.clone())),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect())
            }
        }
    }
}

/// A whole number, as the number that it is.
pub(super) fn whole(text: &str) -> Option<i64> {
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

/// Reads one document. What cannot be read is reported; `None` where nothing at all can be said of the rest.
pub(super) fn parse(text: &str, report: &mut Report) -> Option<Node> {
    let start = Place::Text { line: 1, column: 1 };
    if text.len() > LARGEST_FILE {
        let what = format!("the file has {} bytes, and more than 1 MiB is not read", text.len());
        report.add(Place::Whole, &KeyPath::root(), what, "name many resources with a range: \"orders/{0..63}\"");
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::new(report);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                if builder.take(event, span).is_err() {
                    return None;
                }
            }
            Err(error) => {
                let marker = error.marker();
                let place = Place::Text { line: marker.line(), column: marker.col() + 1 };
                let what = format!("this is not YAML: {}", error.info());
                let help = "check the indentation, the quotes and the brackets just above; the rest was not read";
                builder.report.add(place, &KeyPath::root(), what, help);
                return None;
            }
        }
    }
    Some(builder.root.filter(|root| root.content != Content::Null).unwrap_or_else(|| Node::map(start)))
}

/// A list or mapping that is still being read.
struct Open {
    place: Place,
    anchor: usize,
    /// What had been weighed before it.
    before: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, slot: Slot },
}

/// What a mapping waits for.
enum Slot {
    Key,
    Value(String, Place),
    /// A value whose key was refused.
    Skipped,
}

/// Reading cannot go on; it has been reported.
struct Stop;

struct Builder<'a> {
    report: &'a mut Report,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    documents: usize,
    weight: usize,
    root: Option<Node>,
}

impl<'a> Builder<'a> {
    fn new(report: &'a mut Report) -> Builder<'a> {
        Builder { report, open: Vec::new(), anchors: HashMap::new(), documents: 0, weight: 0, root: None }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let place = Place::Text { line: span.start.line().max(1), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let help = "keep one document: take out the '---' and what follows it";
                    return self.stop(place, "a second document begins here", help);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let before = self.weight;
                self.weigh(NODE + text.len(), place)?;
                let as_text = self.tagged_text(tag.as_deref(), place) || style != ScalarStyle::Plain;
                let content = if as_text { Content::Text(text.into_owned()) } else { plain(&text) };
                self.finish(Node { place, content }, anchor, before)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tagged_text(tag.as_deref(), place);
                self.begin(place, anchor, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.tagged_text(tag.as_deref(), place);
                let kind = OpenKind::Map { entries: Vec::new(), seen: HashSet::new(), slot: Slot::Key };
                self.begin(place, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { place, anchor, before, kind }) = self.open.pop() else { return Ok(()) };
                let content = match kind {
                    OpenKind::List(items) => Content::List(items),
                    OpenKind::Map { entries, .. } => Content::Map(entries),
                };
                self.finish(Node { place, content }, anchor, before)
            }
            Event::Alias(anchor) => self.alias(anchor, place),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, kind: OpenKind) -> Result<(), Stop> {
        let before = self.weight;
        self.weigh(NODE, place)?;
        if self.open.len() >= DEPTH {
            let what = format!("lists and mappings stand in each other more than {DEPTH} deep here");
            return self.stop(place, what, "no key needs that");
        }
        self.open.push(Open { place, anchor, before, kind });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Stop> {
        match self.anchors.get(&anchor) {
            // An anchor is known once its value is complete, so a value that holds itself finds none.
            None => self.stop(place, "this alias stands inside of what it refers to", "write the value out"),
            Some((node, weight)) => {
                let (node, weight) = (node, *weight);
                if self.weight + weight > WEIGHT {
                    return self.too_heavy(place);
                }
                let copy = node.clone();
                self.weight += weight;
                self.hand_over(copy);
                Ok(())
            }
        }
    }

    /// A value is complete.
    fn finish(&mut self, node: Node, anchor: usize, before: usize) -> Result<(), Stop> {
        if anchor != 0 {
            // The copy that is kept is paid for as the ones that aliases take are.
            let weight = self.weight - before;
            self.weigh(weight, node.place)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        self.hand_over(node);
        Ok(())
    }

    /// Gives a complete value to what it stands in.
    fn hand_over(&mut self, node: Node) {
        let Some(Open { kind, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        let (entries, seen, slot) = match kind {
            OpenKind::List(items) => return items.push(node),
            OpenKind::Map { entries, seen, slot } => (entries, seen, slot),
        };
        *slot = match std::mem::replace(slot, Slot::Key) {
            Slot::Value(key, place) => {
                entries.push(Entry { key, place, node });
                Slot::Key
            }
            Slot::Skipped => Slot::Key,
            Slot::Key => {
                let place = node.place;
                let refused = match key_text(node) {
                    Some(key) if seen.insert(key.clone()) => Ok(key),
                    Some(key) => Err((format!("the key '{key}' stands here a second time"), "keep one of the two")),
                    None => Err(("a list or a mapping cannot be a key".into(), "write the key as text")),
                };
                match refused {
                    Ok(key) => Slot::Value(key, place),
                    Err((what, help)) => {
                        self.report.add(place, &KeyPath::root(), what, help);
                        Slot::Skipped
                    }
                }
            }
        };
    }

    /// Whether a tag makes a text of it. Any tag but those of YAML's own types is a problem.
    fn tagged_text(&mut self, tag: Option<&Tag>, place: Place) -> bool {
        let Some(tag) = tag else { return false };
        if !tag.is_yaml_core_schema() {
            self.report.add(place, &KeyPath::root(), format!("the tag '{tag}' means nothing here"), "take it out");
        }
        tag.is_yaml_core_schema() && tag.suffix == "str"
    }

    fn weigh(&mut self, weight: usize, place: Place) -> Result<(), Stop> {
        self.weight += weight;
        if self.weight > WEIGHT { self.too_heavy(place) } else { Ok(()) }
    }

    fn too_heavy(&mut self, place: Place) -> Result<(), Stop> {
        self.stop(place, "the aliases make the file unfold into more than 16 MiB", "write the values out")
    }

    fn stop(&mut self, place: Place, what: impl Into<String>, help: &str) -> Result<(), Stop> {
        self.report.add(place, &KeyPath::root(), what, help);
        Err(Stop)
    }
}

fn key_text(node: Node) -> Option<String> {
    match node.content {
        Content::Text(text) | Content::Number(text) => Some(text),
        Content::Bool(value) => Some(value.to_string()),
        Content::Null => Some("null".into()),
        Content::List(_) | Content::Map(_) => None,
    }
}

/// A scalar without quotes, by the rules of YAML 1.2 (its core schema, numbers in decimal only).
fn plain(text: &str) -> Content {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "true" | "True" | "TRUE" => Content::Bool(true),
        "false" | "False" | "FALSE" => Content::Bool(false),
        _ if is_number(text) => Content::Number(text.to_owned()),
        _ => Content::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let begins = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    begins && text.len() <= 40 && (whole(text).is_some() || text.parse::<f64>().is_ok_and(f64::is_finite))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let mut report = Report::new(Some("f".into()));
        let node = parse(text, &mut report);
        (node, report.sorted().iter().map(|problem| format!("{}: {}", problem.at, problem.what)).collect())
    }

    #[test]
    fn every_value_knows_its_place() {
        let (node, problems) = read("a: 1\nb:\n  - x: yes\n    y: \"2\"\n  - {z: 1.5}\n");
        assert_eq!(problems, Vec::<String>::new());
        let node = node.expect("a tree");
        let path = KeyPath::root().key("b").index(0).key("y");
        assert_eq!(node.nearest(&path), Place::Text { line: 4, column: 8 });
        assert_eq!(node.nearest(&path.key("beyond")), Place::Text { line: 4, column: 8 });
        assert_eq!(node.to_json(), serde_json::json!({"a": 1, "b": [{"x": "yes", "y": "2"}, {"z": 1.5}]}));
    }

    #[test]
    fn twice_the_same_key_and_two_documents_are_seen() {
        assert_eq!(read("a: 1\nb: 2\na: 3\n").1, ["f:3:1: the key 'a' stands here a second time"]);
        assert_eq!(read("a: 1\n---\nb: 2\n").1, ["f:2:1: a second document begins here"]);
        assert_eq!(read("? [a]\n: 1\nb: 2\n").1, ["f:1:3: a list or a mapping cannot be a key"]);
        assert_eq!(read("a: !secret x\n").1, ["f:1:4: the tag '!secret' means nothing here"]);
    }

    #[test]
    fn aliases_are_copies_and_paid_for() {
        let (node, problems) = read("a: &a {x: 1}\nb: *a\n");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(node.expect("a tree").to_json(), serde_json::json!({"a": {"x": 1}, "b": {"x": 1}}));

        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..30 {
            let below = vec![format!("*a{}", level - 1); 9].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let (node, problems) = read(&bomb);
        assert!(node.is_none() && problems[0].contains("unfold"), "{problems:?}");
        assert!(read("a: &a [*a]\n").1[0].contains("inside of what it refers to"));
    }

    #[test]
    fn the_large_and_the_deep_are_refused() {
        assert!(read(&"a".repeat(LARGEST_FILE + 1)).1[0].contains("more than 1 MiB"));
        for text in ["[", "{", "- ", "? ", "a: {", "&a ", "!", "%", "[*"] {
            assert_eq!(read(&text.repeat(LARGEST_FILE / text.len())).1.len(), 1, "{text}");
        }
    }

    #[test]
    fn the_largest_file_is_read_in_no_time_to_speak_of() {
        for text in ["a,", "- a\n", "a\n", "'", "#", "|\n", "\\\"", "&a x, ", " "] {
            let _ = read(&text.repeat(LARGEST_FILE / text.len()));
            let _ = read(&format!("[{}", text.repeat(LARGEST_FILE / text.len() - 1)));
        }
        let keys: String = (0..80_000).map(|key| format!("k{key}: 1\n")).collect();
        assert_eq!(read(&keys).1, Vec::<String>::new());
    }

    #[test]
    fn an_empty_file_is_an_empty_mapping() {
        for text in ["", "# nothing\n", "\u{feff}", "---\n", "~"] {
            assert_eq!(read(text).0.expect("a tree").to_json(), serde_json::json!({}), "{text:?}");
        }
    }
}
