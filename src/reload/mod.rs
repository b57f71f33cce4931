//! Reading the configuration, certificates and keys again: on SIGHUP, when an operator asks, and when a file is another.
//!
//! Files are looked at, not watched: what a watch sees is the link that Kubernetes swaps (`..data`), or an editor's
//! renaming, and what counts is the content. All that is new is checked whole before any of it is used; where anything is
//! wrong, everything stays as it was. A change of which a part needs a restart is not taken in part either: its other parts
//! were checked together with that one (an upstream's timeout with the quarantine, for one). Certificates and keys of what is in
//! force do not wait for that.
//!
//! [`plan`] says which changes need a restart. One thread does all of it, so that a disk that hangs stops nobody who serves.

mod plan;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::json;
use zeroize::Zeroizing;

use crate::admin::CommandError;
use crate::clock::Clock;
use crate::config::resolved::{CoordinatorKind, EtcdTls};
use crate::config::{Config, Loaded, Overrides, Problem, Single};
use crate::control::{Handle, Wish};
use crate::mailbox::Renewal;
use crate::metrics::{Metrics, ReloadOutcome};
use crate::signing::{KeyProblem, Keys};
use crate::tls::{self, Expiry};
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

/// Certificates that end sooner are warned of...
const SOON_HOURS: i64 = 14 * 24;
/// ...so often.
const WARN_EVERY: Duration = Duration::from_secs(12 * 3600);

/// What becomes of a wish.
enum Became {
    Unchanged,
    Applied { listeners: Vec<Arc<str>>, warnings: Vec<Problem> },
    Refused(Vec<String>),
    NeedsRestart(Vec<String>),
}

impl Became {
    /// What keeps it from being in force.
    fn trouble(&self) -> Option<Vec<String>> {
        match self {
            Became::Unchanged | Became::Applied { .. } => None,
            Became::Refused(why) | Became::NeedsRestart(why) => Some(why.clone()),
        }
    }
}

