//! Real epochgate processes, one listener each, from a configuration file: a guard before a target, a stamp beside a
//! writer. Their times are short, so that a failover takes seconds.
//!
//! The resource is always `orders`. A test adds what it is about with [`Setup::listener`] and [`Setup::top`].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::client::{self, Answer};
use super::etcd::Etcd;
use super::ports;
use super::process::{LONG, Launch, Process, eventually, eventually_some};

/// How long a lease lives, where a test does not say otherwise.
pub const TTL: Duration = Duration::from_secs(2);
/// How long a guard waits for what it cannot know the end of.
pub const QUARANTINE: Duration = Duration::from_secs(2);

/// A configuration to be.
pub struct Setup {
    id: String,
    role: &'static str,
    etcd: String,
    upstream: String,
    listener: Vec<String>,
    top: Vec<String>,
}

/// A guard before `upstream`. Its id is the first part of its door's id.
pub fn guard(id: &str, etcd: &str, upstream: &str) -> Setup {
    let setup = Setup::new(id, "guard", etcd, upstream);
    // The target is named by hand: two guards before one target need one name for it.
    let short = upstream_times("1s", "1s");
    let drain = format!("drain: {{ timeout: 500ms, quarantine: {}ms }}", QUARANTINE.as_millis());
    setup.listener(&short).listener("target: orders").top(&drain)
}

/// A stamp beside the writer `id`, in front of a guard.
pub fn stamp(id: &str, etcd: &str, guard: SocketAddr) -> Setup {
    Setup::new(id, "stamp", etcd, &format!("http://{guard}"))
}

/// A line for [`Setup::listener`]; the quarantine may not be shorter than the two together.
pub fn upstream_times(response: &str, send: &str) -> String {
    format!("upstream: {{ url: \"@UPSTREAM@\", response_timeout: {response}, send_timeout: {send} }}")
}

impl Setup {
    fn new(id: &str, role: &'static str, etcd: &str, upstream: &str) -> Setup {
        let (id, etcd, upstream) = (id.to_owned(), etcd.to_owned(), upstream.to_owned());
        Setup { id, role, etcd, upstream, listener: Vec::new(), top: Vec::new() }
    }

    /// What it speaks, where that is not HTTP; a stamp's guard speaks it too.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Setup {
        self.upstream = self.upstream.replacen("http://", &format!("{protocol}://"), 1);
        self.listener(&format!("protocol: {protocol}"))
    }

    /// One more key of the listener, as in the file: `on_coordinator_loss: close`. A later one of a key replaces an
    /// earlier one.
    #[must_use]
    pub fn listener(mut self, line: &str) -> Setup {
        replace(&mut self.listener, line);
        self
    }

    /// One more key at the top: `drain: { timeout: 1s, quarantine: 3s }`.
    #[must_use]
    pub fn top(mut self, line: &str) -> Setup {
        replace(&mut self.top, line);
        self
    }

    /// Starts it in a fresh folder, and waits until its admin side answers.
    #[track_caller]
    pub fn start(self) -> Sidecar {
        let mut sidecar = self.prepare();
        sidecar.start();
        sidecar
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(self) -> Sidecar {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (address, admin) = (ports::free_address(), ports::free_address());
        let text = self.text(folder.path(), address, admin);
        let config = folder.path().join("epochgate.yaml");
        fs::write(&config, text).expect("the folder was just made");
        let (Setup { id, .. }, process) = (self, None);
        Sidecar { id, address, admin, config, folder, process }
    }

    fn text(&self, folder: &Path, address: SocketAddr, admin: SocketAddr) -> String {
        let Setup { id, role, etcd, upstream, .. } = self;
        let place = folder.display();
        let lease = format!("lease_ttl: {}s, verify_every: 250ms", TTL.as_secs());
        let mut top = vec![
            format!("id: {id}"),
            format!("state_dir: {place}/state"),
            format!("history: {place}/history.jsonl"),
            format!("coordinator: {{ etcd: {{ endpoints: [\"{etcd}\"] }}, {lease} }}"),
            "resources: { orders: {} }".to_owned(),
            format!("admin: {{ listen: {admin} }}"),
            format!("audit: {{ output: {place}/audit.jsonl }}"),
            "log: { format: text, level: info }".to_owned(),
            "workers: 2".to_owned(),
        ];
        self.top.iter().for_each(|line| replace(&mut top, line));
        let mut listener = vec![format!("name: {role}"), format!("role: {role}"), "protocol: http".to_owned()];
        listener.extend([format!("listen: {address}"), "resource: orders".to_owned()]);
        listener.push("upstream: { url: \"@UPSTREAM@\" }".to_owned());
        self.listener.iter().for_each(|line| replace(&mut listener, line));
        let text = format!("{}\nlisteners:\n  - {}\n", top.join("\n"), listener.join("\n    "));
        text.replace("@UPSTREAM@", upstream)
    }
}

/// Puts a line, in the place of the one with the same key.
fn replace(lines: &mut Vec<String>, line: &str) {
    let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    lines.retain(|other| key(other) != key(line));
    lines.push(line.to_owned());
}

