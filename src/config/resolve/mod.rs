//! From what is written to what the program uses. Every problem is reported, with its place; nothing stops at the
//! first.

mod coordinator;
mod listeners;
mod resources;
mod rules;
mod sessions;
mod signatures;
mod trust;

pub(super) use listeners::Placed;
pub(super) use resources::Listed;

use std::path::PathBuf;
use std::sync::Arc;

use super::problem::{KeyPath, Place, Report};
use super::raw::{self, LogFormat, LogLevel};
use super::resolved::{self, Admin, Audit, Config, Hold, Lapsed, Log, StepDown};
use super::surroundings::Surroundings;
use super::tree::{Content, Node};
use super::{times, warnings};

/// What all steps share.
pub(super) struct Resolver<'a> {
    /// The checked tree, for places, and for what is written at all.
    pub(super) tree: &'a Node,
    pub(super) problems: Report,
    pub(super) warnings: Report,
}

impl Resolver<'_> {
    /// Reports a problem at `path`, or at the nearest that is written of what it stands in.
    pub(super) fn problem(&mut self, path: &KeyPath, what: impl Into<String>, help: impl Into<String>) {
        let place = if self.problems.is_full() { Place::Whole } else { self.tree.nearest(path) };
        self.problems.add(place, path, what, help);
    }

    /// Reports a problem of the key itself that `path` ends with.
    pub(super) fn problem_of_key(&mut self, path: &KeyPath, what: impl Into<String>, help: impl Into<String>) {
        let place = if self.problems.is_full() { Place::Whole } else { self.tree.nearest_key(path) };
        self.problems.add(place, path, what, help);
    }

    /// Warns of something at `path`.
    pub(super) fn warning(&mut self, path: &KeyPath, what: impl Into<String>, help: impl Into<String>) {
        let place = if self.warnings.is_full() { Place::Whole } else { self.tree.nearest(path) };
        self.warnings.add(place, path, what, help);
    }

    /// Whether something is written at `path`. An empty value is nothing.
    pub(super) fn written(&self, path: &KeyPath) -> bool {
        self.tree.at(path).is_some_and(|node| node.content != Content::Null)
    }
}

/// What the caller says besides the file.
pub(super) struct Beside<'a> {
    pub(super) surroundings: &'a Surroundings,
    pub(super) adopt_floor: bool,
    /// Whether it is right that there is no listener.
    pub(super) without_listeners: bool,
}

/// Makes the configuration of a checked file; `None` where something that is needed is not there. It is right only
/// where no problem was reported.
pub(super) fn resolve(file: &raw::File, beside: &Beside<'_>, resolver: &mut Resolver<'_>) -> Option<Config> {
    let root = KeyPath::root();
    let id = file.id.as_ref().map(|id| id.value.clone()).or_else(|| beside.surroundings.id());
    if id.is_none() && !resolver.written(&root.key("id")) {
        resolver.problem(
            &root.key("id"),
            "there is no id, and the host's name makes none",
            "add id: orders-a, or --id orders-a",
        );
    }
    let state_dir = state_dir(file, beside.surroundings, resolver);
    let coordinator = coordinator::resolve(&file.coordinator, resolver);
    let listed = resources::resolve(file, resolver);
    let listeners = listeners::resolve(file, &listed, beside.without_listeners, resolver);
    addresses_differ(file, &listeners, resolver);
    times::check(file, &listeners, &listed, resolver);
    warnings::warn(file, &listeners, &listed, resolver);
    Some(Config {
        id: id?,
        state_dir: state_dir?,
        adopt_floor: beside.adopt_floor,
        header: file.header.value.as_str().into(),
        coordinator: coordinator?,
        clock: resolved::ClockTrust { max_drift: file.clock.max_drift, margin: file.clock.margin.value },
        resources: listed.resources,
        listeners: listeners.into_iter().map(|listener| Arc::new(listener.listener)).collect(),
        lapsed: match file.doors.lapsed {
            raw::Lapsed::Wait => Lapsed::Wait,
            raw::Lapsed::Hold => Lapsed::Hold,
        },
        hold: Hold {
            requests: file.hold.requests as usize,
            bytes: file.hold.bytes.value,
            timeout: file.hold.timeout.value,
        },
        step_down: StepDown { timeout: file.step_down.timeout.value, pause: file.step_down.pause.value },
        shutdown_grace: file.shutdown.grace.value,
        admin: Admin {
            listen: file.admin.listen.as_ref().map(|listen| listen.value),
            socket: file.admin.socket.as_ref().map(|path| path.value.clone()),
        },
        audit: Audit { output: file.audit.output.value.clone(), queue: file.audit.queue as usize },
        history: file.history.as_ref().map(|path| path.value.clone()),
        log: log(&file.log),
        workers: match file.workers.value {
            raw::Workers::Auto => beside.surroundings.workers(),
            raw::Workers::Number(workers) => workers,
        },
    })
}

