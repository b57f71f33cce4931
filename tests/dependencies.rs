//! Dependencies inside the crate go one way (DESIGN 10): this table says which, and the sources are read against it.
//!
//! A part is a folder or file directly below `src/`. Test modules may use anything.

#[path = "support/source.rs"]
mod source;

use source::{Source, sources, words};

/// Each part, and what it may use: a part (`fence`), or something in one (`admin::status`). A part always sees itself.
const ARROWS: &[(&str, &[&str])] = &[
    // The core.
    ("fence", &[]),
    ("peer", &[]),
    ("clock", &["fence"]),
    // Manifests in, manifests out: nothing of the product is in them but its names.
    ("inject", &[]),
    // What the configuration says, as plain data: a leaf, so that everything may read it.
    ("rules", &["fence", "protocol::Kind", "protocol::Facts", "protocol::Fields"]),
    ("config", &["fence", "rules", "protocol::Kind"]),
    // Certificates and keys.
    ("tls", &["config", "peer"]),
    // Keys, of a listener's settings and for a stamp.
    ("signing", &["fence", "config"]),
    // Bytes and connections.
    ("net", &["fence", "clock", "config", "peer", "tls"]),
    ("protocol", &["fence", "clock", "config", "net", "peer", "rules"]),
    // A guard's own connection to its target.
    ("target", &["fence", "clock", "config", "net", "peer", "protocol::redis", "tls"]),
    // What happened, and who writes it down. Of protocols only the words that every one of them shares.
    ("lines", &[]),
    ("event", &["fence", "clock", "config", "lines", "peer", "protocol::Kind", "protocol::right::Settled"]),
    ("audit", &["fence", "clock", "config", "event", "lines", "peer"]),
    ("verify", &["fence", "event", "protocol::right::Settled"]),
    (
        "metrics",
        &["fence", "clock", "config", "event", "protocol::CutReason", "protocol::Finished", "protocol::Kind", "tls"],
    ),
    ("log", &["fence", "clock", "config", "lines"]),
    // The data side: workers, and the roles in them.
    ("mailbox", &["fence", "clock", "config", "event", "peer", "signing", "tls"]),
    ("demo", &["*"]),
    ("roles", &["fence", "clock", "config", "event", "peer", "protocol", "rules"]),
    (
        "guard",
        &["fence", "clock", "config", "event", "mailbox", "metrics", "peer", "protocol", "roles", "rules", "signing"],
    ),
    ("stamp", &["fence", "clock", "config", "event", "mailbox", "metrics", "protocol", "roles", "rules", "signing"]),
    (
        "worker",
        &[
            "fence", "clock", "config", "event", "guard", "mailbox", "metrics", "net", "peer", "protocol", "roles",
            "rules", "signing", "stamp", "tls",
        ],
    ),
    // The control side.
    ("coordinator", &["fence", "clock", "config"]),
    ("disk", &["fence"]),
    ("state_dir", &["fence", "clock", "disk"]),
    // Of the admin side, control knows what may be asked of it: the trait that it implements, and its words.
    (
        "control",
        &[
            "fence",
            "admin::Command",
            "admin::CommandError",
            "admin::Control",
            "admin::Status",
            "admin::status",
            "clock",
            "config",
            "coordinator",
            "disk",
            "event",
            "mailbox",
            "metrics",
            "net::dial::ClientSlot",
            "state_dir",
            "target",
            "tls::ClientSide",
        ],
    ),
    ("admin", &["fence", "clock", "config", "event", "metrics", "net::unix"]),
    // The edges put it all together.
    ("run", &["*"]),
    ("reload", &["*"]),
    ("cli", &["*"]),
    ("lib", &["*"]),
    ("main", &["cli"]),
];

/// What the core may not touch: time, the world, and everything that would make two runs of it differ.
const NOT_IN_FENCE: &[(&str, &str)] = &[
    ("Instant", "time comes in as a Moment"),
    ("SystemTime", "time comes in as a Moment"),
    ("std::fs", "the core does no I/O: it returns what is to be done"),
    ("std::net", "the core does no I/O: it returns what is to be done"),
    ("std::thread", "the core runs where it is called"),
    ("atomic", "a gate belongs to one worker"),
    ("Mutex", "a gate belongs to one worker"),
    ("RwLock", "a gate belongs to one worker"),
    ("Cell", "state is Clone + Eq + Hash, for the model"),
    ("RefCell", "state is Clone + Eq + Hash, for the model"),
    ("UnsafeCell", "state is Clone + Eq + Hash, for the model"),
    ("tokio", "the core runs where it is called"),
    ("tracing", "the core returns what happened; its callers log"),
    ("rand", "randomness comes in as a value"),
    ("getrandom", "randomness comes in as a value"),
];

#[test]
fn dependencies_go_one_way() {
    let mut problems = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = ARROWS.iter().find(|(part, _)| *part == source.part()) else {
            problems.push(format!("{}: no arrows are given for `{}`: add it to ARROWS", source.path, source.part()));
            continue;
        };
        for (at, path) in uses(&source) {
            if !may_use(source.part(), allowed, &path) {
                let line = source.line_of(at);
                let may = if allowed.is_empty() { "nothing else of the crate".to_owned() } else { allowed.join(", ") };
                let (from, to) = (source.part(), path.join("::"));
                problems.push(format!("{}:{line}: `{from}` uses `{to}`; it may use {may}", source.path));
            }
        }
    }
    assert!(problems.is_empty(), "dependencies that point the wrong way:\n  {}", problems.join("\n  "));
}

