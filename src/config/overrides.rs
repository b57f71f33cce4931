//! Flags and environment variables over the file: they are put into the tree, with their own place, and checked
//! there like everything else.

use std::path::PathBuf;

use super::problem::{KeyPath, Place, Report};
use super::tree::{Content, Node};
use crate::fence::Resource;

/// What flags, or environment variables, say. Texts are as typed; nothing has been checked.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`: the file. Read by the caller ([`super::read_file`]).
    pub config: Option<PathBuf>,
    /// `--id`.
    pub id: Option<String>,
    /// `--state-dir`.
    pub state_dir: Option<String>,
    /// `--etcd`, repeatable, also with commas.
    pub etcd: Vec<String>,
    /// `--embedded`.
    pub embedded: Option<String>,
    /// `--prefix`.
    pub prefix: Option<String>,
    /// `--lease-ttl`.
    pub lease_ttl: Option<String>,
    /// `--protocol`.
    pub protocol: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--upstream`.
    pub upstream: Option<String>,
    /// `--resource`, repeatable, also with commas.
    pub resource: Vec<String>,
    /// `--mode`.
    pub mode: Option<String>,
    /// `--on-coordinator-loss`.
    pub on_coordinator_loss: Option<String>,
    /// `--advertise`.
    pub advertise: Option<String>,
    /// `--admin`; `none` for nowhere.
    pub admin: Option<String>,
    /// `--audit`.
    pub audit: Option<String>,
    /// `--log-format`.
    pub log_format: Option<String>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--workers`.
    pub workers: Option<String>,
    /// `--adopt-floor`: take over a floor file of another door, or start from the coordinator where the file cannot
    /// be read. No key of the file: it is said once, by a person.
    pub adopt_floor: bool,
}

/// What a command builds by itself instead of reading listeners from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single {
    /// `epochgate guard`: one listener, named `guard`.
    Guard,
    /// `epochgate stamp`: one listener, named `stamp`.
    Stamp,
    /// `epochgate elect` and the commands that ask the coordinator: no listener at all. Those of a file are left out.
    NoListener,
}

impl Single {
    /// The listener's name and role.
    const fn word(self) -> &'static str {
        match self {
            Single::Guard => "guard",
            Single::Stamp => "stamp",
            Single::NoListener => "none",
        }
    }
}

/// Every flag that means a key.
pub(super) const FLAGS: &[&str] = &[
    "--id",
    "--state-dir",
    "--etcd",
    "--embedded",
    "--prefix",
    "--lease-ttl",
    "--protocol",
    "--listen",
    "--upstream",
    "--resource",
    "--mode",
    "--on-coordinator-loss",
    "--advertise",
    "--admin",
    "--audit",
    "--log-format",
    "--log-level",
    "--workers",
];

impl Overrides {
    /// Puts them into the tree of the file.
    pub(super) fn apply(&self, tree: &mut Node, single: Option<Single>, report: &mut Report) {
        if !matches!(tree.content, Content::Map(_)) {
            // The check says so.
            return;
        }
        self.apply_global(tree);
        self.apply_coordinator(tree, report);
        self.list_resources(tree);
        match single {
            None => self.apply_to_sole_listener(tree, report),
            Some(Single::NoListener) => tree.take_out("listeners"),
            Some(single) => self.build_listener(tree, single, report),
        }
    }

    fn apply_global(&self, tree: &mut Node) {
        put(tree, &[], "id", "--id", self.id.as_deref());
        put(tree, &[], "state_dir", "--state-dir", self.state_dir.as_deref());
        put(tree, &["coordinator"], "prefix", "--prefix", self.prefix.as_deref());
        put(tree, &["coordinator"], "lease_ttl", "--lease-ttl", self.lease_ttl.as_deref());
        put(tree, &["audit"], "output", "--audit", self.audit.as_deref());
        put(tree, &["log"], "format", "--log-format", self.log_format.as_deref());
        put(tree, &["log"], "level", "--log-level", self.log_level.as_deref());
        if let Some(admin) = &self.admin {
            let place = Place::Flag("--admin");
            let node = if admin == "none" { Node::null(place) } else { Node::text(place, admin.as_str()) };
            put_node(tree, &["admin"], "listen", node);
        }
        if let Some(workers) = &self.workers {
            tree.put("workers", Node::plain(Place::Flag("--workers"), workers));
        }
    }

