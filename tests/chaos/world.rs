//! etcd, a target, guards before it, stamps in front of them, and weather on every way between: built for one episode.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use epochgate::verify::Outside;

use crate::grants;
use crate::ground::Ground;
use crate::node::{Node, Settings};
use crate::plan::{Door, Shape};
use crate::record::Recorder;
use crate::support::dice::Dice;
use crate::support::etcd::{self, Etcd, Options};
use crate::support::faulty_link::{FaultyLink, OnRepeat, Weather, field};
use crate::support::ports;
use crate::support::process::{LONG, eventually};
use crate::support::sidecar::wait_for;
use crate::support::upstream::Upstream;

/// How long a lease lives.
pub const TTL: Duration = Duration::from_secs(2);
/// How long a guard waits for its target's answer.
pub const RESPONSE: Duration = Duration::from_millis(800);
/// How long a guard waits for what it cannot know the end of. The target is over with everything long before.
pub const QUARANTINE: Duration = Duration::from_millis(3500);

/// Everything of one episode. Processes go first when it is dropped.
pub struct World<'g> {
    /// Guards.
    pub guards: Vec<Node>,
    /// Stamps, each beside a writer.
    pub stamps: Vec<Node>,
    /// The members of etcd.
    pub members: Vec<Etcd>,
    /// From clients to each stamp.
    pub to_stamps: Vec<FaultyLink>,
    /// From each stamp to the guards.
    pub to_guards: Vec<FaultyLink>,
    /// From each guard to the target.
    pub to_target: Vec<FaultyLink>,
    /// The target.
    pub target: Upstream,
    /// What the outside sees.
    pub record: Arc<Recorder>,
    /// Doors whose state directories are lost, by the guard that was each: an operator has yet to say that they are dead.
    pub dead_doors: Vec<(usize, String)>,
    /// Where all this stands.
    pub ground: &'g Ground,
    /// Where the files are.
    pub folder: tempfile::TempDir,
}

impl<'g> World<'g> {
    /// Builds one and starts everything.
    pub fn start(ground: &'g Ground, shape: &Shape, without: &'static str, dice: &Dice) -> World<'g> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let hosts = (0..shape.members).map(|number| ground.host(&member(number))).collect();
        let members = wait_for(etcd::cluster(shape.members, &Options { hosts, ..Options::default() }));
        let record = Arc::new(Recorder::default());
        let target = Upstream::start_at(ground.hub());
        let on_repeat = repeats_noted(&record);
        let link = |to: &[std::net::SocketAddr], name: &str| {
            FaultyLink::to(to, ground.hub(), dice.apart(name), Arc::clone(&on_repeat))
        };

