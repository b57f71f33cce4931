//! Where in the text an addition goes, line by line.
//!
//! In block style whole lines are put between others; comments stay with what they stand above of. In flow style, JSON is
//! put behind a bracket or beside a comma. A key with nothing under it loses its `[]` or `null`, and gets lines below.

use std::ops::Range;
use std::rc::Rc;

use serde_json::Value as Json;

use super::additions::{Addition, BESIDE, What};
use super::cursor::Cursor;
use super::render::{Block, json};
use super::tree::{Content, Entry, Node};

/// One change: these bytes become that text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    at: Range<usize>,
    /// Whether it belongs to what follows it: it comes after all that end something there.
    before: bool,
    text: String,
}

/// The text with all changes. Of several at one place the first made comes first.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.at.start, edit.before));
    let mut result = String::with_capacity(text.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
    let mut done = 0;
    for edit in edits {
        // Two that overlap would be a mistake of ours; what comes of it is refused afterwards.
        result.push_str(text.get(done..edit.at.start).unwrap_or_default());
        result.push_str(&edit.text);
        done = done.max(edit.at.end);
    }
    result.push_str(&text[done..]);
    result
}

/// The changes that make the additions to a pod spec; why not, where they cannot be made.
pub(super) fn edits(text: &str, spec: &Cursor<'_>, additions: &[Addition]) -> Result<Vec<Edit>, String> {
    let Some(first) = additions.first() else { return Ok(Vec::new()) };
    let find = |key: &str| spec.node.entries().iter().find(|entry| entry.key.text() == Some(key));
    let Some(beside) = find(BESIDE) else { return Err("it has no containers".to_owned()) };
    let flow = matches!(spec.node.content, Content::Map { flow: true, .. });
    let page = Page { text, line_break: if text.contains("\r\n") { "\r\n" } else { "\n" }, beside };
    debug_assert!(first.key == BESIDE || first.before, "what comes first is the container");
    let mut edits = Vec::new();
    for addition in additions {
        match (find(addition.key), flow) {
            (Some(entry), _) => page.add_to_entry(entry, addition, flow, &mut edits)?,
            (None, false) => edits.push(page.block_key(addition)?),
            (None, true) => edits.push(page.flow_key(addition)),
        }
    }
    Ok(edits)
}

/// A pod spec on its page.
struct Page<'a> {
    text: &'a str,
    line_break: &'a str,
    /// The entry `containers`.
    beside: &'a Entry,
}

