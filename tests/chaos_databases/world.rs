//! etcd, a database, a guard before it, two stamps, and a network between that looks: built for one episode.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::database::{Database, Kind};
use crate::grants;
use crate::node::{Node, Settings};
use crate::record::Recorder;
use crate::relay::{Relay, Sightings};
use crate::support::etcd::{Etcd, Host};
use crate::support::ports;
use crate::support::process::{LONG, eventually};
use crate::support::sidecar;

/// How long a lease lives.
pub const TTL: Duration = Duration::from_secs(2);
/// How long a guard that can ask nobody waits for what it cannot know the end of. Whatever a target takes over one statement,
/// and for however long it is paused, is together much less.
pub const QUARANTINE: Duration = Duration::from_secs(4);

/// Everything of one episode. Processes go first when it is dropped.
pub struct World {
    /// The guard.
    pub guard: Node,
    /// Stamps, each beside a writer.
    pub stamps: Vec<Node>,
    /// From each stamp to the guard.
    pub ways: Vec<Relay>,
    /// The database.
    pub database: Box<dyn Database>,
    /// What went to the guard with which stamp.
    pub sightings: Sightings,
    /// What the outside sees.
    pub record: Arc<Recorder>,
    etcd: Etcd,
    /// Where the files are.
    pub folder: tempfile::TempDir,
}

impl World {
    /// Builds one and starts everything. `without`: mechanisms that are taken out of the guard, which then asks the target nothing
    /// either, and is in no hurry.
    pub fn start(kind: Kind, without: &'static str) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (etcd, database) = (sidecar::etcd(), kind.start());
        let mut guard = guard(folder.path(), kind, database.address(), &etcd, without.is_empty());
        guard.without = without;
        let sightings = Sightings::default();
        let ways: Vec<Relay> = (0..2).map(|_| Relay::to(guard.address, &sightings)).collect();
        let stamps = ["orders-a", "orders-b"].into_iter().zip(&ways);
        let stamps: Vec<Node> = stamps.map(|(id, way)| stamp(folder.path(), id, kind, way.address, &etcd)).collect();
        let record = Arc::new(Recorder::default());
        let mut world = World { guard, stamps, ways, database, sightings, record, etcd, folder };
        world.guard.start(&[]);
        world.stamps.iter_mut().for_each(|stamp| stamp.start(&[]));
        eventually("somebody leads and is armed", LONG * 2, || world.leader().is_some());
        world
    }

    /// Who leads and is armed, by its own word.
    pub fn leader(&self) -> Option<usize> {
        self.stamps.iter().position(|stamp| stamp.stamp().is_some())
    }

    /// The highest epoch that anybody says there is.
    pub fn epoch(&self) -> u64 {
        let epochs = self.stamps.iter().chain([&self.guard]).map(|node| {
            let status = node.status();
            status["resources"][0]["epoch"].as_str().and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
        });
        epochs.max().unwrap_or(0)
    }

    /// Notes every term that the coordinator has granted.
    pub fn note_grants(&self) {
        for grant in grants::all(&[self.etcd.url()]) {
            self.record.note("etcd", grant);
        }
    }

    /// Ends every process of ours, by force; what they wrote is there.
    pub fn end(&mut self) {
        self.stamps.iter_mut().for_each(Node::kill);
        self.guard.kill();
    }

    /// Each process of ours.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.stamps.iter().chain([&self.guard])
    }
}

fn guard(folder: &Path, kind: Kind, target: SocketAddr, etcd: &Etcd, whole: bool) -> Node {
    let (protocol, control) = (kind.protocol(), if whole { kind.control() } else { "" });
    let timeout = if whole { 500 } else { 2000 };
    let listener = vec![
        "name: guard".to_owned(),
        "role: guard".to_owned(),
        format!("protocol: {protocol}"),
        "target: orders".to_owned(),
        format!(
            "upstream: {{ url: \"{protocol}://{target}\", response_timeout: 800ms, send_timeout: 700ms{control} }}"
        ),
    ];
    let drain = format!("drain: {{ timeout: {timeout}ms, quarantine: {}ms }}", QUARANTINE.as_millis());
    node(folder, "guard", etcd, listener, vec![drain])
}

fn stamp(folder: &Path, id: &str, kind: Kind, guard: SocketAddr, etcd: &Etcd) -> Node {
    let protocol = kind.protocol();
    let listener = vec![
        "name: stamp".to_owned(),
        "role: stamp".to_owned(),
        format!("protocol: {protocol}"),
        format!("upstream: {{ url: \"{protocol}://{guard}\", response_timeout: 6s, send_timeout: 2s }}"),
    ];
    node(folder, id, etcd, listener, vec!["step_down: { timeout: 500ms, pause: 500ms }".to_owned()])
}

fn node(folder: &Path, id: &str, etcd: &Etcd, listener: Vec<String>, mut top: Vec<String>) -> Node {
    let (ttl, url) = (TTL.as_secs(), etcd.url());
    let endpoints = format!("etcd: {{ endpoints: [\"{url}\"] }}");
    top.push(format!("coordinator: {{ {endpoints}, lease_ttl: {ttl}s, verify_every: 250ms }}"));
    top.extend(["hold: { timeout: 6s }".to_owned(), "shutdown: { grace: 2s }".to_owned()]);
    let address = ports::free_address();
    Node::prepare(folder, Settings { id, host: Host::default(), address, listener, top })
}
