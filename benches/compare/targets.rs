//! What is measured: each proxy as its own process on the first core, in front of the same upstream, with one worker
//! (unless said otherwise) and the nearest that it has to a check of the epoch.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use crate::configs;
use crate::epochgate::{Pair, Role, Setup};
use crate::running::{Running, Wrap, find, launch};
use crate::shape::Shape;
use crate::support::ports;
use crate::support::process::{LONG, eventually};

/// The field that the other proxies look at.
pub const EPOCH: &str = "X-Epoch: 7\r\n";

/// The guard with its gate compiled out.
pub const UNGATED: &str = "ungated";

/// Something to send requests to.
pub struct Target {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Where it takes HTTP/2; `None` where it does not.
    pub http2: Option<SocketAddr>,
    /// The fields that its writes need, each with its line end.
    pub fields: String,
    /// The process, and with it those that it started; `None` for the upstream itself.
    pub process: Option<u32>,
}

impl Target {
    fn ours(pair: &mut Pair, role: Role) -> Target {
        let fields = pair.fields(role);
        let side = pair.side(role);
        let (address, process) = (side.listen, Some(side.process.id()));
        Target { name: role.name(), address, http2: Some(address), fields, process }
    }
}

/// All of them, running.
pub struct Field {
    pub targets: Vec<Target>,
    /// The guard with its gate compiled out, where `make bench` has built one.
    pub ungated: Option<Target>,
    /// Names of those that are not there, each with the reason.
    pub missing: Vec<String>,
    /// They end with it.
    _processes: Vec<Running>,
    _pairs: Vec<Pair>,
}

impl Field {
    /// Starts what is there.
    pub fn start(folder: &Path, shape: &Shape) -> Field {
        Field::of(folder, shape, &[&crate::PEERS[..], &crate::OURS].concat())
    }

    /// Starts those of these names.
    pub fn of(folder: &Path, shape: &Shape, names: &[&str]) -> Field {
        let mut field = Field {
            targets: vec![Target {
                name: "direct",
                address: shape.upstream,
                http2: None,
                fields: EPOCH.to_owned(),
                process: None,
            }],
            ungated: None,
            missing: Vec::new(),
            _processes: Vec::new(),
            _pairs: Vec::new(),
        };
        let cannot = |peer| shape.http2 && peer == Peer::Nginx;
        for peer in Peer::ALL.into_iter().filter(|&peer| names.contains(&peer.name()) && !cannot(peer)) {
            let Some(program) = peer.program() else {
                field.missing.push(format!(
                    "{}: not found; `tools/fetch {}` gets it where it can",
                    peer.name(),
                    peer.name()
                ));
                continue;
            };
            let plan = peer.plan(&folder.join(peer.name()), shape);
            let process = plan.launch(&program, &Wrap::none());
            field.targets.push(Target {
                name: peer.name(),
                address: plan.listen,
                http2: Some(plan.http2),
                fields: EPOCH.to_owned(),
                process: Some(process.id()),
            });
            field._processes.push(process);
        }
        let ours: Vec<Role> = Role::BOTH.into_iter().filter(|role| names.contains(&role.name())).collect();
        if !ours.is_empty() {
            let mut pair = Pair::start(&folder.join("epochgate"), &Setup::of(shape));
            field.targets.extend(ours.into_iter().map(|role| Target::ours(&mut pair, role)));
            field._pairs.push(pair);
        }
        field
    }

    /// Those of a repetition, in its order; the guard without its gate next to the one with it, before it every other
    /// time.
    pub fn in_turn(&self, repetition: usize) -> Vec<&Target> {
        let mut order = in_turn(&self.targets, repetition);
        if let (Some(ungated), Some(guard)) =
            (&self.ungated, order.iter().position(|target| target.name == Role::Guard.name()))
        {
            order.insert(guard + (repetition + 1) % 2, ungated);
        }
        order
    }

    /// Their names, in the order of the tables.
    pub fn names(&self) -> Vec<&'static str> {
        self.in_turn(0).iter().map(|target| target.name).collect()
    }

    /// Starts the guard with its gate compiled out too.
    pub fn add_ungated(&mut self, folder: &Path, shape: &Shape) {
        match ungated() {
            Some(program) => {
                let setup = Setup { ungated: Some(program), ..Setup::of(shape) };
                let mut pair = Pair::start(folder, &setup);
                self.ungated = Some(Target { name: UNGATED, ..Target::ours(&mut pair, Role::Guard) });
                self._pairs.push(pair);
            }
            None => self.missing.push(format!("{UNGATED}: {UNGATED_MISSING}")),
        }
    }
}

