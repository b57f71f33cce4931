//! The fresh data folder of a database, made once and copied: to make one takes seconds, to copy it a moment.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// One test at a time makes a template; another program's is never seen half made.
static MAKING: Mutex<()> = Mutex::new(());

/// Copies the template `name` into `to`, which is made. Where there is none yet, `make` fills an empty folder; `recipe`
/// tells apart what comes out different: the program's version, and what it is told.
pub fn copy(name: &str, recipe: &str, to: &Path, make: impl FnOnce(&Path)) {
    let template = place(name, recipe);
    {
        let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !template.is_dir() {
            // Made where every user may go, kept where builds are kept.
            let fresh = tempfile::tempdir().expect("a temporary folder can be made");
            let data = fresh.path().join("data");
            fs::create_dir(&data).expect("the folder was just made");
            make(&data);
            let beside = template.with_extension(std::process::id().to_string());
            copy_folder(&data, &beside);
            // Of two programs that make it at the same time, the second finds that it is there.
            if fs::rename(&beside, &template).is_err() {
                fs::remove_dir_all(&beside).expect("it was just made");
            }
        }
    }
    copy_folder(&template, to);
}

fn place(name: &str, recipe: &str) -> PathBuf {
    let mut hash = DefaultHasher::new();
    recipe.hash(&mut hash);
    let folder = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    folder.join(format!("{name}-{:016x}", hash.finish()))
}

fn copy_folder(from: &Path, to: &Path) {
    let context = |error| panic!("{} is not copied: {error}", from.display());
    fs::create_dir(to).unwrap_or_else(context);
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        let (kind, to) = (entry.file_type().expect("it is there"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            // A socket of the server that made it is no data.
            if kind.is_file() {
                fs::copy(entry.path(), to).map(|_| ()).unwrap_or_else(context);
            }
        }
    }
    let mode = fs::metadata(from).expect("it is there").permissions();
    fs::set_permissions(to, mode).unwrap_or_else(context);
}
