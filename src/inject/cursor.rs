//! Goes down in a tree, one key after the other, and says what is in the way of an edit.

use std::collections::HashSet;
use std::rc::Rc;

use super::tree::{Content, Document, Entry, Node};

/// How many aliases and merge keys are followed one after the other; one that refers to itself ends here.
const HOPS: usize = 8;

/// A place in a document that could be edited.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) document: &'a Document,
    pub(super) node: &'a Rc<Node>,
    /// The way from the root: which entry, which item.
    pub(super) path: Vec<usize>,
}

/// Why a place cannot be edited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// What is there is right, and the sidecar cannot be added to it.
    Skip(String),
    /// No cluster would take it.
    Broken(String),
}

impl<'a> Cursor<'a> {
    pub(super) fn root(document: &'a Document) -> Cursor<'a> {
        Cursor { document, node: &document.root, path: Vec::new() }
    }

    /// The value under a key; `None` where there is none.
    pub(super) fn step(&self, key: &str) -> Result<Option<Cursor<'a>>, Obstacle> {
        let Some(at) = self.entry(key)? else {
            return match merged(self.document, self.node, key, HOPS, &mut HashSet::new()) {
                None => Ok(None),
                Some(_) => Err(Obstacle::Skip(format!("its key {key} comes from a merge key (<<); write it out"))),
            };
        };
        let value = &self.node.entries()[at].value;
        if matches!(value.content, Content::Alias(_)) {
            return Err(Obstacle::Skip(format!("its key {key} has an alias, of what stands elsewhere; write it out")));
        }
        if self.document.is_shared(value) {
            return Err(Obstacle::Skip(format!(
                "what its key {key} has is used by alias elsewhere too; write it out there"
            )));
        }
        let mut path = self.path.clone();
        path.push(at);
        Ok(Some(Cursor { document: self.document, node: value, path }))
    }

    /// The item of a list.
    pub(super) fn item(&self, at: usize) -> Option<Cursor<'a>> {
        let node = self.node.items().get(at)?;
        let mut path = self.path.clone();
        path.push(at);
        Some(Cursor { document: self.document, node, path })
    }

    /// Which entry a key is.
    pub(super) fn entry(&self, key: &str) -> Result<Option<usize>, Obstacle> {
        let mut found = None;
        for (at, entry) in self.node.entries().iter().enumerate() {
            if entry.key.text() == Some(key) && found.replace(at).is_some() {
                return Err(Obstacle::Broken(format!(
                    "the key {key} stands twice, the second time in line {}",
                    entry.key.line
                )));
            }
        }
        Ok(found)
    }

    /// The value under a key wherever it comes from, to look at.
    pub(super) fn read(&self, key: &str) -> Option<&'a Rc<Node>> {
        get(self.document, self.node, key)
    }
}

/// The value under a key of a mapping, through aliases and merge keys.
pub(super) fn get<'a>(document: &'a Document, node: &'a Rc<Node>, key: &str) -> Option<&'a Rc<Node>> {
    lookup(document, node, key, HOPS, &mut HashSet::new())
}

/// `seen` are the mappings that were looked at: none has it, and there may be many ways to each.
fn lookup<'a>(
    document: &'a Document,
    node: &'a Rc<Node>,
    key: &str,
    hops: usize,
    seen: &mut HashSet<*const Node>,
) -> Option<&'a Rc<Node>> {
    let node = document.resolved(node)?;
    if !seen.insert(Rc::as_ptr(node)) {
        return None;
    }
    let own = node.entries().iter().find(|entry| entry.key.text() == Some(key));
    match own {
        Some(entry) => document.resolved(&entry.value),
        None => merged(document, node, key, hops, seen),
    }
}

/// The value that a mapping has under a key from others, by `<<`.
fn merged<'a>(
    document: &'a Document,
    node: &'a Rc<Node>,
    key: &str,
    hops: usize,
    seen: &mut HashSet<*const Node>,
) -> Option<&'a Rc<Node>> {
    let hops = hops.checked_sub(1)?;
    let is_merge = |entry: &&Entry| entry.key.text() == Some("<<");
    node.entries().iter().filter(is_merge).find_map(|entry| {
        let source = document.resolved(&entry.value)?;
        if source.items().is_empty() {
            return lookup(document, source, key, hops, seen);
        }
        source.items().iter().find_map(|item| lookup(document, item, key, hops, seen))
    })
}
