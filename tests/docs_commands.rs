//! What the pages for users say can be done: every command line is one, every link leads somewhere, every configuration
//! can be loaded, every refusal is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use clap::error::ErrorKind;
use epochgate::cli::Cli;
use epochgate::config::{self, Overrides, Single};
use epochgate::fence::Reason;

/// One page.
struct Page {
    path: PathBuf,
    text: String,
}

/// A code block: its language, and its lines with the number of the first.
struct Block<'a> {
    language: &'a str,
    at: usize,
    lines: Vec<&'a str>,
}

/// The language of a block that is only indented.
const INDENTED: &str = "(indented)";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages for users, by their path from the top.
fn pages() -> Vec<Page> {
    let mut paths = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from).to_vec();
    for folder in ["docs", "examples"] {
        pages_under(Path::new(folder), &mut paths);
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(top().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Page { path, text }
    };
    paths.into_iter().map(read).collect()
}

fn pages_under(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(top().join(folder)).expect("the folder is there");
    for entry in entries.map(|entry| entry.expect("it can be read")) {
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            pages_under(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

impl Page {
    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block<'_>> = None;
        for (at, line) in self.text.lines().enumerate() {
            let indented = line.starts_with("    ");
            if open.as_ref().is_some_and(|block| block.language == INDENTED && !indented) {
                blocks.extend(open.take());
            } else if open.is_none() && indented && line.trim_start().starts_with("epochgate ") {
                open = Some(Block { language: INDENTED, at: at + 1, lines: vec![] });
            }
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => open = Some(Block { language: language.trim(), at: at + 2, lines: vec![] }),
                (None, Some(block)) => block.lines.push(line),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a code block is not closed", self.path.display());
        blocks
    }

    /// The text without its code blocks, line by line.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(at, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            (!inside && !fence).then_some((at + 1, line))
        })
    }

    /// The text without its code blocks, as one line.
    fn flowing(&self) -> String {
        self.prose().map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" ")
    }

    /// What is between backticks, also over the end of a line.
    fn spans(&self) -> Vec<String> {
        self.flowing().split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

impl Block<'_> {
    /// The command lines of `epochgate`, with the line that each begins at. In a block with prompts only what stands
    /// behind one is typed; the rest is what came of it.
    fn commands(&self) -> Vec<(usize, String)> {
        let prompts = self.lines.iter().any(|line| line.trim_start().starts_with("$ "));
        let mut commands = Vec::new();
        let mut lines = self.lines.iter().enumerate();
        while let Some((at, line)) = lines.next() {
            let mut typed = line.trim().to_owned();
            if prompts {
                let Some(behind) = typed.strip_prefix("$ ") else { continue };
                typed = behind.to_owned();
            }
            while let Some(begun) = typed.strip_suffix('\\') {
                let (_, more) = lines.next().expect("a command goes on after its backslash");
                typed = format!("{begun}{}", more.trim());
            }
            if typed.starts_with("epochgate ") {
                commands.push((self.at + at, typed));
            }
        }
        commands
    }
}

/// The words of a command line as a shell would take them, up to a comment, a pipe or a redirection.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = command.trim_start();
    while let Some(first) = rest.chars().next() {
        if matches!(first, '#' | '|' | '>' | '<' | '&') {
            break;
        }
        let (mut word, mut quote) = (String::new(), None);
        let mut end = rest.len();
        for (at, character) in rest.char_indices() {
            match (character, quote) {
                (c, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => quote = Some(character),
                (c, None) if c.is_whitespace() => {
                    end = at;
                    break;
                }
                (c, _) => word.push(c),
            }
        }
        assert!(quote.is_none(), "a quote is not closed in: {command}");
        words.push(word);
        rest = rest[end..].trim_start();
    }
    words
}

/// Commands that are planned: the pages may name them only as such.
const LATER: &[&str] = &["elect", "history", "fence", "rebase", "drill", "verify", "inject", "sql", "man"];

/// What is wrong with a command line, if anything. One that is only named (`whole` is false) may leave out what it
/// would need.
fn complaint(command: &str, whole: bool) -> Option<String> {
    let words = words(command);
    // A word that stands for more of the same, or for what the reader knows.
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !matches!(*word, "…" | "...")).collect();
    let left_out = command.contains('…') || command.contains("...");
    let error = Cli::try_parse_from(&words).err()?;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => None,
        ErrorKind::InvalidSubcommand if !whole && LATER.contains(&words[1]) => None,
        ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            if !whole || left_out =>
        {
            None
        }
        ErrorKind::InvalidValue if !whole && words.iter().any(|word| stands_for_something(word)) => None,
        _ => Some(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// A word in capitals, such as ID.
fn stands_for_something(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase())
}

