//! One process of ours on a host of its own: started, killed, stopped, paused, asked.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::etcd::Host;
use crate::support::process::{Launch, Process};

/// A guard or a stamp.
pub struct Node {
    /// Its id, and the name of its host.
    pub id: String,
    /// Where its listener listens.
    pub address: SocketAddr,
    /// The process; none before its first start.
    pub process: Option<Process>,
    /// Its state directory.
    pub state: PathBuf,
    host: Host,
    folder: PathBuf,
    /// Mechanisms that are taken out of it.
    pub without: &'static str,
}

/// What a node's configuration says that is its own.
pub struct Settings<'a> {
    /// Its id.
    pub id: &'a str,
    /// Where it lives.
    pub host: Host,
    /// Where its listener listens.
    pub address: SocketAddr,
    /// The lines of the listener.
    pub listener: Vec<String>,
    /// More lines at the top.
    pub top: Vec<String>,
}

impl Node {
    /// Writes its configuration into a folder of its own below `below`; starts nothing.
    pub fn prepare(below: &Path, settings: Settings<'_>) -> Node {
        let Settings { id, host, address, listener, top } = settings;
        let folder = below.join(id);
        let state = folder.join("state");
        fs::create_dir_all(&state).expect("it is in a temporary folder");
        let place = folder.display();
        let own = [
            format!("id: {id}"),
            format!("state_dir: {}", state.display()),
            format!("history: {place}/{id}.jsonl"),
            format!("audit: {{ output: {place}/audit.jsonl }}"),
            format!("admin: {{ listen: null, socket: {place}/admin }}"),
            "resources: { orders: {} }".to_owned(),
            "log: { format: text, level: info }".to_owned(),
            "workers: 2".to_owned(),
        ];
        let lines: Vec<String> = own.into_iter().chain(top).collect();
        let listener = [format!("listen: {address}"), "resource: orders".to_owned()].into_iter().chain(listener);
        let listener: Vec<String> = listener.collect();
        let text = format!("{}\nlisteners:\n  - {}\n", lines.join("\n"), listener.join("\n    "));
        fs::write(folder.join("epochgate.yaml"), text).expect("the folder was just made");
        Node { id: id.to_owned(), address, process: None, state, host, folder, without: "" }
    }

    /// Starts it, with more variables; whether it comes up is another matter.
    pub fn start(&mut self, variables: &[(&str, &str)]) {
        let mut launch = Launch::epochgate(&self.id).args(["run", "-c"]).arg(self.folder.join("epochgate.yaml"));
        launch = launch.env("EPOCHGATE_DANGER_DISK", self.ailment());
        launch = launch.env("EPOCHGATE_DANGER_WITHOUT", self.without);
        for (key, value) in variables {
            launch = launch.env(key, value);
        }
        if let Some(namespace) = &self.host.namespace {
            launch = launch.inside(namespace);
        }
        self.process = Some(launch.start());
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process
            && process.is_running()
        {
            process.kill();
        }
    }

    /// SIGTERM; false where it did not end in order, and why.
    pub fn stop(&mut self, limit: Duration) -> Result<(), String> {
        let Some(process) = &mut self.process else { return Ok(()) };
        if !process.is_running() {
            return Ok(());
        }
        process.terminate();
        let status = process.wait(limit);
        // Before its first words it has not come to catch the signal.
        let too_early = !process.has_said(" started ") && status.signal() == Some(15);
        let in_order = status.success() || too_early;
        if in_order { Ok(()) } else { Err(format!("{} was told to stop and ended with {status}", self.id)) }
    }

    /// The file that says what ails its disk.
    pub fn ailment(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// Its histories: the present one, and those of the doors that it was before.
    pub fn histories(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.folder).expect("it was made at the start").flatten().map(|entry| entry.path());
        let named = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with(&self.id) && name.ends_with(".jsonl")
        };
        files.filter(named).collect()
    }

    /// From its next start on it writes another history.
    pub fn bury_history(&self) {
        let number = self.histories().len();
        let buried = self.folder.join(format!("{}-lost-{number}.jsonl", self.id));
        // There is none where it never came to write one.
        let _ = fs::rename(self.folder.join(format!("{}.jsonl", self.id)), buried);
    }

    /// Where everything of it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What its status says; null where it does not answer.
    pub fn status(&self) -> Value {
        self.ask("GET", "/api/v1/status").map_or(Value::Null, |(_, body)| body)
    }

    /// Whether its own writer leads, by its own word.
    pub fn leads(&self) -> bool {
        self.status()["resources"][0]["standing"]["leads"] == true
    }

    /// The stamp of its writer, where that leads and is armed.
    pub fn stamp(&self) -> Option<String> {
        stamp_of(&self.folder)
    }

    /// Asks its admin side; none where it does not answer soon.
    pub fn ask(&self, method: &str, path: &str) -> Option<(u16, Value)> {
        exchange(&self.folder, method, path).ok()
    }
}

/// The stamp of the writer whose sidecar's folder this is, where that leads and is armed.
pub fn stamp_of(folder: &Path) -> Option<String> {
    let (status, body) = exchange(folder, "GET", "/leader?resource=orders").ok()?;
    (status == 200).then(|| body["stamp"].as_str().map(str::to_owned)).flatten()
}

fn exchange(folder: &Path, method: &str, path: &str) -> io::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(folder.join("admin"))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or_else(bad)?;
    Ok((status, serde_json::from_str(body.trim()).unwrap_or(Value::Null)))
}
