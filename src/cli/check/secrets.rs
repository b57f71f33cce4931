//! Whether files with secrets are there, and for their owner alone.

use super::report::{Category, Finding};
use crate::config::resolved::Config;
use crate::config::secrets::{SecretFile, files, is_open_to_all};

/// One finding a file; none, and no category, where the configuration names no secret.
pub fn look(config: &Config) -> Option<Category> {
    let files = files(config);
    if files.is_empty() {
        return None;
    }
    let mut category = Category::new("secrets");
    for file in &files {
        category.add(one(file));
    }
    Some(category)
}

fn one(file: &SecretFile) -> Finding {
    let (key, path) = (file.key, file.path.display());
    // As whoever runs this may: run it as the user of the process.
    let read = std::fs::File::open(&file.path).and_then(|_| is_open_to_all(&file.path));
    match read {
        Ok(false) => Finding::good(format!("{key}: {path} can be read, and not by every user of this host")),
        Ok(true) => Finding::warning(
            format!("{key}: every user of this host may read {path}"),
            format!("chmod o= {path}; for a mounted secret of Kubernetes, defaultMode: 0440"),
        ),
        Err(error) => Finding::bad(
            format!("{key}: {path} cannot be read: {error}"),
            "it is read at each new connection: give it to the user that the process runs as",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn a_secret_is_for_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let file = SecretFile { key: "coordinator.etcd.tls.key", path: path.clone() };
        assert_eq!(one(&file).verdict(), Verdict::Bad);
        std::fs::write(&path, "very secret").expect("written");
        for (mode, verdict) in [(0o600, Verdict::Good), (0o640, Verdict::Good), (0o644, Verdict::Warning)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its owner may");
            let found = one(&file);
            assert_eq!(found.verdict(), verdict, "{mode:o}");
            assert!(!found.words().contains("very secret"));
        }
    }
}