#[test]
fn every_command_line_is_one() {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for page in pages() {
        let blocks = page.blocks().into_iter().flat_map(|block| block.commands()).collect::<Vec<_>>();
        for (line, command) in blocks {
            seen.extend(words(&command).get(1).cloned());
            wrong.extend(complaint(&command, true).map(|why| format!("{}: {command}\n    {why}", page.place(line))));
        }
        for span in page.spans().iter().filter(|span| span.starts_with("epochgate ")) {
            wrong.extend(complaint(span, false).map(|why| format!("{}: {span}\n    {why}", page.path.display())));
        }
    }
    assert!(wrong.is_empty(), "these are no command lines of epochgate:\n{}", wrong.join("\n"));
    for command in ["run", "guard", "stamp", "status", "step-down", "gate", "doors", "check", "schema", "demo"] {
        assert!(seen.contains(command), "no page shows how to use `epochgate {command}`");
    }
}

#[test]
fn a_wrong_command_line_would_be_found() {
    assert!(complaint("epochgate stamp --resource orders", true).is_some(), "it lacks much");
    assert!(complaint("epochgate stamp --resource orders", false).is_none(), "it is only named");
    assert!(complaint("epochgate stamp --no-such-flag", false).is_some());
    assert!(complaint("epochgate nonsense", false).is_some());
    assert!(complaint("epochgate rebase", true).is_some(), "nobody is to type what is not there");
    assert!(complaint("epochgate doors forget", true).is_some());
    assert_eq!(words("epochgate status -o json | jq '.a' # look"), ["epochgate", "status", "-o", "json"]);
    assert_eq!(words("a --header 'x: \"y z\"' > file"), ["a", "--header", "x: \"y z\""]);
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str, path: &Path) -> BTreeSet<String> {
    let page = Page { path: path.to_owned(), text: text.to_owned() };
    let headings = page.prose().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        let prose = page.flowing();
        for (at, _) in prose.match_indices("](") {
            let link = prose[at + 2..].split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let folder = page.path.parent().expect("a page lies in a folder");
            let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            let is_page = path.extension().is_some_and(|extension| extension == "md");
            match fs::read_to_string(top().join(&path)) {
                _ if top().join(&path).is_dir() => {}
                Err(error) => wrong.push(format!("{}: {link}: {error}", page.path.display())),
                Ok(text) if is_page && !wanted.is_empty() && !anchors(&text, &path).contains(wanted) => {
                    wrong.push(format!("{}: {link}: no such heading", page.path.display()));
                }
                Ok(_) => {}
            }
        }
    }
    assert!(count > 30, "only {count} links were found");
    assert!(wrong.is_empty(), "these links lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_configuration_can_be_loaded() {
    let mut count = 0;
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "yaml") {
            count += 1;
            let text = block.lines.join("\n");
            let single = !text.contains("listeners:");
            // One without listeners is what `epochgate guard -c` takes.
            let overrides = if single {
                Overrides {
                    listen: Some("127.0.0.1:8080".into()),
                    upstream: Some("http://127.0.0.1:9000".into()),
                    resource: vec!["orders".into()],
                    ..Overrides::default()
                }
            } else {
                Overrides::default()
            };
            let file = Some((page.path.as_path(), text.as_str()));
            if let Err(problems) = config::load(file, &overrides, single.then_some(Single::Guard)) {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                panic!("{} cannot be loaded:\n{}", page.place(block.at), problems.join("\n"));
            }
        }
    }
    assert!(count >= 5, "only {count} configurations were found");
}

#[test]
fn every_refusal_is_explained_to_clients() {
    let text = fs::read_to_string(top().join("docs/clients.md")).expect("the page is there");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut told = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for name in cells[0].split(", ").map(|name| name.trim_matches('`')) {
            let reason = Reason::ALL.iter().find(|reason| reason.as_str() == name);
            let reason = reason.unwrap_or_else(|| panic!("{name} is no reason"));
            assert!(told.insert(name.to_owned()), "{name} stands twice");
            assert_eq!(cells[1], reason.status().to_string(), "{name}");
            assert_eq!(
                cells[2].replace('_', "").to_lowercase(),
                format!("{:?}", reason.grpc()).to_lowercase(),
                "{name}"
            );
            assert_eq!(cells[3], reason.outcome().as_str(), "{name}");
        }
    }
    let all: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(told, all);
}
