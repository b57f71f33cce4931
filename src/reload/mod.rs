//! Reading the configuration, certificates and keys again: on SIGHUP, when an operator asks, and when a file is another.
//!
//! Files are looked at, not watched: what a watch sees is the link that Kubernetes swaps (`..data`), or an editor's
//! renaming, and what counts is the content. All that is new is checked whole before any of it is used; where anything is
//! wrong, everything stays as it was. A change of which a part needs a restart is not taken in part either: its other parts
//! were checked together with that one (an upstream's timeout with the quarantine, for one).
//!
//! [`plan`] says which changes need a restart. One thread does all of it, so that a disk that hangs stops nobody who serves.

mod plan;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use crate::admin::CommandError;
use crate::clock::Clock;
use crate::config::{Config, Loaded, Overrides, Problem, Single};
use crate::control::{Handle, Wish};
use crate::mailbox::Renewal;
use crate::metrics::{Metrics, ReloadOutcome};
use crate::signing::{KeyProblem, Keys};
use crate::tls;
use crate::worker::setup::Trust;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// What flags and variables say, and where the file is.
    pub overrides: Overrides,
    /// The command's own listener.
    pub single: Option<Single>,
}

impl Origin {
    /// Reads it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        crate::config::load_from(&self.overrides, self.single)
    }
}

/// What becomes of a wish.
enum Became {
    Unchanged,
    Applied { listeners: Vec<Arc<str>>, warnings: Vec<Problem> },
    Refused(Vec<String>),
    NeedsRestart(Vec<String>),
}