    fn apply_coordinator(&self, tree: &mut Node, report: &mut Report) {
        let etcd: Vec<&str> = split(&self.etcd).collect();
        match (&self.embedded, etcd.as_slice()) {
            (None, []) => {}
            (Some(path), []) => {
                put(tree, &["coordinator"], "embedded", "--embedded", Some(path));
                take_out(tree, "coordinator", "etcd");
            }
            (None, endpoints) => {
                let place = Place::Flag("--etcd");
                let items = endpoints.iter().map(|endpoint| Node::text(place, *endpoint)).collect();
                put_node(tree, &["coordinator", "etcd"], "endpoints", Node { place, content: Content::List(items) });
                take_out(tree, "coordinator", "embedded");
            }
            (Some(_), _) => {
                let path = KeyPath::root().key("coordinator");
                let what = "there can be one coordinator, and --etcd is given too";
                report.add(Place::Flag("--embedded"), &path, what, "leave one of the two out");
            }
        }
    }

    /// A resource that a flag names is listed by that.
    fn list_resources(&self, tree: &mut Node) {
        let place = Place::Flag("--resource");
        for name in split(&self.resource) {
            if let Some(resources) = tree.map_under("resources", place)
                && resources.get(name).is_none()
            {
                resources.put(name, Node::null(place));
            }
        }
    }

    /// The flags of a listener, with their keys.
    fn of_listener(&self) -> [(&'static str, &'static str, Option<&str>); 6] {
        [
            ("protocol", "--protocol", self.protocol.as_deref()),
            ("listen", "--listen", self.listen.as_deref()),
            ("resource", "--resource", split(&self.resource).next()),
            ("mode", "--mode", self.mode.as_deref()),
            ("on_coordinator_loss", "--on-coordinator-loss", self.on_coordinator_loss.as_deref()),
            ("advertise", "--advertise", self.advertise.as_deref()),
        ]
    }

    fn apply_to_listener(&self, listener: &mut Node) {
        for (key, flag, text) in self.of_listener() {
            put(listener, &[], key, flag, text);
        }
        put(listener, &["upstream"], "url", "--upstream", self.upstream.as_deref());
    }

    fn apply_to_sole_listener(&self, tree: &mut Node, report: &mut Report) {
        let given = self.of_listener().into_iter().chain([("upstream", "--upstream", self.upstream.as_deref())]);
        let given: Vec<&'static str> = given.filter_map(|(_, flag, text)| text.map(|_| flag)).collect();
        if given.is_empty() {
            return;
        }
        let count = tree.get("listeners").map_or(0, |listeners| listeners.items().len());
        if count != 1 {
            for flag in given {
                let what = format!("is about one listener, and the file has {count}");
                let path = KeyPath::root().key("listeners");
                report.add(Place::Flag(flag), &path, what, "write it into the file, at the listener that is meant");
            }
            return;
        }
        if let Some(Content::List(items)) = tree.get_mut("listeners").map(|listeners| &mut listeners.content)
            && let Some(listener) = items.first_mut()
        {
            self.apply_to_listener(listener);
        }
    }

    fn build_listener(&self, tree: &mut Node, single: Single, report: &mut Report) {
        let word = single.word();
        if let Some(listeners) = tree.get("listeners") {
            let what = format!("`epochgate {word}` has a listener of its own, and the file has some too");
            let help = "start the file's listeners with `epochgate run -c FILE`, or take them out";
            report.add(listeners.place, &KeyPath::root().key("listeners"), what, help);
        }
        let mut listener = Node::map(Place::Whole);
        listener.put("name", Node::text(Place::Whole, word));
        listener.put("role", Node::text(Place::Whole, word));
        listener.put("upstream", Node::map(Place::Whole));
        self.apply_to_listener(&mut listener);
        match split(&self.resource).next() {
            None => {
                let what = "is missing";
                report.add(Place::Flag("--resource"), &KeyPath::root(), what, "add --resource orders: what is fenced");
            }
            // No two listeners of this name stand before the same target, so the resource names it.
            Some(resource) if single == Single::Guard && resource.parse::<Resource>().is_ok() => {
                let target: String = resource.replace('/', "-").chars().take(63).collect();
                listener.put("target", Node::text(Place::Flag("--resource"), target));
            }
            Some(_) => {}
        }
        tree.put("listeners", Node { place: Place::Whole, content: Content::List(vec![listener]) });
    }
}

fn split(texts: &[String]) -> impl Iterator<Item = &str> {
    texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty())
}

fn put(tree: &mut Node, maps: &[&str], key: &str, flag: &'static str, text: Option<&str>) {
    if let Some(text) = text {
        put_node(tree, maps, key, Node::text(Place::Flag(flag), text));
    }
}

fn put_node(tree: &mut Node, maps: &[&str], key: &str, node: Node) {
    match maps.split_first() {
        None => tree.put(key, node),
        Some((first, rest)) => {
            // Where something else than a mapping stands there, the check says so.
            if let Some(inner) = tree.map_under(first, node.place) {
                put_node(inner, rest, key, node);
            }
        }
    }
}

fn take_out(tree: &mut Node, map: &str, key: &str) {
    if let Some(inner) = tree.get_mut(map) {
        inner.take_out(key);
    }
}