#[test]
fn the_core_is_pure() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.part() == "fence") {
        for (word, why) in NOT_IN_FENCE {
            for at in words(&source.code, word) {
                problems.push(format!("{}:{}: `{word}` in fence: {why}", source.path, source.line_of(at)));
            }
        }
    }
    assert!(problems.is_empty(), "the core is to be pure:\n  {}", problems.join("\n  "));
}

fn may_use(part: &str, allowed: &[&str], path: &[String]) -> bool {
    let within = |allowed: &str| {
        let allowed: Vec<&str> = allowed.split("::").collect();
        path.len() >= allowed.len() && path.iter().zip(&allowed).all(|(have, want)| have == want)
    };
    // What stands in lib.rs itself, a macro perhaps, has no part of its own.
    path.is_empty() || path[0] == part || allowed.iter().any(|&allowed| allowed == "*" || within(allowed))
}

/// Every path into the crate, from its root on, with where it stands.
fn uses(source: &Source) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let own_name = if source.part() == "main" { "epochgate" } else { "crate" };
    for at in words(&source.code, own_name) {
        if let Some(rest) = source.code[at + own_name.len()..].trim_start().strip_prefix("::") {
            expand(rest, &[], &mut |path| found.push((at, path)));
        }
    }
    for at in words(&source.code, "super") {
        let first = source.code[..at].trim_end();
        // The first of a chain only; and `pub(super)` is no path.
        if !first.ends_with("::") && !first.ends_with("(") {
            let mut depth = 0;
            let mut rest = &source.code[at..];
            while let Some(after) = rest.strip_prefix("super").and_then(|rest| rest.trim_start().strip_prefix("::")) {
                depth += 1;
                rest = after.trim_start();
            }
            let reached = source.module.len().saturating_sub(depth);
            expand(rest, &source.module[..reached], &mut |path| found.push((at, path)));
        }
    }
    found
}

/// Calls `each` with every path of a use tree: `a::{b, c::{d}}` is `a::b` and `a::c::d`. `text` is what follows `::`.
fn expand(text: &str, before: &[String], each: &mut dyn FnMut(Vec<String>)) {
    let mut path = before.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            branches(group).iter().for_each(|branch| expand(branch, &path, each));
            return;
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        rest = rest[name.len()..].trim_start();
        match name.as_str() {
            "" => return each(path),
            "self" => {}
            _ => path.push(name),
        }
        match rest.strip_prefix("::") {
            Some(after) => rest = after.trim_start(),
            None => return each(path),
        }
    }
}

/// What stands between the commas of a group, up to its closing brace.
fn branches(group: &str) -> Vec<&str> {
    let (mut found, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&group[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|branch| !branch.trim().is_empty());
    found
}

/// The reading itself, on a file that breaks the rules in every way.
mod reading {
    use super::*;

    fn file(path: &str, module: &[&str], text: &str) -> Source {
        let module = module.iter().map(|&part| part.to_owned()).collect();
        Source { path: path.to_owned(), module, text: text.to_owned(), code: source::blank(text) }
    }

    fn paths(source: &Source) -> Vec<String> {
        uses(source).into_iter().map(|(at, path)| format!("{}:{}", source.line_of(at), path.join("::"))).collect()
    }

    #[test]
    fn every_form_of_a_path_is_seen() {
        let text = "use crate::control;\n\
                    use crate::{fence::{Epoch, term::{self, Nonce}}, admin::status::Gate as G};\n\
                    fn f() { crate::disk::sync(); super::super::net::open(); super::own() }\n\
                    pub(crate) struct A; pub(super) struct B;\n";
        let seen = paths(&file("src/guard/http.rs", &["guard", "http"], text));
        let expected = [
            "1:control",
            "2:fence::Epoch",
            "2:fence::term",
            "2:fence::term::Nonce",
            "2:admin::status::Gate",
            "3:disk::sync",
            "3:net::open",
            "3:guard::own",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn comments_and_literals_are_not() {
        let text = "//! [`crate::control`]\n/* use /* crate::x */ crate::y */\nconst A: &str = \"crate::z \\\" // \";\n\
                    const B: &str = r#\"crate::w \"//\"#; const C: char = '\"'; const D: char = '\\''; \
                    fn e<'a>(x: &'a u8) {} use crate::clock;\n";
        assert_eq!(paths(&file("src/net/mod.rs", &["net"], text)), ["4:clock"]);
    }

    #[test]
    fn a_part_of_a_part_may_be_allowed_alone() {
        let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
        assert!(may_use("control", &["admin::status"], &path("admin::status::Gate")));
        assert!(!may_use("control", &["admin::status"], &path("admin::serve")));
        assert!(!may_use("control", &["admin::status"], &path("admin")));
        assert!(may_use("control", &[], &path("control::floors")));
    }
}