fn state_dir(file: &raw::File, surroundings: &Surroundings, resolver: &mut Resolver<'_>) -> Option<PathBuf> {
    let path = KeyPath::root().key("state_dir");
    let state_dir = file.state_dir.as_ref().map(|path| path.value.clone()).or_else(|| surroundings.state_dir());
    if state_dir.is_none() && !resolver.written(&path) {
        let help = "add state_dir: /var/lib/epochgate, or --state-dir";
        resolver.problem(&path, "there is no folder for floor files: neither $STATE_DIRECTORY nor $HOME is set", help);
    }
    state_dir
}

fn log(log: &raw::Log) -> Log {
    Log {
        format: match log.format {
            LogFormat::Auto => resolved::LogFormat::Auto,
            LogFormat::Text => resolved::LogFormat::Text,
            LogFormat::Json => resolved::LogFormat::Json,
        },
        level: match log.level {
            LogLevel::Error => tracing::Level::ERROR,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Trace => tracing::Level::TRACE,
        },
    }
}

/// No two of the process listen at the same place. Port 0 is a port of one's own.
fn addresses_differ(file: &raw::File, listeners: &[listeners::Placed], resolver: &mut Resolver<'_>) {
    let root = KeyPath::root();
    let of_listeners = listeners.iter().filter_map(|placed| match placed.listener.listen {
        resolved::ListenAt::Tcp(address) => Some((placed.path.key("listen"), address)),
        resolved::ListenAt::Unix(_) => None,
    });
    let of_admin = file.admin.listen.as_ref().map(|listen| (root.key("admin").key("listen"), listen.value));
    let all: Vec<_> = of_listeners.chain(of_admin).filter(|(_, address)| address.port() != 0).collect();
    for (at, (path, address)) in all.iter().enumerate() {
        let meets = |other: &std::net::SocketAddr| {
            other.port() == address.port()
                && (other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified())
        };
        if let Some((other, other_address)) = all[..at].iter().find(|(_, other)| meets(other)) {
            let what = format!("{path}: {address} is taken already by {other} ({other_address})");
            resolver.problem(path, what, "choose another port");
        }
    }
    sockets_differ(file, listeners, resolver);
}

fn sockets_differ(file: &raw::File, listeners: &[listeners::Placed], resolver: &mut Resolver<'_>) {
    let of_admin = file.admin.socket.as_ref().map(|path| (KeyPath::root().key("admin").key("socket"), &path.value));
    let of_listeners = listeners.iter().filter_map(|placed| match &placed.listener.listen {
        resolved::ListenAt::Unix(socket) => Some((placed.path.key("listen"), socket)),
        resolved::ListenAt::Tcp(_) => None,
    });
    let all: Vec<_> = of_admin.into_iter().chain(of_listeners).collect();
    for (at, (path, socket)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..at].iter().find(|(_, other)| other == socket) {
            let what = format!("{path}: {} is taken already by {other}", socket.display());
            resolver.problem(path, what, "choose another path");
        }
    }
}
