//! Whether the programs of fence actions are there: one that cannot be started is found out only in a handoff, when
//! nothing else ends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::report::{Category, Finding};
use crate::config::resolved::{Config, Role};

/// One finding a program; none, and no category, where there is no action that a guard of this file would run.
pub fn look(config: &Config) -> Option<Category> {
    let guards = config.listeners.iter().filter(|listener| matches!(listener.role, Role::Guard(_)));
    let mut programs: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for resource in guards.flat_map(|listener| &listener.serves) {
        let action = config.resources.get(resource).and_then(|settings| settings.fence_action.as_ref());
        let Some(program) = action.and_then(|action| action.command.first()) else { continue };
        // As it is filled in when it runs.
        let program = program.replace("{resource}", resource.as_str()).replace("{epoch}", "1");
        let of = programs.entry(program).or_default();
        if !of.contains(&resource.as_str()) {
            of.push(resource.as_str());
        }
    }
    if programs.is_empty() {
        return None;
    }
    let mut category = Category::new("fence actions");
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (program, resources) in &programs {
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        category.add(one(program, resources, &folders));
    }
    Some(category)
}

fn one(program: &str, resources: &[&str], folders: &[PathBuf]) -> Finding {
    let of = match resources {
        [one] => (*one).to_owned(),
        several => format!("{} resources", several.len()),
    };
    match found(program, folders) {
        Some(path) => Finding::good(format!("{of}: {} can be run", path.display())),
        None => Finding::bad(
            format!("{of}: {program} is not a program that can be run here"),
            "the action would fail when it is needed, and with drain.by_time: false nothing else ends a drain. Put it \
             on the guard's host, or name it by its whole path",
        ),
    }
}

/// The file that would be started, as the system looks for it: by its path where it has one, else in `PATH`.
fn found(program: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let runs = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    folders.iter().map(|folder| folder.join(program)).find(|path| runs(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_the_system_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let (program, text) = (folder.path().join("kill-jobs"), folder.path().join("text"));
        for (path, mode) in [(&program, 0o755), (&text, 0o644)] {
            std::fs::write(path, "#!/bin/sh\n").expect("a file");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its owner may");
        }
        let folders = [folder.path().join("none"), folder.path().to_owned()];
        let verdict = |program: &str| one(program, &["orders"], &folders).verdict();
        assert_eq!(verdict("kill-jobs"), Verdict::Good);
        assert_eq!(verdict(&program.display().to_string()), Verdict::Good);
        assert_eq!(verdict(&folder.path().display().to_string()), Verdict::Bad, "a folder");
        for missing in ["no-such-program", "/nowhere/kill-jobs", ""] {
            assert_eq!(verdict(missing), Verdict::Bad, "{missing}");
        }
        assert_eq!(found("text", &folders), None, "it may not be run");
    }
}