/// Reads the files again, as often as it is worth it.
pub struct Reloader {
    origin: Origin,
    config: Arc<Config>,
    /// The files that are looked at: those in force, and those that were tried last.
    files: Vec<PathBuf>,
    /// What all of them said when they were read last.
    seen: u64,
    handle: Handle,
    metrics: Weak<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Reloader {
    /// Of a process that runs with this configuration, as it was read from its origin.
    pub fn new(
        origin: Origin,
        config: Arc<Config>,
        handle: Handle,
        metrics: &Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Reloader {
        let files = files(&origin, &[&config]);
        Reloader { origin, config, seen: content(&files), files, handle, metrics: Arc::downgrade(metrics), clock }
    }

    /// Serves wishes, and looks at the files by itself, until nobody is left to wish.
    pub fn run(mut self, wishes: &mpsc::Receiver<Wish>) {
        loop {
            match wishes.recv_timeout(LOOK_EVERY) {
                Ok(Wish::Signal) => drop(self.again_and_say()),
                Ok(Wish::Command(reply)) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(answer(self.again_and_say()));
                }
                Err(RecvTimeoutError::Timeout) if content(&self.files) == self.seen => {}
                Err(RecvTimeoutError::Timeout) => drop(self.again_and_say()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn again_and_say(&mut self) -> Became {
        let became = self.again();
        say(&became);
        let outcome = match &became {
            Became::Unchanged => return became,
            Became::Applied { .. } => ReloadOutcome::Applied,
            Became::Refused(_) => ReloadOutcome::Refused,
            Became::NeedsRestart(_) => ReloadOutcome::NeedsRestart,
        };
        if let Some(metrics) = self.metrics.upgrade() {
            metrics.reloaded(outcome);
        }
        became
    }

    fn again(&mut self) -> Became {
        let loaded = match self.origin.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.seen = content(&self.files);
                return Became::Refused(problems.iter().map(ToString::to_string).collect());
            }
        };
        let new = loaded.config;
        self.files = files(&self.origin, &[&self.config, &new]);
        let seen = content(&self.files);
        // Read after they were looked at: a change in between is seen at the next look.
        let unchanged = std::mem::replace(&mut self.seen, seen) == seen && new == *self.config;
        let needs_restart = plan::needs_restart(&self.config, &new);
        if !needs_restart.is_empty() {
            return Became::NeedsRestart(needs_restart);
        }
        let trust = match trust(&new, self.clock.wall()) {
            Ok(trust) => trust,
            Err(problems) => return Became::Refused(problems.iter().map(ToString::to_string).collect()),
        };
        if unchanged {
            return Became::Unchanged;
        }
        self.apply(new, trust, loaded.warnings)
    }

    fn apply(&mut self, new: Config, trust: Vec<Trust>, warnings: Vec<Problem>) -> Became {
        if new.log.level != self.config.log.level {
            self.handle.set_log_level(new.log.level);
        }
        let renewals = new.listeners.iter().zip(trust).zip(&self.config.listeners).enumerate().map(
            |(place, ((listener, (sides, signatures)), before))| {
                if let Some(metrics) = self.metrics.upgrade() {
                    metrics.show_certificates(&listener.name, &sides.expiries);
                }
                Renewal { place, listener: Arc::clone(listener), sides, signatures, replaced: listener != before }
            },
        );
        let renewals: Arc<[Renewal]> = renewals.collect();
        let replaced = renewals.iter().filter(|renewal| renewal.replaced);
        let listeners = replaced.map(|renewal| Arc::clone(&renewal.listener.name)).collect();
        self.config = Arc::new(new);
        self.handle.renew(Arc::clone(&self.config), renewals);
        Became::Applied { listeners, warnings }
    }
}

fn say(became: &Became) {
    match became {
        Became::Unchanged => tracing::info!("nothing to reload: configuration, certificates and keys are as they were"),
        Became::Applied { listeners, warnings } => {
            tracing::info!(replaced = ?listeners, "reloaded: configuration, certificates and keys are those of the files");
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        Became::Refused(problems) => {
            problems.iter().for_each(|problem| tracing::error!("{problem}"));
            tracing::error!(problems = problems.len(), "not reloaded: what was in force stays");
        }
        Became::NeedsRestart(keys) => {
            tracing::warn!(needs_restart = ?keys, "not reloaded: these need a restart, and the rest waits for it");
        }
    }
}

fn answer(became: Became) -> Result<serde_json::Value, CommandError> {
    match became {
        Became::Unchanged => Ok(json!({ "reloaded": false, "why": "nothing has changed" })),
        Became::Applied { listeners, .. } => Ok(json!({ "reloaded": true, "replaced": listeners })),
        Became::Refused(problems) => {
            Err(CommandError::Conflict(format!("what was in force stays: {}", problems.join("; "))))
        }
        Became::NeedsRestart(keys) => {
            Err(CommandError::Conflict(format!("these need a restart, and the rest waits for it: {}", keys.join(", "))))
        }
    }
}

/// What every listener of a configuration needs for its sessions and its signed stamps. Blocks on the disk.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub fn trust(config: &Config, now: jiff::Timestamp) -> Result<Vec<Trust>, Vec<tls::Problem>> {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for listener in &config.listeners {
        let sides = tls::load(listener, now).map_err(|found| problems.extend(found));
        let keys = listener.signatures.as_ref().map(Keys::load).transpose().map_err(|found| {
            let problem = |found: KeyProblem| tls::Problem {
                what: format!(
                    "listener {}: the key '{}' in {}: {}",
                    listener.name,
                    found.kid,
                    found.file.display(),
                    found.what
                ),
                help: found.help.to_owned(),
            };
            problems.extend(found.into_iter().map(problem));
        });
        if let (Ok(sides), Ok(keys)) = (sides, keys) {
            all.push((sides, keys));
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

/// Every file that these configurations are read from.
fn files(origin: &Origin, configs: &[&Config]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = origin.overrides.config.iter().cloned().collect();
    for listener in configs.iter().flat_map(|config| &config.listeners) {
        if let Some(tls) = &listener.tls {
            files.extend([tls.pair.cert.clone(), tls.pair.key.clone()]);
            files.extend(tls.client_ca.clone());
        }
        if let Some(tls) = &listener.upstream.tls {
            files.push(tls.ca.clone());
            files.extend(tls.pair.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]));
        }
        files.extend(listener.signatures.iter().flat_map(|signatures| &signatures.keys).map(|key| key.file.clone()));
    }
    files.sort_unstable();
    files.dedup();
    files
}

/// What files say, as one number. One that cannot be read says nothing.
fn content(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        Zeroizing::new(std::fs::read(file).unwrap_or_default()).hash(&mut hasher);
    }
    hasher.finish()
}
