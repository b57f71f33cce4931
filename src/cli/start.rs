//! The one place where a process is started.

use clap::ArgGroup;

use super::complain;
use super::exit::Exit;
use crate::config::{Overrides, Single};
use crate::control::Ended;
use crate::coordinator::store::StoreError;
use crate::fence::WriterId;
use crate::reload::Origin;
use crate::run::{RunError, World};

/// What `guard` and `stamp` cannot do without, besides their listener.
pub fn coordinator() -> ArgGroup {
    ArgGroup::new("coordinator").args(["etcd", "embedded", "config"]).required(true).multiple(true)
}

/// Runs until the process is told to stop.
pub fn until_stopped(overrides: &Overrides, single: Option<Single>) -> Exit {
    let origin = Origin { overrides: overrides.clone(), single };
    let loaded = match origin.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain::problems(&problems);
            return Exit::Config;
        }
    };
    complain::warnings(&loaded.warnings);
    let id = loaded.config.id.clone();
    match crate::run::run(loaded.config, World::host(), origin) {
        Ok(ended) => how_it_ended(&ended, &id),
        Err(RunError::Trust(problems)) => {
            problems.iter().for_each(|problem| complain::error_with_help(&problem.what, &problem.help));
            Exit::Config
        }
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
        RunError::Coordinator(StoreError::Unusable(_))
        | RunError::Trust(_)
        | RunError::Audit(_)
        | RunError::History { .. } => Exit::Config,
        RunError::Listen { .. } | RunError::State(_) | RunError::Coordinator(_) | RunError::Admin(_) => {
            Exit::Unreachable
        }
        RunError::Log(_) | RunError::Thread { .. } | RunError::Metrics(_) => Exit::Bug,
    }
}