impl Page<'_> {
    /// A new key in block style.
    fn block_key(&self, addition: &Addition) -> Result<Edit, String> {
        let column = self.column(self.beside.key.from)?;
        let lines = self.block().entry(column, addition.key, &addition.whole());
        let at = if addition.before {
            self.above(self.beside.key.from, column)
        } else {
            self.below(self.end(self.beside), column)
        };
        Ok(self.lines_at(at, addition.before, &lines))
    }

    /// A new key in flow style, on a line of its own where `containers` has one.
    fn flow_key(&self, addition: &Addition) -> Edit {
        let indent = self.indent(self.beside.key.from);
        let pretty = self.unit().zip(indent);
        let value =
            json(&addition.whole(), pretty.as_ref().map(|(unit, base)| (*base, unit.as_str())), self.line_break);
        let between = match indent {
            Some(indent) => format!("{}{indent}", self.line_break),
            None => " ".to_owned(),
        };
        let entry = format!("\"{}\": {value}", addition.key);
        if addition.before {
            return insert(self.beside.key.from, format!("{entry},{between}"));
        }
        insert(self.beside.value.to, format!(",{between}{entry}"))
    }

    /// More items in a list that is there, or the first ones under a key that is.
    fn add_to_entry(
        &self,
        entry: &Entry,
        addition: &Addition,
        flow: bool,
        edits: &mut Vec<Edit>,
    ) -> Result<(), String> {
        let not_a_list = || format!("its {} is no list", addition.key);
        let items = match &addition.what {
            What::First(item) => std::slice::from_ref(item),
            What::Last(items) => items,
            What::Set(_) => return Err(format!("its {} is there already", addition.key)),
        };
        match &entry.value.content {
            Content::List { items: there, flow: false } if !there.is_empty() => {
                let column = self.column(entry.value.opens)?;
                let block = self.block();
                let lines: Vec<String> = items.iter().flat_map(|item| block.item(column, item)).collect();
                let at = match addition.what {
                    What::First(_) => self.above(entry.value.opens, column),
                    _ => self.below(entry.value.to, column),
                };
                edits.push(self.lines_at(at, matches!(addition.what, What::First(_)), &lines));
            }
            Content::List { items: there, flow: true } if !there.is_empty() => {
                edits.push(self.add_to_flow_list(&entry.value, there, addition, items));
            }
            Content::List { .. } => self.under_key(entry, addition, flow, edits)?,
            _ if entry.value.is_null() => self.under_key(entry, addition, flow, edits)?,
            _ => return Err(not_a_list()),
        }
        Ok(())
    }

    fn add_to_flow_list(&self, list: &Node, there: &[Rc<Node>], addition: &Addition, items: &[Json]) -> Edit {
        let first = self.indent(there[0].from);
        let unit = self.unit().unwrap_or_else(|| "  ".to_owned());
        let between = match first {
            Some(indent) => format!("{}{indent}", self.line_break),
            None => " ".to_owned(),
        };
        let pretty = first.map(|base| (base, unit.as_str()));
        let written: Vec<String> = items.iter().map(|item| json(item, pretty, self.line_break)).collect();
        let written = written.join(&format!(",{between}"));
        if matches!(addition.what, What::First(_)) {
            let begin = if first.is_some() { between.as_str() } else { "" };
            let end =
                if first.is_some() || self.text[list.opens + 1..].starts_with(char::is_whitespace) { "" } else { " " };
            return insert(list.opens + 1, format!("{begin}{written},{end}"));
        }
        let last = there.last().map_or(list.to, |item| item.to);
        insert(last, format!(",{between}{written}"))
    }

    /// A key that has nothing, an empty list, or null.
    fn under_key(&self, entry: &Entry, addition: &Addition, flow: bool, edits: &mut Vec<Edit>) -> Result<(), String> {
        let value = &entry.value;
        if flow {
            if value.is_unwritten() {
                return Err(format!("its {} has no value", addition.key));
            }
            let base = self.indent(entry.key.from);
            let pretty = self.unit().zip(base);
            let text =
                json(&addition.whole(), pretty.as_ref().map(|(unit, base)| (*base, unit.as_str())), self.line_break);
            edits.push(Edit { at: value.from..value.to, before: false, text });
            return Ok(());
        }
        let column = self.column(entry.key.from)?;
        let mut end = entry.key.to;
        if !value.is_unwritten() {
            // With the space behind the colon.
            let spaces = self.text[..value.from].len() - self.text[..value.from].trim_end_matches(' ').len();
            edits.push(Edit { at: value.from - spaces..value.to, before: false, text: String::new() });
            end = value.to;
        }
        let lines = self.block().entry(column, addition.key, &addition.whole());
        let at = self.line_after(end);
        edits.push(self.lines_at(at, false, &lines[1..]));
        Ok(())
    }

    /// Where an entry in block style ends.
    fn end(&self, entry: &Entry) -> usize {
        if entry.value.is_unwritten() { entry.key.to } else { entry.value.to }
    }

    /// How this pod spec writes lists.
    fn block(&self) -> Block {
        let list = &self.beside.value;
        let is_block = matches!(list.content, Content::List { flow: false, .. });
        Block { indented: !is_block || self.column(list.opens) != self.column(self.beside.key.from) }
    }

    /// How far a level of flow style stands to the right of the one around it, where it is on several lines.
    fn unit(&self) -> Option<String> {
        let outer = self.indent(self.beside.key.from)?;
        let inner = self.indent(self.beside.value.items().first()?.from)?;
        Some(inner.strip_prefix(outer).filter(|unit| !unit.is_empty()).unwrap_or("  ").to_owned())
    }

    /// What stands before it on its line, where that is nothing but space.
    fn indent(&self, at: usize) -> Option<&str> {
        let line = &self.text[self.line_of(at)..at];
        line.chars().all(|c| c == ' ' || c == '\t').then_some(line)
    }

    /// The column of what stands first on its line.
    fn column(&self, at: usize) -> Result<usize, String> {
        let indent = self.indent(at).filter(|indent| !indent.contains('\t'));
        indent.map(str::len).ok_or_else(|| "a key or a dash of it does not stand first on its line".to_owned())
    }

    fn line_of(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |before| before + 1)
    }

    fn line_after(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |behind| at + behind + 1)
    }

    /// The line to put others before: the one of `at`, or the first of the comments that stand right above it.
    fn above(&self, at: usize, column: usize) -> usize {
        let mut line = self.line_of(at);
        while line > 0 {
            let before = self.line_of(line - 1);
            let text = &self.text[before..line];
            if text.trim_start_matches(' ').starts_with('#')
                && text.len() - text.trim_start_matches(' ').len() == column
            {
                line = before;
            } else {
                break;
            }
        }
        line
    }

    /// The line to put others before that come behind what ends at `at`: comments that stand further to the right than
    /// `column` belong to it.
    fn below(&self, at: usize, column: usize) -> usize {
        let (mut line, mut next) = (self.line_after(at), self.line_after(at));
        while next < self.text.len() {
            let after = self.line_after(next);
            let text = &self.text[next..after];
            let indent = text.len() - text.trim_start_matches(' ').len();
            next = after;
            if text.trim_start().starts_with('#') && indent > column {
                line = after;
            } else if !text.trim().is_empty() {
                break;
            }
        }
        line
    }

    fn lines_at(&self, at: usize, before: bool, lines: &[String]) -> Edit {
        let text = lines.join(self.line_break);
        let ends = at == 0 || self.text[..at].ends_with('\n');
        // The last line of a text that does not end with a line break stays such a one.
        let text = if ends { text + self.line_break } else { format!("{}{text}", self.line_break) };
        Edit { at: at..at, before, text }
    }
}

fn insert(at: usize, text: String) -> Edit {
    Edit { at: at..at, before: false, text }
}
