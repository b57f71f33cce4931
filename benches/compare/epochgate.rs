//! epochgate itself: a guard and a stamp on one embedded coordinator, each in front of the upstream, so that either can
//! be measured alone while the other gives it what it needs (a leader whose stamp is admitted; a door that is open).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::running::{Running, Wrap};
use crate::support::client;
use crate::support::ports;
use crate::support::process::{LONG, Launch, eventually};
use crate::targets::Target;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Guard,
    Stamp,
}

/// Both, with an elected and armed leader.
pub struct Pair {
    guard: Side,
    stamp: Side,
    /// What the leader's writes carry.
    epoch: String,
}

/// One of the two processes.
pub struct Side {
    pub process: Running,
    pub listen: SocketAddr,
    launch: Box<dyn Fn() -> Running>,
}

impl Pair {
    /// Starts both, and waits until writes are admitted.
    pub fn start(folder: &Path, upstream: SocketAddr, core: usize, wrap: &Wrap) -> Pair {
        Pair::start_one_wrapped(folder, upstream, core, Role::Guard, wrap)
    }

    /// The same with one of them under a tool.
    pub fn start_one_wrapped(folder: &Path, upstream: SocketAddr, core: usize, role: Role, wrap: &Wrap) -> Pair {
        let wrap_of = |which| if which == role { wrap.clone() } else { Wrap::none() };
        let mut guard = side(folder, "guard", upstream, core, wrap_of(Role::Guard));
        guard.process.await_words("joined", LONG);
        let mut stamp = side(folder, "stamp", upstream, core, wrap_of(Role::Stamp));
        stamp.process.await_words("admin side listening", LONG);
        let admin = admin_of(folder, "stamp");
        eventually("the leader is armed", LONG, || {
            client::get(admin, "/leader?resource=orders").is_ok_and(|answer| answer.status == 200)
        });
        let leader = client::get(admin, "/leader?resource=orders").expect("it has just answered").json();
        let epoch = leader["stamp"].as_str().expect("a leader has a stamp").to_owned();
        Pair { guard, stamp, epoch }
    }

    /// What its guard wants to see.
    pub fn fields(&self, role: Role) -> String {
        match role {
            Role::Guard => format!("Fencing-Epoch: {}\r\n", self.epoch),
            // As many fields as the others get; the stamp adds its own.
            Role::Stamp => "X-Epoch: 7\r\n".to_owned(),
        }
    }

    /// One of the two.
    pub fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Guard => &mut self.guard,
            Role::Stamp => &mut self.stamp,
        }
    }

    /// Both, to be measured.
    pub fn targets(&self) -> [Target; 2] {
        [(Role::Guard, "guard", &self.guard), (Role::Stamp, "stamp", &self.stamp)].map(|(role, name, side)| Target {
            name,
            address: side.listen,
            http2: Some(side.listen),
            fields: self.fields(role),
            process: Some(side.process.id()),
        })
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

fn side(folder: &Path, role: &'static str, upstream: SocketAddr, core: usize, wrap: Wrap) -> Side {
    let own = folder.join(role);
    fs::create_dir_all(&own).expect("it is in a temporary folder");
    let (listen, admin) = (ports::free_address(), ports::free_address());
    let text = format!(
        "id: bench-{role}
state_dir: {own}/state
coordinator: {{ embedded: {epochs}, lease_ttl: 30s }}
resources: {{ orders: {{}} }}
listeners:
  - name: {role}
    role: {role}
    listen: {listen}
    upstream: {{ url: \"http://{upstream}\", version: http1 }}
    resource: orders
    limits: {{ idle_timeout: 1h }}
workers: 1
admin: {{ listen: {admin} }}
audit: {{ output: {own}/audit.jsonl }}
",
        own = own.display(),
        epochs = folder.join("epochs").display(),
    );
    let file = own.join("epochgate.yaml");
    fs::write(&file, text).expect("it is in a temporary folder");
    fs::write(own.join("admin"), admin.to_string()).expect("it is in a temporary folder");
    let launch = Box::new(move || wrap.start(Launch::epochgate(role).args(["run", "-c"]).arg(&file), core));
    Side { process: launch(), listen, launch }
}

fn admin_of(folder: &Path, role: &str) -> SocketAddr {
    let text = fs::read_to_string(folder.join(role).join("admin")).expect("it was just written");
    text.parse().expect("an address was written")
}
