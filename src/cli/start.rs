//! The one place where a process is started.

use clap::ArgGroup;

use super::complain;
use super::exit::Exit;
use crate::config::{self, Loaded, Overrides, Problem, Single};
use crate::run::World;

/// What `guard` and `stamp` cannot do without, besides their listener.
pub fn coordinator() -> ArgGroup {
    ArgGroup::new("coordinator").args(["etcd", "embedded", "config"]).required(true).multiple(true)
}

/// Reads the file, if there is one, and lays the rest over it.
///
/// # Errors
/// Everything that is wrong.
pub fn load(overrides: &Overrides, single: Option<Single>) -> Result<Loaded, Vec<Problem>> {
    match &overrides.config {
        None => config::load(None, overrides, single),
        Some(path) => {
            let text = config::read_file(path).map_err(|problem| vec![problem])?;
            config::load(Some((path, &text)), overrides, single)
        }
    }
}

/// Runs until the process is told to stop.
pub fn until_stopped(overrides: &Overrides, single: Option<Single>) -> Exit {
    let loaded = match load(overrides, single) {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain::problems(&problems);
            return Exit::Config;
        }
    };
    complain::warnings(&loaded.warnings);
    match crate::run::run(loaded.config, World::host()) {
        Ok(exit) => exit,
        Err(error) => {
            complain::error(&error);
            error.exit()
        }
    }
}