/// Reads the files again, as often as it is worth it.
pub struct Reloader {
    origin: Origin,
    config: Arc<Config>,
    /// The files that are looked at: those in force, and those that were tried last.
    files: Vec<PathBuf>,
    /// What all of them said when they were tried last.
    tried: u64,
    /// What was said of that, where it is not in force: it is tried again at every look, as time may mend it.
    trouble: Option<Vec<String>>,
    /// What ends when.
    expiries: Vec<(Arc<str>, Expiry)>,
    warned: Option<Instant>,
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
        let expiries =
            trust(&config, clock.wall()).map(|trust| expiries(&config, &trust, clock.wall())).unwrap_or_default();
        let (tried, metrics) = (content(&files), Arc::downgrade(metrics));
        let reloader =
            Reloader { origin, config, files, tried, trouble: None, expiries, warned: None, handle, metrics, clock };
        reloader.show();
        reloader
    }

    /// Serves wishes, and looks at the files by itself, until nobody is left to wish.
    pub fn run(mut self, wishes: &mpsc::Receiver<Wish>) {
        loop {
            match wishes.recv_timeout(LOOK_EVERY) {
                Ok(Wish::Signal) => drop(self.again_and_say(true)),
                Ok(Wish::Command(reply)) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(answer(self.again_and_say(true)));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.trouble.is_some() || content(&self.files) != self.tried {
                        drop(self.again_and_say(false));
                    }
                    self.warn_of_ends();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Says, twice a day, which certificates end soon.
    fn warn_of_ends(&mut self) {
        if self.warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        self.warned = Some(Instant::now());
        let now = self.clock.wall();
        for (whose, expiry) in &self.expiries {
            let hours = expiry.until.duration_since(now).as_hours();
            if hours < SOON_HOURS {
                let (usage, until) = (expiry.usage.as_str(), expiry.until);
                tracing::warn!(%whose, usage, %until, "a certificate ends in {hours} h: renew it, it is taken up without a restart");
            }
        }
    }

    /// Reads them, and says what came of it: always where somebody asked, else where it is not what was said last.
    fn again_and_say(&mut self, asked: bool) -> Became {
        let before = self.trouble.take();
        let became = self.again(before.is_some());
        self.trouble = became.trouble();
        let outcome = match &became {
            Became::Unchanged => {
                if asked {
                    say(&became);
                }
                return became;
            }
            Became::Applied { .. } => ReloadOutcome::Applied,
            Became::Refused(_) => ReloadOutcome::Refused,
            Became::NeedsRestart(_) => ReloadOutcome::NeedsRestart,
        };
        if asked || self.trouble.is_none() || self.trouble != before {
            say(&became);
            if let Some(metrics) = self.metrics.upgrade() {
                metrics.reloaded(outcome);
            }
        }
        became
    }

    /// `troubled`: what was read last is not in force.
    fn again(&mut self, troubled: bool) -> Became {
        let written_meanwhile = || Became::Refused(vec!["the files were written while they were read".to_owned()]);
        let own: Vec<PathBuf> = self.origin.overrides.config.iter().cloned().collect();
        let before = content(&own);
        let loaded = self.origin.load();
        if content(&own) != before {
            // The next look reads it whole.
            return written_meanwhile();
        }
        if let Ok(loaded) = &loaded {
            self.files = files(&self.origin, &[&self.config, &loaded.config]);
        }
        let now_tried = content(&self.files);
        let changed = std::mem::replace(&mut self.tried, now_tried) != now_tried;
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.renew_what_is_in_force(changed);
                return Became::Refused(problems.iter().map(ToString::to_string).collect());
            }
        };
        let new = loaded.config;
        let needs_restart = plan::needs_restart(&self.config, &new);
        if !needs_restart.is_empty() {
            self.renew_what_is_in_force(changed);
            return Became::NeedsRestart(needs_restart);
        }
        let trust = match trust(&new, self.clock.wall()) {
            Ok(trust) => trust,
            Err(problems) => return Became::Refused(problems.iter().map(ToString::to_string).collect()),
        };
        if content(&self.files) != now_tried {
            return written_meanwhile();
        }
        if !changed && !troubled && new == *self.config {
            return Became::Unchanged;
        }
        self.apply(new, trust, loaded.warnings)
    }

    /// Certificates and keys of the configuration in force do not wait until a file is mended, or a restart comes.
    fn renew_what_is_in_force(&mut self, changed: bool) {
        let now = self.clock.wall();
        let Ok(trust) = trust(&self.config, now) else { return };
        if changed || expiries(&self.config, &trust, now) != self.expiries {
            self.apply(Config::clone(&self.config), trust, Vec::new());
        }
    }

    fn show(&self) {
        if let Some(metrics) = self.metrics.upgrade() {
            self.expiries
                .iter()
                .for_each(|(whose, expiry)| metrics.show_certificates(whose, std::slice::from_ref(expiry)));
        }
    }

    fn apply(&mut self, new: Config, trust: Vec<Trust>, warnings: Vec<Problem>) -> Became {
        if new.log.level != self.config.log.level {
            self.handle.set_log_level(new.log.level);
        }
        let expiries = expiries(&new, &trust, self.clock.wall());
        if std::mem::replace(&mut self.expiries, expiries.clone()) != expiries {
            self.warned = None;
        }
        self.show();
        let renewals = new.listeners.iter().zip(trust).zip(&self.config.listeners).enumerate().map(
            |(place, ((listener, (sides, signatures)), before))| Renewal {
                place,
                listener: Arc::clone(listener),
                sides,
                signatures,
                replaced: listener != before,
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

/// Which certificates end when, those for etcd too.
fn expiries(config: &Config, trust: &[Trust], now: jiff::Timestamp) -> Vec<(Arc<str>, Expiry)> {
    let of_listeners =
        config.listeners.iter().zip(trust).flat_map(|(listener, (sides, _))| {
            sides.expiries.iter().map(|expiry| (Arc::clone(&listener.name), *expiry))
        });
    let of_etcd = etcd_tls(config).and_then(|tls| tls::look_at_etcd(tls, now).ok()).unwrap_or_default();
    of_etcd.into_iter().map(|expiry| (Arc::from("coordinator"), expiry)).chain(of_listeners).collect()
}

fn etcd_tls(config: &Config) -> Option<&EtcdTls> {
    match &config.coordinator.kind {
        CoordinatorKind::Etcd(etcd) => etcd.tls.as_ref(),
        CoordinatorKind::Embedded(_) => None,
    }
}

/// Every file that these configurations are read from.
fn files(origin: &Origin, configs: &[&Config]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = origin.overrides.config.iter().cloned().collect();
    for tls in configs.iter().filter_map(|config| etcd_tls(config)) {
        files.extend([&tls.ca, &tls.cert, &tls.key].into_iter().flatten().cloned());
    }
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
