//! YAML as a tree that knows where in the text everything stands.
//!
//! Aliases stay aliases: what an edit touches must not stand in a second place. Made of the parser's events, which come in
//! order, so that no nesting in the input is a nesting of calls until it is known to be bounded.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{Input, Problem};

/// How deep lists and mappings may stand in each other; schemas of custom resources need forty.
const DEPTH: usize = 200;
/// What some editors begin a file with.
pub(super) const MARK: char = '\u{feff}';

/// One value, with the bytes that it takes. Those of a block list or mapping end where its last value ends.
#[derive(Debug)]
pub(super) struct Node {
    /// The first byte, of an anchor or a tag where it has one.
    pub(super) from: usize,
    /// Behind the last byte.
    pub(super) to: usize,
    /// The first byte of what is in it: the first key, the first dash, the opening bracket.
    pub(super) opens: usize,
    pub(super) line: usize,
    /// In the order in which the document's anchors come; 0 is none.
    pub(super) anchor: usize,
    pub(super) tag: Option<String>,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Scalar { text: String, style: ScalarStyle },
    Alias(usize),
    List { items: Vec<Rc<Node>>, flow: bool },
    Map { entries: Vec<Entry>, flow: bool },
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Rc<Node>,
    pub(super) value: Rc<Node>,
}

/// One document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Rc<Node>,
    /// Whether it begins with `---`.
    pub(super) is_explicit: bool,
    anchors: HashMap<usize, Rc<Node>>,
    aliased: HashSet<usize>,
}

impl Document {
    /// What an alias stands for; anything else stands for itself. `None` inside of what the alias refers to.
    pub(super) fn resolved<'a>(&'a self, node: &'a Rc<Node>) -> Option<&'a Rc<Node>> {
        if let Content::Alias(anchor) = node.content { self.anchors.get(&anchor) } else { Some(node) }
    }

    /// Whether an alias refers to it.
    pub(super) fn is_shared(&self, node: &Node) -> bool {
        self.aliased.contains(&node.anchor)
    }
}

impl Node {
    /// Its text, where it is a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        if let Content::Scalar { text, .. } = &self.content { Some(text) } else { None }
    }

    /// Whether it is nothing, written or not.
    pub(super) fn is_null(&self) -> bool {
        let Content::Scalar { text, style: ScalarStyle::Plain } = &self.content else { return false };
        self.tag.is_none() && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// Whether nothing of it stands in the text.
    pub(super) fn is_unwritten(&self) -> bool {
        self.is_null() && self.text() == Some("")
    }

    pub(super) fn entries(&self) -> &[Entry] {
        if let Content::Map { entries, .. } = &self.content { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Rc<Node>] {
        if let Content::List { items, .. } = &self.content { items } else { &[] }
    }
}

/// Reads all documents.
pub(super) fn parse(input: &Input<'_>) -> Result<Vec<Document>, Problem> {
    let mut builder = Builder::new(input);
    // The mark is no character of YAML; the parser would count it.
    let skipped = if input.text.starts_with(MARK) { MARK.len_utf8() } else { 0 };
    for event in Parser::new_from_str(&input.text[skipped..]) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                let what = format!("this is not YAML: {}", error.info());
                let help =
                    "check the indentation, the quotes and the brackets just above; templates are to be rendered first";
                return Err(builder.problem(line, column, what, help));
            }
        }
    }
    Ok(builder.documents)
}

/// A list or mapping that is still being read.
struct Open {
    node: Node,
    /// The key that waits for its value.
    key: Option<Rc<Node>>,
}

struct Builder<'a> {
    input: &'a Input<'a>,
    /// The byte of each character; empty where they are the same.
    bytes: Vec<usize>,
    /// Bytes before the first character that the parser sees.
    skipped: usize,
    open: Vec<Open>,
    documents: Vec<Document>,
    is_explicit: bool,
    /// The parser counts anchors over all documents. This one's, by the parser's number.
    ordinals: HashMap<usize, usize>,
    anchors: HashMap<usize, Rc<Node>>,
    aliased: HashSet<usize>,
}