/// Each repetition begins with another target, so that none is always after the same one.
pub fn in_turn(targets: &[Target], repetition: usize) -> Vec<&Target> {
    let mut order: Vec<&Target> = targets.iter().collect();
    if !order.is_empty() {
        order.rotate_left(repetition % targets.len());
    }
    order
}

/// The program without the gate; none where what is measured is not of the same build.
pub fn ungated() -> Option<PathBuf> {
    let program = PathBuf::from(std::env::var_os("EPOCHGATE_UNGATED")?);
    is_of_this_build(&program).then_some(program)
}

/// Why there is none.
pub const UNGATED_MISSING: &str =
    "left out: only `make bench` builds it, and beside another binary (`EPOCHGATE_TESTED`) it is not of the same code";

/// Whether what is measured is not what `make bench` has just built.
pub fn is_another() -> bool {
    let ungated = std::env::var_os("EPOCHGATE_UNGATED").map(PathBuf::from);
    std::env::var_os("EPOCHGATE_TESTED").is_some() && !ungated.is_some_and(|ungated| is_of_this_build(&ungated))
}

/// Where `make bench` puts both, the one with the gate is in the next folder.
fn is_of_this_build(ungated: &Path) -> bool {
    let measured = ungated.parent().and_then(Path::parent).map(|folder| folder.join("release/measured"));
    measured.is_some() && measured == std::env::var_os("EPOCHGATE_TESTED").map(PathBuf::from)
}

/// Another proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Nginx,
    Haproxy,
    Envoy,
}

/// One of them to be started.
pub struct Plan {
    pub listen: SocketAddr,
    pub http2: SocketAddr,
    pub arguments: Vec<String>,
    cores: Vec<usize>,
}

impl Peer {
    pub const ALL: [Peer; 3] = [Peer::Nginx, Peer::Haproxy, Peer::Envoy];

    pub fn name(self) -> &'static str {
        match self {
            Peer::Nginx => "nginx",
            Peer::Haproxy => "haproxy",
            Peer::Envoy => "envoy",
        }
    }

    /// Where it is; `None` where it is not on this machine.
    pub fn program(self) -> Option<PathBuf> {
        find(self.name())
    }

    /// Writes its configuration into `folder`.
    pub fn plan(self, folder: &Path, shape: &Shape) -> Plan {
        std::fs::create_dir_all(folder).expect("it is in a temporary folder");
        let listen = ports::free_address();
        let http2 = if self == Peer::Nginx { ports::free_address() } else { listen };
        let text = match self {
            Peer::Nginx => configs::nginx(listen, http2, shape),
            Peer::Haproxy => configs::haproxy(listen, shape),
            Peer::Envoy => configs::envoy(listen, shape),
        };
        let file = folder.join("config.yaml");
        std::fs::write(&file, text).expect("it is in a temporary folder");
        let (file, folder) = (file.display().to_string(), format!("{}/", folder.display()));
        let arguments = match self {
            Peer::Nginx => vec!["-e".into(), "stderr".into(), "-p".into(), folder, "-c".into(), file],
            Peer::Haproxy => vec!["-db".into(), "-f".into(), file],
            Peer::Envoy => {
                let workers = shape.workers.to_string();
                let arguments = ["--concurrency", &workers, "--disable-hot-restart", "-l", "error", "-c", &file];
                arguments.map(str::to_owned).to_vec()
            }
        };
        Plan { listen, http2, arguments, cores: shape.cores.clone() }
    }
}

impl Plan {
    /// Starts it, and waits until it listens.
    pub fn launch(&self, program: &Path, wrap: &Wrap) -> Running {
        let mut process = self.launch_only(program, wrap);
        eventually("a proxy listens", LONG, || {
            assert!(process.is_running(), "{} has ended:\n{}", program.display(), process.recent());
            TcpStream::connect(self.listen).is_ok()
        });
        process
    }

    /// Starts it.
    pub fn launch_only(&self, program: &Path, wrap: &Wrap) -> Running {
        wrap.start(launch(program).args(&self.arguments), &self.cores)
    }
}
