//! epochgate itself: a guard and a stamp on one embedded coordinator, each in front of the upstream, so that either can
//! be measured alone while the other gives it what it needs (a leader whose stamp is admitted; a door that is open).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::epochgate::config::resolved::{SignatureKey, Signatures};
use ::epochgate::fence::Stamp;
use ::epochgate::signing::{Keys, Subject};

use crate::callgrind::{self, Cost, Sending};
use crate::running::{Running, Wrap};
use crate::shape::Shape;
use crate::support::client;
use crate::support::ports;
use crate::support::process::{LONG, Launch, eventually_some};

/// Thirty-two bytes in base64.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// How old a signature may be.
const WINDOW: Duration = Duration::from_secs(300);

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Guard,
    Stamp,
}

impl Role {
    /// Both of them.
    pub const BOTH: [Role; 2] = [Role::Guard, Role::Stamp];

    /// Its name in the configuration and in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Role::Guard => "guard",
            Role::Stamp => "stamp",
        }
    }
}

/// How a pair is set up.
#[derive(Clone)]
pub struct Setup {
    /// As all are.
    pub shape: Shape,
    /// How many resources it has besides `orders`: `many/0` and so on, at `/many/0/`.
    pub resources: usize,
    /// Those of them that have a leader.
    pub led: Vec<usize>,
    /// One of them under a tool.
    pub wrap: Option<(Role, Wrap)>,
    /// The program of the guard where its gate is compiled out.
    pub ungated: Option<PathBuf>,
    /// Whether the stamp signs, and the guard takes nothing unsigned.
    pub signed: bool,
}

impl Setup {
    /// Nothing out of the ordinary.
    pub fn of(shape: &Shape) -> Setup {
        Setup { shape: shape.clone(), resources: 0, led: Vec::new(), wrap: None, ungated: None, signed: false }
    }
}

/// Both, with an elected and armed leader.
pub struct Pair {
    guard: Side,
    stamp: Side,
    /// Where it is, if stamps are signed.
    key: Option<PathBuf>,
}

/// One of the two processes.
pub struct Side {
    pub process: Running,
    pub listen: SocketAddr,
    admin: SocketAddr,
    launch: Box<dyn Fn() -> Running>,
}

impl Pair {
    /// Starts both, and waits until writes are admitted.
    pub fn start(folder: &Path, setup: &Setup) -> Pair {
        let key = setup.signed.then(|| folder.join("k1.key"));
        if let Some(file) = &key {
            fs::write(file, KEY).expect("it is in a temporary folder");
        }
        let mut guard = side(folder, Role::Guard, setup);
        guard.process.await_words("joined", LONG);
        let mut stamp = side(folder, Role::Stamp, setup);
        stamp.process.await_words("admin side listening", LONG);
        let pair = Pair { guard, stamp, key };
        pair.stamp_of("orders");
        pair
    }

    /// What the leader's writes to a resource carry, once it is armed.
    pub fn stamp_of(&self, resource: &str) -> String {
        let ask = || client::get(self.stamp.admin, &format!("/leader?resource={resource}")).ok();
        let leader = eventually_some("the leader is armed", LONG, || ask().filter(|answer| answer.status == 200));
        leader.json()["stamp"].as_str().expect("a leader has a stamp").to_owned()
    }

    /// What a request that is sent like this costs one of them, by callgrind.
    ///
    /// # Errors
    /// What went wrong.
    pub fn cost(folder: &Path, role: Role, setup: &Setup, send: Sending) -> Result<Cost, String> {
        callgrind::measure(folder, true, |folder, wrap, count| {
            let setup = Setup { wrap: Some((role, wrap.clone())), ..setup.clone() };
            let mut pair = Pair::start(folder, &setup);
            let fields = pair.fields(role);
            let side = pair.side(role);
            send(side.listen, &fields, count)?;
            side.stop();
            Ok(())
        })
    }

