//! What is measured: each proxy as its own process on the first core, in front of the same upstream, with one worker
//! and the nearest that it has to a check of the epoch.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use crate::configs;
use crate::epochgate::Pair;
use crate::pin;
use crate::support::ports;
use crate::support::process::{LONG, Launch, Process, eventually};

/// The field that the other proxies look at.
const EPOCH: &str = "X-Epoch: 7\r\n";

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
    _processes: Vec<Process>,
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

/// What a process is started under: a tool, and its arguments.
#[derive(Clone, Default)]
pub struct Wrap(pub Vec<String>);

impl Wrap {
    /// Nothing.
    pub fn none() -> Wrap {
        Wrap::default()
    }

    /// Starts a process under it, on this core.
    pub fn start(&self, launch: Launch, core: usize) -> Process {
        let launch = match self.0.split_first() {
            Some((tool, arguments)) => launch.under(tool, &arguments.iter().map(String::as_str).collect::<Vec<_>>()),
            None => launch,
        };
        // What a thread starts is where the thread is: no other program has to run first.
        pin::on(core, || launch.start())
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
    arguments: Vec<String>,
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
    pub fn launch(&self, program: &Path, core: usize, wrap: &Wrap) -> Process {
        let mut process = self.launch_only(program, core, wrap);
        eventually("a proxy listens", LONG, || {
            assert!(process.is_running(), "{} has ended:\n{}", program.display(), process.recent());
            TcpStream::connect(self.listen).is_ok()
        });
        process
    }

    /// Starts it.
    pub fn launch_only(&self, program: &Path, core: usize, wrap: &Wrap) -> Process {
        let launch = Launch::program(&program.display().to_string()).args(&self.arguments);
        wrap.start(launch.env("LD_LIBRARY_PATH", libraries()), core)
    }
}

/// A program of this name. Of what `tools/fetch` unpacked the program itself, not the script that finds its libraries:
/// what is measured has nothing around it.
pub fn find(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    let fetched = ["root/usr/sbin", "root/usr/bin", "bin"].map(|folder| tools.join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = fetched.into_iter().chain(std::env::split_paths(&path)).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Where the libraries of what was unpacked are.
fn libraries() -> OsString {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/root");
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = ["lib", "usr/lib"].map(|folder| root.join(folder).join(&machine));
    std::env::join_paths(folders).unwrap_or_default()
}
