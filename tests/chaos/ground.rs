//! Where a world stands: network namespaces of its own, one for each process, so that the network between any two of
//! them can be cut in one direction.
//!
//! A test plays in a copy of itself inside fresh namespaces (processes, mounts, network), made by `unshare`. When that
//! copy ends, however it ends, the kernel takes everything away with it: processes, interfaces, mounts. Nothing is left
//! to be removed. Where this is not permitted, the test says so and plays on 127.0.0.1, without partitions.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::support::etcd::Host;
use crate::support::process::program;

/// Says to the copy that it is one.
const INSIDE: &str = "EPOCHGATE_CHAOS_INSIDE";

/// Makes the namespaces' inside: names of network namespaces, and files that need no disk.
const PREPARE: &str = r#"
mkdir -p /run/netns
mount -t tmpfs -o mode=755 tmpfs /run/netns
mount -t tmpfs -o size=4g tmpfs "$TMPDIR"
ip link set lo up
ip link add hub type bridge forward_delay 0
ip addr add 10.77.0.1/24 dev hub
ip link set hub up
ip netns add probe && ip link add probe type veth peer name eth0 netns probe && ip netns del probe
exec "$@"
"#;

/// What swallows a packet: nobody has this address.
const NOBODY: &str = "02:de:ad:00:00:01";

/// Where a world stands.
pub struct Ground {
    namespaces: bool,
    hosts: Mutex<BTreeMap<String, Host>>,
}

/// Plays a test, inside where that can be. `name` is the test's own, from the top of this crate.
pub fn play(name: &str, test: impl FnOnce(&Ground)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(&Ground { namespaces: true, hosts: Mutex::default() });
    }
    match copy(name) {
        Ok((mut copy, _folder)) => {
            let status = copy.status().expect("unshare started before");
            assert!(status.success(), "{name} failed in its namespaces: see above");
        }
        Err(why) => {
            println!("PARTITIONS ARE LEFT OUT: namespaces cannot be made here ({why}); everything else is tested");
            test(&Ground { namespaces: false, hosts: Mutex::default() });
        }
    }
}

/// Whether this is the copy of a test that plays inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What plays a test inside, and a folder that it needs; why that cannot be, else.
pub fn copy(name: &str) -> Result<(Command, tempfile::TempDir), String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let probe = inside(folder.path()).arg("true").output().map_err(|error| error.to_string())?;
    if !probe.status.success() {
        return Err(String::from_utf8_lossy(&probe.stderr).trim().replace('\n', "; "));
    }
    let own = std::env::current_exe().expect("this program has a path");
    let mut copy = inside(folder.path());
    copy.arg(own).args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    Ok((copy, folder))
}

/// What runs a command in namespaces of its own, and ends with this process.
fn inside(folder: &Path) -> Command {
    let mut command = Command::new(program("setpriv"));
    command.args(["--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", "--pid", "--net", "--mount"]);
    command.args(["--mount-proc", "sh", "-ec", PREPARE, "sh"]).env("TMPDIR", folder);
    command
}

impl Ground {
    /// Whether the network between hosts can be cut.
    pub fn has_networks(&self) -> bool {
        self.namespaces
    }

    /// The address of the test itself.
    pub fn hub(&self) -> IpAddr {
        if self.namespaces { Ipv4Addr::new(10, 77, 0, 1).into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// The host of that name: the same each time.
    pub fn host(&self, name: &str) -> Host {
        if !self.namespaces {
            return Host::default();
        }
        let mut hosts = self.hosts.lock().expect("no holder of it panics");
        if let Some(host) = hosts.get(name) {
            return host.clone();
        }
        let number = u8::try_from(hosts.len() + 10).expect("a few hosts");
        let ip = Ipv4Addr::new(10, 77, 0, number);
        let outside = format!("to-{name}");
        ip_command(&["netns", "add", name]);
        ip_command(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", name]);
        ip_command(&["link", "set", &outside, "master", "hub", "up"]);
        ip_command(&["-n", name, "addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
        ip_command(&["-n", name, "link", "set", "eth0", "up"]);
        ip_command(&["-n", name, "link", "set", "lo", "up"]);
        let host = Host { ip: ip.into(), namespace: Some(PathBuf::from("/run/netns").join(name)) };
        hosts.insert(name.to_owned(), host.clone());
        host
    }

    /// From now on nothing that `from` sends to `to` arrives, and nobody is told.
    pub fn cut(&self, from: &str, to: &str) {
        let ip = self.host(to).ip.to_string();
        ip_command(&["-n", from, "neigh", "replace", &ip, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"]);
    }

    /// It arrives again.
    pub fn mend(&self, from: &str, to: &str) {
        let ip = self.host(to).ip.to_string();
        ip_command(&["-n", from, "neigh", "del", &ip, "dev", "eth0"]);
    }

    /// A disk of a few pages, in the place of a folder; false where that cannot be had.
    pub fn small_disk(&self, at: &Path) -> bool {
        let mount = || Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(at).status();
        self.namespaces && mount().is_ok_and(|status| status.success())
    }

    /// Takes it away again.
    pub fn no_small_disk(&self, at: &Path) {
        let _ = Command::new("umount").arg("-l").arg(at).status();
    }
}

fn ip_command(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip was there before");
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}