    /// What its writes carry, each field with its line end.
    pub fn fields(&self, role: Role) -> String {
        match role {
            Role::Guard => format!("Fencing-Epoch: {}\r\n", self.signed(self.stamp_of("orders"))),
            // As many fields as the others get; the stamp adds its own.
            Role::Stamp => "X-Epoch: 7\r\n".to_owned(),
        }
    }

    /// The stamp with a signature, where that is wanted. It is good for as long as a run takes: to a guard each request
    /// costs the same, whether it has seen its signature before or not.
    fn signed(&self, stamp: String) -> String {
        let Some(file) = self.key.clone() else { return stamp };
        let keys = vec![SignatureKey { kid: "k1".parse().expect("an id"), file }];
        let settings = Signatures { keys, window: WINDOW, required: true };
        let keys = Keys::load(&settings).expect("it is a key");
        let read = Stamp::parse(stamp.as_bytes()).expect("a leader has a stamp");
        let subject = Subject::of(&read, "PUT", "/orders/7").expect("a leader's stamp is whole");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        format!("{stamp}{}", keys.sign(&subject, now))
    }

    /// One of the two.
    pub fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Guard => &mut self.guard,
            Role::Stamp => &mut self.stamp,
        }
    }
}

impl Side {
    /// Ends it in order.
    pub fn stop(&mut self) {
        self.process.terminate();
        self.process.wait(LONG);
    }

    /// Starts it again, in the same place.
    pub fn launch(&self) -> Running {
        (self.launch)()
    }
}

fn side(folder: &Path, role: Role, setup: &Setup) -> Side {
    let Shape { cores, workers, upstream, http2 } = setup.shape.clone();
    let name = role.name();
    let own = folder.join(name);
    fs::create_dir_all(&own).expect("it is in a temporary folder");
    let (listen, admin) = (ports::free_address(), ports::free_address());
    let text = format!(
        "id: bench-{name}
state_dir: {own}/state
coordinator: {{ embedded: {epochs}, lease_ttl: 30s }}
resources: {{ orders: {{}}{more} }}
listeners:
  - name: {name}
    role: {name}
    listen: {listen}
    upstream: {{ url: \"http://{upstream}\", version: {version} }}
    resource: orders
{signatures}{rules}{campaign}    limits: {{ idle_timeout: 1h }}
workers: {workers}
admin: {{ listen: {admin} }}
audit: {{ output: {own}/audit.jsonl }}
",
        own = own.display(),
        more = match setup.resources {
            0 => String::new(),
            count => format!(", \"many/{{0..{}}}\": {{}}", count - 1),
        },
        signatures = match (setup.signed, role) {
            (false, _) => String::new(),
            (true, role) => {
                let window =
                    if role == Role::Guard { format!(", window: {}s", WINDOW.as_secs()) } else { String::new() };
                let key = folder.join("k1.key");
                format!("    signatures: {{ keys: [ {{ kid: k1, file: {} }} ]{window} }}\n", key.display())
            }
        },
        rules = match setup.resources {
            0 => "",
            _ => "    rules: [{ path: \"/many/{shard}/**\", resource: \"many/{shard}\" }]\n",
        },
        campaign = match role {
            Role::Stamp if setup.resources > 0 => {
                let led: String = setup.led.iter().map(|shard| format!(", many/{shard}")).collect();
                format!("    campaign: [orders{led}]\n")
            }
            _ => String::new(),
        },
        epochs = folder.join("epochs").display(),
        version = if http2 { "http2" } else { "http1" },
    );
    let file = own.join("epochgate.yaml");
    fs::write(&file, text).expect("it is in a temporary folder");
    let wrap =
        setup.wrap.as_ref().filter(|(which, _)| *which == role).map_or_else(Wrap::none, |(_, wrap)| wrap.clone());
    let ungated = setup.ungated.clone().filter(|_| role == Role::Guard);
    let launch = Box::new(move || {
        let program = match &ungated {
            Some(path) => Launch::program(&path.display().to_string()).env("EPOCHGATE_WITHOUT_GATE", "only to measure"),
            None => Launch::epochgate(name),
        };
        wrap.start(program.args(["run", "-c"]).arg(&file), &cores)
    });
    Side { process: launch(), listen, admin, launch }
}
