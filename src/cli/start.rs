//! The one place where a process is started.

use clap::ArgGroup;

use super::complain;
use super::exit::Exit;
use crate::config::{self, Loaded, Overrides, Problem, Single};
use crate::control::Ended;
use crate::coordinator::store::StoreError;
use crate::fence::WriterId;
use crate::run::{RunError, World};

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
    let id = loaded.config.id.clone();
    match crate::run::run(loaded.config, World::host()) {
        Ok(ended) => how_it_ended(&ended, &id),
        Err(error) => {
            complain::error(&error);
            why_it_did_not_start(&error)
        }
    }
}

/// What the end of a process says to whoever started it.
fn how_it_ended(ended: &Ended, id: &WriterId) -> Exit {
    match ended {
        Ended::Stopped | Ended::AtOnce => Exit::Ok,
        Ended::DuplicateWriter { resource } => {
            complain::error(&format!(
                "another process campaigns for {resource} as writer {id}, and renews its lease: give each its own id \
                 with --id"
            ));
            Exit::Unreachable
        }
        Ended::WorkerLost(_) | Ended::FloorsLost | Ended::Panicked => {
            complain::error(&format!("a bug, please report it: {ended:?}"));
            Exit::Bug
        }
    }
}

fn why_it_did_not_start(error: &RunError) -> Exit {
    match error {
        RunError::State(state) if state.needs_an_operator() => Exit::Config,
        RunError::Coordinator(StoreError::Unusable(_)) | RunError::Audit(_) | RunError::History { .. } => Exit::Config,
        RunError::Listen { .. } | RunError::State(_) | RunError::Coordinator(_) | RunError::Admin(_) => {
            Exit::Unreachable
        }
        RunError::Log(_) | RunError::Thread { .. } | RunError::Metrics(_) => Exit::Bug,
    }
}
