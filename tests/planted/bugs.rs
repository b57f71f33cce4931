//! The bugs as they are written down.

/// One bug.
#[derive(Clone, Debug, Default)]
pub struct Bug {
    /// Its name, also the value of `PLANTED_BUG` that switches it on.
    pub name: String,
    /// The rules that it breaks, or `liveness`.
    pub rule: String,
    /// How, in a sentence.
    pub what: String,
    /// Where to look for it first: test binaries, each with a filter or without.
    pub first: Vec<(String, String)>,
    /// Whether it was chosen before any test was read.
    pub blind: bool,
    /// What is changed.
    pub edits: Vec<Edit>,
}

/// One change of one file.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Which, from the top of the repository.
    pub file: String,
    /// What stands there, once.
    pub original: String,
    /// What stands there instead.
    pub planted: String,
}

impl Bug {
    /// All of them, those chosen blind first.
    pub fn all() -> Vec<Bug> {
        let mut bugs = read(include_str!("blind.txt"));
        bugs.iter_mut().for_each(|bug| bug.blind = true);
        bugs.extend(read(include_str!("listed.txt")));
        bugs
    }
}

/// Which text the lines belong to that are being read.
#[derive(Clone, Copy)]
enum In {
    Head,
    Original,
    Planted,
}

fn read(text: &str) -> Vec<Bug> {
    let mut bugs: Vec<Bug> = Vec::new();
    let mut place = In::Head;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            bugs.push(Bug { name: name.to_owned(), ..Bug::default() });
            place = In::Head;
            continue;
        }
        // What stands before the first bug is for people.
        let Some(bug) = bugs.last_mut() else { continue };
        if let Some(file) = line.strip_prefix("file: ") {
            bug.edits.push(Edit { file: file.to_owned(), ..Edit::default() });
            place = In::Head;
            continue;
        }
        match (line, place) {
            ("--- original", _) => place = In::Original,
            ("+++ planted", _) => place = In::Planted,
            (line, In::Original) => add_line(&mut bug.edits.last_mut().expect("file: comes first").original, line),
            (line, In::Planted) => add_line(&mut bug.edits.last_mut().expect("file: comes first").planted, line),
            (line, In::Head) => head(bug, line),
        }
    }
    for edit in bugs.iter_mut().flat_map(|bug| &mut bug.edits) {
        edit.original = edit.original.trim_end_matches('\n').to_owned();
        edit.planted = edit.planted.trim_end_matches('\n').to_owned();
    }
    bugs
}

fn add_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn head(bug: &mut Bug, line: &str) {
    match line.split_once(": ") {
        Some(("rule", rule)) => bug.rule = rule.to_owned(),
        Some(("what", what)) => bug.what = what.to_owned(),
        Some(("first", first)) => {
            let one = |one: &str| {
                let (binary, filter) = one.trim().split_once(' ').unwrap_or((one.trim(), ""));
                (binary.to_owned(), filter.to_owned())
            };
            bug.first = first.split(',').map(one).collect();
        }
        _ if line.is_empty() => {}
        _ => panic!("{}: {line:?} is none of rule:, what:, first:, file:", bug.name),
    }
}