impl<'a> Builder<'a> {
    fn new(input: &'a Input<'a>) -> Builder<'a> {
        let skipped = if input.text.starts_with(MARK) { MARK.len_utf8() } else { 0 };
        let text = &input.text[skipped..];
        let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
        Builder {
            input,
            bytes,
            skipped,
            open: Vec::new(),
            documents: Vec::new(),
            is_explicit: false,
            ordinals: HashMap::new(),
            anchors: HashMap::new(),
            aliased: HashSet::new(),
        }
    }

    fn byte(&self, character: usize) -> usize {
        let inside = if self.bytes.is_empty() { Some(&character) } else { self.bytes.get(character) };
        inside.map_or(self.input.text.len(), |at| (at + self.skipped).min(self.input.text.len()))
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(is_explicit) => {
                self.is_explicit = is_explicit;
                self.ordinals.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let content = Content::Scalar { text: text.into_owned(), style };
                let mut node = self.node(span, anchor, tag.map(|tag| tag.to_string()), content);
                node.to = self.scalar_end(&node);
                self.hand_over(node, span)
            }
            Event::Alias(anchor) => {
                let Some(ordinal) = self.ordinals.get(&anchor).copied() else {
                    let help = "an alias reaches no further than its own document: write the value out";
                    return Err(self.problem_at(span, "this alias refers to another document", help));
                };
                self.aliased.insert(ordinal);
                let node = self.node(span, 0, None, Content::Alias(ordinal));
                self.hand_over(node, span)
            }
            Event::SequenceStart(anchor, tag) => {
                let content = Content::List { items: vec![], flow: false };
                let node = self.node(span, anchor, tag.map(|tag| tag.to_string()), content);
                self.begin(node, span)
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map { entries: vec![], flow: false };
                let node = self.node(span, anchor, tag.map(|tag| tag.to_string()), content);
                self.begin(node, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { mut node, .. }) = self.open.pop() else { return Ok(()) };
                node.to = self.end(&node, span);
                self.hand_over(node, span)
            }
            Event::DocumentEnd | Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
        }
    }

    fn node(&mut self, span: Span, anchor: usize, tag: Option<String>, content: Content) -> Node {
        let (from, to) = (self.byte(span.start.index()), self.byte(span.end.index()));
        let anchor = match anchor {
            0 => 0,
            number => {
                let next = self.ordinals.len() + 1;
                *self.ordinals.entry(number).or_insert(next)
            }
        };
        Node { from, to, opens: from, line: span.start.line().max(1), anchor, tag, content }
    }

    /// Where the bracket, the dash or the first key stands of a list or mapping that begins, and whether it is a bracket.
    fn opening(&self, node: &Node) -> (usize, bool) {
        let is_list = matches!(node.content, Content::List { .. });
        let bytes = &self.input.text.as_bytes()[..node.to];
        let at = behind_marks(bytes, node.from);
        let bracket = if is_list { b'[' } else { b'{' };
        let parent = self.open.last().map(|open| &open.node.content);
        // In flow style everything is in flow style.
        let inside = matches!(parent, Some(Content::List { flow: true, .. } | Content::Map { flow: true, .. }));
        if at < node.to {
            return (at, inside || bytes[at] == bracket);
        }
        // A list whose dashes stand right below its key is placed behind the first of them.
        let line = self.input.text[..node.to].rfind('\n').map_or(0, |before| before + 1);
        let first = line + bytes[line..].iter().take_while(|byte| **byte == b' ').count();
        if is_list && matches!(parent, Some(Content::Map { .. })) && bytes.get(first) == Some(&b'-') {
            return (first, inside);
        }
        (node.to, inside)
    }

    /// Where a scalar ends: the parser has read on, up to what comes next.
    fn scalar_end(&self, node: &Node) -> usize {
        let Content::Scalar { text, style } = &node.content else { return node.to };
        let read = &self.input.text[..node.to];
        let end = match style {
            ScalarStyle::Plain => read.trim_end().len(),
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let lines = read.trim_end_matches(' ');
                // Where empty lines belong to the text, up to the last line break of all.
                let keeps = text.ends_with("\n\n") || text.trim_end_matches('\n').is_empty();
                if keeps && lines.ends_with('\n') { lines.len() - 1 } else { read.trim_end().len() }
            }
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => node.to,
        };
        if node.is_unwritten() { node.to } else { end.max(node.from) }
    }

    /// Where a list or mapping ends: in block style with the last of what is in it, not where the next thing begins.
    fn end(&self, node: &Node, span: Span) -> usize {
        match &node.content {
            Content::Map { flow: false, entries } => entries.last().map_or(node.to, |entry| {
                // An unwritten value is placed anywhere up to the next thing.
                if entry.value.is_unwritten() { entry.key.to } else { entry.value.to }
            }),
            Content::List { flow: false, items } => {
                items.iter().rev().find(|item| !item.is_unwritten()).map_or(node.to, |item| item.to)
            }
            // The parser has read on, up to the end of the line.
            _ => {
                let at = self.byte(span.start.index());
                let is_bracket = matches!(self.input.text.as_bytes().get(at), Some(b']' | b'}'));
                at + usize::from(is_bracket)
            }
        }
    }

    fn begin(&mut self, mut node: Node, span: Span) -> Result<(), Problem> {
        if self.open.len() >= DEPTH {
            let what = format!("lists and mappings stand in each other more than {DEPTH} deep here");
            return Err(self.problem_at(span, what, "no manifest needs that"));
        }
        let (opens, is_flow) = self.opening(&node);
        node.opens = opens;
        if let Content::List { flow, .. } | Content::Map { flow, .. } = &mut node.content {
            *flow = is_flow;
        }
        self.open.push(Open { node, key: None });
        Ok(())
    }

    /// Gives a complete value to what it stands in.
    fn hand_over(&mut self, node: Node, span: Span) -> Result<(), Problem> {
        let node = Rc::new(node);
        if node.anchor != 0 {
            self.anchors.insert(node.anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            let (anchors, aliased) = (std::mem::take(&mut self.anchors), std::mem::take(&mut self.aliased));
            self.documents.push(Document { root: node, is_explicit: self.is_explicit, anchors, aliased });
            return Ok(());
        };
        match &mut open.node.content {
            Content::List { items, .. } => items.push(node),
            Content::Map { entries, .. } => match open.key.take() {
                None => open.key = Some(node),
                Some(key) => entries.push(Entry { key, value: node }),
            },
            Content::Scalar { .. } | Content::Alias(_) => {
                return Err(self.problem_at(
                    span,
                    "this value stands in no list and no mapping",
                    "check the lines above",
                ));
            }
        }
        Ok(())
    }

    fn problem_at(&self, span: Span, what: impl Into<String>, help: &str) -> Problem {
        self.problem(span.start.line().max(1), span.start.col() + 1, what, help)
    }

    fn problem(&self, line: usize, column: usize, what: impl Into<String>, help: &str) -> Problem {
        let at = format!("{}:{line}:{column}", self.input.name);
        Problem { at, what: what.into(), help: help.to_owned() }
    }
}

/// The first byte from `at` on that is of no anchor, tag, comment or space.
fn behind_marks(bytes: &[u8], mut at: usize) -> usize {
    let run = |at: usize, is_end: fn(u8) -> bool| bytes[at..].iter().take_while(|byte| !is_end(**byte)).count();
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'&' | b'!' => run(at, |byte| byte.is_ascii_whitespace()),
            b'#' => run(at, |byte| byte == b'\n'),
            byte if byte.is_ascii_whitespace() => 1,
            _ => break,
        };
    }
    at
}