        let (mut guards, mut to_target) = (Vec::new(), Vec::new());
        for number in 0..shape.guards {
            let id = format!("guard-{}", number + 1);
            let way = link(&[target.address], &format!("{id} to target"));
            guards.push(guard(ground, folder.path(), &id, &way, &members, shape.door));
            to_target.push(way);
        }
        let addresses: Vec<_> = guards.iter().map(|guard| guard.address).collect();
        let (mut stamps, mut to_guards, mut to_stamps) = (Vec::new(), Vec::new(), Vec::new());
        for letter in ["a", "b", "c"].iter().take(shape.stamps) {
            let id = format!("orders-{letter}");
            let onward = link(&addresses, &format!("{id} to guards"));
            let host = ground.host(&id);
            let address = std::net::SocketAddr::new(host.ip, ports::free());
            let way = link(&[address], &format!("clients to {id}"));
            let mut listener = vec![
                "name: stamp".to_owned(),
                "role: stamp".to_owned(),
                format!("advertise: \"{}\"", way.url()),
                format!("upstream: {{ url: \"{}\", response_timeout: 6s, send_timeout: 2s }}", onward.url()),
            ];
            if shape.stamps_keep {
                listener.push("on_coordinator_loss: keep".to_owned());
            }
            let top = vec![
                coordinator(&members),
                "hold: { timeout: 4s }".to_owned(),
                "step_down: { timeout: 500ms, pause: 1s }".to_owned(),
                "shutdown: { grace: 3s }".to_owned(),
            ];
            stamps.push(Node::prepare(folder.path(), Settings { id: &id, host, address, listener, top }));
            to_guards.push(onward);
            to_stamps.push(way);
        }
        let mut world = World {
            guards,
            stamps,
            members,
            to_stamps,
            to_guards,
            to_target,
            target,
            record,
            dead_doors: Vec::new(),
            ground,
            folder,
        };
        for number in 0..world.guards.len() {
            // A disk that can be filled.
            ground.small_disk(&world.guards[number].state);
            world.guards[number].without = without;
            world.guards[number].start(&[]);
        }
        for stamp in &mut world.stamps {
            stamp.without = without;
            stamp.start(&[]);
        }
        eventually("somebody leads and is armed", LONG * 2, || world.leader().is_some());
        world
    }

    /// Who leads and is armed, by its own word.
    pub fn leader(&self) -> Option<usize> {
        self.stamps.iter().position(|stamp| stamp.stamp().is_some())
    }

    /// The highest epoch that anybody says there is.
    pub fn epoch(&self) -> u64 {
        let epochs = self.stamps.iter().chain(&self.guards).map(|node| {
            let status = node.status();
            status["resources"][0]["epoch"].as_str().and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
        });
        epochs.max().unwrap_or(0)
    }

    /// Every link.
    pub fn links(&self) -> impl Iterator<Item = &FaultyLink> {
        self.to_stamps.iter().chain(&self.to_guards).chain(&self.to_target)
    }

    /// Fair weather everywhere.
    pub fn clear(&self) {
        self.links().for_each(|link| link.set(Weather::default()));
    }

    /// How many connections the weather broke, and how many requests it repeated.
    pub fn weather_did(&self) -> (u64, u64) {
        self.links().fold((0, 0), |(broken, repeated), link| {
            let did = &link.did;
            (broken + did.broken.load(Ordering::Relaxed), repeated + did.repeated.load(Ordering::Relaxed))
        })
    }

    /// Notes every term that the coordinator has granted so far.
    pub fn note_grants(&self) {
        let serving = self.members.iter().filter(|member| member.is_started()).map(Etcd::url);
        for grant in grants::all(&serving.collect::<Vec<_>>()) {
            self.record.note("etcd", grant);
        }
    }

    /// Ends every process of ours, by force; what they wrote is there.
    pub fn end(&mut self) {
        for node in self.guards.iter_mut().chain(&mut self.stamps) {
            node.kill();
        }
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        for guard in &mut self.guards {
            guard.kill();
            self.ground.no_small_disk(&guard.state);
        }
    }
}

/// The host of a member of etcd.
pub fn member(number: usize) -> String {
    format!("etcd-{}", number + 1)
}

fn guard(ground: &Ground, folder: &Path, id: &str, way: &FaultyLink, members: &[Etcd], door: Door) -> Node {
    let host = ground.host(id);
    let address = std::net::SocketAddr::new(host.ip, ports::free());
    let mut listener = vec![
        "name: guard".to_owned(),
        "role: guard".to_owned(),
        "target: orders".to_owned(),
        format!(
            "upstream: {{ url: \"{}\", response_timeout: {}ms, send_timeout: 700ms }}",
            way.url(),
            RESPONSE.as_millis()
        ),
    ];
    listener.extend(door.lines().iter().map(|line| (*line).to_owned()));
    let top = vec![
        coordinator(members),
        format!("drain: {{ timeout: 500ms, quarantine: {}ms }}", QUARANTINE.as_millis()),
        "hold: { timeout: 4s }".to_owned(),
        "shutdown: { grace: 3s }".to_owned(),
    ];
    Node::prepare(folder, Settings { id, host, address, listener, top })
}

fn coordinator(members: &[Etcd]) -> String {
    let urls: Vec<String> = members.iter().map(|member| format!("\"{}\"", member.url())).collect();
    let urls = urls.join(", ");
    format!("coordinator: {{ etcd: {{ endpoints: [{urls}] }}, lease_ttl: {}s, verify_every: 250ms }}", TTL.as_secs())
}

/// A request that the network sends again counts as sent again.
fn repeats_noted(record: &Arc<Recorder>) -> OnRepeat {
    let record = Arc::clone(record);
    Arc::new(move |request: &[u8]| {
        let Some(op) = field(request, "x-op") else { return };
        record.sent("network", &op, None);
    })
}

/// Something happened to the world that has a line of its own.
pub fn killed(record: &Recorder, id: &str) {
    record.note("nemesis", Outside::Killed { process: id.into() });
}
