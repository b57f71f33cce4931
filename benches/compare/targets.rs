//! What is measured: each proxy as its own process on the first core, in front of the same upstream, with one worker
//! and the nearest that it has to a check of the epoch.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use crate::configs;
use crate::epochgate::Pair;
use crate::running::{Running, Wrap, find, launch};
use crate::support::ports;
use crate::support::process::{LONG, eventually};

/// The field that the other proxies look at.
pub const EPOCH: &str = "X-Epoch: 7\r\n";

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

/// All of them, running.
pub struct Field {
    pub targets: Vec<Target>,
    /// Names of those that are not there, each with the reason.
    pub missing: Vec<String>,
    /// They end with it.
    _processes: Vec<Running>,
    _pair: Pair,
}

impl Field {
    /// Starts what is there.
    pub fn start(folder: &Path, upstream: SocketAddr, core: usize) -> Field {
        let mut field = Field {
            targets: vec![Target {
                name: "direct",
                address: upstream,
                http2: None,
                fields: EPOCH.to_owned(),
                process: None,
            }],
            missing: Vec::new(),
            _processes: Vec::new(),
            _pair: Pair::start(&folder.join("epochgate"), upstream, core, &Wrap::none()),
        };
        for peer in Peer::ALL {
            let Some(program) = peer.program() else {
                field.missing.push(format!(
                    "{}: not found; `tools/fetch {}` gets it where it can",
                    peer.name(),
                    peer.name()
                ));
                continue;
            };
            let plan = peer.plan(&folder.join(peer.name()), upstream);
            let process = plan.launch(&program, core, &Wrap::none());
            field.targets.push(Target {
                name: peer.name(),
                address: plan.listen,
                http2: Some(plan.http2),
                fields: EPOCH.to_owned(),
                process: Some(process.id()),
            });
            field._processes.push(process);
        }
        field.targets.extend(field._pair.targets());
        field
    }
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
    pub fn plan(self, folder: &Path, upstream: SocketAddr) -> Plan {
        std::fs::create_dir_all(folder).expect("it is in a temporary folder");
        let listen = ports::free_address();
        let http2 = if self == Peer::Nginx { ports::free_address() } else { listen };
        let text = match self {
            Peer::Nginx => configs::nginx(listen, http2, upstream),
            Peer::Haproxy => configs::haproxy(listen, upstream),
            Peer::Envoy => configs::envoy(listen, upstream),
        };
        let file = folder.join("config.yaml");
        std::fs::write(&file, text).expect("it is in a temporary folder");
        let (file, folder) = (file.display().to_string(), format!("{}/", folder.display()));
        let arguments = match self {
            Peer::Nginx => vec!["-e".into(), "stderr".into(), "-p".into(), folder, "-c".into(), file],
            Peer::Haproxy => vec!["-db".into(), "-f".into(), file],
            Peer::Envoy => {
                ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", &file].map(str::to_owned).to_vec()
            }
        };
        Plan { listen, http2, arguments }
    }
}

impl Plan {
    /// Starts it, and waits until it listens.
    pub fn launch(&self, program: &Path, core: usize, wrap: &Wrap) -> Running {
        let mut process = self.launch_only(program, core, wrap);
        eventually("a proxy listens", LONG, || {
            assert!(process.is_running(), "{} has ended:\n{}", program.display(), process.recent());
            TcpStream::connect(self.listen).is_ok()
        });
        process
    }

    /// Starts it.
    pub fn launch_only(&self, program: &Path, core: usize, wrap: &Wrap) -> Running {
        wrap.start(launch(program).args(&self.arguments), core)
    }
}
