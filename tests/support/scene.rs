//! Guards and stamps as real processes around one coordinator, each from a configuration of a few lines.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::client::{self, Answer};
use super::etcd::{self, Etcd};
use super::ports;
use super::process::{LONG, Launch, Process, eventually, eventually_some};

/// A coordinator, and the folder that everything of the scene lies in. Nodes go first: declare them after it.
pub struct Scene {
    folder: tempfile::TempDir,
    coordinator: String,
    etcd: Option<Etcd>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Scene {
    /// On the embedded coordinator.
    pub fn embedded() -> Scene {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let coordinator = format!("embedded: {}", folder.path().join("epochs").display());
        Scene { folder, coordinator, etcd: None, runtime: None }
    }

    /// On a real etcd of one member.
    pub fn etcd() -> Scene {
        Scene::etcd_in(tempfile::tempdir().expect("a temporary folder can be made"), &etcd::Options::default())
    }

    /// On a real etcd, with everything of the nodes in this folder.
    pub fn etcd_in(folder: tempfile::TempDir, options: &etcd::Options) -> Scene {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let etcd = runtime.block_on(Etcd::start_with(options));
        let coordinator = format!("etcd: {{ endpoints: [\"{}\"] }}", etcd.url());
        Scene { folder, coordinator, etcd: Some(etcd), runtime: Some(runtime) }
    }

    /// With leases of this length, for what is started from now on.
    #[must_use]
    pub fn lease(mut self, ttl: &str) -> Scene {
        let _ = write!(self.coordinator, "\n  lease_ttl: {ttl}");
        self
    }

    /// The etcd's URL.
    pub fn etcd_url(&self) -> &str {
        self.etcd.as_ref().expect("the scene has an etcd").url()
    }

    /// A runtime to talk with etcd on.
    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("the scene has an etcd")
    }

    /// A node to be, with this id and the resource `orders`.
    pub fn node(&self, id: &str) -> Plan {
        let folder = self.folder.path().join(id);
        fs::create_dir_all(&folder).expect("it is in a temporary folder");
        Plan {
            id: id.to_owned(),
            folder,
            coordinator: self.coordinator.clone(),
            resources: "orders: {}".to_owned(),
            more: String::new(),
            listeners: Vec::new(),
            variables: Vec::new(),
            recorded: true,
        }
    }

    /// A guard of `orders` before `upstream`, with more lines for the listener, and waits until it is in its place.
    #[track_caller]
    pub fn guard(&self, upstream: &str, more: &str) -> Node {
        self.node("guard").guard(upstream, more).start()
    }

    /// A stamp of `orders` on its way to `guard`, with more lines for the listener; waits until it is the leader.
    #[track_caller]
    pub fn leader(&self, id: &str, guard: &Node, more: &str) -> Node {
        let node = self.node(id).stamp(&guard.url(), more).start();
        node.await_armed("orders");
        node
    }
}

/// A node to be.
pub struct Plan {
    id: String,
    folder: PathBuf,
    coordinator: String,
    resources: String,
    more: String,
    listeners: Vec<(SocketAddr, String)>,
    variables: Vec<(String, String)>,
    recorded: bool,
}

impl Plan {
    /// Other resources than `orders`, as lines of YAML.
    #[must_use]
    pub fn resources(mut self, lines: &str) -> Plan {
        lines.clone_into(&mut self.resources);
        self
    }

