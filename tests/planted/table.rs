//! The table of `docs/planted-bugs.md`.

use std::collections::BTreeMap;

use super::bugs::Bug;

/// The table in markdown, of what was found.
pub fn print(bugs: &[Bug], found: &BTreeMap<String, String>) -> String {
    let mut table =
        String::from("| bug | rule | what it does | where | blind | found by |\n|---|---|---|---|---|---|\n");
    for bug in bugs {
        let by = found.get(&bug.name).map_or("not looked for", |by| by);
        let mut files: Vec<String> = bug.edits.iter().map(|edit| format!("`{}`", edit.file)).collect();
        files.dedup();
        let (files, blind) = (files.join(", "), if bug.blind { "yes" } else { "" });
        table += &format!("| `{}` | {} | {} | {files} | {blind} | `{by}` |\n", bug.name, bug.rule, bug.what);
    }
    table
}

/// By bug, who found it, as a page says.
pub fn rows(page: &str) -> BTreeMap<String, String> {
    let cells = |line: &str| -> Option<(String, String)> {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split(" | ").map(str::trim).collect();
        // The page has other tables too.
        let name = cells.first().filter(|_| cells.len() == 6)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.last()?.trim_matches('`').to_owned()))
    };
    page.lines().filter_map(cells).collect()
}
