//! A target, a coordinator, and what stands between them: guards and stamps as real processes with short times, killed
//! and started again where they stood, with some of the fence taken out where the test says so.
//!
//! The resource is `orders`, and so is the target. Elections are the test's own ([`Elector`]) unless it starts stamps.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use epochgate::fence::Term;
use epochgate::verify::{Line, Verdict};
use serde_json::Value;

use super::client::{self, Answer};
use super::etcd::Etcd;
use super::history;
use super::ports;
use super::process::{LONG, Launch, Process, eventually, eventually_some};
use super::terms::{Elector, stamp};
use super::upstream::Upstream;

/// How long a hasty guard ([`Plan::hasty`]) waits for what it cannot know the end of. A test has this long to let a
/// lost write land: what takes longer is outside the guarantee.
pub const QUARANTINE: Duration = Duration::from_secs(4);

/// Everything but the sidecars. Declare it before them: they go first.
pub struct World {
    /// The target.
    pub upstream: Upstream,
    /// Who elects.
    pub terms: Elector,
    /// The etcd, where it is this world's own.
    pub etcd: Option<Etcd>,
    coordinator: String,
    folder: tempfile::TempDir,
}

impl World {
    /// On the embedded coordinator.
    pub fn embedded() -> World {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("epochs");
        let coordinator = format!("embedded: {}", path.display());
        World { upstream: Upstream::start(), terms: Elector::embedded(&path), etcd: None, coordinator, folder }
    }

    /// On an etcd of its own.
    pub fn etcd() -> World {
        let etcd = start_etcd();
        let mut world = World::on(&etcd, "/epochgate/v1/");
        world.etcd = Some(etcd);
        world
    }

    /// On an etcd that other worlds use too, under a prefix of its own.
    pub fn on(etcd: &Etcd, prefix: &str) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let coordinator = format!("etcd: {{ endpoints: [\"{}\"] }}, prefix: {prefix}", etcd.url());
        let terms = Elector::etcd(etcd.url(), prefix);
        World { upstream: Upstream::start(), terms, etcd: None, coordinator, folder }
    }

    /// A guard to be. It waits for the target longer than any test lets it.
    pub fn guard(&self, id: &str) -> Plan {
        let mut plan =
            self.plan(id, "guard").listener("target: orders").top("drain: { timeout: 500ms, quarantine: 90s }");
        plan.upstream = self.upstream.url();
        plan.upstream_times("80s", "10s")
    }

    /// A stamp to be, in front of a guard.
    pub fn stamp(&self, id: &str, guard: SocketAddr) -> Plan {
        let mut plan = self.plan(id, "stamp").top("step_down: { timeout: 100ms, pause: 60s }");
        plan.upstream = format!("http://{guard}");
        plan.upstream_times("90s", "10s")
    }

    /// Moves the epoch on: the next term, and its stamp.
    #[track_caller]
    pub fn elect(&mut self, writer: &str) -> (Term, String) {
        let term = self.terms.elect(writer);
        let stamp = stamp(&term);
        (term, stamp)
    }

    /// Waits until so many requests for `path` have come to the target, so that nothing of them is on its way any more.
    #[track_caller]
    pub fn await_arrival(&self, path: &str) {
        eventually(&format!("{path} is at the target"), LONG, || self.has_arrived(path));
    }

    /// Whether a request for `path` has come to the target.
    pub fn has_arrived(&self, path: &str) -> bool {
        self.upstream.arrived().iter().any(|arrived| arrived.path == path)
    }

    /// The line of a configuration that names this world's coordinator.
    pub fn coordinator(&self) -> String {
        format!("coordinator: {{ {}, lease_ttl: 2s, verify_every: 250ms }}", self.coordinator)
    }

    /// The paths of the applied writes, in order.
    pub fn applied(&self) -> Vec<String> {
        self.upstream.applied().into_iter().map(|write| write.head.path).collect()
    }

    /// What the processes recorded so far, and what the target applied: no rule was broken.
    #[track_caller]
    pub fn assert_rules_kept(&self) -> Verdict {
        history::assert_rules_kept(&self.history())
    }

    /// What the processes recorded so far, and what the target applied.
    pub fn history(&self) -> Vec<Line> {
        let entries = fs::read_dir(self.folder.path()).expect("the folder is there").flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
        let mut lines = history::of_files(files);
        lines.extend(history::of_target("orders", "orders", &self.upstream.applied()));
        lines
    }

    /// Waits until the write to `path` is applied.
    #[track_caller]
    pub fn await_applied(&self, path: &str) {
        eventually(&format!("{path} is applied"), LONG, || self.applied().iter().any(|applied| applied == path));
    }

    fn plan(&self, id: &str, role: &'static str) -> Plan {
        let folder = self.folder.path().join(id);
        fs::create_dir_all(&folder).expect("it is in a temporary folder");
        let place = folder.display();
        let top = vec![
            format!("id: {id}"),
            format!("state_dir: {place}/state"),
            format!("history: {}", self.folder.path().join(format!("{id}.jsonl")).display()),
            self.coordinator(),
            "resources: { orders: {} }".to_owned(),
            "hold: { timeout: 60s }".to_owned(),
            format!("audit: {{ output: {place}/audit.jsonl }}"),
            "log: { format: text, level: info }".to_owned(),
            "workers: 2".to_owned(),
        ];
        let listener = vec![format!("name: {role}"), format!("role: {role}"), "resource: orders".to_owned()];
        Plan { id: id.to_owned(), folder, upstream: String::new(), address: None, top, listener, variables: Vec::new() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            history::note(&self.history());
        }
    }
}

