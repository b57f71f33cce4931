//! A real Redis for a test: on a free port of 127.0.0.1, in a fresh folder, ended with its owner.

use std::net::SocketAddr;
use std::path::Path;

use super::ports;
use super::process::{LONG, Launch, Process, eventually};

/// A server, running or stopped.
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    settings: Vec<String>,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Starts one that keeps everything in memory only, and waits until it serves.
    #[track_caller]
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// With settings as in `redis.conf`: `("appendonly", "yes")`, `("requirepass", "secret")`.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> Redis {
        let base = [
            ("bind", "127.0.0.1"),
            ("save", ""),
            ("appendfsync", "no"),
            ("daemonize", "no"),
            ("enable-debug-command", "local"),
        ];
        let settings = base.iter().chain(settings).flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (address, settings) = (ports::free_address(), settings.collect());
        let mut redis = Redis { address, settings, process: None, folder };
        redis.begin();
        redis
    }

    /// Starts it again after [`Redis::kill`] or [`Redis::stop`], at the same address, with what it had on disk.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let launch = Launch::program("redis-server").args(["--port", &self.address.port().to_string()]);
        let process = self.process.insert(launch.arg("--dir").arg(self.folder.path()).args(&self.settings).start());
        let address = self.address;
        eventually("Redis serves", LONG, || {
            assert!(process.is_running(), "Redis ended at its start: {}", process.recent());
            // One with a password asks for it: then it serves too.
            cli(address, &["PING"]).is_ok_and(|answer| answer == "PONG" || answer.starts_with("NOAUTH"))
        });
    }

    /// SIGTERM: it writes what it is told to keep, and ends.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.terminate();
        process.wait(LONG);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: it keeps its connections and says nothing.
    #[track_caller]
    pub fn pause(&mut self) {
        self.process().pause();
    }

    /// SIGCONT.
    #[track_caller]
    pub fn resume(&mut self) {
        self.process().resume();
    }

    /// Runs one command, around every guard, and returns the answer as `redis-cli` writes it to a file.
    #[track_caller]
    pub fn cli(&self, command: &[&str]) -> String {
        cli(self.address, command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Its process.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs one command at any address: an error of the server's is an answer too (`READONLY …`), no connection is an error.
pub fn cli(address: SocketAddr, command: &[&str]) -> Result<String, String> {
    cli_launch(address).args(command).start().told()
}

/// redis-cli, which goes on with a command, or with options and then one.
pub fn cli_launch(address: SocketAddr) -> Launch {
    let launch = Launch::program("redis-cli").args(["-h", &address.ip().to_string()]);
    launch.args(["-p", &address.port().to_string()]).env_remove("REDISCLI_AUTH")
}
