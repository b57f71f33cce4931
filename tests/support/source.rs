//! Reads the project's own sources, for the tests that hold them to the rules.

#![allow(dead_code, reason = "each of them reads something else")]

use std::fs;
use std::path::{Path, PathBuf};

/// One file under `src/`.
pub struct Source {
    /// Its path from the top of the checkout, as failures name it.
    pub path: String,
    /// Where its module stands in the crate: `["fence", "gate"]`; empty for `lib.rs` and `main.rs`.
    pub module: Vec<String>,
    /// What it says.
    pub text: String,
    /// The same, line for line and byte for byte, with comments and the insides of literals blanked, and without the
    /// test module at its end.
    pub code: String,
}

impl Source {
    /// The first folder or file below `src/` that it belongs to: `fence`, `clock`, `main`, `lib`.
    pub fn part(&self) -> &str {
        let first = self.path.trim_start_matches("src/").split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The line that a byte of `text` or `code` is on, from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// The top of the checkout.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under `src/` but those that only tests compile, in order of their paths.
pub fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&top().join("src"), &mut paths);
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if is_tests {
            continue;
        }
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source file is text");
    let path = path.strip_prefix(top()).expect("it was found below").to_str().expect("paths are text").to_owned();
    let mut code = blank(&text);
    if let Some(tests) = test_module(&code) {
        code.truncate(tests);
    }
    Source { module: module_of(&path), path, text, code }
}

/// `src/fence/gate.rs` is `fence::gate`, `src/fence/mod.rs` is `fence`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    inside.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).map(str::to_owned).collect()
}

/// Where the test module begins: `#[cfg(test)]`, perhaps other attributes, `mod name {`. By the house rules it is the
/// last thing in its file.
fn test_module(code: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let at = from + found;
        let mut rest = code[at..].trim_start();
        while let Some(attribute) = rest.strip_prefix("#[") {
            rest = attribute.split_once(']').map_or("", |(_, after)| after).trim_start();
        }
        let head = rest.split(['{', ';']).next().unwrap_or_default();
        if rest.starts_with("mod ") && rest[head.len()..].starts_with('{') {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// `text` with every byte of a comment, and of the inside of a string or character literal, replaced by a space; line
/// breaks stay.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match skipped(bytes, at) {
            Some(end) => end.min(bytes.len()),
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were replaced")
}

/// Where the comment or literal that begins at `at` ends; `None` where none begins there.
fn skipped(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + block_comment(rest)),
        [b'"', ..] => Some(at + quoted(rest)),
        [b'r', b'"' | b'#', ..] if !in_word || bytes[at - 1] == b'b' => raw_string(rest).map(|length| at + length),
        [b'\'', b'\\', ..] => Some(at + 2 + rest[3..].iter().position(|&byte| byte == b'\'')? + 2),
        // A character, not a lifetime: the closing quote follows one character on.
        [b'\'', ..] => {
            let length = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]))
                .ok()?
                .chars()
                .next()?
                .len_utf8();
            (rest.get(1 + length) == Some(&b'\'')).then_some(at + length + 2)
        }
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let inside = &rest[2 + hashes..];
    let length = inside.windows(close.len()).position(|window| window == close)?;
    Some(2 + hashes + length + close.len())
}

/// The places in `code` where `word` stands as a whole word (or path).
pub fn words(code: &str, word: &str) -> Vec<usize> {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|&at| !is_word(at.checked_sub(1).and_then(|before| bytes.get(before))))
        .filter(|&at| !is_word(bytes.get(at + word.len())))
        .collect()
}