/// Starts an etcd from a test that is not async.
pub fn start_etcd() -> Etcd {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(Etcd::start())
}

/// A process to be.
pub struct Plan {
    id: String,
    folder: PathBuf,
    upstream: String,
    address: Option<SocketAddr>,
    top: Vec<String>,
    listener: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Plan {
    /// One more line of the listener: `on_coordinator_loss: close`. It replaces an earlier one of that key.
    #[must_use]
    pub fn listener(mut self, line: &str) -> Plan {
        replace(&mut self.listener, line);
        self
    }

    /// One more line at the top: `hold: { timeout: 1s }`. It replaces an earlier one of that key.
    #[must_use]
    pub fn top(mut self, line: &str) -> Plan {
        replace(&mut self.top, line);
        self
    }

    /// Listens here, in the place of one that has ended.
    #[must_use]
    pub fn in_place_of(mut self, ended: &Sidecar) -> Plan {
        self.address = Some(ended.address);
        self
    }

    /// How long it waits for its upstream.
    #[must_use]
    pub fn upstream_times(self, response: &str, send: &str) -> Plan {
        let url = &self.upstream;
        let line = format!("upstream: {{ url: \"{url}\", response_timeout: {response}, send_timeout: {send} }}");
        self.listener(&line)
    }

    /// A guard that gives up on its target after a second, and has a quarantine that a test can wait for.
    #[must_use]
    pub fn hasty(self) -> Plan {
        let drain = format!("drain: {{ timeout: 500ms, quarantine: {}ms }}", QUARANTINE.as_millis());
        self.upstream_times("1s", "1s").top(&drain)
    }

    /// Sets a variable for every start.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Plan {
        self.variables.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, and waits until its admin side answers, and a guard until it has joined its target.
    #[track_caller]
    pub fn start(self) -> Sidecar {
        let guards = self.listener.iter().any(|line| line == "role: guard");
        let mut sidecar = self.start_alone();
        if guards {
            sidecar.process().await_words("joined", LONG);
        }
        sidecar
    }

    /// Starts it, and waits until its admin side answers.
    #[track_caller]
    pub fn start_alone(self) -> Sidecar {
        let mut sidecar = self.prepare();
        sidecar.start();
        sidecar
    }

    /// Writes its configuration, and starts nothing.
    pub fn prepare(mut self) -> Sidecar {
        let (address, admin) = (self.address.unwrap_or_else(ports::free_address), ports::free_address());
        self = self.listener(&format!("listen: {address}")).top(&format!("admin: {{ listen: {admin} }}"));
        let mut text = self.top.join("\n");
        let _ = write!(text, "\nlisteners:\n  - {}\n", self.listener.join("\n    "));
        let config = self.folder.join("epochgate.yaml");
        fs::write(&config, text).expect("it is in a temporary folder");
        let Plan { id, variables, .. } = self;
        Sidecar { id, address, admin, config, variables, process: None }
    }
}

fn replace(lines: &mut Vec<String>, line: &str) {
    let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    lines.retain(|other| key(other) != key(line));
    lines.push(line.to_owned());
}

/// A write on its way: its client waits on a thread of its own.
pub type Writing = JoinHandle<std::io::Result<Answer>>;

/// One process of ours: running, or ended and able to start again with what it had on disk.
pub struct Sidecar {
    /// Its id.
    pub id: String,
    /// Where its listener listens.
    pub address: SocketAddr,
    /// Where its admin side listens.
    pub admin: SocketAddr,
    /// Its configuration file.
    pub config: PathBuf,
    variables: Vec<(String, String)>,
    process: Option<Process>,
}

impl Sidecar {
    /// Starts it, again if it has ended.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more variables, for this time only.
    #[track_caller]
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        let mut launch = Launch::epochgate(&self.id).args(["run", "-c"]).arg(&self.config);
        for (key, value) in &self.variables {
            launch = launch.env(key, value);
        }
        for (key, value) in variables {
            launch = launch.env(key, value);
        }
        let process = self.process.insert(launch.start());
        let admin = self.admin;
        eventually(&format!("{} is there", self.id), LONG, || {
            assert!(process.is_running(), "it ended at its start");
            client::get(admin, "/livez").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// From the next start on it is as it ships.
    pub fn forget_variables(&mut self) {
        self.variables.clear();
    }

    /// The process.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// SIGTERM; returns when it has ended in order.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process().terminate();
        let status = self.process().wait(LONG);
        assert!(status.success(), "{status}");
    }

    /// A write with this stamp, on a connection of its own.
    #[track_caller]
    pub fn put(&self, path: &str, stamp: &str) -> Answer {
        let answer = client::request(self.address, "PUT", path, &[("Fencing-Epoch", stamp)], path.as_bytes());
        answer.unwrap_or_else(|error| panic!("{} gives no answer: {error}", self.id))
    }

    /// Begins a write with this stamp; none where the sidecar is to put it on.
    pub fn write(&self, path: &str, stamp: Option<&str>) -> Writing {
        let (to, path, stamp) = (self.address, path.to_owned(), stamp.map(str::to_owned));
        std::thread::spawn(move || {
            let field = stamp.as_deref().map(|stamp| ("Fencing-Epoch", stamp));
            client::request(to, "PUT", &path, field.as_slice(), path.as_bytes())
        })
    }

    /// What `status` says of the resource; null where nothing answers.
    pub fn resource(&self) -> Value {
        let answer = client::get(self.admin, "/api/v1/status");
        answer.map_or(Value::Null, |answer| answer.json()["resources"][0].clone())
    }

    /// Waits until the gate is as `is_so` wants it.
    #[track_caller]
    pub fn await_gate(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        eventually(&format!("{}: {what}", self.id), LONG, || is_so(&self.resource()["gate"]));
    }

    /// Waits until every worker has fenced, and this many writes are held for the epoch that is to open.
    #[track_caller]
    pub fn await_held(&self, count: u64) {
        self.await_gate(&format!("{count} held"), |gate| {
            gate["held"] == count && (gate["phase"] == "draining" || gate["phase"] == "quarantine")
        });
    }

    /// Waits until the gate is open for this term.
    #[track_caller]
    pub fn await_open(&self, term: &Term) {
        let epoch = term.epoch.to_string();
        self.await_gate(&format!("open for {epoch}"), |gate| gate["phase"] == "open" && gate["floor"] == *epoch);
    }

    /// Waits until its writer leads and is armed; returns its stamp.
    #[track_caller]
    pub fn await_leadership(&self) -> String {
        eventually_some(&format!("{} leads and is armed", self.id), LONG, || {
            let leader = client::get(self.admin, "/leader?resource=orders").ok().filter(|answer| answer.status == 200);
            leader.and_then(|leader| leader.json()["stamp"].as_str().map(str::to_owned))
        })
    }

    /// POST to its admin side.
    #[track_caller]
    pub fn post(&self, path: &str) -> Answer {
        client::request(self.admin, "POST", path, &[], b"").unwrap_or_else(|error| panic!("{}: {error}", self.id))
    }
}

/// The status of a write that has ended.
#[track_caller]
pub fn answered(writing: Writing) -> u16 {
    writing.join().expect("no panic").expect("an answer").status
}