    /// More keys at the top of the file, as lines of YAML.
    #[must_use]
    pub fn more(mut self, lines: &str) -> Plan {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// Without a history: every write would be recorded in it.
    #[must_use]
    pub fn unrecorded(mut self) -> Plan {
        self.recorded = false;
        self
    }

    /// A variable of the process.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Plan {
        self.variables.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A guard listener, with more lines of YAML.
    #[must_use]
    pub fn guard(self, upstream: &str, more: &str) -> Plan {
        self.listener("guard", upstream, more)
    }

    /// A stamp listener, which advertises where it listens.
    #[must_use]
    pub fn stamp(self, upstream: &str, more: &str) -> Plan {
        self.listener("stamp", upstream, more)
    }

    /// A guard listener at a place of its own: `unix:/run/guard.sock`.
    #[must_use]
    pub fn guard_at(mut self, listen: &str, upstream: &str, more: &str) -> Plan {
        self = self.listener("guard", upstream, more);
        let (address, text) = self.listeners.last_mut().expect("it was just added");
        *text = text.replace(&format!("listen: {address}"), &format!("listen: \"{listen}\""));
        self
    }

    fn listener(mut self, role: &str, upstream: &str, more: &str) -> Plan {
        let listen = ports::free_address();
        let name = if self.listeners.is_empty() { role.to_owned() } else { format!("{role}-{}", self.listeners.len()) };
        let mut text = format!("  - name: {name}\n    role: {role}\n    listen: {listen}\n");
        let mut lines = vec![];
        let says = |key: &str| more.lines().any(|line| line.trim_start().starts_with(key));
        if !says("upstream:") {
            lines.push(format!("upstream: {{ url: \"{upstream}\" }}"));
        }
        if !says("resource:") && !says("rules:") {
            lines.push("resource: orders".to_owned());
        }
        if role == "stamp" {
            lines.push(format!("advertise: \"http://{listen}\""));
        }
        for line in lines.iter().map(String::as_str).chain(more.lines()) {
            let _ = writeln!(text, "    {line}");
        }
        self.listeners.push((listen, text));
        self
    }

    /// Starts it, and waits until it listens; a guard also until it has joined its target.
    #[track_caller]
    pub fn start(self) -> Node {
        let mut node = self.start_blocked();
        node.await_joined();
        node
    }

    /// Starts it, and waits until it listens; whether it comes to its place is another matter.
    #[track_caller]
    pub fn start_blocked(self) -> Node {
        let admin = ports::free_address();
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut text = format!("id: {}\nstate_dir: {}\n", self.id, file("state"));
        let _ = write!(text, "coordinator:\n  {}\nresources:\n", self.coordinator);
        for line in self.resources.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("listeners:\n");
        self.listeners.iter().for_each(|(_, listener)| text.push_str(listener));
        let _ = write!(text, "admin: {{ listen: {admin} }}\naudit: {{ output: {} }}\n", file("audit.jsonl"));
        if self.recorded {
            let _ = writeln!(text, "history: {}", file("history.jsonl"));
        }
        text.push_str(&self.more);
        if !self.more.contains("workers:") {
            text.push_str("workers: 2\n");
        }
        fs::write(self.folder.join("epochgate.yaml"), text).expect("it is in a temporary folder");
        let mut node = Node {
            process: launch(&self.id, &self.folder, &self.variables).start(),
            id: self.id,
            admin,
            addresses: self.listeners.iter().map(|(address, _)| *address).collect(),
            folder: self.folder,
            variables: self.variables,
        };
        node.process.await_words("admin side listening", LONG);
        node
    }
}

fn launch(id: &str, folder: &Path, variables: &[(String, String)]) -> Launch {
    let launch = Launch::epochgate(id).args(["run", "-c"]).arg(folder.join("epochgate.yaml"));
    variables.iter().fold(launch, |launch, (key, value)| launch.env(key, value))
}

/// A running node.
pub struct Node {
    /// The process.
    pub process: Process,
    /// Its id.
    pub id: String,
    /// Where its admin side listens.
    pub admin: SocketAddr,
    /// Where its listeners listen, in order.
    pub addresses: Vec<SocketAddr>,
    folder: PathBuf,
    variables: Vec<(String, String)>,
}

impl Node {
    /// Where its first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The URL of its first listener.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Starts it again, in the same place, once it has ended.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(!self.process.is_running(), "{} still runs", self.id);
        self.process = launch(&self.id, &self.folder, &self.variables).start();
        self.process.await_words("admin side listening", LONG);
        self.await_joined();
    }

    #[track_caller]
    fn await_joined(&mut self) {
        let guards =
            self.status()["listeners"].as_array().is_some_and(|all| all.iter().any(|it| it["role"] == "guard"));
        if guards {
            self.process.await_words("joined", LONG);
        }
    }

    /// Asks its admin side.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        client::get(self.admin, path).unwrap_or_else(|error| panic!("{}: GET {path}: {error}", self.id))
    }

    /// Tells its admin side.
    #[track_caller]
    pub fn post(&self, path: &str) -> Answer {
        let answer = client::request(self.admin, "POST", path, &[], b"");
        answer.unwrap_or_else(|error| panic!("{}: POST {path}: {error}", self.id))
    }

    /// What its status says.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.get("/api/v1/status").json()
    }

    /// What its status says of one resource.
    #[track_caller]
    pub fn resource(&self, name: &str) -> Value {
        let status = self.status();
        let found = status["resources"].as_array().and_then(|all| all.iter().find(|one| one["name"] == name).cloned());
        found.unwrap_or_else(|| panic!("{} knows no {name}: {status}", self.id))
    }

    /// What its status says of the gate of `orders`.
    #[track_caller]
    pub fn gate(&self) -> Value {
        self.resource("orders")["gate"].clone()
    }

    /// Its metrics, as text.
    #[track_caller]
    pub fn metrics(&self) -> String {
        self.get("/metrics").text()
    }

    /// One series of its metrics: `name{label="value",...}` without `epochgate_`. 0 where it is not there.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
        let metrics = self.metrics();
        let lines = metrics.lines().filter(|line| {
            let rest = line.strip_prefix("epochgate_").and_then(|line| line.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with([' ', '{']) && labels.iter().all(|label| rest.contains(label)))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Whether its own writer leads and is armed.
    pub fn is_armed(&self, resource: &str) -> bool {
        self.get(&format!("/leader?resource={resource}")).status == 200
    }

    /// Waits until that is so.
    #[track_caller]
    pub fn await_armed(&self, resource: &str) {
        eventually(&format!("{} is armed for {resource}", self.id), LONG, || self.is_armed(resource));
    }

    /// Every line of its audit log so far.
    pub fn audit(&self) -> Vec<Value> {
        lines(&self.folder.join("audit.jsonl"))
    }

    /// Waits for an audit record.
    #[track_caller]
    pub fn audited(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually_some(&format!("{} audits {what}", self.id), LONG, || self.audit().into_iter().find(&is_it))
    }

    /// Every event of its history so far.
    pub fn history(&self) -> Vec<Value> {
        lines(&self.folder.join("history.jsonl"))
    }

    /// Where its configuration, state, audit log and history lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command of the same binary against its admin side.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Process {
        let launch = Launch::epochgate("command").args(arguments);
        launch.arg("--admin").arg(self.admin.to_string()).run(LONG)
    }

    /// SIGTERM, and waits for its end, which must be in order.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.terminate();
        let status = self.process.wait(LONG);
        assert!(status.success(), "{} ended with {status}", self.id);
    }
}

/// The JSON lines of a file; the last one may be half written.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