/// One process of ours: running, or stopped and able to start again with what it had on disk.
pub struct Sidecar {
    /// Its id.
    pub id: String,
    /// Where its listener listens.
    pub address: SocketAddr,
    /// Where its admin side listens.
    pub admin: SocketAddr,
    config: PathBuf,
    folder: tempfile::TempDir,
    process: Option<Process>,
}

impl Sidecar {
    /// Starts it, again if it has ended, and waits until its admin side answers.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_by(self.launch());
    }

    /// The same with a launch that ends up as this process.
    #[track_caller]
    pub fn start_by(&mut self, launch: Launch) {
        assert!(self.process.as_mut().is_none_or(|process| !process.is_running()), "{} runs already", self.id);
        let process = self.process.insert(launch.start());
        eventually(&format!("{} is there", self.id), LONG, || {
            assert!(process.is_running(), "{} ended at its start", process.recent());
            client::get(self.admin, "/livez").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// What starts it.
    pub fn launch(&self) -> Launch {
        Launch::epochgate(&self.id).args(["run", "-c"]).arg(&self.config)
    }

    /// The process.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Its door's id.
    #[track_caller]
    pub fn door(&self) -> String {
        let path = self.state_dir().join("door");
        let door = eventually_some("the door's id is written", LONG, || fs::read_to_string(&path).ok());
        door.trim_end().to_owned()
    }

    /// A write through its listener, on a connection of its own.
    #[track_caller]
    pub fn put(&self, path: &str, body: &str) -> Answer {
        client::put(self.address, path, body).unwrap_or_else(|error| panic!("{} gives no answer: {error}", self.id))
    }

    /// A write with this stamp.
    #[track_caller]
    pub fn put_stamped(&self, path: &str, body: &str, stamp: &str) -> Answer {
        let answer = client::request(self.address, "PUT", path, &[("Fencing-Epoch", stamp)], body.as_bytes());
        answer.unwrap_or_else(|error| panic!("{} gives no answer: {error}", self.id))
    }

    /// What `/leader` says.
    #[track_caller]
    pub fn leader(&self) -> Answer {
        self.ask("/leader?resource=orders")
    }

    /// Whether it leads and is armed.
    #[track_caller]
    pub fn leads(&self) -> bool {
        self.leader().status == 200
    }

    /// Waits until it leads and is armed; returns its stamp.
    #[track_caller]
    pub fn await_leadership(&self) -> String {
        eventually_some(&format!("{} leads and is armed", self.id), LONG, || {
            let leader = self.leader();
            (leader.status == 200).then(|| text(&leader.json()["stamp"]))
        })
    }

    /// What `status` says of the resource.
    #[track_caller]
    pub fn resource(&self) -> Value {
        self.ask("/api/v1/status").json()["resources"][0].clone()
    }

    /// The gate's phase, by `status`.
    #[track_caller]
    pub fn phase(&self) -> String {
        text(&self.resource()["gate"]["phase"])
    }

    /// Waits for a phase.
    #[track_caller]
    pub fn await_phase(&self, phase: &str) {
        eventually(&format!("{} is {phase}", self.id), LONG, || self.phase() == phase);
    }

    /// `/readyz?verbose`.
    #[track_caller]
    pub fn readiness(&self) -> Answer {
        self.ask("/readyz?verbose")
    }

    /// One series of `/metrics`, as it is written: `epochgate_coordinator_up`.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.ask("/metrics").text();
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no series {series} in:\n{text}"))
    }

    /// Its history's file.
    pub fn history_file(&self) -> PathBuf {
        self.folder.path().join("history.jsonl")
    }

    /// Every event of that name in its history so far.
    #[track_caller]
    pub fn history(&self, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.history_file()).unwrap_or_default();
        // The last line may not be whole yet.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let events = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
        events.filter(|recorded| recorded["event"] == event).collect()
    }

    /// Runs a command of the operator's against its admin side.
    #[track_caller]
    pub fn operate(&self, args: &[&str]) -> Process {
        Launch::epochgate("operator").args(args).arg("--admin").arg(self.admin.to_string()).run(LONG)
    }

    #[track_caller]
    fn ask(&self, path: &str) -> Answer {
        client::get(self.admin, path).unwrap_or_else(|error| panic!("{}'s admin side: {error}", self.id))
    }
}

/// A JSON string as text; empty where it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The epoch that a stamp begins with.
pub fn epoch_of(stamp: &str) -> u64 {
    let digits = stamp.split(';').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no stamp: {stamp}"))
}

/// Starts an etcd, or does something else with one, from a test that is not async.
pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// A running etcd.
pub fn etcd() -> Etcd {
    wait_for(Etcd::start())
}

/// Asserts that an answer is a refusal with this status, reason and outcome, and returns its body.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, reasons: &[&str], outcome: &str) -> Value {
    let body = answer.text();
    assert_eq!(answer.status, status, "{body}");
    assert!(answer.refused().is_some_and(|reason| reasons.contains(&reason)), "{:?}: {body}", answer.refused());
    let body = answer.json();
    assert_eq!(body["outcome"], outcome, "{body}");
    body
}
